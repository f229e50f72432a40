"""Proves what a change is called, when it happens, and why it may not."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plangate.engine.catalog import Catalog, CatalogSettings, Entitlement
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import ScheduledPhase, SubscriptionFact
from plangate.engine.holding import Holding, holding_of, unit_key
from plangate.engine.plan_change import (
    ChangeKind,
    Immediate,
    Reduction,
    Refused,
    Scheduled,
    Verdict,
    Violation,
    classify,
    fitted,
    judge,
    reductions,
    timing,
)
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.values import Interval, PriceBehaviour
from plangate.errors import Code
from tests.engine.factories import NOW, RENEWS, assigned, catalog_of, facts, plan, price, shop, subscribed

SHOP = shop()
OVER = Violation(feature="exports", name="Exports", used=101, limit=100)


def on(plan_key: str | None, interval: Interval = Interval.MONTH, **fields: Any) -> Holding:  # noqa: ANN401 - passed through.
    is_paid = plan_key in {"starter", "pro"}
    return Holding(
        plan=plan_key,
        interval=interval if is_paid else None,
        currency="usd" if is_paid else None,
        **fields,
    )


def snapshot_of(*subscriptions: SubscriptionFact, catalog: Catalog = SHOP) -> CompanySnapshot:
    return build_snapshot(catalog, facts(subscriptions=subscriptions), NOW)


def verdict(
    current: Holding,
    target: Holding,
    subscription: SubscriptionFact | None = None,
    catalog: Catalog = SHOP,
    **options: Any,  # noqa: ANN401 - passed through.
) -> Verdict:
    subscriptions = [] if subscription is None else [subscription]
    return judge(catalog, snapshot_of(*subscriptions, catalog=catalog), current, target, at=NOW, **options)


def refusal(found: Verdict) -> Code:
    assert isinstance(found, Refused), found
    assert found.detail.endswith(".")
    return found.code


@pytest.mark.parametrize(
    ("current", "target", "kind"),
    [
        (on("free"), on("pro"), ChangeKind.SUBSCRIBE),
        (on(None), on("pro"), ChangeKind.SUBSCRIBE),
        (on("pro"), on("free"), ChangeKind.CANCEL),
        (on("pro"), on(None), ChangeKind.CANCEL),
        (on("starter"), on("pro"), ChangeKind.UPGRADE),
        (on("pro"), on("starter"), ChangeKind.DOWNGRADE),
        # Starter costs 190 a year, 15.83 a month; Pro 49 a month: the monthly price decides, not the interval.
        (on("starter", Interval.YEAR), on("pro"), ChangeKind.UPGRADE),
        (on("pro"), on("starter", Interval.YEAR), ChangeKind.DOWNGRADE),
        # Pro yearly is 40.83 a month, less than Pro monthly; the same plan goes by the interval.
        (on("pro"), on("pro", Interval.YEAR), ChangeKind.UPGRADE),
        (on("pro", Interval.YEAR), on("pro"), ChangeKind.DOWNGRADE),
        (on("pro", Interval.YEAR, quantity=1), on("pro", quantity=9), ChangeKind.DOWNGRADE),
        (on("pro"), on("pro", quantity=2), ChangeKind.UPGRADE),
        (on("pro", quantity=2), on("pro"), ChangeKind.DOWNGRADE),
        (on("pro"), on("pro", add_ons={"extra": 1}), ChangeKind.UPGRADE),
        (on("pro", add_ons={"extra": 2}), on("pro", add_ons={"extra": 1}), ChangeKind.DOWNGRADE),
        (on("pro", add_ons={"extra": 1}), on("pro"), ChangeKind.DOWNGRADE),
        (on("free"), on("free", add_ons={"extra": 1}), ChangeKind.UPGRADE),
        # Both ways at once: 29 a month more for audit against 9 less for extra.
        (on("pro", add_ons={"extra": 1}), on("pro", add_ons={"audit": 1}), ChangeKind.UPGRADE),
        (on("pro", add_ons={"audit": 1}), on("pro", add_ons={"extra": 1}), ChangeKind.DOWNGRADE),
        # A mixed change: the plan decides.
        (on("starter", quantity=5, add_ons={"extra": 1}), on("pro"), ChangeKind.UPGRADE),
        (on("pro"), on("starter", quantity=50), ChangeKind.DOWNGRADE),
        # A plan sold by hand has no price and counts as the dearest.
        (on("pro"), on("enterprise"), ChangeKind.UPGRADE),
        (on("enterprise"), on("pro"), ChangeKind.DOWNGRADE),
        (on("free"), on("enterprise"), ChangeKind.SUBSCRIBE),
        (on("enterprise"), on("free"), ChangeKind.CANCEL),
        (on("pro"), on("pro"), ChangeKind.NO_CHANGE),
        (on("free"), on("free"), ChangeKind.NO_CHANGE),
        (on(None), on("free"), ChangeKind.UPGRADE),
    ],
)
def test_what_a_change_is_called(current: Holding, target: Holding, kind: ChangeKind) -> None:
    assert classify(SHOP, current, target) is kind


def test_d22_equal_prices_are_an_upgrade_both_ways() -> None:
    # D22
    catalog = catalog_of([plan("one", monthly=1000), plan("two", monthly=1000)])
    one, two = Holding(plan="one", currency="usd"), Holding(plan="two", currency="usd")
    assert classify(catalog, one, two) is ChangeKind.UPGRADE
    assert classify(catalog, two, one) is ChangeKind.UPGRADE


def test_prices_are_compared_in_one_currency() -> None:
    # In yen the numbers are larger; they must not be compared with cents.
    dear = plan(
        "dear", prices=(price("dear", Interval.MONTH, 9000), price("dear", Interval.MONTH, 8000, currency="eur"))
    )
    cheap = plan(
        "cheap", prices=(price("cheap", Interval.MONTH, 10**6, currency="jpy"), price("cheap", Interval.MONTH, 500))
    )
    catalog = catalog_of([dear, cheap])
    before = Holding(plan="dear", interval=Interval.MONTH, currency="eur")
    after = Holding(plan="cheap", interval=Interval.MONTH, currency="jpy")
    assert classify(catalog, before, after) is ChangeKind.DOWNGRADE
    assert classify(catalog, after, before) is ChangeKind.UPGRADE


def test_a_newer_version_alone_goes_by_its_price() -> None:
    newer = catalog_of([plan("pro", monthly=5000, version=2)])
    old = plan("pro", monthly=4000, version=1)
    catalog = msgspec.structs.replace(newer, older_versions={"plan/pro@1": old})
    held, sold = on("pro", version=1), on("pro", version=2)
    assert classify(catalog, held, sold) is ChangeKind.UPGRADE
    assert classify(catalog, sold, held) is ChangeKind.DOWNGRADE


intervals = st.sampled_from(Interval)


@given(
    st.lists(st.integers(1, 20), min_size=3, max_size=3),
    st.tuples(st.integers(0, 2), intervals, st.integers(1, 3), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(0, 2), intervals, st.integers(1, 3), st.integers(0, 3), st.integers(0, 3)),
)
def test_d22_strict_pairs_are_antisymmetric(
    amounts: list[int],
    first: tuple[int, Interval, int, int, int],
    second: tuple[int, Interval, int, int, int],
) -> None:
    catalog = catalog_of(
        [
            *(
                plan(f"p{number}", prices=tuple(price(f"p{number}", one, amount) for one in Interval))
                for number, amount in enumerate(amounts)
            ),
            plan("x", monthly=3, kind="add_on"),
            plan("y", monthly=5, kind="add_on"),
        ]
    )

    def holding(parts: tuple[int, Interval, int, int, int]) -> Holding:
        number, interval, quantity, x, y = parts
        add_ons = {key: bought for key, bought in (("x", x), ("y", y)) if bought}
        return Holding(plan=f"p{number}", interval=interval, currency="usd", quantity=quantity, add_ons=add_ons)

    there, back = classify(catalog, holding(first), holding(second)), classify(catalog, holding(second), holding(first))
    opposite = {
        ChangeKind.UPGRADE: {ChangeKind.DOWNGRADE, ChangeKind.UPGRADE},  # equal amounts are upgrades both ways
        ChangeKind.DOWNGRADE: {ChangeKind.UPGRADE},
        ChangeKind.NO_CHANGE: {ChangeKind.NO_CHANGE},
    }
    assert back in opposite[there]
    assert (there is ChangeKind.NO_CHANGE) is (holding(first) == holding(second))


def test_reductions_are_listed_whatever_the_change_is_called() -> None:
    current = on("starter", Interval.YEAR, quantity=5, add_ons={"extra": 2})
    assert reductions(SHOP, current, on("pro", quantity=3, add_ons={"extra": 1})) == (
        Reduction(kind="interval", key="starter", before="year", after="month"),
        Reduction(kind="quantity", key="pro", before=5, after=3),
        Reduction(kind="add_on", key="extra", before=2, after=1),
    )
    assert reductions(SHOP, on("pro"), on("starter")) == (
        Reduction(kind="plan", key="pro", before="pro", after="starter"),
    )
    assert reductions(SHOP, on("starter"), on("pro")) == ()
    kept = {"extra": 1}
    assert reductions(SHOP, on("starter", add_ons=kept), on("pro", add_ons=kept)) == ()


def test_an_upgrade_is_immediate_and_keeps_the_period() -> None:
    found = verdict(on("starter"), on("pro"), subscribed("starter"))
    assert found == Immediate(kind=ChangeKind.UPGRADE, effective_at=NOW, target=on("pro"))


def test_an_upgrade_of_the_interval_starts_a_new_period() -> None:
    found = verdict(on("pro"), on("pro", Interval.YEAR), subscribed("pro"))
    assert isinstance(found, Immediate)
    assert found.starts_new_period


def test_a_subscription_is_immediate() -> None:
    found = verdict(on("free"), on("pro"))
    assert isinstance(found, Immediate)
    assert (found.kind, found.starts_new_period) == (ChangeKind.SUBSCRIBE, True)
    assert isinstance(verdict(on("free"), on("pro"), when="period_end"), Immediate)


def test_a_downgrade_waits_for_the_end_of_the_period() -> None:
    found = verdict(on("pro"), on("starter"), subscribed("pro"))
    assert isinstance(found, Scheduled)
    assert (found.kind, found.effective_at) == (ChangeKind.DOWNGRADE, RENEWS)


def test_a_downgrade_is_immediate_where_the_catalogue_says_so() -> None:
    found = verdict(on("pro"), on("starter"), subscribed("pro"), shop(downgrades="now"))
    assert isinstance(found, Immediate)
    assert found.starts_new_period
    assert isinstance(verdict(on("pro"), on("starter"), subscribed("pro"), when="now"), Immediate)
    later = verdict(on("pro"), on("starter"), subscribed("pro"), shop(downgrades="now"), when="period_end")
    assert isinstance(later, Scheduled)


def test_removing_an_add_on_or_quantity_follows_the_same_setting() -> None:
    for current in (on("pro", add_ons={"extra": 1}), on("pro", quantity=2)):
        assert isinstance(verdict(current, on("pro"), subscribed("pro")), Scheduled)
        assert isinstance(verdict(current, on("pro"), subscribed("pro"), shop(downgrades="now")), Immediate)


def test_without_a_paid_period_everything_is_immediate() -> None:
    catalog = SHOP
    snapshot = build_snapshot(catalog, facts(assignments=(assigned("pro"),)), NOW)
    assert timing(catalog, snapshot, on("pro"), on("starter"), at=NOW) is None


def test_when_the_paid_period_is_over_a_downgrade_does_not_wait_for_it() -> None:
    snapshot = snapshot_of(subscribed("pro"))
    assert timing(SHOP, snapshot, on("pro"), on("starter"), at=RENEWS - timedelta(microseconds=1)) == RENEWS
    assert timing(SHOP, snapshot, on("pro"), on("starter"), at=RENEWS) is None


def test_a_cancellation_ends_the_add_ons_with_the_plan() -> None:
    found = verdict(on("pro", add_ons={"extra": 2}), on("free", add_ons={"extra": 2}), subscribed("pro", "extra"))
    assert isinstance(found, Scheduled)
    assert (found.kind, found.ends, found.target.add_ons) == (ChangeKind.CANCEL, ("extra",), {})


def test_an_add_on_that_does_not_fit_ends_at_the_same_instant() -> None:
    current = on("pro", add_ons={"audit": 1, "extra": 1})
    found = verdict(current, on("starter", add_ons={"audit": 1, "extra": 1}), subscribed("pro", "audit", "extra"))
    assert isinstance(found, Scheduled)
    assert (found.ends, found.target.add_ons) == (("audit",), {"extra": 1})
    assert Reduction(kind="add_on", key="audit", before=1, after=0) in found.reductions


def test_an_add_on_without_a_list_fits_every_plan() -> None:
    catalog = catalog_of([plan("pro", monthly=1), plan("any", monthly=1, kind="add_on")])
    assert fitted(catalog, on("pro", add_ons={"any": 1})) == (on("pro", add_ons={"any": 1}), ())
    assert fitted(catalog, on(None, add_ons={"any": 1}))[1] == ("any",)


def test_buying_an_add_on_that_does_not_fit_is_refused() -> None:
    found = verdict(on("starter"), on("starter", add_ons={"audit": 1}), subscribed("starter"))
    assert refusal(found) is Code.ADD_ON_UNFIT


OURS = subscribed(
    "pro",
    stripe_schedule_id="sub_sched_1",
    is_schedule_ours=True,
    phases=(ScheduledPhase(starts_at=RENEWS, ends_at=None, prices=(("price_starter_month_usd", 1),)),),
)
ENDING = subscribed("pro", scheduled_end_at=RENEWS)


@pytest.mark.parametrize("subscription", [OURS, ENDING], ids=["downgrade", "cancellation"])
def test_while_a_downgrade_is_scheduled_nothing_more_is_bought(subscription: SubscriptionFact) -> None:
    for target in (on("pro", add_ons={"extra": 1}), on("pro", quantity=2)):
        found = verdict(on("pro"), target, subscription)
        assert refusal(found) is Code.DOWNGRADE_SCHEDULED
        assert isinstance(found, Refused)
        assert found.way_out == "cancel_scheduled"


def test_an_upgrade_of_plan_or_interval_removes_the_scheduled_change() -> None:
    found = verdict(on("pro"), on("pro", Interval.YEAR, add_ons={"extra": 1}), OURS)
    assert isinstance(found, Immediate)
    assert found.removes_scheduled


def test_another_downgrade_replaces_the_scheduled_one_and_cancelling_is_always_possible() -> None:
    for target in (on("starter"), on("free")):
        found = verdict(on("pro"), target, OURS)
        assert isinstance(found, Scheduled)
        assert found.removes_scheduled
    assert refusal(verdict(on("pro"), on("starter", add_ons={"extra": 1}), OURS)) is Code.DOWNGRADE_SCHEDULED


def test_a_phase_that_has_begun_is_not_scheduled_any_more() -> None:
    begun = msgspec.structs.replace(
        OURS, phases=(ScheduledPhase(starts_at=NOW, ends_at=None, prices=(("price_pro_month_usd", 1),)),)
    )
    assert isinstance(verdict(on("pro"), on("pro", quantity=2), begun), Immediate)


def test_schedules_of_others_are_respected() -> None:
    foreign = subscribed("pro", stripe_schedule_id="sub_sched_2")
    for target in (on("starter"), on("free"), on("pro", quantity=3)):
        assert refusal(verdict(on("pro"), target, foreign)) is Code.FOREIGN_SCHEDULE


@pytest.mark.parametrize("status", ["past_due", "unpaid"])
def test_while_a_payment_is_overdue_only_cancelling_is_possible(status: str) -> None:
    overdue = subscribed("pro", status=status, past_due_since=NOW)
    for target in (on("starter"), on("pro", quantity=2)):
        assert refusal(verdict(on("pro"), target, overdue)) is Code.PAST_DUE
        assert refusal(verdict(on("pro"), target, overdue, is_self_service=False, is_forced=True)) is Code.PAST_DUE
    assert not isinstance(verdict(on("pro"), on("free"), overdue), Refused)
    others = subscribed("mystery", status=status, past_due_since=NOW)
    assert not isinstance(verdict(on("free"), on("pro"), others), Refused)


def test_the_currency_of_a_subscription_stays() -> None:
    versions = [
        plan(key, prices=(price(key, Interval.MONTH, amount), price(key, Interval.MONTH, amount, currency="eur")))
        for key, amount in (("starter", 1900), ("pro", 4900))
    ]
    target = msgspec.structs.replace(on("pro"), currency="eur")
    catalog = catalog_of(versions)
    assert refusal(verdict(on("starter"), target, subscribed("starter"), catalog)) is Code.CURRENCY_PINNED


def test_usage_over_the_new_limits_refuses_a_downgrade() -> None:
    # D19: self-service is refused, staff are warned and may insist.
    found = verdict(on("pro"), on("starter"), subscribed("pro"), violations=[OVER])
    assert refusal(found) is Code.OVER_LIMIT
    assert isinstance(found, Refused)
    assert "Exports: 101 used, 100 allowed" in found.detail
    assert (found.violations, found.may_force) == ((OVER,), False)
    warned = verdict(on("pro"), on("starter"), subscribed("pro"), violations=[OVER], is_self_service=False)
    assert isinstance(warned, Refused)
    assert warned.may_force
    forced = verdict(
        on("pro"), on("starter"), subscribed("pro"), violations=[OVER], is_self_service=False, is_forced=True
    )
    assert isinstance(forced, Scheduled)
    assert forced.violations == (OVER,)
    # A customer cannot force.
    assert (
        refusal(verdict(on("pro"), on("starter"), subscribed("pro"), violations=[OVER], is_forced=True))
        is Code.OVER_LIMIT
    )


def test_usage_over_the_limits_never_blocks_cancelling_or_a_plain_upgrade() -> None:
    assert isinstance(verdict(on("pro"), on("free"), subscribed("pro"), violations=[OVER]), Scheduled)
    assert isinstance(verdict(on("starter"), on("pro"), subscribed("starter"), violations=[OVER]), Immediate)
    lenient = shop(is_downgrade_blocked_over_limit=False)
    assert isinstance(verdict(on("pro"), on("starter"), subscribed("pro"), lenient, violations=[OVER]), Scheduled)


def test_reductions_inside_an_upgrade_are_checked() -> None:
    current = on("starter", add_ons={"extra": 4})
    found = verdict(current, on("pro"), subscribed("starter", "extra"), violations=[OVER])
    assert refusal(found) is Code.OVER_LIMIT


def test_self_service_downgrades_may_be_left_to_the_team() -> None:
    catalog = shop(
        is_self_service_downgrade_allowed=False,
        self_service_downgrade_label="Talk to us",
        self_service_downgrade_url="https://northwind.example/contact",
    )
    found = verdict(on("pro"), on("starter"), subscribed("pro"), catalog)
    assert refusal(found) is Code.SELF_SERVICE_DISABLED
    assert isinstance(found, Refused)
    assert (found.label, found.url) == ("Talk to us", "https://northwind.example/contact")
    assert isinstance(verdict(on("pro"), on("starter"), subscribed("pro"), catalog, is_self_service=False), Scheduled)
    assert isinstance(verdict(on("pro"), on("free"), subscribed("pro"), catalog), Scheduled)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (on("free"), Code.NO_CHANGE),
        (on("nowhere"), Code.NOT_FOUND),
        (on("enterprise"), Code.CONTACT_US),
        (on("free", add_ons={"nothing": 1}), Code.NOT_FOUND),
    ],
)
def test_what_is_not_on_offer_is_refused(target: Holding, code: Code) -> None:
    assert refusal(verdict(on("free"), target)) is code


def test_what_is_no_longer_sold_is_kept_but_not_bought() -> None:
    versions = [
        plan("old", monthly=100, is_archived=True),
        plan("new", monthly=200),
        plan("relic", monthly=5, kind="add_on", is_archived=True),
    ]
    catalog = catalog_of(versions)
    usd = {"interval": Interval.MONTH, "currency": "usd"}
    old, new = Holding(plan="old", **usd), Holding(plan="new", **usd)  # type: ignore[arg-type]  # Mixed values.
    assert refusal(verdict(new, old, subscribed("new"), catalog)) is Code.INVALID
    more = msgspec.structs.replace(old, quantity=2)
    assert isinstance(verdict(old, more, subscribed("old"), catalog), Immediate)
    relic = msgspec.structs.replace(new, add_ons={"relic": 1})
    assert refusal(verdict(new, relic, subscribed("new"), catalog)) is Code.NOT_FOUND


def test_an_interval_that_is_not_sold_is_refused() -> None:
    catalog = catalog_of([plan("pro", prices=(price("pro", Interval.MONTH, 4900),))])
    assert refusal(verdict(on(None), on("pro", Interval.YEAR), None, catalog)) is Code.INVALID
    in_euro = msgspec.structs.replace(on("pro"), currency="eur")
    assert refusal(verdict(on(None), in_euro, None, catalog)) is Code.INVALID


def test_staff_may_sell_a_plan_that_has_a_price_although_it_is_sold_by_hand() -> None:
    catalog = catalog_of([plan("custom", monthly=99000, is_contact_us=True)])
    target = Holding(plan="custom", interval=Interval.MONTH, currency="usd")
    assert refusal(verdict(on(None), target, None, catalog)) is Code.CONTACT_US
    assert isinstance(verdict(on(None), target, None, catalog, is_self_service=False), Immediate)


def test_the_present_holding_is_read_from_the_snapshot() -> None:
    snapshot = snapshot_of(subscribed("pro", "extra"))
    assert holding_of(snapshot) == on("pro", version=1, add_ons={"extra": 1})
    free = build_snapshot(SHOP, facts(), NOW)
    assert holding_of(free) == Holding(plan="free", version=1)
    assert holding_of(build_snapshot(catalog_of([]), facts(), NOW)) == Holding(plan=None)


def test_settings_have_the_defaults_of_the_product() -> None:
    settings = CatalogSettings()
    assert (settings.downgrades, settings.past_due_grace_days) == ("period_end", 7)
    assert settings.is_downgrade_blocked_over_limit


def test_where_seats_and_add_ons_pull_both_ways_the_monthly_total_decides() -> None:
    seat = Entitlement(
        feature="seats",
        limit=0,
        price_behaviour=PriceBehaviour.PAY_IN_ADVANCE,
        prices=(price("seat", Interval.MONTH, 1000),),
    )
    catalog = catalog_of(
        [
            plan("pro", seat, monthly=4900),
            plan("extra", Entitlement(feature="sso", enabled=True), monthly=1900, kind="add_on"),
        ]
    )
    current = on("pro", add_ons={"extra": 1}, units={"seats": 3})
    for seats, kind in ((4, ChangeKind.DOWNGRADE), (5, ChangeKind.UPGRADE)):
        # One more seat costs 10 and two cost 20; the add-on given up costs 19.
        assert classify(catalog, current, on("pro", units={"seats": seats})) is kind
        assert classify(catalog, on("pro", units={"seats": seats}), current) is not kind


def test_who_pays_nothing_yet_gives_up_no_interval() -> None:
    assert reductions(SHOP, on("free"), on("starter", Interval.WEEK)) == ()
    # Of no plan at all there is no quantity to be less.
    assert [one.kind for one in reductions(SHOP, on("pro", quantity=3), Holding(plan=None))] == ["plan"]
    assert reductions(SHOP, on("pro"), on("free")) == (Reduction(kind="plan", key="pro", before="pro", after="free"),)


def test_a_refused_downgrade_has_a_label_only_where_one_is_set() -> None:
    for text, label in (("", None), ("Talk to us", "Talk to us")):
        catalog = shop(is_self_service_downgrade_allowed=False, self_service_downgrade_label=text)
        found = verdict(on("pro"), on("starter"), subscribed("pro"), catalog)
        assert isinstance(found, Refused)
        assert found.label == label


def test_what_is_bought_of_a_plan_and_of_an_add_on_is_told_apart_by_name() -> None:
    assert unit_key("plan", "pro", "seats") == "seats"
    assert unit_key("add_on", "extra", "seats") == "extra/seats"


def test_a_plan_is_free_when_nothing_of_it_has_a_price() -> None:
    sold = Entitlement(feature="exports", limit=0, prices=(price("export", Interval.MONTH, 1),))
    given = Entitlement(feature="sso", enabled=True)
    assert plan("free", given).is_free
    assert not plan("metered", sold, given).is_free
    assert not plan("paid", given, monthly=100).is_free
    assert not plan("by-hand", given, is_contact_us=True).is_free
