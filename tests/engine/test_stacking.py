"""Proves which source an allowance of several is named after, and in which window an override counts."""

import pytest

from plangate.engine.catalog import Catalog, Entitlement
from plangate.engine.decide import decide
from plangate.engine.decision import Decision, Source, SourceKind
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import Override
from plangate.engine.values import OverrideMode, PeriodKind, Stacking
from tests.engine.factories import NOW, assigned, catalog_of, counter, exports, facts, override, plan

PRO = Source(kind=SourceKind.PLAN, key="pro", version=1)
DAILY = ("exports", PeriodKind.DAY, "")
MONTHLY = ("exports", PeriodKind.BILLING_MONTH, "")


def of(*entitlements: Entitlement, **add_ons: Entitlement) -> Catalog:
    return catalog_of(
        [plan("pro", *entitlements), *(plan(key, one, kind="add_on") for key, one in add_ons.items())],
        fallback_plan="pro",
    )


def ask(catalog: Catalog, *overrides: Override, add_ons: tuple[str, ...] = ()) -> Decision:
    held = tuple(assigned(key, kind="add_on") for key in add_ons)
    snapshot = build_snapshot(catalog, facts(assignments=held, overrides=overrides), NOW)
    return decide(snapshot, "exports", {}, at=NOW)


@pytest.mark.parametrize(
    ("limit", "stacking", "total", "name"),
    [
        # Of parts that add up, the largest gives its name; of equals, what the plan grants.
        (50, Stacking.SUM, 150, "pro"),
        (100, Stacking.SUM, 200, "pro"),
        (101, Stacking.SUM, 201, "extra"),
        (None, Stacking.SUM, None, "extra"),
        # Of those that do not, the more generous.
        (50, Stacking.MAX, 100, "pro"),
        (100, Stacking.MAX, 100, "pro"),
        (101, Stacking.MAX, 101, "extra"),
        (None, Stacking.MAX, None, "extra"),
    ],
)
def test_the_source_is_what_gives_most(limit: int | None, stacking: Stacking, total: int | None, name: str) -> None:
    catalog = of(exports(100), extra=exports(limit, stacking=stacking))
    found = ask(catalog, add_ons=("extra",))
    assert found.source is not None
    assert (found.limit, found.unlimited, found.source.key) == (total, total is None, name)


def test_summed_parts_come_on_top_of_the_largest_of_the_others() -> None:
    catalog = of(
        exports(100),
        big=exports(300),
        one=exports(20, stacking=Stacking.SUM),
        two=exports(30, stacking=Stacking.SUM),
    )
    found = ask(catalog, add_ons=("big", "one", "two"))
    assert (found.limit, found.source) == (350, Source(kind=SourceKind.ADD_ON, key="big", version=1))


def test_an_override_without_a_period_counts_in_the_longest_window() -> None:
    catalog = of(exports(10, period=PeriodKind.DAY), exports(100))
    snapshot = build_snapshot(catalog, facts(overrides=(override(OverrideMode.ADD, 7),)), NOW)
    spent = {DAILY: counter(10, start_at=NOW), MONTHLY: counter(100)}
    found = decide(snapshot, "exports", spent, at=NOW)
    assert found.period is not None
    assert (found.period.kind, found.limit, found.remaining) == (PeriodKind.BILLING_MONTH, 107, 7)
    for_the_day = override(OverrideMode.ADD, 8, period=PeriodKind.DAY)
    found = decide(build_snapshot(catalog, facts(overrides=(for_the_day,)), NOW), "exports", spent, at=NOW)
    assert found.period is not None
    assert (found.period.kind, found.limit, found.remaining) == (PeriodKind.DAY, 18, 8)


def test_a_set_counts_only_where_it_is_more_and_an_add_on_top_of_either() -> None:
    catalog = of(exports(100))
    less, more = override(OverrideMode.SET, 99), override(OverrideMode.SET, 101)
    assert (ask(catalog, less).limit, ask(catalog, less).source) == (100, PRO)
    same = ask(catalog, override(OverrideMode.SET, 100))
    assert (same.limit, same.source) == (100, PRO)
    source = Source(kind=SourceKind.OVERRIDE, key="ovr_set")
    assert (ask(catalog, more).limit, ask(catalog, more).source) == (101, source)
    both = ask(catalog, override(OverrideMode.ADD, 5), more)
    assert (both.limit, both.source) == (106, Source(kind=SourceKind.OVERRIDE, key="ovr_add"))
    nothing = ask(catalog, override(OverrideMode.ADD, 0))
    assert (nothing.limit, nothing.source) == (100, PRO)
    unlimited = ask(of(exports(None)), override(OverrideMode.ADD, 5))
    assert (unlimited.unlimited, unlimited.source) == (True, PRO)
