"""Plan changes: the intent saved before any call to Stripe, each call's idempotency key, and what came of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select, text, update
from sqlmodel import Field, Index, SQLModel

from plangate.store.columns import Instant, JsonText, mentions
from plangate.store.database import StoreSession, table_of
from plangate.store.direct import Direct, together

# One change at a time per company: everything that has not ended, but for the one that waits for its date.
_UNFINISHED = ("requested", "awaiting_payment", "requires_action", "applying", "cancelling")
IS_UNFINISHED: Final = f"state IN {_UNFINISHED}"  # as SQL writes it


class PlanChangeRow(SQLModel, table=True):
    """One requested move. `quote_id` makes a confirmed quote one intent; `terms` hold what was promised."""

    __tablename__ = "plan_changes"
    __table_args__ = (
        Index("plan_changes_by_company", "environment_id", "company_id"),
        Index("plan_changes_by_quote", "environment_id", "quote_id", unique=True),
        Index(
            "plan_changes_unfinished",
            "environment_id",
            "available_at",
            sqlite_where=text(IS_UNFINISHED),
            postgresql_where=text(IS_UNFINISHED),
        ),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    quote_id: str
    state: str
    kind: str
    is_scheduled: bool = False
    held: Any = Field(sa_type=JsonText)
    target: Any = Field(sa_type=JsonText)
    terms: Any = Field(sa_type=JsonText)
    effective_at: datetime = Field(sa_type=Instant)
    next_action: Any = Field(default=None, sa_type=JsonText, nullable=True)
    requested_by: Any = Field(sa_type=JsonText)
    refusal: Any = Field(default=None, sa_type=JsonText, nullable=True)
    return_url: str | None = None
    stripe_customer_id: str | None = None
    stripe_subscription_id: str | None = None
    stripe_schedule_id: str | None = None
    stripe_checkout_session_id: str | None = None
    attempts: int = 0
    available_at: datetime = Field(sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)


class StripeOperationRow(SQLModel, table=True):
    """One outgoing write to Stripe, saved with its idempotency key before the first try. Times are wall time."""

    __tablename__ = "stripe_operations"

    environment_id: str = Field(primary_key=True)
    intent_id: str = Field(primary_key=True)
    step: str = Field(primary_key=True)
    idempotency_key: str
    params: Any = Field(sa_type=JsonText)
    result: Any = Field(default=None, sa_type=JsonText, nullable=True)
    created_at: datetime = Field(sa_type=Instant)
    completed_at: datetime | None = Field(default=None, sa_type=Instant)


plan_changes = table_of(PlanChangeRow)
stripe_operations = table_of(StripeOperationRow)


async def insert_change(session: StoreSession, row: PlanChangeRow) -> bool:
    """Save an intent; False when this quote was confirmed before (the row already there is the one)."""
    statement = session.insert(PlanChangeRow).values(row.model_dump()).on_conflict_do_nothing()
    return (await session.run(statement)).rowcount == 1


async def change_by_quote(session: StoreSession, quote_id: str) -> PlanChangeRow | None:
    """The change that confirming this quote made."""
    return await _one(session, plan_changes.c.quote_id == quote_id)


async def change_by_id(session: StoreSession, company_id: str, change_id: str) -> PlanChangeRow | None:
    """One change of the company."""
    return await _one(session, plan_changes.c.id == change_id, plan_changes.c.company_id == company_id)


async def changes_of(
    session: StoreSession, company_id: str, *, before: str | None = None, limit: int = 100
) -> list[PlanChangeRow]:
    """The company's changes, newest first; only those requested before the change `before`."""
    found = select(plan_changes).where(
        plan_changes.c.environment_id == session.environment_id, plan_changes.c.company_id == company_id
    )
    if before is not None:
        found = found.where(plan_changes.c.id < before)
    rows = await session.all(found.order_by(plan_changes.c.id.desc()).limit(limit))
    return [PlanChangeRow(**row) for row in rows]


_ANY_IN: Final = Direct(
    sqlite="""
        SELECT 1 FROM plan_changes
        WHERE environment_id = ? AND company_id = ? AND state IN (SELECT value FROM json_each(?)) LIMIT 1
    """,
    postgresql="""
        SELECT 1 FROM plan_changes WHERE environment_id = $1 AND company_id = $2 AND state = ANY($3::text[]) LIMIT 1
    """,
)


