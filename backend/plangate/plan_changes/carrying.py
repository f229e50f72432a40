"""Carries a saved change out in Stripe, step by step; each step's key and parameters are saved before its first try.

Every step may be repeated: a repetition uses the same key and the same parameters, so Stripe answers what it answered
before. What became of the change is never concluded from these answers but from fetching the company's state again.
"""

from datetime import timedelta
from typing import Any, Final

import msgspec
import structlog

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.gateway import LineItem, reference
from plangate.billing.mirror import CHANGE_METADATA, COMPANY_METADATA, ENVIRONMENT_METADATA
from plangate.billing.schedule import Boundary, scheduled_phases
from plangate.billing.transport import StripeJson
from plangate.change_terms import Action, Terms, scheduled_by
from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.mirroring import Mirrored, buying_customers_of
from plangate.plan_changes.deals import start_later, with_own_price
from plangate.plan_changes.endings import end_now
from plangate.plan_changes.lines import start_items
from plangate.plan_changes.records import moved
from plangate.plan_changes.steps import operations, step
from plangate.plan_changes.trials import asked_on_page, trial_params
from plangate.shapes import Actor, ChangeState, NextAction
from plangate.store.companies import STRIPE_CUSTOMER_KEY, add_keys, company_row
from plangate.store.plan_changes import (
    PlanChangeRow,
    StripeOperationRow,
    update_change,
)

# Stripe forgets a key after a day; before that a step may be repeated, afterwards only the fetched state counts.
KEY_LIFETIME: Final = timedelta(hours=23)
POLL_SECONDS: Final = 300
_SYSTEM: Final = Actor(kind="system", id="plangate")
_log = structlog.get_logger(__name__)


async def carry_out(env: Environment, row: PlanChangeRow, mirror: Mirrored) -> PlanChangeRow:
    """Make the change in Stripe, from wherever an earlier try stopped. `mirror` was fetched under the lease now held.

    Answers the row, in the state it was left in: it is the next refetch that says whether it was applied. Raises
    `StripeFailure` (and leaves the change to be resumed unless that is final) or Refusal.
    """
    terms = msgspec.convert(row.terms, Terms)
    if row.state == ChangeState.CANCELLING.value:
        await _take_back(env, row, mirror)
        return row
    terms = await with_own_price(env, row, terms)
    suffix = f":r{terms.revision}" if terms.revision else ""
    match terms.action:
        case Action.CHECKOUT:
            return await _check_out(env, row, terms)
        case Action.CREATE:
            return await _create(env, row, terms)
        case Action.UPDATE:
            return await _update(env, row, terms, mirror)
        case Action.SCHEDULE:
            await _schedule(env, row, terms, mirror, suffix=suffix)
        case Action.START_LATER:
            stripe_customer_id = await _customer(env, row)
            await start_later(env, row, terms, stripe_customer_id=stripe_customer_id, marks=marks(env, row))
        case Action.CANCEL_AT_PERIOD_END:
            await _release_ours(env, row, mirror)
            await _cancel_at_period_end(env, row, suffix=suffix)
        case Action.CANCEL_NOW:
            await _release_ours(env, row, mirror)
            await end_now(env, row, terms, mirror)
        case Action.KEEP:
            await _take_back(env, row, mirror)
    return row


async def clear_up(env: Environment, row: PlanChangeRow, mirror: Mirrored) -> None:
    """Release the schedule that an unfinished change of ours left behind: without its phases, or yet to start."""
    orphan = _orphan(await operations(env, row), row, mirror) or scheduled_by(row.id, mirror.schedules)
    if orphan is not None:
        await _release(env, row, orphan["id"], "release_orphan")


async def put_back(env: Environment, row: PlanChangeRow) -> None:
    """Schedule a change once more, after an upgrade that took it away came to nothing."""
    terms = msgspec.convert(row.terms, Terms)
    suffix = f":again{row.attempts + 1}r{terms.revision}"
    async with env.writing() as session:
        await update_change(session, row.id, attempts=row.attempts + 1)
    if terms.action is Action.CANCEL_AT_PERIOD_END:
        await _cancel_at_period_end(env, row, suffix=suffix)
    elif terms.action is Action.SCHEDULE:
        await _schedule(env, row, terms, Mirrored(company_id=row.company_id, facts=()), suffix=suffix)


