"""Proves that a way to a yes is as much as it takes, and no more: add-ons and units on top of what is held."""

from datetime import timedelta

import msgspec

from plangate.engine.catalog import Catalog, Entitlement, PriceOwner
from plangate.engine.decide import decide
from plangate.engine.decision import Decision
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, WindowCounter
from plangate.engine.values import Interval, OverrideMode, PeriodKind, PriceBehaviour, Stacking
from tests.engine.factories import (
    NOW,
    assigned,
    catalog_of,
    counter,
    exports,
    facts,
    item,
    override,
    plan,
    price,
    subscribed,
)

MONTHLY = ("exports", PeriodKind.BILLING_MONTH, "")
DAILY = ("exports", PeriodKind.DAY, "")


def ask(catalog: Catalog, company: CompanyFacts, window: WindowCounter, quantity: int = 1) -> Decision:
    snapshot = build_snapshot(catalog, company, NOW)
    return decide(snapshot, "exports", {MONTHLY: window}, at=NOW, quantity=quantity, with_trace=True)


def bought(decision: Decision) -> list[tuple[str | None, int | None, int | None, int | str | None]]:
    assert decision.trace is not None
    return [
        (one.key, one.quantity, one.amount_minor, one.limit) for one in decision.trace.options if one.kind != "wait"
    ]


def test_what_is_held_back_takes_more_of_an_add_on() -> None:
    catalog = catalog_of(
        [
            plan("pro", exports(100), monthly=4900),
            plan("extra", exports(10, stacking=Stacking.SUM), monthly=900, kind="add_on"),
        ]
    )
    company = facts(subscriptions=(subscribed("pro"),))
    # With 100 used, one more export and nine held back fit into ten more; with ten held back they do not.
    for reserved, expected in (
        (9, ("extra", None, 900, 110)),
        (10, ("extra", 2, 1800, 120)),
        (35, ("extra", 4, 3600, 140)),
    ):
        assert bought(ask(catalog, company, counter(100, reserved=reserved))) == [expected]
    assert bought(ask(catalog, company, counter(0, reserved=104), quantity=7)) == [("extra", 2, 1800, 120)]


def sold_in_advance(entitlement: Entitlement, *, count: int = 1) -> Catalog:
    """Pro with a price for each export, which Stripe knows."""
    each = price("export", Interval.MONTH, 5, count=count)
    sold = msgspec.structs.replace(entitlement, price_behaviour=PriceBehaviour.PAY_IN_ADVANCE, prices=(each,))
    catalog = catalog_of([plan("pro", sold, monthly=4900)])
    owner = PriceOwner("plan", "pro", 1, each, feature="exports")
    return msgspec.structs.replace(catalog, price_owners={**catalog.price_owners, "price_export_month_usd": owner})


def test_as_many_units_as_it_takes_are_offered() -> None:
    catalog = sold_in_advance(exports(10))
    company = facts(subscriptions=(subscribed("pro"),))
    # Eight are used, one is held back and four are wanted: 13 instead of the ten that came with the plan.
    assert bought(ask(catalog, company, counter(8, reserved=1), 4)) == [("exports", 13, 65, 13)]
    held = subscribed(items=(item("price_pro_month_usd"), item("price_export_month_usd", quantity=20)))
    decision = ask(catalog, facts(subscriptions=(held,)), counter(18), 4)
    assert decision.limit == 20
    assert bought(decision) == [("exports", 22, 10, 22)]
    # What an override adds stays, so only what is missing is bought.
    added = override(OverrideMode.ADD, 5)
    decision = ask(catalog, facts(subscriptions=(held,), overrides=(added,)), counter(24), 4)
    assert (decision.limit, bought(decision)) == (25, [("exports", 23, 15, 28)])
    # Nobody who does not pay, and nobody who has enough, is offered units.
    assert bought(ask(catalog, facts(assignments=(assigned("pro"),)), counter(10))) == []


def test_units_take_the_place_of_a_limit_in_a_trait() -> None:
    entitlement = Entitlement(feature="exports", limit_trait="bought", period=PeriodKind.BILLING_MONTH)
    company = facts(subscriptions=(subscribed("pro"),), traits={"bought": 3})
    # Not two beside the three: what is bought is the limit.
    assert bought(ask(sold_in_advance(entitlement), company, counter(3), 2)) == [("exports", 5, 25, 5)]


def test_of_windows_the_one_with_most_left_is_found_whatever_was_corrected() -> None:
    catalog = catalog_of([plan("free", exports(5, period=PeriodKind.DAY), exports(5))], fallback_plan="free")
    snapshot = build_snapshot(catalog, facts(), NOW)
    today = counter(-5, start_at=NOW - timedelta(hours=1), end_at=NOW + timedelta(hours=1))
    # Below nothing is nothing: both have five left, and the shorter is shown.
    shown = decide(snapshot, "exports", {DAILY: today, MONTHLY: counter(0)}, at=NOW)
    assert shown.period is not None
    assert (shown.period.kind, shown.remaining) == (PeriodKind.DAY, 5)


