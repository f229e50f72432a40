"""Counting usage of companies that are in memory in one go: all that is read first is that they are so still.

The windows an event counts in depend on the company's facts, the catalogue, and the windows there are, and each of them
has a version. While all three are what memory says, quantities can be added to counters without reading them.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import asyncpg

from plangate.store.database import Database
from plangate.store.direct import Direct, Filled, Packed, Rows, SqliteConnection, for_postgresql, for_sqlite, translated
from plangate.store.ledger import ADD_ENTRIES, ADD_KEYS, LOCK_COMPANIES

_ADD_TO_WINDOWS: Final = Direct(
    sqlite="""
        UPDATE usage_windows SET used = used + json_extract(counted.value, '$[1]')
        FROM json_each(?) AS counted
        WHERE usage_windows.id = json_extract(counted.value, '$[0]')
        RETURNING id, used, reserved
    """,
    postgresql="""
        UPDATE usage_windows SET used = used + counted.quantity
        FROM unnest($1::text[], $2::bigint[]) AS counted (id, quantity)
        WHERE usage_windows.id = counted.id
        RETURNING usage_windows.id, usage_windows.used, usage_windows.reserved
    """,
)
# A statement for each row is cheaper than JSON, but the thread of SQLite and the event loop take turns for each.
_ENTRY_ON_SQLITE: Final = """
    INSERT INTO usage_events (environment_id, recorded_at, id, company_id, user_id, event, quantity, occurred_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_FEW: Final = 100
_COUNTER_LIMIT: Final = 2**62  # beyond it, sums are looked at one by one

Entry: TypeAlias = tuple[str, str, str, str, int, int]


class Counting(NamedTuple):
    """Usage to be added, and what must be true for it.

    `known` is for each company its version and how many windows were opened for it, and `revision` that of the
    catalogue, by which the windows were found.
    `entries` are ledger rows: id, company id, user id or "", event, quantity, microseconds when it occurred. `keys`
    are hashes of idempotency keys and bodies. `added` is the sum for each window id; `told` announces it.
    """

    environment_id: str
    recorded_at: int
    revision: int
    known: Mapping[str, tuple[int, int]]
    entries: Sequence[Entry]
    keys: Sequence[tuple[bytes, bytes]]
    added: Mapping[str, int]
    told: Filled


class _OtherwiseNow(Exception):
    """Something is not as it was in memory: nothing is counted."""


async def count_known(database: Database, counting: Counting) -> dict[str, tuple[int, int]] | None:
    """Append to the ledger, use the keys and add to the windows; answers each window's (used, reserved) after it.

    None, and then nothing was written, when a company or the catalogue has another version, a key was used before,
    a window is gone, or a counter comes near the limit of 64 bits. Raises the errors of SQLAlchemy.
    """
    async with database.connecting() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        try:
            with translated():
                if isinstance(driver, SqliteConnection):
                    return await driver.in_one_go(lambda raw: _on_sqlite(raw, counting))
                if isinstance(driver, asyncpg.Connection):
                    async with driver.transaction():
                        return await _on_postgresql(driver, counting)
        except _OtherwiseNow:
            return None
        except BaseException:
            # Whatever state it is in, nobody else shall find it so.
            await connection.invalidate()
            raise
    raise TypeError("neither SQLite nor PostgreSQL")


def _on_sqlite(connection: sqlite3.Connection, counting: Counting) -> dict[str, tuple[int, int]]:
    _refuse_if_otherwise(connection.execute(*for_sqlite(_locking(counting))).fetchall(), counting)
    if counting.keys:
        try:
            connection.execute(*for_sqlite(_adding_keys(counting)))
        except sqlite3.IntegrityError:
            raise _OtherwiseNow from None
    common = (counting.environment_id, counting.recorded_at)
    if len(counting.entries) <= _FEW:
        connection.execute(*for_sqlite(ADD_ENTRIES.for_all(counting.entries, *common)))
    else:
        connection.executemany(_ENTRY_ON_SQLITE, [common + entry for entry in counting.entries])
    if not counting.added:
        return {}
    windows = connection.execute(*for_sqlite(_adding(counting))).fetchall()
    connection.execute(*for_sqlite(counting.told))
    return _counted(windows, counting)


async def _on_postgresql(
    connection: "asyncpg.Connection[asyncpg.Record]", counting: Counting
) -> dict[str, tuple[int, int]]:
    async def run(filled: Filled) -> Rows:
        return [tuple(row) for row in await connection.fetch(filled.statement.postgresql, *for_postgresql(filled))]

    _refuse_if_otherwise(await run(_locking(counting)), counting)
    if counting.keys:
        filled = _adding_keys(counting)
        statement = filled.statement.postgresql
        if len(counting.keys) <= _FEW:
            # A repeat is not worth an error in the server's log; with many keys that would cost a third more.
            statement += "ON CONFLICT DO NOTHING"
        try:
            told = await connection.execute(statement, *for_postgresql(filled))
        except asyncpg.UniqueViolationError:
            raise _OtherwiseNow from None
        if told != f"INSERT 0 {len(counting.keys)}":
            raise _OtherwiseNow
    await run(ADD_ENTRIES.for_all(counting.entries, counting.environment_id, counting.recorded_at))
    if not counting.added:
        return {}
    windows = await run(_adding(counting))
    await run(counting.told)
    return _counted(windows, counting)


def _locking(counting: Counting) -> Filled:
    return LOCK_COMPANIES.of(counting.environment_id, counting.environment_id, sorted(counting.known))


def _refuse_if_otherwise(rows: Rows, counting: Counting) -> None:
    known, revision = counting.known, counting.revision
    if len(rows) != len(known) or any(
        known[company_id] != (version, opened) or (told or 0) != revision for company_id, version, opened, told in rows
    ):
        raise _OtherwiseNow


def _adding_keys(counting: Counting) -> Filled:
    # Sorted, so that two batches with the same keys wait for each other in one order.
    used = sorted(counting.keys)
    return ADD_KEYS.of(Packed([key for key, _ in used]), Packed([body for _, body in used]), [None] * len(used))


def _adding(counting: Counting) -> Filled:
    return _ADD_TO_WINDOWS.for_all(list(counting.added.items()))


def _counted(rows: Rows, counting: Counting) -> dict[str, tuple[int, int]]:
    if len(rows) != len(counting.added):
        raise _OtherwiseNow
    found = {window_id: (used, reserved) for window_id, used, reserved in rows}
    if not all(-_COUNTER_LIMIT < used < _COUNTER_LIMIT for used, _ in found.values()):
        raise _OtherwiseNow
    return found
