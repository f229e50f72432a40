"""The blast radius that `plan` shows, against every decision asked before and after the same document is applied."""

import copy
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from plangate import access, catalog, metering, overrides
from plangate.engine.decision import Decision
from plangate.environment import Environment
from plangate.metering import TrackEvent
from tests.world import ACTOR, make_company, put_on, still

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
_COMPANIES = 200

BEFORE: dict[str, Any] = {
    "version": 1,
    "initial_plan": "free",
    "fallback_plan": "free",
    "features": {
        "exports": {"name": "Exports", "type": "event"},
        "calls": {"name": "Calls", "type": "event"},
        "sso": {"name": "Single sign-on", "type": "boolean"},
        "seats": {"name": "Seats", "type": "seat", "trait": "seats"},
        "old": {"name": "Old", "type": "boolean"},
    },
    "plans": {
        "free": {"name": "Free", "entitlements": {"exports": 10, "seats": 3, "old": True}},
        "pro": {"name": "Pro", "entitlements": {"exports": 100, "calls": 1_000, "seats": 10, "sso": True}},
        "max": {"name": "Max", "entitlements": {"exports": "unlimited", "calls": "unlimited", "seats": 50}},
        "vip": {"name": "VIP", "entitlements": {"exports": 500, "sso": True}},
    },
    "audiences": {
        "big": {"plan": "vip", "groups": [[{"kind": "trait", "trait": "size", "operator": "gt", "value": 5}]]}
    },
}


def after() -> dict[str, Any]:
    """Less and more of everything, a feature gone and one new, a plan archived, other companies in the audience."""
    document = copy.deepcopy(BEFORE)
    plans = document["plans"]
    plans["free"]["entitlements"] = {"exports": 20, "seats": 2, "new": True}
    plans["pro"]["entitlements"] = {"exports": 60, "calls": "unlimited", "seats": 10}
    plans["max"]["entitlements"] |= {"exports": 400, "sso": True}
    document["features"]["new"] = {"name": "New", "type": "boolean"}
    del document["features"]["old"]
    document["audiences"]["big"]["groups"][0][0]["value"] = 7
    return document


async def populate(env: Environment, dice: random.Random) -> None:
    """Companies on every plan, some by audience, with overrides and usage of their own."""
    for number in range(_COMPANIES):
        key = f"company-{number}"
        company = await make_company(env, key, seats=dice.choice([1, 3, 4, 12]), size=dice.choice([1, 6, 9]))
        plan = dice.choice(["free", "pro", "max", None])
        if plan is not None:
            await put_on(env, company.id, plan)
        event = TrackEvent(event="exports", company={"id": key}, quantity=dice.choice([5, 15, 80, 450]))
        await metering.record(env, [event])
        if dice.random() < 0.3:
            feature, value = dice.choice([("exports", 70), ("calls", 5), ("sso", True), ("sso", False), ("seats", 3)])
            await overrides.grant(env, company.id, feature=feature, value=value, note="a favour", actor=ACTOR)


async def decided(env: Environment) -> dict[str, tuple[str | None, Mapping[str, Decision]]]:
    """Each company's plan, and what it is answered about every feature."""
    found: dict[str, tuple[str | None, Mapping[str, Decision]]] = {}
    for number in range(_COMPANIES):
        key = f"company-{number}"
        decisions = await access.checks(env, company={"id": key})
        standing = await env.standings.of(next(iter(decisions.values())).company or "")
        assert standing is not None
        plan = standing.snapshot_at(env.clock.now()).plan
        found[key.title()] = (None if plan is None else plan.key, decisions)
    return found


def is_granted(decision: Decision | None) -> bool:
    return decision is not None and decision.reason not in {"no_entitlement", "override_denied", "archived_feature"}


def amount(decision: Decision | None) -> float:
    """What a decision grants: nothing, a limit, or without end."""
    if decision is None or not is_granted(decision):
        return 0
    if decision.unlimited:
        return float("inf")
    return float(decision.limit) if decision.limit is not None else float(decision.allowed)


def moved(old: Mapping[str, Decision], new: Mapping[str, Decision]) -> Iterator[tuple[str, str]]:
    """What is gained, lost, and gone over, feature by feature; nobody is over the limit of what they never had."""
    for feature in old.keys() | new.keys():
        was, becomes = amount(old.get(feature)), amount(new.get(feature))
        if was != becomes:
            yield ("gained" if becomes > was else "lost"), feature
        used = (new[feature].used or 0) if feature in new else 0
        is_limited = is_granted(new.get(feature)) or is_granted(old.get(feature))
        if is_limited and used > becomes and not (is_granted(old.get(feature)) and used > was):
            yield "over_limit", feature


async def test_it_is_what_the_decisions_then_say(environment: Environment) -> None:
    still(environment)
    await catalog.apply(environment, BEFORE, actor=ACTOR)
    await populate(environment, random.Random(7))  # noqa: S311 - the same companies every time
    before = await decided(environment)
    impact = (await catalog.plan(environment, after())).impact
    assert impact is not None
    await catalog.apply(environment, after(), actor=ACTOR)
    then = await decided(environment)

    expected: Counter[tuple[str | None, str, str]] = Counter()
    affected: set[str] = set()
    for name, (plan, decisions) in before.items():
        for what, feature in moved(decisions, then[name][1]):
            expected[plan, what, feature] += 1
            affected.add(name)
    told: Counter[tuple[str | None, str, str]] = Counter()
    for one in impact.plans:
        for what in ("gained", "lost", "over_limit"):
            for effect in getattr(one, what):
                told[one.plan, what, effect.feature] += effect.count
    assert told == expected
    assert (impact.examined, impact.affected) == (_COMPANIES, len(affected))
    assert {what for _, what, _ in told} == {"gained", "lost", "over_limit"}