async def changes_in(session: StoreSession, company_id: str, states: Sequence[str]) -> list[PlanChangeRow]:
    """The company's changes in one of these states, newest first."""
    (found,) = await together(session, _ANY_IN.of(session.environment_id, company_id, list(states)))
    if not found:
        return []
    rows = await session.all(
        select(plan_changes)
        .where(
            plan_changes.c.environment_id == session.environment_id,
            plan_changes.c.company_id == company_id,
            plan_changes.c.state.in_(states),
        )
        .order_by(plan_changes.c.id.desc())
    )
    return [PlanChangeRow(**row) for row in rows]


async def has_open(session: StoreSession, company_id: str) -> bool:
    """Whether any change of the company is under way, or waits for its date."""
    return bool(await changes_in(session, company_id, (*_UNFINISHED, "scheduled")))


async def is_price_promised(session: StoreSession, stripe_price_id: str) -> bool:
    """Whether a change under way, or one that waits for its date, leads to the price: an open Checkout for example."""
    found = await session.scalar(
        select(plan_changes.c.id)
        .where(
            plan_changes.c.environment_id == session.environment_id,
            plan_changes.c.state.in_((*_UNFINISHED, "scheduled")),
            mentions(plan_changes.c.terms, stripe_price_id),
        )
        .limit(1)
    )
    return found is not None


async def unfinished_changes(session: StoreSession, *, due_at: datetime, limit: int) -> list[PlanChangeRow]:
    """Changes of any company that a crash or a slow Stripe left on the way, due at `due_at` (wall time)."""
    rows = await session.all(
        select(plan_changes)
        .where(
            plan_changes.c.environment_id == session.environment_id,
            plan_changes.c.state.in_(_UNFINISHED),
            plan_changes.c.available_at <= due_at,
        )
        .order_by(plan_changes.c.available_at)
        .limit(limit)
    )
    return [PlanChangeRow(**row) for row in rows]


async def update_change(session: StoreSession, change_id: str, **values: object) -> None:
    """Set columns of one change."""
    await session.run(
        update(plan_changes)
        .where(plan_changes.c.environment_id == session.environment_id, plan_changes.c.id == change_id)
        .values(updated_at=session.now, **values)
    )


async def begin_operation(session: StoreSession, row: StripeOperationRow) -> StripeOperationRow:
    """Save an outgoing call before it is made; a retry gets the row of the first try, key and parameters included."""
    await session.run(session.insert(StripeOperationRow).values(row.model_dump()).on_conflict_do_nothing())
    known = await session.one(
        select(stripe_operations).where(
            stripe_operations.c.environment_id == session.environment_id,
            stripe_operations.c.intent_id == row.intent_id,
            stripe_operations.c.step == row.step,
        )
    )
    if known is None:
        raise LookupError(f"operation {row.step} of {row.intent_id} vanished")
    return StripeOperationRow(**known)


async def complete_operation(
    session: StoreSession, intent_id: str, step: str, *, result: object, wall_now: datetime
) -> None:
    """Record that Stripe answered, and what is needed of the answer."""
    await session.run(
        update(stripe_operations)
        .where(
            stripe_operations.c.environment_id == session.environment_id,
            stripe_operations.c.intent_id == intent_id,
            stripe_operations.c.step == step,
        )
        .values(result=result, completed_at=wall_now)
    )


async def operations_of(session: StoreSession, intent_id: str) -> dict[str, StripeOperationRow]:
    """The outgoing calls of one intent, by step."""
    rows = await session.all(
        select(stripe_operations).where(
            stripe_operations.c.environment_id == session.environment_id, stripe_operations.c.intent_id == intent_id
        )
    )
    return {row["step"]: StripeOperationRow(**row) for row in rows}


async def _one(session: StoreSession, *conditions: Any) -> PlanChangeRow | None:  # noqa: ANN401 - column expressions
    row = await session.one(
        select(plan_changes).where(plan_changes.c.environment_id == session.environment_id, *conditions)
    )
    return None if row is None else PlanChangeRow(**row)
