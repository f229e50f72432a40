"""The append-only usage ledger, and the windows whose counters follow it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import BigInteger, and_, or_, select, update
from sqlmodel import Field, Index, SQLModel

from plangate.engine.facts import WindowCounter
from plangate.engine.values import PeriodKind
from plangate.ids import new_id
from plangate.store.columns import Instant, JsonText, from_microseconds
from plangate.store.database import StoreSession, table_of
from plangate.store.direct import Direct, Filled, Rows, together


class UsageEventRow(SQLModel, table=True):
    """One fact of usage; never changed. `company_id` is empty while the event waits for its company's key."""

    __tablename__ = "usage_events"
    __table_args__ = (
        Index("usage_events_by_company", "environment_id", "company_id", "event", "occurred_at"),
        {"sqlite_with_rowid": False},  # the time-ordered id is the order of the table, not a tree beside it
    )

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str = ""
    user_id: str = ""
    event: str
    quantity: int = Field(sa_type=BigInteger)
    occurred_at: datetime = Field(sa_type=Instant)
    recorded_at: datetime = Field(sa_type=Instant)


class UnattributedEventRow(SQLModel, table=True):
    """An event whose company was not known: attributed when `key_name=key_value` appears within 24 hours."""

    __tablename__ = "unattributed_events"
    __table_args__ = (Index("unattributed_by_key", "environment_id", "key_name", "key_value"),)

    event_id: str = Field(primary_key=True)
    environment_id: str
    key_name: str
    key_value: str
    user_keys: Any = Field(default=None, sa_type=JsonText, nullable=True)
    event: str
    quantity: int = Field(sa_type=BigInteger)
    occurred_at: datetime = Field(sa_type=Instant)
    recorded_at: datetime = Field(sa_type=Instant)


