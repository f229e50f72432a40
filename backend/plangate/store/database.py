"""One database, SQLite or PostgreSQL: how connections are opened, and sessions that belong to one environment.

SQLite runs in WAL mode with `synchronous=FULL`; one writer connection per process takes `BEGIN IMMEDIATE`, so that
writers queue in order instead of failing half-way; readers have connections of their own. PostgreSQL uses one pool.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Executable, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, CursorResult, RowMapping
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState
from sqlmodel import SQLModel

from plangate.store.at_hand import AtHand
from plangate.store.direct import Filled, SqliteConnection, end_with_deferred, together

_BUSY_TIMEOUT_MILLISECONDS = 10_000
_READERS = 5  # one of them follows the change feed
# Pages written again and again reach the database file once in sixteen megabytes of log instead of once in four.
_PAGES_BETWEEN_CHECKPOINTS = 4_000
_WRITER_CACHE_KIBIBYTES = 32 * 1024  # random keys of a large ledger find their pages without asking the system
_RESTED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StoreSession:
    """One open transaction, for one environment. Every query is scoped by `environment_id`.

    `now` is the environment's business instant when the transaction was opened; it is what `recorded_at` gets.
    `changed` collects companies whose facts this transaction changes ("" stands for the catalogue and the clock),
    `counted` those whose counters it moves; both are announced to other processes when it commits. `after_commit` is
    called once it has. `deferred` are statements that wait for the next one, or the commit, to go out with it. `driver`
    is the driver's own connection, where it is known already.
    """

    connection: AsyncConnection
    environment_id: str
    now: datetime
    changed: set[str] = field(default_factory=set)
    counted: set[str] = field(default_factory=set)
    after_commit: list[Callable[[], None]] = field(default_factory=list)
    deferred: list[Filled] = field(default_factory=list)
    only_reads: bool = False
    driver: Any = None

    @property
    def is_postgresql(self) -> bool:
        """Whether row locks exist; on SQLite the transaction itself excludes other writers."""
        return self.connection.dialect.name == "postgresql"

    def defer(self, *statements: Filled) -> None:
        """Execute these before whatever is executed next, at the latest with the commit: nobody needs their rows.

        They take no lock that the transaction does not hold already, or the order of locks would no longer hold.
        """
        self.deferred.extend(statements)

    async def flush(self) -> None:
        """Execute what was deferred."""
        if self.deferred:
            await together(self)

    async def run(self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None) -> CursorResult[Any]:
        """Execute one statement, or the same statement for many rows."""
        await self.flush()
        return await self.connection.execute(statement, rows)

    async def one(self, statement: Executable) -> RowMapping | None:
        """The first row as a mapping, or None."""
        await self.flush()
        return (await self.connection.execute(statement)).mappings().first()

    async def all(self, statement: Executable) -> Sequence[RowMapping]:
        """All rows as mappings."""
        await self.flush()
        return (await self.connection.execute(statement)).mappings().all()

    async def scalar(self, statement: Executable) -> Any:  # noqa: ANN401 - a column's value
        """The first column of the first row, or None."""
        await self.flush()
        return (await self.connection.execute(statement)).scalar()

    def insert(self, model: type[SQLModel]) -> "sqlite.Insert | postgresql.Insert":
        """An INSERT of this database's dialect, for `on_conflict_do_nothing` and `on_conflict_do_update`."""
        table = table_of(model)
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)

    async def add(self, row: SQLModel) -> None:
        """Insert one row as it stands."""
        await self.flush()
        await self.connection.execute(table_of(type(row)).insert(), row.model_dump())

    async def add_all(self, rows: Sequence[SQLModel]) -> None:
        """Insert many rows of one table in as few round trips as the driver allows."""
        await self.flush()
        if rows:
            await self.connection.execute(table_of(type(rows[0])).insert(), [row.model_dump() for row in rows])


def table_of(model: type[SQLModel]) -> Table:
    """The table behind a SQLModel class; typed, which `model.__table__` is not."""
    table: Table = model.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass for table models
    return table


