"""What was reported of each window's overage, and what it was worked out from: so that only differences are sent."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnCollection, ColumnElement, and_, exists, or_, select, update
from sqlmodel import Field, Index, SQLModel

from plangate.engine.facts import WindowCounter
from plangate.engine.overage import Sold
from plangate.engine.values import PeriodKind
from plangate.store.columns import Instant
from plangate.store.companies import companies
from plangate.store.database import StoreSession, table_of
from plangate.store.usage import usage_windows, window_of


class OverageRow(SQLModel, table=True):
    """What was reported of the overage in the window that begins at `start_at`; it belongs to the window's end at last.

    `seen_used`, `seen_version` and `seen_revision` are the usage, the company and the catalogue it was worked out from;
    `look_again_at` is when the passing of time alone may change it. Once `is_open` is false the window is over, and
    only its usage may still change.
    """

    __tablename__ = "overage_reports"
    __table_args__ = (
        Index("overage_reports_by_window", "environment_id", "company_id", "feature", "period", "start_at"),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    feature: str
    period: str
    start_at: datetime = Field(sa_type=Instant)
    reported: int = Field(default=0, sa_type=BigInteger)
    seen_used: int = Field(default=0, sa_type=BigInteger)
    seen_version: int = 0
    seen_revision: int = 0
    is_open: bool = True
    look_again_at: datetime | None = Field(default=None, sa_type=Instant, nullable=True)


overage_reports = table_of(OverageRow)

_AT_ONCE: Final = 500
_CHANGING: Final = {"reported", "seen_used", "seen_version", "seen_revision", "is_open", "look_again_at"}


async def companies_with_overage_to_see(
    session: StoreSession, sold: Collection[Sold], *, revision: int, since: datetime
) -> list[str]:
    """Companies, by id, with a window whose usage, terms or time changed since its overage was last worked out.

    Windows that ended before `since` are left alone, and so is whatever never came near overage.
    """
    if not sold:
        return []
    window, seen = usage_windows.c, overage_reports.c
    is_same = and_(
        seen.environment_id == window.environment_id,
        seen.company_id == window.company_id,
        seen.feature == window.feature,
        seen.period == window.period,
        seen.start_at == window.start_at,
    )
    own = (
        window.environment_id == session.environment_id,
        window.user_id == "",
        or_(window.end_at.is_(None), window.end_at > since),
    )
    # Of all windows only what is used is compared; the few that are beyond it are then looked at closely.
    beyond = or_(
        *(and_(window.feature == one.feature, window.period == one.kind.value, window.used > one.least) for one in sold)
    )
    new = (
        select(window.company_id)
        .select_from(usage_windows.join(companies, companies.c.id == window.company_id))
        .where(*own, beyond, companies.c.merged_into.is_(None), ~exists().where(is_same))
    )
    is_changed = or_(
        seen.seen_used != window.used,
        seen.look_again_at <= session.now,
        and_(seen.is_open, or_(seen.seen_version != companies.c.version, seen.seen_revision != revision)),
    )
    known = (
        select(seen.company_id)
        .select_from(overage_reports.join(usage_windows, is_same).join(companies, companies.c.id == seen.company_id))
        .where(seen.environment_id == session.environment_id, *own, _sold_so(seen, sold), is_changed)
    )
    found: set[str] = set()
    for query, owner in ((new, window.company_id), (known, seen.company_id)):
        rows = await session.all(query.distinct().order_by(owner).limit(_AT_ONCE))
        found |= {row["company_id"] for row in rows}
    return sorted(found)


def _sold_so(seen: ColumnCollection[str, Any], sold: Collection[Sold]) -> ColumnElement[bool]:
    return or_(*(and_(seen.feature == one.feature, seen.period == one.kind.value) for one in sold))


async def windows_of_feature(
    session: StoreSession, company_id: str, feature: str, kind: PeriodKind, *, since: datetime
) -> list[WindowCounter]:
    """The company's own windows of one kind that run, or ended after `since`, oldest first."""
    window = usage_windows.c
    rows = await session.all(
        select(usage_windows)
        .where(
            window.environment_id == session.environment_id,
            window.company_id == company_id,
            window.feature == feature,
            window.period == kind.value,
            window.user_id == "",
            or_(window.end_at.is_(None), window.end_at > since),
        )
        .order_by(window.start_at)
    )
    return [window_of(row) for row in rows]


async def overage_of(
    session: StoreSession, company_id: str, feature: str, kind: PeriodKind, *, start_at: datetime
) -> list[OverageRow]:
    """What was reported for windows that began at `start_at` or later, oldest first."""
    seen = overage_reports.c
    rows = await session.all(
        select(overage_reports)
        .where(
            seen.environment_id == session.environment_id,
            seen.company_id == company_id,
            seen.feature == feature,
            seen.period == kind.value,
            seen.start_at >= start_at,
        )
        .order_by(seen.start_at, seen.id)
    )
    return [OverageRow(**row) for row in rows]


async def save_overage(session: StoreSession, rows: Sequence[OverageRow], known: Collection[str]) -> None:
    """Store rows; those whose id is in `known` are there already."""
    for row in rows:
        if row.id in known:
            values = row.model_dump(include=_CHANGING)
            await session.run(update(overage_reports).where(overage_reports.c.id == row.id).values(**values))
        else:
            await session.add(row)
