"""Proves what a change is said to do: gained, lost, limits passed, and the facts afterwards."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from plangate.engine.catalog import Entitlement, Feature, PriceOwner
from plangate.engine.decide import decide
from plangate.engine.effects import Effect, effects, violations
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import PlanSource
from plangate.engine.holding import Holding, holding_of
from plangate.engine.plan_change import Violation
from plangate.engine.values import FeatureType, Interval, Json, OverrideMode, PeriodKind, PriceBehaviour
from plangate.engine.what_if import with_holding
from plangate.engine.wording import shown_number
from tests.engine.factories import (
    BEGAN,
    FEATURES,
    NOW,
    RENEWS,
    assigned,
    catalog_of,
    counter,
    exports,
    facts,
    item,
    override,
    plan,
    price,
    shop,
    subscribed,
)

SHOP = shop()
PRO = Holding(plan="pro", interval=Interval.MONTH, currency="usd")
STARTER = Holding(plan="starter", interval=Interval.MONTH, currency="usd")
EXPORTS = ("exports", PeriodKind.BILLING_MONTH, "")
_BEYOND = "exports per month included, unlimited beyond"


@pytest.mark.parametrize(
    ("old", "new", "is_gained", "texts"),
    [
        (
            exports(None, soft_limit=100),
            exports(None, soft_limit=300),
            True,
            (
                100,
                300,
                f"100 {_BEYOND}",
                "300 exports per month included, unlimited beyond",
            ),
        ),
        (
            exports(1000),
            exports(None, soft_limit=100),
            False,
            (1000, 100, "1,000 exports per month", f"100 {_BEYOND}"),
        ),
        (
            exports(500, soft_limit=100),
            exports(None),
            True,
            (100, "unlimited", "100 exports per month included, up to 500 beyond", "unlimited exports"),
        ),
    ],
)
def test_where_overage_begins_is_gained_or_lost(
    old: Entitlement, new: Entitlement, is_gained: bool, texts: tuple[Json, Json, str, str]
) -> None:
    catalog = catalog_of([plan("starter", old, monthly=100), plan("pro", new, monthly=200)])
    company = facts(subscriptions=(subscribed("starter"),))
    before = build_snapshot(catalog, company, NOW)
    after = build_snapshot(catalog, with_holding(company, catalog, PRO, NOW), NOW)
    gained, lost = effects(before, after)
    (effect,) = gained if is_gained else lost
    assert (effect.before, effect.after, effect.before_text, effect.after_text) == texts
    assert not (lost if is_gained else gained)


@pytest.mark.parametrize(
    ("old", "new", "is_gained"),
    [
        ((100, PeriodKind.DAY), (100, PeriodKind.BILLING_MONTH), False),
        ((100, PeriodKind.BILLING_MONTH), (100, PeriodKind.WEEK), True),
        # 3,000 a month are less than 100 a day, 3,100 more.
        ((100, PeriodKind.DAY), (3_000, PeriodKind.MONTH), False),
        ((100, PeriodKind.DAY), (3_100, PeriodKind.BILLING_MONTH), True),
        ((3_000, PeriodKind.BILLING_MONTH), (100, PeriodKind.DAY), True),
        # How long a paid period lasts depends on what is paid, and all time has no days: the number decides.
        ((100, PeriodKind.BILLING_INTERVAL), (200, PeriodKind.DAY), True),
        ((100, PeriodKind.DAY), (99, PeriodKind.BILLING_INTERVAL), False),
        ((100, PeriodKind.BILLING_INTERVAL), (100, PeriodKind.ALL_TIME), False),
        ((100, PeriodKind.MONTH), (101, PeriodKind.MONTH), True),
    ],
)
@pytest.mark.parametrize("scope", ["company", "user"])
def test_an_allowance_is_compared_with_how_soon_it_returns(
    old: tuple[int, PeriodKind], new: tuple[int, PeriodKind], scope: str, *, is_gained: bool
) -> None:
    plans = [plan(key, exports(number, period=kind, scope=scope)) for key, (number, kind) in (("a", old), ("b", new))]
    catalog = catalog_of(plans)
    before, after = (build_snapshot(catalog, facts(assignments=(assigned(key),)), NOW) for key in "ab")
    gained, lost = effects(before, after)
    assert ([one.feature for one in gained], [one.feature for one in lost]) == (
        (["exports"], []) if is_gained else ([], ["exports"])
    )
    assert [len(found) for found in effects(after, before)] == [len(lost), len(gained)]


def test_as_much_each_day_in_other_windows_takes_nothing_away() -> None:
    catalog = catalog_of(
        [plan("a", exports(70, period=PeriodKind.WEEK)), plan("b", exports(10, period=PeriodKind.DAY))]
    )
    weekly, daily = (build_snapshot(catalog, facts(assignments=(assigned(key),)), NOW) for key in "ab")
    assert effects(weekly, daily)[1] == effects(daily, weekly)[1] == []


def test_a_window_beside_the_largest_is_gained_or_lost_too() -> None:
    catalog = catalog_of(
        [
            plan("pro", exports(1000), monthly=4900),
            plan("daily", exports(10, period=PeriodKind.DAY), monthly=900, kind="add_on"),
            plan("hourly", exports(20, period=PeriodKind.DAY), monthly=1900, kind="add_on"),
        ]
    )
    bare, some, more = (
        build_snapshot(catalog, facts(subscriptions=(subscribed("pro", *keys),)), NOW)
        for keys in ((), ("daily",), ("hourly",))
    )
    for less, greater in ((bare, some), (some, more), (bare, more)):
        (found,), nothing = effects(less, greater)
        assert nothing == []
        nothing, (lost,) = effects(greater, less)
        assert nothing == []
        assert (lost.before_text, lost.after_text) == (found.after_text, found.before_text)
    (found,), _ = effects(bare, some)
    assert (found.before_text, found.after_text) == (
        "1,000 exports per month",
        "10 exports per day or 1,000 exports per month",
    )


def test_gained_and_lost_are_said_in_words() -> None:
    company = facts(subscriptions=(subscribed("pro"),))
    before = build_snapshot(SHOP, company, NOW)
    after = build_snapshot(SHOP, with_holding(company, SHOP, STARTER, NOW), NOW)
    lost = [
        Effect(
            feature="exports",
            name="Exports",
            before=1000,
            after=100,
            before_text="1,000 exports per month",
            after_text="100 exports per month",
        ),
        Effect(
            feature="sso",
            name="Single sign-on",
            before=True,
            after=False,
            before_text="included",
            after_text="not included",
        ),
        Effect(feature="seats", name="Seats", before=20, after=5, before_text="20 seats", after_text="5 seats"),
        Effect(
            feature="upload-mb",
            name="Upload size",
            before=512,
            after=None,
            before_text="512",
            after_text="not included",
        ),
    ]
    assert effects(before, after) == ([], lost)
    gained, nothing = effects(after, before)
    assert nothing == []
    assert [(one.feature, one.before, one.after) for one in gained] == [
        ("exports", 100, 1000),
        ("sso", False, True),
        ("seats", 5, 20),
        ("upload-mb", None, 512),
    ]
    assert effects(before, before) == ([], [])


def test_unlimited_is_more_than_any_number() -> None:
    company = facts(assignments=(assigned("pro"),))
    before = build_snapshot(SHOP, company, NOW)
    after = build_snapshot(SHOP, with_holding(company, SHOP, Holding(plan="enterprise"), NOW), NOW)
    gained, lost = effects(before, after)
    assert [(one.feature, one.after_text) for one in gained] == [("exports", "unlimited exports")]
    assert [one.feature for one in lost] == ["seats", "upload-mb"]
    assert [one.feature for one in effects(after, before)[1]] == ["exports"]


def test_a_changed_config_value_is_lost_when_the_number_is_smaller() -> None:
    features = {
        **FEATURES,
        "support": Feature(key="support", name="Support", type=FeatureType.CONFIG, config_type="string"),
    }
    catalog = catalog_of(
        [
            plan("a", Entitlement(feature="upload-mb", config=64), Entitlement(feature="support", config="email")),
            plan("b", Entitlement(feature="upload-mb", config=32), Entitlement(feature="support", config="phone")),
        ],
        features=features,
    )
    before = build_snapshot(catalog, facts(assignments=(assigned("a"),)), NOW)
    after = build_snapshot(catalog, facts(assignments=(assigned("b"),)), NOW)
    gained, lost = effects(before, after)
    assert [(one.feature, one.before_text, one.after_text) for one in gained] == [("support", "email", "phone")]
    assert [(one.feature, one.before_text, one.after_text) for one in lost] == [("upload-mb", "64", "32")]


@pytest.mark.parametrize(("used", "is_over"), [(99, False), (100, False), (101, True)])
def test_exactly_at_the_limit_is_allowed(used: int, is_over: bool) -> None:
    # D19: strictly more than the limit is over it.
    after = build_snapshot(SHOP, facts(subscriptions=(subscribed("starter"),)), NOW)
    found = violations(after, {EXPORTS: counter(used)}, effective_at=NOW)
    assert found == ([Violation(feature="exports", name="Exports", used=used, limit=100)] if is_over else [])


def test_counters_that_reset_before_the_change_do_not_count() -> None:
    after = build_snapshot(SHOP, facts(subscriptions=(subscribed("starter"),)), RENEWS)
    counters = {EXPORTS: counter(500)}
    assert violations(after, counters, effective_at=RENEWS) == []
    assert violations(after, counters, effective_at=RENEWS - timedelta(seconds=1)) != []


def test_overrides_and_kept_add_ons_count() -> None:
    counters = {EXPORTS: counter(550)}
    starter = facts(subscriptions=(subscribed("starter"),))
    assert violations(build_snapshot(SHOP, starter, NOW), counters, effective_at=NOW) != []
    with_extra = facts(subscriptions=(subscribed("starter", "extra"),))
    assert violations(build_snapshot(SHOP, with_extra, NOW), counters, effective_at=NOW) == []
    more = facts(subscriptions=(subscribed("starter"),), overrides=(override(OverrideMode.ADD, 450),))
    assert violations(build_snapshot(SHOP, more, NOW), counters, effective_at=NOW) == []
    ends = override(OverrideMode.ADD, 450, expires_at=RENEWS - timedelta(days=1))
    expiring = facts(subscriptions=(subscribed("starter"),), overrides=(ends,))
    late = RENEWS - timedelta(hours=1)
    assert violations(build_snapshot(SHOP, expiring, late), counters, effective_at=late) != []


def test_values_in_use_are_compared_too() -> None:
    company = facts(traits={"seats": 6}, subscriptions=(subscribed("starter"),))
    found = violations(build_snapshot(SHOP, company, NOW), {}, effective_at=NOW)
    assert found == [Violation(feature="seats", name="Seats", used=6, limit=5)]
    assert (
        violations(build_snapshot(SHOP, facts(subscriptions=(subscribed("starter"),)), NOW), {}, effective_at=NOW) == []
    )


def test_what_is_no_longer_granted_has_a_limit_of_nothing() -> None:
    company = facts(traits={"seats": 3}, assignments=(assigned("pro"),))
    before = build_snapshot(SHOP, company, NOW)
    after = build_snapshot(SHOP, with_holding(company, SHOP, Holding(plan="enterprise"), NOW), NOW)
    assert violations(after, {}, effective_at=NOW, before=before) == [
        Violation(feature="seats", name="Seats", used=3, limit=0)
    ]
    # What was never granted cannot be taken away, however much of it was tracked.
    assert violations(after, {}, effective_at=NOW, before=after) == []


def test_a_paid_plan_takes_the_place_of_the_free_one() -> None:
    company = facts()
    after = build_snapshot(SHOP, with_holding(company, SHOP, PRO, NOW), NOW)
    assert after.plan is not None
    assert (after.plan.key, after.plan.source) == ("pro", PlanSource.SUBSCRIPTION)
    assert (after.anchor_at, after.cycle.interval) == (NOW, Interval.MONTH)
    assert holding_of(after) == Holding(plan="pro", version=1, interval=Interval.MONTH, currency="usd")


def test_a_change_in_the_same_interval_keeps_the_period_and_another_starts_anew() -> None:
    company = facts(subscriptions=(subscribed("starter"),))
    same = build_snapshot(SHOP, with_holding(company, SHOP, PRO, NOW), NOW)
    assert (same.anchor_at, same.cycle.period_end_at) == (BEGAN, RENEWS)
    yearly = Holding(plan="pro", interval=Interval.YEAR, currency="usd")
    other = build_snapshot(SHOP, with_holding(company, SHOP, yearly, NOW), NOW)
    assert (other.anchor_at, other.cycle.period_end_at) == (NOW, NOW.replace(year=2027))


def test_three_months_are_another_interval_than_one() -> None:
    quarterly = msgspec.structs.replace(
        price("pro", Interval.MONTH, 12_000, count=3), stripe_price_id="price_pro_quarter_usd"
    )
    catalog = catalog_of([plan("starter", monthly=1900), plan("pro", prices=(quarterly,))])
    company = facts(subscriptions=(subscribed("starter"),))
    after = build_snapshot(catalog, with_holding(company, catalog, PRO, NOW), NOW)
    assert (after.anchor_at, after.cycle.period_end_at) == (NOW, datetime(2027, 2, 20, 12, tzinfo=UTC))
    back = build_snapshot(catalog, with_holding(after.facts, catalog, STARTER, RENEWS), RENEWS)
    assert (back.anchor_at, back.cycle.period_end_at) == (RENEWS, datetime(2027, 1, 3, tzinfo=UTC))
    same = build_snapshot(catalog, with_holding(after.facts, catalog, PRO, RENEWS), RENEWS)
    assert (same.anchor_at, same.cycle.period_end_at) == (after.anchor_at, after.cycle.period_end_at)


def test_a_free_plan_ends_the_subscription_and_its_add_ons() -> None:
    company = facts(subscriptions=(subscribed("pro", "extra"),))
    after = build_snapshot(SHOP, with_holding(company, SHOP, Holding(plan="free"), NOW), NOW)
    assert after.plan is not None
    assert (after.plan.key, after.plan.source, after.add_ons) == ("free", PlanSource.FALLBACK, ())
    nothing = with_holding(facts(assignments=(assigned("pro"),)), catalog_of([plan("pro")]), Holding(plan=None), NOW)
    assert build_snapshot(catalog_of([plan("pro")]), nothing, NOW).plan is None


def test_a_plan_without_a_price_is_held_by_assignment() -> None:
    company = facts(subscriptions=(subscribed("pro", "extra"),))
    holding = Holding(plan="enterprise", add_ons={})
    after = build_snapshot(SHOP, with_holding(company, SHOP, holding, NOW), NOW)
    assert after.plan is not None
    assert (after.plan.key, after.plan.source) == ("enterprise", PlanSource.ASSIGNMENT)


def test_quantities_and_add_ons_are_those_of_the_holding() -> None:
    company = facts(subscriptions=(subscribed("starter", "extra"),))
    holding = Holding(plan="pro", interval=Interval.MONTH, currency="usd", quantity=3, add_ons={"extra": 2})
    after = build_snapshot(SHOP, with_holding(company, SHOP, holding, NOW), NOW)
    assert holding_of(after) == Holding(
        plan="pro", version=1, interval=Interval.MONTH, currency="usd", quantity=3, add_ons={"extra": 2}
    )
    assert decide(after, "exports", {}, at=NOW).limit == 2000


def test_add_ons_given_by_hand_stay() -> None:
    extra = assigned("extra", kind="add_on", held_from=NOW)
    later = assigned("audit", kind="add_on", held_from=NOW + timedelta(seconds=1))
    after = with_holding(facts(assignments=(extra, later)), SHOP, PRO, NOW)
    assert after.assignments == (extra, later)


def test_a_holding_is_of_the_base_subscription_alone() -> None:
    other = msgspec.structs.replace(subscribed("pro", "extra"), stripe_subscription_id="zzz")
    held = build_snapshot(SHOP, facts(subscriptions=(subscribed("pro"), other)), NOW)
    assert held.plan is not None
    assert (held.plan.quantity, [one.key for one in held.add_ons]) == (2, ["extra"])
    assert (holding_of(held).quantity, holding_of(held).add_ons) == (1, {})
    given = build_snapshot(SHOP, facts(assignments=(assigned("extra", kind="add_on", held_from=NOW),)), NOW)
    assert (len(given.add_ons), holding_of(given).add_ons) == (1, {})


def test_without_an_interval_the_monthly_price_is_taken() -> None:
    holding = Holding(plan="pro", currency="usd")
    after = build_snapshot(SHOP, with_holding(facts(), SHOP, holding, NOW), NOW)
    assert after.cycle.interval is Interval.MONTH


def test_other_subscriptions_stay() -> None:
    other = subscribed(stripe_subscription_id="sub_2", items=(item("price_audit_month_usd"),))
    company = facts(subscriptions=(subscribed("starter"), other))
    after = with_holding(company, SHOP, PRO, NOW)
    assert other in after.subscriptions
    assert decide(build_snapshot(SHOP, after, NOW), "sso", {}, at=NOW).allowed


@pytest.mark.parametrize(
    ("base_units", "shown"),
    [(0, "0"), (3600, "1"), (5400, "1.5"), (4500, "1.25"), (3601, "1"), (7199, "1.99"), (36_000_000, "10,000")],
)
def test_base_units_are_shown_in_display_units(base_units: int, shown: str) -> None:
    # Seconds shown as hours.
    feature = Feature(key="compute", name="Compute", type=FeatureType.EVENT, display_divisor=3600)
    assert shown_number(feature, base_units) == shown


def test_one_is_singular() -> None:
    catalog = catalog_of(
        [plan("one", exports(1, period=PeriodKind.DAY)), plan("two", exports(2, period=PeriodKind.ALL_TIME))]
    )
    before = build_snapshot(catalog, facts(assignments=(assigned("one"),)), NOW)
    after = build_snapshot(catalog, facts(assignments=(assigned("two"),)), NOW)
    (gained,), _ = effects(before, after)
    assert (gained.before_text, gained.after_text) == ("1 export per day", "2 exports in total")


def test_without_a_currency_the_subscriptions_own_is_taken() -> None:
    prices = tuple(price("pro", Interval.MONTH, 4900, currency=currency) for currency in ("usd", "eur"))
    catalog = catalog_of([plan("starter", monthly=1900), plan("pro", prices=prices)])
    billed_in_eur = msgspec.structs.replace(subscribed("starter"), currency="eur")
    holding = Holding(plan="pro", interval=Interval.MONTH)
    (after,) = with_holding(facts(subscriptions=(billed_in_eur,)), catalog, holding, NOW).subscriptions
    assert [one.stripe_price_id for one in after.items] == ["price_pro_month_eur"]
    (fresh,) = with_holding(facts(), catalog, holding, NOW).subscriptions
    assert [one.stripe_price_id for one in fresh.items] == ["price_pro_month_usd"]


def test_of_several_prices_of_a_companys_own_the_one_agreed_on_is_taken() -> None:
    catalog = catalog_of([plan("pro", monthly=4900)])
    agreed = [
        msgspec.structs.replace(price("pro", Interval.MONTH, amount), stripe_price_id=f"price_own_{amount}")
        for amount in (3000, 2000)
    ]
    owners = {
        one.stripe_price_id: PriceOwner("plan", "pro", 1, one, company_id="comp_acme")
        for one in agreed
        if one.stripe_price_id is not None
    }
    listed = catalog.price_owners
    # The catalogue's own price is billed alike, whichever is met first.
    for known in ({**owners, **listed}, {**listed, **owners}):
        catalog = msgspec.structs.replace(catalog, price_owners=known)
        for one in agreed:
            holding = Holding(plan="pro", interval=Interval.MONTH, currency="usd", own_price=one)
            (after,) = with_holding(facts(), catalog, holding, NOW).subscriptions
            assert [item.stripe_price_id for item in after.items] == [one.stripe_price_id]
    # Nobody else is sold it, whatever they name.
    other = msgspec.structs.replace(facts(), company_id="comp_other")
    holding = Holding(plan="pro", interval=Interval.MONTH, currency="usd", own_price=agreed[0])
    (after,) = with_holding(other, catalog, holding, NOW).subscriptions
    assert [item.stripe_price_id for item in after.items] == ["price_pro_month_usd"]


def test_a_price_of_three_months_is_not_taken_for_one_of_a_month() -> None:
    quarterly = msgspec.structs.replace(
        price("pro", Interval.MONTH, 12_000, count=3), stripe_price_id="price_pro_quarter_usd"
    )
    monthly = price("pro", Interval.MONTH, 4900)
    catalog = catalog_of([plan("pro", prices=(quarterly, monthly))])
    # Stripe's name of the monthly price is known to the owner alone, as before a catalogue was applied again.
    unnamed = msgspec.structs.replace(monthly, stripe_price_id=None)
    catalog = msgspec.structs.replace(catalog, plans={"pro": plan("pro", prices=(quarterly, unnamed))})
    holding = Holding(plan="pro", interval=Interval.MONTH, currency="usd")
    (after,) = with_holding(facts(), catalog, holding, NOW).subscriptions
    assert [item.stripe_price_id for item in after.items] == ["price_pro_month_usd"]


def test_what_is_paid_for_each_feature_has_an_item_of_its_own() -> None:
    used = price("export", Interval.MONTH, 2)
    metered = msgspec.structs.replace(used, is_metered=True, meter="exports")
    seat = price("seat", Interval.MONTH, 1000)
    entitlements = (
        exports(None, soft_limit=100, price_behaviour=PriceBehaviour.OVERAGE, prices=(metered,)),
        Entitlement(feature="seats", limit=2, price_behaviour=PriceBehaviour.PAY_IN_ADVANCE, prices=(seat,)),
    )
    catalog = catalog_of([plan("pro", *entitlements, monthly=4900, stripe_product_id="prod_pro")])
    owners = {
        "price_export_month_usd": PriceOwner("plan", "pro", 1, metered, feature="exports"),
        "price_seat_month_usd": PriceOwner("plan", "pro", 1, seat, feature="seats"),
    }
    catalog = msgspec.structs.replace(catalog, price_owners={**catalog.price_owners, **owners})
    for seats, expected in ((0, []), (3, [("plan/pro/seats", "price_seat_month_usd", 3, False, 1000)])):
        holding = Holding(plan="pro", interval=Interval.MONTH, currency="usd", quantity=2, units={"seats": seats})
        (after,) = with_holding(facts(), catalog, holding, NOW).subscriptions
        assert [
            (one.stripe_item_id, one.stripe_price_id, one.quantity, one.is_metered, one.unit_amount_minor)
            for one in after.items
        ] == [
            ("plan/pro", "price_pro_month_usd", 2, False, 4900),
            ("plan/pro/exports", "price_export_month_usd", None, True, 2),
            *expected,
        ]
        assert {one.stripe_product_id for one in after.items} == {"prod_pro"}
        assert (after.currency, after.anchor_at, after.started_at) == ("usd", NOW, NOW)


def test_a_paid_period_that_is_over_starts_anew() -> None:
    company = facts(subscriptions=(subscribed("starter"),))
    for at, start_at, end_at in (
        (BEGAN, BEGAN, RENEWS),
        (RENEWS - timedelta(seconds=1), BEGAN, RENEWS),
        (RENEWS, RENEWS, datetime(2027, 1, 3, tzinfo=UTC)),
    ):
        (after,) = with_holding(company, SHOP, PRO, at).subscriptions
        assert [(one.period_start_at, one.period_end_at) for one in after.items] == [(start_at, end_at)]


def test_who_is_put_on_no_plan_loses_the_explicit_assignment_alone() -> None:
    catalog = catalog_of([plan("free", exports(1)), plan("pro", exports(2))], initial_plan="free")
    by_hand, initial = assigned("pro"), assigned("free", source=PlanSource.INITIAL)
    after = with_holding(facts(assignments=(by_hand, initial)), catalog, Holding(plan=None), NOW)
    assert after.assignments == (initial,)
    # What nobody assigned by hand is where the order of precedence leads anyway.
    assert with_holding(facts(assignments=(initial,)), catalog, Holding(plan=None), NOW).assignments == (initial,)


def test_a_version_that_is_held_is_asked_for_by_its_number() -> None:
    old, new = plan("pro", exports(1)), plan("pro", exports(2), version=2)
    catalog = msgspec.structs.replace(catalog_of([new]), older_versions={"plan/pro@1": old})
    for version, limit in ((1, 1), (2, 2), (None, 2), (9, 2)):
        after = with_holding(facts(), catalog, Holding(plan="pro", version=version), NOW)
        assert decide(build_snapshot(catalog, after, NOW), "exports", {}, at=NOW).limit == limit
