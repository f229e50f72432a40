"""What a change costs: Stripe's own preview of it, asked with exactly the parameters the charge will have."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from plangate.billing.gateway import StripeGateway
from plangate.billing.transport import StripeJson
from plangate.change_terms import Action, Line, Terms
from plangate.engine.model import PeriodKind, SubscriptionFact
from plangate.engine.periods import window_at
from plangate.plan_changes.terms import Drafted, TargetLine, start_items
from plangate.shapes import Money, NextInvoice, QuoteLine

_LINES_SHOWN_MAX = 50


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """The money in a quote. `credit` is what goes to the customer's balance."""

    due_today: Money
    lines: tuple[QuoteLine, ...] = ()
    credit: Money | None = None
    tax: Money | None = None
    next_invoice: NextInvoice | None = None


async def amounts_of(
    gateway: StripeGateway,
    drafted: Drafted,
    *,
    subscription: SubscriptionFact | None,
    stripe_customer_id: str | None,
    currency: str,
    effective_at: datetime,
    at: datetime,
) -> Amounts:
    """What is due now, what is credited, and the invoice after that."""
    terms = drafted.terms
    nothing = Amounts(due_today=Money(amount_minor=0, currency=currency))
    if terms.action in {Action.CHECKOUT, Action.CREATE}:
        return await _of_start(gateway, drafted, stripe_customer_id, currency, at)
    if subscription is None:
        return nothing
    known = {"customer": subscription.stripe_customer_id, "subscription": subscription.stripe_subscription_id}
    if terms.action is Action.UPDATE:
        return await _of_update(gateway, drafted, known, subscription, currency, at)
    if terms.action is Action.SCHEDULE:
        details = {"items": _renewal_items(drafted.lines, subscription), "proration_behavior": "none"}
        total = await _renewal(gateway, drafted, known, details)
        invoice = NextInvoice(amount_minor=total, currency=currency, at=effective_at)
        return msgspec.structs.replace(nothing, next_invoice=invoice)
    if terms.action is Action.CANCEL_NOW:
        ended: StripeJson = {"cancel_now": True, "proration_behavior": "always_invoice"}
        last = await gateway.preview_invoice({**known, "subscription_details": ended})
        return nothing if last is None else _of_invoice(last, currency)
    if terms.action is Action.KEEP:
        undone: StripeJson = {"cancel_at_period_end": False}
        if subscription.phases:
            # Asked about the subscription, Stripe answers what its schedule brings: ask what the items held cost anew.
            known = {"customer": subscription.stripe_customer_id}
            held = [Line(line.stripe_price_id, line.quantity) for line in drafted.lines]
            undone = {"items": start_items(held)}
        total = await _renewal(gateway, drafted, known, undone)
        ends_at = max(item.period_end_at for item in subscription.items)
        invoice = NextInvoice(amount_minor=total, currency=currency, at=ends_at)
        return msgspec.structs.replace(nothing, next_invoice=invoice)
    return nothing


async def _renewal(gateway: StripeGateway, drafted: Drafted, known: StripeJson, details: StripeJson) -> int:
    """What the next regular invoice comes to; by the catalogue's prices where Stripe sees none coming."""
    if drafted.terms.is_end_undone:
        details = {**details, "cancel_at_period_end": False}
    renewal = await gateway.preview_invoice({**known, "subscription_details": details})
    return _catalogue_total(drafted.lines) if renewal is None else int(renewal["amount_due"])


async def _of_start(
    gateway: StripeGateway, drafted: Drafted, stripe_customer_id: str | None, currency: str, at: datetime
) -> Amounts:
    """A subscription that begins: its first invoice, then one of the same prices each interval."""
    terms = drafted.terms
    first, after = at, _next_period(at, terms)
    if terms.trial_days:
        first = after = datetime.fromtimestamp(int(at.timestamp()) + terms.trial_days * 86_400, UTC)
    regular = _catalogue_total(drafted.lines)
    if stripe_customer_id is None:
        # Nobody has a balance, a discount or a tax id before being a customer, so the catalogue's prices are the sum.
        due = 0 if terms.trial_days else regular
        shown = tuple(_own_line(line) for line in drafted.lines) if due else ()
        amounts = Amounts(due_today=Money(amount_minor=due, currency=currency), lines=shown)
    else:
        details: StripeJson = {"items": start_items(terms.lines)}
        if terms.trial_days:
            details["trial_end"] = int(first.timestamp())
        params: StripeJson = {"customer": stripe_customer_id, "subscription_details": details}
        if terms.promotion_code is not None:
            params["discounts"] = [{"promotion_code": terms.promotion_code}]
        invoice = await gateway.preview_invoice(params)
        nothing = Amounts(due_today=Money(amount_minor=0, currency=currency))
        amounts = nothing if invoice is None else _of_invoice(invoice, currency)
    following = NextInvoice(amount_minor=regular, currency=currency, at=after)
    return msgspec.structs.replace(amounts, next_invoice=following)


