"""Webhooks as received: stored before they are answered, acted on later, kept with what came of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec
from sqlalchemy import delete, func, or_, select, update
from sqlmodel import Field, Index, SQLModel

from plangate.store.columns import Instant, JsonText, json_text, to_microseconds
from plangate.store.database import StoreSession, table_of
from plangate.store.direct import Direct, Filled, together


class InboxState(StrEnum):
    """Only `processed` and `ignored` short-circuit a repeat; `failed` is a dead letter that waits for a person."""

    PENDING = "pending"
    PROCESSED = "processed"
    IGNORED = "ignored"
    FAILED = "failed"


class InboxTable(SQLModel, table=True):
    """Stripe's events as they are stored; read and written as `InboxRow`."""

    __tablename__ = "inbox"
    # With the receipt, so that `inbox_figures` need not read the events, which are large and many.
    __table_args__ = (Index("inbox_by_state", "environment_id", "state", "available_at", "received_at"),)

    environment_id: str = Field(primary_key=True)
    stripe_event_id: str = Field(primary_key=True)
    type: str
    stripe_object_id: str | None = None
    stripe_customer_id: str | None = None
    payload: Any = Field(sa_type=JsonText)
    state: str = InboxState.PENDING.value
    attempts: int = 0
    available_at: datetime = Field(sa_type=Instant)
    received_at: datetime = Field(sa_type=Instant)
    processed_at: datetime | None = Field(default=None, sa_type=Instant)
    last_error: str | None = None


class InboxRow(msgspec.Struct, kw_only=True):
    """One Stripe event. All times here are wall time: they are about delivery, not about business."""

    environment_id: str
    stripe_event_id: str
    type: str
    stripe_object_id: str | None = None
    stripe_customer_id: str | None = None
    payload: Any
    state: str = InboxState.PENDING.value
    attempts: int = 0
    available_at: datetime
    received_at: datetime
    processed_at: datetime | None = None
    last_error: str | None = None


class CursorRow(SQLModel, table=True):
    """A named place to go on from, such as the newest Stripe event a sweep has seen."""

    __tablename__ = "cursors"

    environment_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    value: Any = Field(sa_type=JsonText)


inbox = table_of(InboxTable)
cursors = table_of(CursorRow)

_STORE: Final = Direct(
    sqlite="""
        INSERT INTO inbox (environment_id, stripe_event_id, type, stripe_object_id, stripe_customer_id, payload, state,
            attempts, available_at, received_at, processed_at, last_error)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO NOTHING
        RETURNING stripe_event_id
    """,
    postgresql="""
        INSERT INTO inbox (environment_id, stripe_event_id, type, stripe_object_id, stripe_customer_id, payload, state,
            attempts, available_at, received_at, processed_at, last_error)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        ON CONFLICT DO NOTHING
        RETURNING stripe_event_id
    """,
)
_CLAIM: Final = Direct(
    sqlite="UPDATE inbox SET attempts = ?3, available_at = ?4 WHERE environment_id = ?1 AND stripe_event_id = ?2",
    postgresql="UPDATE inbox SET attempts = $3, available_at = $4 WHERE environment_id = $1 AND stripe_event_id = $2",
    writes="inbox",
)
_SETTLE: Final = Direct(
    sqlite="""
        UPDATE inbox SET state = ?3, last_error = ?4, processed_at = ?5, available_at = ?6
        WHERE environment_id = ?1 AND stripe_event_id = ?2
    """,
    postgresql="""
        UPDATE inbox SET state = $3, last_error = $4, processed_at = $5, available_at = $6
        WHERE environment_id = $1 AND stripe_event_id = $2
    """,
    writes="inbox",
)


async def store_event(session: StoreSession, row: InboxRow) -> bool:
    """Keep an event unless its id is known already. Answers whether it is new."""
    (rows,) = await together(session, storing_event(row))
    return bool(rows)


def storing_event(row: InboxRow) -> Filled:
    """The statement of `store_event`: it answers a row when the event is new."""
    return _STORE.of(
        row.environment_id,
        row.stripe_event_id,
        row.type,
        row.stripe_object_id,
        row.stripe_customer_id,
        json_text(row.payload),
        row.state,
        row.attempts,
        to_microseconds(row.available_at),
        to_microseconds(row.received_at),
        None if row.processed_at is None else to_microseconds(row.processed_at),
        row.last_error,
    )


async def claim_events(session: StoreSession, *, wall_now: datetime, lease_seconds: int, limit: int) -> list[InboxRow]:
    """Take up to `limit` due events, oldest first; nobody else gets them until the lease ends."""
    due = (
        select(inbox.c.stripe_event_id)
        .where(
            inbox.c.environment_id == session.environment_id,
            inbox.c.state == InboxState.PENDING.value,
            inbox.c.available_at <= wall_now,
        )
        .order_by(inbox.c.received_at)
        .limit(limit)
    )
    if session.is_postgresql:
        due = due.with_for_update(skip_locked=True)
    event_ids = [row["stripe_event_id"] for row in await session.all(due)]
    if not event_ids:
        return []
    rows = await session.run(
        update(inbox)
        .where(inbox.c.environment_id == session.environment_id, inbox.c.stripe_event_id.in_(event_ids))
        .values(available_at=wall_now + timedelta(seconds=lease_seconds), attempts=inbox.c.attempts + 1)
        .returning(inbox)
    )
    return sorted((InboxRow(**row) for row in rows.mappings()), key=lambda row: row.received_at)