class Database:
    """A connected database. Open with `await Database.open(url)`; close with `await database.close()`."""

    def __init__(self, url: URL, writer: AsyncEngine, reader: AsyncEngine, at_hand: AtHand) -> None:
        self.url = url
        self._writer = writer
        self._reader = reader
        self._at_hand = at_hand

    @property
    def is_postgresql(self) -> bool:
        """Which of the two databases this is."""
        return self.url.get_backend_name() == "postgresql"

    @classmethod
    def at(cls, url: str) -> "Database":
        """A database at an address such as `sqlite:///plangate.sqlite3` or `postgresql://user@host/name`."""
        parsed = async_url(url)
        if parsed.get_backend_name() == "sqlite":
            writer = _sqlite_engine(parsed, pool_size=1)
            reader = _sqlite_engine(parsed, pool_size=_READERS)
            event.listen(writer.sync_engine, "connect", _prepare_writer)
            event.listen(writer.sync_engine, "begin", _begin_immediate)
            event.listen(reader.sync_engine, "begin", _begin_deferred)
            apart = _sqlite_engine(parsed, pool_size=2)
            event.listen(apart.sync_engine, "connect", _prepare_apart)
            return cls(parsed, writer, reader, AtHand(apart, is_shared=True))
        engine = create_async_engine(
            parsed,
            pool_size=10,
            max_overflow=10,
            pool_timeout=30,
            connect_args={"server_settings": {"jit": "off", "application_name": "plangate"}},
        )
        event.listen(engine.sync_engine, "checkout", _refusing_lost(engine))
        event.listen(engine.sync_engine, "checkin", _rest)
        # Each statement sees what is committed by then, in a transaction or not; without one a read is a round trip.
        reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        return cls(parsed, engine, reader, AtHand(engine, is_shared=False))

    async def close(self) -> None:
        """Close every connection."""
        await self._at_hand.close()
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()

    @asynccontextmanager
    async def writing(self, environment_id: str, now: datetime) -> AsyncIterator[StoreSession]:
        """A read-write transaction for one environment: committed at the end, rolled back when something is raised."""
        async with self._writer.begin() as connection:
            session = StoreSession(connection, environment_id, now)
            yield session
            if session.deferred:
                await end_with_deferred(session)

    @asynccontextmanager
    async def reading(self, environment_id: str, now: datetime) -> AsyncIterator[StoreSession]:
        """A session that only reads. On SQLite it never waits for writers, and sees one state of everything."""
        async with self._reader.begin() as connection:
            yield StoreSession(connection, environment_id, now, only_reads=True)

    @asynccontextmanager
    async def at_once(
        self, environment_id: str, now: datetime, *, only_reads: bool = False
    ) -> AsyncIterator[StoreSession]:
        """A session whose transaction is not begun, for statements each of which is a transaction of its own.

        To write, that is `store.arriving` and `store.writing_back`; anything else may only be deferred. Its connection
        is kept at hand, because taking one from the pool and giving it back costs as much as a small transaction.
        """
        taken = await self._at_hand.take()
        is_whole = False
        try:
            yield StoreSession(taken.connection, environment_id, now, only_reads=only_reads, driver=taken.driver)
            if taken.connection.in_transaction():
                raise RuntimeError("a statement was executed that nobody commits")
            is_whole = True
        finally:
            await self._at_hand.give_back(taken, is_whole=is_whole)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[SqliteConnection]:
        """A connection of SQLite's without a transaction, for whoever asks again and again: the change feed."""
        async with self._reader.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            if not isinstance(driver, SqliteConnection):
                raise TypeError("only SQLite has to be asked")
            yield driver

    def plain_url(self) -> str:
        """The address for a driver used without SQLAlchemy, password included: never log it."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @asynccontextmanager
    async def connecting(self) -> AsyncIterator[AsyncConnection]:
        """A bare connection outside any environment: migrations, LISTEN, health."""
        async with self._writer.connect() as connection:
            yield connection


def async_url(url: str) -> URL:
    """The address with the asynchronous driver filled in.

    Raises ValueError for a database that is neither SQLite nor PostgreSQL.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+aiosqlite")
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+asyncpg")
    raise ValueError(f"{backend} is not supported: use sqlite:///file or postgresql://user@host/name")


def _sqlite_engine(url: URL, *, pool_size: int) -> AsyncEngine:
    kept: dict[type, Any] = {}

    async def connected() -> SqliteConnection:
        arguments, options = engine.dialect.create_connect_args(url)
        connection = SqliteConnection(partial(sqlite3.connect, *arguments, **options), kept)
        await connection
        return connection

    engine = create_async_engine(
        url,
        async_creator=connected,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        pool_reset_on_return=None,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "reset", _reset_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - the driver's adapter
    # The driver's own transaction control begins too late and DEFERRED; ours is in the "begin" listeners.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={_BUSY_TIMEOUT_MILLISECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
        f"wal_autocheckpoint={_PAGES_BETWEEN_CHECKPOINTS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_writer(connection: Any, _entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - same
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=1")  # it waits in `begin` alone
    cursor.execute(f"PRAGMA cache_size=-{_WRITER_CACHE_KIBIBYTES}")
    cursor.close()


def _prepare_apart(connection: Any, entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - same
    _prepare_writer(connection, entry)
    cursor = connection.cursor()
    cursor.execute("PRAGMA wal_autocheckpoint=0")  # `AtHand` does it beside the transactions
    cursor.close()


def _reset_sqlite(connection: Any, _entry: ConnectionPoolEntry, _state: PoolResetState) -> None:  # noqa: ANN401 - same
    # Nearly always the transaction is over, and rolling back nothing would still change threads twice.
    if connection.driver_connection.in_transaction:
        connection.rollback()


def _begin_immediate(connection: Connection) -> None:
    _driver(connection).begin()


def _begin_deferred(connection: Connection) -> None:
    _driver(connection).begin_reading()


def _driver(connection: Connection) -> SqliteConnection:
    adapted: Any = connection.connection.dbapi_connection
    driver: SqliteConnection = adapted.driver_connection
    return driver


def _refusing_lost(engine: AsyncEngine) -> Callable[[Any, ConnectionPoolEntry, object], None]:
    """Refuses a connection the server closed, so that the pool opens others.

    The driver hears of a close by itself. Asking costs three round trips, so it is done only after a rest.
    """
    dialect: Any = engine.dialect

    def refuse_lost(connection: Any, entry: ConnectionPoolEntry, _proxy: object) -> None:  # noqa: ANN401 - same
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError("the server closed the connection")
        if monotonic() - entry.info.get("rested_since", 0.0) > _RESTED_SECONDS:
            try:
                dialect.do_ping(connection)
            except dialect.loaded_dbapi.Error as error:
                raise InvalidatePoolError("the server does not answer") from error

    return refuse_lost


def _rest(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info["rested_since"] = monotonic()
