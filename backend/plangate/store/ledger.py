"""Writing and adding up usage in bulk: locks on companies, batches of ledger rows, totals that cannot overflow."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias
from zlib import crc32

from sqlalchemy import BigInteger, ColumnElement, Integer, and_, func, literal_column, or_, select, text, type_coerce

from plangate.engine.facts import WindowCounter
from plangate.engine.values import PeriodKind
from plangate.store.columns import to_microseconds
from plangate.store.companies import company_keys
from plangate.store.database import StoreSession
from plangate.store.direct import Direct, Filled, Rows, SqliteConnection, together, translated
from plangate.store.recent_keys import recent_keys
from plangate.store.usage import (
    UsageEventRow,
    WindowKey,
    asking_newest,
    setting_counters,
    unattributed_events,
    usage_events,
    usage_windows,
    window_of,
    windows_of,
)
from plangate.store.used_keys import UsedKey, adding_keys, asking_used_keys, used_keys_of

Row: TypeAlias = Mapping[str, object]

_HALF_BITS = 32
_KEY_LOCKS = 256
_KEY_LOCK_AREA = 0x6B657973  # "keys": tells these advisory locks from any others in the database
_VALUES_PER_QUERY = 10_000


class HeldCompany(NamedTuple):
    """What is true of a company while its lock is held.

    Its version, how many usage windows were opened for it and its users, and the environment's catalogue revision.
    """

    version: int
    windows_opened: int
    catalog_revision: int


class LedgerEntry(NamedTuple):
    """One fact of usage, to be appended; it is recorded at the session's instant."""

    id: str
    company_id: str
    user_id: str
    event: str
    quantity: int
    occurred_at: datetime


LOCK_COMPANIES: Final = Direct(
    sqlite="""
        SELECT id, version, windows_opened, (SELECT catalog_revision FROM environments WHERE environments.id = ?)
        FROM companies
        WHERE environment_id = ? AND merged_into IS NULL AND id IN (SELECT value FROM json_each(?))
    """,
    postgresql="""
        SELECT id, version, windows_opened, (SELECT catalog_revision FROM environments WHERE environments.id = $1)
        FROM companies
        WHERE environment_id = $2 AND merged_into IS NULL AND id = ANY($3::text[])
        ORDER BY id
        FOR NO KEY UPDATE OF companies
    """,
)
ADD_ENTRIES: Final = Direct(
    sqlite="""
        INSERT INTO usage_events
            (environment_id, recorded_at, id, company_id, user_id, event, quantity, occurred_at)
        SELECT ?, ?, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
        FROM json_each(?)
    """,
    postgresql="""
        INSERT INTO usage_events
            (environment_id, recorded_at, id, company_id, user_id, event, quantity, occurred_at)
        SELECT $1, $2, *
        FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[])
    """,
)


async def lock_companies(session: StoreSession, company_ids: Collection[str]) -> dict[str, HeldCompany]:
    """Hold these companies until the end, so that nobody else counts for them or changes them.

    The order of ids keeps two holders from waiting for each other. Unknown and merged companies are left out.
    """
    if not company_ids:
        return {}
    (rows,) = await together(session, locking(session, company_ids))
    return held_companies(rows)


class Counted(NamedTuple):
    """What `hold` read: the companies that exist, their newest windows, and the keys that were used before."""

    companies: dict[str, HeldCompany]
    windows: dict[WindowKey, WindowCounter]
    keys: dict[bytes, tuple[bytes, Any]]


async def hold(
    session: StoreSession, company_ids: Collection[str], *, user_ids: Collection[str], key_hashes: Collection[bytes]
) -> Counted:
    """`lock_companies`, and then, in as few round trips as possible, what counting for them stands on.

    `user_ids` are those whose windows are wanted; "" stands for the company as a whole.
    """
    held, windows = await together(
        session, locking(session, company_ids), asking_newest(session, sorted(company_ids), sorted(user_ids))
    )
    return Counted(held_companies(held), windows_of(windows), await used_keys(session, key_hashes))


def locking(session: StoreSession, company_ids: Collection[str]) -> Filled:
    """The statement of `lock_companies`, to be executed with others; `held_companies` reads its rows."""
    return LOCK_COMPANIES.of(session.environment_id, session.environment_id, sorted(set(company_ids)))


def held_companies(rows: Rows) -> dict[str, HeldCompany]:
    """The companies in the rows of `locking`."""
    return {company_id: HeldCompany(version, opened, revision or 0) for company_id, version, opened, revision in rows}


async def lock_pairs(session: StoreSession, pairs: Collection[tuple[str, str]]) -> None:
    """Keep others from giving these keys to a company, or from storing events that wait for them, until the end.

    On SQLite the transaction itself does that. On PostgreSQL keys share a bounded number of advisory locks, because the
    server's lock table is small; they are taken in order, so that two holders never wait for each other.
    """
    if not session.is_postgresql or not pairs:
        return
    buckets = sorted({crc32(f"{session.environment_id} {name}={value}".encode()) % _KEY_LOCKS for name, value in pairs})
    await session.run(
        text(
            "SELECT pg_advisory_xact_lock(:area, bucket) FROM unnest(CAST(:buckets AS integer[])) AS bucket"
        ).bindparams(area=_KEY_LOCK_AREA, buckets=buckets)
    )


