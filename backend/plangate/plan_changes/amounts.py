"""What a change costs: Stripe's own preview of it, asked with exactly the parameters the charge will have."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.gateway import StripeGateway
from plangate.billing.transport import StripeJson
from plangate.change_terms import Action
from plangate.engine.facts import SubscriptionFact
from plangate.plan_changes.asking import (
    asked_anew,
    previewed,
    redeemed,
    renewal_asked,
    started_items,
    with_discounts,
    with_least_usage,
)
from plangate.plan_changes.lines import TargetLine, start_items
from plangate.plan_changes.renewals import first_renewal, first_renewal_from, intervals_held, is_cycle_restarted
from plangate.plan_changes.terms import Drafted
from plangate.shapes import Money, NextInvoice, QuoteLine

_LINES_SHOWN_MAX = 50
UNENDED: Final[StripeJson] = {"cancel_at_period_end": False}


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """The money in a quote. `credit` is what goes to the customer's balance.

    `lines` are those of the invoice that is made now, so they come to `due_today` (with exclusive tax), or to minus
    `credit`. A later invoice is `next_invoice` alone: its amount and its date.
    """

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
    if terms.action in {Action.CHECKOUT, Action.CREATE, Action.START_LATER}:
        return await _of_start(gateway, drafted, stripe_customer_id, currency, at)
    if subscription is None:
        return nothing
    known = {"customer": subscription.stripe_customer_id, "subscription": subscription.stripe_subscription_id}
    if terms.action is Action.UPDATE:
        return await _of_update(gateway, drafted, known, subscription, currency, at)
    if terms.action is Action.SCHEDULE:
        renews_at = min(effective_at, *(item.period_end_at for item in subscription.items))
        if renews_at < effective_at and subscription.stripe_schedule_id is None:
            # Something billed more often than the plan is invoiced before the change arrives, as it is now.
            asked = {**known, **({"subscription_details": UNENDED} if terms.is_end_undone else {})}
        else:
            items = _renewal_items(drafted.lines, subscription, is_interval_changed=terms.is_interval_changed)
            details: StripeJson = {"items": items}
            if subscription.status != "trialing" and len(intervals_held(drafted)) > 1:
                # All of them begin a period with the change: without this, what is billed more often comes first.
                details["billing_cycle_anchor"] = {"type": "now"}
            asked = await renewal_asked(gateway, drafted, subscription, details)
        total = await renewal_amount(gateway, drafted, asked, renews_at=renews_at)
        invoice = NextInvoice(amount_minor=total, currency=currency, at=renews_at)
        return msgspec.structs.replace(nothing, next_invoice=invoice)
    if terms.action is Action.CANCEL_NOW:
        ended: StripeJson = dict(terms.params) or {"cancel_now": True, "proration_behavior": "always_invoice"}
        last = await previewed(gateway, terms, {**known, "subscription_details": ended})
        if last is None:
            return nothing
        amounts = _of_invoice(last, currency)
        # What is left for the moment between giving back and cancelling costs nothing, and would only puzzle people.
        lines = tuple(line for line in amounts.lines if line.amount_minor)
        return msgspec.structs.replace(amounts, lines=lines)
    if terms.action is Action.KEEP:
        ends_at, due = first_renewal(drafted, subscription, at)
        asked = await renewal_asked(gateway, drafted, subscription, UNENDED)
        total = await renewal_amount(gateway, due, asked, renews_at=ends_at)
        invoice = NextInvoice(amount_minor=total, currency=currency, at=ends_at)
        return msgspec.structs.replace(nothing, next_invoice=invoice)
    return nothing


async def _of_start(
    gateway: StripeGateway, drafted: Drafted, stripe_customer_id: str | None, currency: str, at: datetime
) -> Amounts:
    """A subscription that begins: its first invoice, then one of the same prices each interval.

    Stripe previews it for nobody in particular, too: who is no customer yet has no balance, discount or tax id.
    """
    terms = drafted.terms
    asked: StripeJson = {
        **({"currency": currency} if stripe_customer_id is None else {"customer": stripe_customer_id}),
        "subscription_details": {"items": start_items(terms.lines)},
        **redeemed(terms),
    }
    nothing = Amounts(due_today=Money(amount_minor=0, currency=currency))
    if terms.action is Action.START_LATER:
        starts_at = datetime.fromtimestamp(terms.boundary or 0, UTC)
        first = await previewed(gateway, terms, asked)
        amount = 0 if first is None else int(first["amount_due"])
        invoice = NextInvoice(amount_minor=amount, currency=currency, at=starts_at)
        return msgspec.structs.replace(nothing, next_invoice=invoice)
    details = dict(asked["subscription_details"])
    after, due = first_renewal_from(drafted, at)
    if terms.trial_days:
        details["trial_end"] = int(at.timestamp()) + terms.trial_days * 86_400
        after, due = datetime.fromtimestamp(details["trial_end"], UTC), drafted
    first = await previewed(gateway, terms, {**asked, "subscription_details": details})
    amounts = nothing if first is None else _of_invoice(first, currency)
    renewed = {**asked, "subscription_details": {"items": started_items(due)}}
    total = await renewal_amount(gateway, due, with_least_usage(renewed, due), first=first, renews_at=after)
    following = NextInvoice(amount_minor=total, currency=currency, at=after)
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
    # The last thing a scheduled end or a schedule leaves is the change itself, which takes them away first.
    undone: StripeJson = UNENDED if terms.is_end_undone else {}
    is_restarted = is_cycle_restarted(drafted, subscription)
    renews_at, due = first_renewal_from(drafted, at) if is_restarted else first_renewal(drafted, subscription, at)
    nothing = Money(amount_minor=0, currency=currency)
    if terms.trial_end is not None:
        ends_at = datetime.fromtimestamp(terms.trial_end, UTC)
        # An invoice over nothing says that the trial goes on; the first one to pay comes where it ends.
        invoice = await previewed(gateway, terms, {**known, "subscription_details": shared})
        asked = await asked_anew(gateway, drafted, subscription)
        total = await renewal_amount(gateway, drafted, asked, renews_at=ends_at)
        at_end = NextInvoice(amount_minor=total, currency=currency, at=ends_at)
        amounts = Amounts(due_today=nothing)
        if invoice is not None and not int(invoice["total"]):
            amounts = _of_invoice(invoice, currency)
        return msgspec.structs.replace(amounts, next_invoice=at_end)
    if terms.params["proration_behavior"] != "always_invoice" and not is_restarted:
        # Nothing is charged now: what Stripe previews is the next regular invoice, prorations included.
        if subscription.stripe_schedule_id is None:
            asked = {**known, **redeemed(terms), "subscription_details": {**shared, **undone}}
        else:
            asked = await renewal_asked(gateway, drafted, subscription, {})
        invoice = await previewed(gateway, terms, asked)
        regular = _catalogue_total(due.lines) if invoice is None else int(invoice["amount_due"])
        at_renewal = NextInvoice(amount_minor=regular, currency=currency, at=renews_at)
        return Amounts(due_today=nothing, next_invoice=at_renewal)
    invoice = await previewed(gateway, terms, {**known, **redeemed(terms), "subscription_details": shared})
    if invoice is None:
        following = NextInvoice(amount_minor=_catalogue_total(due.lines), currency=currency, at=renews_at)
        return Amounts(due_today=nothing, next_invoice=following)
    later = {name: value for name, value in shared.items() if name != "proration_date"}
    if is_restarted:
        # A period that begins anew has no usage yet, and nothing that waits.
        asked = with_least_usage(await asked_anew(gateway, due, subscription), due)
    else:
        asked = await renewal_asked(gateway, drafted, subscription, {**later, **undone})
    total = await renewal_amount(gateway, due, asked, first=invoice, renews_at=renews_at)
    following = NextInvoice(amount_minor=total, currency=currency, at=renews_at)
    return msgspec.structs.replace(_of_invoice(invoice, currency), next_invoice=following)


async def renewal_amount(
    gateway: StripeGateway,
    drafted: Drafted,
    asked: StripeJson,
    *,
    renews_at: datetime,
    first: StripeJson | None = None,
) -> int:
    """What the regular invoice at `renews_at` comes to, in minor units.

    `asked` are the parameters of a preview without prorations; `first` is the invoice charged before it, which uses
    up credit and the discounts that are good for one invoice. By the catalogue's prices where Stripe sees none coming.
    """
    expanded: StripeJson = {**asked, "expand": ["discounts.source.coupon"]}
    if first is not None:
        # What waits for the next invoice goes onto the first one.
        expanded["preview_mode"] = "recurring"
    try:
        invoice = await previewed(gateway, drafted.terms, expanded)
        if invoice is None:
            return _catalogue_total(drafted.lines)
        discounts: list[StripeJson] = invoice.get("discounts") or []
        is_used = first is not None and int(first["subtotal"]) > 0
        code = drafted.terms.promotion_code
        # A code given with a scheduled change is redeemed when that arrives.
        later = code if drafted.terms.action is Action.SCHEDULE else None
        lasting = [
            one
            for one in discounts
            if (later and one.get("promotion_code") == later) or _lasts(one, is_used=is_used, until=renews_at)
        ]
        if len(lasting) < len(discounts):
            named = [
                {"promotion_code": code} if code and one.get("promotion_code") == code else {"discount": one["id"]}
                for one in lasting
            ]
            again = with_discounts(expanded, named)
            invoice = await previewed(gateway, drafted.terms, again) or invoice
    except StripeFailure as refused:
        if refused.kind is not FailureKind.REFUSED:
            raise
        # A price that is held and not sold any more cannot be asked about as if it were bought.
        return _catalogue_total(drafted.lines)
    last = first or invoice
    balance = int(last["starting_balance"])
    if first is not None:
        balance += int(first["total"]) - int(first["amount_due"])
    total = int(invoice["total"])
    return max(0, total + balance) if total > 0 else 0


def _lasts(discount: StripeJson, *, is_used: bool, until: datetime) -> bool:
    """Whether a discount of this invoice is still there for the one at `until`."""
    coupon = (discount.get("source") or {}).get("coupon")
    is_for_one = isinstance(coupon, dict) and coupon.get("duration") == "once"
    end = discount.get("end")
    return not (is_for_one and is_used) and (end is None or int(end) > until.timestamp())


def _of_invoice(invoice: StripeJson, currency: str) -> Amounts:
    """An invoice that is charged now. A negative total becomes credit on the customer's balance."""
    total = int(invoice["total"])
    taxes: list[dict[str, Any]] = invoice.get("total_taxes") or []
    tax = sum(int(entry["amount"]) for entry in taxes)
    return Amounts(
        due_today=Money(amount_minor=int(invoice["amount_due"]), currency=currency),
        lines=(*_lines(invoice), *_taken_off(invoice)),
        credit=Money(amount_minor=-total, currency=currency) if total < 0 else None,
        tax=Money(amount_minor=tax, currency=currency) if tax else None,
    )


