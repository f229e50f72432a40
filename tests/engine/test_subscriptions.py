"""Proves what a company's Stripe subscriptions grant: mapped items, unknown prices, several at once, grace, trials."""

from datetime import timedelta

import msgspec
import pytest

from plangate.engine.catalog import Catalog, Entitlement, Price, PriceOwner
from plangate.engine.decide import decide
from plangate.engine.decision import Reason
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import PlanRef, PlanSource, SubscriptionFact
from plangate.engine.snapshot import HeldAddOn, HeldPlan
from plangate.engine.subscriptions import scheduled_end
from plangate.engine.values import UNLIMITED, Interval, PriceBehaviour, Stacking
from tests.engine.factories import (
    BEGAN,
    NOW,
    RENEWS,
    assigned,
    catalog_of,
    facts,
    item,
    plan,
    price,
    shop,
    subscribed,
)

SHOP = shop()


def test_the_scheduled_end_is_found_in_both_billing_modes() -> None:
    # S8: flexible billing sets cancel_at alone; items may end at different instants.
    later = RENEWS + timedelta(days=300)
    items = (item("price_pro_month_usd"), item("price_audit_month_usd", period_end_at=later))
    assert scheduled_end(cancel_at=NOW, is_cancel_at_period_end=False, items=items) == NOW
    assert scheduled_end(cancel_at=NOW, is_cancel_at_period_end=True, items=items) == NOW
    assert scheduled_end(cancel_at=None, is_cancel_at_period_end=True, items=items) == later
    assert scheduled_end(cancel_at=None, is_cancel_at_period_end=False, items=items) is None
    assert scheduled_end(cancel_at=None, is_cancel_at_period_end=True, items=()) is None


def test_items_are_mapped_by_price_in_any_order() -> None:
    # S10
    metered = item("price_extra_year_usd", quantity=None, is_metered=True)
    items = (metered, item("price_audit_month_usd"), item("price_pro_month_usd", quantity=3))
    for order in (items, items[::-1]):
        snapshot = build_snapshot(SHOP, facts(subscriptions=(subscribed(items=order),)), NOW)
        assert snapshot.plan == HeldPlan(key="pro", version=1, source=PlanSource.SUBSCRIPTION, quantity=3)
        assert set(snapshot.add_ons) == {
            HeldAddOn(key="extra", version=1, quantity=1),
            HeldAddOn(key="audit", version=1, quantity=1),
        }


def test_an_unmapped_price_never_takes_the_plan_away() -> None:
    # S11
    company = facts(subscriptions=(subscribed("mystery"),), last_mapped_plan=PlanRef("pro", 1))
    snapshot = build_snapshot(SHOP, company, NOW)
    assert snapshot.plan == HeldPlan(key="pro", version=1, source=PlanSource.SUBSCRIPTION)
    (notice,) = snapshot.notices
    assert notice.code == "unmapped_price"
    assert "price_mystery_month_usd" in notice.detail


def test_an_unmapped_price_alone_leaves_the_initial_plan() -> None:
    # Another product's subscription, live or ended, says nothing of ours; one of ours does.
    catalog = msgspec.structs.replace(SHOP, initial_plan="gift", plans={**SHOP.plans, "gift": plan("gift")})
    for subscription, last, expected in (
        (subscribed("mystery"), None, ("gift", PlanSource.INITIAL)),
        (subscribed("mystery", status="canceled", ended_at=NOW), None, ("gift", PlanSource.INITIAL)),
        (subscribed("mystery", status="canceled", ended_at=NOW), PlanRef("pro", 1), ("free", PlanSource.FALLBACK)),
        (subscribed("pro", status="canceled", ended_at=NOW), None, ("free", PlanSource.FALLBACK)),
    ):
        company = facts(subscriptions=(subscription,), last_mapped_plan=last)
        held = build_snapshot(catalog, company, NOW).plan
        assert held is not None
        assert (held.key, held.source) == expected


