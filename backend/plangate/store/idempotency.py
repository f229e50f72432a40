"""Requests that must take effect once: what the first answer was, by key and the hash of the body."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlmodel import Field, SQLModel

from plangate.store.columns import Instant, JsonText
from plangate.store.database import StoreSession, table_of


class IdempotencyRow(SQLModel, table=True):
    """One key of one scope (a route, or the Stripe App's operations). `status` is 0 while the first try runs.

    `created_at` is wall time: keys are about delivery, and moving business time must not free one.
    """

    __tablename__ = "idempotency"

    environment_id: str = Field(primary_key=True)
    scope: str = Field(primary_key=True)
    key_hash: str = Field(primary_key=True)
    body_hash: str
    status: int = 0
    answer: Any = Field(default=None, sa_type=JsonText, nullable=True)
    created_at: datetime = Field(sa_type=Instant)


idempotency = table_of(IdempotencyRow)


async def begin_request(session: StoreSession, row: IdempotencyRow) -> IdempotencyRow | None:
    """Claim a key. None: it is ours now. Otherwise what is known of the first try."""
    result = await session.run(session.insert(IdempotencyRow).values(row.model_dump()).on_conflict_do_nothing())
    if result.rowcount == 1:
        return None
    known = await session.one(select(idempotency).where(*_is(session, row.scope, row.key_hash)))
    return None if known is None else IdempotencyRow(**known)


async def complete_request(session: StoreSession, scope: str, key_hash: str, *, status: int, answer: object) -> None:
    """Keep the answer for repeats."""
    await session.run(update(idempotency).where(*_is(session, scope, key_hash)).values(status=status, answer=answer))


async def forget_request(session: StoreSession, scope: str, key_hash: str) -> None:
    """Free a key whose first try changed nothing, so that it may be tried again."""
    await session.run(delete(idempotency).where(*_is(session, scope, key_hash)))


async def prune_requests(session: StoreSession, *, before: datetime) -> int:
    """Drop keys of requests made before an instant; answers how many."""
    result = await session.run(
        delete(idempotency).where(
            idempotency.c.environment_id == session.environment_id, idempotency.c.created_at < before
        )
    )
    return result.rowcount


def _is(session: StoreSession, scope: str, key_hash: str) -> tuple[Any, ...]:
    return (
        idempotency.c.environment_id == session.environment_id,
        idempotency.c.scope == scope,
        idempotency.c.key_hash == key_hash,
    )
