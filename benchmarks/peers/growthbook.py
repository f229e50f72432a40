"""GrowthBook's Python engine on the same companies; what is left of limits is worked out for it beforehand."""

from importlib import import_module
from typing import Any

from benchmarks.peers import Contender
from benchmarks.population import NOW, USERS, Asked, Population
from plangate.engine.catalog import Feature
from plangate.engine.decide import decide
from plangate.engine.facts import UserFacts
from plangate.engine.values import FeatureType

_LIMITED = frozenset({FeatureType.EVENT, FeatureType.SEAT, FeatureType.TRAIT})


def contender(population: Population) -> Contender:
    """Features with rules about plan, add-ons and attributes, evaluated without callbacks or refreshes."""
    core, types = import_module("growthbook.core"), import_module("growthbook.common_types")
    features = {key: types.Feature(**_feature(one)) for key, one in population.catalog.features.items()}
    everybody = types.GlobalContext(options=types.Options(enabled=True), features=features)
    attributes = {
        (company, user_id): _attributes(population, company, user)
        for company in population.facts
        for user_id, user in ((None, None), *((one.user_id, one) for one in USERS))
    }
    evaluate, context, person, stack = core.eval_feature, types.EvaluationContext, types.UserContext, types.StackContext

    def ask(company: str, feature: str, user: UserFacts | None) -> bool:
        mine = attributes[company, None if user is None else user.user_id]
        found = evaluate(
            feature,
            context(global_ctx=everybody, user=person(attributes=mine), stack=stack(evaluated_features=set())),
        )
        return bool(found.on)

    def run(questions: list[Asked]) -> None:
        for company, feature, user in questions:
            ask(company, feature, user)

    return Contender(name="GrowthBook", run=run, ask=ask, share=0.1)


def _feature(feature: Feature) -> dict[str, Any]:
    key = feature.key
    rules: list[dict[str, Any]] = [{"condition": {"denied": {"$elemMatch": {"$eq": key}}}, "force": False}]
    if feature.type in _LIMITED:
        rules.append({"condition": {f"left.{key}": {"$gte": 1}}, "force": True})
    elif key == "sso":
        rules.append({"condition": {"plan": {"$in": ["pro", "enterprise"]}}, "force": True})
    elif key == "audit-log":
        rules.append({"condition": {"add_ons": {"$elemMatch": {"$eq": "audit"}}}, "force": True})
    elif key == "beta":
        rules.append({"condition": {"region": "eu", "size": {"$gte": 250}}, "force": True})
        rules.append({"condition": {"role": "admin"}, "force": True})
    else:
        rules.append({"force": True})
    return {"defaultValue": False, "rules": rules}


def _attributes(population: Population, company: str, user: UserFacts | None) -> dict[str, Any]:
    snapshot, facts = population.snapshots[company], population.facts[company]
    left: dict[str, int] = {}
    for key, feature in population.catalog.features.items():
        if feature.type in _LIMITED:
            decision = decide(snapshot, key, population.counters[company], at=NOW, user=user)
            left[key] = 1 if decision.allowed and decision.remaining is None else decision.remaining or 0
    return {
        "id": company,
        "plan": snapshot.plan.key if snapshot.plan is not None else None,
        "add_ons": [one.key for one in snapshot.add_ons],
        "denied": [one.feature for one in facts.overrides if one.mode == "deny"],
        "left": left,
        **facts.traits,
        **(user.traits if user is not None else {}),
    }
