"""Usage counted from memory: only while memory is right, and with the same outcome as when everything is read."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from plangate import access, companies, metering, overrides
from plangate.deployment import Deployment
from plangate.engine.decision import Decision, Reason
from plangate.environment import Environment
from plangate.errors import Code
from plangate.metering import EventStatus, TrackEvent, recorder
from plangate.metering.batch import Outcome, write_batch
from plangate.metering.events import Item
from plangate.settings import Settings
from plangate.store import counting
from plangate.store.ledger import ledger_total, lock_companies
from plangate.store.meter_outbox import meter_outbox
from plangate.usage_windows import miscounted
from tests.conftest import SECRET_KEY, environment_settings
from tests.world import ACTOR, DOCUMENT, make_company, publish, put_on, still

ACME = {"id": "acme"}
ADA = {"id": "ada"}
_ACCEPTED = EventStatus.ACCEPTED


class _Reading:
    """Stands before the writer that reads first, and notes what was left to it."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    async def __call__(self, env: Environment, items: Sequence[Item]) -> list[Outcome]:
        self.items += items
        return await write_batch(env, items)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> _Reading:
    """Everything that was not counted from memory."""
    found = _Reading()
    monkeypatch.setattr(recorder, "write_batch", found)
    return found


@pytest.fixture
async def other(deployment: Deployment) -> AsyncIterator[Environment]:
    """The same environment in another process, which does not hear of what this one changes, nor this of it."""
    opened = await Deployment.open(deployment.settings)
    yield opened.named(None)
    await opened.close()


def _events(
    *quantities: int, key: str = "", user: Mapping[str, str] | None = None, occurred_at: datetime | None = None
) -> list[TrackEvent]:
    return [
        TrackEvent(
            event="export",
            company=ACME,
            user=user,
            quantity=quantity,
            occurred_at=occurred_at,
            idempotency_key=f"{key}{number}" if key else None,
        )
        for number, quantity in enumerate(quantities)
    ]


async def _used(environment: Environment) -> int | None:
    return (await access.check(environment, company=ACME, feature="exports")).used


async def _consume(environment: Environment, key: str) -> tuple[Decision, bool]:
    return await metering.consume(environment, company=ACME, feature="exports", idempotency_key=key)


async def _is_right(environment: Environment, company_id: str) -> bool:
    async with environment.writing() as session:
        await lock_companies(session, [company_id])
        return not await miscounted(session, await environment.catalog_in(session), company_id)


async def test_what_is_in_memory_is_counted_without_reading_first(environment: Environment, reading: _Reading) -> None:
    await publish(environment)
    company = await make_company(environment)
    await companies.upsert_user(environment, keys=ADA, companies=[ACME])
    await metering.record(environment, _events(1, user=ADA))
    assert len(reading.items) == 1
    results = await metering.record(environment, _events(2, 3, -1, key="k", user=ADA), may_correct=True)
    results += await metering.record(environment, _events(4, 5))
    # Events that nothing counts are kept all the same.
    results += await metering.record(environment, [TrackEvent(event="unheard-of", company=ACME)])
    assert [one.status for one in results] == [_ACCEPTED] * 6
    assert len(reading.items) == 1
    assert await _used(environment) == 14
    assert await _is_right(environment, company.id)
    environment.forget("")
    assert await _used(environment) == 14


async def test_usage_for_a_stripe_meter_waits_to_be_reported(environment: Environment, reading: _Reading) -> None:
    features = {**DOCUMENT["features"], "exports": {**DOCUMENT["features"]["exports"], "stripe_meter": "exported"}}
    await publish(environment, {**DOCUMENT, "features": features})
    company = await make_company(environment)
    for key in ("c1", "c2"):
        await metering.record(environment, _events(1, 0, 2))
        assert (await _consume(environment, key))[1] is True
    # Only the first events were not about a company in memory.
    assert len(reading.items) == 3
    async with environment.reading() as session:
        rows = await session.all(select(meter_outbox))
    assert sorted(row["quantity"] for row in rows) == [1, 1, 1, 1, 2, 2]
    assert {(row["company_id"], row["feature"], row["meter"], row["state"]) for row in rows} == {
        (company.id, "exports", "exported", "waiting")
    }
    assert all(row["occurred_at"] == row["available_at"] == row["recorded_at"] for row in rows)
    assert len({row["id"] for row in rows}) == 6


