"""The change feed: a committing transaction says whose facts or counters it changed, and other processes forget them.

SQLite has one writer at a time, so a table with a rising sequence is read in commit order. On PostgreSQL sequences
commit out of order; there NOTIFY carries the same message, delivered at commit.
"""

import asyncio
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
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.warning("change_feed_lost", error=str(error))
        forget_all()
        await asyncio.sleep(1)


async def prune_feed(session: StoreSession, *, before: datetime) -> int:
    """Drop old changes; every reader has long seen them. Answers how many."""
    return (await session.run(delete(change_feed).where(change_feed.c.recorded_at < before))).rowcount


async def _poll(database: Database, origin: str, forget: Forget) -> None:
    async with database.looking() as connection:
        seen = int((await connection.execute(select(func.max(change_feed.c.sequence)))).scalar() or 0)
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        async with database.looking() as connection:
            rows = await connection.execute(
                select(change_feed).where(change_feed.c.sequence > seen).order_by(change_feed.c.sequence).limit(10_000)
            )
            for row in rows.mappings():
                seen = row["sequence"]
                if row["origin"] != origin:
                    forget(row["environment_id"], row["company_id"])


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
