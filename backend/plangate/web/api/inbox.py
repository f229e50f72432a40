"""Webhooks that failed for good, over HTTP: what they were, why, and another try."""

from datetime import datetime
from typing import Final

import msgspec

from plangate.clock import wall_now
from plangate.store.audit import append_audit
from plangate.store.inbox import dead_letters, inbox_figures, revive_events
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.queries import NoQuery
from plangate.web.schemas import RetryBody

_TAG: Final = "Webhooks"
_SHOWN_MAX: Final = 200


class FailedWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook that was tried too often. `reason` is what the last try met."""

    event: str
    type: str
    stripe_customer_id: str | None
    attempts: int
    received_at: datetime
    reason: str


class FailedWebhooks(msgspec.Struct, frozen=True, kw_only=True):
    """The newest webhooks that failed, and how many there are in each state."""

    data: list[FailedWebhook]
    counts: dict[str, int]
    next_cursor: None = None


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """How many will be acted on once more."""

    retried: int


async def list_failed(call: Call[None, None]) -> Answer:
    """What failed, and why."""
    async with call.environment.reading() as session:
        counts = (await inbox_figures(session))["counts"]
        rows = await dead_letters(session, limit=_SHOWN_MAX)
    failed = [
        FailedWebhook(
            event=row.stripe_event_id,
            type=row.type,
            stripe_customer_id=row.stripe_customer_id,
            attempts=row.attempts,
            received_at=row.received_at,
            reason=row.last_error or "",
        )
        for row in rows
    ]
    return Answer(FailedWebhooks(data=failed, counts=counts))


async def retry_failed(call: Call[RetryBody, None]) -> Answer:
    """Let the worker act on them again."""
    env, events = call.environment, call.body.events
    async with env.writing() as session:
        retried = await revive_events(session, events, wall_now=wall_now())
        if retried:
            after = {"events": "all" if events is None else list(events), "retried": retried}
            await append_audit(session, actor=call.actor, action="inbox.retried", subject=env.id, after=after)
    return Answer(Retried(retried=retried))


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/inbox/failed",
        name="listFailedWebhooks",
        tag=_TAG,
        summary="List webhooks that failed for good",
        text="The newest 200, with the reason of the last try, and how many webhooks are in each state.",
        scope="admin",
        answer=list_failed,
        query=NoQuery,
        responses={200: Documented("What failed.", FailedWebhooks)},
    ),
    Operation(
        method="POST",
        path="/v1/inbox/retry",
        name="retryFailedWebhooks",
        tag=_TAG,
        summary="Try failed webhooks again",
        text="Those named in `events`, or all of them without. Safe: what Stripe holds now is "
        "fetched, no payload is used.",
        scope="admin",
        answer=retry_failed,
        body=RetryBody,
        example={"events": ["evt_1NG8Du2eZvKYlo2CUI79vXWy"]},
        responses={200: Documented("How many.", Retried)},
    ),
)
