"""The commit that writes back what was fetched while everything is as it was read: it reads only that it is so.

One call of SQLite's thread; on PostgreSQL a round trip to look, one or two to write, and those of the transaction.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

import asyncpg

from plangate.store.audit import AuditRow, appending
from plangate.store.database import StoreSession
from plangate.store.direct import (
    Direct,
    SqliteConnection,
    driver_of,
    execute_composed,
    for_postgresql,
    for_sqlite,
    translated,
)
from plangate.store.present import OPEN_CHANGE

# Each lock is taken only when the one before it was, in the order that holds everywhere.
_LOOK: Final = Direct(
    sqlite=f"""
        SELECT
            (SELECT fence FROM leases WHERE environment_id = ?1 AND subject = ?2),
            (SELECT version FROM companies WHERE environment_id = ?1 AND id = ?3 AND merged_into IS NULL),
            (SELECT windows_opened FROM companies WHERE environment_id = ?1 AND id = ?3),
            EXISTS (
                SELECT 1 FROM plan_changes WHERE environment_id = ?1 AND company_id = ?3 AND {OPEN_CHANGE}
            ),
            (SELECT catalog_revision FROM environments WHERE id = ?1),
            (SELECT sequence FROM audit_heads WHERE environment_id = ?1 AND ?4),
            (SELECT entry_hash FROM audit_heads WHERE environment_id = ?1)
    """,  # noqa: S608 - our own words
    postgresql=f"""
        WITH fence AS (
            SELECT fence FROM leases WHERE environment_id = $1 AND subject = $2 FOR UPDATE
        ), company AS (
            SELECT version, windows_opened FROM companies
            WHERE environment_id = $1 AND id = $3 AND merged_into IS NULL AND EXISTS (SELECT FROM fence)
            FOR NO KEY UPDATE
        ), head AS (
            SELECT sequence, entry_hash FROM audit_heads
            WHERE environment_id = $1 AND $4 AND EXISTS (SELECT FROM company)
            FOR UPDATE
        )
        SELECT (SELECT fence FROM fence), (SELECT version FROM company), (SELECT windows_opened FROM company),
            EXISTS (
                SELECT FROM plan_changes WHERE environment_id = $1 AND company_id = $3 AND {OPEN_CHANGE}
            ),
            (SELECT catalog_revision FROM environments WHERE id = $1),
            (SELECT sequence FROM head), (SELECT entry_hash FROM head)
    """,  # noqa: S608 - same
)


class AsRead(NamedTuple):
    """What must be so still: the lease's newest fence, the company's version, the catalogue's revision.

    No plan change may be open either. With `has_no_windows` the company must have no usage windows, as there are none
    to be moved then.
    """

    subject: str
    fence: int
    company_id: str
    version: int
    catalog_revision: int
    has_no_windows: bool


class _OtherwiseNow(Exception):
    """Something is not as it was read: nothing is written."""


async def write_back(session: StoreSession, as_read: AsRead, entries: Sequence[AuditRow]) -> bool:
    """Write what the session deferred and append these audit entries, if all is as it was read; answers whether it was.

    The session has no transaction: this is one of its own. Raises the errors of SQLAlchemy.
    """
    driver = await driver_of(session)
    try:
        with translated():
            if isinstance(driver, SqliteConnection):
                await driver.in_one_go(lambda raw: _on_sqlite(session, raw, as_read, entries))
                return True
            if isinstance(driver, asyncpg.Connection):
                async with driver.transaction():
                    await _on_postgresql(session, driver, as_read, entries)
                return True
    except _OtherwiseNow:
        return False
    except BaseException:
        if session.is_postgresql:
            # Whatever state it is in, nobody else shall find it so. SQLite's thread ends what it began by itself.
            await session.connection.invalidate()
        raise
    raise TypeError("neither SQLite nor PostgreSQL")


def _on_sqlite(
    session: StoreSession, connection: sqlite3.Connection, as_read: AsRead, entries: Sequence[AuditRow]
) -> None:
    looked = _LOOK.of(session.environment_id, as_read.subject, as_read.company_id, bool(entries))
    sequence, head = _checked(connection.execute(*for_sqlite(looked)).fetchone(), as_read, entries)
    for one in [*session.deferred, *appending(entries, sequence, head)]:
        if one.rows is None or one.rows:
            connection.execute(*for_sqlite(one))


async def _on_postgresql(
    session: StoreSession,
    driver: "asyncpg.Connection[asyncpg.Record]",
    as_read: AsRead,
    entries: Sequence[AuditRow],
) -> None:
    looked = _LOOK.of(session.environment_id, as_read.subject, as_read.company_id, bool(entries))
    row = (await driver.fetch(looked.statement.postgresql, *for_postgresql(looked)))[0]
    sequence, head = _checked(tuple(row), as_read, entries)
    await execute_composed(driver, [*session.deferred, *appending(entries, sequence, head)])


def _checked(
    row: tuple[int | None, int | None, int | None, int | bool, int | None, int | None, str | None],
    as_read: AsRead,
    entries: Sequence[AuditRow],
) -> tuple[int, str]:
    """Where the audit ends. Raises when something is otherwise, or the audit has no first entry yet."""
    fence, version, windows, has_open_changes, revision, sequence, head = row
    if as_read.has_no_windows and windows:
        raise _OtherwiseNow
    if (fence, version, revision) != (as_read.fence, as_read.version, as_read.catalog_revision) or has_open_changes:
        raise _OtherwiseNow
    if entries and sequence is None:
        raise _OtherwiseNow
    return sequence or 0, head or ""