async def _cancel_at_period_end(env: Environment, row: PlanChangeRow, *, suffix: str) -> None:
    await step(
        env,
        row,
        f"cancel_at_period_end{suffix}",
        {"metadata": marks(env, row)},
        lambda params, key: env.gateway.cancel_at_period_end(
            _subscription_id(row), metadata=params["metadata"], idempotency_key=key
        ),
    )


def marks(env: Environment, row: PlanChangeRow) -> dict[str, str]:
    """The metadata by which finance, and a later fetch, find the company and the change behind a Stripe object."""
    plan, version = row.target.get("plan"), row.target.get("version")
    named = {"plangate_plan": f"{plan}@{version}"} if plan is not None and version is not None else {}
    return {
        COMPANY_METADATA: row.company_id,
        ENVIRONMENT_METADATA: env.id,
        CHANGE_METADATA: row.id,
        **named,
    }


async def _check_out(env: Environment, row: PlanChangeRow, terms: Terms) -> PlanChangeRow:
    """Open the hosted page; the session's id is kept here, so nobody can bring a foreign one back to us."""
    if row.return_url is None:
        raise Refusal(Code.INVALID, "The customer pays on Stripe's page: send the return_url to come back to.")
    stripe_customer_id = await _customer(env, row)
    session = await step(
        env,
        row,
        "checkout",
        {
            "customer": stripe_customer_id,
            "metadata": marks(env, row),
            "return_url": row.return_url,
            "trial": trial_params(terms),
            "asking": asked_on_page((await env.catalog()).settings.checkout, is_trial=terms.trial_days > 0),
        },
        lambda params, key: env.gateway.create_checkout_session(
            stripe_customer_id=params["customer"],
            items=[LineItem(line.stripe_price_id, line.quantity) for line in terms.lines],
            success_url=params["return_url"],
            cancel_url=params["return_url"],
            subscription_metadata=params["metadata"],
            client_reference_id=row.id,
            asking=params["asking"],
            trial=params["trial"],
            promotion_code=terms.promotion_code,
            idempotency_key=key,
        ),
        keep=("id", "url"),
    )
    return await moved(
        env,
        row,
        ChangeState.AWAITING_PAYMENT,
        actor=_SYSTEM,
        stripe_customer_id=stripe_customer_id,
        stripe_checkout_session_id=session["id"],
        next_action=msgspec.to_builtins(NextAction(kind="checkout", url=session["url"])),
        available_at=wall_now() + timedelta(seconds=POLL_SECONDS),
    )


async def _create(env: Environment, row: PlanChangeRow, terms: Terms) -> PlanChangeRow:
    """Start the subscription with the card on file; without one, or when the bank asks, on the hosted page instead."""
    stripe_customer_id = await _customer(env, row)
    params: StripeJson = {
        "customer": stripe_customer_id,
        "items": start_items(terms.lines),
        "metadata": marks(env, row),
        **trial_params(terms),
        **terms.collection,
    }
    if terms.collection.get("collection_method") != "send_invoice":
        method = await env.gateway.default_payment_method(stripe_customer_id)
        if method is None:
            return await _check_out(env, row, terms)
        params |= {"default_payment_method": method, "payment_behavior": "error_if_incomplete"}
    if terms.promotion_code is not None:
        params["discounts"] = [{"promotion_code": terms.promotion_code}]
    try:
        await step(
            env, row, "create", params, lambda sent, key: env.gateway.create_subscription(sent, idempotency_key=key)
        )
    except StripeFailure as failure:
        if failure.kind is not FailureKind.NEEDS_ACTION or row.return_url is None:
            raise
        return await _check_out(env, row, terms)
    return row


