"""A Stripe customer that was just linked is fetched at once, so that the answer says what it pays for."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from plangate.billing.transport import within
from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.ids import new_id
from plangate.mirroring import refetch
from plangate.store.database import StoreSession
from plangate.store.inbox import InboxRow, InboxState, settle_event, store_event

LINKED: Final = "plangate.customer.linked"
_FETCH_SECONDS: Final = 4.0
_LEASE_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


async def note_linked(env: Environment, session: StoreSession, stripe_customer_ids: Sequence[str]) -> list[str]:
    """Keep, in the commit that links them, that these customers are still to be fetched; answers what it is kept as.

    The worker does it a little later, should nobody before: the process may end, and Stripe may be slow.
    """
    now = wall_now()
    noted = []
    for stripe_customer_id in stripe_customer_ids:
        row = InboxRow(
            environment_id=env.id,
            stripe_event_id=new_id("link"),
            type=LINKED,
            stripe_object_id=stripe_customer_id,
            stripe_customer_id=stripe_customer_id,
            payload={},
            available_at=now + timedelta(seconds=2 * _FETCH_SECONDS),
            received_at=now,
        )
        await store_event(session, row)
        noted.append(row.stripe_event_id)
    return noted


async def fetch_linked(env: Environment, company_id: str, noted: Sequence[str]) -> None:
    """Fetch what the noted customers hold, in a bounded time; when Stripe does not answer it is left to the worker."""

    settled: list[str] = []

    async def settle(session: StoreSession) -> None:
        for name in noted:
            settle_event(session, name, state=InboxState.PROCESSED, wall_now=wall_now())
        session.after_commit.append(lambda: settled.extend(noted))

    try:
        with within(_FETCH_SECONDS):
            await refetch(env, company_id, wait_seconds=_LEASE_SECONDS, closing=settle)
        if not settled:
            async with env.writing() as session:
                await settle(session)
    except Refusal as refusal:
        _log.info("linked_customer_not_fetched", company=company_id, code=refusal.code.value)
