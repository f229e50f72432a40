"""What Stripe is asked when it previews an invoice: the change as it will be made, and the regular invoice after it."""

from collections.abc import Mapping, Sequence
from typing import Any

from plangate.billing.gateway import LineItem, StripeGateway
from plangate.billing.schedule import Boundary, kept_phase, scheduled_phases
from plangate.billing.transport import StripeJson
from plangate.change_terms import OWN_PRICE, Action, Line, OwnPrice, Terms
from plangate.engine.facts import SubscriptionFact
from plangate.plan_changes.custom import price_described
from plangate.plan_changes.lines import start_items
from plangate.plan_changes.terms import Drafted

# Long enough that the regular invoice comes before the phase ends, whatever its interval.
_YEARS_SECONDS = 4 * 366 * 86_400
_PRORATIONS = frozenset({"create_prorations", "none"})


async def previewed(gateway: StripeGateway, terms: Terms, asked: StripeJson) -> StripeJson | None:
    """Stripe's preview, with the price agreed on described where it is not made yet."""
    own = terms.own
    if own is not None:
        details = asked.get("subscription_details", {})
        if "items" in details:
            asked = {**asked, "subscription_details": {**details, "items": _described(own, details["items"])}}
        schedule = asked.get("schedule_details", {})
        if "phases" in schedule:
            phases = [{**phase, "items": _described(own, phase["items"])} for phase in schedule["phases"]]
            asked = {**asked, "schedule_details": {**schedule, "phases": phases}}
    return await gateway.preview_invoice(asked)


def redeemed(terms: Terms) -> StripeJson:
    """The promotion code asked for, as previews take it."""
    return {} if terms.promotion_code is None else {"discounts": [{"promotion_code": terms.promotion_code}]}


def with_least_usage(asked: StripeJson, drafted: Drafted) -> StripeJson:
    """The same preview of a period that begins, with what its usage costs at least: flat amounts of first tiers."""
    least = [
        {"amount": line.amount_minor, "currency": line.price.currency, "description": f"{line.name}: {line.feature}"}
        for line in drafted.lines
        if line.quantity is None and line.price is not None and line.amount_minor
    ]
    return {**asked, "invoice_items": least} if least else asked


def with_discounts(asked: StripeJson, named: Sequence[Mapping[str, Any]]) -> StripeJson:
    """The same preview with exactly these discounts."""
    if "schedule_details" not in asked:
        return {**asked, "discounts": list(named) or ""}
    schedule = asked["schedule_details"]
    phases = [{**phase, "discounts": list(named)} for phase in schedule["phases"]]
    return {**asked, "schedule_details": {**schedule, "phases": phases}}


def started_items(drafted: Drafted) -> list[StripeJson]:
    """The items of a subscription that begins with the lines of a change."""
    return start_items([Line(line.stripe_price_id, line.quantity) for line in drafted.lines])


async def renewal_asked(
    gateway: StripeGateway,
    drafted: Drafted,
    subscription: SubscriptionFact,
    details: StripeJson,
) -> StripeJson:
    """The parameters that preview the regular invoice after a change: without prorations that the change itself makes.

    Asked about a subscription, Stripe answers what its schedule brings. So where one is attached, it is asked what the
    schedule would bring if it were written as the change leaves it.
    """
    terms = drafted.terms
    if subscription.stripe_schedule_id is None:
        undone: StripeJson = {"cancel_at_period_end": False} if terms.is_end_undone else {}
        return {
            "customer": subscription.stripe_customer_id,
            "subscription": subscription.stripe_subscription_id,
            "subscription_details": {**details, **undone, "proration_behavior": "none"},
            **redeemed(terms),
        }
    raw = await gateway.fetch_subscription(subscription.stripe_subscription_id) or {}
    attached = await gateway.schedules.fetch(subscription.stripe_schedule_id)
    if attached is None:
        return _anew(drafted, subscription, raw)
    target = [LineItem(line.stripe_price_id, line.quantity) for line in drafted.lines]
    if terms.action is Action.SCHEDULE:
        boundary = Boundary(terms.boundary or 0, terms.interval, terms.interval_count, terms.is_interval_changed)
        written = scheduled_phases(
            attached,
            target,
            boundary=boundary,
            metadata={},
            promotion_code=terms.promotion_code,
            subscription=raw,
            collection=terms.collection,
        )
        written.pop("metadata")
    else:
        ends_at = max(item.period_end_at for item in subscription.items)
        phase = kept_phase(attached, target, until=int(ends_at.timestamp()) + _YEARS_SECONDS, subscription=raw)
        if terms.promotion_code is not None:
            phase["discounts"] = [{"promotion_code": terms.promotion_code}]
        behaviour = terms.params.get("proration_behavior", "none")
        written = {
            "end_behavior": "release",
            # What is charged at once is on the invoice before this one.
            "proration_behavior": behaviour if behaviour in _PRORATIONS else "none",
            "phases": [phase],
        }
    return {"schedule": subscription.stripe_schedule_id, "schedule_details": written}


async def asked_anew(gateway: StripeGateway, drafted: Drafted, subscription: SubscriptionFact) -> StripeJson:
    """The parameters that preview the first invoice of a period that begins with these items."""
    raw = await gateway.fetch_subscription(subscription.stripe_subscription_id) or {}
    return _anew(drafted, subscription, raw)


def _anew(drafted: Drafted, subscription: SubscriptionFact, raw: StripeJson) -> StripeJson:
    """What the items would cost a subscription that begins with them."""
    anew: StripeJson = {"items": started_items(drafted)}
    if rates := [rate["id"] for rate in raw.get("default_tax_rates") or []]:
        anew["default_tax_rates"] = rates
    held: list[StripeJson] = [
        {"discount": one if isinstance(one, str) else one["id"]} for one in raw.get("discounts") or []
    ]
    asked = redeemed(drafted.terms) or ({"discounts": held} if held else {})
    if (raw.get("automatic_tax") or {}).get("enabled"):
        asked["automatic_tax"] = {"enabled": True}
    return {"customer": subscription.stripe_customer_id, "subscription_details": anew, **asked}


def _described(own: OwnPrice, items: Sequence[StripeJson]) -> list[StripeJson]:
    return [
        {**{name: value for name, value in item.items() if name != "price"}, "price_data": price_described(own)}
        if item.get("price") == OWN_PRICE
        else item
        for item in items
    ]
