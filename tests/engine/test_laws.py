"""Laws every Decision obeys, over generated catalogues, facts and usage."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from plangate.engine.catalog import Catalog, Entitlement
from plangate.engine.decide import decide, decisions
from plangate.engine.decision import Decision, Reason
from plangate.engine.entitlements import build_snapshot, window_kinds
from plangate.engine.facts import CompanyFacts, WindowCounter
from plangate.engine.values import OverrideMode, PeriodKind, Stacking
from tests.engine.factories import (
    NOW,
    assigned,
    catalog_of,
    counts,
    entitlements,
    exports,
    facts,
    limits,
    near,
    override,
    plan,
    quantities,
    worlds,
)

World = tuple[Catalog, CompanyFacts]
Counts = dict[tuple[str, PeriodKind, str], WindowCounter]


def ask(
    world: World, counters: Mapping[tuple[str, PeriodKind, str], WindowCounter], at: datetime, quantity: int = 1
) -> Decision:
    return decide(build_snapshot(*world, at), "exports", counters, at=at, quantity=quantity)


def with_override(world: World, mode: OverrideMode, value: object = None) -> World:
    catalog, company = world
    added = override(mode, value, id="ovr_new", starts_at=NOW - timedelta(days=90))
    return catalog, msgspec.structs.replace(company, overrides=(*company.overrides, added))


@given(worlds(), counts(), near, quantities, quantities)
def test_more_quantity_never_turns_a_no_into_a_yes(
    world: World, counters: Counts, at: datetime, first: int, second: int
) -> None:
    smaller, larger = sorted((first, second))
    if ask(world, counters, at, larger).allowed:
        assert ask(world, counters, at, smaller).allowed


@given(worlds(), counts(), near, quantities)
def test_quantity_never_changes_what_is_counted(world: World, counters: Counts, at: datetime, quantity: int) -> None:
    one, many = ask(world, counters, at, 1), ask(world, counters, at, quantity)
    assert (one.used, one.reserved, one.remaining, one.limit, one.period) == (
        many.used,
        many.reserved,
        many.remaining,
        many.limit,
        many.period,
    )


@given(worlds(), counts(), near, quantities, st.integers(0, 100))
def test_an_add_never_reduces(world: World, counters: Counts, at: datetime, quantity: int, value: int) -> None:
    before = ask(world, counters, at, quantity)
    after = ask(with_override(world, OverrideMode.ADD, value), counters, at, quantity)
    assert after.allowed or not before.allowed
    assert after.unlimited or not before.unlimited


@given(worlds(), counts(), near, quantities, st.integers(0, 100))
def test_a_set_never_reduces(world: World, counters: Counts, at: datetime, quantity: int, value: int) -> None:
    before = ask(world, counters, at, quantity)
    after = ask(with_override(world, OverrideMode.SET, value), counters, at, quantity)
    assert after.allowed or not before.allowed


@given(worlds(), counts(), near, quantities)
def test_a_deny_wins(world: World, counters: Counts, at: datetime, quantity: int) -> None:
    decision = ask(with_override(world, OverrideMode.DENY), counters, at, quantity)
    assert (decision.allowed, decision.reason) == (False, Reason.OVERRIDE_DENIED)


@given(worlds(), counts(), near, near)
def test_a_snapshot_answers_like_a_fresh_one_while_it_holds(
    world: World, counters: Counts, built_at: datetime, at: datetime
) -> None:
    snapshot = build_snapshot(*world, built_at)
    assert snapshot.holds_at(built_at)
    instants = {at, built_at, snapshot.valid_from}
    if snapshot.valid_until is not None:
        instants |= {snapshot.valid_until, snapshot.valid_until - timedelta(microseconds=1)}
    for instant in instants:
        if not snapshot.holds_at(instant) or instant.year < 2000:
            continue
        fresh = build_snapshot(*world, instant)
        assert decide(snapshot, "exports", counters, at=instant) == decide(fresh, "exports", counters, at=instant)
        assert (snapshot.plan, snapshot.add_ons, snapshot.valid_until) == (fresh.plan, fresh.add_ons, fresh.valid_until)


@given(worlds(), counts(), near)
def test_the_period_shown_contains_the_instant(world: World, counters: Counts, at: datetime) -> None:
    period = ask(world, counters, at).period
    if period is not None:
        assert period.start is None or period.start <= at
        assert period.resets_at is None or at < period.resets_at
        assert (period.resets_at is None) is (period.kind is PeriodKind.ALL_TIME)


@given(worlds(), counts(), near, quantities)
def test_numbers_agree_with_the_answer(world: World, counters: Counts, at: datetime, quantity: int) -> None:
    decision = ask(world, counters, at, quantity)
    assert decision.unlimited is (decision.reason is Reason.UNLIMITED)
    if decision.limit is not None:
        assert decision.used is not None
        assert decision.reserved is not None
        taken = decision.used + decision.reserved
        assert decision.allowed is (taken + quantity <= decision.limit)
        assert decision.reason is (Reason.WITHIN_LIMIT if decision.allowed else Reason.LIMIT_REACHED)
        assert decision.remaining == max(0, decision.limit - taken)


@given(st.lists(entitlements(), min_size=1, max_size=4), st.randoms(use_true_random=False), counts(), quantities)
def test_the_order_of_sources_does_not_matter(
    granted: list[Entitlement], random: object, counters: Counts, quantity: int
) -> None:
    shuffled = list(granted)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis hands over a random.Random.
    answers = []
    for order in (granted, shuffled):
        catalog = catalog_of([plan("pro", *order)], fallback_plan="pro")
        decision = ask((catalog, facts(created_at=NOW - timedelta(days=100))), counters, NOW, quantity)
        answers.append((decision.allowed, decision.reason, decision.limit, decision.remaining, decision.unlimited))
    assert answers[0] == answers[1]


@given(
    st.lists(st.tuples(limits, st.sampled_from(Stacking)), min_size=1, max_size=4),
    st.tuples(limits, st.sampled_from(Stacking)),
    st.integers(1, 4),
)
def test_another_source_never_takes_away(
    granted: list[tuple[int | None, Stacking]], another: tuple[int | None, Stacking], quantity: int
) -> None:
    def limit(sources: list[tuple[int | None, Stacking]], bought: int) -> float:
        versions = [
            plan(f"extra-{number}", exports(amount, stacking=stacking), kind="add_on")
            for number, (amount, stacking) in enumerate(sources)
        ]
        held = tuple(assigned(version.key, kind="add_on", quantity=bought) for version in versions)
        decision = ask((catalog_of(versions), facts(assignments=held)), {}, NOW)
        return float("inf") if decision.unlimited else decision.limit or 0

    assert limit([*granted, another], quantity) >= limit(granted, quantity)
    assert limit(granted, quantity + 1) >= limit(granted, quantity)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=5), st.lists(st.integers(1, 9), min_size=5, max_size=5))
def test_sums_are_sums_and_maxima_are_maxima(amounts: list[int], bought: list[int]) -> None:
    for stacking, expected in (
        (Stacking.SUM, sum(amount * number for amount, number in zip(amounts, bought, strict=False))),
        (Stacking.MAX, max(amounts)),
    ):
        versions = [
            plan(f"extra-{index}", exports(amount, stacking=stacking), kind="add_on")
            for index, amount in enumerate(amounts)
        ]
        held = tuple(
            assigned(version.key, kind="add_on", quantity=number)
            for version, number in zip(versions, bought, strict=False)
        )
        assert ask((catalog_of(versions), facts(assignments=held)), {}, NOW).limit == expected


@given(worlds(), counts(), near)
def test_all_decisions_are_the_single_ones(world: World, counters: Counts, at: datetime) -> None:
    snapshot = build_snapshot(*world, at)
    together = decisions(snapshot, counters, at=at)
    assert together == {key: decide(snapshot, key, counters, at=at) for key in world[0].features}


@given(worlds(), counts(), near, quantities)
def test_a_trace_changes_nothing_and_its_unlocks_are_ways_to_a_yes(
    world: World, counters: Counts, at: datetime, quantity: int
) -> None:
    snapshot = build_snapshot(*world, at)
    plain = decide(snapshot, "exports", counters, at=at, quantity=quantity)
    traced = decide(snapshot, "exports", counters, at=at, quantity=quantity, with_trace=True)
    assert msgspec.structs.replace(traced, trace=None) == plain
    assert traced.trace is not None
    if plain.allowed:
        assert traced.trace.options == ()
    assert sum(step.outcome in {"won", "exhausted"} for step in traced.trace.steps) == 1
    for option in traced.trace.options:
        if option.kind == "wait":
            assert option.at is not None
            later = build_snapshot(*world, option.at)
            assert decide(later, "exports", counters, at=option.at, quantity=quantity).allowed


@given(worlds(), near)
def test_every_window_that_decides_is_counted(world: World, at: datetime) -> None:
    catalog, company = world
    counted = window_kinds(catalog, "exports", company.overrides)
    snapshot = build_snapshot(catalog, company, at)
    assert {one.kind for one in snapshot.features["exports"].answer.allowances} <= counted
