"""How stored objects leave the sandbox: complete, with expansions, and without what is ours alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import invalid
from .spec import known_fields
from .state import copied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .world import World

Obj = dict[str, Any]

EMBEDDED_LIMIT = 10
MAX_EXPAND_DEPTH = 4

RESOURCES = {
    "account": "Account",
    "billing.meter": "billing.Meter",
    "billing.meter_event": "billing.MeterEvent",
    "billing.meter_event_summary": "billing.MeterEventSummary",
    "billing_portal.configuration": "billing_portal.Configuration",
    "billing_portal.session": "billing_portal.Session",
    "charge": "Charge",
    "checkout.session": "checkout.Session",
    "coupon": "Coupon",
    "customer": "Customer",
    "customer_balance_transaction": "CustomerBalanceTransaction",
    "discount": "Discount",
    "dispute": "Dispute",
    "entitlements.active_entitlement": "entitlements.ActiveEntitlement",
    "entitlements.feature": "entitlements.Feature",
    "event": "Event",
    "invoice": "Invoice",
    "invoice_payment": "InvoicePayment",
    "invoiceitem": "InvoiceItem",
    "item": "LineItem",
    "line_item": "InvoiceLineItem",
    "payment_intent": "PaymentIntent",
    "payment_method": "PaymentMethod",
    "plan": "Plan",
    "price": "Price",
    "product": "Product",
    "product_feature": "ProductFeature",
    "promotion_code": "PromotionCode",
    "refund": "Refund",
    "setup_intent": "SetupIntent",
    "subscription": "Subscription",
    "subscription_item": "SubscriptionItem",
    "subscription_schedule": "SubscriptionSchedule",
    "tax_rate": "TaxRate",
    "test_helpers.test_clock": "test_helpers.TestClock",
    "webhook_endpoint": "WebhookEndpoint",
}

# Fields Stripe leaves out until they are asked for with `expand`, or sends only when they mean something.
ABSENT = {
    "account": known_fields("Account"),
    "charge": frozenset({"level3", "presentment_details", "radar_options", "refunds", "authorization_code"}),
    "dispute": frozenset({"intended_submission_method", "network_reason_code", "payment_method_details"}),
    "checkout.session": frozenset({"line_items", "optional_items", "client_secret", "after_expiration"}),
    "coupon": frozenset({"applies_to", "currency_options"}),
    "customer": frozenset({"sources", "subscriptions", "tax", "tax_ids", "cash_balance"}),
    "event": frozenset({"account", "context"}),
    "invoice": frozenset({"payments", "confirmation_secret"}),
    "payment_method": known_fields("PaymentMethod")
    - {"customer", "card", "metadata", "allow_redisplay", "radar_options"},
    "price": frozenset({"tiers", "currency_options"}),
    "product": frozenset({"deleted"}),
    "webhook_endpoint": frozenset({"secret"}),
}

# Which kind of object a field with an id points to.
LINKS = {
    "charge": "charge",
    "latest_charge": "charge",
    "configuration": "billing_portal.configuration",
    "coupon": "coupon",
    "customer": "customer",
    "default_payment_method": "payment_method",
    "default_price": "price",
    "discounts": "discount",
    "feature": "entitlements.feature",
    "invoice": "invoice",
    "latest_invoice": "invoice",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "pending_setup_intent": "setup_intent",
    "price": "price",
    "product": "product",
    "promotion_code": "promotion_code",
    "released_subscription": "subscription",
    "schedule": "subscription_schedule",
    "setup_intent": "setup_intent",
    "subscription": "subscription",
}


def view(world: World, obj: Obj) -> Obj:
    """The object as Stripe would show it, unexpanded. The result is a copy."""
    shown = {key: copied(value) for key, value in obj.items() if not key.startswith("_")}
    kind = shown.get("object", "")
    if kind == "subscription":
        _show_items(world, shown, obj)
    elif kind == "invoice":
        shown["lines"] = embedded(obj["_lines"], f"/v1/invoices/{obj['id']}/lines")
    return complete(shown)


def complete(shown: Obj) -> Obj:
    """Add the nullable fields of the official type that nobody has set."""
    kind = shown.get("object", "")
    resource = RESOURCES.get(kind)
    if resource and not shown.get("deleted"):
        absent = ABSENT.get(kind, frozenset())
        for name in known_fields(resource):
            if name not in shown and name != "deleted" and name not in absent:
                shown[name] = None
    return shown


def embedded(rows: Sequence[Obj], url: str, limit: int = EMBEDDED_LIMIT) -> Obj:
    """A list inside an object: at most ten rows and the truth about the rest."""
    clean = [complete({k: copied(v) for k, v in row.items() if not k.startswith("_")}) for row in rows[:limit]]
    return {"object": "list", "data": clean, "has_more": len(rows) > limit, "total_count": len(rows), "url": url}


def item_view(world: World, item: Obj) -> Obj:
    """A subscription item with its price and the old-fashioned plan."""
    shown = {key: copied(value) for key, value in item.items() if not key.startswith("_")}
    price = world.require("price", item["price"])
    shown["price"] = view(world, price)
    shown["plan"] = plan_view(price)
    return complete(shown)


def plan_view(price: Obj) -> Obj:
    """The plan that mirrors a price."""
    recurring = price["recurring"] or {}
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring.get("interval", "month"),
        "interval_count": recurring.get("interval_count", 1),
        "livemode": False,
        "metadata": dict(price["metadata"]),
        "meter": recurring.get("meter"),
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": copied(price["transform_quantity"]),
        "trial_period_days": recurring.get("trial_period_days"),
        "usage_type": recurring.get("usage_type", "licensed"),
    }


def _show_items(world: World, shown: Obj, obj: Obj) -> None:
    rows = [item_view(world, item) for item in obj["_items"]]
    shown["items"] = {
        "object": "list",
        "data": rows[:EMBEDDED_LIMIT],
        "has_more": len(rows) > EMBEDDED_LIMIT,
        "total_count": len(rows),
        "url": f"/v1/subscription_items?subscription={obj['id']}",
    }


# Shown as null when asked for and never set; every other field that is not there cannot be expanded.
_ABSENT_WHEN_UNSET = {("coupon", "applies_to"), ("coupon", "currency_options"), ("price", "tiers")}


def expand(world: World, answer: Obj, paths: Sequence[str]) -> Obj:
    """Replace ids by the objects they name, along dotted paths. Raises 400 for what cannot be expanded."""
    for path in paths:
        parts = path.split(".")
        if len([p for p in parts if p != "data"]) > MAX_EXPAND_DEPTH:
            raise invalid("You cannot expand more than 4 levels of a property.", param="expand")
        _expand(world, answer, parts, path)
    return answer


def _expand(world: World, node: Obj, parts: Sequence[str], path: str) -> None:
    name, rest = parts[0], parts[1:]
    if name not in node or node[name] is None:
        included = _include(world, node, name)
        if included is not None:
            node[name] = included
        elif name not in node and (node.get("object"), name) in _ABSENT_WHEN_UNSET:
            node[name] = None
            return
        elif name not in node:
            raise invalid(f"This property cannot be expanded ({path}).", param="expand[0]")
        else:
            return
    value = node[name]
    if isinstance(value, str):
        target = world.store.get(LINKS.get(name, ""), value)
        if target is None:
            if name not in LINKS:
                raise invalid(f"This property cannot be expanded ({path}).", param="expand[0]")
            return
        node[name] = value = view(world, target)
    elif isinstance(value, list) and name in LINKS:
        node[name] = value = [
            view(world, found) if isinstance(row, str) and (found := world.store.get(LINKS[name], row)) else row
            for row in value
        ]
    if rest:
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                _expand(world, child, rest, path)


def _include(world: World, node: Obj, name: str) -> Any:  # noqa: ANN401 - as varied as the fields themselves.
    """Fields that exist only when asked for."""
    kind = node.get("object")
    stored = world.store.get(str(kind), node.get("id"))
    if stored is None:
        return None
    if kind == "price" and name == "tiers":
        return copied(stored["_tiers"])
    if kind == "price" and name == "currency_options":
        return copied(stored["_currency_options"])
    if kind == "checkout.session" and name == "line_items":
        return embedded(stored["_line_items"], f"/v1/checkout/sessions/{stored['id']}/line_items")
    if kind == "customer" and name == "subscriptions":
        live = [
            view(world, s)
            for s in world.store.all("subscription")
            if s["customer"] == stored["id"] and s["status"] not in ("canceled", "incomplete_expired")
        ]
        return embedded(live[::-1], f"/v1/customers/{stored['id']}/subscriptions")
    if kind == "customer" and name in ("sources", "tax_ids"):
        return embedded([], f"/v1/customers/{stored['id']}/{name}")
    if kind == "coupon" and name in ("applies_to", "currency_options"):
        return copied(stored[f"_{name}"])
    if kind == "invoice" and name == "payments":
        rows = [p for p in world.store.all("invoice_payment") if p["invoice"] == stored["id"]]
        return embedded(rows, f"/v1/invoice_payments?invoice={stored['id']}")
    if kind == "invoice" and name == "confirmation_secret":
        intent = world.store.get("payment_intent", stored["_payment_intent"])
        return {"client_secret": intent["client_secret"], "type": "payment_intent"} if intent else None
    return None
