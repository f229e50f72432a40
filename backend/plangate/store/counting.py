"""Counting usage of companies that are in memory in one go: all that is read first is that they are so still.

The windows an event counts in depend on the company's facts, the catalogue, and the windows there are, and each of them
has a version. While all three are what memory says, quantities can be added to counters without reading them.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import asyncpg

from plangate.store.columns import json_text
from plangate.store.database import Database
from plangate.store.direct import Direct, Filled, Rows, SqliteConnection, for_postgresql, for_sqlite, translated
from plangate.store.ledger import ADD_ENTRIES, LOCK_COMPANIES
from plangate.store.recent_keys import recent_keys
from plangate.store.used_keys import UsedKey, adding_keys, asking_used_keys

_ADD_TO_WINDOWS: Final = Direct(
    sqlite="""
        UPDATE usage_windows SET used = used + json_extract(counted.value, '$[1]')
        FROM json_each(?) AS counted
        WHERE usage_windows.id = json_extract(counted.value, '$[0]')
        RETURNING id, used, reserved
    """,
    postgresql="",  # there it is a part of the next
)
# All that is written in one round trip. Each part comes to nothing where it has no rows. What only selects, as telling
# others does, is left out by the server unless its outcome is among the answer's columns.
_WRITE_ON_POSTGRESQL: Final = """
    WITH used AS (
        INSERT INTO usage_keys (key_hash, body_hash, answer)
        SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::text[])
        ON CONFLICT DO NOTHING
        RETURNING 1
    ), entered AS (
        INSERT INTO usage_events
            (environment_id, recorded_at, id, company_id, user_id, event, quantity, occurred_at)
        SELECT $4, $5, *
        FROM unnest($6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[])
    ), added AS (
        UPDATE usage_windows SET used = used + counted.quantity
        FROM unnest($12::text[], $13::bigint[]) AS counted (id, quantity)
        WHERE usage_windows.id = counted.id
        RETURNING usage_windows.id, usage_windows.used, usage_windows.reserved
    ), told AS (
        SELECT pg_notify($14, message) FROM unnest($15::text[]) AS message
    )
    SELECT added.id, added.used, added.reserved, once.keys, once.told
    FROM (SELECT (SELECT count(*) FROM used) AS keys, (SELECT count(*) FROM told) AS told) AS once
    LEFT JOIN added ON true
"""
# The same for many, whose ledger rows are copied. An insert that does not look for repeats first is a third faster. The
# hashes come in two pieces: the driver takes longer for a thousand small ones than the server for cutting them out.
_WRITE_MANY_ON_POSTGRESQL: Final = """
    WITH used AS (
        INSERT INTO usage_keys (key_hash, body_hash, answer)
        SELECT substring($1::bytea FROM at * 16 - 15 FOR 16), substring($2::bytea FROM at * 8 - 7 FOR 8),
            ($3::text[])[at]
        FROM generate_series(1, $4::int) AS at
    ), added AS (
        UPDATE usage_windows SET used = used + counted.quantity
        FROM unnest($5::text[], $6::bigint[]) AS counted (id, quantity)
        WHERE usage_windows.id = counted.id
        RETURNING usage_windows.id, usage_windows.used, usage_windows.reserved
    ), told AS (
        SELECT pg_notify($7, message) FROM unnest($8::text[]) AS message
    )
    SELECT added.id, added.used, added.reserved, once.told
    FROM (SELECT (SELECT count(*) FROM told) AS told) AS once
    LEFT JOIN added ON true
"""
_ENTRY_COLUMNS: Final = (
    "environment_id",
    "recorded_at",
    "id",
    "company_id",
    "user_id",
    "event",
    "quantity",
    "occurred_at",
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
Made = TypeVar("Made")
Told = TypeVar("Told")


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
    count from now on. `added` is the sum for each window id, `announced` tells other processes of it; `further` are
    statements that go with it.
    """

    entries: Sequence[Entry]
    keys: Sequence[UsedKey]
    added: Mapping[str, int]
    announced: Filled | None = None
    further: Sequence[Filled] = ()


Counters: TypeAlias = dict[str, tuple[int, int]]  # used and reserved by window id
Decide: TypeAlias = Callable[[Counters], Writing]


class OtherwiseNow(Exception):
    """Something is not as it was in memory: nothing is counted."""


async def count_known(database: Database, counting: Counting, decide: Decide) -> Counters | None:
    """Append to the ledger, use the keys and add to the windows; answers the counters that were added to.

    `decide` is called with the counters asked for, inside the transaction, on SQLite in the connection's thread; where
    none are, it may be called before. It may raise OtherwiseNow. None, and then nothing was written, when it does, when
    a company, its windows or the catalogue have another version, a key was used before, a window is gone, or a counter
    comes near the limit of 64 bits. Raises the errors of SQLAlchemy.
    """
    async with database.connecting() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        try:
            with translated():
                if isinstance(driver, SqliteConnection):
                    # The less is done while others wait, the better.
                    known = None if counting.windows else decide({})
                    decided = decide if known is None else lambda _read: known
                    return await driver.in_one_go(lambda _: _on_sqlite(driver, counting, decided))
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


