"""Leases: one holder at a time for a named subject, without holding a transaction open. Times are wall time."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete
from sqlmodel import Field, SQLModel

from plangate.store.columns import Instant, to_microseconds
from plangate.store.database import StoreSession, table_of
from plangate.store.direct import Direct, Filled, together


class LeaseRow(SQLModel, table=True):
    """Who holds a subject until when. `fence` grows with each holder; writing back checks it."""

    __tablename__ = "leases"

    environment_id: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    holder: str | None = None
    expires_at: datetime = Field(sa_type=Instant)
    fence: int = 0


leases = table_of(LeaseRow)

COMPANY: Final = "company:"  # begins the subject of a company's lease, before its id
_CLOCKS_APART: Final = 2  # how many times a lease's length the clocks of two servers may differ
_TAKE: Final = Direct(
    sqlite="""
        INSERT INTO leases (environment_id, subject, holder, expires_at, fence) VALUES (?1, ?2, ?3, ?4, 1)
        ON CONFLICT (environment_id, subject) DO UPDATE
        SET holder = excluded.holder, expires_at = excluded.expires_at, fence = leases.fence + 1
        WHERE leases.holder IS NULL OR leases.expires_at <= ?5 OR leases.expires_at > ?6
        RETURNING fence
    """,
    postgresql="""
        INSERT INTO leases (environment_id, subject, holder, expires_at, fence) VALUES ($1, $2, $3, $4, 1)
        ON CONFLICT (environment_id, subject) DO UPDATE
        SET holder = excluded.holder, expires_at = excluded.expires_at, fence = leases.fence + 1
        WHERE leases.holder IS NULL OR leases.expires_at <= $5 OR leases.expires_at > $6
        RETURNING fence
    """,
)
_FREE: Final = Direct(
    sqlite="UPDATE leases SET holder = NULL WHERE environment_id = ? AND subject = ? AND fence = ?",
    postgresql="UPDATE leases SET holder = NULL WHERE environment_id = $1 AND subject = $2 AND fence = $3",
    writes="leases",
)
_FENCE: Final = Direct(
    sqlite="SELECT fence FROM leases WHERE environment_id = ? AND subject = ?",
    postgresql="SELECT fence FROM leases WHERE environment_id = $1 AND subject = $2 FOR UPDATE",
)


async def take_lease(
    session: StoreSession, subject: str, holder: str, *, wall_now: datetime, seconds: int
) -> int | None:
    """Take a free or expired lease; answers its fence, or None while somebody else holds it.

    One that would last much longer than any lease does was taken before the clock jumped back, and counts as expired.
    A holder whose lease was taken over by a clock that is ahead notices by its fence.
    """
    (rows,) = await together(session, taking_lease(session, subject, holder, wall_now=wall_now, seconds=seconds))
    return int(rows[0][0]) if rows else None


def taking_lease(session: StoreSession, subject: str, holder: str, *, wall_now: datetime, seconds: int) -> Filled:
    """The statement of `take_lease`: its one row is the fence, there is none while somebody else holds the lease."""
    until = wall_now + timedelta(seconds=seconds)
    return _TAKE.of(
        session.environment_id,
        subject,
        holder,
        to_microseconds(until),
        to_microseconds(wall_now),
        to_microseconds(until + timedelta(seconds=_CLOCKS_APART * seconds)),
    )


def free_lease(session: StoreSession, subject: str, fence: int) -> None:
    """Give the lease back, unless somebody took it over meanwhile."""
    session.defer(freeing_lease(session, subject, fence))


def freeing_lease(session: StoreSession, subject: str, fence: int) -> Filled:
    """The statement of `free_lease`."""
    return _FREE.of(session.environment_id, subject, fence)


async def holds_lease(session: StoreSession, subject: str, fence: int) -> bool:
    """Whether the fence is still the newest. On PostgreSQL the row stays locked until the transaction ends."""
    (rows,) = await together(session, asking_fence(session, subject))
    return bool(rows) and rows[0][0] == fence


def asking_fence(session: StoreSession, subject: str) -> Filled:
    """The statement of `holds_lease`: its one row is the newest fence."""
    return _FENCE.of(session.environment_id, subject)


async def drop_old_leases(session: StoreSession, *, before: datetime) -> int:
    """Forget free leases that ended before an instant; answers how many."""
    result = await session.run(
        delete(leases).where(
            leases.c.environment_id == session.environment_id, leases.c.holder.is_(None), leases.c.expires_at < before
        )
    )
    return result.rowcount
