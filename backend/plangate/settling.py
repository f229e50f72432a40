"""What became of recorded plan changes, as far as what was just fetched can tell; written with the mirror itself.

Pure rules are in `change_terms`. Here they move the saved changes on, in the commit that stores what was fetched.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import structlog

from plangate.billing.transport import StripeJson
from plangate.change_terms import LIVE_STATUSES, Action, Terms, followed, outcome, restored, started_by
from plangate.clock import wall_now
from plangate.engine.facts import SubscriptionFact
from plangate.environment import Environment
from plangate.errors import Code
from plangate.shapes import Actor, ChangeState
from plangate.store.audit import append_audit
from plangate.store.database import StoreSession
from plangate.store.plan_changes import PlanChangeRow, changes_in, update_change

STRIPE = Actor(kind="stripe", id="stripe")
WATCHED = ("applying", "awaiting_payment", "requires_action", "scheduled", "cancelling")
_log = structlog.get_logger(__name__)


class Awaited(msgspec.Struct, frozen=True):
    """What changes wait for: those whose hosted page can no longer be paid, and the schedules that have not begun."""

    closed: frozenset[str]
    schedules: tuple[StripeJson, ...]


async def look_up(env: Environment, watched: Sequence[PlanChangeRow], stripe_customer_ids: Sequence[str]) -> Awaited:
    """Looks up what open changes wait for beside subscriptions.

    Asked before the subscriptions are: a page that was paid by now, and a schedule that began, have theirs in what is
    fetched next.
    """
    closed = {row.id for row in watched if await _is_page_closed(env, row)}
    schedules: list[StripeJson] = []
    if any(row.terms["action"] == Action.START_LATER.value for row in watched):
        for stripe_customer_id in stripe_customer_ids:
            schedules += await env.gateway.schedules.waiting(stripe_customer_id)
    return Awaited(frozenset(closed), tuple(schedules))


async def settle_changes(
    session: StoreSession,
    company_id: str,
    facts: Sequence[SubscriptionFact],
    subscriptions: Sequence[StripeJson],
    awaited: Awaited | None,
) -> bool:
    """Move recorded changes on to what the facts say became of them. Answers whether any moved.

    `awaited` is what the changes wait for; None when nobody looked, and then nothing is concluded from its absence. The
    newest change comes first: one that waits for its date is not over while an upgrade that took it away may still come
    to nothing, and is made again if it does. Of several that were scheduled one after the other, the newest is what the
    schedule holds: it replaced those before it.
    """
    by_id = {fact.stripe_subscription_id: fact for fact in facts}
    open_upgrades: set[str] = set()
    undone_upgrades: set[str] = set()
    scheduled: set[str] = set()
    is_moved = False
    for row in await changes_in(session, company_id, WATCHED):
        terms = msgspec.convert(row.terms, Terms)
        stripe_subscription_id = row.stripe_subscription_id or ""
        fact = by_id.get(stripe_subscription_id)
        reached = outcome(
            terms,
            ChangeState(row.state),
            row.id,
            fact=fact,
            subscriptions=subscriptions,
            schedules=None if awaited is None else awaited.schedules,
        )
        if terms.action is Action.SCHEDULE:
            if row.state == ChangeState.SCHEDULED.value and stripe_subscription_id in scheduled:
                reached = ChangeState.CANCELLED
            elif reached in {ChangeState.SCHEDULED, ChangeState.APPLIED}:
                scheduled.add(stripe_subscription_id)
        if reached is None and awaited is not None and row.id in awaited.closed:
            reached = ChangeState.CANCELLED
        if terms.action is Action.UPDATE:
            if reached is ChangeState.FAILED:
                undone_upgrades.add(stripe_subscription_id)
            elif reached is None or reached.value == row.state:
                open_upgrades.add(stripe_subscription_id)
        if row.state == ChangeState.SCHEDULED.value and reached is ChangeState.CANCELLED and fact is not None:
            if stripe_subscription_id in open_upgrades:
                continue
            if stripe_subscription_id in undone_upgrades and fact.status in LIVE_STATUSES:
                await _write_again(session, row, restored(terms, fact, at=session.now))
                is_moved = True
                continue
        if reached is ChangeState.SCHEDULED and terms.action is Action.SCHEDULE and fact is not None:
            edited = followed(terms, fact)
            if edited is not None:
                await _write_again(session, row, edited)
                is_moved = True
                continue
        if reached is None or reached.value == row.state:
            continue
        await _move(session, row, reached, subscriptions)
        is_moved = True
    return is_moved


async def _is_page_closed(env: Environment, row: PlanChangeRow) -> bool:
    """Whether the hosted page of a change can no longer be paid (S27)."""
    if row.stripe_checkout_session_id is None or row.state != ChangeState.AWAITING_PAYMENT.value:
        return False
    page = await env.gateway.fetch_checkout_session(row.stripe_checkout_session_id)
    return page is None or page["status"] == "expired"


async def _write_again(session: StoreSession, row: PlanChangeRow, terms: Terms) -> None:
    """Let the worker write a scheduled change into Stripe anew; until then it counts as under way."""
    effective_at = row.effective_at if terms.boundary is None else datetime.fromtimestamp(terms.boundary, UTC)
    await update_change(
        session,
        row.id,
        state=ChangeState.APPLYING.value,
        terms=msgspec.to_builtins(terms),
        effective_at=effective_at,
        available_at=wall_now(),
    )


async def _move(
    session: StoreSession, row: PlanChangeRow, reached: ChangeState, subscriptions: Sequence[StripeJson]
) -> None:
    values: dict[str, object] = {"state": reached.value, "next_action": None}
    started = started_by(row.id, subscriptions)
    if started is not None:
        values["stripe_subscription_id"] = started["id"]
    if reached is ChangeState.FAILED:
        detail = "The payment was not confirmed with the bank; nothing was changed."
        values["refusal"] = {"code": Code.PAYMENT_FAILED.value, "detail": detail}
    await update_change(session, row.id, **values)
    await append_audit(
        session,
        actor=STRIPE,
        action=f"plan_change.{reached.value}",
        subject=row.id,
        company_id=row.company_id,
        before={"state": row.state},
        after={"state": reached.value},
    )
    _log.info("plan_change_moved", change=row.id, company=row.company_id, before=row.state, after=reached.value)
