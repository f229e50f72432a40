"""Subscriptions: created, changed, cancelled and resumed."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.billing.changes import charge_change, open_cycle, plan_change, wanted_items
from plangate.sandbox.billing.collecting import collect, finalize, payment_error
from plangate.sandbox.billing.discounts import discount_ids
from plangate.sandbox.billing.ending import end_subscription, set_end
from plangate.sandbox.billing.invoicing import draft_invoice
from plangate.sandbox.billing.lines import is_metered, period_line
from plangate.sandbox.billing.starting import start_subscription
from plangate.sandbox.errors import ApiError, invalid, only_one, required
from plangate.sandbox.periods import checked_instant
from plangate.sandbox.render import item_view, view
from plangate.sandbox.routing import Call, Params, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.world import World

from .schedules import phase_items_of

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
    _check_terms(p, p.get("collection_method") or "charge_automatically", days=None)
    return view(world, start_subscription(world, p, pays_now=True))


def retrieve_subscription(world: World, call: Call) -> Obj:
    """`GET /v1/subscriptions/{id}`."""
    return view(world, world.require("subscription", call.ids[0]))


def list_subscriptions(world: World, call: Call) -> Obj:
    """`GET /v1/subscriptions`: without a status those that ended are left out."""
    p = call.params
    status, customer, price, method = p.get("status"), p.get("customer"), p.get("price"), p.get("collection_method")
    created, starts, ends = p.get("created"), p.get("current_period_start"), p.get("current_period_end")

    def fits(subscription: Obj) -> bool:
        has, items = subscription["status"], subscription["_items"]
        is_over = has in ("canceled", "incomplete_expired")
        return (
            (status in ("all", has) or (is_over if status == "ended" else status is None and not is_over))
            and customer in (None, subscription["customer"])
            and (price is None or any(item["price"] == price for item in items))
            and method in (None, subscription["collection_method"])
            and in_range(subscription["created"], created)
            and in_range(items[0]["current_period_end"], ends)
            and in_range(items[0]["current_period_start"], starts)
        )

    rows = [subscription for subscription in newest_first(world, "subscription") if fits(subscription)]
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
    _check_terms(
        p, p.get("collection_method") or subscription["collection_method"], days=subscription["days_until_due"]
    )
    with world.changing(subscription, "customer.subscription.updated"):
        _set_plain(world, subscription, p)
        set_end(subscription, p, world.now())
    anchor = (p.get("billing_cycle_anchor") or {}).get("type")
    trial_end = p.get("trial_end")
    if p.get("items") is None and anchor in (None, "unchanged") and trial_end is None:
        return
    rows = wanted_items(world, subscription, p.get("items"))
    if subscription["status"] == "incomplete":
        raise invalid(
            "You cannot change the items, trial or billing cycle of a subscription whose first payment is incomplete."
        )
    if trial_end == "now":
        trial_end = world.now()
    elif trial_end is not None:
        if trial_end <= world.now():
            raise invalid("Invalid timestamp: must be an integer Unix timestamp in the future.", param="trial_end")
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


def _check_terms(p: Obj, method: str, *, days: int | None) -> None:
    """Raise ApiError 400 for an invoice that is sent without a due date, and for a due date of one that is not."""
    if method == "send_invoice" and p.get("days_until_due", days) is None:
        raise required("days_until_due")
    if method != "send_invoice" and p.get("days_until_due") is not None:
        raise invalid(
            "`days_until_due` can only be set when `collection_method` is `send_invoice`.", param="days_until_due"
        )


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


def _set_plain(world: World, subscription: Obj, p: Obj) -> None:
    if "metadata" in p:
        subscription["metadata"] = merged_metadata(subscription["metadata"], p["metadata"])
    for name in ("collection_method", "days_until_due", "trial_settings"):
        if name in p:
            subscription[name] = p[name]
    if subscription["collection_method"] != "send_invoice":
        subscription["days_until_due"] = None
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


def _reach_current_phase(world: World, subscription: Obj) -> None:
    """A direct change of items is written into the running phase of an attached schedule; later phases stay."""
    schedule = world.store.get("subscription_schedule", subscription["schedule"])
    if schedule is None or not schedule["current_phase"]:
        return
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
