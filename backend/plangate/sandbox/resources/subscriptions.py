"""Subscriptions: started, changed, cancelled and resumed."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.billing.changes import (
    charge_change,
    check_rows,
    checked_price,
    new_item,
    open_cycle,
    plan_change,
    wanted_items,
)
from plangate.sandbox.billing.collecting import NO_METHOD, collect, default_method, finalize, payment_error
from plangate.sandbox.billing.ending import end_subscription
from plangate.sandbox.billing.invoicing import draft_invoice
from plangate.sandbox.billing.lines import is_metered, period_line, trial_line
from plangate.sandbox.billing.phases import discount_ids
from plangate.sandbox.clock import DAY
from plangate.sandbox.errors import ApiError, invalid, only_one, required
from plangate.sandbox.money import share
from plangate.sandbox.periods import checked_instant
from plangate.sandbox.render import item_view, view
from plangate.sandbox.routing import Call, Params, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .customers import live_customer

Obj = dict[str, Any]

# What may travel with `pending_if_incomplete`; anything else is refused by name.
PENDING_PARAMS = frozenset(
    {
        "expand",
        "items",
        "payment_behavior",
        "proration_behavior",
        "proration_date",
        "billing_cycle_anchor",
        "trial_end",
        "trial_from_plan",
        "add_invoice_items",
        "metadata",
        "off_session",
        "discounts",
    }
)


def create_subscription(world: World, call: Call) -> Obj:
    """`POST /v1/subscriptions`."""
    p = call.params
    if not p.get("customer"):
        raise required("customer")
    if not p.get("items"):
        raise required("items")
    return view(world, start_subscription(world, p, pays_now=True))


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
    _set_end(subscription, p, world.now())
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


def retrieve_subscription(world: World, call: Call) -> Obj:
    """`GET /v1/subscriptions/{id}`."""
    return view(world, world.require("subscription", call.ids[0]))


def list_subscriptions(world: World, call: Call) -> Obj:
    """`GET /v1/subscriptions`: without a status those that ended are left out."""
    p = call.params
    status = p.get("status")

    def fits(subscription: Obj) -> bool:
        has = subscription["status"]
        if status is None:
            return has not in ("canceled", "incomplete_expired")
        return status == "all" or has == status or (status == "ended" and has in ("canceled", "incomplete_expired"))

    rows = [
        s
        for s in newest_first(world, "subscription")
        if fits(s)
        and p.get("customer") in (None, s["customer"])
        and ("price" not in p or any(i["price"] == p["price"] for i in s["_items"]))
        and p.get("collection_method") in (None, s["collection_method"])
        and in_range(s["created"], p.get("created"))
        and in_range(s["_items"][0]["current_period_end"], p.get("current_period_end"))
        and in_range(s["_items"][0]["current_period_start"], p.get("current_period_start"))
    ]
    return page(world, call, rows)


def update_subscription(world: World, call: Call) -> Obj:
    """`POST /v1/subscriptions/{id}`."""
    p = call.params
    subscription = world.require("subscription", call.ids[0])
    check_updatable(subscription, p)
    if p.get("payment_behavior") == "pending_if_incomplete":
        _check_pending(subscription, p)
    change_subscription(world, subscription, p)
    return view(world, subscription)


def change_subscription(world: World, subscription: Obj, p: Obj) -> None:
    """Everything an update does; previews act the same thing out in a rehearsal.

    Raises ApiError 400 for what Stripe refuses, 402 with `error_if_incomplete`.
    """
    behavior = p.get("proration_behavior") or "create_prorations"
    at = p.get("proration_date") or world.now()
    _check_proration_date(subscription, p, world.now())
    with world.changing(subscription, "customer.subscription.updated"):
        _set_plain(world, subscription, p)
        _set_end(subscription, p, world.now())
    anchor = (p.get("billing_cycle_anchor") or {}).get("type")
    trial_end = p.get("trial_end")
    if p.get("items") is None and anchor in (None, "unchanged") and trial_end is None:
        return
    rows = wanted_items(world, subscription, p.get("items"))
    if subscription["status"] == "incomplete":
        raise invalid(
            "You cannot change the items, trial or billing cycle of a subscription whose first payment is incomplete."
        )
    if trial_end is not None:
        trial_end = world.now() if trial_end == "now" else trial_end
        trial_end = checked_instant(trial_end, now=world.now(), param="trial_end", years=2)
    change = plan_change(
        world, subscription, rows, behavior=behavior, at=at, restarts=anchor == "now", trial_end=trial_end
    )
    charge_change(
        world,
        subscription,
        change,
        behavior=behavior,
        payment_behavior=p.get("payment_behavior") or "allow_incomplete",
        proration_date=p.get("proration_date"),
    )
    _reach_current_phase(world, subscription)


def cancel_subscription(world: World, call: Call) -> Obj:
    """`DELETE /v1/subscriptions/{id}`: at once. An ended one is not found, as at Stripe."""
    p = call.params
    subscription = world.require("subscription", call.ids[0])
    if subscription["ended_at"] is not None:
        raise ApiError(404, f"No such subscription: '{subscription['id']}'", code="resource_missing", param="id")
    if p.get("cancellation_details"):
        subscription["cancellation_details"].update(p["cancellation_details"])
    end_subscription(world, subscription, prorates=p.get("prorate", False), invoices_now=p.get("invoice_now", False))
    return view(world, subscription)


def resume_subscription(world: World, call: Call) -> Obj:
    """`POST /v1/subscriptions/{id}/resume`: a paused one starts again once its invoice is paid."""
    subscription = world.require("subscription", call.ids[0])
    if subscription["status"] != "paused":
        raise invalid("Only subscriptions with a `paused` status can be resumed.")
    anchor = (call.params.get("billing_cycle_anchor") or {}).get("type", "now")
    customer = world.require("customer", subscription["customer"])
    now = world.now()
    rows = [dict(item) for item in subscription["_items"]]
    if anchor == "now":
        lines = open_cycle(world, subscription, rows, now)
    else:
        lines = [
            period_line(world, subscription, row, start=row["current_period_start"], end=row["current_period_end"])
            for row in rows
            if not is_metered(world, row)
        ]
    with world.changing(subscription, None):
        subscription["_items"] = rows
        subscription["billing_cycle_anchor"] = now if anchor == "now" else subscription["billing_cycle_anchor"]
    invoice = draft_invoice(
        world, customer=customer, subscription=subscription, lines=lines, reason="subscription_update"
    )
    subscription["latest_invoice"] = invoice["id"]
    finalize(world, invoice)
    if invoice["status"] == "open":
        collected = collect(world, invoice)
        if collected != "paid":
            raise payment_error(world, invoice, collected, code="subscription_payment_intent_requires_action")
    with world.changing(subscription, None):
        subscription["status"] = "active"
    world.emit("customer.subscription.resumed", subscription)
    return view(world, subscription)


def list_items(world: World, call: Call) -> Obj:
    """`GET /v1/subscription_items?subscription=`: the rest of a long list."""
    subscription = world.require("subscription", call.params["subscription"], param="subscription")
    return page(world, call, subscription["_items"], shown=item_view)


def check_updatable(subscription: Obj, p: Params) -> None:
    """Raise ApiError 400 for an ended subscription, or for endings that belong to a schedule."""
    if subscription["status"] == "incomplete_expired":
        raise invalid("You cannot update a subscription that is `canceled` or `incomplete_expired`.")
    if subscription["status"] == "canceled" and set(p) - {"metadata", "cancellation_details", "expand"}:
        raise invalid("A canceled subscription can only update its cancellation_details and metadata.")
    if subscription["schedule"] and ("cancel_at_period_end" in p or "cancel_at" in p):
        raise invalid(
            f"The subscription is managed by the subscription schedule `{subscription['schedule']}`, and updating any "
            "cancelation behavior directly is not allowed. Please update the schedule instead."
        )
    if "cancel_at" in p and "cancel_at_period_end" in p:
        raise only_one("cancel_at", "cancel_at_period_end")


def _check_pending(subscription: Obj, p: Params) -> None:
    for name in sorted(set(p) - PENDING_PARAMS):
        raise invalid(
            f"When `payment_behavior` is set to `pending_if_incomplete`, you can only pass supported params. `{name}` "
            "is not supported. See https://stripe.com/docs/billing/subscriptions/pending-updates-reference"
            "#supported-attributes for more details.",
            param=name,
        )
    if subscription["collection_method"] == "send_invoice":
        raise invalid(
            "`payment_behavior=pending_if_incomplete` cannot be used with `collection_method=send_invoice`.",
            param="payment_behavior",
        )


def _check_proration_date(subscription: Obj, p: Obj, now: int) -> None:
    at = p.get("proration_date")
    if at is None:
        return
    starts = [item["current_period_start"] for item in subscription["_items"]]
    ends = [item["current_period_end"] for item in subscription["_items"]]
    if not min(starts) <= at <= max(ends):
        raise invalid("Cannot specify a proration_date outside of the current billing period.", param="proration_date")


def _currency(world: World, customer: Obj, p: Obj) -> str:
    first = checked_price(world, None, p["items"][0], "items[0]", is_agreed=True)
    wanted = p.get("currency") or None
    currency = wanted or (customer["currency"] if customer["currency"] in first["_currency_options"] else None)
    currency = currency or first["currency"]
    others = {
        s["currency"]
        for s in world.store.all("subscription")
        if s["customer"] == customer["id"] and s["ended_at"] is None
    }
    if others and currency not in others:
        raise invalid(
            "You cannot combine currencies on a single customer. This customer has an active subscription, "
            f"subscription schedule, discount, quote, or invoice item with currency {min(others)}."
        )
    return str(currency)


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
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
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


def _set_plain(world: World, subscription: Obj, p: Obj) -> None:
    if "metadata" in p:
        subscription["metadata"] = merged_metadata(subscription["metadata"], p["metadata"])
    for name in ("collection_method", "days_until_due", "trial_settings"):
        if name in p:
            subscription[name] = p[name]
    for name in ("description", "pause_collection"):
        if name in p:
            subscription[name] = p[name] or None
    if subscription["pause_collection"]:
        subscription["pause_collection"].setdefault("resumes_at", None)
    if "cancellation_details" in p:
        subscription["cancellation_details"].update({k: v or None for k, v in p["cancellation_details"].items()})
    if "default_payment_method" in p:
        method = world.require("payment_method", p["default_payment_method"], param="default_payment_method")
        if method["customer"] != subscription["customer"]:
            raise invalid(
                f"The customer does not have a payment method with the ID {method['id']}. The payment method must be "
                "attached to the customer.",
                param="default_payment_method",
                code="resource_missing",
            )
        subscription["default_payment_method"] = method["id"]
    if "default_tax_rates" in p:
        subscription["default_tax_rates"] = [
            view(world, world.require("tax_rate", rate, param="default_tax_rates"))
            for rate in p["default_tax_rates"] or []
        ]
    if "discounts" in p:
        subscription["discounts"] = discount_ids(world, subscription, p["discounts"] or [])


def _set_end(subscription: Obj, p: Obj, now: int) -> None:
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


def _reach_current_phase(world: World, subscription: Obj) -> None:
    """A direct change of items is written into the running phase of an attached schedule; later phases stay."""
    schedule = world.store.get("subscription_schedule", subscription["schedule"])
    if schedule is None or not schedule["current_phase"]:
        return
    from .schedules import phase_items_of  # noqa: PLC0415 - schedules build on subscriptions.

    with world.changing(schedule, "subscription_schedule.updated"):
        for phase in schedule["phases"]:
            if phase["start_date"] == schedule["current_phase"]["start_date"]:
                phase["items"] = phase_items_of(subscription)


ROUTES = [
    Route("POST", "/v1/subscriptions", "SubscriptionCreateParams", create_subscription, "Subscription"),
    Route("GET", "/v1/subscriptions", "SubscriptionListParams", list_subscriptions, "list:Subscription"),
    Route("GET", "/v1/subscriptions/{}", "SubscriptionRetrieveParams", retrieve_subscription, "Subscription"),
    Route("POST", "/v1/subscriptions/{}", "SubscriptionUpdateParams", update_subscription, "Subscription"),
    Route("DELETE", "/v1/subscriptions/{}", "SubscriptionCancelParams", cancel_subscription, "Subscription"),
    Route("POST", "/v1/subscriptions/{}/resume", "SubscriptionResumeParams", resume_subscription, "Subscription"),
    Route("GET", "/v1/subscription_items", "SubscriptionItemListParams", list_items, "list:SubscriptionItem"),
]
