"""Counting usage of companies that are in memory in one go: all that is read first is that they are so still.

The windows an event counts in depend on the company's facts, the catalogue, and the windows there are, and each of them
has a version. While all three are what memory says, quantities can be added to counters without reading them.
"""

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import asyncpg

from plangate.store.database import Database
from plangate.store.direct import Direct, Filled, Rows, SqliteConnection, for_postgresql, for_sqlite, translated
from plangate.store.ledger import ADD_ENTRIES, LOCK_COMPANIES, UsedKey, adding_keys
from plangate.store.usage import asking_used_keys

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
_READ_WINDOWS: Final = Direct(
    sqlite="SELECT id, used, reserved FROM usage_windows WHERE id IN (SELECT value FROM json_each(?))",
    postgresql="SELECT id, used, reserved FROM usage_windows WHERE id = ANY($1::text[])",
)
# A statement for each row is cheaper than JSON, but the thread of SQLite and the event loop take turns for each.
_ENTRY_ON_SQLITE: Final = """
    INSERT INTO usage_events (environment_id, recorded_at, id, company_id, user_id, event, quantity, occurred_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_FEW: Final = 100
_LIMIT: Final = 2**62  # of a counter: beyond it, sums are looked at one by one

Entry: TypeAlias = tuple[str, str, str, str, int, int]


class Counting(NamedTuple):
    """What must be true for usage to be counted, and what must be read to decide it.

    `known` is for each company its version and how many windows were opened for it, and `revision` that of the
    catalogue, by which the windows were found. `keys` are hashes of idempotency keys that nobody has used, `windows`
    the ids of the counters that decide.
    """

    environment_id: str
    recorded_at: int
    revision: int
    known: Mapping[str, tuple[int, int]]
    keys: Sequence[bytes]
    windows: Collection[str]


class Writing(NamedTuple):
    """Usage to be written.

    `entries` are ledger rows: id, company id, user id or "", event, quantity, microseconds when it occurred. `keys`
    count from now on. `added` is the sum for each window id; `further` are statements that go with it.
    """

    entries: Sequence[Entry]
    keys: Sequence[UsedKey]
    added: Mapping[str, int]
    further: Sequence[Filled]


Counters: TypeAlias = dict[str, tuple[int, int]]  # used and reserved by window id
Decide: TypeAlias = Callable[[Counters], Writing]


class OtherwiseNow(Exception):
    """Something is not as it was in memory: nothing is counted."""


async def count_known(database: Database, counting: Counting, decide: Decide) -> Counters | None:
    """Append to the ledger, use the keys and add to the windows; answers the counters that were added to.

    `decide` is called inside the transaction with the counters asked for, on SQLite in the connection's thread, and may
    raise OtherwiseNow. None, and then nothing was written, when it does, when a company, its windows or the catalogue
    have another version, a key was used before, a window is gone, or a counter comes near the limit of 64 bits. Raises
    the errors of SQLAlchemy.
    """
    async with database.connecting() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        try:
            with translated():
                if isinstance(driver, SqliteConnection):
                    return await driver.in_one_go(lambda raw: _on_sqlite(raw, counting, decide))
                if isinstance(driver, asyncpg.Connection):
                    async with driver.transaction():
                        return await _on_postgresql(driver, counting, decide)
        except OtherwiseNow:
            return None
        except BaseException:
            # Whatever state it is in, nobody else shall find it so.
            await connection.invalidate()
            raise
    raise TypeError("neither SQLite nor PostgreSQL")


def _on_sqlite(connection: sqlite3.Connection, counting: Counting, decide: Decide) -> Counters:
    def run(filled: Filled) -> Rows:
        return connection.execute(*for_sqlite(filled)).fetchall()

    _refuse_if_otherwise(run(_locking(counting)), counting)
    read: Counters = {}
    if counting.windows:
        _refuse_if_used(run(asking_used_keys(counting.keys)))
        read = _all_of(run(_READ_WINDOWS.of(list(counting.windows))), counting.windows)
    writing = decide(read)
    if writing.keys:
        try:
            run(adding_keys(writing.keys))
        except sqlite3.IntegrityError:
            raise OtherwiseNow from None
    common = (counting.environment_id, counting.recorded_at)
    if len(writing.entries) > _FEW:
        connection.executemany(_ENTRY_ON_SQLITE, [common + entry for entry in writing.entries])
    elif writing.entries:
        run(ADD_ENTRIES.for_all(writing.entries, *common))
    windows = run(_adding(writing)) if writing.added else []
    for one in writing.further:
        run(one)
    return _counted(windows, writing)


async def _on_postgresql(
    connection: "asyncpg.Connection[asyncpg.Record]", counting: Counting, decide: Decide
) -> Counters:
    async def run(filled: Filled) -> Rows:
        return [tuple(row) for row in await connection.fetch(filled.statement.postgresql, *for_postgresql(filled))]

    _refuse_if_otherwise(await run(_locking(counting)), counting)
    read: Counters = {}
    if counting.windows:
        _refuse_if_used(await run(asking_used_keys(counting.keys)))
        read = _all_of(await run(_READ_WINDOWS.of(list(counting.windows))), counting.windows)
    writing = decide(read)
    if writing.keys:
        filled = adding_keys(writing.keys)
        statement = filled.statement.postgresql
        if len(writing.keys) <= _FEW:
            # A repeat is not worth an error in the server's log; with many keys that would cost a third more.
            statement += "ON CONFLICT DO NOTHING"
        try:
            told = await connection.execute(statement, *for_postgresql(filled))
        except asyncpg.UniqueViolationError:
            raise OtherwiseNow from None
        if told != f"INSERT 0 {len(writing.keys)}":
            raise OtherwiseNow
    if writing.entries:
        await run(ADD_ENTRIES.for_all(writing.entries, counting.environment_id, counting.recorded_at))
    windows = await run(_adding(writing)) if writing.added else []
    for one in writing.further:
        await run(one)
    return _counted(windows, writing)


def _locking(counting: Counting) -> Filled:
    return LOCK_COMPANIES.of(counting.environment_id, counting.environment_id, sorted(counting.known))


def _refuse_if_otherwise(rows: Rows, counting: Counting) -> None:
    known, revision = counting.known, counting.revision
    if len(rows) != len(known) or any(
        known[company_id] != (version, opened) or (told or 0) != revision for company_id, version, opened, told in rows
    ):
        raise OtherwiseNow


def _refuse_if_used(rows: Rows) -> None:
    if rows:
        raise OtherwiseNow


def _adding(writing: Writing) -> Filled:
    return _ADD_TO_WINDOWS.for_all(list(writing.added.items()))


def _all_of(rows: Rows, windows: Collection[str]) -> Counters:
    found = {window_id: (used, reserved) for window_id, used, reserved in rows}
    if len(found) != len(windows):
        raise OtherwiseNow
    return found


def _counted(rows: Rows, writing: Writing) -> Counters:
    found = _all_of(rows, writing.added)
    if not all(-_LIMIT < used < _LIMIT for used, _ in found.values()):
        raise OtherwiseNow
    return found
