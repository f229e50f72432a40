"""What one process commits, another hears of; what it rolls back, nobody does."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from plangate import metering
from plangate.environment import Environment
from plangate.metering import TrackEvent
from plangate.store.feed import announce, follow
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
