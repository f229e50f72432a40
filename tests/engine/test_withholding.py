"""Access that ends for a reason of ours: a payment under review, or collection paused beyond what was paid for."""

from datetime import timedelta

import pytest

from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, SubscriptionFact
from plangate.engine.holdings import boundaries
from plangate.engine.subscriptions import is_live
from tests.engine.factories import NOW, RENEWS, facts, shop, subscribed

_LATER = RENEWS + timedelta(days=31)


def held(subscription: SubscriptionFact, *, withheld: bool = False) -> CompanyFacts:
    names = frozenset({subscription.stripe_subscription_id} if withheld else ())
    return facts(subscriptions=(subscription,), withheld=names)


def test_s24_a_withheld_subscription_grants_nothing_and_says_so() -> None:
    catalog, subscription = shop(), subscribed("pro")
    assert is_live(catalog, held(subscription), subscription, NOW)
    company = held(subscription, withheld=True)
    assert not is_live(catalog, company, subscription, NOW)
    snapshot = build_snapshot(catalog, company, NOW)
    assert snapshot.plan is None or snapshot.plan.key != "pro"
    assert [notice.code for notice in snapshot.notices] == ["access_withheld"]


@pytest.mark.parametrize("policy", ["keep", "fallback"])
def test_s5_paused_collection_ends_access_by_policy_and_at_the_paid_periods_end(policy: str) -> None:
    catalog = shop(paused_collection=policy)
    subscription = subscribed("pro", is_collection_paused=True, collection_paused_until=RENEWS)
    company = held(subscription)
    last = RENEWS - timedelta(microseconds=1)
    assert [is_live(catalog, company, subscription, at) for at in (NOW, last, RENEWS, _LATER)] == [
        True,
        True,
        policy == "keep",
        policy == "keep",
    ]
    assert (RENEWS in boundaries(catalog, company)) is (policy == "fallback")
    (notice,) = build_snapshot(catalog, company, _LATER).notices
    assert notice.code == "collection_paused"
    assert ("goes on" in notice.detail) is (policy == "keep")


def test_s5_a_pause_nobody_saw_begin_ends_with_the_present_period() -> None:
    catalog = shop(paused_collection="fallback")
    subscription = subscribed("pro", is_collection_paused=True)
    ends = max(item.period_end_at for item in subscription.items)
    company = held(subscription)
    assert is_live(catalog, company, subscription, ends - timedelta(microseconds=1))
    assert not is_live(catalog, company, subscription, ends)


def test_s5_what_is_not_paused_has_no_such_end() -> None:
    catalog, subscription = shop(paused_collection="fallback"), subscribed("pro")
    assert is_live(catalog, held(subscription), subscription, _LATER)
