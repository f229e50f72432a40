"""A lease has one holder, ends by wall time, and its fence tells a slow holder that it lost."""

import asyncio
from datetime import datetime, timedelta

import pytest

from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.store.database import StoreSession
from plangate.store.direct import together
from plangate.store.leases import drop_old_leases, free_lease, holds_lease, taking_lease


async def take_lease(
    session: StoreSession, subject: str, holder: str, *, wall_now: datetime, seconds: int
) -> int | None:
    """Take a free or expired lease; its fence, or None while somebody else holds it."""
    (rows,) = await together(session, taking_lease(session, subject, holder, wall_now=wall_now, seconds=seconds))
    return rows[0][0] if rows else None


async def test_only_one_holder_at_a_time(environment: Environment) -> None:
    now = wall_now()
    async with environment.writing() as session:
        assert await take_lease(session, "company:a", "one", wall_now=now, seconds=30) == 1
    async with environment.writing() as session:
        assert await take_lease(session, "company:a", "two", wall_now=now, seconds=30) is None
        assert await take_lease(session, "company:b", "two", wall_now=now, seconds=30) == 1


async def test_a_lease_that_ended_is_taken_over_and_the_slow_holder_notices(environment: Environment) -> None:
    now = wall_now()
    async with environment.writing() as session:
        first = await take_lease(session, "company:a", "slow", wall_now=now, seconds=30)
    async with environment.writing() as session:
        second = await take_lease(session, "company:a", "next", wall_now=now + timedelta(seconds=31), seconds=30)
    assert (first, second) == (1, 2)
    async with environment.writing() as session:
        assert not await holds_lease(session, "company:a", 1)
        free_lease(session, "company:a", 1)
        assert await holds_lease(session, "company:a", 2)


async def test_t9_a_lease_taken_before_the_clock_jumped_back_is_not_held_for_an_hour(environment: Environment) -> None:
    now = wall_now()
    async with environment.writing() as session:
        ahead = now + timedelta(hours=1)
        assert await take_lease(session, "company:a", "gone", wall_now=ahead, seconds=30) == 1
        # A server whose clock is a little ahead keeps what it holds.
        assert await take_lease(session, "company:b", "other", wall_now=now + timedelta(seconds=40), seconds=30) == 1
    async with environment.writing() as session:
        assert await take_lease(session, "company:a", "next", wall_now=now, seconds=30) == 2
        assert await take_lease(session, "company:b", "next", wall_now=now, seconds=30) is None
        assert not await holds_lease(session, "company:a", 1)


async def test_a_freed_lease_is_free_at_once_and_is_forgotten_later(environment: Environment) -> None:
    now = wall_now()
    async with environment.writing() as session:
        fence = await take_lease(session, "company:a", "one", wall_now=now, seconds=30)
        assert fence is not None
        free_lease(session, "company:a", fence)
        assert await take_lease(session, "company:a", "two", wall_now=now, seconds=30) == 2
        free_lease(session, "company:a", 2)
        assert await drop_old_leases(session, before=now) == 0
        assert await drop_old_leases(session, before=now + timedelta(minutes=1)) == 1


async def test_the_environment_waits_for_a_lease_and_gives_it_back(environment: Environment) -> None:
    async with environment.lease("comp_1") as lease, environment.writing() as session:
        assert await lease.still_held(session)
    async with environment.lease("comp_1", wait_seconds=0) as again:
        assert again.fence == lease.fence + 1


@pytest.mark.usefixtures("soon")
async def test_a_lease_whose_holder_is_at_work_is_not_taken_over(environment: Environment) -> None:
    async with environment.lease("comp_1") as lease:
        with pytest.raises(Refusal) as refused:
            async with environment.lease("comp_1", wait_seconds=1.5):
                raise AssertionError("two hold it")
        assert refused.value.code is Code.CHANGE_IN_PROGRESS
        async with environment.reading() as session:
            assert await lease.still_held(session)
    async with environment.lease("comp_1", wait_seconds=0) as again:
        assert again.fence == lease.fence + 1


@pytest.mark.usefixtures("soon")
async def test_a_lease_whose_holder_died_is_taken_over_by_one_of_those_who_wait(environment: Environment) -> None:
    async with environment.writing() as session:
        dead = await take_lease(session, "company:comp_1", "dead", wall_now=wall_now(), seconds=30)
    assert dead == 1
    holding, fences = 0, []

    async def wait() -> None:
        nonlocal holding
        async with environment.lease("comp_1", wait_seconds=5) as lease:
            holding += 1
            assert holding == 1
            fences.append(lease.fence)
            await asyncio.sleep(0.05)
            holding -= 1

    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(wait() for _ in range(4)))
    assert 0.5 < asyncio.get_running_loop().time() - began < 4
    assert fences == [2, 3, 4, 5]
    async with environment.reading() as session:
        assert not await holds_lease(session, "company:comp_1", dead)
