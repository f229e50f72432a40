"""Plans and add-ons given by hand: kept beside what Stripe says, recorded, and gone when they are taken away."""

import asyncio
from typing import Any

import pytest

from plangate import access, companies, metering
from plangate.companies import Assigned
from plangate.engine.decision import SourceKind
from plangate.engine.facts import PlanSource
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.shapes import Company
from tests.world import ACTOR, DOCUMENT, make_company, publish, still

ACME = {"id": "acme"}


def _with_add_ons() -> dict[str, Any]:
    def add_on(name: str, *fits: str) -> dict[str, Any]:
        return {
            "name": name,
            "fits": list(fits),
            "entitlements": {"exports": {"limit": 100, "period": "billing_month", "stacking": "sum"}},
            "prices": [{"currency": "usd", "interval": "month", "amount_minor": 500}],
        }

    return {**DOCUMENT, "add_ons": {"more": add_on("More"), "pro-pack": add_on("Pro pack", "pro")}}


async def _put(environment: Environment, **assigned: Any) -> Company:  # noqa: ANN401 - fields of Assigned
    company, _ = await companies.upsert(environment, keys=ACME, assigned=Assigned(**assigned), actor=ACTOR)
    return company


async def test_a_plan_is_assigned_and_taken_away(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    acme = await make_company(environment)
    before = clock.now()
    company = await _put(environment, plan="pro")
    assert company.plan is not None
    assert (company.plan.key, company.plan.source) == ("pro", PlanSource.ASSIGNMENT)
    assert (await access.check(environment, company=ACME, feature="sso")).allowed
    assert not (await access.check(environment, company=ACME, feature="sso", at=before)).allowed
    newest = (await companies.history(environment, acme.id))[0]
    assert (newest.before, newest.after) == (
        {"name": "Acme", "traits": {}, "assigned": {"plan": None, "add_ons": {}}},
        {"keys": [], "traits": {}, "assigned": {"plan": "pro", "add_ons": {}}},
    )
    again = await _put(environment, plan="pro")
    assert again == company
    company = await _put(environment, plan=None)
    assert company.plan is not None
    assert (company.plan.key, company.plan.source) == ("free", PlanSource.INITIAL)
    assert len(await companies.history(environment, acme.id)) == 3


async def test_a_new_company_may_start_on_a_plan(environment: Environment) -> None:
    await publish(environment)
    company = await _put(environment, plan="pro")
    assert company.plan is not None
    assert company.plan.key == "pro"


async def test_u12_usage_survives_a_plan_change_and_the_new_limit_applies_at_once(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    await make_company(environment)
    for number in range(10):
        await metering.consume(environment, company=ACME, feature="exports", idempotency_key=str(number))
    assert not (await access.check(environment, company=ACME, feature="exports")).allowed
    clock.advance(days=2)
    await _put(environment, plan="pro")
    decision = await access.check(environment, company=ACME, feature="exports")
    assert (decision.allowed, decision.used, decision.limit, decision.remaining) == (True, 10, 1000, 990)


async def test_add_ons_are_absolute_quantities_and_must_fit(connected_environment: Environment) -> None:
    environment = connected_environment
    await publish(environment, _with_add_ons())
    await make_company(environment)
    company = await _put(environment, add_ons={"more": 2})
    assert [(one.key, one.quantity) for one in company.add_ons] == [("more", 2)]
    decision = await access.check(environment, company=ACME, feature="exports")
    assert decision.limit == 210
    company = await _put(environment, add_ons={"more": 3})
    assert [(one.key, one.quantity) for one in company.add_ons] == [("more", 3)]
    with pytest.raises(Refusal) as caught:
        await _put(environment, add_ons={"pro-pack": 1})
    assert (caught.value.code, caught.value.status) == (Code.ADD_ON_UNFIT, 409)
    company = await _put(environment, plan="pro", add_ons={"pro-pack": 1})
    assert {one.key for one in company.add_ons} == {"more", "pro-pack"}
    # One that does not fit the new plan ends at the same instant.
    company = await _put(environment, plan="free")
    assert {one.key for one in company.add_ons} == {"more"}
    company = await _put(environment, add_ons={"more": 0, "pro-pack": 0})
    assert company.add_ons == ()
    decision = await access.check(environment, company=ACME, feature="exports")
    assert decision.source is not None
    assert (decision.limit, decision.source.kind) == (10, SourceKind.PLAN)


@pytest.mark.parametrize(
    ("assigned", "pointer"),
    [
        ({"plan": "nonsense"}, "/plan"),
        ({"add_ons": {"nonsense": 1}}, "/add_ons/nonsense"),
        ({"add_ons": {"a/b": -1}}, "/add_ons/a~1b"),
        ({"add_ons": {"x": 1_000_001}}, "/add_ons/x"),
    ],
)
async def test_what_is_not_offered_cannot_be_assigned(
    environment: Environment, assigned: dict[str, Any], pointer: str
) -> None:
    await publish(environment)
    with pytest.raises(Refusal) as caught:
        await _put(environment, **assigned)
    assert (caught.value.status, caught.value.errors[0].pointer) == (422, pointer)
    assert await companies.find(environment, ACME) is None


async def test_assignments_at_the_same_moment_leave_one_plan(environment: Environment) -> None:
    await publish(environment)
    acme = await make_company(environment)
    await asyncio.gather(*(_put(environment, plan=("pro", "free")[number % 2]) for number in range(8)))
    standing = await environment.standings.of(acme.id)
    assert standing is not None
    assert len([fact for fact in standing.facts.assignments if fact.kind == "plan"]) == 1
