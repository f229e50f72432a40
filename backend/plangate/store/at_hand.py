"""Connections that stay taken from their pool, for transactions that are one call: the pool would cost as much."""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple

import asyncpg
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_KEPT: Final = 2
_RESTED_SECONDS: Final = 1.0
_BETWEEN_CHECKPOINTS: Final = 400  # transactions; each writes about a dozen pages


class Taken(NamedTuple):
    """A connection, and the driver's own behind it: asking for that costs about as much as a small statement."""

    connection: AsyncConnection
    driver: Any


class AtHand:
    """Connections of one engine. Where they are shared there is one, whose thread does one thing after the other.

    That is SQLite's. Its log is then brought into the file beside the transactions, so that none of them waits for it.
    """

    def __init__(self, engine: AsyncEngine, *, is_shared: bool) -> None:
        self._engine = engine
        self._is_shared = is_shared
        self._shared: Taken | None = None
        self._opening = asyncio.Lock()
        self._idle: list[tuple[Taken, float]] = []
        self._taken = 0
        self._checkpoint: asyncio.Task[None] | None = None

    async def take(self) -> Taken:
        """A connection without a transaction; give it back in every case."""
        if self._is_shared:
            return self._shared or await self._opened()
        while self._idle:
            taken, since = self._idle.pop()
            if await _lives(taken.driver, rested=monotonic() - since):
                return taken
            await taken.connection.invalidate()
            await taken.connection.close()
        return await self._connected()

    async def give_back(self, taken: Taken, *, is_whole: bool) -> None:
        """Keep it for the next; one that is not whole, because something was raised, goes back to its pool."""
        if self._is_shared:
            self._taken += 1
            if self._taken % _BETWEEN_CHECKPOINTS == 0 and (self._checkpoint is None or self._checkpoint.done()):
                self._checkpoint = asyncio.create_task(self._checkpointed())
            return
        if is_whole and len(self._idle) < _KEPT:
            self._idle.append((taken, monotonic()))
        else:
            await taken.connection.close()

    async def close(self) -> None:
        """Close all of them."""
        if self._checkpoint is not None:
            self._checkpoint.cancel()
            with suppress(asyncio.CancelledError):
                await self._checkpoint
        idle, self._idle = self._idle, []
        for taken, _ in idle:
            await taken.connection.close()
        if self._shared is not None:
            shared, self._shared = self._shared, None
            await shared.connection.close()
        if self._is_shared:
            await self._engine.dispose()

    async def _checkpointed(self) -> None:
        # Passive: it waits for nobody, and leaves to the next what somebody still reads, or all while another does it.
        with suppress(OperationalError):
            async with self._engine.connect() as connection:
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    async def _connected(self) -> Taken:
        connection = await self._engine.connect()
        return Taken(connection, (await connection.get_raw_connection()).driver_connection)

    async def _opened(self) -> Taken:
        async with self._opening:
            if self._shared is None:
                self._shared = await self._connected()
            return self._shared


async def _lives(driver: object, *, rested: float) -> bool:
    """Whether the server still answers. The driver hears of a close by itself; after a rest it is asked."""
    if not isinstance(driver, asyncpg.Connection) or driver.is_closed():
        return False
    if rested > _RESTED_SECONDS:
        try:
            await driver.fetchval("SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
    return True
