"""Schedules at work: entering phases, carrying them out on the subscription, releasing it at the end."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.errors import invalid
from plangate.sandbox.periods import boundary
from plangate.sandbox.routing import merged_metadata
from plangate.sandbox.world import World

from .changes import (
    apply_change,
    charge_change,
    check_rows,
    checked_quantity,
    new_item,
    plan_change,
)
from .discounts import discount_ids
from .ending import end_subscription
from .invoicing import keep_for_later
from .lines import interval_of, is_metered, usage_line
from .starting import start_subscription

Obj = dict[str, Any]


def advance_schedule(world: World, schedule: Obj) -> None:
    """The current phase is over, or the first one starts: enter the next, or finish."""
    now = world.now()
    following = next((p for p in schedule["phases"] if p["start_date"] <= now < p["end_date"]), None)
    if following is None:
        finish_schedule(world, schedule)
        return
    with world.changing(schedule, None):
        schedule["status"] = "active"
        schedule["current_phase"] = {"start_date": following["start_date"], "end_date": following["end_date"]}
    if schedule["subscription"] is None:
        start_scheduled_subscription(world, schedule, following)
    else:
        carry_out(world, schedule, following, behavior=following["proration_behavior"])
    world.emit("subscription_schedule.updated", schedule)


def finish_schedule(world: World, schedule: Obj) -> None:
    """The last phase is over: cancel the subscription, or let it go on by itself."""
    subscription = world.store.get("subscription", schedule["subscription"])
    if schedule["end_behavior"] == "cancel" or subscription is None or subscription["ended_at"] is not None:
        with world.changing(schedule, None):
            schedule["status"] = "completed"
            schedule["completed_at"] = world.now()
            schedule["current_phase"] = None
        if subscription is not None and subscription["ended_at"] is None:
            end_subscription(world, subscription, invoices_now=True)
        world.emit("subscription_schedule.completed", schedule)
        return
    release_schedule(world, schedule)


def release_schedule(world: World, schedule: Obj) -> None:
    """Detach a schedule: the subscription keeps what it has."""
    subscription = world.store.get("subscription", schedule["subscription"])
    with world.changing(schedule, None):
        schedule["status"] = "released"
        schedule["released_at"] = world.now()
        schedule["released_subscription"] = schedule["subscription"]
        schedule["subscription"] = None
        schedule["current_phase"] = None
    if subscription is not None:
        with world.changing(subscription, "customer.subscription.updated"):
            subscription["schedule"] = None
    world.emit("subscription_schedule.released", schedule)


def start_scheduled_subscription(world: World, schedule: Obj, phase: Obj) -> None:
    """A schedule that waited for its day makes its subscription."""
    settings = schedule["default_settings"]
    method = phase["default_payment_method"] or settings["default_payment_method"]
    subscription = start_subscription(
        world,
        {
            "customer": schedule["customer"],
            "items": [{k: row[k] for k in ("price", "quantity", "metadata") if row.get(k)} for row in phase["items"]],
            "metadata": phase["metadata"],
            "default_payment_method": method,
            "collection_method": phase["collection_method"] or settings["collection_method"],
            "days_until_due": _days_until_due(phase, settings),
            "billing_mode": {"type": schedule["billing_mode"]["type"]},
            "currency": phase["currency"],
            "discounts": phase["discounts"] or None,
            "trial_end": phase["trial_end"],
            "payment_behavior": "allow_incomplete" if method or _default_of(world, schedule) else "default_incomplete",
        },
        pays_now=True,
        is_agreed=True,
    )
    with world.changing(subscription, "customer.subscription.updated"):
        subscription["schedule"] = schedule["id"]
    with world.changing(schedule, None):
        schedule["subscription"] = subscription["id"]


def _days_until_due(phase: Obj, settings: Obj) -> int | None:
    for given in (phase, settings):
        days = (given.get("invoice_settings") or {}).get("days_until_due")
        if days is not None:
            return int(days)
    return None


def carry_out(world: World, schedule: Obj, phase: Obj, *, behavior: str) -> None:
    """Make the subscription what a phase says: items, discounts, tax, metadata, trial, payment settings."""
    subscription = world.require("subscription", schedule["subscription"])
    if subscription["ended_at"] is not None:
        return
    now = world.now()
    rows = phase_rows(world, subscription, phase)
    with world.changing(subscription, "customer.subscription.updated"):
        if phase["metadata"]:
            subscription["metadata"] = merged_metadata(subscription["metadata"], phase["metadata"])
        subscription["default_tax_rates"] = list(phase["default_tax_rates"] or [])
        subscription["discounts"] = discount_ids(world, subscription, phase["discounts"])
        for name in ("default_payment_method", "collection_method", "description"):
            if phase[name]:
                subscription[name] = phase[name]
        days = _days_until_due(phase, schedule["default_settings"])
        if subscription["collection_method"] != "send_invoice":
            subscription["days_until_due"] = None
        elif days is not None:
            subscription["days_until_due"] = days
        at_boundary = all(item["current_period_end"] <= now for item in subscription["_items"])
        if at_boundary:
            _swap_at_boundary(world, subscription, rows, phase)
    if at_boundary:
        return
    trial_end = phase["trial_end"]
    ends_trial = subscription["status"] == "trialing" and not phase["trial"] and trial_end is None
    restarts = phase["billing_cycle_anchor"] == "phase_start" and phase["start_date"] == now
    keeps_trial = trial_end in (None, subscription["trial_end"])
    if not _differs(subscription, rows) and not ends_trial and not restarts and keeps_trial:
        return
    change = plan_change(
        world,
        subscription,
        rows,
        behavior=behavior,
        at=now,
        restarts=restarts,
        trial_end=now if ends_trial else (trial_end if trial_end != subscription["trial_end"] else None),
    )
    charge_change(
        world,
        subscription,
        change,
        behavior=behavior,
        payment_behavior="allow_incomplete" if _has_method(world, subscription) else "default_incomplete",
        proration_date=None,
    )


def phase_rows(world: World, subscription: Obj, phase: Obj) -> list[Obj]:
    """Items of a phase as rows: a price that stays keeps its row and comes first, a new one gets a new row."""
    old = {item["price"]: item for item in subscription["_items"]}
    kept, fresh = [], []
    for number, entry in enumerate(phase["items"]):
        where = f"items[{number}]"
        before = old.get(entry["price"])
        if before is None:
            given = {
                k: v for k, v in entry.items() if k in ("price", "quantity", "metadata", "tax_rates") and v is not None
            }
            row = new_item(world, subscription, given, where, is_agreed=True)
            sibling = subscription["_items"][0]
            row["current_period_start"] = sibling["current_period_start"]
            row["current_period_end"] = sibling["current_period_end"]
            fresh.append(row)
            continue
        row = dict(before)
        row["metadata"] = merged_metadata(row["metadata"], entry.get("metadata"))
        if not is_metered(world, row):
            row["quantity"] = checked_quantity(world, row["price"], entry.get("quantity"), where)
            row["quantity"] = 1 if row["quantity"] is None else row["quantity"]
        kept.append(row)
    rows = [*kept, *fresh]
    if not rows:
        raise invalid("A phase must have at least one item.", param="phases[0][items]")
    check_rows(world, subscription, rows, "items")
    return rows


def _swap_at_boundary(world: World, subscription: Obj, rows: list[Obj], phase: Obj) -> None:
    now = world.now()
    before = {interval_of(world, item) for item in subscription["_items"]}
    if phase["billing_cycle_anchor"] == "phase_start":
        subscription["billing_cycle_anchor"] = now
    kept = {row["id"] for row in rows}
    gone = [item for item in subscription["_items"] if item["id"] not in kept and is_metered(world, item)]
    if gone:
        # What was used is paid at the price it was used under, on the invoice of the boundary.
        arrears = [
            usage_line(world, subscription, item, start=item["current_period_start"], end=item["current_period_end"])
            for item in gone
        ]
        keep_for_later(world, subscription, [line for line in arrears if line["amount"]])
    for row in rows:
        if is_metered(world, row) and row["id"] not in {item["id"] for item in subscription["_items"]}:
            # It counts from now on: the renewal that comes gives it a period, and bills nothing for the one before.
            row["_is_fresh"] = True
        elif interval_of(world, row) not in before and phase["billing_cycle_anchor"] != "phase_start":
            # Without `phase_start` the new interval begins, and its first period is never collected.
            interval, count = interval_of(world, row)
            row["current_period_start"] = now
            row["current_period_end"] = boundary(now, interval, count, 1)
    subscription["_items"] = rows
    if phase["trial_end"] and phase["trial_end"] > now:
        change = plan_change(world, subscription, rows, behavior="none", at=now, trial_end=phase["trial_end"])
        apply_change(world, subscription, change)


def _differs(subscription: Obj, rows: list[Obj]) -> bool:
    def shape(items: list[Obj]) -> list[tuple[str, int | None]]:
        return sorted(((i["price"], i["quantity"]) for i in items), key=str)

    return shape(subscription["_items"]) != shape(rows)


def _has_method(world: World, subscription: Obj) -> bool:
    customer = world.require("customer", subscription["customer"])
    return bool(subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"])


def _default_of(world: World, schedule: Obj) -> str | None:
    customer = world.require("customer", schedule["customer"])
    found: str | None = customer["invoice_settings"]["default_payment_method"]
    return found
