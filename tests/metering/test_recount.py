"""Counters can be rebuilt: what differs from the ledger is found, in every window, and counted anew."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select, update

from plangate import access, companies, drift, metering, overrides
from plangate.environment import Environment
from plangate.metering import TrackEvent
from plangate.store.usage import usage_windows
from tests.world import ACTOR, make_company, publish, still

ACME = {"id": "acme"}
ADA = {"id": "ada"}


async def _use(environment: Environment, quantity: int = 1, **more: Any) -> None:  # noqa: ANN401 - fields of an event
    event = TrackEvent(event="export", company=ACME, quantity=quantity, **more)
    await metering.record(environment, [event], may_correct=True)


async def _spoil(environment: Environment, **values: int) -> int:
    async with environment.writing() as session:
        return (await session.run(update(usage_windows).values(**values))).rowcount


async def test_what_equals_the_ledger_is_no_drift(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    await _use(environment, 7)
    await _use(environment, -9)
    await metering.reserve(environment, company=ACME, feature="exports", quantity=3)
    assert await drift.usage_drift(environment) == []
    # Corrections may bring the ledger below zero, and the counter with it; what is shown is never negative.
    assert (await access.check(environment, company=ACME, feature="exports")).used == 0


async def test_every_window_is_compared_and_counted_anew(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    user, _ = await companies.upsert_user(environment, keys=ADA, companies=[ACME])
    await overrides.grant(
        environment, company.id, feature="exports", value=50, user=user.id, note="Her own", actor=ACTOR
    )
    await _use(environment, 4, user=ADA)
    clock.advance(days=40)
    await _use(environment, 2, user=ADA)
    await metering.reserve(
        environment, company=ACME, feature="exports", quantity=3, user=ADA, time_to_live=timedelta(days=1)
    )
    spoiled = await _spoil(environment, used=1_000, reserved=77)
    assert spoiled == 4  # two periods, of the company and of the user
    found = await drift.usage_drift(environment)
    assert [one.is_repaired for one in found] == [False] * spoiled
    assert any(f"of user {user.id}" in one.detail and "the ledger 4" in one.detail for one in found)
    assert any("the reservations 3" in one.detail for one in found)
    repaired = await drift.usage_drift(environment, repair=True)
    assert [one.is_repaired for one in repaired] == [True] * spoiled
    assert await drift.usage_drift(environment) == []
    check = await access.check(environment, company=ACME, feature="exports")
    assert (check.used, check.reserved) == (2, 3)
    async with environment.reading() as session:
        rows = await session.all(select(usage_windows.c.used, usage_windows.c.reserved))
    assert sorted((int(row["used"]), int(row["reserved"])) for row in rows) == [(2, 3), (2, 3), (4, 0), (4, 0)]


async def test_u9_usage_that_waited_for_its_company_keeps_its_user(environment: Environment) -> None:
    await publish(environment)
    await _use(environment, 4, user=ADA)
    await _use(environment, 5, user={"id": "bob"})
    # The company becomes known by another key first, so that its user can be known before its usage arrives.
    company, _ = await companies.upsert(environment, keys={"crm": "1"}, actor=ACTOR)
    await companies.upsert_user(environment, keys=ADA, companies=[{"crm": "1"}])
    await companies.upsert(environment, keys={"crm": "1", "id": "acme"}, actor=ACTOR)
    of_ada = await metering.series(environment, company.id, "exports", "day", user=ADA)
    of_all = await metering.series(environment, company.id, "exports", "day")
    assert (of_ada.points[-1].quantity, of_all.points[-1].quantity) == (4, 9)
