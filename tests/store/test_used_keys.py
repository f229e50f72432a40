"""An idempotency key counts once for ever: among processes, beside merges, rollbacks, restarts and kills."""

import asyncio
import random
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from plangate.clock import wall_now
from plangate.store import recent_keys
from plangate.store.database import Database
from plangate.store.ledger import add_usage, used_keys
from plangate.store.used_keys import UsedKey
from tests.store.using_keys import PER_BATCH, keys_of

_ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class _GivenUp(Exception):
    """A transaction that is rolled back."""


async def _use(database: Database, *batches: Sequence[UsedKey], gives_up: bool = False) -> None:
    async with database.writing("env_one", wall_now()) as session:
        for keys in batches:
            await add_usage(session, [], keys=keys)
        if gives_up:
            raise _GivenUp


async def _used(database: Database, hashes: Sequence[bytes]) -> dict[bytes, tuple[bytes, Any]]:
    async with database.writing("env_one", wall_now()) as session:
        return await used_keys(session, hashes)


async def _rows(database: Database, table: str) -> int:
    async with database.reading("env_one", wall_now()) as session:
        return int(await session.scalar(text(f"SELECT COUNT(*) FROM {table}")) or 0)  # noqa: S608 - ours


@pytest.mark.parametrize("seed", range(3))
async def test_batches_of_two_processes_are_a_set(
    database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_keys, "LEAST_KEPT", 60)
    dice = random.Random(seed)  # noqa: S311 - repeatable, not a secret
    told: dict[bytes, tuple[bytes, Any]] = {}
    processes = [Database.at(database_url), Database.at(database_url)]
    for step in range(80):
        number = dice.randrange(2)
        if dice.random() < 0.05:
            await processes[number].close()
            processes[number] = Database.at(database_url)
        database = processes[number]
        keys = [
            UsedKey(dice.randbytes(16), dice.randbytes(8), {"step": step} if dice.random() < 0.3 else None)
            for _ in range(dice.randrange(1, 30))
        ]
        if told and dice.random() < 0.3:
            repeat = dice.choice(list(told))
            with pytest.raises(IntegrityError):
                await _use(database, [*keys, UsedKey(repeat, b"another ", None)])
        elif dice.random() < 0.15:
            with pytest.raises(_GivenUp):
                await _use(database, keys, gives_up=True)
        else:
            half = len(keys) // 2
            await _use(database, *([keys[:half], keys[half:]] if half and dice.random() < 0.3 else [keys]))
            told |= {one.key_hash: (one.body_hash, one.answer) for one in keys}
        asked = [*dice.sample(list(told), min(20, len(told))), *(one.key_hash for one in keys), dice.randbytes(16)]
        assert await _used(database, asked) == {key: told[key] for key in asked if key in told}
    for database in processes:
        assert await _used(database, list(told)) == told
        await database.close()


async def test_a_key_that_comes_twice_in_one_transaction_is_refused(database_url: str) -> None:
    database = Database.at(database_url)
    key, another = UsedKey(b"k" * 16, b"one body", None), UsedKey(b"l" * 16, b"one body", {"used": 1})
    with pytest.raises(IntegrityError):
        await _use(database, [another, key, key])
    with pytest.raises(IntegrityError):
        await _use(database, [another, key], [key])
    assert await _used(database, [key.key_hash, another.key_hash]) == {}
    await database.close()


@_ON_SQLITE
async def test_merged_keys_leave_the_log_but_are_not_forgotten(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_keys, "LEAST_KEPT", 100)
    monkeypatch.setattr(recent_keys, "_SHARE_KEPT", 1_000_000)
    monkeypatch.setattr(recent_keys, "_LEAST_FILTER", 2)  # bytes: it grows twice
    database = Database.at(database_url)
    for batch in range(60):
        await _use(database, keys_of(batch))
    merged, logged = await _rows(database, "usage_keys"), await _rows(database, "usage_key_log")
    assert merged + 100 + 4 * PER_BATCH >= 60 * PER_BATCH
    assert 0 < logged < 20
    assert await _rows(database, "usage_key_answers") == 20
    for again in (database, Database.at(database_url)):
        for batch in range(60):
            keys = keys_of(batch)
            expected = {one.key_hash: (one.body_hash, one.answer) for one in keys}
            assert await _used(again, [one.key_hash for one in keys]) == expected
        await again.close()


@_ON_SQLITE
async def test_what_was_committed_before_a_kill_is_used_and_nothing_is_used_by_half(database_url: str) -> None:
    first = 0
    for milliseconds in (400, 150, 700):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.store.using_keys",
            database_url,
            str(first),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        told = [await process.stdout.readline()]
        await asyncio.sleep(milliseconds / 1000)
        process.kill()
        told += (await process.stdout.read()).splitlines(keepends=True)
        await process.wait()
        committed = [int(line) for line in told if line.endswith(b"\n")]
        assert committed == list(range(first, first + len(committed)))
        first = committed[-1] + 1
        database = Database.at(database_url)
        unsure = await _used(database, [one.key_hash for one in keys_of(first)])
        assert len(unsure) in {0, PER_BATCH}
        first += bool(unsure)
        for batch in range(first):
            keys = keys_of(batch)
            expected = {one.key_hash: (one.body_hash, one.answer) for one in keys}
            assert await _used(database, [one.key_hash for one in keys]) == expected
        await database.close()
    database = Database.at(database_url)
    assert await _rows(database, "usage_keys") > 256
    async with database.reading("env_one", wall_now()) as session:
        assert await session.scalar(text("PRAGMA integrity_check")) == "ok"
    await database.close()
