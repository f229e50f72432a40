"""What is still open when another change is confirmed: answered with itself, given up for the other, or in the way."""

from enum import Enum

import msgspec

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.change_terms import Action, Terms
from plangate.engine.catalog import Catalog
from plangate.engine.holding import Holding
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.ids import new_id
from plangate.plan_changes.preview import Proposal
from plangate.plan_changes.records import moved, side
from plangate.plan_changes.steps import operations
from plangate.shapes import Actor, ChangeState
from plangate.store.plan_changes import PlanChangeRow, changes_in

UNDER_WAY = ("requested", "applying", "cancelling")
WAITING = ("awaiting_payment", "requires_action")
_SYSTEM = Actor(kind="system", id="plangate")


class Room(Enum):
    """Whether a change may be made now, or what the company has is to be looked at once more first."""

    FREE = "free"
    MOVED = "moved"


async def make_room(env: Environment, company_id: str, proposal: Proposal) -> PlanChangeRow | Room:
    """See to changes that wait for the customer; the very same one asked for again is answered as it is.

    The page of another is closed, so that it can no longer be paid beside the new one; a payment the bank has not
    agreed to is given up. Raises Refusal (change_in_progress) for a change that is being made.
    """
    async with env.reading() as session:
        rows = await changes_in(session, company_id, (*UNDER_WAY, *WAITING))
    target = msgspec.to_builtins(side(resolved(await env.catalog(), proposal.target)))
    room = Room.FREE
    for row in rows:
        is_same = _is_same(row, target, proposal)
        if row.state == ChangeState.AWAITING_PAYMENT.value and row.stripe_checkout_session_id is not None:
            page = await env.gateway.fetch_checkout_session(row.stripe_checkout_session_id)
            status = "expired" if page is None else page["status"]
            if status == "open" and is_same and proposal.drafted.terms.action is Action.CHECKOUT:
                return row
            if status == "complete" or (status == "open" and not await is_closed(env, row.stripe_checkout_session_id)):
                room = Room.MOVED  # What was paid for meanwhile is not bought beside (S26).
            else:
                await moved(env, row, ChangeState.CANCELLED, actor=_SYSTEM, next_action=None)
        elif row.state == ChangeState.REQUIRES_ACTION.value:
            if is_same:
                return row
            await _give_up_payment(env, row)
            room = Room.MOVED
        else:
            raise in_progress(row)
    return room


def in_progress(row: PlanChangeRow | None = None) -> Refusal:
    """The refusal of a change beside another one."""
    extra = {} if row is None else {"change": row.id, "next_action": row.next_action}
    return Refusal(
        Code.CHANGE_IN_PROGRESS, "Another change is under way; finish it, or wait a moment and try again.", extra=extra
    )


def resolved(catalog: Catalog, holding: Holding) -> Holding:
    """The holding with the version it means, so that a later publication does not change what was recorded."""
    if holding.plan is None or holding.version is not None:
        return holding
    newest = catalog.newest("plan", holding.plan)
    return holding if newest is None else msgspec.structs.replace(holding, version=newest.version)


def _is_same(row: PlanChangeRow, target: object, proposal: Proposal) -> bool:
    """Whether an open change is what is asked for now."""
    begun, asked = (
        (terms.promotion_code, terms.trial_end, terms.is_trial_over)
        for terms in (msgspec.convert(row.terms, Terms), proposal.drafted.terms)
    )
    return (row.kind, row.target, begun) == (proposal.quote.kind.value, target, asked)


async def is_closed(env: Environment, stripe_session_id: str) -> bool:
    """Close an open page; False when somebody was faster and paid.

    The page was looked at just before, so each try has a key of its own: a failed one is not answered for a day.
    """
    try:
        await env.gateway.expire_checkout_session(stripe_session_id, idempotency_key=new_id("expire"))
    except StripeFailure as failure:
        if failure.kind is FailureKind.REFUSED:
            return False
        raise
    return True


async def _give_up_payment(env: Environment, row: PlanChangeRow) -> None:
    """Void the invoice the bank has not agreed to: Stripe drops the update that waits for it.

    What became of the change is for the next fetch to say: somebody may just have paid.
    """
    begun = (await operations(env, row)).get("update_pending")
    invoice = None if begun is None else (begun.result or {}).get("latest_invoice")
    if not isinstance(invoice, dict):
        raise in_progress(row)
    try:
        await env.gateway.void_invoice(invoice["id"], idempotency_key=new_id("void"))
    except StripeFailure as failure:
        if failure.kind is not FailureKind.REFUSED:
            raise
