"""How a subscription ends: at once or at its date, with what is still owed, credited or released."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.errors import invalid
from plangate.sandbox.periods import checked_instant
from plangate.sandbox.world import World

from .collecting import pay_now, void
from .invoicing import draft_invoice, keep_for_later, pending_lines
from .lines import is_metered, share_line, usage_line

Obj = dict[str, Any]


def end_subscription(
    world: World,
    subscription: Obj,
    *,
    status: str = "canceled",
    prorates: bool = False,
    invoices_now: bool = False,
    reason: str = "cancellation_requested",
) -> None:
    """End a subscription now.

    ``prorates`` credited_lines unused time (kept for a next invoice unless ``invoices_now``); usage not billed yet is
    invoiced only with ``invoices_now``. An attached schedule ends with it.
    """
    now = world.now()
    schedule = world.store.get("subscription_schedule", subscription["schedule"])
    credited_lines = credit_lines(world, subscription, at=now) if prorates else []
    clear_pending_update(world, subscription)
    with world.changing(subscription, None):
        subscription["status"] = status
        subscription["ended_at"] = now
        subscription["canceled_at"] = subscription["canceled_at"] or now
        details = subscription["cancellation_details"]
        details["reason"] = details["reason"] or reason
        if schedule is not None:
            subscription["schedule"] = None
    if schedule is not None and schedule["status"] in ("active", "not_started"):
        with world.changing(schedule, None):
            schedule["status"] = "canceled"
            schedule["canceled_at"] = now
            schedule["current_phase"] = None
        world.emit("subscription_schedule.canceled", schedule)
    for invoice in world.store.all("invoice"):
        details = (invoice["parent"] or {}).get("subscription_details") or {}
        if details.get("subscription") == subscription["id"] and invoice["status"] in ("draft", "open"):
            with world.changing(invoice, "invoice.updated"):
                invoice["auto_advance"] = False
                invoice["automatically_finalizes_at"] = None
                invoice["next_payment_attempt"] = None
    if invoices_now:
        usage = [
            usage_line(world, subscription, item, start=item["current_period_start"], end=now)
            for item in subscription["_items"]
            if is_metered(world, item)
        ]
        if credited_lines or usage or pending_lines(world, subscription):
            customer = world.require("customer", subscription["customer"])
            invoice = draft_invoice(
                world,
                customer=customer,
                subscription=subscription,
                lines=[*credited_lines, *usage],
                reason="subscription_update",
            )
            with world.changing(subscription, None):
                subscription["latest_invoice"] = invoice["id"]
            pay_now(world, invoice)
    elif credited_lines:
        keep_for_later(world, subscription, credited_lines)
    world.emit("customer.subscription.deleted", subscription)


def cancel_waiting(world: World, schedule: Obj) -> None:
    """End a schedule whose subscription has not begun."""
    with world.changing(schedule, None):
        schedule["status"] = "canceled"
        schedule["canceled_at"] = world.now()
    world.emit("subscription_schedule.canceled", schedule)


def credit_lines(world: World, subscription: Obj, *, at: int) -> list[Obj]:
    """Unused time of every item that was paid in advance."""
    if subscription["status"] in ("trialing", "incomplete"):
        return []
    lines = [
        share_line(world, subscription, item, since=at, is_credit=True)
        for item in subscription["_items"]
        if not is_metered(world, item) and item["current_period_end"] > at
    ]
    return [line for line in lines if line["amount"]]


def expire_incomplete(world: World, subscription: Obj) -> None:
    """The first payment never came: after 23 hours that is the end, and nothing can be updated any more."""
    invoice = world.store.get("invoice", subscription["latest_invoice"])
    if invoice is not None and invoice["status"] == "open":
        void(world, invoice)
    with world.changing(subscription, "customer.subscription.updated"):
        subscription["status"] = "incomplete_expired"
        subscription["ended_at"] = world.now()
        subscription["canceled_at"] = world.now()


def clear_pending_update(world: World, subscription: Obj, *, announces: bool = False) -> None:
    """Give up a change that waits for its payment; its invoice is voided."""
    pending = subscription["_pending"]
    if not pending:
        return
    with world.changing(subscription, "customer.subscription.updated" if announces else None):
        subscription["pending_update"] = None
        subscription["_pending"] = None
    invoice = world.store.get("invoice", pending["invoice"])
    if invoice is not None and invoice["status"] == "open":
        void(world, invoice)
    if announces:
        world.emit("customer.subscription.pending_update_expired", subscription)


def set_end(subscription: Obj, p: Obj, now: int) -> None:
    """Note when a subscription is to end, as the parameters of a create or update say it."""
    ends = [item["current_period_end"] for item in subscription["_items"]]
    if "cancel_at_period_end" in p:
        is_ending = bool(p["cancel_at_period_end"])
        subscription["cancel_at_period_end"] = is_ending
        subscription["cancel_at"] = max(ends) if is_ending else None
        _note_cancellation(subscription, now if is_ending else None)
    elif p.get("cancel_at") is not None:
        wanted = p["cancel_at"]
        named = {"min_period_end": min(ends), "max_period_end": max(ends), "max_billed_until": max(ends)}
        end = None if wanted == "" else named.get(wanted, wanted)
        if end is not None and end <= now:
            raise invalid("Invalid timestamp: must be an integer Unix timestamp in the future.", param="cancel_at")
        subscription["cancel_at"] = end if end is None else checked_instant(end, now=now, param="cancel_at")
        subscription["cancel_at_period_end"] = False
        _note_cancellation(subscription, None if wanted == "" else now)


def _note_cancellation(subscription: Obj, requested_at: int | None) -> None:
    if requested_at is not None:
        subscription["canceled_at"] = requested_at
        subscription["cancellation_details"]["reason"] = "cancellation_requested"
    else:
        subscription["canceled_at"] = None
        subscription["cancellation_details"] = {"comment": None, "feedback": None, "reason": None}
