"""The outbox of Stripe meters: usage to report, written with the ledger, sent later, under an identifier that stays."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Select, func, or_, select, update
from sqlmodel import Field, Index, SQLModel

from plangate.store.columns import Instant, to_microseconds
from plangate.store.database import StoreSession, table_of
from plangate.store.direct import Direct, Filled, Rows, together
from plangate.store.ledger import halves, whole

WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
SET_ASIDE: Final = "set_aside"


class MeterEventRow(SQLModel, table=True):
    """One quantity to report to a Stripe meter, alone or together with others.

    `report_id` is chosen before the first call, once for all, and so is the customer: rows that have the same one are
    added up and sent under it as Stripe's identifier, whenever and however often. It is the `id` of the first of them.
    `first_sent_at` is written with it, so that a crash leaves a trace. `state` is waiting, delivered, or set_aside with
    a `reason`.
    """

    __tablename__ = "meter_outbox"
    __table_args__ = (
        Index("meter_outbox_by_turn", "environment_id", "state", "available_at"),
        Index("meter_outbox_by_customer", "environment_id", "stripe_customer_id", "meter", "occurred_at"),
        Index("meter_outbox_by_report", "report_id"),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    feature: str
    meter: str
    quantity: int = Field(sa_type=BigInteger)
    occurred_at: datetime = Field(sa_type=Instant)
    recorded_at: datetime = Field(sa_type=Instant)
    available_at: datetime = Field(sa_type=Instant)
    state: str = WAITING
    stripe_customer_id: str | None = None
    attempts: int = 0
    first_sent_at: datetime | None = Field(default=None, sa_type=Instant, nullable=True)
    reason: str | None = None
    report_id: str | None = None


meter_outbox = table_of(MeterEventRow)


_ADD: Final = Direct(
    sqlite="""
        INSERT INTO meter_outbox
            (environment_id, recorded_at, available_at, state, attempts,
            id, company_id, feature, meter, quantity, occurred_at)
        SELECT ?1, ?2, ?2, 'waiting', 0, json_extract(value, '$[0]'), json_extract(value, '$[1]'),
            json_extract(value, '$[2]'), json_extract(value, '$[3]'), json_extract(value, '$[4]'),
            json_extract(value, '$[5]')
        FROM json_each(?3)
    """,
    postgresql="""
        INSERT INTO meter_outbox
            (environment_id, recorded_at, available_at, state, attempts,
            id, company_id, feature, meter, quantity, occurred_at)
        SELECT $1, $2, $2, 'waiting', 0, *
        FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[])
    """,
)


def adding_meter_events(environment_id: str, recorded_at: int, rows: Rows) -> Filled:
    """The statement that stores usage to report from now on.

    Each row is its id, company id, feature, meter, quantity and the microseconds when it occurred.
    """
    return _ADD.for_all(rows, environment_id, recorded_at)


class Reportable(msgspec.Struct, kw_only=True):
    """One row of the outbox in memory, to be changed and saved: ten thousand of the table's own cost five seconds."""

    id: str
    company_id: str
    feature: str
    meter: str
    quantity: int
    occurred_at: datetime
    available_at: datetime
    state: str
    stripe_customer_id: str | None
    attempts: int
    first_sent_at: datetime | None
    reason: str | None
    report_id: str | None


_REPORTABLE: Final = tuple(meter_outbox.c[name] for name in Reportable.__struct_fields__)
_SAVE: Final = Direct(
    sqlite="""
        UPDATE meter_outbox
        SET available_at = json_extract(saved.value, '$[1]'), state = json_extract(saved.value, '$[2]'),
            stripe_customer_id = json_extract(saved.value, '$[3]'), attempts = json_extract(saved.value, '$[4]'),
            first_sent_at = json_extract(saved.value, '$[5]'), reason = json_extract(saved.value, '$[6]'),
            report_id = json_extract(saved.value, '$[7]')
        FROM json_each(?) AS saved
        WHERE meter_outbox.id = json_extract(saved.value, '$[0]') AND meter_outbox.state = 'waiting'
    """,
    postgresql="""
        UPDATE meter_outbox
        SET available_at = saved.available_at, state = saved.state, stripe_customer_id = saved.stripe_customer_id,
            attempts = saved.attempts, first_sent_at = saved.first_sent_at, reason = saved.reason,
            report_id = saved.report_id
        FROM unnest(
            $1::text[], $2::bigint[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::text[], $8::text[]
        ) AS saved (
            id, available_at, state, stripe_customer_id, attempts, first_sent_at, reason, report_id
        )
        WHERE meter_outbox.id = saved.id AND meter_outbox.state = 'waiting'
    """,
)


async def add_meter_events(session: StoreSession, rows: Sequence[Mapping[str, object]]) -> None:
    """Store usage to report: plain columns of `meter_outbox`."""
    if rows:
        await session.run(meter_outbox.insert(), rows)


async def companies_due(session: StoreSession, *, limit: int) -> set[str]:
    """The companies of the first rows whose turn has come."""
    due = _due(session, meter_outbox.c.company_id).limit(limit).subquery()
    return {row["company_id"] for row in await session.all(select(due.c.company_id).distinct())}


