"""Proves plan audiences: whom a rule puts on a plan, and what comes before and after it."""

from datetime import timedelta

import pytest

from plangate.engine.catalog import Audience, Catalog, Condition
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, PlanSource
from plangate.engine.snapshot import HeldPlan
from plangate.engine.values import TraitValue
from tests.engine.factories import BEGAN, NOW, assigned, catalog_of, exports, facts, item, plan, shop, subscribed

IN_EUROPE = Condition(kind="trait", trait="region", value="eu")
LARGE = Condition(kind="trait", trait="size", operator="gte", value=100, value_type="number")
NAMED = Condition(kind="company", values=("id=acme",))
BOUGHT = Condition(kind="product", values=("prod_legacy",))


def catalog(*audiences: Audience, trial_expiry_plan: str | None = None) -> Catalog:
    return catalog_of(
        [
            plan("free", exports(10)),
            plan("expired", exports(1)),
            plan("starter", exports(100), monthly=1900),
            plan("pro", exports(1000), monthly=4900),
        ],
        initial_plan="free",
        fallback_plan="free",
        trial_expiry_plan=trial_expiry_plan,
        audiences=audiences,
    )


def audience(key: str, plan_key: str, *groups: tuple[Condition, ...], priority: int = 0) -> Audience:
    return Audience(key=key, plan=plan_key, priority=priority, groups=groups)


def on(held: Catalog, company: CompanyFacts) -> tuple[str | None, PlanSource | None, str | None]:
    """The base plan, where it comes from, and the audience if it is one."""
    base = build_snapshot(held, company, NOW).plan
    return (None, None, None) if base is None else (base.key, base.source, base.audience)


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        ({"region": "eu", "size": 100}, "pro"),
        ({"region": "eu", "size": 99}, "free"),
        ({"region": "us", "size": 100}, "free"),
        ({"region": "eu"}, "free"),
        ({"region": "eu", "size": "100"}, "free"),
        ({}, "free"),
    ],
)
def test_all_conditions_of_a_group_must_be_met(traits: dict[str, TraitValue], expected: str) -> None:
    held = catalog(audience("large-europe", "pro", (IN_EUROPE, LARGE)))
    source = (PlanSource.AUDIENCE, "large-europe") if expected == "pro" else (PlanSource.INITIAL, None)
    assert on(held, facts(traits=traits)) == (expected, *source)


def test_one_group_of_several_is_enough() -> None:
    held = catalog(audience("either", "pro", (LARGE,), (NAMED,)))
    assert on(held, facts(keys=frozenset({"id=acme"})))[0] == "pro"
    assert on(held, facts(traits={"size": 500}))[0] == "pro"
    assert on(held, facts(keys=frozenset({"id=other"}), traits={"size": 5}))[0] == "free"


def test_the_lower_priority_number_comes_first_then_the_key() -> None:
    first = audience("b", "starter", (NAMED,), priority=1)
    second = audience("a", "pro", (NAMED,), priority=2)
    company = facts(keys=frozenset({"id=acme"}))
    assert on(catalog(second, first), company) == ("starter", PlanSource.AUDIENCE, "b")
    same = audience("c", "pro", (NAMED,), priority=1)
    assert on(catalog(same, first), company) == ("starter", PlanSource.AUDIENCE, "b")


def test_a_subscription_and_an_assignment_come_before_any_audience() -> None:
    held = catalog(audience("everyone", "pro", ()))
    assert on(held, facts()) == ("pro", PlanSource.AUDIENCE, "everyone")
    assert on(held, facts(subscriptions=(subscribed("starter"),)))[:2] == ("starter", PlanSource.SUBSCRIPTION)
    assert on(held, facts(assignments=(assigned("starter"),)))[:2] == ("starter", PlanSource.ASSIGNMENT)
    over = facts(assignments=(assigned("starter", held_until=NOW),))
    assert on(held, over)[:2] == ("pro", PlanSource.AUDIENCE)


def test_an_audience_comes_before_initial_trial_expiry_and_fallback() -> None:
    held = catalog(audience("named", "pro", (NAMED,)), trial_expiry_plan="expired")
    ended = subscribed("starter", status="canceled", trial_end_at=BEGAN, ended_at=BEGAN)
    began = assigned("starter", source=PlanSource.INITIAL)
    named = facts(keys=frozenset({"id=acme"}), subscriptions=(ended,), assignments=(began,))
    assert on(held, named) == ("pro", PlanSource.AUDIENCE, "named")
    assert on(held, facts(subscriptions=(ended,)))[:2] == ("expired", PlanSource.TRIAL_EXPIRY)
    later = subscribed("starter", status="canceled", trial_end_at=BEGAN, ended_at=BEGAN + timedelta(days=1))
    assert on(held, facts(subscriptions=(later,)))[:2] == ("free", PlanSource.FALLBACK)


