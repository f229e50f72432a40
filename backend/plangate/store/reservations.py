"""Reservations: usage held for a while, until it is settled with the real number, given back, or expires."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, and_, bindparam, func, literal, or_, select, update
from sqlmodel import Field, Index, SQLModel

from plangate.store.columns import Instant, JsonText
from plangate.store.database import StoreSession, table_of

HELD: Final = "held"
EXPIRED: Final = "expired"
SETTLED: Final = "settled"
RELEASED: Final = "released"


class ReservationRow(SQLModel, table=True):
    """`quantity` held for a feature's event at `reserved_at`, which names the period it will be counted in.

    `state` is held, expired (its room was given back, and it may still be settled), settled or released. `answer` is
    what the settlement or release said, for its retries. Its room was taken in `[recorded_at, freed_at)`, until
    `moved_at` for the company that was merged.
    """

    __tablename__ = "reservations"
    __table_args__ = (
        Index("reservations_by_company", "environment_id", "company_id", "state", "expires_at"),
        Index("reservations_by_expiry", "environment_id", "state", "expires_at"),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    user_id: str = ""
    feature: str
    event: str
    quantity: int = Field(sa_type=BigInteger)
    reserved_at: datetime = Field(sa_type=Instant)
    expires_at: datetime = Field(sa_type=Instant)
    state: str = HELD
    settled: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    overrun: int = Field(default=0, sa_type=BigInteger)
    answer: Any = Field(default=None, sa_type=JsonText, nullable=True)
    recorded_at: datetime = Field(sa_type=Instant)
    closed_at: datetime | None = Field(default=None, sa_type=Instant, nullable=True)
    freed_at: datetime | None = Field(default=None, sa_type=Instant, nullable=True)
    moved_from: str | None = None
    moved_at: datetime | None = Field(default=None, sa_type=Instant, nullable=True)


reservations = table_of(ReservationRow)


async def reservations_by_id(session: StoreSession, ids: Collection[str]) -> dict[str, ReservationRow]:
    """The reservations with these ids; unknown ids are left out."""
    if not ids:
        return {}
    rows = await session.all(
        select(reservations).where(
            reservations.c.environment_id == session.environment_id, reservations.c.id.in_(sorted(ids))
        )
    )
    return {row["id"]: ReservationRow(**row) for row in rows}


async def expired_reservations(session: StoreSession, company_ids: Collection[str]) -> list[ReservationRow]:
    """Reservations of these companies that still hold room although their time is over."""
    if not company_ids:
        return []
    rows = await session.all(
        select(reservations)
        .where(
            reservations.c.environment_id == session.environment_id,
            reservations.c.company_id.in_(sorted(company_ids)),
            reservations.c.state == HELD,
            reservations.c.expires_at <= session.now,
        )
        .order_by(reservations.c.id)
    )
    return [ReservationRow(**row) for row in rows]


async def companies_with_expired(session: StoreSession, *, limit: int) -> list[str]:
    """Companies for which room is held by a reservation whose time is over."""
    rows = await session.all(
        select(reservations.c.company_id)
        .where(
            reservations.c.environment_id == session.environment_id,
            reservations.c.state == HELD,
            reservations.c.expires_at <= session.now,
        )
        .distinct()
        .order_by(reservations.c.company_id)
        .limit(limit)
    )
    return [row["company_id"] for row in rows]


async def held_total(
    session: StoreSession,
    company_id: str,
    event: str,
    *,
    start_at: datetime | None,
    end_at: datetime | None,
    user_id: str = "",
    at: datetime | None = None,
) -> int:
    """How much is held for an event in `[start_at, end_at)`: what a window's `reserved` must say, or said at `at`."""
    conditions = [reservations.c.environment_id == session.environment_id, reservations.c.event == event]
    is_own = reservations.c.company_id == company_id
    if at is None:
        conditions += [is_own, reservations.c.state == HELD]
    else:
        here = and_(is_own, or_(reservations.c.moved_at.is_(None), reservations.c.moved_at <= at))
        before = and_(reservations.c.moved_from == company_id, reservations.c.moved_at > at)
        taken = and_(
            reservations.c.recorded_at <= at, or_(reservations.c.freed_at.is_(None), reservations.c.freed_at > at)
        )
        conditions += [or_(here, before), taken]
    if user_id:
        conditions.append(reservations.c.user_id == user_id)
    if start_at is not None:
        conditions.append(reservations.c.reserved_at >= start_at)
    if end_at is not None:
        conditions.append(reservations.c.reserved_at < end_at)
    # Added up here: a SUM of 64-bit quantities overflows in SQLite, and few reservations are held at a time.
    return sum(row["quantity"] for row in await session.all(select(reservations.c.quantity).where(*conditions)))


async def add_reservations(session: StoreSession, rows: Sequence[Mapping[str, object]]) -> None:
    """Store new reservations: plain columns of `reservations`."""
    if rows:
        await session.run(reservations.insert(), rows)


async def close_reservations(session: StoreSession, rows: Sequence[ReservationRow]) -> None:
    """Write how reservations ended; the transaction holds their companies."""
    if rows:
        await session.run(
            update(reservations)
            .where(reservations.c.id == bindparam("reservation_id"))
            .values(
                state=bindparam("new_state"),
                settled=bindparam("new_settled"),
                overrun=bindparam("new_overrun"),
                answer=bindparam("new_answer"),
                closed_at=bindparam("new_closed_at"),
                # One that expired gave its room back then, even when it is settled later.
                freed_at=func.coalesce(reservations.c.freed_at, literal(session.now, Instant)),
            ),
            [
                {
                    "reservation_id": row.id,
                    "new_state": row.state,
                    "new_settled": row.settled,
                    "new_overrun": row.overrun,
                    "new_answer": row.answer,
                    "new_closed_at": row.closed_at,
                }
                for row in rows
            ],
        )
