"""The usage ledger: batches of 1,000 through the recorder, beside the same rows inserted raw into the same tables.

The raw insert knows its rows beforehand: no company is looked up, nothing is hashed, decided or counted. Both keep the
idempotency keys, and both commit after each batch.
"""

import asyncio
import secrets
import sqlite3
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
from plangate.environment import Environment
from plangate.ids import id_series
from plangate.store.columns import to_microseconds
from plangate.store.usage import BODY_HASH_BYTES, KEY_HASH_BYTES

BATCH: Final = 1_000
_FILLED_AT_ONCE: Final = 100_000
_EVENT: Final = "feature-1"
_Raw = tuple[Sequence[tuple[Any, ...]], Sequence[tuple[Any, ...]]]
_ENTRIES: Final = "usage_events (id, environment_id, company_id, user_id, event, quantity, occurred_at, recorded_at)"
_KEYS: Final = "usage_keys (key_hash, body_hash)"


async def measured(url: str, label: str, folder: Path, *, rounds: int, sizes: Sequence[int]) -> list[Line]:
    """Lines for one database: against raw inserts, and with a small ledger against ever larger ones."""
    app, deployment, _ = await plangate(folder, url=url)
    del app
    env = deployment.named(None)
    try:
        companies = await _company_ids(env)
        raw = await _Inserting.to(env)
        numbers = count()
        # What is loaded and compiled the first time is not what is measured.
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
            speed = median([await _per_second(lambda: _record(env, numbers), 4) for _ in range(rounds)])
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
            connection.executemany(f"INSERT INTO {_KEYS} VALUES (?, ?)", keys)  # noqa: S608 - fixed text
            connection.execute("COMMIT")
            return
        async with connection.transaction():
            await connection.execute(
                f"INSERT INTO {_ENTRIES} SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "  # noqa: S608 - fixed
                "$5::text[], $6::bigint[], $7::bigint[], $8::bigint[])",
                *(list(column) for column in zip(*entries, strict=True)),
            )
            await connection.execute(
                f"INSERT INTO {_KEYS} SELECT * FROM unnest($1::bytea[], $2::bytea[])",  # noqa: S608 - fixed
                *(list(column) for column in zip(*keys, strict=True)),
            )

    async def fill(self, env: Environment, companies: Sequence[str], size: int) -> None:
        """Bring the ledger to so many rows, with keys as large and as random as real ones."""
        connection = self._connection
        if isinstance(connection, sqlite3.Connection):
            (rows,) = connection.execute("SELECT COUNT(*) FROM usage_events").fetchone()
            connection.execute("PRAGMA synchronous=OFF")  # nothing is measured meanwhile
        else:
            rows = await connection.fetchval("SELECT COUNT(*) FROM usage_events")
        while rows < size:
            await self._made(env, companies, _FILLED_AT_ONCE)[1]()
            rows += _FILLED_AT_ONCE
            await asyncio.sleep(0)
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    async def close(self) -> None:
        """Close the connection."""
        if isinstance(self._connection, sqlite3.Connection):
            self._connection.close()
        else:
            await self._connection.close()


async def _company_ids(env: Environment) -> list[str]:
    found = []
    for number in range(COMPANIES):
        standing = await env.standings.of_keys({"id": f"company-{number}"})
        if standing is None:
            raise RuntimeError("a company of the benchmark is missing")
        found.append(standing.facts.company_id)
    return found
