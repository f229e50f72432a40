"""The change feed: a committing transaction says whose facts or counters it changed, and other processes forget them.

SQLite has one writer at a time, so a table with a rising sequence is read in commit order. On PostgreSQL sequences
commit out of order; there NOTIFY carries the same message, delivered at commit.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import delete, func, select
from sqlmodel import Field, SQLModel

from plangate.store.columns import CountingKey, Instant, to_microseconds
from plangate.store.database import Database, StoreSession, table_of
from plangate.store.direct import Direct, Filled

EVERYTHING = ""  # the company id of a change that concerns the whole environment: clock, keys
CATALOG = "*"  # that of another catalogue, which leaves facts and counters as they are
_CHANNEL = "plangate_changes"
_POLL_SECONDS = 0.2
_log = structlog.get_logger(__name__)

Forget = Callable[[str, str], None]  # called with an environment id and a company id ("" is the whole environment)


class FeedRow(SQLModel, table=True):
    """One change on SQLite. `origin` is the process that made it."""

    __tablename__ = "change_feed"

    sequence: int | None = Field(default=None, primary_key=True, sa_type=CountingKey)
    environment_id: str
    company_id: str
    origin: str
    recorded_at: datetime = Field(sa_type=Instant)


change_feed = table_of(FeedRow)


_ANNOUNCE: Final = Direct(
    sqlite="""
        INSERT INTO change_feed (environment_id, origin, recorded_at, company_id)
        SELECT ?, ?, ?, json_extract(value, '$[0]') FROM json_each(?)
    """,
    postgresql="SELECT pg_notify($1, message) FROM unnest($2::text[]) AS message",
    writes="change_feed",
)

_AT_ONCE: Final = 10_000
_NEWEST: Final = "SELECT coalesce(max(sequence), 0) FROM change_feed"
# What others changed since, after the newest sequence of all; one statement, so that nothing comes in between.
_NEWS: Final = """
    SELECT coalesce(max(sequence), ?), '', '' FROM change_feed
    UNION ALL
    SELECT * FROM (
        SELECT sequence, environment_id, company_id FROM change_feed
        WHERE sequence > ? AND origin <> ? ORDER BY sequence LIMIT ?
    )
"""


def announce(session: StoreSession, company_ids: Iterable[str], *, origin: str) -> None:
    """Say, in the changing transaction itself, which companies it changed."""
    session.defer(
        announcing(
            session.environment_id,
            company_ids,
            origin=origin,
            recorded_at=to_microseconds(session.now),
            is_postgresql=session.is_postgresql,
        )
    )


def announcing(
    environment_id: str, company_ids: Iterable[str], *, origin: str, recorded_at: int, is_postgresql: bool
) -> Filled:
    """The statement of `announce`, to be executed with others."""
    if is_postgresql:
        return _ANNOUNCE.for_all([(f"{origin} {environment_id} {company_id}",) for company_id in company_ids], _CHANNEL)
    return _ANNOUNCE.for_all([(company_id,) for company_id in company_ids], environment_id, origin, recorded_at)


async def follow(database: Database, *, origin: str, forget: Forget, forget_all: Callable[[], None]) -> None:
    """Until cancelled, call `forget` for every change another process commits.

    After a lost connection nobody knows what was missed, so `forget_all` is called.
    """
    while True:
        try:
            if database.is_postgresql:
                await _listen(database, origin, forget)
            else:
                await _poll(database, origin, forget)
        except (OSError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.warning("change_feed_lost", error=str(error))
        forget_all()
        await asyncio.sleep(1)


async def prune_feed(session: StoreSession, *, before: datetime) -> int:
    """Drop old changes; every reader has long seen them. Answers how many.

    The newest stays: from an empty table SQLite would count anew, and whoever has seen more would miss what follows.
    """
    newest = select(func.max(change_feed.c.sequence)).scalar_subquery()
    old = (change_feed.c.recorded_at < before) & (change_feed.c.sequence < newest)
    return (await session.run(delete(change_feed).where(old))).rowcount


async def _poll(database: Database, origin: str, forget: Forget) -> None:
    async with database.following() as driver:
        [[(seen,)]] = await driver.together([(_NEWEST, ())])
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            [[(newest, _, _), *changes]] = await driver.together([(_NEWS, (seen, seen, origin, _AT_ONCE))])
            for _, environment_id, company_id in changes:
                forget(environment_id, company_id)
            seen = newest if len(changes) < _AT_ONCE else changes[-1][0]


async def _listen(database: Database, origin: str, forget: Forget) -> None:
    lost = asyncio.Event()

    def heard(_connection: Any, _pid: int, _channel: str, message: Any) -> None:  # noqa: ANN401 - the driver's types
        sender, environment_id, company_id = str(message).split(" ", 2)
        if sender != origin:
            forget(environment_id, company_id)

    connection = await asyncpg.connect(database.plain_url())
    try:
        connection.add_termination_listener(lambda _connection: lost.set())
        await connection.add_listener(_CHANNEL, heard)
        await lost.wait()
    finally:
        await connection.close()