async def test_a_fault_on_the_short_way_leaves_everything_to_the_long_one(
    environment: Environment, reading: _Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(environment)
    company = await make_company(environment)
    await metering.record(environment, _events(1))
    reading.items.clear()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    # Inside the transaction, after the ledger was written.
    monkeypatch.setattr(counting, "_counted", broken)
    results = await metering.record(environment, _events(2, 3, key="k"))
    assert [one.status for one in results] == [_ACCEPTED] * 2
    assert len(reading.items) == 2
    assert await _used(environment) == 6
    assert await _is_right(environment, company.id)


async def test_repeats_and_what_memory_does_not_hold_are_left_to_reading(
    environment: Environment, reading: _Reading
) -> None:
    await publish(environment)
    company = await make_company(environment)
    await metering.record(environment, _events(1))
    reading.items.clear()
    unknown = TrackEvent(event="export", company={"id": "nobody"})
    results = await metering.record(environment, [*_events(1, 2, key="k"), unknown, *_events(1, key="k")])
    assert [one.status for one in results] == [_ACCEPTED, _ACCEPTED, EventStatus.UNATTRIBUTED, EventStatus.DUPLICATE]
    assert len(reading.items) == 2
    # One repeat among others: nothing of it is counted twice.
    results = await metering.record(environment, [*_events(7, key="new"), *_events(9, 2, key="k")])
    assert [(one.status, one.code) for one in results] == [
        (_ACCEPTED, None),
        (EventStatus.REFUSED, Code.IDEMPOTENCY_CONFLICT),
        (EventStatus.DUPLICATE, None),
    ]
    assert await _used(environment) == 11
    assert await _is_right(environment, company.id)


async def test_a_key_used_first_by_an_item_that_takes_longer_is_its_own(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    await metering.record(environment, _events(1))
    late = environment.clock.now() - timedelta(days=34)
    results = await metering.record(environment, [*_events(2, key="k", occurred_at=late), *_events(3, key="k")])
    assert [(one.status, one.code) for one in results] == [
        (_ACCEPTED, None),
        (EventStatus.REFUSED, Code.IDEMPOTENCY_CONFLICT),
    ]


async def test_consuming_from_memory_decides_as_reading_does(environment: Environment, reading: _Reading) -> None:
    await publish(environment)
    company = await make_company(environment)
    await companies.upsert_user(environment, keys=ADA, companies=[ACME])
    for user in (None, ADA):
        await metering.record(environment, _events(1, user=user))
    reading.items.clear()
    # Those of one batch see each other: of thirty, eight have room beside the two there are.
    answers = await asyncio.gather(
        *(
            metering.consume(
                environment,
                company=ACME,
                user=ADA if number % 2 else None,
                feature="exports",
                idempotency_key=f"c{number}",
                trace=number == 7,
            )
            for number in range(30)
        )
    )
    assert [is_counted for _, is_counted in answers] == [True] * 8 + [False] * 22
    assert [decision.used for decision, _ in answers] == [*range(3, 11), *[10] * 22]
    assert answers[7][0].trace is not None
    assert answers[8][0].reason is Reason.LIMIT_REACHED
    assert reading.items == []
    # A refused key may be tried again; a used one answers as the first time, though nothing is left.
    assert (await _consume(environment, "c9"))[1] is False
    decision, is_counted = await _consume(environment, "c2")
    assert (decision.used, is_counted) == (5, True)
    assert len(reading.items) == 1
    await metering.record(environment, _events(-4), may_correct=True)
    assert (await _consume(environment, "c9"))[1] is True
    assert await _used(environment) == 7
    assert await _is_right(environment, company.id)


async def test_what_is_held_is_looked_at_before_anything_is_consumed(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    await metering.record(environment, _events(1))
    held = await metering.reserve(environment, company=ACME, feature="exports", quantity=9)
    assert held.id is not None
    assert (await _consume(environment, "c1"))[1] is False
    await metering.record(environment, _events(3))
    clock.advance(seconds=61)
    # What was held has expired: there is room for it again.
    assert (await _consume(environment, "c1"))[1] is True
    assert await _used(environment) == 5
    assert await _is_right(environment, company.id)


async def test_sums_near_the_limit_of_64_bits_are_looked_at_one_by_one(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    largest = 2**63 - 1
    await metering.record(environment, _events(1))
    results = await metering.record(environment, _events(largest - 3, 1, 1, 1, 1))
    assert [one.status for one in results] == [_ACCEPTED] * 3 + [EventStatus.REFUSED] * 2
    results = await metering.record(environment, _events(1))
    assert results[0].code is Code.INVALID
    assert await _used(environment) == largest
    assert await _is_right(environment, company.id)


async def test_what_another_process_changed_is_seen_before_anything_is_counted(
    environment: Environment, other: Environment
) -> None:
    await publish(environment)
    company = await make_company(environment)
    for one in (environment, other):
        await metering.record(one, _events(1))
    # Memory now lacks a window that an override needs.
    await overrides.grant(
        other, company.id, feature="exports", value=50, period="week", note="More", expires_at=None, actor=ACTOR
    )
    await metering.record(environment, _events(2))
    assert await _is_right(other, company.id)
    # A catalogue by which the event counts for another feature as well.
    features = {**DOCUMENT["features"], "files": {"name": "Files", "type": "event", "event": "export"}}
    await publish(other, {**DOCUMENT, "features": features})
    await metering.record(environment, _events(7))
    assert await _is_right(other, company.id)
    assert await _used(other) == 11
    # A key that is used already.
    await metering.record(other, _events(1, key="k"))
    assert [one.status for one in await metering.record(environment, _events(1, key="k"))] == [EventStatus.DUPLICATE]


async def test_usage_of_a_company_merged_elsewhere_goes_to_the_one_it_became(
    environment: Environment, other: Environment
) -> None:
    await publish(environment)
    company = await make_company(environment)
    kept = await make_company(environment, "kept")
    await metering.record(environment, _events(1))
    await companies.merge(other, kept.id, company.id, actor=ACTOR)
    await metering.record(environment, _events(2))
    other.forget("")
    assert await _used(other) == 3
    assert await _is_right(other, kept.id)


async def test_many_at_once_are_each_counted_and_answered_once(environment: Environment, reading: _Reading) -> None:
    await publish(environment)
    company = await make_company(environment)
    await put_on(environment, company.id, "pro")
    await metering.record(environment, _events(1))
    reading.items.clear()
    told = [*_events(*[1, 2] * 150, key="k"), *_events(3)]
    assert [one.status for one in await metering.record(environment, told)] == [_ACCEPTED] * 301
    assert not reading.items
    # What is submitted while the first is written is written together: more than a hundred, each with its answer.
    asked = [f"c{number}" for number in range(150)]
    first = await asyncio.gather(*[_consume(environment, key) for key in asked])
    assert [is_counted for _, is_counted in first] == [True] * 150
    assert not reading.items
    assert await asyncio.gather(*[_consume(environment, key) for key in asked]) == first
    again = await metering.record(environment, [*_events(5, key="new"), *told[:300]])
    assert [one.status for one in again] == [_ACCEPTED] + [EventStatus.DUPLICATE] * 300
    assert await _used(environment) == 1 + 450 + 3 + 150 + 5
    async with environment.reading() as session:
        assert await ledger_total(session, company.id, "export", start_at=None, end_at=None) == 609
    assert await _is_right(environment, company.id)


@pytest.mark.parametrize(("seed", "few"), [(21, 100), (22, 1)])
async def test_two_processes_that_know_nothing_of_each_other_count_as_one(
    environment: Environment, other: Environment, seed: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_FEW", few)
    story = random.Random(seed)  # noqa: S311 - a reproducible story, not a secret
    clock = still(environment)
    other.clock = clock
    await publish(environment)
    company = await make_company(environment)
    await companies.upsert_user(environment, keys=ADA, companies=[ACME])
    expected = 0
    for number in range(50):
        clock.advance(hours=story.choice([0.01, 0.5, 30, 300]))
        here = story.choice([environment, other])
        match story.randrange(10):
            case 0:
                await put_on(here, company.id, story.choice(["free", "pro"]))
            case 1:
                listed = await overrides.listing(here, company.id)
                if not any(one.state == "active" for one in listed):
                    await overrides.grant(
                        here,
                        company.id,
                        feature="exports",
                        value=story.randrange(5, 90),
                        user=story.choice([None, ADA]),
                        period=story.choice([None, "week", "day"]),
                        expires_at=clock.at + timedelta(hours=100),
                        note="Story",
                        actor=ACTOR,
                    )
            case 2:
                decision, is_counted = await metering.consume(
                    here, company=ACME, feature="exports", idempotency_key=f"c{number}", user=story.choice([None, ADA])
                )
                expected += is_counted
                assert decision.allowed is is_counted
            case _:
                hours = story.choice([0, 0, 0, 5, 700])
                quantities = [story.randrange(-1, 9) for _ in range(story.randrange(1, 6))]
                key = f"t{story.randrange(30)}-"
                told = _events(
                    *quantities,
                    key=key,
                    user=story.choice([None, ADA]),
                    occurred_at=None if hours == 0 else clock.at - timedelta(hours=hours),
                )
                results = await metering.record(here, told, may_correct=True)
                expected += sum(
                    event.quantity for event, one in zip(told, results, strict=True) if one.status is _ACCEPTED
                )
                for event, one in zip(told, await metering.record(environment, told, may_correct=True), strict=True):
                    assert one.status is not _ACCEPTED, event
    async with environment.reading() as session:
        assert await ledger_total(session, company.id, "export", start_at=None, end_at=None) == expected
    assert await _is_right(environment, company.id)


async def test_one_key_in_two_environments_is_two_keys(database_url: str) -> None:
    settings = Settings(
        database_url=database_url,
        secret_keys=(SECRET_KEY,),
        environments=(environment_settings(), environment_settings(name="second", stripe_account="acct_second")),
    )
    deployment = await Deployment.open(settings)
    both = [deployment.named("default"), deployment.named("second")]
    for env in both:
        await publish(env)
        await make_company(env)
        await metering.record(env, _events(1))
    for env in both:
        assert [one.status for one in await metering.record(env, _events(2, key="k"))] == [_ACCEPTED]
    # Another body under the key, and the same: each environment remembers its own.
    for env in both:
        first, second = await metering.record(env, [*_events(5, key="k"), *_events(2, key="k")])
        assert (first.code, second.status) == (Code.IDEMPOTENCY_CONFLICT, EventStatus.DUPLICATE)
        decision, is_counted = await metering.consume(env, company=ACME, feature="exports", idempotency_key="c")
        assert (decision.used, is_counted) == (4, True)
    await deployment.close()
