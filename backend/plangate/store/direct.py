"""Statements of the hottest paths, handed to the driver as they stand, in the transaction that is open.

SQLAlchemy spends five times as long on a small statement as SQLite does, and one statement for each row makes the
thread of SQLite and the event loop take turns for every row. A direct statement carries all its rows at once: as one
JSON text on SQLite, as one array for each column on PostgreSQL.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
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
_PLACEHOLDER: Final = re.compile(r"\$(\d+)")

Rows: TypeAlias = Sequence[Sequence[Any]]
Answer = TypeVar("Answer")
Kept = TypeVar("Kept")


class Packed(NamedTuple):
    """Byte strings of one length: on SQLite, where JSON cannot carry them, one after the other; else one array."""

    pieces: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Direct:
    """One statement in both dialects: single values first, then lists or rows.

    On SQLite (`?`) a list or the rows are one text for `json_each`; on PostgreSQL (`$1`) a list is one array, and rows
    are one array for each of their columns, for `unnest`. `writes` names the only table it writes, when nobody needs
    its rows: PostgreSQL then executes it in one round trip with others that write other tables. One that `follows` may
    share it even with the one before it that writes the same table and returns a row for each it wrote: the text, in
    which `{before}` is that one, makes PostgreSQL wait for it.
    """

    sqlite: str
    postgresql: str
    writes: str = ""
    follows: str = ""

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

    def __init__(self, connect: "partial[sqlite3.Connection]", kept: dict[type, Any]) -> None:
        super().__init__(connect, iter_chunk_size=64)
        self._thread.daemon = True
        self._kept = kept
        self.transaction: object = None  # another one for each transaction that writes
        self._begins: Callable[[], None] | None = None
        self._is_over = False

    async def together(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Rows]:
        """The rows of each statement, in order. Raises SQLite's errors; then those after it were not executed."""
        found: list[Rows] = await self._execute(self._together, statements)
        return found

    async def within(self, work: Callable[[], Answer]) -> Answer:
        """What `work` answers, called in the connection's thread in the transaction that is open."""
        found: Answer = await self._execute(work)
        return found

    def kept(self, kind: type[Kept]) -> Kept:
        """What all connections of this kind to the file keep in memory beside it; made when it is first asked for."""
        if kind not in self._kept:
            self._kept[kind] = kind()
        found: Kept = self._kept[kind]
        return found

    @property
    def raw(self) -> sqlite3.Connection:
        """SQLite's own connection, for what is called in its thread."""
        return self._conn

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
                self.transaction = object()
                return

    def _together(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Rows]:
        return [self._conn.execute(statement, values).fetchall() for statement, values in statements]


async def driver_of(session: "StoreSession") -> Any:  # noqa: ANN401 - either driver's
    """The driver's own connection behind a session."""
    return session.driver or (await session.connection.get_raw_connection()).driver_connection


async def together(session: "StoreSession", *statements: Filled) -> list[Rows]:
    """Execute in order, after what the session deferred; answers the rows of each. Raises the errors of SQLAlchemy."""
    deferred = [one for one in session.deferred if one.rows is None or one.rows]
    session.deferred.clear()
    wanted = [one for one in statements if one.rows is None or one.rows]
    found: list[Rows] = []
    if wanted or deferred:
        driver = await driver_of(session)
        if isinstance(driver, SqliteConnection):
            with translated():
                found = await driver.together([for_sqlite(one) for one in (*deferred, *wanted)])
            del found[: len(deferred)]
        elif isinstance(driver, asyncpg.Connection):
            if not session.only_reads and not driver.is_in_transaction():
                # SQLAlchemy begins on PostgreSQL with its own first statement.
                await session.connection.exec_driver_sql("SELECT 1")
            with translated():
                await execute_composed(driver, deferred)
                found = [await driver.fetch(one.statement.postgresql, *for_postgresql(one)) for one in wanted]
    if len(found) == len(statements):
        return found
    answered = iter(found)
    return [next(answered) if one.rows is None or one.rows else [] for one in statements]


async def end_with_deferred(session: "StoreSession") -> None:
    """What the session deferred, and on SQLite the commit with it."""
    driver = await driver_of(session)
    if isinstance(driver, SqliteConnection):
        wanted = [for_sqlite(one) for one in session.deferred if one.rows is None or one.rows]
        session.deferred.clear()
        with translated():
            await driver.end_with(wanted)
    else:
        await together(session)


async def execute_composed(driver: "asyncpg.Connection[asyncpg.Record]", statements: Sequence[Filled]) -> None:
    """Execute statements nobody needs the rows of on PostgreSQL, those that write different tables together.

    They would not see what the others of their round trip write, so only the order of those of one table counts.
    """
    for text, values in composed([one for one in statements if one.rows is None or one.rows]):
        await driver.fetch(text, *values)


def composed(statements: Sequence[Filled]) -> list[tuple[str, list[Any]]]:
    """The statements and their values as as few as PostgreSQL can execute, in order."""
    rounds: list[dict[str, Filled]] = []  # by the table each writes; what follows in the same round by another name
    since = 0
    for number, one in enumerate(statements):
        table = one.statement.writes
        if not table:
            rounds.append({f"alone {number}": one})
            since = len(rounds)
            continue
        if one.statement.follows and len(rounds) > since and table in rounds[-1] and f"{table}+" not in rounds[-1]:
            rounds[-1][f"{table}+"] = one
            continue
        free = max((place + 1 for place in range(since, len(rounds)) if table in rounds[place]), default=since)
        if free == len(rounds):
            rounds.append({})
        rounds[free][table] = one
    return [_as_one_statement(one) for one in rounds]


def _as_one_statement(statements: Mapping[str, Filled]) -> tuple[str, list[Any]]:
    if len(statements) == 1:
        (only,) = statements.values()
        return only.statement.postgresql, list(for_postgresql(only))
    names = {table: f"written_{number}" for number, table in enumerate(statements)}
    parts: list[str] = []
    values: list[Any] = []
    last = "SELECT 1"
    for table, one in statements.items():
        text = _renumbered(one.statement.postgresql, len(values))
        if table.endswith("+"):
            text += one.statement.follows.format(before=names[table[:-1]])
        values += for_postgresql(one)
        # What only selects, such as a notification, would not be executed beside the others.
        if text.lstrip().startswith("SELECT"):
            last = text
        else:
            parts.append(f"{names[table]} AS ({text})")
    return f"WITH {', '.join(parts)} {last}", values


@lru_cache(maxsize=256)
def _renumbered(text: str, by: int) -> str:
    return _PLACEHOLDER.sub(lambda found: f"${int(found[1]) + by}", text)


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
