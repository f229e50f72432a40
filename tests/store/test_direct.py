"""Direct statements: all rows at once, the errors of SQLAlchemy, and rolled back with their transaction."""

import asyncio

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError

from plangate.environment import Environment
from plangate.ids import id_series
from plangate.store import direct
from plangate.store.database import Database
from plangate.store.direct import Direct, composed, together
from plangate.store.ledger import add_usage, used_keys
from plangate.store.races import is_lost_race
from plangate.store.used_keys import UsedKey, used_key_hash

_LARGEST = 2**63 - 1
_HASH, _ANOTHER = used_key_hash("env_one", "key"), used_key_hash("env_one", "another")
_BEGINS = select(1)  # a transaction begins with its first statement
_ECHO = Direct(
    sqlite="SELECT ?, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)",
    postgresql="SELECT $1::text, * FROM unnest($2::text[], $3::bigint[])",
)


async def test_rows_come_back_as_they_went(environment: Environment) -> None:
    rows = [('a "b" \\ ☃', _LARGEST), ("", -_LARGEST), (None, 0)]
    async with environment.reading() as session:
        nothing, found = await together(session, _ECHO.for_all([], "x"), _ECHO.for_all(rows, "x"))
    assert nothing == []
    assert [tuple(row) for row in found] == [("x", *row) for row in rows]


async def test_a_key_used_twice_is_a_lost_race_and_leaves_nothing(environment: Environment) -> None:
    key = UsedKey(_HASH, b"one body", {"allowed": True, "used": _LARGEST})
    async with environment.writing() as session:
        await add_usage(session, [], keys=[key])
    with pytest.raises(IntegrityError) as caught:
        async with environment.writing() as session:
            await add_usage(session, [], keys=[UsedKey(_ANOTHER, b"one body", None), key])
    assert is_lost_race(caught.value)
    assert caught.value.statement is None
    async with environment.writing() as session:
        found = await used_keys(session, [_HASH, _ANOTHER])
        nothing = await used_keys(session, [])
    assert found == {_HASH: (b"one body", {"allowed": True, "used": _LARGEST})}
    assert nothing == {}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_writer_waits_for_the_other_process(
    environment: Environment, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Database.at(database_url)
    released = asyncio.Event()

    ended = False

    async def hold() -> None:
        nonlocal ended
        async with other.writing(environment.id, environment.clock.now()) as session:
            await session.scalar(_BEGINS)
            released.set()
            await asyncio.sleep(0.1)
            ended = True

    holding = asyncio.create_task(hold())
    await released.wait()
    async with environment.writing() as session:
        await session.scalar(_BEGINS)
        assert ended
    await holding
    monkeypatch.setattr(direct, "_WAITING_SECONDS", 0.02)
    async with other.writing(environment.id, environment.clock.now()) as session:
        await session.scalar(_BEGINS)
        with pytest.raises(OperationalError, match="locked"):
            async with environment.writing() as waiting:
                await waiting.scalar(_BEGINS)
    async with environment.writing() as session:
        assert await session.scalar(_BEGINS) == 1
    await other.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_writer_that_gives_up_waiting_leaves_nothing_open(
    environment: Environment, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_WAITING_SECONDS", 0.5)
    other = Database.at(database_url)

    async def write() -> None:
        async with environment.writing() as session:
            await session.scalar(_BEGINS)

    async with other.writing(environment.id, environment.clock.now()) as session:
        await session.scalar(_BEGINS)
        waiting = asyncio.create_task(write())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    for _ in range(3):
        await write()
        async with other.writing(environment.id, environment.clock.now()) as session:
            await session.scalar(_BEGINS)
    await other.close()


def test_ids_of_a_series_are_in_order_and_never_the_same() -> None:
    series = id_series("evt")
    ids = [next(series) for _ in range(5_000)]
    assert ids == sorted(set(ids))
    assert {len(one) for one in ids} == {30}
    assert ids[0][:-4] != next(id_series("evt"))[:-4]


def test_what_writes_different_tables_shares_a_round_trip_and_what_writes_one_stays_in_order() -> None:
    first = Direct("", "UPDATE a SET x = $1 WHERE y = $2 RETURNING id", writes="a")
    second = Direct("", "INSERT INTO a SELECT $1", writes="a", follows=" WHERE (SELECT count(*) FROM {before}) >= 0")
    other = Direct("", "UPDATE b SET x = $1", writes="b")
    told = Direct("", "SELECT pg_notify($1, $2)", writes="c")
    statements = [first.of(1, 2), second.of(3), other.of(4), other.of(5), told.of("c", "d")]
    together_first, alone = composed(statements)
    assert together_first == (
        (
            "WITH written_0 AS (UPDATE a SET x = $1 WHERE y = $2 RETURNING id), "
            "written_1 AS (INSERT INTO a SELECT $3 WHERE (SELECT count(*) FROM written_0) >= 0), "
            "written_2 AS (UPDATE b SET x = $4) SELECT pg_notify($5, $6)"
        ),
        [1, 2, 3, 4, "c", "d"],
    )
    assert alone == ("UPDATE b SET x = $1", [5])