def _lines(invoice: StripeJson) -> tuple[QuoteLine, ...]:
    """The invoice's lines; of a very long one the last are one line together."""
    entries: list[StripeJson] = invoice["lines"]["data"]
    shown = tuple(
        QuoteLine(
            description=entry.get("description") or "",
            amount_minor=int(entry["amount"]),
            proration=_is_proration(entry),
        )
        for entry in entries[:_LINES_SHOWN_MAX]
    )
    rest = entries[_LINES_SHOWN_MAX:]
    if not rest:
        return shown
    amount = sum(int(entry["amount"]) for entry in rest)
    return (*shown, QuoteLine(description=f"{len(rest)} more", amount_minor=amount))


def _taken_off(invoice: StripeJson) -> tuple[QuoteLine, ...]:
    """What comes between the lines and the amount due, so that lines and tax add up to it."""
    off = sum(int(entry["amount"]) for entry in invoice.get("total_discount_amounts") or [])
    total = int(invoice["total"])
    balance = int(invoice["amount_due"]) - total if total > 0 else 0
    taken = (("Discount", -off), ("Credit from your balance" if balance < 0 else "Owed from before", balance))
    return tuple(QuoteLine(description=text, amount_minor=amount) for text, amount in taken if amount)


def _is_proration(entry: StripeJson) -> bool:
    """Under `parent` since Basil, on the line itself before."""
    parent = entry.get("parent") or {}
    details = parent.get("subscription_item_details") or parent.get("invoice_item_details") or {}
    return bool(details.get("proration", entry.get("proration", False)))


def _renewal_items(
    lines: tuple[TargetLine, ...], subscription: SubscriptionFact, *, is_interval_changed: bool
) -> list[StripeJson]:
    """The items of the later phase, as changes to the running ones.

    What is used until then is billed at the price it is used under, so metered items stay as they are, unless the
    period itself becomes another; those of the later phase have counted nothing by then.
    """
    kept = {line.item.stripe_item_id for line in lines if line.item is not None}
    written: list[StripeJson] = []
    for line in lines:
        if line.quantity is None and not is_interval_changed:
            continue
        named: StripeJson = {"price": line.stripe_price_id}
        if line.item is not None:
            named["id"] = line.item.stripe_item_id
        if line.quantity is not None:
            named["quantity"] = line.quantity
        written.append(named)
    gone = [
        item.stripe_item_id
        for item in subscription.items
        if item.stripe_item_id not in kept and (is_interval_changed or not item.is_metered)
    ]
    return [*written, *({"id": stripe_item_id, "deleted": True} for stripe_item_id in gone)]


def _catalogue_total(lines: tuple[TargetLine, ...]) -> int:
    return sum(line.amount_minor for line in lines if line.quantity is not None)
