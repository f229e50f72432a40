"""What a paid or failed invoice means for the subscription behind it."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.world import World

Obj = dict[str, Any]

ENDED = ("canceled", "incomplete_expired")


def subscription_of(world: World, invoice: Obj) -> Obj | None:
    """The subscription an invoice was made for."""
    details = (invoice["parent"] or {}).get("subscription_details")
    return world.store.get("subscription", details["subscription"]) if details else None


def after_paid(world: World, invoice: Obj) -> None:
    """A paid invoice starts, restores or changes its subscription."""
    subscription = subscription_of(world, invoice)
    if subscription is None or subscription["status"] in ENDED:
        return
    pending = subscription["_pending"]
    is_latest = subscription["latest_invoice"] == invoice["id"]
    applies = bool(pending) and pending["invoice"] == invoice["id"]
    with world.changing(subscription, "customer.subscription.updated"):
        if applies:
            subscription["_items"] = pending["items"]
            subscription["billing_cycle_anchor"] = pending["anchor"]
            if pending["ends_trial"] and subscription["status"] == "trialing":
                subscription["trial_end"] = world.now()
                subscription["status"] = "active"
            subscription["pending_update"] = None
            subscription["_pending"] = None
        if subscription["status"] == "incomplete" or (subscription["status"] in ("past_due", "unpaid") and is_latest):
            subscription["status"] = "active"
    if applies:
        world.emit("customer.subscription.pending_update_applied", subscription)
    _use_up_discounts(world, subscription, invoice)
    _set_delinquent(world, subscription["customer"], value=False)


def after_failed(world: World, invoice: Obj) -> None:
    """A failed payment leaves the subscription past due, unless it was never complete or the change is pending."""
    subscription = subscription_of(world, invoice)
    if subscription is None or subscription["status"] in ENDED:
        return
    pending = subscription["_pending"]
    if pending and pending["invoice"] == invoice["id"]:
        return
    with world.changing(subscription, "customer.subscription.updated"):
        if subscription["status"] in ("active", "trialing"):
            subscription["status"] = "past_due"
    if subscription["status"] != "incomplete":
        _set_delinquent(world, subscription["customer"], value=True)


def _use_up_discounts(world: World, subscription: Obj, invoice: Obj) -> None:
    once = [
        stripe_id
        for stripe_id in subscription["discounts"]
        if stripe_id in invoice["discounts"]
        and invoice["subtotal"] > 0
        and (discount := world.store.get("discount", stripe_id))
        and world.require("coupon", discount["source"]["coupon"])["duration"] == "once"
    ]
    if once:
        with world.changing(subscription, "customer.subscription.updated"):
            subscription["discounts"] = [d for d in subscription["discounts"] if d not in once]


def _set_delinquent(world: World, stripe_customer_id: str, *, value: bool) -> None:
    customer = world.store.get("customer", stripe_customer_id)
    if customer is not None and not customer.get("deleted") and customer["delinquent"] != value:
        with world.changing(customer, "customer.updated"):
            customer["delinquent"] = value