def test_an_unmapped_price_beside_a_mapped_one_is_only_noticed() -> None:
    company = facts(subscriptions=(subscribed("starter", "mystery"),), last_mapped_plan=PlanRef("pro", 1))
    snapshot = build_snapshot(SHOP, company, NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.key == "starter"
    assert [notice.code for notice in snapshot.notices] == ["unmapped_price"]


@pytest.mark.parametrize(
    ("quantity", "is_metered", "limit"),
    [(None, True, 3), (None, False, 3), (7, True, 3), (0, False, 0), (4, False, 12)],
)
def test_s18_only_licensed_items_say_how_many(quantity: int | None, *, is_metered: bool, limit: int) -> None:
    # Without a quantity the plan's own number stands, and nothing is ever unlimited by accident.
    seats = Entitlement(feature="seats", limit=3, stacking=Stacking.SUM)
    catalog = catalog_of([plan("pro", seats, monthly=100)])
    held = subscribed(items=(item("price_pro_month_usd", quantity=quantity, is_metered=is_metered),))
    snapshot = build_snapshot(catalog, facts(subscriptions=(held,), traits={"seats": 0}), NOW)
    decision = decide(snapshot, "seats", {}, at=NOW)
    assert (decision.limit, decision.unlimited) == (limit, False)


@pytest.mark.parametrize(
    ("quantity", "is_metered", "limit"),
    [(None, True, 3), (None, False, 3), (7, True, 3), (0, False, 3), (4, False, 4)],
)
def test_s18_what_was_paid_in_advance_is_the_limit(quantity: int | None, *, is_metered: bool, limit: int) -> None:
    price = Price(currency="usd", interval=Interval.MONTH, amount_minor=900, stripe_price_id="price_seats")
    seats = Entitlement(feature="seats", limit=3, price_behaviour=PriceBehaviour.PAY_IN_ADVANCE, prices=(price,))
    catalog = catalog_of([plan("pro", seats, monthly=100)])
    owners = {**catalog.price_owners, "price_seats": PriceOwner("plan", "pro", 1, price, feature="seats")}
    catalog = msgspec.structs.replace(catalog, price_owners=owners)
    paid = item("price_seats", quantity=quantity, is_metered=is_metered)
    held = subscribed(items=(paid, item("price_pro_month_usd", quantity=5)))
    snapshot = build_snapshot(catalog, facts(subscriptions=(held,), traits={"seats": 0}), NOW)
    assert snapshot.plan == HeldPlan(key="pro", version=1, source=PlanSource.SUBSCRIPTION, quantity=5)
    assert snapshot.notices == ()
    decision = decide(snapshot, "seats", {}, at=NOW)
    assert (decision.limit, decision.unlimited) == (limit, False)


def test_two_items_of_one_plan_add_their_quantities() -> None:
    items = (item("price_pro_month_usd", quantity=2), item("price_pro_year_usd", quantity=3))
    snapshot = build_snapshot(SHOP, facts(subscriptions=(subscribed(items=items),)), NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.quantity == 5


def test_of_several_subscriptions_the_dearest_is_the_base_and_the_conflict_is_noticed() -> None:
    # Starter yearly at 190 is 15.83 a month: less than Pro at 49, although the number is larger.
    yearly = item("price_starter_year_usd", interval=Interval.YEAR)
    starter = subscribed(stripe_subscription_id="sub_a", items=(yearly,))
    pro = subscribed("pro", stripe_subscription_id="sub_b", anchor_at=NOW)
    for order in ((starter, pro), (pro, starter)):
        snapshot = build_snapshot(SHOP, facts(subscriptions=order), NOW)
        assert snapshot.plan is not None
        assert snapshot.plan.key == "pro"
        assert snapshot.subscription == pro
        assert snapshot.anchor_at == NOW
        (notice,) = snapshot.notices
        assert notice.code == "several_subscriptions"
        assert "sub_a, sub_b" in notice.detail


def test_equal_prices_are_told_apart_by_the_subscription() -> None:
    first, second = (
        subscribed("pro", stripe_subscription_id=name, anchor_at=at) for name, at in (("sub_a", BEGAN), ("sub_b", NOW))
    )
    for order in ((first, second), (second, first)):
        assert build_snapshot(SHOP, facts(subscriptions=order), NOW).subscription == first


def test_prices_of_several_subscriptions_are_compared_in_one_currency() -> None:
    yen = plan("yen", prices=(price("yen", Interval.MONTH, 5000, currency="jpy"), price("yen", Interval.MONTH, 3000)))
    catalog = catalog_of([plan("pro", monthly=4900), yen])
    held = (
        subscribed("pro", stripe_subscription_id="sub_a"),
        msgspec.structs.replace(
            subscribed(stripe_subscription_id="sub_b", items=(item("price_yen_month_jpy"),)), currency="jpy"
        ),
    )
    snapshot = build_snapshot(catalog, facts(subscriptions=held), NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.key == "pro"


def test_grace_ends_access_and_the_snapshot() -> None:
    held = subscribed("pro", status="past_due", past_due_since=NOW - timedelta(days=6))
    snapshot = build_snapshot(SHOP, facts(subscriptions=(held,)), NOW)
    grace_ends_at = NOW + timedelta(days=1)
    assert snapshot.valid_until == grace_ends_at
    assert [notice.code for notice in snapshot.notices] == ["past_due"]
    after = build_snapshot(SHOP, facts(subscriptions=(held,)), grace_ends_at)
    assert after.plan == HeldPlan(key="free", version=1, source=PlanSource.FALLBACK)
    assert [notice.code for notice in after.notices] == ["grace_ended"]


def test_grace_counts_from_the_renewal_when_the_first_failure_was_not_seen() -> None:
    held = subscribed("pro", status="past_due")
    snapshot = build_snapshot(SHOP, facts(subscriptions=(held,)), BEGAN)
    assert snapshot.valid_until == BEGAN + timedelta(days=7)


def test_grace_of_zero_days_is_no_grace() -> None:
    held = subscribed("pro", status="past_due", past_due_since=NOW)
    company = facts(subscriptions=(held,), past_due_grace_days=0)
    snapshot = build_snapshot(SHOP, company, NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.key == "free"


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"status": "hibernating"}, "unknown_status"), ({"is_collection_paused": True}, "collection_paused")],
)
def test_what_a_person_should_look_at_is_noticed(fields: dict[str, object], code: str) -> None:
    snapshot = build_snapshot(SHOP, facts(subscriptions=(subscribed("pro", **fields),)), NOW)
    assert [notice.code for notice in snapshot.notices] == [code]