async def due_meter_events(session: StoreSession, *, limit: int, lock: bool = False) -> list[Reportable]:
    """Waiting rows whose turn has come, oldest first; with `lock` held, and those another process holds left out.

    Rows that were sent together before come together again, whatever the limit.
    """
    query = _due(session, *_REPORTABLE).limit(limit)
    if lock and session.is_postgresql:
        query = query.with_for_update(skip_locked=True)
    rows = [Reportable(**row) for row in await session.all(query)]
    sent = [row.id for row in rows if row.report_id is not None]
    if sent:
        others = select(*_REPORTABLE).where(
            meter_outbox.c.report_id.in_(sent),
            meter_outbox.c.id != meter_outbox.c.report_id,
            meter_outbox.c.state == WAITING,
        )
        rows += [Reportable(**row) for row in await session.all(others.order_by(meter_outbox.c.id))]
    return rows


def _due(session: StoreSession, *wanted: Any) -> Select[Any]:  # noqa: ANN401 - what SQLAlchemy selects
    return (
        select(*wanted)
        .where(
            meter_outbox.c.environment_id == session.environment_id,
            meter_outbox.c.state == WAITING,
            meter_outbox.c.available_at <= session.now,
            # Whoever holds the first row of a report holds all of it.
            or_(meter_outbox.c.report_id.is_(None), meter_outbox.c.report_id == meter_outbox.c.id),
        )
        .order_by(meter_outbox.c.available_at, meter_outbox.c.id)
    )


async def save_meter_events(session: StoreSession, rows: Sequence[Reportable]) -> None:
    """Write what became of rows that are still waiting; one that was delivered meanwhile stays so."""
    saved = [
        (
            row.id,
            to_microseconds(row.available_at),
            row.state,
            row.stripe_customer_id,
            row.attempts,
            None if row.first_sent_at is None else to_microseconds(row.first_sent_at),
            row.reason,
            row.report_id,
        )
        for row in rows
    ]
    await together(session, _SAVE.for_all(saved))


async def reported_between(
    session: StoreSession, stripe_customer_id: str, meter: str, *, start_at: datetime, end_at: datetime
) -> list[Reportable]:
    """What was, or may have been, reported to a meter for a customer in `[start_at, end_at)`, whatever its state."""
    rows = await session.all(
        select(*_REPORTABLE)
        .where(
            meter_outbox.c.environment_id == session.environment_id,
            meter_outbox.c.stripe_customer_id == stripe_customer_id,
            meter_outbox.c.meter == meter,
            meter_outbox.c.occurred_at >= start_at,
            meter_outbox.c.occurred_at < end_at,
        )
        .order_by(meter_outbox.c.id)
    )
    return [Reportable(**row) for row in rows]


class Reported(NamedTuple):
    """What a company's usage came to on one meter, for one of its Stripe customers (None: it has none yet)."""

    company_id: str
    feature: str
    meter: str
    stripe_customer_id: str | None
    state: str
    rows: int
    quantity: int
    reason: str | None


async def reported_meters(session: StoreSession, *, since: datetime) -> list[Reported]:
    """The outbox added up for each company, meter, customer and state: usage that occurred since an instant."""
    kept = meter_outbox.c
    by = (kept.company_id, kept.meter, kept.stripe_customer_id, kept.state)
    rows = await session.all(
        select(
            *by,
            func.min(kept.feature).label("feature"),
            func.count().label("number"),
            func.max(kept.reason).label("reason"),
            *halves(kept.quantity),
        )
        .where(kept.environment_id == session.environment_id, kept.occurred_at >= since)
        .group_by(*by)
        .order_by(*by)
    )
    return [
        Reported(
            row["company_id"],
            row["feature"],
            row["meter"],
            row["stripe_customer_id"],
            row["state"],
            row["number"],
            whole(row),
            row["reason"],
        )
        for row in rows
    ]


async def put_back(session: StoreSession, company_id: str, meter: str, *, since: datetime) -> int:
    """Let rows that were set aside and may still be reported wait for their turn again; answers how many."""
    result = await session.run(
        update(meter_outbox)
        .where(
            meter_outbox.c.environment_id == session.environment_id,
            meter_outbox.c.company_id == company_id,
            meter_outbox.c.meter == meter,
            meter_outbox.c.state == SET_ASIDE,
            meter_outbox.c.occurred_at >= since,
        )
        .values(state=WAITING, available_at=session.now, reason=None)
    )
    return result.rowcount


async def outbox_counts(session: StoreSession) -> dict[str, int]:
    """How many reports wait and how many were set aside, by state."""
    rows = await session.all(
        select(meter_outbox.c.state, func.count().label("number"))
        .where(meter_outbox.c.environment_id == session.environment_id, meter_outbox.c.state.in_([WAITING, SET_ASIDE]))
        .group_by(meter_outbox.c.state)
    )
    return {row["state"]: row["number"] for row in rows}


async def prune_delivered(session: StoreSession, *, before: datetime, limit: int = 10_000) -> int:
    """Drop rows delivered of usage that no report can change any more; answers how many."""
    ids = (
        select(meter_outbox.c.id)
        .where(
            meter_outbox.c.environment_id == session.environment_id,
            meter_outbox.c.state == DELIVERED,
            meter_outbox.c.available_at < before,
            meter_outbox.c.occurred_at < before,
        )
        .limit(limit)
    )
    return (await session.run(meter_outbox.delete().where(meter_outbox.c.id.in_(ids)))).rowcount