def claiming_event(row: InboxRow, *, attempts: int, available_at: datetime) -> Filled:
    """The statement that takes an event this transaction stored: nobody else gets it until `available_at`."""
    return _CLAIM.of(row.environment_id, row.stripe_event_id, attempts, to_microseconds(available_at))


def settle_event(
    session: StoreSession,
    stripe_event_id: str,
    *,
    state: InboxState,
    wall_now: datetime,
    error: str | None = None,
    available_at: datetime | None = None,
) -> None:
    """Record what came of an event; a `pending` one comes back at `available_at`."""
    is_over = state in {InboxState.PROCESSED, InboxState.IGNORED}
    now = to_microseconds(wall_now)
    session.defer(
        _SETTLE.of(
            session.environment_id,
            stripe_event_id,
            state.value,
            error,
            now if is_over else None,
            now if available_at is None else to_microseconds(available_at),
        ),
    )


async def dead_letters(session: StoreSession, *, limit: int) -> list[InboxRow]:
    """Events that failed too often and wait for a person, the newest first."""
    rows = await session.all(
        select(inbox)
        .where(inbox.c.environment_id == session.environment_id, inbox.c.state == InboxState.FAILED.value)
        .order_by(inbox.c.received_at.desc())
        .limit(limit)
    )
    return [InboxRow(**row) for row in rows]


async def revive_events(session: StoreSession, stripe_event_ids: Sequence[str] | None, *, wall_now: datetime) -> int:
    """Let these dead letters (None: all of them) be tried again, with all their attempts; answers how many."""
    dead = (inbox.c.environment_id == session.environment_id) & (inbox.c.state == InboxState.FAILED.value)
    if stripe_event_ids is not None:
        dead &= inbox.c.stripe_event_id.in_(stripe_event_ids)
    values = {"state": InboxState.PENDING.value, "attempts": 0, "available_at": wall_now}
    return int((await session.run(update(inbox).where(dead).values(values))).rowcount)


async def revive_put_off(session: StoreSession, reasons: Sequence[str], *, attempts: int, wall_now: datetime) -> int:
    """Let dead letters whose reason begins with one of these codes be tried once more, as after so many `attempts`.

    Answers how many.
    """
    statement = (
        update(inbox)
        .where(
            inbox.c.environment_id == session.environment_id,
            inbox.c.state == InboxState.FAILED.value,
            or_(*(inbox.c.last_error.startswith(f"{reason}:", autoescape=True) for reason in reasons)),
        )
        .values(state=InboxState.PENDING.value, attempts=attempts, available_at=wall_now)
    )
    return int((await session.run(statement)).rowcount)


async def prune_events(session: StoreSession, *, before: datetime, limit: int) -> int:
    """Drop up to `limit` events that were done with before an instant; answers how many.

    Dead letters stay, and so does the newest event, by which silence is measured.
    """
    mine = inbox.c.environment_id == session.environment_id
    newest_at = select(func.max(inbox.c.received_at)).where(mine).scalar_subquery()
    old = (
        select(inbox.c.stripe_event_id)
        .where(
            mine,
            inbox.c.state.in_((InboxState.PROCESSED.value, InboxState.IGNORED.value)),
            inbox.c.available_at < before,
            inbox.c.received_at < newest_at,
        )
        .limit(limit)
    )
    return int((await session.run(delete(inbox).where(mine, inbox.c.stripe_event_id.in_(old)))).rowcount)


async def inbox_figures(session: StoreSession) -> dict[str, Any]:
    """Counts by state, and the receipt of the oldest pending and of the newest event (for metrics and readiness)."""
    mine = inbox.c.environment_id == session.environment_id
    counts = await session.all(select(inbox.c.state, func.count().label("n")).where(mine).group_by(inbox.c.state))
    return {
        "counts": {row["state"]: row["n"] for row in counts},
        "oldest_pending_at": await session.scalar(
            select(func.min(inbox.c.received_at)).where(mine, inbox.c.state == InboxState.PENDING.value)
        ),
        "newest_at": await session.scalar(select(func.max(inbox.c.received_at)).where(mine)),
    }


async def known_event_ids(session: StoreSession, stripe_event_ids: Sequence[str]) -> set[str]:
    """Which of these events are stored already."""
    if not stripe_event_ids:
        return set()
    rows = await session.all(
        select(inbox.c.stripe_event_id).where(
            inbox.c.environment_id == session.environment_id, inbox.c.stripe_event_id.in_(stripe_event_ids)
        )
    )
    return {row["stripe_event_id"] for row in rows}


async def cursor(session: StoreSession, name: str, *, lock: bool = False) -> Any:  # noqa: ANN401 - any JSON value
    """The stored place, or None; with `lock` nobody else moves it until the transaction ends."""
    query = select(cursors.c.value).where(cursors.c.environment_id == session.environment_id, cursors.c.name == name)
    return await session.scalar(query.with_for_update() if lock else query)


async def set_cursor(session: StoreSession, name: str, value: object) -> None:
    """Remember a place."""
    statement = session.insert(CursorRow).values(environment_id=session.environment_id, name=name, value=value)
    await session.run(
        statement.on_conflict_do_update(
            index_elements=["environment_id", "name"], set_={"value": statement.excluded.value}
        )
    )