async def owners_of_pairs(session: StoreSession, pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Which company each known `(name, value)` belongs to; several values of one name may be asked for."""
    values: dict[str, list[str]] = {}
    for name, value in sorted(set(pairs)):
        values.setdefault(name, []).append(value)
    found: dict[tuple[str, str], str] = {}
    for name, wanted in values.items():
        for start in range(0, len(wanted), _VALUES_PER_QUERY):
            rows = await session.all(
                select(company_keys.c.value, company_keys.c.company_id).where(
                    company_keys.c.environment_id == session.environment_id,
                    company_keys.c.name == name,
                    company_keys.c.value.in_(wanted[start : start + _VALUES_PER_QUERY]),
                )
            )
            found |= {(name, row["value"]): row["company_id"] for row in rows}
    return found


async def add_usage(
    session: StoreSession,
    entries: Sequence[LedgerEntry],
    *,
    waiting: Sequence[Row] = (),
    keys: Sequence[UsedKey] = (),
    counters: Sequence[WindowCounter] = (),
) -> None:
    """Append to the ledger, keep events that wait for their company, mark keys as used and write counters.

    `waiting` are plain columns of `unattributed_events`. A key that another transaction used meanwhile raises
    SQLAlchemy's IntegrityError.
    """
    rows = [
        (one.id, one.company_id, one.user_id, one.event, one.quantity, to_microseconds(one.occurred_at))
        for one in entries
    ]
    if waiting:
        await session.run(unattributed_events.insert(), waiting)
    added = ADD_ENTRIES.for_all(rows, session.environment_id, to_microseconds(session.now))
    if keys:
        await _use_keys(session, keys)
    await together(session, added, setting_counters(counters))


async def used_keys(session: StoreSession, key_hashes: Collection[bytes]) -> dict[bytes, tuple[bytes, Any]]:
    """Which of these idempotency keys were used, in a transaction that writes: hash → (hash of the body, answer)."""
    if not key_hashes:
        return {}
    driver = (await session.connection.get_raw_connection()).driver_connection
    if isinstance(driver, SqliteConnection):
        with translated():
            return await driver.within(lambda: recent_keys(driver).find(driver, key_hashes))
    (rows,) = await together(session, asking_used_keys(key_hashes))
    return used_keys_of(rows)


async def _use_keys(session: StoreSession, keys: Sequence[UsedKey]) -> None:
    driver = (await session.connection.get_raw_connection()).driver_connection
    if isinstance(driver, SqliteConnection):
        with translated():
            await driver.within(lambda: recent_keys(driver).add(driver, keys))
    else:
        await together(session, adding_keys(keys))


async def ledger_total(
    session: StoreSession,
    company_id: str,
    event: str,
    *,
    start_at: datetime | None,
    end_at: datetime | None,
    user_id: str = "",
    known_at: datetime | None = None,
) -> int:
    """Quantity in the ledger for `[start_at, end_at)`, as known at `known_at` (None: now). Exact, not floored."""
    conditions = [*_is(session, company_id, event, user_id)]
    if start_at is not None:
        conditions.append(usage_events.c.occurred_at >= start_at)
    if end_at is not None:
        conditions.append(usage_events.c.occurred_at < end_at)
    if known_at is not None:
        conditions += [usage_events.c.recorded_at <= known_at, usage_events.c.occurred_at <= known_at]
    row = await session.one(select(*halves(usage_events.c.quantity)).where(*conditions))
    return 0 if row is None else whole(row)


async def ledger_buckets(
    session: StoreSession,
    company_id: str,
    event: str,
    *,
    start_at: datetime,
    end_at: datetime,
    width_microseconds: int,
    user_id: str = "",
) -> dict[int, int]:
    """Quantity by bucket number, counted from `start_at` in steps of the width; empty buckets are left out."""
    since = type_coerce(usage_events.c.occurred_at, BigInteger) - to_microseconds(start_at)
    bucket = (since // width_microseconds).label("bucket")
    rows = await session.all(
        select(bucket, *halves(usage_events.c.quantity))
        .where(
            *_is(session, company_id, event, user_id),
            usage_events.c.occurred_at >= start_at,
            usage_events.c.occurred_at < end_at,
        )
        .group_by(bucket)
    )
    return {int(row["bucket"]): whole(row) for row in rows}


async def windows_around(
    session: StoreSession, company_id: str, feature: str, period: PeriodKind, user_id: str, at: datetime
) -> tuple[WindowCounter | None, WindowCounter | None]:
    """The newest window begun by `at`, and the first one that begins later."""
    own = and_(
        usage_windows.c.environment_id == session.environment_id,
        usage_windows.c.company_id == company_id,
        usage_windows.c.feature == feature,
        usage_windows.c.period == period.value,
        usage_windows.c.user_id == user_id,
    )
    before = await session.one(
        select(usage_windows)
        .where(own, usage_windows.c.start_at <= at)
        .order_by(usage_windows.c.start_at.desc())
        .limit(1)
    )
    after = await session.one(
        select(usage_windows).where(own, usage_windows.c.start_at > at).order_by(usage_windows.c.start_at).limit(1)
    )
    return None if before is None else window_of(before), None if after is None else window_of(after)


async def running_windows(
    session: StoreSession, company_id: str, kinds: Collection[PeriodKind], at: datetime
) -> list[tuple[tuple[str, PeriodKind, str], WindowCounter]]:
    """The company's and its users' windows of these kinds that contain `at`, with their (feature, kind, user id)."""
    rows = await session.all(
        select(usage_windows).where(
            usage_windows.c.environment_id == session.environment_id,
            usage_windows.c.company_id == company_id,
            usage_windows.c.period.in_([kind.value for kind in kinds]),
            usage_windows.c.start_at <= at,
            or_(usage_windows.c.end_at.is_(None), usage_windows.c.end_at > at),
        )
    )
    return [((row["feature"], PeriodKind(row["period"]), row["user_id"]), window_of(row)) for row in rows]


async def page_of_ledger(
    session: StoreSession,
    *,
    company_id: str | None,
    event: str | None,
    since: datetime | None,
    until: datetime | None,
    after: str,
    limit: int,
) -> list[UsageEventRow]:
    """Up to `limit` ledger rows after an id, by id; those that occurred in `[since, until)`, of one company or all."""
    query = select(usage_events).where(
        usage_events.c.environment_id == session.environment_id, usage_events.c.id > after
    )
    if company_id is not None:
        query = query.where(usage_events.c.company_id == company_id)
    if event is not None:
        query = query.where(usage_events.c.event == event)
    if since is not None:
        query = query.where(usage_events.c.occurred_at >= since)
    if until is not None:
        query = query.where(usage_events.c.occurred_at < until)
    rows = await session.all(query.order_by(usage_events.c.id).limit(limit))
    return [UsageEventRow(**row) for row in rows]


async def stored_windows(
    session: StoreSession, company_id: str, *, after: str = "", limit: int
) -> list[tuple[tuple[str, PeriodKind, str], WindowCounter]]:
    """A page of all windows of a company and its users by id, old ones included, with their (feature, kind, user)."""
    query = select(usage_windows).where(
        usage_windows.c.environment_id == session.environment_id,
        usage_windows.c.company_id == company_id,
        usage_windows.c.id > after,
    )
    rows = await session.all(query.order_by(usage_windows.c.id).limit(limit))
    return [
        (
            (row["feature"], PeriodKind(row["period"]), row["user_id"]),
            window_of(row),
        )
        for row in rows
    ]


async def users_that_used(
    session: StoreSession, company_id: str, event: str, *, after: str = "", limit: int = 1_000
) -> list[str]:
    """Users of a company, by id, whose events of this name are in the ledger."""
    rows = await session.all(
        select(usage_events.c.user_id)
        .where(*_is(session, company_id, event, ""), usage_events.c.user_id > after)
        .distinct()
        .order_by(usage_events.c.user_id)
        .limit(limit)
    )
    return [row["user_id"] for row in rows]


async def companies_that_used(
    session: StoreSession, *, features: Collection[str], events: Collection[str], after: str, limit: int
) -> list[str]:
    """Companies after an id that have windows of one of these features, or one of these events in the ledger."""
    by_window = select(usage_windows.c.company_id).where(
        usage_windows.c.environment_id == session.environment_id,
        usage_windows.c.feature.in_(features),
        usage_windows.c.company_id > after,
    )
    by_event = select(usage_events.c.company_id).where(
        usage_events.c.environment_id == session.environment_id,
        usage_events.c.event.in_(events),
        usage_events.c.company_id > after,
    )
    found = by_window.union(by_event).subquery() if events else by_window.distinct().subquery()
    rows = await session.all(select(found.c.company_id).order_by(found.c.company_id).limit(limit))
    return [row["company_id"] for row in rows]


def _is(session: StoreSession, company_id: str, event: str, user_id: str) -> list[ColumnElement[bool]]:
    conditions = [
        usage_events.c.environment_id == session.environment_id,
        usage_events.c.company_id == company_id,
        usage_events.c.event == event,
    ]
    return [*conditions, usage_events.c.user_id == user_id] if user_id else conditions


def halves(quantity: ColumnElement[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Two sums, `high` and `low`, that `whole` puts together to the exact sum of a column of 64-bit numbers."""
    # A SUM of 64-bit quantities overflows in SQLite; the sums of their halves cannot within any number of rows.
    high = func.coalesce(func.sum(quantity.bitwise_rshift(literal_column(str(_HALF_BITS), Integer))), 0)
    low = func.coalesce(func.sum(quantity.bitwise_and((1 << _HALF_BITS) - 1)), 0)
    return high.label("high"), low.label("low")


def whole(row: Mapping[Any, Any]) -> int:
    """The exact sum of what `halves` selected."""
    return (int(row["high"]) << _HALF_BITS) + int(row["low"])