async def _update(env: Environment, row: PlanChangeRow, terms: Terms, mirror: Mirrored) -> PlanChangeRow:
    """Change the running subscription. A schedule of ours goes first, or its later phase would undo the change."""
    await _release_ours(env, row, mirror)
    raw = mirror.raw(_subscription_id(row)) or {}
    params: StripeJson = {
        **terms.params,
        **terms.collection,
        "metadata": marks(env, row),
        **(_kept_params(raw) if terms.is_end_undone else {}),
    }
    collected = terms.collection.get("collection_method", raw.get("collection_method"))
    if collected == "charge_automatically" and (terms.is_trial_over or raw.get("status") != "trialing"):
        # A declined card leaves everything as it was.
        params["payment_behavior"] = "error_if_incomplete"
    try:
        await step(env, row, "update", params, lambda sent, key: _updated(env, row, sent, key))
    except StripeFailure as failure:
        if failure.kind is not FailureKind.NEEDS_ACTION or terms.is_unattended:
            raise
        return await _update_pending(env, row, terms, raw)
    return row


async def _update_pending(env: Environment, row: PlanChangeRow, terms: Terms, raw: StripeJson) -> PlanChangeRow:
    """Leave the change pending until the customer has confirmed the payment with the bank."""
    if terms.is_end_undone and (kept := _kept_params(raw)):
        await step(env, row, "keep", kept, lambda sent, key: _updated(env, row, sent, key))
    params = {**terms.params, "payment_behavior": "pending_if_incomplete"}
    updated = await step(
        env,
        row,
        "update_pending",
        params,
        lambda sent, key: _updated(env, row, sent, key),
        keep=("id", "pending_update", "latest_invoice"),
    )
    invoice = updated.get("latest_invoice")
    if updated.get("pending_update") is None or not isinstance(invoice, dict):
        return row
    action = NextAction(kind="authenticate", url=invoice["hosted_invoice_url"])
    return await moved(
        env,
        row,
        ChangeState.REQUIRES_ACTION,
        actor=_SYSTEM,
        next_action=msgspec.to_builtins(action),
        available_at=wall_now() + timedelta(seconds=POLL_SECONDS),
    )


async def _schedule(env: Environment, row: PlanChangeRow, terms: Terms, mirror: Mirrored, *, suffix: str = "") -> None:
    """Attach a schedule (or take ours that is attached) and write both phases into it.

    Stripe takes `from_subscription` alone, so a schedule without phases exists between the two calls. It has no mark
    of ours then: what tells it from a foreign one is that this change has begun to create one.
    """
    stripe_subscription_id = _subscription_id(row)
    raw = mirror.raw(stripe_subscription_id)
    if raw is not None and terms.is_end_undone and (kept := _kept_params(raw)):
        # A schedule cannot be attached to a subscription that is set to end.
        await step(env, row, f"keep{suffix}", kept, lambda sent, key: _updated(env, row, sent, key))
    attached = _attached(row, mirror)
    if attached is not None and not _is_ours(attached) and _orphan(await operations(env, row), row, mirror) is None:
        raise Refusal(
            Code.FOREIGN_SCHEDULE,
            "Another system schedules changes of this subscription: release its schedule in Stripe first.",
        )
    if attached is None:
        created = await step(
            env,
            row,
            f"schedule_create{suffix}",
            {},
            lambda _params, key: env.gateway.schedules.create(stripe_subscription_id, idempotency_key=key),
        )
        attached = await env.gateway.schedules.fetch(created["id"])
        if attached is None:
            raise LookupError(f"schedule {created['id']} vanished")
    boundary = Boundary(terms.boundary or 0, terms.interval, terms.interval_count, terms.is_interval_changed)
    params = scheduled_phases(
        attached,
        [LineItem(line.stripe_price_id, line.quantity) for line in terms.lines],
        boundary=boundary,
        metadata=marks(env, row),
        promotion_code=terms.promotion_code,
        subscription=raw,
        collection=terms.collection,
    )
    stripe_schedule_id: str = attached["id"]
    try:
        await step(
            env,
            row,
            f"schedule_phases{suffix}",
            params,
            lambda sent, key: env.gateway.schedules.update(stripe_schedule_id, sent, idempotency_key=key),
        )
    except StripeFailure as failure:
        if failure.is_final and not _is_ours(attached):
            await _release(env, row, stripe_schedule_id, f"release_refused{suffix}")
        raise
    async with env.writing() as session:
        await update_change(session, row.id, stripe_schedule_id=stripe_schedule_id)