def test_products_are_those_of_live_subscriptions() -> None:
    held = catalog(audience("legacy", "pro", (BOUGHT,)))
    # A price the catalogue does not know; no plan was ever known, so the product may decide.
    running = subscribed(items=(item("price_legacy", stripe_product_id="prod_legacy"),))
    assert on(held, facts(subscriptions=(running,))) == ("pro", PlanSource.AUDIENCE, "legacy")
    ended = subscribed(items=(item("price_legacy", stripe_product_id="prod_legacy"),), status="canceled", ended_at=NOW)
    # It was never one to a plan of ours, so its end is not the end of one.
    assert on(held, facts(subscriptions=(ended,)))[:2] == ("free", PlanSource.INITIAL)
    failed = subscribed(
        items=(item("price_legacy", stripe_product_id="prod_legacy"),),
        status="past_due",
        past_due_since=NOW - timedelta(days=6),
    )
    snapshot = build_snapshot(held, facts(subscriptions=(failed,)), NOW)
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.valid_until) == ("pro", NOW + timedelta(days=1))


def test_what_an_audience_cannot_know_never_matches_even_negated() -> None:
    for condition in (
        Condition(kind="plan", values=("starter",), operator="not_in"),
        Condition(kind="user", values=("user_ann",), operator="not_in"),
        Condition(kind="trait", subject="user", trait="role", value="admin"),
        Condition(kind="usage", feature="exports", operator="gte", value=0),
    ):
        assert on(catalog(audience("odd", "pro", (condition,))), facts())[0] == "free"


def test_audiences_without_groups_or_of_unknown_plans_are_passed_over() -> None:
    assert on(catalog(audience("empty", "pro")), facts())[0] == "free"
    held = catalog(audience("gone", "retired", ()), audience("next", "starter", (), priority=1))
    assert on(held, facts()) == ("starter", PlanSource.AUDIENCE, "next")


def test_an_audience_may_ask_for_an_add_on() -> None:
    extended = shop()
    held = catalog(audience("extended", "pro", (Condition(kind="add_on", values=("extra",)),)))
    held = Catalog(
        revision=1,
        features=held.features,
        plans=held.plans,
        add_ons=extended.add_ons,
        audiences=held.audiences,
        fallback_plan="free",
    )
    with_add_on = facts(assignments=(assigned("extra", kind="add_on"),))
    assert on(held, with_add_on)[0] == "pro"
    assert on(held, facts())[0] == "free"


def test_windows_count_from_the_company_or_from_when_the_audience_was_recorded() -> None:
    held = catalog(audience("everyone", "pro", ()))
    assert build_snapshot(held, facts(), NOW).anchor_at == BEGAN
    since = BEGAN + timedelta(days=5)
    recorded = assigned("pro", source=PlanSource.AUDIENCE, held_from=since)
    snapshot = build_snapshot(held, facts(assignments=(recorded,)), NOW)
    assert (snapshot.anchor_at, on(held, facts(assignments=(recorded,)))[2]) == (since, "everyone")
    # The rule decides who is in; what was recorded of another plan puts nobody on it.
    stale = assigned("starter", source=PlanSource.AUDIENCE, held_from=since)
    assert on(held, facts(assignments=(stale,)))[0] == "pro"
    nobody = catalog(audience("named", "pro", (NAMED,)))
    assert on(nobody, facts(assignments=(recorded,)))[0] == "free"


def test_only_an_assignment_by_audience_says_how_an_audience_is_held() -> None:
    held = catalog(audience("everyone", "pro", ()))
    initial = assigned("pro", source=PlanSource.INITIAL, quantity=3, held_from=BEGAN - timedelta(days=9))
    snapshot = build_snapshot(held, facts(assignments=(initial,)), NOW)
    assert snapshot.plan == HeldPlan(key="pro", version=1, source=PlanSource.AUDIENCE, audience="everyone")
    assert snapshot.anchor_at == BEGAN
    kept = assigned("pro", source=PlanSource.AUDIENCE, quantity=3, held_from=BEGAN - timedelta(days=9))
    snapshot = build_snapshot(held, facts(assignments=(kept,)), NOW)
    assert snapshot.plan == HeldPlan(key="pro", version=1, source=PlanSource.AUDIENCE, quantity=3, audience="everyone")
    assert snapshot.anchor_at == BEGAN - timedelta(days=9)
