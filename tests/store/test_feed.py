"""What one process commits, another hears of; what it rolls back, nobody does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from plangate import metering
from plangate.environment import Environment
from plangate.metering import TrackEvent
from plangate.store import feed
from plangate.store.feed import announce, follow, prune_feed
from tests.world import make_company, publish


@pytest.fixture
async def heard(environment: Environment) -> AsyncIterator[list[tuple[str, str]]]:
    """Everything a follower in another process has been told."""
    told: list[tuple[str, str]] = []
    follower = asyncio.create_task(
        follow(
            environment.database,
            origin="me",
            forget=lambda *change: told.append(change),
            forget_all=lambda: told.append(("*", "*")),
        )
    )
    await asyncio.sleep(0.3)
    yield told
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_committed_change_is_heard_in_other_processes_only(
    environment: Environment, heard: list[tuple[str, str]]
) -> None:
    async with environment.writing() as session:
        announce(session, ["comp_mine"], origin="me")
    async with environment.writing() as session:
        announce(session, ["comp_1", ""], origin="another")
    await _until(lambda: len(heard) >= 2)
    assert heard == [(environment.id, "comp_1"), (environment.id, "")]


async def test_a_rolled_back_change_is_not_heard(environment: Environment, heard: list[tuple[str, str]]) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        async with environment.writing() as session:
            announce(session, ["comp_lost"], origin="another")
            raise RuntimeError("stop")
    async with environment.writing() as session:
        announce(session, ["comp_kept"], origin="another")
    await _until(lambda: bool(heard))
    assert heard == [(environment.id, "comp_kept")]


async def test_changes_are_heard_after_all_old_ones_were_dropped(
    environment: Environment, heard: list[tuple[str, str]]
) -> None:
    async with environment.writing() as session:
        announce(session, [f"comp_{number}" for number in range(20)], origin="another")
    await _until(lambda: len(heard) == 20)
    heard.clear()
    async with environment.writing() as session:
        dropped = await prune_feed(session, before=session.now + timedelta(days=1))
    assert dropped == (0 if environment.database.is_postgresql else 19)
    async with environment.writing() as session:
        announce(session, ["comp_later"], origin="another")
    await _until(lambda: bool(heard))
    assert heard == [(environment.id, "comp_later")]


async def test_more_changes_than_are_read_at_once_are_all_heard_in_order(
    environment: Environment, heard: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_AT_ONCE", 3)
    async with environment.writing() as session:
        for number in range(10):
            announce(session, [f"comp_{number}"], origin="another")
            announce(session, ["comp_mine"], origin="me")
    await _until(lambda: len(heard) >= 10)
    assert heard == [(environment.id, f"comp_{number}") for number in range(10)]


@pytest.mark.parametrize("number", [1, 250])
async def test_usage_counted_from_memory_is_heard(
    environment: Environment, heard: list[tuple[str, str]], number: int
) -> None:
    await publish(environment)
    company = await make_company(environment)
    event = TrackEvent(event="export", company={"id": "acme"})
    await metering.record(environment, [event])
    async with environment.writing() as session:
        announce(session, ["comp_last"], origin="another")
    # Changes are heard in the order of their commits.
    await _until(lambda: (environment.id, "comp_last") in heard)
    heard.clear()
    await metering.record(environment, [event] * number)
    await _until(lambda: bool(heard))
    assert heard == [(environment.id, company.id)]
