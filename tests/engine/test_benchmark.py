"""Keeps the benchmark honest: its floor must answer every question as the engine does, or it is no floor."""

from benchmarks.engine import agreement, floor, plangate
from benchmarks.population import populate
from plangate.engine.facts import PlanSource
from plangate.engine.values import FeatureType, PeriodKind


def test_the_floor_answers_as_the_engine_does() -> None:
    population = populate(300)
    questions = population.questions(5000, seed=3)
    assert agreement(floor(population), plangate(population), questions) == 1


def test_every_kind_of_entitlement_is_there() -> None:
    population = populate(300)
    versions = (*population.catalog.plans.values(), *population.catalog.add_ons.values())
    granted = [entitlement for version in versions for entitlement in version.entitlements]
    assert {one.type for one in population.catalog.features.values()} == set(FeatureType)
    assert {one.scope for one in granted} == {"company", "user"}
    assert {one.period for one in granted} >= {PeriodKind.DAY, PeriodKind.MONTH, PeriodKind.BILLING_MONTH}
    assert any(one.limit_trait for one in granted)
    assert any(one.soft_limit for one in granted)
    sources = {snapshot.plan.source for snapshot in population.snapshots.values() if snapshot.plan is not None}
    assert sources == set(PlanSource)
