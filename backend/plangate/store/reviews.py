"""Refunds and disputes that a person should look at: what Stripe says of each, and what became of it here."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlmodel import Field, Index, SQLModel

from plangate.store.columns import Instant, JsonText
from plangate.store.database import StoreSession, table_of


class ReviewState(StrEnum):
    """An open one waits for a person, or for the bank that decides a dispute."""

    OPEN = "open"
    RESOLVED = "resolved"


class ReviewRow(SQLModel, table=True):
    """One refunded charge, or one dispute. `is_withheld` says that the subscription grants nothing because of it."""

    __tablename__ = "reviews"
    __table_args__ = (
        Index("reviews_by_object", "environment_id", "stripe_object_id", unique=True),
        Index("reviews_by_company", "environment_id", "company_id"),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    kind: str
    stripe_object_id: str
    stripe_charge_id: str
    stripe_subscription_id: str | None = None
    stripe_status: str
    amount_minor: int
    currency: str
    is_whole: bool
    is_withheld: bool = False
    state: str = ReviewState.OPEN.value
    outcome: str | None = None
    note: str = ""
    resolved_by: Any = Field(default=None, sa_type=JsonText, nullable=True)
    opened_at: datetime = Field(sa_type=Instant)
    resolved_at: datetime | None = Field(default=None, sa_type=Instant)


reviews = table_of(ReviewRow)


async def review_row(session: StoreSession, review_id: str) -> ReviewRow | None:
    """One review by its id."""
    return await _one(session, reviews.c.id == review_id)


async def review_of(session: StoreSession, stripe_object_id: str) -> ReviewRow | None:
    """The review of a charge that was refunded, or of a dispute."""
    return await _one(session, reviews.c.stripe_object_id == stripe_object_id)


async def page_of_reviews(
    session: StoreSession,
    *,
    state: ReviewState | None = None,
    company_id: str | None = None,
    before: str | None = None,
    limit: int,
) -> Sequence[ReviewRow]:
    """Up to `limit` reviews, the newest first, after the cursor."""
    query = select(reviews).where(reviews.c.environment_id == session.environment_id)
    if state is not None:
        query = query.where(reviews.c.state == state.value)
    if company_id is not None:
        query = query.where(reviews.c.company_id == company_id)
    if before is not None:
        query = query.where(reviews.c.id < before)
    rows = await session.all(query.order_by(reviews.c.id.desc()).limit(limit))
    return [ReviewRow(**row) for row in rows]


async def update_review(session: StoreSession, review_id: str, **values: object) -> None:
    """Set columns of one review."""
    await session.run(
        update(reviews)
        .where(reviews.c.environment_id == session.environment_id, reviews.c.id == review_id)
        .values(**values)
    )


async def is_withheld_by_others(session: StoreSession, review: ReviewRow) -> bool:
    """Whether another review withholds the same subscription."""
    found = await session.scalar(
        select(reviews.c.id)
        .where(
            reviews.c.environment_id == session.environment_id,
            reviews.c.stripe_subscription_id == review.stripe_subscription_id,
            reviews.c.is_withheld.is_(True),
            reviews.c.id != review.id,
        )
        .limit(1)
    )
    return found is not None


async def move_reviews(session: StoreSession, former_id: str, company_id: str) -> int:
    """Hand over the reviews of a company that was merged; answers how many."""
    moved = update(reviews).where(reviews.c.environment_id == session.environment_id, reviews.c.company_id == former_id)
    return int((await session.run(moved.values(company_id=company_id))).rowcount)


async def _one(session: StoreSession, condition: Any) -> ReviewRow | None:  # noqa: ANN401 - a condition
    row = await session.one(select(reviews).where(reviews.c.environment_id == session.environment_id, condition))
    return None if row is None else ReviewRow(**row)