async def _of_update(
    gateway: StripeGateway,
    drafted: Drafted,
    known: StripeJson,
    subscription: SubscriptionFact,
    currency: str,
    at: datetime,
) -> Amounts:
    """A running subscription that changes now."""
    terms = drafted.terms
    shared = {name: value for name, value in terms.params.items() if name != "discounts"}
    discounted = {"discounts": terms.params["discounts"]} if "discounts" in terms.params else {}
    invoice = await gateway.preview_invoice({**known, **discounted, "subscription_details": shared})
    ends_at = max(item.period_end_at for item in subscription.items)
    if invoice is None:
        # A trial that was set to end: nothing is charged now, and the catalogue says what follows.
        regular = NextInvoice(amount_minor=_catalogue_total(drafted.lines), currency=currency, at=ends_at)
        return Amounts(due_today=Money(amount_minor=0, currency=currency), next_invoice=regular)
    if terms.params["proration_behavior"] != "always_invoice" and not terms.is_interval_changed:
        # Nothing is charged now: what Stripe previews is the next regular invoice, prorations included.
        at_renewal = NextInvoice(amount_minor=invoice["amount_due"], currency=currency, at=ends_at)
        return Amounts(
            due_today=Money(amount_minor=0, currency=currency), lines=_lines(invoice), next_invoice=at_renewal
        )
    amounts = _of_invoice(invoice, currency)
    if terms.is_interval_changed or "billing_cycle_anchor" in terms.params:
        total = max(0, _catalogue_total(drafted.lines) - _left_of(amounts.credit))
        following = NextInvoice(amount_minor=total, currency=currency, at=_next_period(at, terms))
    else:
        details = {**shared, "proration_behavior": "none"}
        details.pop("proration_date", None)
        total = await _renewal(gateway, drafted, {**known, **discounted}, details)
        following = NextInvoice(amount_minor=total, currency=currency, at=ends_at)
    return msgspec.structs.replace(amounts, next_invoice=following)


def _of_invoice(invoice: StripeJson, currency: str) -> Amounts:
    """An invoice that is charged now. A negative total becomes credit on the customer's balance."""
    total = int(invoice["total"])
    taxes: list[dict[str, Any]] = invoice.get("total_taxes") or []
    tax = sum(int(entry["amount"]) for entry in taxes)
    return Amounts(
        due_today=Money(amount_minor=int(invoice["amount_due"]), currency=currency),
        lines=_lines(invoice),
        credit=Money(amount_minor=-total, currency=currency) if total < 0 else None,
        tax=Money(amount_minor=tax, currency=currency) if tax else None,
    )


def _lines(invoice: StripeJson) -> tuple[QuoteLine, ...]:
    return tuple(
        QuoteLine(
            description=entry.get("description") or "",
            amount_minor=int(entry["amount"]),
            proration=_is_proration(entry),
        )
        for entry in invoice["lines"]["data"][:_LINES_SHOWN_MAX]
    )


def _is_proration(entry: StripeJson) -> bool:
    """Under `parent` since Basil, on the line itself before."""
    parent = entry.get("parent") or {}
    details = parent.get("subscription_item_details") or parent.get("invoice_item_details") or {}
    return bool(details.get("proration", entry.get("proration", False)))


def _renewal_items(lines: tuple[TargetLine, ...], subscription: SubscriptionFact) -> list[StripeJson]:
    """The items of the later phase, as changes to the running ones."""
    kept = {line.item.stripe_item_id for line in lines if line.item is not None}
    written: list[StripeJson] = []
    for line in lines:
        named: StripeJson = {"price": line.stripe_price_id}
        if line.item is not None:
            named["id"] = line.item.stripe_item_id
        if line.quantity is not None:
            named["quantity"] = line.quantity
        written.append(named)
    gone = [item.stripe_item_id for item in subscription.items if item.stripe_item_id not in kept]
    return [*written, *({"id": stripe_item_id, "deleted": True} for stripe_item_id in gone)]


def _catalogue_total(lines: tuple[TargetLine, ...]) -> int:
    return sum((line.amount_minor or 0) * (line.quantity or 0) for line in lines)


def _left_of(credit: Money | None) -> int:
    return credit.amount_minor if credit is not None else 0


def _own_line(line: TargetLine) -> QuoteLine:
    quantity = line.quantity or 0
    amount = (line.amount_minor or 0) * quantity
    return QuoteLine(description=f"{quantity} x {line.name}", amount_minor=amount)


def _next_period(at: datetime, terms: Terms) -> datetime:
    """The end of the period that begins at `at`."""
    _, ends_at = window_at(
        PeriodKind.BILLING_INTERVAL,
        at,
        anchor_at=at,
        interval=terms.interval,
        interval_count=terms.interval_count,
    )
    return ends_at or at
