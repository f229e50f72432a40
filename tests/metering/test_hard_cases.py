"""Hard cases of usage that other tests do not name: exact numbers, many companies, long backfills, zones, users."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event as listening

from plangate import access, companies, drift, metering
from plangate.engine.decision import Reason
from plangate.environment import Environment
from plangate.metering import TrackEvent
from plangate.store.database import Database
from tests.world import ACTOR, DOCUMENT, make_company, publish, still

ACME = {"id": "acme"}


@contextmanager
def _statements(database: Database) -> Iterator[list[str]]:
    """Every statement the database is given inside the block."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        seen.append(statement)

    engines = {database._reader.sync_engine, database._writer.sync_engine}  # noqa: SLF001 - to watch it work
    for engine in engines:
        listening.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        for engine in engines:
            listening.remove(engine, "before_cursor_execute", note)


async def _record(environment: Environment, number: int, *, company: Mapping[str, str] = ACME) -> None:
    for start in range(0, number, 1_000):
        count = min(1_000, number - start)
        await metering.record(environment, [TrackEvent(event="export", company=company)] * count)


async def test_u16_a_check_costs_the_same_however_long_the_ledger_is(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment, "busy")
    await make_company(environment, "quiet")
    await _record(environment, 3_000, company={"id": "busy"})
    await _record(environment, 1, company={"id": "quiet"})
    told: dict[str, list[str]] = {}
    for name, used in (("busy", 3_000), ("quiet", 1)):
        environment.standings.forget("")
        with _statements(environment.database) as seen:
            decision = await access.check(environment, company={"id": name}, feature="exports")
        assert decision.used == used
        told[name] = seen
        with _statements(environment.database) as again:
            await access.check(environment, company={"id": name}, feature="exports")
        assert again == []
    assert told["busy"] == told["quiet"]
    assert not any("usage_events" in statement for statement in told["busy"])


async def test_u16_the_counters_of_many_companies_equal_the_ledger(environment: Environment) -> None:
    await publish(environment)
    keys = [f"company-{number:03}" for number in range(100)]
    for key in keys:
        await companies.upsert(environment, keys={"id": key}, actor=ACTOR)
    events = [
        TrackEvent(event=name, company={"id": key}, quantity=number + 1)
        for number, key in enumerate(keys)
        for name in ("export", "api-calls")
    ]
    await asyncio.gather(*(metering.record(environment, events) for _ in range(5)))
    assert await drift.usage_drift(environment) == []
    check = await access.check(environment, company={"id": "company-099"}, feature="exports")
    assert check.used == 500


async def test_u19_checks_go_on_while_a_backfill_is_written(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await make_company(environment, "other")
    now = environment.clock.now()
    waits: list[float] = []
    is_over = asyncio.Event()

    async def check() -> None:
        while not is_over.is_set():
            begun = time.perf_counter()
            await access.check(environment, company={"id": "other"}, feature="exports")
            waits.append(time.perf_counter() - begun)
            await asyncio.sleep(0.002)

    checking = asyncio.create_task(check())
    late = [
        TrackEvent(event="export", company=ACME, occurred_at=now - timedelta(days=30) + timedelta(minutes=number))
        for number in range(1_000)
    ]
    await asyncio.gather(*(metering.record(environment, late) for _ in range(10)))
    is_over.set()
    await checking
    series = await metering.series(environment, company.id, "exports", "day", since=now - timedelta(days=31))
    assert sum(point.quantity for point in series.points) == 10_000
    waits.sort()
    assert waits[int(len(waits) * 0.99)] < 0.33
    assert await drift.usage_drift(environment) == []


async def test_t5_days_of_a_series_are_those_of_the_environments_zone(environment: Environment) -> None:
    still(environment, datetime(2026, 10, 26, 12, tzinfo=UTC))
    environment.settings = environment.settings.model_copy(update={"time_zone": "Europe/Berlin"})
    await publish(environment)
    company = await make_company(environment)
    for hour in range(25):  # 25 October 2026 has 25 hours in Berlin: from 22:00 UTC the day before
        occurred_at = datetime(2026, 10, 24, 22, 30, tzinfo=UTC) + timedelta(hours=hour)
        await metering.record(environment, [TrackEvent(event="export", company=ACME, occurred_at=occurred_at)])
    days = await metering.series(environment, company.id, "exports", "day")
    long_day, today = days.points[-2:]
    assert (long_day.start, long_day.end - long_day.start) == (
        datetime(2026, 10, 24, 22, tzinfo=UTC),
        timedelta(hours=25),
    )
    assert (long_day.quantity, today.quantity, today.start.hour) == (25, 0, 23)
    hours = await metering.series(environment, company.id, "exports", "hour", since=long_day.start, until=long_day.end)
    assert [point.quantity for point in hours.points] == [1] * 25


def _each_user(limit: int) -> dict[str, Any]:
    free = DOCUMENT["plans"]["free"]
    granted = {"limit": limit, "period": "month", "per": "user"}
    entitlements = {**free["entitlements"], "exports": granted}
    return {**DOCUMENT, "plans": {**DOCUMENT["plans"], "free": {**free, "entitlements": entitlements}}}


async def test_each_user_has_the_allowance_their_plan_gives_them(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    for name in ("ada", "bob"):
        await companies.upsert_user(environment, keys={"id": name}, companies=[ACME])
    # What was used before each user had an allowance counts in it.
    await metering.record(environment, [TrackEvent(event="export", company=ACME, user={"id": "ada"}, quantity=3)])
    await publish(environment, _each_user(5))
    check = await access.check(environment, company=ACME, feature="exports", user={"id": "ada"})
    assert (check.used, check.remaining, check.limit) == (3, 2, 5)
    answers = await asyncio.gather(
        *(
            metering.consume(
                environment, company=ACME, feature="exports", user={"id": name}, idempotency_key=f"{name}-{number}"
            )
            for name in ("ada", "bob")
            for number in range(20)
        )
    )
    assert sum(is_counted for _, is_counted in answers) == 2 + 5
    held = await metering.reserve(environment, company=ACME, feature="exports", user={"id": "bob"})
    assert (held.id, held.decision.reason) == (None, Reason.LIMIT_REACHED)
    nobody, is_counted = await metering.consume(environment, company=ACME, feature="exports", idempotency_key="x")
    assert (nobody.allowed, is_counted) == (False, False)
    environment.standings.forget("")
    check = await access.check(environment, company=ACME, feature="exports", user={"id": "bob"})
    assert (check.used, check.remaining) == (5, 0)
    assert await drift.usage_drift(environment) == []
