"""Changing what a subscription holds: which rows it will have, what is prorated and what is invoiced at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from plangate.sandbox.errors import ApiError, invalid
from plangate.sandbox.periods import boundary, period_at
from plangate.sandbox.resources.prices import amounts_in, price_of
from plangate.sandbox.routing import merged_metadata
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .collecting import NO_METHOD, collect, default_method, finalize, payment_error
from .ending import clear_pending_update
from .invoicing import draft_invoice, keep_for_later, pending_lines
from .lines import interval_of, is_metered, period_line, share_line, trial_line, usage_line

Obj = dict[str, Any]

PENDING_SECONDS = 23 * 3600


@dataclass
class Change:
    """What an update would do: the rows afterwards, the lines it causes, and whether the cycle starts anew."""

    items: list[Obj]
    anchor: int
    lines: list[Obj] = field(default_factory=list)
    starts_cycle: bool = False
    trial_end: int | None = None


def wanted_items(world: World, subscription: Obj, given: list[Obj] | None, *, where: str = "items") -> list[Obj]:
    """The subscription's rows after `items` of an update: by id changed or deleted, without id added.

    Raises ApiError 400 for unknown ids, a price twice, other currencies and one-time prices.
    """
    rows = [dict(item) for item in subscription["_items"]]
    for number, entry in enumerate(given or []):
        at = f"{where}[{number}]"
        stripe_id = entry.get("id")
        if stripe_id is None:
            if entry.get("deleted"):
                raise invalid("You must pass the id of the item to delete.", param=f"{at}[id]")
            rows.append(new_item(world, subscription, entry, at))
            continue
        row = next((r for r in rows if r["id"] == stripe_id), None)
        if row is None:
            raise ApiError(400, f"No such subscription_item: '{stripe_id}'", code="resource_missing", param=f"{at}[id]")
        if entry.get("deleted"):
            rows.remove(row)
            continue
        if entry.get("price") or entry.get("price_data") or entry.get("plan"):
            row["price"] = checked_price(world, subscription["currency"], entry, at)["id"]
            if is_metered(world, row):
                row["quantity"] = None
            elif row["quantity"] is None:
                row["quantity"] = 1
        if "quantity" in entry:
            row["quantity"] = checked_quantity(world, row["price"], entry["quantity"], at)
        if "metadata" in entry:
            row["metadata"] = merged_metadata(row["metadata"], entry["metadata"])
        if "tax_rates" in entry:
            row["tax_rates"] = entry["tax_rates"] or []
    if not rows:
        raise invalid("A subscription must have at least one active item.", param=where)
    check_rows(world, subscription, rows, where)
    return rows


def new_item(world: World, subscription: Obj, entry: Obj, where: str, *, is_agreed: bool = False) -> Obj:
    """A row for a price that was not there before; its period comes later.

    One that `is_agreed` was written into a schedule while its price was on sale, and may be archived by now.
    """
    price = checked_price(world, subscription["currency"], entry, where, is_agreed=is_agreed)
    quantity: int | None = entry.get("quantity")
    if (price["recurring"] or {}).get("usage_type") == "metered":
        checked_quantity(world, price["id"], quantity, where)
        quantity = None
    return {
        "id": new_id("si", 14),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": world.now(),
        "current_period_end": 0,
        "current_period_start": 0,
        "discounts": [],
        "metadata": merged_metadata({}, entry.get("metadata")),
        "price": price["id"],
        "quantity": quantity if quantity is not None or is_metered(world, {"price": price["id"]}) else 1,
        "subscription": subscription["id"],
        "tax_rates": entry.get("tax_rates") or [],
    }


def checked_price(world: World, currency: str | None, entry: Obj, where: str, *, is_agreed: bool = False) -> Obj:
    """The price an item names. Raises 400 when it is no recurring price, not for sale or of another currency."""
    price = price_of(world, entry, where)
    if price["type"] != "recurring":
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.",
            param=f"{where}[price]",
        )
    if not price["active"] and not entry.get("price_data") and not is_agreed:
        raise invalid(
            "The price specified is inactive. This field only accepts active prices.", param=f"{where}[price]"
        )
    if currency is not None:
        amounts_in(price, currency)
    return price


def checked_quantity(world: World, stripe_price_id: str, quantity: int | None, where: str) -> int | None:
    """A quantity. Raises 400 below zero, or any at all on a metered price."""
    metered = is_metered(world, {"price": stripe_price_id})
    if metered and quantity is not None:
        raise invalid(
            "You cannot set the quantity for a subscription item whose price is metered.", param=f"{where}[quantity]"
        )
    if quantity is not None and not 0 <= quantity <= 999_999_999:
        raise invalid("This value must be greater than or equal to 0.", param=f"{where}[quantity]")
    return quantity


def check_rows(world: World, subscription: Obj, rows: list[Obj], where: str) -> None:
    """Rules over all rows of a subscription."""
    if len(rows) > 20:
        raise invalid("A subscription can have at most 20 items.", param=where)
    seen: set[str] = set()
    for row in rows:
        if row["price"] in seen:
            raise invalid(f"Cannot add multiple subscription items with the same plan: {row['price']}", param=where)
        seen.add(row["price"])
    intervals = {interval_of(world, row) for row in rows}
    if len(intervals) > 1 and subscription["billing_mode"]["type"] == "classic":
        raise invalid(
            "All prices on a subscription must have the same `recurring.interval` and `recurring.interval_count`. "
            "If you meant to update an existing subscription item instead of creating a new one, make sure to include "
            "the subscription item ID in your request. See examples at "
            "https://stripe.com/docs/billing/subscriptions/upgrade-downgrade#changing.",
            param=where,
        )


def plan_change(
    world: World,
    subscription: Obj,
    rows: list[Obj],
    *,
    behavior: str,
    at: int,
    restarts: bool = False,
    trial_end: int | None = None,
) -> Change:
    """What moving to these rows would do. Nothing is changed yet.

    ``at`` is the instant prorations count from; ``restarts`` starts a new cycle now; ``trial_end`` (now or later)
    ends or grants a trial. A change of interval always starts a new cycle.
    """
    now = world.now()
    old = subscription["_items"]
    is_trialing = subscription["status"] == "trialing"
    if trial_end is not None:
        return _trial_change(world, subscription, rows, behavior=behavior, at=at, trial_end=trial_end)
    if is_trialing and not restarts:
        for row in rows:
            row["current_period_start"], row["current_period_end"] = _running_period(subscription, old)
        return Change(rows, subscription["billing_cycle_anchor"])
    changed = {interval_of(world, row) for row in old}.isdisjoint(interval_of(world, row) for row in rows)
    if restarts or changed:
        credited_lines = _credits(world, subscription, old, at) if behavior != "none" and not is_trialing else []
        arrears = [
            usage_line(world, subscription, item, start=item["current_period_start"], end=now)
            for item in old
            if is_metered(world, item)
        ]
        lines = [*credited_lines, *[a for a in arrears if a["amount"]], *open_cycle(world, subscription, rows, now)]
        return Change(rows, now, lines, starts_cycle=True)
    return _change_in_cycle(world, subscription, rows, behavior=behavior, at=at)


def open_cycle(world: World, subscription: Obj, rows: list[Obj], anchor: int) -> list[Obj]:
    """Give every row a first period from the anchor, and the lines for those paid in advance."""
    lines = []
    for row in rows:
        interval, count = interval_of(world, row)
        row["current_period_start"] = anchor
        row["current_period_end"] = boundary(anchor, interval, count, 1)
        if not is_metered(world, row):
            lines.append(period_line(world, subscription, row, start=anchor, end=row["current_period_end"]))
    return lines


def apply_change(world: World, subscription: Obj, change: Change) -> None:
    """Write a change's rows into the subscription; telling is the caller's part."""
    world.store.touch(subscription)
    subscription["_items"] = change.items
    subscription["billing_cycle_anchor"] = change.anchor
    if change.trial_end is not None:
        now = world.now()
        if change.trial_end > now:
            subscription["status"] = "trialing"
            subscription["trial_start"] = subscription["trial_start"] or now
            subscription["trial_end"] = change.trial_end
            subscription["_trial_notice_sent"] = False
        else:
            subscription["trial_end"] = now
            subscription["status"] = "active"
    elif change.starts_cycle and subscription["status"] == "trialing":
        subscription["trial_end"] = world.now()
        subscription["status"] = "active"


def charge_change(
    world: World,
    subscription: Obj,
    change: Change,
    *,
    behavior: str,
    payment_behavior: str,
    proration_date: int | None,
) -> None:
    """Apply a planned change and invoice or keep what it causes, by Stripe's payment behaviours.

    Raises ApiError 402 for `error_if_incomplete` when the payment fails; nothing is changed then.
    """
    customer = world.require("customer", subscription["customer"])
    clear_pending_update(world, subscription)
    bills_now = (
        change.starts_cycle
        or change.trial_end is not None
        or (behavior == "always_invoice" and bool(change.lines or pending_lines(world, subscription)))
    )
    if not bills_now:
        with world.changing(subscription, "customer.subscription.updated"):
            apply_change(world, subscription, change)
        if change.lines:
            keep_for_later(world, subscription, change.lines)
        return
    waits = payment_behavior == "pending_if_incomplete"
    if not waits:
        with world.changing(subscription, "customer.subscription.updated"):
            apply_change(world, subscription, change)
    invoice = draft_invoice(
        world,
        customer=customer,
        subscription=subscription,
        lines=change.lines,
        reason="subscription_update",
        proration_date=proration_date,
    )
    needs_money = invoice["amount_due"] > 0 and subscription["collection_method"] == "charge_automatically"
    if needs_money and payment_behavior != "default_incomplete" and default_method(world, invoice) is None:
        raise ApiError(400, NO_METHOD, code="resource_missing")
    with world.changing(subscription, "customer.subscription.updated"):
        subscription["latest_invoice"] = invoice["id"]
    if waits:
        _pay_then_apply(world, subscription, change, invoice)
        return
    finalize(world, invoice)
    if invoice["status"] == "paid" or not needs_money:
        return
    if payment_behavior == "default_incomplete":
        with world.changing(subscription, "customer.subscription.updated"):
            subscription["status"] = "past_due" if subscription["status"] == "active" else subscription["status"]
        return
    collected = collect(world, invoice)
    if collected != "paid" and payment_behavior == "error_if_incomplete":
        error = payment_error(world, invoice, collected, code="subscription_payment_intent_requires_action")
        error.keeps_changes = False
        raise error


def _pay_then_apply(world: World, subscription: Obj, change: Change, invoice: Obj) -> None:
    now = world.now()
    with world.changing(subscription, None):
        subscription["_pending"] = {
            "items": change.items,
            "anchor": change.anchor,
            "invoice": invoice["id"],
            "ends_trial": change.trial_end is not None and change.trial_end <= now,
        }
    finalize(world, invoice)
    if invoice["status"] == "open":
        collect(world, invoice, plans_retry=False)
    if invoice["status"] != "paid":
        with world.changing(subscription, "customer.subscription.updated"):
            subscription["pending_update"] = {
                "billing_cycle_anchor": change.anchor if change.starts_cycle else None,
                "expires_at": now + PENDING_SECONDS,
                "subscription_items": [_pending_row(world, row) for row in change.items],
                "trial_end": change.trial_end,
                "trial_from_plan": None,
            }


def _pending_row(world: World, row: Obj) -> Obj:
    from plangate.sandbox.render import item_view  # noqa: PLC0415 - only this rare row needs it.

    return item_view(world, row)


def _change_in_cycle(world: World, subscription: Obj, rows: list[Obj], *, behavior: str, at: int) -> Change:
    old = {item["id"]: item for item in subscription["_items"]}
    kept = {row["id"] for row in rows}
    by_interval = {interval_of(world, item): item for item in subscription["_items"]}
    credited, charged = [item for item in old.values() if item["id"] not in kept], []
    for row in rows:
        before = old.get(row["id"])
        sibling = by_interval.get(interval_of(world, row))
        if before is not None and interval_of(world, before) == interval_of(world, row):
            pass
        elif sibling is not None:
            row["current_period_start"] = sibling["current_period_start"]
            row["current_period_end"] = sibling["current_period_end"]
        else:
            interval, count = interval_of(world, row)
            start, end = period_at(subscription["billing_cycle_anchor"], interval, count, at)
            row["current_period_start"], row["current_period_end"] = start, end
        if before is None:
            charged.append(row)
        elif before["price"] != row["price"] or before["quantity"] != row["quantity"]:
            credited.append(before)
            charged.append(row)
    lines: list[Obj] = []
    if behavior != "none":
        lines = _credits(world, subscription, credited, at)
        shares = [
            share_line(world, subscription, row, since=at, is_credit=False)
            for row in charged
            if not is_metered(world, row)
        ]
        lines += [line for line in shares if line["amount"] or not lines]
    return Change(rows, subscription["billing_cycle_anchor"], lines)


def _trial_change(
    world: World, subscription: Obj, rows: list[Obj], *, behavior: str, at: int, trial_end: int
) -> Change:
    now = world.now()
    credited_lines = []
    if behavior != "none" and subscription["status"] != "trialing":
        credited_lines = _credits(world, subscription, subscription["_items"], at)
    if trial_end <= now:
        return Change(
            rows, now, [*credited_lines, *open_cycle(world, subscription, rows, now)], starts_cycle=True, trial_end=now
        )
    lines = []
    for row in rows:
        row["current_period_start"] = now
        row["current_period_end"] = trial_end
        lines.append(trial_line(world, subscription, row, start=now, end=trial_end))
    return Change(rows, trial_end, [*credited_lines, *lines], trial_end=trial_end)


def _credits(world: World, subscription: Obj, items: list[Obj], at: int) -> list[Obj]:
    lines = [
        share_line(world, subscription, item, since=at, is_credit=True) for item in items if not is_metered(world, item)
    ]
    return [line for line in lines if line["amount"]]


def _running_period(subscription: Obj, items: list[Obj]) -> tuple[int, int]:
    if items:
        return items[0]["current_period_start"], items[0]["current_period_end"]
    return subscription["start_date"], subscription["billing_cycle_anchor"]
