"""What time does to a subscription: trials end, periods roll over, pauses and cancellations come due."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.clock import DAY
from plangate.sandbox.periods import period_at
from plangate.sandbox.world import World

from .changes import PENDING_SECONDS, open_cycle
from .collecting import collect, finalize, void, write_off
from .ending import clear_pending_update, end_subscription, expire_incomplete
from .invoicing import draft_invoice
from .lines import interval_of, is_metered, period_line, usage_line
from .standing import after_failed, subscription_of

Obj = dict[str, Any]

TRIAL_NOTICE_SECONDS = 3 * DAY
INCOMPLETE_SECONDS = PENDING_SECONDS
_RENEWS = ("active", "past_due", "unpaid")


def subscription_due(subscription: Obj) -> int | None:
    """The next instant at which a subscription changes by itself."""
    if subscription["ended_at"] is not None:
        return None
    if subscription["status"] == "incomplete":
        return int(subscription["created"] + INCOMPLETE_SECONDS)
    dates = [subscription["cancel_at"]]
    if subscription["pending_update"]:
        dates.append(subscription["pending_update"]["expires_at"])
    if subscription["status"] == "trialing":
        if not subscription["_trial_notice_sent"]:
            dates.append(max(subscription["trial_end"] - TRIAL_NOTICE_SECONDS, subscription["created"]))
        dates.append(subscription["trial_end"])
    elif subscription["status"] in _RENEWS:
        dates += [item["current_period_end"] for item in subscription["_items"]]
    pause = subscription["pause_collection"]
    if pause and pause["resumes_at"]:
        dates.append(pause["resumes_at"])
    known = [date for date in dates if date is not None]
    return min(known) if known else None


def act_on_subscription(world: World, subscription: Obj) -> None:
    """Do whatever is due on a subscription at this instant."""
    now = world.now()
    if subscription["status"] == "incomplete":
        expire_incomplete(world, subscription)
        return
    pending = subscription["pending_update"]
    if pending and pending["expires_at"] <= now:
        clear_pending_update(world, subscription, announces=True)
    pause = subscription["pause_collection"]
    if pause and pause["resumes_at"] and pause["resumes_at"] <= now:
        with world.changing(subscription, "customer.subscription.updated"):
            subscription["pause_collection"] = None
    if subscription["cancel_at"] is not None and subscription["cancel_at"] <= now:
        end_subscription(world, subscription, invoices_now=True)
    elif subscription["status"] == "trialing":
        _act_on_trial(world, subscription)
    elif subscription["status"] in _RENEWS:
        renew(world, subscription)


def renew(world: World, subscription: Obj) -> None:
    """Roll over items whose period is done: usage billed behind, the next period ahead, an invoice in draft."""
    now = world.now()
    due = [item for item in subscription["_items"] if item["current_period_end"] <= now]
    if not due:
        return
    old_start, old_end = due[0]["current_period_start"], due[0]["current_period_end"]
    arrears, ahead = [], []
    with world.changing(subscription, "customer.subscription.updated"):
        for item in due:
            start, end = item["current_period_start"], item["current_period_end"]
            interval, count = interval_of(world, item)
            if is_metered(world, item) and not item.pop("_is_fresh", False):
                arrears.append(usage_line(world, subscription, item, start=start, end=end))
            item["current_period_start"], item["current_period_end"] = period_at(
                subscription["billing_cycle_anchor"], interval, count, now
            )
            if not is_metered(world, item):
                ahead.append(
                    period_line(
                        world,
                        subscription,
                        item,
                        start=item["current_period_start"],
                        end=item["current_period_end"],
                    )
                )
    customer = world.require("customer", subscription["customer"])
    invoice = draft_invoice(
        world,
        customer=customer,
        subscription=subscription,
        lines=[*arrears, *ahead],
        reason="subscription_cycle",
        period=(old_start, old_end),
    )
    with world.changing(subscription, "customer.subscription.updated"):
        subscription["latest_invoice"] = invoice["id"]
    with world.changing(invoice, None):
        if (
            subscription["status"] == "unpaid"
            or (subscription["pause_collection"] or {}).get("behavior") == "keep_as_draft"
        ):
            invoice["auto_advance"] = False
        else:
            invoice["automatically_finalizes_at"] = now + world.config.draft_seconds


def invoice_due(invoice: Obj) -> int | None:
    """The next instant at which an invoice moves by itself."""
    if invoice["status"] == "draft" and invoice["auto_advance"]:
        due = invoice["automatically_finalizes_at"]
    elif invoice["status"] == "open" and invoice["collection_method"] == "send_invoice":
        due = None if invoice.get("_is_overdue") else invoice["due_date"]
    elif invoice["status"] == "open":
        due = invoice["next_payment_attempt"]
    else:
        due = None
    return int(due) if due is not None else None


def act_on_invoice(world: World, invoice: Obj) -> None:
    """Finalize and charge a draft whose hour is over, or charge again; the last failure has consequences.

    An invoice that was sent makes its subscription past due when its due date comes.
    """
    subscription = subscription_of(world, invoice)
    if invoice["status"] == "draft":
        finalize(world, invoice)
        pause = (subscription or {}).get("pause_collection")
        if invoice["status"] == "open" and pause:
            (void if pause["behavior"] == "void" else write_off)(world, invoice)
        elif invoice["status"] == "open" and invoice["collection_method"] == "charge_automatically":
            collect(world, invoice)
        elif invoice["status"] == "open":
            world.emit("invoice.sent", invoice)
        return
    if invoice["collection_method"] == "send_invoice":
        with world.changing(invoice, None):
            invoice["_is_overdue"] = True
        after_failed(world, invoice)
        return
    collected = collect(world, invoice)
    if collected == "paid" or invoice["next_payment_attempt"] is not None or subscription is None:
        return
    if subscription["status"] != "past_due":
        return
    if world.config.after_retries == "cancel":
        end_subscription(world, subscription, reason="payment_failed")
    elif world.config.after_retries == "unpaid":
        with world.changing(subscription, "customer.subscription.updated"):
            subscription["status"] = "unpaid"


def _act_on_trial(world: World, subscription: Obj) -> None:
    now = world.now()
    if subscription["trial_end"] > now:
        with world.changing(subscription, None):
            subscription["_trial_notice_sent"] = True
        world.emit("customer.subscription.trial_will_end", subscription)
        return
    behavior = ((subscription["trial_settings"] or {}).get("end_behavior") or {}).get(
        "missing_payment_method", "create_invoice"
    )
    customer = world.require("customer", subscription["customer"])
    has_method = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    if not has_method and behavior == "cancel":
        end_subscription(world, subscription)
        return
    if not has_method and behavior == "pause":
        with world.changing(subscription, None):
            subscription["status"] = "paused"
        world.emit("customer.subscription.paused", subscription)
        return
    end_trial(world, subscription)


def end_trial(world: World, subscription: Obj) -> None:
    """The first paid period starts where the trial ends."""
    now = world.now()
    start = subscription["_items"][0]["current_period_start"]
    with world.changing(subscription, "customer.subscription.updated"):
        subscription["status"] = "active"
        subscription["billing_cycle_anchor"] = now
        lines = open_cycle(world, subscription, subscription["_items"], now)
    customer = world.require("customer", subscription["customer"])
    invoice = draft_invoice(
        world,
        customer=customer,
        subscription=subscription,
        lines=lines,
        reason="subscription_cycle",
        period=(start, now),
    )
    with world.changing(subscription, "customer.subscription.updated"):
        subscription["latest_invoice"] = invoice["id"]
    with world.changing(invoice, None):
        invoice["automatically_finalizes_at"] = now + world.config.draft_seconds
