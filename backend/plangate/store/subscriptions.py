"""The mirror of Stripe subscriptions: what each fetch found, kept as history of what we knew when."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Text, cast, select, text, update
from sqlmodel import Field, Index, SQLModel

from plangate.engine.model import PlanRef, SubscriptionFact
from plangate.ids import new_id
from plangate.store.columns import Instant, JsonText
from plangate.store.companies import known_at
from plangate.store.database import StoreSession, table_of


class SubscriptionRow(SQLModel, table=True):
    """One fetched state of one subscription. `document` is a SubscriptionFact; `state_hash` tells states apart.

    `mapped_plan` is the base plan the company's subscriptions meant then, left out when a price was unknown.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        Index("subscriptions_by_company", "environment_id", "company_id"),
        Index(
            "subscriptions_current",
            "environment_id",
            "stripe_subscription_id",
            unique=True,
            sqlite_where=text("superseded_at IS NULL"),
            postgresql_where=text("superseded_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    stripe_customer_id: str
    stripe_subscription_id: str
    status: str
    document: Any = Field(sa_type=JsonText)
    state_hash: str
    mapped_plan: Any = Field(default=None, sa_type=JsonText, nullable=True)
    recorded_at: datetime = Field(sa_type=Instant)
    superseded_at: datetime | None = Field(default=None, sa_type=Instant)


subscriptions = table_of(SubscriptionRow)
_ENDED = ("canceled", "incomplete_expired")


async def subscriptions_of(
    session: StoreSession, company_id: str, *, at: datetime | None = None
) -> tuple[SubscriptionFact, ...]:
    """The company's subscriptions as known at `at` (None: now), oldest first."""
    rows = await session.all(
        select(subscriptions.c.document)
        .where(
            subscriptions.c.environment_id == session.environment_id,
            subscriptions.c.company_id == company_id,
            known_at(subscriptions, at),
        )
        .order_by(subscriptions.c.stripe_subscription_id)
    )
    return tuple(msgspec.convert(row["document"], SubscriptionFact) for row in rows)


async def is_price_held(session: StoreSession, stripe_price_id: str) -> bool:
    """Whether any subscription that has not ended holds the price, now or in a later phase of its schedule."""
    quoted = stripe_price_id.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    found = await session.scalar(
        select(subscriptions.c.id)
        .where(
            subscriptions.c.environment_id == session.environment_id,
            subscriptions.c.superseded_at.is_(None),
            subscriptions.c.status.not_in(_ENDED),
            # The documents are text; an index would have to follow every item for a question asked once a month.
            cast(subscriptions.c.document, Text).like(f'%"{quoted}"%', escape="\\"),
        )
        .limit(1)
    )
    return found is not None


async def last_mapped_plan(session: StoreSession, company_id: str, *, at: datetime | None = None) -> PlanRef | None:
    """The base plan the company's subscriptions last meant while all their prices were known, as known at `at`."""
    query = select(subscriptions.c.mapped_plan).where(
        subscriptions.c.environment_id == session.environment_id,
        subscriptions.c.company_id == company_id,
        subscriptions.c.mapped_plan.is_not(None),
    )
    if at is not None:
        query = query.where(subscriptions.c.recorded_at <= at)
    found = await session.scalar(query.order_by(subscriptions.c.recorded_at.desc(), subscriptions.c.id.desc()).limit(1))
    return None if found is None else msgspec.convert(found, PlanRef)


async def save_subscriptions(
    session: StoreSession,
    company_id: str,
    fetched: Sequence[tuple[SubscriptionFact, str]],
    *,
    mapped_plan: PlanRef | None,
) -> bool:
    """Record what a fetch found: `(fact, state_hash)` of every subscription of the company's customers.

    `mapped_plan` is the base plan they mean together, None when a price among them is unknown or none grants.
    Only states that differ from the last known are stored. Answers whether anything changed.
    """
    known = {
        row["stripe_subscription_id"]: row["state_hash"]
        for row in await session.all(
            select(subscriptions.c.stripe_subscription_id, subscriptions.c.state_hash).where(
                subscriptions.c.environment_id == session.environment_id,
                subscriptions.c.company_id == company_id,
                subscriptions.c.superseded_at.is_(None),
            )
        )
    }
    changed = [
        (fact, state_hash) for fact, state_hash in fetched if known.get(fact.stripe_subscription_id) != state_hash
    ]
    if not changed:
        return False
    await session.run(
        update(subscriptions)
        .where(
            subscriptions.c.environment_id == session.environment_id,
            subscriptions.c.stripe_subscription_id.in_([fact.stripe_subscription_id for fact, _ in changed]),
            subscriptions.c.superseded_at.is_(None),
        )
        .values(superseded_at=session.now)
    )
    await session.add_all(
        [
            SubscriptionRow(
                id=new_id("subv"),
                environment_id=session.environment_id,
                company_id=company_id,
                stripe_customer_id=fact.stripe_customer_id,
                stripe_subscription_id=fact.stripe_subscription_id,
                status=fact.status,
                document=msgspec.to_builtins(fact),
                state_hash=state_hash,
                mapped_plan=msgspec.to_builtins(mapped_plan),
                recorded_at=session.now,
            )
            for fact, state_hash in changed
        ]
    )
    return True
