"""Statements of the hottest paths, handed to the driver as they stand, in the transaction that is open.

SQLAlchemy spends five times as long on a small statement as SQLite does, and one statement for each row makes the
thread of SQLite and the event loop take turns for every row. A direct statement carries all its rows at once: as one
JSON text on SQLite, as one array for each column on PostgreSQL.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import uniform
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import aiosqlite
import asyncpg
import msgspec
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

if TYPE_CHECKING:
    from plangate.store.database import StoreSession

_CONNECTION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)

_WAITING_SECONDS: Final = 10

Rows: TypeAlias = Sequence[Sequence[Any]]
Answer = TypeVar("Answer")


class Packed(NamedTuple):
    """Byte strings of one length: on SQLite, where JSON cannot carry them, one after the other; else one array."""

    pieces: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Direct:
    """One statement in both dialects: single values first, then lists or rows.

    On SQLite (`?`) a list or the rows are one text for `json_each`; on PostgreSQL (`$1`) a list is one array, and rows
    are one array for each of their columns, for `unnest`.
    """

    sqlite: str
    postgresql: str

    def of(self, *values: Any) -> "Filled":  # noqa: ANN401 - what the database takes
        """The statement with these values, lists among them."""
        return Filled(self, values, None)

    def for_all(self, rows: Rows, *values: Any) -> "Filled":  # noqa: ANN401 - what the database takes
        """The statement for all of these rows at once, single values first; without rows it is left out."""
        return Filled(self, values, rows)


class Filled(NamedTuple):
    """A statement and what it is executed with."""

    statement: Direct
    values: tuple[Any, ...]
    rows: Rows | None


class SqliteConnection(aiosqlite.Connection):
    """A connection whose thread executes several statements at one call: each call costs two changes of threads."""

    def __init__(self, connect: "partial[sqlite3.Connection]") -> None:
        super().__init__(connect, iter_chunk_size=64)
        self._thread.daemon = True
        self._begins: Callable[[], None] | None = None
        self._is_over = False

    async def together(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Rows]:
        """The rows of each statement, in order. Raises SQLite's errors; then those after it were not executed."""
        found: list[Rows] = await self._execute(self._together, statements)
        return found

    def begin(self) -> None:
        """Begin to write with the next statement, as soon as no other process does; after ten seconds that fails."""
        self._begins, self._is_over = self._begin, False

    def begin_reading(self) -> None:
        """Begin to read with the next statement: what is seen stays as it was then."""
        self._begins, self._is_over = self._begin_reading, False

    async def end_with(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Execute these and commit at one call; the `commit` that follows finds nothing left to do."""
        await self.together([*statements, ("COMMIT", ())])
        self._is_over = True

    async def commit(self) -> None:
        """Commit, unless nothing was begun or `end_with` did."""
        if self._begins is None and not self._is_over:
            await super().commit()
        self._begins = None

    async def rollback(self) -> None:
        """Roll back, unless nothing was begun."""
        if self._begins is None:
            await super().rollback()
        self._begins = None

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as inherited
        begins, self._begins = self._begins, None
        if begins is not None:
            return await super()._execute(_one_after_the_other, begins, partial(fn, *args, **kwargs))  # type: ignore[no-untyped-call]
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]  # none in the package

    async def in_one_go(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Begin to write, work and commit at one call of the thread; what `work` raises rolls back.

        A caller that goes away does not stop it: it ends by itself.
        """
        found: Answer = await self._execute(self._in_one_go, work)
        return found

    def _in_one_go(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        self._begin()
        try:
            found = work(self._conn)
            self._conn.commit()
        except BaseException:
            self._conn.rollback()
            raise
        return found

    def _begin_reading(self) -> None:
        self._conn.execute("BEGIN")

    def _begin(self) -> None:
        # SQLite's own waiting sleeps longer the longer it lasts, up to 100 ms: whoever came first would come last.
        give_up_at = monotonic() + _WAITING_SECONDS
        while True:
            try:
                self._conn.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= give_up_at:
                    raise
                sleep(uniform(0.0003, 0.001))  # noqa: S311 - so that two do not knock in step
            else:
                return

    def _together(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Rows]:
        return [self._conn.execute(statement, values).fetchall() for statement, values in statements]


async def together(session: "StoreSession", *statements: Filled) -> list[Rows]:
    """Execute in order, after what the session deferred; answers the rows of each. Raises the errors of SQLAlchemy."""
    deferred = [one for one in session.deferred if one.rows is None or one.rows]
    session.deferred.clear()
    wanted = [*deferred, *(one for one in statements if one.rows is None or one.rows)]
    found: list[Rows] = []
    if wanted:
        driver = (await session.connection.get_raw_connection()).driver_connection
        if isinstance(driver, SqliteConnection):
            with translated():
                found = await driver.together([for_sqlite(one) for one in wanted])
        elif isinstance(driver, asyncpg.Connection):
            if not session.only_reads and not driver.is_in_transaction():
                # SQLAlchemy begins on PostgreSQL with its own first statement.
                await session.connection.exec_driver_sql("SELECT 1")
            with translated():
                found = [await driver.fetch(one.statement.postgresql, *for_postgresql(one)) for one in wanted]
    del found[: len(deferred)]
    if len(found) == len(statements):
        return found
    answered = iter(found)
    return [next(answered) if one.rows is None or one.rows else [] for one in statements]


async def end_with_deferred(session: "StoreSession") -> None:
    """What the session deferred, and on SQLite the commit with it."""
    driver = (await session.connection.get_raw_connection()).driver_connection
    if isinstance(driver, SqliteConnection):
        wanted = [for_sqlite(one) for one in session.deferred if one.rows is None or one.rows]
        session.deferred.clear()
        with translated():
            await driver.end_with(wanted)
    else:
        await together(session)


def _one_after_the_other(first: Callable[[], object], second: Callable[[], Answer]) -> Answer:
    first()
    return second()


@contextmanager
def translated() -> Iterator[None]:
    """Raise the drivers' errors as those of SQLAlchemy, which is what runs a lost race again or waits.

    Statements and their values stay out: they may be anybody's keys.
    """
    try:
        yield
    except (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError) as error:
        raise IntegrityError(None, None, error) from error
    except (sqlite3.OperationalError, *_CONNECTION_LOST) as error:
        raise OperationalError(None, None, error) from error
    except asyncpg.InterfaceError as error:
        raise InterfaceError(None, None, error) from error
    except (sqlite3.Error, asyncpg.PostgresError) as error:
        raise DBAPIError(None, None, error) from error


def for_sqlite(filled: Filled) -> tuple[str, Sequence[Any]]:
    """The statement and its values as SQLite takes them."""
    values = [_as_one(value) for value in filled.values]
    if filled.rows is not None:
        values.append(_json(filled.rows))
    return filled.statement.sqlite, values


def for_postgresql(filled: Filled) -> Sequence[Any]:
    """The values of the statement as PostgreSQL takes them."""
    columns = [] if filled.rows is None else [list(column) for column in zip(*filled.rows, strict=True)]
    return [*(value.pieces if isinstance(value, Packed) else value for value in filled.values), *columns]


def _as_one(value: object) -> object:
    if isinstance(value, Packed):
        return b"".join(value.pieces)
    return _json(value) if isinstance(value, list) else value


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