def _on_sqlite(driver: SqliteConnection, counting: Counting, decide: Decide) -> Counters:
    connection, used = driver.raw, recent_keys(driver)

    def run(filled: Filled) -> Rows:
        return connection.execute(*for_sqlite(filled)).fetchall()

    _refuse_if_otherwise(run(_locking(counting)), counting)
    read: Counters = {}
    if counting.windows:
        if used.find(driver, counting.keys):
            raise OtherwiseNow
        read = _all_of(run(_READ_WINDOWS.of(list(counting.windows))), counting.windows)
    writing = decide(read)
    if writing.keys:
        try:
            used.add(driver, writing.keys)
        except sqlite3.IntegrityError:
            raise OtherwiseNow from None
    common = (counting.environment_id, counting.recorded_at)
    if len(writing.entries) > _FEW:
        connection.executemany(_ENTRY_ON_SQLITE, [common + entry for entry in writing.entries])
    elif writing.entries:
        run(ADD_ENTRIES.for_all(writing.entries, *common))
    windows = run(_adding(writing)) if writing.added else []
    for one in (writing.announced, *writing.further):
        if one is not None:
            run(one)
    return _counted(windows, writing)


async def _on_postgresql(
    connection: "asyncpg.Connection[asyncpg.Record]", counting: Counting, decide: Decide
) -> Counters:
    async def run(filled: Filled) -> Rows:
        return [tuple(row) for row in await connection.fetch(filled.statement.postgresql, *for_postgresql(filled))]

    if counting.windows:
        _refuse_if_otherwise(await run(_locking(counting)), counting)
        _refuse_if_used(await run(asking_used_keys(counting.keys)))
        writing = decide(_all_of(await run(_READ_WINDOWS.of(list(counting.windows))), counting.windows))
    else:
        rows, writing = await _meanwhile(run(_locking(counting)), lambda: decide({}))
        _refuse_if_otherwise(rows, counting)
    if len(writing.entries) > _FEW:
        windows = await _write_many(connection, counting, writing)
    else:
        windows = await _write(connection, counting, writing)
    for one in writing.further:
        await run(one)
    return _counted(windows, writing)


async def _meanwhile(asked: Awaitable[Told], work: Callable[[], Made]) -> tuple[Told, Made]:
    """What the server answers, and what is made while it works."""
    answer = asyncio.ensure_future(asked)
    try:
        # The first lets the driver write its request, the second the loop send it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        made = work()
    except BaseException:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
        raise
    return await answer, made


async def _write_many(connection: "asyncpg.Connection[asyncpg.Record]", counting: Counting, writing: Writing) -> Rows:
    """As `_write`."""
    common = (counting.environment_id, counting.recorded_at)
    # Keys are sorted, so that two batches with the same keys wait for each other in one order.
    used = sorted(writing.keys, key=itemgetter(0))
    answers = [json_text(answer) for _, _, answer in used] if any(one.answer is not None for one in used) else None
    counting_them = connection.fetch(
        _WRITE_MANY_ON_POSTGRESQL,
        b"".join([key_hash for key_hash, _, _ in used]),
        b"".join([body_hash for _, body_hash, _ in used]),
        answers,
        len(used),
        list(writing.added),
        list(writing.added.values()),
        *_announcing(writing),
    )
    try:
        rows, entries = await _meanwhile(counting_them, lambda: [common + entry for entry in writing.entries])
    except asyncpg.UniqueViolationError:
        raise OtherwiseNow from None
    # Rows that are copied take a third less of the server than rows that are inserted, and less of the driver.
    await connection.copy_records_to_table("usage_events", records=entries, columns=_ENTRY_COLUMNS)
    return [(window_id, now_used, reserved) for window_id, now_used, reserved, _ in rows if window_id is not None]


async def _write(connection: "asyncpg.Connection[asyncpg.Record]", counting: Counting, writing: Writing) -> Rows:
    """The windows that were added to: id, used, reserved. A key that was used before is OtherwiseNow."""
    keys, entries = writing.keys, writing.entries
    if not (keys or entries or writing.added or writing.announced):
        return []
    used = for_postgresql(adding_keys(keys))
    columns: Sequence[Any] = [list(column) for column in zip(*entries, strict=True)] or [[]] * 6
    rows = await connection.fetch(
        _WRITE_ON_POSTGRESQL,
        *used,
        counting.environment_id,
        counting.recorded_at,
        *columns,
        list(writing.added),
        list(writing.added.values()),
        *_announcing(writing),
    )
    if rows[0]["keys"] != len(keys):
        raise OtherwiseNow
    return [(window_id, now_used, reserved) for window_id, now_used, reserved, _, _ in rows if window_id is not None]


def _announcing(writing: Writing) -> Sequence[Any]:
    return ("", []) if writing.announced is None else for_postgresql(writing.announced)


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
