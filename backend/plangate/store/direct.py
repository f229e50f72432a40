"""Statements of the hottest paths, handed to the driver as they stand, in the transaction that is open.

SQLAlchemy spends five times as long on a small statement as SQLite does, and one statement for each row makes the
thread of SQLite and the event loop take turns for every row. A direct statement carries all its rows at once: as one
JSON text on SQLite, as one array for each column on PostgreSQL.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, slots=True)
class Direct:
    """One statement in both dialects: single values first, then lists or rows.

    On SQLite (`?`) a list or the rows are one text for `json_each`; on PostgreSQL (`$1`) a list is one array, and rows
    are one array for each of their columns, for `unnest`.
    """

    sqlite: str
    postgresql: str

    async def rows(self, session: "StoreSession", *values: Any) -> Sequence[Sequence[Any]]:  # noqa: ANN401
        """Execute with these values, lists among them; answers the rows. Raises the errors of SQLAlchemy."""
        driver = await _driver(session)
        if isinstance(driver, aiosqlite.Connection):
            told = [_json(value) if isinstance(value, list) else value for value in values]
            with _translated(self.sqlite):
                return list(await driver.execute_fetchall(self.sqlite, told))
        with _translated(self.postgresql):
            found: Sequence[Sequence[Any]] = await driver.fetch(self.postgresql, *values)
            return found

    async def write(self, session: "StoreSession", rows: Sequence[tuple[Any, ...]], *values: Any) -> None:  # noqa: ANN401
        """Execute once for all of these rows, single values first. Raises the errors of SQLAlchemy."""
        if not rows:
            return
        driver = await _driver(session)
        if isinstance(driver, aiosqlite.Connection):
            with _translated(self.sqlite):
                await driver.execute_fetchall(self.sqlite, [*values, _json(rows)])
            return
        with _translated(self.postgresql):
            await driver.execute(self.postgresql, *values, *(list(column) for column in zip(*rows, strict=True)))


async def _driver(session: "StoreSession") -> Any:  # noqa: ANN401 - an aiosqlite or an asyncpg connection
    driver = (await session.connection.get_raw_connection()).driver_connection
    if isinstance(driver, asyncpg.Connection) and not driver.is_in_transaction():
        # SQLAlchemy begins on PostgreSQL with its own first statement.
        await session.connection.exec_driver_sql("SELECT 1")
    return driver


@contextmanager
def _translated(statement: str) -> Iterator[None]:
    # What runs a lost race again, or waits for a database that is away, knows the errors of SQLAlchemy. The statement's
    # values stay out: they may be anybody's keys.
    try:
        yield
    except (sqlite3.IntegrityError, asyncpg.IntegrityConstraintViolationError) as error:
        raise IntegrityError(statement, None, error) from error
    except (sqlite3.OperationalError, *_CONNECTION_LOST) as error:
        raise OperationalError(statement, None, error) from error
    except asyncpg.InterfaceError as error:
        raise InterfaceError(statement, None, error) from error
    except (sqlite3.Error, asyncpg.PostgresError) as error:
        raise DBAPIError(statement, None, error) from error


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