async def _take_back(env: Environment, row: PlanChangeRow, mirror: Mirrored) -> None:
    """Release our schedule, and undo a scheduled end, whichever of them is there."""
    if msgspec.convert(row.terms, Terms).action is Action.START_LATER:
        waiting = scheduled_by(row.id, mirror.schedules)
        if waiting is not None and waiting.get("subscription") is None:
            await _release(env, row, waiting["id"], "release")
        return
    await _release_ours(env, row, mirror)
    raw = mirror.raw(_subscription_id(row))
    if raw is not None and _kept_params(raw):
        await step(
            env,
            row,
            "undo_cancel",
            {},
            lambda _params, key: env.gateway.undo_cancel(raw, idempotency_key=key),
        )


async def _release_ours(env: Environment, row: PlanChangeRow, mirror: Mirrored) -> None:
    attached = _attached(row, mirror)
    if attached is None:
        return
    if not _is_ours(attached):
        raise Refusal(
            Code.FOREIGN_SCHEDULE,
            "Another system schedules changes of this subscription: release its schedule in Stripe first.",
        )
    await _release(env, row, attached["id"], "release")


async def _release(env: Environment, row: PlanChangeRow, stripe_schedule_id: str, name: str) -> None:
    await step(
        env,
        row,
        f"{name}:{stripe_schedule_id}",
        {},
        lambda _params, key: env.gateway.schedules.release(stripe_schedule_id, idempotency_key=key),
    )


async def _customer(env: Environment, row: PlanChangeRow) -> str:
    """The company's Stripe customer, created and linked when it has none."""
    async with env.reading() as session:
        known = await buying_customers_of(session, row.company_id)
        company = await company_row(session, row.company_id)
    if row.stripe_customer_id is not None:
        return row.stripe_customer_id
    if known:
        return known[0]
    created = await step(
        env,
        row,
        "customer",
        {
            "name": company.name if company is not None else None,
            "metadata": {COMPANY_METADATA: row.company_id, ENVIRONMENT_METADATA: env.id},
        },
        lambda params, key: env.gateway.create_customer(
            name=params["name"], email=None, metadata=params["metadata"], idempotency_key=key
        ),
    )
    stripe_customer_id: str = created["id"]
    async with env.writing() as session:
        if stripe_customer_id not in await buying_customers_of(session, row.company_id):
            await add_keys(session, row.company_id, [(STRIPE_CUSTOMER_KEY, stripe_customer_id)])
        await update_change(session, row.id, stripe_customer_id=stripe_customer_id)
        await env.touch(session, row.company_id)
    return stripe_customer_id


async def _updated(env: Environment, row: PlanChangeRow, params: StripeJson, key: str) -> StripeJson:
    return await env.gateway.update_subscription(_subscription_id(row), params, idempotency_key=key)


def _kept_params(raw: StripeJson) -> dict[str, Any]:
    """What takes a scheduled end back, in the way it was set; nothing when none is set."""
    if raw.get("cancel_at_period_end"):
        return {"cancel_at_period_end": False}
    return {"cancel_at": ""} if raw.get("cancel_at") is not None else {}


def _attached(row: PlanChangeRow, mirror: Mirrored) -> StripeJson | None:
    """The schedule in force that manages the subscription of this change."""
    for schedule in mirror.schedules:
        if reference(schedule.get("subscription")) == row.stripe_subscription_id:
            return schedule
    return None


def _is_ours(schedule: StripeJson) -> bool:
    metadata = schedule.get("metadata") or {}
    return CHANGE_METADATA in metadata or COMPANY_METADATA in metadata


def _orphan(operations: dict[str, StripeOperationRow], row: PlanChangeRow, mirror: Mirrored) -> StripeJson | None:
    """The bare schedule that this change began to create, if it is attached."""
    attached = _attached(row, mirror)
    has_begun = any(step.startswith("schedule_create") for step in operations)
    if attached is None or not has_begun or _is_ours(attached) or len(attached["phases"]) > 1:
        return None
    return attached


def _subscription_id(row: PlanChangeRow) -> str:
    if row.stripe_subscription_id is None:
        raise LookupError(f"plan change {row.id} names no subscription")
    return row.stripe_subscription_id