def test_a_subscription_of_add_ons_alone_leaves_the_plan_and_gives_the_period() -> None:
    company = facts(subscriptions=(subscribed("audit", anchor_at=BEGAN + timedelta(days=1)),))
    snapshot = build_snapshot(SHOP, company, NOW)
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.plan.source) == ("free", PlanSource.FALLBACK)
    assert [one.key for one in snapshot.add_ons] == ["audit"]
    assert snapshot.anchor_at == BEGAN + timedelta(days=1)
    assert snapshot.notices == ()


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"status": "paused", "trial_end_at": NOW}, "starter"),
        ({"status": "paused", "trial_end_at": NOW + timedelta(seconds=1)}, "free"),
        ({"status": "paused"}, "free"),
        ({"status": "canceled", "trial_end_at": BEGAN, "ended_at": BEGAN}, "starter"),
        ({"status": "canceled", "trial_end_at": BEGAN, "ended_at": NOW}, "free"),
        ({"status": "unpaid", "trial_end_at": BEGAN}, "free"),
    ],
)
def test_a_trial_that_ended_without_a_card_leads_to_its_own_plan(fields: dict[str, object], key: str) -> None:
    catalog = msgspec.structs.replace(SHOP, trial_expiry_plan="starter")
    snapshot = build_snapshot(catalog, facts(subscriptions=(subscribed("pro", **fields),)), NOW)
    assert snapshot.plan is not None
    source = PlanSource.TRIAL_EXPIRY if key == "starter" else PlanSource.FALLBACK
    assert (snapshot.plan.key, snapshot.plan.source) == (key, source)


def test_what_was_paid_for_after_a_trial_ends_like_anything_else() -> None:
    catalog = msgspec.structs.replace(SHOP, trial_expiry_plan="starter")
    day = timedelta(days=1)
    trial = subscribed("pro", status="canceled", trial_end_at=BEGAN, ended_at=BEGAN)
    waiting = subscribed("pro", status="paused", trial_end_at=BEGAN)
    bought = subscribed("pro", stripe_subscription_id="sub_2")

    def source(*subscriptions: SubscriptionFact) -> PlanSource:
        (one,) = {
            build_snapshot(catalog, facts(subscriptions=rows), NOW).plan
            for rows in (subscriptions, tuple(reversed(subscriptions)))
        }
        assert one is not None
        return one.source

    for first in (trial, waiting):
        later = msgspec.structs.replace(bought, status="canceled", ended_at=BEGAN + day)
        assert source(first, later) is PlanSource.FALLBACK
        earlier = msgspec.structs.replace(bought, status="canceled", ended_at=BEGAN - day)
        assert source(first, earlier) is PlanSource.TRIAL_EXPIRY
        together = msgspec.structs.replace(bought, status="canceled", ended_at=BEGAN)
        assert source(first, together) is PlanSource.TRIAL_EXPIRY
        assert source(first, msgspec.structs.replace(bought, status="unpaid")) is PlanSource.FALLBACK
        # What was never paid for is no later subscription.
        assert source(first, msgspec.structs.replace(bought, status="incomplete")) is PlanSource.TRIAL_EXPIRY
        assert source(first, bought) is PlanSource.SUBSCRIPTION


