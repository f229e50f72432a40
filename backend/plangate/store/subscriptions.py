"""The mirror of Stripe subscriptions: what each fetch found, kept as history of what we knew when."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import func, or_, select, text
from sqlmodel import Field, Index, SQLModel

from plangate.engine.facts import PlanRef, SubscriptionFact
from plangate.ids import new_id
from plangate.store.columns import Instant, JsonText, json_text, mentions, to_microseconds
from plangate.store.companies import known_at
from plangate.store.database import StoreSession, table_of
from plangate.store.direct import Direct, Filled, Rows, together

_PAST_DUE: Final = "superseded_at IS NULL AND status = 'past_due'"
# The document is compact JSON. Its colon would be taken for that of a parameter, so it is matched as any one sign.
_PAUSED: Final = """superseded_at IS NULL AND document LIKE '%"is_collection_paused"_true%'"""


class SubscriptionRow(SQLModel, table=True):
    """One fetched state of one subscription. `document` is a SubscriptionFact; `state_hash` tells states apart.

    `mapped_plan` is the base plan that a price of the company's subscriptions said then, if one did.
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
        Index(
            "subscriptions_past_due",
            "environment_id",
            "company_id",
            sqlite_where=text(_PAST_DUE),
            postgresql_where=text(_PAST_DUE),
        ),
        Index(
            "subscriptions_paused",
            "environment_id",
            "company_id",
            sqlite_where=text(_PAUSED),
            postgresql_where=text(_PAUSED),
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
ENDED = ("canceled", "incomplete_expired")
_HASHES: Final = Direct(
    sqlite="""
        SELECT stripe_subscription_id, state_hash FROM subscriptions
        WHERE environment_id = ? AND company_id = ? AND superseded_at IS NULL
    """,
    postgresql="""
        SELECT stripe_subscription_id, state_hash FROM subscriptions
        WHERE environment_id = $1 AND company_id = $2 AND superseded_at IS NULL
    """,
)
_SUPERSEDE: Final = Direct(
    sqlite="""
        UPDATE subscriptions SET superseded_at = ?2
        WHERE environment_id = ?1 AND superseded_at IS NULL
            AND stripe_subscription_id IN (SELECT value FROM json_each(?3))
    """,
    postgresql="""
        UPDATE subscriptions SET superseded_at = $2
        WHERE environment_id = $1 AND superseded_at IS NULL AND stripe_subscription_id = ANY($3::text[])
        RETURNING id
    """,
    writes="subscriptions",
)
_SAVE: Final = Direct(
    sqlite="""
        INSERT INTO subscriptions (environment_id, recorded_at, company_id, id, stripe_customer_id,
            stripe_subscription_id, status, document, state_hash, mapped_plan)
        SELECT ?1, ?2, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
            json_extract(value, '$[6]'), json_extract(value, '$[7]')
        FROM json_each(?3)
    """,
    postgresql="""
        INSERT INTO subscriptions (environment_id, recorded_at, company_id, id, stripe_customer_id,
            stripe_subscription_id, status, document, state_hash, mapped_plan)
        SELECT $1, $2, *
        FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
    """,
    writes="subscriptions",
    # Two states of one subscription are never current at the same time, not even for an instant.
    follows="WHERE (SELECT count(*) FROM {before}) >= 0",
)


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


async def trials_of(session: StoreSession, company_id: str) -> tuple[SubscriptionFact, ...]:
    """The states in which the company was on trial; of a trial that was over when it was first seen, the newest one."""
    rows = await session.all(
        select(subscriptions.c.document).where(
            subscriptions.c.environment_id == session.environment_id,
            subscriptions.c.company_id == company_id,
            or_(subscriptions.c.status == "trialing", subscriptions.c.superseded_at.is_(None)),
        )
    )
    states = [msgspec.convert(row["document"], SubscriptionFact) for row in rows]
    seen = {state.stripe_subscription_id for state in states if state.status == "trialing"}
    return tuple(
        state
        for state in states
        if state.status == "trialing" or (state.trial_end_at is not None and state.stripe_subscription_id not in seen)
    )


async def newest_state_at(session: StoreSession, company_id: str) -> datetime | None:
    """When the newest of the company's states was recorded, None without any."""
    found: datetime | None = await session.scalar(
        select(func.max(subscriptions.c.recorded_at)).where(
            subscriptions.c.environment_id == session.environment_id, subscriptions.c.company_id == company_id
        )
    )
    return found


async def running_subscriptions(
    session: StoreSession, *, after: str | None, limit: int
) -> Sequence[tuple[str, str, str]]:
    """`(Stripe subscription, Stripe customer, company)` of up to `limit` that have not ended, as far as we know."""
    query = select(
        subscriptions.c.stripe_subscription_id, subscriptions.c.stripe_customer_id, subscriptions.c.company_id
    ).where(
        subscriptions.c.environment_id == session.environment_id,
        subscriptions.c.superseded_at.is_(None),
        subscriptions.c.status.not_in(ENDED),
    )
    if after is not None:
        query = query.where(subscriptions.c.stripe_subscription_id > after)
    rows = await session.all(query.order_by(subscriptions.c.stripe_subscription_id).limit(limit))
    return [(row["stripe_subscription_id"], row["stripe_customer_id"], row["company_id"]) for row in rows]


async def companies_past_due(session: StoreSession, *, after: str, limit: int) -> list[str]:
    """Up to `limit` ids of companies that have a past-due subscription as far as we know, those beyond `after`."""
    return await _companies_where(session, _PAST_DUE, after=after, limit=limit)


async def companies_paused(session: StoreSession, *, after: str, limit: int) -> list[str]:
    """Up to `limit` ids of companies of which a subscription's collection is paused, those beyond `after`."""
    return await _companies_where(session, _PAUSED, after=after, limit=limit)


async def _companies_where(session: StoreSession, condition: str, *, after: str, limit: int) -> list[str]:
    rows = await session.all(
        select(subscriptions.c.company_id)
        .distinct()
        .where(
            subscriptions.c.environment_id == session.environment_id,
            # In the very words of the index over few rows, so that it is used.
            text(condition),
            subscriptions.c.company_id > after,
        )
        .order_by(subscriptions.c.company_id)
        .limit(limit)
    )
    return [row["company_id"] for row in rows]


async def is_price_held(session: StoreSession, stripe_price_id: str) -> bool:
    """Whether any subscription that has not ended holds the price, now or in a later phase of its schedule."""
    found = await session.scalar(
        select(subscriptions.c.id)
        .where(
            subscriptions.c.environment_id == session.environment_id,
            subscriptions.c.superseded_at.is_(None),
            subscriptions.c.status.not_in(ENDED),
            mentions(subscriptions.c.document, stripe_price_id),
        )
        .limit(1)
    )
    return found is not None


async def last_mapped_plan(session: StoreSession, company_id: str, *, at: datetime | None = None) -> PlanRef | None:
    """The base plan that a price of the company's subscriptions said last, as known at `at`."""
    query = select(subscriptions.c.mapped_plan).where(
        subscriptions.c.environment_id == session.environment_id,
        subscriptions.c.company_id == company_id,
        subscriptions.c.mapped_plan.is_not(None),
    )
    if at is not None:
        query = query.where(subscriptions.c.recorded_at <= at)
    found = await session.scalar(query.order_by(subscriptions.c.recorded_at.desc(), subscriptions.c.id.desc()).limit(1))
    return None if found is None else msgspec.convert(found, PlanRef)


def asking_states(session: StoreSession, company_id: str) -> Filled:
    """The statement that reads which states of the company's subscriptions are known; `states_of` reads its rows."""
    return _HASHES.of(session.environment_id, company_id)


def states_of(rows: Rows) -> dict[str, str]:
    """The state hash of each subscription, in the rows of `asking_states`."""
    return {str(name): str(state_hash) for name, state_hash in rows}


async def save_subscriptions(
    session: StoreSession,
    company_id: str,
    fetched: Sequence[tuple[SubscriptionFact, str]],
    *,
    mapped_plan: PlanRef | None,
    stored: Mapping[str, str] | None = None,
) -> bool:
    """Record what a fetch found: `(fact, state_hash)` of every subscription of the company's customers.

    `mapped_plan` is the base plan that a price among them says, None when none does.
    Only states that differ from the last known (`stored`, read here without it) are stored. Answers whether anything
    changed.
    """
    if stored is None:
        (rows,) = await together(session, asking_states(session, company_id))
        stored = states_of(rows)
    changed = [
        (fact, state_hash) for fact, state_hash in fetched if stored.get(fact.stripe_subscription_id) != state_hash
    ]
    if not changed:
        return False
    superseded = [fact.stripe_subscription_id for fact, _ in changed]
    session.defer(
        _SUPERSEDE.of(session.environment_id, to_microseconds(session.now), superseded),
        saving_states(session, [(company_id, fact, state_hash, mapped_plan) for fact, state_hash in changed]),
    )
    return True


def saving_states(session: StoreSession, states: Iterable[tuple[str, SubscriptionFact, str, PlanRef | None]]) -> Filled:
    """The statement that stores states as current: `(company, fact, state hash, plan meant)`, whatever was known."""
    rows = [
        (
            company_id,
            new_id("subv"),
            fact.stripe_customer_id,
            fact.stripe_subscription_id,
            fact.status,
            json_text(fact),
            state_hash,
            json_text(mapped_plan),
        )
        for company_id, fact, state_hash, mapped_plan in states
    ]
    return _SAVE.for_all(rows, session.environment_id, to_microseconds(session.now))
