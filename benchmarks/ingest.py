"""The usage ledger: batches of 1,000 through the recorder, beside the same rows inserted raw.

The raw insert knows its rows beforehand: no company is looked up, nothing is hashed, decided or counted. It goes into
the same ledger, and into one table with a unique key. Both keep the idempotency keys, and both commit after each batch.
"""

import asyncio
import secrets
import sqlite3
import struct
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import asyncpg

from benchmarks.servers import COMPANIES, plangate
from benchmarks.table import Line, at_least
from plangate import metering
from plangate.collecting import settle
from plangate.environment import Environment
from plangate.ids import id_series
from plangate.store.columns import to_microseconds
from plangate.store.ledger import LedgerEntry, add_usage
from plangate.store.used_keys import BODY_HASH_BYTES, KEY_HASH_BYTES, UsedKey

BATCH: Final = 1_000
_FILLED_AT_ONCE: Final = {True: 100_000, False: 10_000}  # on PostgreSQL, on SQLite
_OF_A_ROUND: Final = 16  # batches that show a size: keys are merged every few batches
_EVENT: Final = "feature-1"
_ENTRIES: Final = "usage_events (id, environment_id, company_id, user_id, event, quantity, occurred_at, recorded_at)"
_KEYS: Final = {True: "usage_keys (key_hash, body_hash)", False: "raw_keys (key_hash, body_hash)"}
_RAW_KEYS: Final = """
    CREATE TABLE raw_keys (key_hash BLOB NOT NULL, body_hash BLOB NOT NULL, answer TEXT, PRIMARY KEY (key_hash))
    WITHOUT ROWID
"""


async def measured(url: str, label: str, folder: Path, *, rounds: int, sizes: Sequence[int]) -> list[Line]:
    """Lines for one database: against raw inserts, and with a small ledger against ever larger ones."""
    app, deployment, _ = await plangate(folder, url=url)
    del app
    env = deployment.named(None)
    try:
        companies = await _company_ids(env)
        raw = await _Inserting.to(env)
        numbers = count()
        # As `plangate serve` does; the floor gains as well. What is loaded and compiled the first time is not measured.
        settle()
        await _per_second(lambda: _record(env, numbers), 2)
        await _per_second(lambda: raw(env, companies), 2)
        floors, figures = [], []
        for _ in range(rounds):
            floors.append(await _per_second(lambda: raw(env, companies), 4))
            figures.append(await _per_second(lambda: _record(env, numbers), 4))
        ratio = median(figure / floor for figure, floor in zip(figures, floors, strict=True))
        lines = [
            at_least(
                f"events, batches of 1,000, {label}",
                floor=median(floors),
                figure=median(figures),
                ratio=ratio,
                target=0.6,
            )
        ]
        first: float | None = None
        for size in sizes:
            await raw.fill(env, companies, size)
            await _per_second(lambda: _record(env, numbers), 2)
            speed = median([await _per_second(lambda: _record(env, numbers), _OF_A_ROUND) for _ in range(rounds)])
            if first is None:
                first = speed
            else:
                lines.append(
                    at_least(
                        f"the same, ledger of {size / 1e6:g} M beside {sizes[0] / 1e6:g} M rows, {label}",
                        floor=first,
                        figure=speed,
                        ratio=speed / first,
                        target=0.8,
                    )
                )
        await raw.close()
        return lines
    finally:
        await deployment.close()


async def _per_second(work: Callable[[], tuple[object, Callable[[], Awaitable[None]]]], batches: int) -> float:
    """Rows a second over so many batches, made ready beforehand."""
    ready = [work()[1] for _ in range(batches)]
    began = perf_counter()
    for one in ready:
        await one()
    return batches * BATCH / (perf_counter() - began)


def _record(env: Environment, numbers: "count[int]") -> tuple[object, Callable[[], Awaitable[None]]]:
    events = [
        metering.TrackEvent(
            event=_EVENT, company={"id": f"company-{number % COMPANIES}"}, idempotency_key=f"bench-{number}"
        )
        for number in (next(numbers) for _ in range(BATCH))
    ]

    async def recorded() -> None:
        results = await metering.record(env, events)
        if any(one.status is not metering.EventStatus.ACCEPTED for one in results):
            raise RuntimeError("an event was not accepted")

    return events, recorded


