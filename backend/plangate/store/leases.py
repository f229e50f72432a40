"""Leases: one holder at a time for a named subject, without holding a transaction open. Times are wall time."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlmodel import Field, SQLModel

from plangate.store.columns import Instant
from plangate.store.database import StoreSession, table_of


class LeaseRow(SQLModel, table=True):
    """Who holds a subject until when. `fence` grows with each holder; writing back checks it."""

    __tablename__ = "leases"

    environment_id: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    holder: str | None = None
    expires_at: datetime = Field(sa_type=Instant)
    fence: int = 0


leases = table_of(LeaseRow)

_CLOCKS_APART = 2  # how many times a lease's length the clocks of two servers may differ


async def take_lease(
    session: StoreSession, subject: str, holder: str, *, wall_now: datetime, seconds: int
) -> int | None:
    """Take a free or expired lease; answers its fence, or None while somebody else holds it.

    One that would last much longer than any lease does was taken before the clock jumped back, and counts as expired.
    A holder whose lease was taken over by a clock that is ahead notices by its fence.
    """
    until = wall_now + timedelta(seconds=seconds)
    first = session.insert(LeaseRow).values(
        environment_id=session.environment_id, subject=subject, holder=holder, expires_at=until, fence=1
    )
    fence = await session.scalar(
        first.on_conflict_do_update(
            index_elements=["environment_id", "subject"],
            set_={"holder": holder, "expires_at": until, "fence": leases.c.fence + 1},
            where=or_(
                leases.c.holder.is_(None),
                leases.c.expires_at <= wall_now,
                leases.c.expires_at > until + timedelta(seconds=_CLOCKS_APART * seconds),
            ),
        ).returning(leases.c.fence)
    )
    return None if fence is None else int(fence)


async def free_lease(session: StoreSession, subject: str, fence: int) -> None:
    """Give the lease back, unless somebody took it over meanwhile."""
    await session.run(update(leases).where(_is(session, subject), leases.c.fence == fence).values(holder=None))


async def holds_lease(session: StoreSession, subject: str, fence: int) -> bool:
    """Whether the fence is still the newest. On PostgreSQL the row stays locked until the transaction ends."""
    query = select(leases.c.fence).where(_is(session, subject))
    if session.is_postgresql:
        query = query.with_for_update()
    return bool(await session.scalar(query) == fence)


async def drop_old_leases(session: StoreSession, *, before: datetime) -> int:
    """Forget free leases that ended before an instant; answers how many."""
    result = await session.run(
        delete(leases).where(
            leases.c.environment_id == session.environment_id, leases.c.holder.is_(None), leases.c.expires_at < before
        )
    )
    return result.rowcount


def _is(session: StoreSession, subject: str) -> ColumnElement[bool]:
    return and_(leases.c.environment_id == session.environment_id, leases.c.subject == subject)
