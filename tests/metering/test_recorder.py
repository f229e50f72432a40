"""The group commit: one fault stays one item's, a busy database is waited for, and callers may go away."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from plangate import access, metering
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import EventStatus, TrackEvent, recorder
from plangate.metering.batch import Outcome, write_batch
from plangate.metering.events import Item
from tests.world import make_company, publish

ACME = {"id": "acme"}


class _Writing:
    """Stands before the real writers: fails as told, and remembers how large the batches were."""

    def __init__(self, failures: Sequence[Exception] = (), *, poison: str = "") -> None:
        self.failures = list(failures)
        self.poison = poison
        self.sizes: list[int] = []

    async def __call__(self, env: Environment, items: Sequence[Item]) -> list[Outcome]:
        self.sizes.append(len(items))
        if self.failures:
            raise self.failures.pop(0)
        if any(item.name == self.poison for item in items):
            raise ZeroDivisionError("a fault of ours")
        return await write_batch(env, items)


async def _nothing_known(_env: Environment, items: Sequence[Item]) -> list[None]:
    return [None] * len(items)


@pytest.fixture
async def acme(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment with a catalogue and one company, where nothing is counted from memory."""
    monkeypatch.setattr(recorder, "write_known", _nothing_known)
    await publish(environment)
    await make_company(environment)
    return environment


def _event(name: str = "export") -> TrackEvent:
    return TrackEvent(event=name, company=ACME)


async def _used(environment: Environment) -> int | None:
    return (await access.check(environment, company=ACME, feature="exports")).used


async def test_an_item_at_fault_stands_alone_in_the_end(acme: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "write_batch", _Writing(poison="bad"))
    results = await metering.record(acme, [_event(), _event(), _event("bad"), _event(), _event()])
    assert [one.status for one in results] == [
        EventStatus.ACCEPTED,
        EventStatus.ACCEPTED,
        EventStatus.REFUSED,
        EventStatus.ACCEPTED,
        EventStatus.ACCEPTED,
    ]
    assert results[2].code is Code.INTERNAL
    assert await _used(acme) == 4
    with pytest.raises(ZeroDivisionError):
        await metering.consume(acme, company=ACME, feature="bad", idempotency_key="k")


async def test_a_key_used_elsewhere_at_the_same_moment_is_looked_at_again(
    acme: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = _Writing([IntegrityError("insert", None, Exception("duplicate"))])
    monkeypatch.setattr(recorder, "write_batch", writing)
    results = await metering.record(acme, [_event(), _event()])
    assert [one.status for one in results] == [EventStatus.ACCEPTED] * 2
    assert writing.sizes == [2, 2]
    assert await _used(acme) == 2


async def test_a_database_that_is_gone_is_one_answer_for_all(
    acme: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = OperationalError("insert", None, Exception("disk I/O error"))
    monkeypatch.setattr(recorder, "write_batch", _Writing([gone] * 10))
    with pytest.raises(Refusal) as caught:
        await metering.record(acme, [_event()] * 100)
    assert (caught.value.code, caught.value.status) == (Code.UNAVAILABLE, 503)
    with pytest.raises(Refusal) as caught:
        await metering.consume(acme, company=ACME, feature="exports", idempotency_key="k")
    assert caught.value.headers["Retry-After"] == "1"
    assert await _used(acme) == 0
    # It is back: the same key counts.
    assert (await metering.consume(acme, company=ACME, feature="exports", idempotency_key="k"))[1] is True


async def test_what_arrives_together_is_written_together(acme: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = _Writing()
    monkeypatch.setattr(recorder, "write_batch", writing)
    await asyncio.gather(*(metering.record(acme, [_event()]) for _ in range(500)))
    assert len(writing.sizes) < 10
    assert await _used(acme) == 500


async def test_who_asks_again_at_once_joins_those_who_came_meanwhile(
    acme: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two halves that take turns would need a commit each, every time."""
    writing = _Writing()
    monkeypatch.setattr(recorder, "write_batch", writing)
    rounds = 8

    async def ask_again_and_again() -> None:
        for _ in range(rounds):
            (told,) = await metering.record(acme, [_event()])
            assert told.status is EventStatus.ACCEPTED

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(ask_again_and_again())
        while not writing.sizes:
            await asyncio.sleep(0)
        for _ in range(4):
            group.create_task(ask_again_and_again())
    assert sum(writing.sizes) == 8 * rounds
    assert len(writing.sizes) <= rounds + 3
    assert await _used(acme) == 8 * rounds


async def test_a_caller_that_goes_away_takes_nothing_back(acme: Environment) -> None:
    for _ in range(5):
        caller = asyncio.create_task(metering.record(acme, [_event()]))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    # Items are written in order, so this one comes after the five.
    await metering.record(acme, [_event()])
    assert await _used(acme) == 6


async def test_more_than_can_soon_be_written_is_refused(acme: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_WAITING", 3)
    with pytest.raises(Refusal) as caught:
        await metering.record(acme, [_event()] * 4)
    assert caught.value.code is Code.UNAVAILABLE