def test_what_is_sold_by_hand_comes_last_by_position_and_without_a_price() -> None:
    catalog = catalog_of(
        [
            plan("free", exports(1)),
            plan("later", exports(None), is_contact_us=True, position=2, monthly=100),
            plan("sooner", exports(None), is_contact_us=True, position=1),
            plan("dear", exports(5), monthly=99_000),
            plan("euros", exports(5), prices=(price("euros", Interval.MONTH, 100, currency="eur"),)),
            plan("gone", exports(5), monthly=1, is_archived=True),
        ],
        fallback_plan="free",
    )
    options = ask(catalog, facts(), counter(1)).trace
    assert options is not None
    assert [(one.kind, one.key, one.amount_minor, one.currency) for one in options.options] == [
        ("wait", None, None, None),
        ("plan", "euros", 100, "eur"),
        ("plan", "dear", 99_000, "usd"),
        ("contact_us", "sooner", None, None),
        ("contact_us", "later", None, None),
    ]
    # Who pays in dollars already is not offered what is sold in euros alone.
    decision = ask(catalog, facts(subscriptions=(subscribed("dear"),)), counter(5))
    assert decision.trace is not None
    assert [one.key for one in decision.trace.options] == [None, "sooner", "later"]


def test_add_ons_of_one_price_are_offered_in_their_order() -> None:
    add_ons = [
        plan(key, exports(50), monthly=900, kind="add_on", position=position)
        for key, position in (("second", 2), ("first", 1))
    ]
    catalog = catalog_of([plan("pro", exports(1), monthly=4900), *add_ons])
    company = facts(subscriptions=(subscribed("pro"),))
    assert [one[0] for one in bought(ask(catalog, company, counter(1)))] == ["first", "second"]


def test_who_is_on_a_plan_sold_by_hand_is_told_what_others_cost() -> None:
    catalog = catalog_of(
        [plan("deal", exports(1), is_contact_us=True), plan("pro", exports(5), monthly=4900), plan("free", exports(2))]
    )
    company = facts(assignments=(assigned("deal"),))
    assert bought(ask(catalog, company, counter(1))) == [("free", None, 0, 2), ("pro", None, 4900, 5)]


def test_waiting_comes_first_even_where_a_cheaper_plan_grants_more() -> None:
    catalog = catalog_of([plan("pro", exports(1), monthly=4900), plan("small", exports(5), monthly=100)])
    decision = ask(catalog, facts(subscriptions=(subscribed("pro"),)), counter(1))
    assert decision.trace is not None
    assert [(one.kind, one.key) for one in decision.trace.options] == [("wait", None), ("plan", "small")]


def test_units_are_no_way_out_where_it_is_not_known_how_many_are_used() -> None:
    seat = price("seat", Interval.MONTH, 1000)
    sold = Entitlement(feature="seats", limit=3, price_behaviour=PriceBehaviour.PAY_IN_ADVANCE, prices=(seat,))
    catalog = catalog_of([plan("pro", sold, monthly=4900)])
    owner = PriceOwner("plan", "pro", 1, seat, feature="seats")
    catalog = msgspec.structs.replace(catalog, price_owners={**catalog.price_owners, "price_seat_month_usd": owner})
    for traits, expected in (({}, []), ({"seats": 3}, [("seats", 4, 4000, 4)])):
        company = facts(subscriptions=(subscribed("pro"),), traits=traits)
        decision = decide(build_snapshot(catalog, company, NOW), "seats", {}, at=NOW, with_trace=True)
        assert not decision.allowed
        assert bought(decision) == expected


def test_a_window_that_has_not_begun_takes_no_room() -> None:
    catalog = catalog_of([plan("free", exports(5, period=PeriodKind.DAY), exports(4))], fallback_plan="free")
    snapshot = build_snapshot(catalog, facts(), NOW)
    later = counter(5, start_at=NOW + timedelta(hours=1), end_at=NOW + timedelta(hours=2))
    shown = decide(snapshot, "exports", {DAILY: later, MONTHLY: counter(0)}, at=NOW)
    assert shown.period is not None
    assert (shown.period.kind, shown.used, shown.remaining) == (PeriodKind.DAY, 0, 5)


def test_a_way_that_is_paid_every_three_months_says_so() -> None:
    quarterly = (price("pro", Interval.MONTH, 12_000, count=3),)
    catalog = catalog_of([plan("free", exports(10)), plan("pro", exports(200), prices=quarterly)], fallback_plan="free")
    units = sold_in_advance(exports(10), count=3)
    for decision in (
        ask(catalog, facts(), counter(10)),
        ask(units, facts(subscriptions=(subscribed("pro"),)), counter(10)),
    ):
        assert decision.trace is not None
        ways = [(one.kind, one.interval, one.interval_count) for one in decision.trace.options if one.kind != "wait"]
        assert ways in ([("plan", Interval.MONTH, 3)], [("units", Interval.MONTH, 3)])
