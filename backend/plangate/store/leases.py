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
_LOOK: Final = Direct(
    sqlite="SELECT holder, fence, expires_at FROM leases WHERE environment_id = ? AND subject = ?",
    postgresql="SELECT holder, fence, expires_at FROM leases WHERE environment_id = $1 AND subject = $2",
)
_RENEW: Final = Direct(
    sqlite="""
        UPDATE leases SET expires_at = ?4
        WHERE environment_id = ?1 AND subject = ?2 AND fence = ?3 AND holder IS NOT NULL RETURNING fence
    """,
    postgresql="""
        UPDATE leases SET expires_at = $4
        WHERE environment_id = $1 AND subject = $2 AND fence = $3 AND holder IS NOT NULL RETURNING fence
    """,
)
_TAKE_SILENT: Final = Direct(
    sqlite="""
        UPDATE leases SET holder = ?3, expires_at = ?4, fence = fence + 1
        WHERE environment_id = ?1 AND subject = ?2 AND fence = ?5 AND expires_at = ?6 AND holder IS NOT NULL
        RETURNING fence
    """,
    postgresql="""
        UPDATE leases SET holder = $3, expires_at = $4, fence = fence + 1
        WHERE environment_id = $1 AND subject = $2 AND fence = $5 AND expires_at = $6 AND holder IS NOT NULL
        RETURNING fence
    """,
)
_FENCE: Final = Direct(
    sqlite="SELECT fence FROM leases WHERE environment_id = ? AND subject = ?",
    postgresql="SELECT fence FROM leases WHERE environment_id = $1 AND subject = $2 FOR UPDATE",
)


def taking_lease(session: StoreSession, subject: str, holder: str, *, wall_now: datetime, seconds: int) -> Filled:
    """The statement that takes a free or expired lease: its one row is the fence, there is none while it is held.

    One that would last much longer than any lease does was taken before the clock jumped back, and counts as expired.
    A holder whose lease was taken over by a clock that is ahead notices by its fence.
    """
    until = wall_now + timedelta(seconds=seconds)
    return _TAKE.of(
        session.environment_id,
        subject,
        holder,
        to_microseconds(until),
        to_microseconds(wall_now),
        to_microseconds(until + timedelta(seconds=_CLOCKS_APART * seconds)),
    )


def asking_lease(session: StoreSession, subject: str) -> Filled:
    """The statement that looks at a lease: its row is the holder, the fence and the end in microseconds."""
    return _LOOK.of(session.environment_id, subject)


def renewing_lease(session: StoreSession, subject: str, fence: int, *, wall_now: datetime, seconds: int) -> Filled:
    """The statement that lets a lease last longer: its one row is the fence, there is none when it is not held."""
    until = to_microseconds(wall_now + timedelta(seconds=seconds))
    return _RENEW.of(session.environment_id, subject, fence, until)


def taking_silent_lease(
    session: StoreSession, subject: str, holder: str, *, fence: int, expires_at: int, wall_now: datetime, seconds: int
) -> Filled:
    """The statement that takes a lease from a holder who renewed it no more: its one row is the new fence.

    There is none when it was renewed, given back or taken since it was seen with this fence and end.
    """
    until = to_microseconds(wall_now + timedelta(seconds=seconds))
    return _TAKE_SILENT.of(session.environment_id, subject, holder, until, fence, expires_at)


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