class _Inserting:
    """Raw inserts of ledger rows and keys into one of the two databases."""

    def __init__(self, connection: "sqlite3.Connection | asyncpg.Connection[Any]") -> None:
        self._connection = connection

    @classmethod
    async def to(cls, env: Environment) -> "_Inserting":
        """With a connection of its own, set up as the product's."""
        if env.database.is_postgresql:
            return cls(await asyncpg.connect(env.database.plain_url()))
        connection = sqlite3.connect(str(env.database.url.database), isolation_level=None, timeout=10)
        for pragma in ("synchronous=FULL", "wal_autocheckpoint=4000", "cache_size=-32768"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(_RAW_KEYS)
        return cls(connection)

    def __call__(self, env: Environment, companies: Sequence[str]) -> tuple[object, Callable[[], Awaitable[None]]]:
        """One batch, made ready, and what inserts it."""
        return self._made(env, companies, BATCH)

    def _made(
        self, env: Environment, companies: Sequence[str], size: int
    ) -> tuple[object, Callable[[], Awaitable[None]]]:
        ids, now = id_series("evt"), to_microseconds(env.clock.now())
        entries = [
            (next(ids), env.id, companies[number % len(companies)], "", _EVENT, 1, now, now) for number in range(size)
        ]
        keys = sorted((secrets.token_bytes(KEY_HASH_BYTES), secrets.token_bytes(BODY_HASH_BYTES)) for _ in range(size))

        async def inserted() -> None:
            await self._insert(entries, keys)

        return entries, inserted

    async def _insert(self, entries: Sequence[tuple[Any, ...]], keys: Sequence[tuple[Any, ...]]) -> None:
        connection = self._connection
        if isinstance(connection, sqlite3.Connection):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"INSERT INTO {_ENTRIES} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", entries)  # noqa: S608 - fixed
            connection.executemany(f"INSERT INTO {_KEYS[False]} VALUES (?, ?)", keys)  # noqa: S608 - fixed
            connection.execute("COMMIT")
            return
        async with connection.transaction():
            await connection.execute(
                f"INSERT INTO {_ENTRIES} SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "  # noqa: S608 - fixed
                "$5::text[], $6::bigint[], $7::bigint[], $8::bigint[])",
                *(list(column) for column in zip(*entries, strict=True)),
            )
            await connection.execute(
                f"INSERT INTO {_KEYS[True]} SELECT * FROM unnest($1::bytea[], $2::bytea[])",  # noqa: S608 - fixed
                *(list(column) for column in zip(*keys, strict=True)),
            )

    async def fill(self, env: Environment, companies: Sequence[str], size: int) -> None:
        """Bring the ledger to so many rows, with keys as large and as random as real ones.

        On SQLite they are written as the product does, because how its keys lie depends on how they came.
        """
        connection = self._connection
        if isinstance(connection, sqlite3.Connection):
            (rows,) = connection.execute("SELECT COUNT(*) FROM usage_events").fetchone()
        else:
            rows = await connection.fetchval("SELECT COUNT(*) FROM usage_events")
        while rows < size:
            if env.database.is_postgresql:
                await self._made(env, companies, _FILLED_AT_ONCE[True])[1]()
            else:
                await _fill_on_sqlite(env, companies)
            rows += _FILLED_AT_ONCE[env.database.is_postgresql]
            await asyncio.sleep(0)
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    async def close(self) -> None:
        """Close the connection."""
        if isinstance(self._connection, sqlite3.Connection):
            self._connection.close()
        else:
            await self._connection.close()


async def _fill_on_sqlite(env: Environment, companies: Sequence[str]) -> None:
    ids, now, size = id_series("evt"), env.clock.now(), _FILLED_AT_ONCE[False]
    entries = [LedgerEntry(next(ids), companies[number % len(companies)], "", _EVENT, 1, now) for number in range(size)]
    packed = secrets.token_bytes(size * (KEY_HASH_BYTES + BODY_HASH_BYTES))
    keys = [
        UsedKey(key, body, None) for key, body in struct.iter_unpack(f"{KEY_HASH_BYTES}s{BODY_HASH_BYTES}s", packed)
    ]
    async with env.writing() as session:
        await add_usage(session, entries, keys=keys)


async def _company_ids(env: Environment) -> list[str]:
    found = []
    for number in range(COMPANIES):
        standing = await env.standings.of_keys({"id": f"company-{number}"})
        if standing is None:
            raise RuntimeError("a company of the benchmark is missing")
        found.append(standing.facts.company_id)
    return found
