"""How a subscription starts: its blank form, its first period or trial, its first invoice."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.clock import DAY
from plangate.sandbox.errors import ApiError, invalid, only_one
from plangate.sandbox.money import share
from plangate.sandbox.periods import checked_instant
from plangate.sandbox.render import view
from plangate.sandbox.resources.customers import live_customer
from plangate.sandbox.routing import merged_metadata
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .changes import check_rows, checked_price, new_item, open_cycle
from .collecting import NO_METHOD, collect, default_method, finalize, payment_error
from .discounts import discount_ids
from .ending import set_end
from .invoicing import draft_invoice
from .lines import is_metered, trial_line

Obj = dict[str, Any]


def start_subscription(
    world: World,
    p: Obj,
    *,
    pays_now: bool,
    method: Obj | None = None,
    is_authenticated: bool = False,
    is_agreed: bool = False,
) -> Obj:
    """Start a subscription from create parameters.

    The first invoice is finalized, and charged when ``pays_now`` and the payment behaviour ask for it; ``method`` is
    the card to charge and keep. What ``is_agreed`` was scheduled before, and starts with archived prices too. Raises
    ApiError 400 for what Stripe refuses and 402 for `error_if_incomplete`.
    """
    customer = live_customer(world, p["customer"], param="customer")
    behavior = p.get("payment_behavior") or "allow_incomplete"
    if behavior == "pending_if_incomplete":
        raise invalid(
            "`pending_if_incomplete` is for updates of existing subscriptions only.", param="payment_behavior"
        )
    currency = _currency(world, customer, p)
    subscription = _blank(world, customer, p, currency)
    subscription["_items"] = [
        new_item(world, subscription, entry, f"items[{n}]", is_agreed=is_agreed) for n, entry in enumerate(p["items"])
    ]
    check_rows(world, subscription, subscription["_items"], "items")
    if method is not None:
        subscription["default_payment_method"] = method["id"]
    lines = _first_lines(world, subscription, p)
    world.store.add(subscription)
    subscription["discounts"] = discount_ids(world, subscription, p.get("discounts") or [])
    subscription["default_tax_rates"] = [
        view(world, world.require("tax_rate", rate, param="default_tax_rates"))
        for rate in p.get("default_tax_rates") or []
    ]
    set_end(subscription, p, world.now())
    invoice = draft_invoice(
        world, customer=customer, subscription=subscription, lines=lines, reason="subscription_create"
    )
    subscription["latest_invoice"] = invoice["id"]
    charges = invoice["amount_due"] > 0 and subscription["collection_method"] == "charge_automatically"
    if charges and behavior != "default_incomplete" and default_method(world, invoice) is None:
        raise ApiError(400, NO_METHOD, code="resource_missing")
    if charges and subscription["status"] == "active":
        subscription["status"] = "incomplete"
    world.emit("customer.subscription.created", subscription)
    finalize(world, invoice)
    if invoice["status"] == "open" and charges and pays_now and behavior != "default_incomplete":
        collected = collect(world, invoice, method=method, is_authenticated=is_authenticated)
        if collected != "paid" and behavior == "error_if_incomplete":
            error = payment_error(world, invoice, collected, code="subscription_payment_intent_requires_action")
            error.keeps_changes = False
            raise error
    return subscription


def _currency(world: World, customer: Obj, p: Obj) -> str:
    first = checked_price(world, None, p["items"][0], "items[0]", is_agreed=True)
    wanted = p.get("currency") or None
    currency = wanted or (customer["currency"] if customer["currency"] in first["_currency_options"] else None)
    currency = currency or first["currency"]
    check_currency(world, customer, currency)
    return str(currency)


def check_currency(world: World, customer: Obj, currency: str) -> None:
    """Raise ApiError 400 when the customer is pinned to another currency: by what runs, or waits for its day."""
    others = {
        s["currency"]
        for s in world.store.all("subscription")
        if s["customer"] == customer["id"] and s["ended_at"] is None
    } | {
        s["phases"][0]["currency"]
        for s in world.store.all("subscription_schedule")
        if s["customer"] == customer["id"] and s["status"] == "not_started"
    }
    if others and currency not in others:
        raise invalid(
            "You cannot combine currencies on a single customer. This customer has an active subscription, "
            f"subscription schedule, discount, quote, or invoice item with currency {min(others)}."
        )


def _blank(world: World, customer: Obj, p: Obj, currency: str) -> Obj:
    now = world.now()
    mode = p.get("billing_mode") or {"type": "flexible"}
    method = p.get("default_payment_method") or None
    if method:
        owner = world.require("payment_method", method, param="default_payment_method")["customer"]
        if owner != customer["id"]:
            raise invalid(
                f"The customer does not have a payment method with the ID {method}. The payment method must be "
                "attached to the customer.",
                param="default_payment_method",
                code="resource_missing",
            )
    trial_end = _trial_end(world, p)
    flexible = {"proration_discounts": (mode.get("flexible") or {}).get("proration_discounts", "included")}
    return {
        "id": new_id("sub"),
        "object": "subscription",
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": bool((p.get("automatic_tax") or {}).get("enabled")),
            "liability": None,
        },
        "billing_cycle_anchor": trial_end or p.get("billing_cycle_anchor") or now,
        "billing_mode": {
            "flexible": flexible if mode["type"] == "flexible" else None,
            "type": mode["type"],
            "updated_at": now if mode["type"] == "flexible" else None,
        },
        "billing_schedules": [],
        "cancel_at": None,
        "cancel_at_period_end": False,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "canceled_at": None,
        "collection_method": p.get("collection_method") or "charge_automatically",
        "created": now,
        "currency": currency,
        "customer": customer["id"],
        "days_until_due": p.get("days_until_due"),
        "default_payment_method": method,
        "default_tax_rates": [],
        "description": p.get("description") or None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"account": None, "type": "self"},
        },
        "latest_invoice": None,
        "livemode": False,
        "metadata": merged_metadata({}, p.get("metadata")),
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
            **(p.get("payment_settings") or {}),
        },
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": "trialing" if trial_end else "active",
        "trial_end": trial_end,
        "trial_settings": p.get("trial_settings") or {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": now if trial_end else None,
        "_items": [],
        "_pending": None,
        "_trial_notice_sent": False,
    }


def _trial_end(world: World, p: Obj) -> int | None:
    now = world.now()
    if p.get("trial_period_days") is not None and p.get("trial_end") is not None:
        raise only_one("trial_end", "trial_period_days")
    days = p.get("trial_period_days")
    if days is not None:
        if not 1 <= days <= 730:
            raise invalid("The trial must be from 1 to 730 days.", param="trial_period_days")
        return int(now + days * DAY)
    end = p.get("trial_end")
    if end in (None, "now"):
        return None
    if end <= now:
        raise invalid("Invalid timestamp: must be an integer Unix timestamp in the future.", param="trial_end")
    return checked_instant(end, now=now, param="trial_end", years=2)


def _first_lines(world: World, subscription: Obj, p: Obj) -> list[Obj]:
    now, rows = world.now(), subscription["_items"]
    if subscription["trial_end"]:
        for row in rows:
            row["current_period_start"], row["current_period_end"] = now, subscription["trial_end"]
        return [
            trial_line(world, subscription, row, start=now, end=subscription["trial_end"])
            for row in rows
            if not is_metered(world, row)
        ]
    anchor = p.get("billing_cycle_anchor")
    lines = open_cycle(world, subscription, rows, now)
    if not anchor:
        return lines
    if any(not now < anchor <= row["current_period_end"] for row in rows):
        raise invalid(
            "billing_cycle_anchor cannot be later than next natural billing date for the subscription.",
            param="billing_cycle_anchor",
        )
    whole = {row["id"]: row["current_period_end"] for row in rows}
    for row in rows:
        row["current_period_end"] = anchor
    if p.get("proration_behavior") == "none":
        return []
    for line in lines:
        stripe_id = line["parent"]["subscription_item_details"]["subscription_item"]
        left = anchor - now
        # The stub is the part of a full period that lies before the anchor.
        line["amount"] = share(line["amount"], start=0, end=whole[stripe_id] - now, since=whole[stripe_id] - now - left)
        line["subtotal"] = line["amount"]
        line["period"] = {"start": now, "end": anchor}
    return lines
