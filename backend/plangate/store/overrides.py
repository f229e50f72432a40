"""Overrides and their history: every edit supersedes a row, so the past stays answerable."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, text, update
from sqlmodel import Field, Index, SQLModel

from plangate.engine.facts import Override
from plangate.engine.values import OverrideMode, PeriodKind, Unlimited
from plangate.store.columns import Instant, JsonText
from plangate.store.companies import known_at
from plangate.store.database import StoreSession, table_of


class OverrideRow(SQLModel, table=True):
    """One state of one override, in force in `[starts_at, expires_at)` unless revoked. `revision` is its ETag."""

    __tablename__ = "overrides"
    __table_args__ = (
        Index("overrides_by_company", "environment_id", "company_id"),
        Index("overrides_by_id", "environment_id", "override_id", "revision", unique=True),
        Index(
            "overrides_by_expiry",
            "environment_id",
            "expires_at",
            sqlite_where=text("superseded_at IS NULL AND expires_at IS NOT NULL"),
            postgresql_where=text("superseded_at IS NULL AND expires_at IS NOT NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    override_id: str
    revision: int = 1
    company_id: str
    user_id: str | None = None
    feature: str
    mode: str
    value: Any = Field(default=None, sa_type=JsonText, nullable=True)
    period: str | None = None
    note: str
    author: Any = Field(sa_type=JsonText)
    starts_at: datetime = Field(sa_type=Instant)
    expires_at: datetime | None = Field(default=None, sa_type=Instant)
    revoked_at: datetime | None = Field(default=None, sa_type=Instant)
    recorded_at: datetime = Field(sa_type=Instant)
    superseded_at: datetime | None = Field(default=None, sa_type=Instant)


overrides = table_of(OverrideRow)


async def overrides_in_force(
    session: StoreSession, company_id: str, *, at: datetime | None = None
) -> tuple[Override, ...]:
    """Overrides known at `at` (None: now) that are not revoked and have not expired then; later starts included."""
    rows = await session.all(
        select(overrides)
        .where(
            overrides.c.environment_id == session.environment_id,
            overrides.c.company_id == company_id,
            known_at(overrides, at),
            overrides.c.revoked_at.is_(None),
            or_(overrides.c.expires_at.is_(None), overrides.c.expires_at > (at or session.now)),
        )
        .order_by(overrides.c.starts_at, overrides.c.override_id)
    )
    return tuple(
        Override(
            id=row["override_id"],
            feature=row["feature"],
            mode=OverrideMode(row["mode"]),
            value=Unlimited.UNLIMITED if row["value"] == Unlimited.UNLIMITED.value else row["value"],
            starts_at=row["starts_at"],
            user=row["user_id"],
            period=None if row["period"] is None else PeriodKind(row["period"]),
            expires_at=row["expires_at"],
        )
        for row in rows
    )


async def current_override(session: StoreSession, override_id: str) -> OverrideRow | None:
    """The newest state of one override, whichever company it belongs to in this environment."""
    row = await session.one(
        select(overrides).where(
            overrides.c.environment_id == session.environment_id,
            overrides.c.override_id == override_id,
            overrides.c.superseded_at.is_(None),
        )
    )
    return None if row is None else OverrideRow(**row)


async def current_overrides(
    session: StoreSession, company_id: str, *, before: str | None = None, limit: int | None = None
) -> list[OverrideRow]:
    """The newest state of the company's overrides, newest first; expired and revoked ones included.

    All of them, or at most `limit` of those made before the override `before`.
    """
    found = select(overrides).where(
        overrides.c.environment_id == session.environment_id,
        overrides.c.company_id == company_id,
        overrides.c.superseded_at.is_(None),
    )
    if before is not None:
        found = found.where(overrides.c.override_id < before)
    rows = await session.all(found.order_by(overrides.c.override_id.desc()).limit(limit))
    return [OverrideRow(**row) for row in rows]


async def states_of_override(session: StoreSession, override_id: str) -> list[OverrideRow]:
    """Every state one override had, newest first."""
    rows = await session.all(
        select(overrides)
        .where(overrides.c.environment_id == session.environment_id, overrides.c.override_id == override_id)
        .order_by(overrides.c.revision.desc())
    )
    return [OverrideRow(**row) for row in rows]


async def page_of_overrides(
    session: StoreSession,
    *,
    state: str | None,
    expires_before: datetime | None,
    feature: str | None,
    after: tuple[datetime | None, str] | None,
    limit: int,
) -> list[OverrideRow]:
    """Up to `limit` overrides of all companies after the cursor: newest first, or with `expires_before` soonest first.

    `after` is the expiry (for the second order) and the id of the last one seen.
    """
    query = select(overrides).where(
        overrides.c.environment_id == session.environment_id, overrides.c.superseded_at.is_(None)
    )
    if state is not None or expires_before is not None:
        query = query.where(_is_in_state(state, session.now))
    if feature is not None:
        query = query.where(overrides.c.feature == feature)
    if expires_before is None:
        if after is not None:
            query = query.where(overrides.c.override_id < after[1])
        query = query.order_by(overrides.c.override_id.desc())
    else:
        query = query.where(overrides.c.expires_at < expires_before)
        if after is not None:
            at, override_id = after
            later = and_(overrides.c.expires_at == at, overrides.c.override_id > override_id)
            query = query.where(or_(overrides.c.expires_at > at, later))
        query = query.order_by(overrides.c.expires_at, overrides.c.override_id)
    return [OverrideRow(**row) for row in await session.all(query.limit(limit))]


def _is_in_state(state: str | None, now: datetime) -> ColumnElement[bool]:
    """Overrides in a state at an instant; None stands for those that have not ended."""
    if state == "revoked":
        return overrides.c.revoked_at.is_not(None)
    unrevoked = overrides.c.revoked_at.is_(None)
    if state == "expired":
        return and_(unrevoked, overrides.c.expires_at <= now)
    unended = and_(unrevoked, or_(overrides.c.expires_at.is_(None), overrides.c.expires_at > now))
    if state == "scheduled":
        return and_(unended, overrides.c.starts_at > now)
    return unended if state is None else and_(unended, overrides.c.starts_at <= now)


async def replace_override(session: StoreSession, row: OverrideRow) -> None:
    """Store a new state: the one before it (same `override_id`) is superseded now."""
    await session.run(
        update(overrides)
        .where(
            overrides.c.environment_id == session.environment_id,
            overrides.c.override_id == row.override_id,
            overrides.c.superseded_at.is_(None),
        )
        .values(superseded_at=session.now)
    )
    await session.add(row)