def _sold_by_use(*, with_extra: bool) -> tuple[Catalog, SubscriptionFact]:
    """A plan that costs nothing but its exports, and a subscription to them beside an add-on or pro's seats."""
    used = Price(currency="usd", interval=Interval.MONTH, amount_minor=1, stripe_price_id="price_used", is_metered=True)
    seat = Price(currency="usd", interval=Interval.MONTH, amount_minor=900, stripe_price_id="price_seats")
    payg = plan(
        "payg",
        Entitlement(feature="exports", limit=UNLIMITED, price_behaviour=PriceBehaviour.PAY_AS_YOU_GO, prices=(used,)),
    )
    pro = plan(
        "pro",
        Entitlement(feature="seats", limit=3, price_behaviour=PriceBehaviour.PAY_IN_ADVANCE, prices=(seat,)),
        monthly=100,
    )
    catalog = shop()
    catalog = msgspec.structs.replace(
        catalog,
        plans={**catalog.plans, "payg": payg, "pro": pro},
        price_owners={
            **catalog.price_owners,
            "price_used": PriceOwner("plan", "payg", 1, used, feature="exports"),
            "price_seats": PriceOwner("plan", "pro", 1, seat, feature="seats"),
        },
    )
    beside = item("price_extra_month_usd") if with_extra else item("price_seats", quantity=5)
    return catalog, subscribed(items=(beside, item("price_used", quantity=None, is_metered=True)))


def test_what_costs_only_what_is_used_is_held_beside_an_add_on() -> None:
    catalog, held = _sold_by_use(with_extra=True)
    snapshot = build_snapshot(catalog, facts(subscriptions=(held,)), NOW)
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.plan.source) == ("payg", PlanSource.SUBSCRIPTION)
    assert [one.key for one in snapshot.add_ons] == ["extra"]
    assert snapshot.notices == ()


def test_seats_of_a_plan_that_is_not_held_grant_nothing_and_are_noticed() -> None:
    catalog, held = _sold_by_use(with_extra=False)
    snapshot = build_snapshot(catalog, facts(subscriptions=(held,), traits={"seats": 0}), NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.key == "payg"
    (notice,) = snapshot.notices
    assert notice.code == "part_without_plan"
    assert "pays for features of Pro, which is not held" in notice.detail
    assert decide(snapshot, "seats", {}, at=NOW).reason is Reason.NO_ENTITLEMENT


def test_grace_counts_from_the_newest_renewal_of_several_items() -> None:
    yearly = item("price_extra_year_usd", interval=Interval.YEAR, period_start_at=BEGAN - timedelta(days=300))
    late = subscribed(items=(yearly, item("price_pro_month_usd")), status="past_due")
    snapshot = build_snapshot(SHOP, facts(subscriptions=(late,)), BEGAN + timedelta(days=1))
    assert snapshot.plan is not None
    assert snapshot.plan.key == "pro"
    assert snapshot.valid_until == BEGAN + timedelta(days=7)


def test_an_add_on_held_with_and_without_a_quantity_is_held_once() -> None:
    metered = subscribed(items=(item("price_pro_month_usd"), item("price_extra_month_usd", quantity=None)))
    company = facts(subscriptions=(metered,), assignments=(assigned("extra", kind="add_on", quantity=2),))
    assert build_snapshot(SHOP, company, NOW).add_ons == (HeldAddOn(key="extra", version=1, quantity=2),)
    counted = subscribed("pro", "extra")
    more = subscribed(items=(item("price_extra_month_usd", quantity=None),), stripe_subscription_id="sub_2")
    company = facts(subscriptions=(counted, more))
    assert build_snapshot(SHOP, company, NOW).add_ons == (HeldAddOn(key="extra", version=1, quantity=1),)


def test_what_is_withheld_or_paused_says_that_the_subscription_is_inactive() -> None:
    withheld = facts(subscriptions=(subscribed("pro"),), withheld=frozenset({"sub_1"}))
    paused = facts(
        subscriptions=(subscribed("pro", is_collection_paused=True, collection_paused_until=BEGAN),),
    )
    for company in (withheld, paused):
        snapshot = build_snapshot(shop(paused_collection="fallback"), company, NOW)
        assert decide(snapshot, "sso", {}, at=NOW).reason is Reason.SUBSCRIPTION_INACTIVE
        # What nobody sells has no subscription to resume.
        assert decide(snapshot, "upload-mb", {}, at=NOW).reason is Reason.SUBSCRIPTION_INACTIVE
        assert decide(snapshot, "seats", {}, at=NOW).reason is not Reason.SUBSCRIPTION_INACTIVE
