"""Proves that waiting is offered where, and only where, the same question is answered yes at a reset."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from plangate.engine.catalog import Catalog, Flag
from plangate.engine.decide import decide
from plangate.engine.decision import Unlock
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, PlanRef, ScheduledPhase, UserFacts, WindowCounter
from plangate.engine.values import OverrideMode, PeriodKind
from tests.engine.factories import (
    BEGAN,
    NOW,
    RENEWS,
    catalog_of,
    counter,
    exports,
    facts,
    override,
    plan,
    shop,
    subscribed,
)

SHOP = shop()
TOMORROW = datetime(2026, 11, 21, tzinfo=UTC)
MONTHLY = ("exports", PeriodKind.BILLING_MONTH, "")
DAILY = ("exports", PeriodKind.DAY, "")


def wait(
    company: CompanyFacts,
    counters: Mapping[tuple[str, PeriodKind, str], WindowCounter],
    quantity: int = 1,
    *,
    catalog: Catalog = SHOP,
    user: UserFacts | None = None,
) -> Unlock | None:
    snapshot = build_snapshot(catalog, company, NOW)
    decision = decide(snapshot, "exports", counters, at=NOW, quantity=quantity, user=user, with_trace=True)
    assert not decision.allowed
    assert decision.trace is not None
    return next((one for one in decision.trace.options if one.kind == "wait"), None)


def daily_and_monthly() -> Catalog:
    return catalog_of([plan("pro", exports(10, period=PeriodKind.DAY), exports(1000), monthly=4900)])


def test_the_first_reset_that_helps_is_offered_whichever_window_is_shown() -> None:
    catalog, company = daily_and_monthly(), facts(subscriptions=(subscribed("pro"),))
    today = counter(8, start_at=TOMORROW - timedelta(days=1), end_at=TOMORROW)
    counters = {DAILY: today, MONTHLY: counter(997)}
    # The month is shown, three being left of it, but tomorrow there are ten for the day.
    assert wait(company, counters, 5, catalog=catalog) == Unlock(kind="wait", at=TOMORROW, limit=10)
    # The day is shown, two being left, but only a new month has twenty.
    counters = {DAILY: today, MONTHLY: counter(999)}
    assert wait(company, counters, 20, catalog=catalog) == Unlock(kind="wait", at=RENEWS, limit=1000)
    assert wait(company, counters, 1001, catalog=catalog) is None


def test_an_override_that_is_over_by_the_reset_is_nothing_to_wait_for() -> None:
    lasting = override(OverrideMode.SET, 50)
    company = facts(overrides=(lasting,))
    assert wait(company, {MONTHLY: counter(50)}, 20) == Unlock(kind="wait", at=RENEWS, limit=50)
    ending = msgspec.structs.replace(lasting, expires_at=RENEWS)
    company = facts(overrides=(ending,))
    # The override is gone at that very instant: the plan's own ten are left.
    assert wait(company, {MONTHLY: counter(50)}, 20) is None
    assert wait(company, {MONTHLY: counter(50)}, 10) == Unlock(kind="wait", at=RENEWS, limit=10)


def test_an_override_that_begins_by_the_reset_counts() -> None:
    starting = override(OverrideMode.SET, "unlimited", starts_at=RENEWS)
    waited = wait(facts(overrides=(starting,)), {MONTHLY: counter(10)}, 500)
    assert waited == Unlock(kind="wait", at=RENEWS, limit="unlimited")


def test_what_is_set_to_end_by_the_reset_is_nothing_to_wait_for() -> None:
    ending = subscribed("pro", scheduled_end_at=RENEWS)
    assert wait(facts(subscriptions=(ending,)), {MONTHLY: counter(1000)}, 11) is None
    assert wait(facts(subscriptions=(ending,)), {MONTHLY: counter(1000)}, 10) == Unlock(
        kind="wait", at=RENEWS, limit=10
    )
    later = subscribed("pro", scheduled_end_at=RENEWS + timedelta(seconds=1))
    assert wait(facts(subscriptions=(later,)), {MONTHLY: counter(1000)}, 11) == Unlock(
        kind="wait", at=RENEWS, limit=1000
    )


def test_a_downgrade_scheduled_for_the_reset_is_reckoned_with() -> None:
    phases = (
        ScheduledPhase(starts_at=BEGAN, ends_at=RENEWS, prices=(("price_pro_month_usd", 1),)),
        ScheduledPhase(starts_at=RENEWS, ends_at=None, prices=(("price_starter_month_usd", 1),), known_since=NOW),
    )
    company = facts(subscriptions=(subscribed("pro", phases=phases, is_schedule_ours=True),))
    assert wait(company, {MONTHLY: counter(1000)}, 100) == Unlock(kind="wait", at=RENEWS, limit=100)
    assert wait(company, {MONTHLY: counter(1000)}, 101) is None
    yearly = ScheduledPhase(starts_at=RENEWS, ends_at=None, prices=(("price_starter_year_usd", 1),))
    company = facts(subscriptions=(subscribed("pro", phases=(yearly,), is_schedule_ours=True),))
    assert wait(company, {MONTHLY: counter(1000)}, 100) == Unlock(kind="wait", at=RENEWS, limit=100)


def test_a_price_that_is_unknown_in_a_later_phase_takes_no_plan_away() -> None:
    unknown = ScheduledPhase(starts_at=RENEWS, ends_at=None, prices=(("price_of_somebody", 1),))
    held = subscribed("pro", phases=(unknown,))
    company = facts(subscriptions=(held,), last_mapped_plan=PlanRef("pro", 1))
    assert wait(company, {MONTHLY: counter(1000)}, 11) == Unlock(kind="wait", at=RENEWS, limit=1000)


def test_a_users_own_allowance_is_waited_for_too() -> None:
    catalog = catalog_of([plan("free", exports(5, scope="user", period=PeriodKind.DAY))], fallback_plan="free")
    own = {("exports", PeriodKind.DAY, "user_ann"): counter(5, start_at=TOMORROW - timedelta(days=1), end_at=TOMORROW)}
    ann = UserFacts(user_id="user_ann")
    assert wait(facts(), own, 5, catalog=catalog, user=ann) == Unlock(kind="wait", at=TOMORROW, limit=5)
    assert wait(facts(), own, 6, catalog=catalog, user=ann) is None
    # With a user's own override of another period, its reset is the one that helps.
    raised = override(OverrideMode.SET, 9, user="user_ann", period=PeriodKind.BILLING_MONTH)
    used = {**own, ("exports", PeriodKind.BILLING_MONTH, "user_ann"): counter(9)}
    assert wait(facts(overrides=(raised,)), used, 6, catalog=catalog, user=ann) == Unlock(
        kind="wait", at=RENEWS, limit=9
    )


def test_nothing_resets_what_is_for_all_time_or_denied() -> None:
    catalog = catalog_of([plan("free", exports(5, period=PeriodKind.ALL_TIME))], fallback_plan="free")
    counters = {("exports", PeriodKind.ALL_TIME, ""): counter(5, end_at=None)}
    assert wait(facts(), counters, catalog=catalog) is None
    assert wait(facts(overrides=(override(OverrideMode.DENY),)), {}) is None
    forced = msgspec.structs.replace(SHOP.features["exports"], flag=Flag(forced=False))
    off = msgspec.structs.replace(SHOP, features={**SHOP.features, "exports": forced})
    assert wait(facts(), {}, catalog=off) is None