class UsageWindowRow(SQLModel, table=True):
    """A stored window `[start_at, end_at)` of one feature and its counters. `user_id` is "" for the company."""

    __tablename__ = "usage_windows"
    __table_args__ = (
        Index(
            "usage_windows_by_start",
            "environment_id",
            "company_id",
            "feature",
            "period",
            "user_id",
            "start_at",
            unique=True,
        ),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    user_id: str = ""
    feature: str
    period: str
    start_at: datetime = Field(sa_type=Instant)
    end_at: datetime | None = Field(default=None, sa_type=Instant)
    used: int = Field(default=0, sa_type=BigInteger)
    reserved: int = Field(default=0, sa_type=BigInteger)


class UsageWindowBoundsRow(SQLModel, table=True):
    """What a window's bounds were, and since when: appended when the window opens and when an anchor moves it."""

    __tablename__ = "usage_window_bounds"
    __table_args__ = (Index("usage_window_bounds_by_company", "environment_id", "company_id"),)

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    user_id: str = ""
    feature: str
    period: str
    window_id: str
    start_at: datetime = Field(sa_type=Instant)
    end_at: datetime | None = Field(default=None, sa_type=Instant)
    recorded_at: datetime = Field(sa_type=Instant)


usage_events = table_of(UsageEventRow)
unattributed_events = table_of(UnattributedEventRow)
usage_windows = table_of(UsageWindowRow)
usage_window_bounds = table_of(UsageWindowBoundsRow)

_NEWEST_ON_POSTGRESQL: Final = """
    SELECT company_id, feature, period, user_id, start_at, id, end_at, used, reserved
    FROM usage_windows
    WHERE id IN (
        SELECT DISTINCT ON (company_id, feature, period, user_id) id
        FROM usage_windows
        WHERE environment_id = $1 AND company_id = ANY($2::text[]) AND user_id = ANY($3::text[])
        ORDER BY company_id, feature, period, user_id, start_at DESC
    )
"""
_NEWEST: Final = Direct(
    # SQLite takes the bare columns from the row that holds the maximum: sqlite.org/lang_select.html#bareagg
    sqlite="""
        SELECT company_id, feature, period, user_id, MAX(start_at), id, end_at, used, reserved
        FROM usage_windows
        WHERE environment_id = ?
            AND company_id IN (SELECT value FROM json_each(?)) AND user_id IN (SELECT value FROM json_each(?))
        GROUP BY company_id, feature, period, user_id
    """,
    postgresql=_NEWEST_ON_POSTGRESQL,
)
_NEWEST_LOCKED: Final = Direct(sqlite=_NEWEST.sqlite, postgresql=_NEWEST_ON_POSTGRESQL + "ORDER BY id FOR UPDATE")
_SET_COUNTERS: Final = Direct(
    sqlite="""
        UPDATE usage_windows
        SET used = json_extract(counted.value, '$[1]'), reserved = json_extract(counted.value, '$[2]')
        FROM json_each(?) AS counted
        WHERE usage_windows.id = json_extract(counted.value, '$[0]')
    """,
    postgresql="""
        UPDATE usage_windows
        SET used = counted.used, reserved = counted.reserved
        FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS counted (id, used, reserved)
        WHERE usage_windows.id = counted.id
    """,
)
_NOTE_OPENING: Final = Direct(
    sqlite="UPDATE companies SET windows_opened = windows_opened + 1 WHERE environment_id = ? AND id = ?",
    postgresql="UPDATE companies SET windows_opened = windows_opened + 1 WHERE environment_id = $1 AND id = $2",
)
_PERIOD_KINDS: Final = {kind.value: kind for kind in PeriodKind}

WindowKey: TypeAlias = tuple[str, str, PeriodKind, str]  # company id, feature, period kind, user id or ""


async def newest_windows(
    session: StoreSession, company_ids: Sequence[str], *, user_ids: Sequence[str] = ("",), lock: bool = False
) -> dict[WindowKey, WindowCounter]:
    """The newest stored window of each (company, feature, period kind, user); with `lock`, held until the end.

    `user_ids` names whose windows are wanted; "" stands for the company as a whole.
    """
    if not company_ids:
        return {}
    statement = _NEWEST_LOCKED if lock and session.is_postgresql else _NEWEST
    (rows,) = await together(session, statement.of(session.environment_id, list(company_ids), list(user_ids)))
    return windows_of(rows)


def asking_newest(session: StoreSession, company_ids: Sequence[str], user_ids: Sequence[str]) -> Filled:
    """The statement of `newest_windows`; `windows_of` reads its rows."""
    return _NEWEST.of(session.environment_id, list(company_ids), list(user_ids))


def windows_of(rows: Rows) -> dict[WindowKey, WindowCounter]:
    """The windows in the rows of `asking_newest`."""
    return {
        (company_id, feature, _PERIOD_KINDS[period], user_id): WindowCounter(
            window_id=window_id,
            start_at=from_microseconds(start_at),
            end_at=None if end_at is None else from_microseconds(end_at),
            used=used,
            reserved=reserved,
        )
        for company_id, feature, period, user_id, start_at, window_id, end_at, used, reserved in rows
    }


async def open_window(
    session: StoreSession,
    company_id: str,
    feature: str,
    period: PeriodKind,
    user_id: str,
    *,
    start_at: datetime,
    end_at: datetime | None,
    used: int,
    reserved: int = 0,
) -> WindowCounter:
    """Store a new window, with what the ledger already holds for it as `used`, and what is held as `reserved`.

    The transaction holds the company.
    """
    window_id = new_id("win")
    await session.add(
        UsageWindowRow(
            id=window_id,
            environment_id=session.environment_id,
            company_id=company_id,
            user_id=user_id,
            feature=feature,
            period=period.value,
            start_at=start_at,
            end_at=end_at,
            used=used,
            reserved=reserved,
        )
    )
    await _note_bounds(session, company_id, feature, period.value, user_id, window_id, start_at, end_at)
    session.defer(_NOTE_OPENING.of(session.environment_id, company_id))
    return WindowCounter(window_id=window_id, start_at=start_at, end_at=end_at, used=used, reserved=reserved)


def window_of(row: Mapping[Any, Any]) -> WindowCounter:
    """The counter of a stored window, from its row."""
    return WindowCounter(
        window_id=row["id"], start_at=row["start_at"], end_at=row["end_at"], used=row["used"], reserved=row["reserved"]
    )


async def move_window_end(
    session: StoreSession, company_id: str, feature: str, period: PeriodKind, user_id: str, window: WindowCounter
) -> None:
    """Store a running window's new end (`window.end_at`), because the anchor moved."""
    await session.run(update(usage_windows).where(usage_windows.c.id == window.window_id).values(end_at=window.end_at))
    await _note_bounds(
        session, company_id, feature, period.value, user_id, window.window_id, window.start_at, window.end_at
    )


async def set_counters(session: StoreSession, windows: Sequence[WindowCounter]) -> None:
    """Write the counters of windows this transaction holds."""
    await together(session, setting_counters(windows))


def setting_counters(windows: Sequence[WindowCounter]) -> Filled:
    """The statement of `set_counters`."""
    return _SET_COUNTERS.for_all([(one.window_id, one.used, one.reserved) for one in windows])


async def known_windows(
    session: StoreSession, company_id: str, at: datetime
) -> dict[tuple[str, PeriodKind, str], WindowCounter]:
    """For each (feature, period kind, user), the newest window begun by `at`, with the bounds known then; used is 0."""
    rows = await session.all(
        select(usage_window_bounds)
        .where(
            usage_window_bounds.c.environment_id == session.environment_id,
            usage_window_bounds.c.company_id == company_id,
            usage_window_bounds.c.recorded_at <= at,
            usage_window_bounds.c.start_at <= at,
        )
        .order_by(usage_window_bounds.c.start_at, usage_window_bounds.c.recorded_at, usage_window_bounds.c.id)
    )
    return {
        (row["feature"], PeriodKind(row["period"]), row["user_id"]): WindowCounter(
            window_id=row["window_id"], start_at=row["start_at"], end_at=row["end_at"]
        )
        for row in rows
    }


async def awaited_keys(session: StoreSession, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of these company keys that events wait for."""
    values: dict[str, list[str]] = {}
    for name, value in keys:
        values.setdefault(name, []).append(value)
    found: list[tuple[str, str]] = []
    for name, wanted in values.items():
        rows = await session.all(
            select(unattributed_events.c.key_value)
            .distinct()
            .where(
                unattributed_events.c.environment_id == session.environment_id,
                unattributed_events.c.key_name == name,
                unattributed_events.c.key_value.in_(wanted),
            )
        )
        found += [(name, row["key_value"]) for row in rows]
    return found


async def take_unattributed(
    session: StoreSession, keys: Sequence[tuple[str, str]], *, since: datetime
) -> list[UnattributedEventRow]:
    """Remove and answer the waiting events of these company keys that were recorded since `since`."""
    if not keys:
        return []
    wanted = and_(
        unattributed_events.c.environment_id == session.environment_id,
        or_(
            *(
                and_(unattributed_events.c.key_name == name, unattributed_events.c.key_value == value)
                for name, value in keys
            )
        ),
        unattributed_events.c.recorded_at >= since,
    )
    rows = await session.all(select(unattributed_events).where(wanted).order_by(unattributed_events.c.event_id))
    if rows:
        await session.run(unattributed_events.delete().where(wanted))
    return [UnattributedEventRow(**row) for row in rows]


async def _note_bounds(
    session: StoreSession,
    company_id: str,
    feature: str,
    period: str,
    user_id: str,
    window_id: str,
    start_at: datetime,
    end_at: datetime | None,
) -> None:
    await session.add(
        UsageWindowBoundsRow(
            id=new_id("wbd"),
            environment_id=session.environment_id,
            company_id=company_id,
            user_id=user_id,
            feature=feature,
            period=period,
            window_id=window_id,
            start_at=start_at,
            end_at=end_at,
            recorded_at=session.now,
        )
    )
