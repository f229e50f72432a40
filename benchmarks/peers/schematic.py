"""Schematic's own rules engine from Python on the same companies; what is left of limits is worked out for it too."""

import asyncio
from importlib import import_module
from typing import Any

from benchmarks.peers import Contender
from benchmarks.population import NOW, USERS, Asked, Population
from plangate.engine.catalog import Feature
from plangate.engine.decide import decide
from plangate.engine.facts import UserFacts
from plangate.engine.values import FeatureType, Json

_LIMITED = frozenset({FeatureType.EVENT, FeatureType.SEAT, FeatureType.TRAIT})
_SCOPE = {"account_id": "acct", "environment_id": "env"}


def contender(population: Population) -> Contender:
    """Flags with rules about plans and traits, companies and users with theirs, as its data stream would deliver."""
    engine = import_module("schematic.datastream.rules_engine").RulesEngineClient()
    asyncio.run(engine.initialize())
    types = import_module("schematic.types")
    flags = {
        key: types.RulesengineFlag(**_SCOPE, id=f"flag_{key}", key=key, default_value=False, rules=_rules(one))
        for key, one in population.catalog.features.items()
    }
    companies: dict[tuple[str, str | None], Any] = {}
    users: dict[str, Any] = {
        user.user_id: types.RulesengineUser(
            **_SCOPE, id=user.user_id, keys={"id": user.user_id}, rules=[], traits=_traits("user", user.traits)
        )
        for user in USERS
    }

    def company_of(company: str, user: UserFacts | None) -> Any:  # noqa: ANN401 - its class is not known here
        """Made when first asked about: 20,000 of them take minutes, and a round asks about few."""
        key = company, None if user is None else user.user_id
        made = companies.get(key)
        if made is None:
            made = companies[key] = types.RulesengineCompany(**_company(population, company, user))
        return made

    def ask(company: str, feature: str, user: UserFacts | None) -> bool:
        person = None if user is None else users[user.user_id]
        return bool(engine.check_flag(flags[feature], company_of(company, user), person).value)

    def run(questions: list[Asked]) -> None:
        for company, feature, user in questions:
            ask(company, feature, user)

    return Contender(name="Schematic", run=run, ask=ask, share=0.01)


def _rules(feature: Feature) -> list[dict[str, Any]]:
    key = feature.key
    denied = _rule(key, 0, [_trait(f"denied-{key}", "eq", "true", "bool")], value=False)
    match key:
        case "sso":
            return [denied, _rule(key, 1, [_plans("plan", ["pro", "enterprise"])])]
        case "audit-log":
            return [denied, _rule(key, 1, [_plans("plan", ["audit"])])]
        case "beta":
            europe = [_trait("region", "eq", "eu", "string"), _trait("size", "gte", "250", "int")]
            return [denied, _rule(key, 1, europe), _rule(key, 2, [_trait("role", "eq", "admin", "string", of="user")])]
        case _ if feature.type in _LIMITED:
            return [denied, _rule(key, 1, [_trait(f"left-{key}", "gte", "1", "int")])]
        case _:
            return [denied, _rule(key, 1, [])]


def _rule(key: str, priority: int, conditions: list[dict[str, Any]], *, value: bool = True) -> dict[str, Any]:
    return {
        **_SCOPE,
        "id": f"rule_{key}_{priority}",
        "flag_id": f"flag_{key}",
        "name": f"{key} {priority}",
        "priority": priority,
        "rule_type": "standard" if conditions else "default",
        "value": value,
        "conditions": conditions,
        "condition_groups": [],
    }


def _trait(name: str, operator: str, value: str, kind: str, *, of: str = "company") -> dict[str, Any]:
    return {
        **_SCOPE,
        "id": f"cond_{name}",
        "condition_type": "trait",
        "operator": operator,
        "resource_ids": [],
        "trait_definition": {"id": f"{of}-{name}", "comparable_type": kind, "entity_type": of},
        "trait_value": value,
    }


def _plans(kind: str, keys: list[str]) -> dict[str, Any]:
    return {
        **_SCOPE,
        "id": f"cond_{'_'.join(keys)}",
        "condition_type": kind,
        "operator": "eq",
        "resource_ids": [f"plan_{key}" for key in keys],
        "trait_value": "",
    }


def _company(population: Population, company: str, user: UserFacts | None) -> dict[str, Any]:
    snapshot, facts = population.snapshots[company], population.facts[company]
    traits: dict[str, Json] = dict(facts.traits)
    for key, feature in population.catalog.features.items():
        if feature.type in _LIMITED:
            decision = decide(snapshot, key, population.counters[company], at=NOW, user=user)
            traits[f"left-{key}"] = 1 if decision.allowed and decision.remaining is None else decision.remaining or 0
    traits |= {f"denied-{one.feature}": True for one in facts.overrides if one.mode == "deny"}
    base = [snapshot.plan.key] if snapshot.plan is not None else []
    held = [f"plan_{key}" for key in (*base, *(one.key for one in snapshot.add_ons))]
    return {
        **_SCOPE,
        "id": company,
        "keys": {"id": company},
        "base_plan_id": held[0] if base else None,
        "plan_ids": held,
        "plan_version_ids": [],
        "billing_product_ids": [],
        "credit_balances": {},
        "metrics": [],
        "rules": [],
        "traits": _traits("company", traits),
    }


def _traits(of: str, traits: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a mapping of stored values
    return [
        {
            "value": str(value).lower() if isinstance(value, bool) else str(value),
            "trait_definition": {
                "id": f"{of}-{name}",
                "entity_type": of,
                "comparable_type": "bool"
                if isinstance(value, bool)
                else "int"
                if isinstance(value, int | float)
                else "string",
            },
        }
        for name, value in traits.items()
    ]
