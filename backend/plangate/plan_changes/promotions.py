"""Promotion codes: refused before anything is promised, and taken off where Stripe knows no customer to ask about."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

import msgspec

from plangate.billing.gateway import StripeGateway, reference
from plangate.billing.transport import StripeJson
from plangate.errors import Refusal, invalid
from plangate.plan_changes.amounts import Amounts
from plangate.shapes import QuoteLine


async def promotion_of(
    gateway: StripeGateway, text: str, *, stripe_customer_id: str | None, currency: str, at: datetime
) -> StripeJson:
    """The promotion code, with its coupon, that `text` names: Stripe's id, or what a customer types.

    Raises Refusal (422) for one that is unknown, over, used up, somebody else's, or for another currency.
    """
    code = await gateway.fetch_promotion_code(text)
    if code is None:
        raise _refused("There is no such promotion code, or it is over.")
    coupon = code["coupon"]
    ends = [stamp for stamp in (code.get("expires_at"), coupon.get("redeem_by")) if stamp is not None]
    is_used_up = any(
        one.get("max_redemptions") is not None and one["times_redeemed"] >= one["max_redemptions"]
        for one in (code, coupon)
    )
    if not coupon["valid"] or is_used_up or any(stamp <= at.timestamp() for stamp in ends):
        raise _refused("This promotion code is over, or was used as often as it may be.")
    owner = reference(code.get("customer"))
    if owner is not None and owner != stripe_customer_id:
        raise _refused("This promotion code is for another customer.")
    if coupon.get("amount_off") is not None and _off(coupon, currency, 0) is None:
        raise _refused(f"This promotion code is not for payments in {currency.upper()}.")
    return code


def discounted(amounts: Amounts, code: StripeJson, *, has_trial: bool) -> Amounts:
    """The catalogue's amounts with the code taken off, for a company that is no Stripe customer yet.

    The first invoice that is not empty is the discounted one; the one after it is so while the coupon lasts. A coupon
    for some products alone is left to the hosted page, which shows what it comes to.
    """
    coupon = code["coupon"]
    if coupon.get("applies_to") is not None:
        return amounts
    due, following = amounts.due_today, amounts.next_invoice
    off = _off(coupon, due.currency, due.amount_minor) or 0
    if off:
        due = msgspec.structs.replace(due, amount_minor=due.amount_minor - off)
        amounts = msgspec.structs.replace(
            amounts,
            due_today=due,
            lines=(*amounts.lines, QuoteLine(description="Discount", amount_minor=-off)),
        )
    lasts = coupon["duration"] == "forever" or (
        coupon["duration"] == "repeating" and int(coupon["duration_in_months"] or 0) > 1
    )
    if following is not None and (has_trial or lasts):
        later = _off(coupon, following.currency, following.amount_minor) or 0
        following = msgspec.structs.replace(following, amount_minor=following.amount_minor - later)
    return msgspec.structs.replace(amounts, next_invoice=following)


def _off(coupon: StripeJson, currency: str, amount_minor: int) -> int | None:
    """What the coupon takes off an amount, in minor units; None when it is for other currencies."""
    if coupon.get("percent_off") is not None:
        share = Decimal(str(coupon["percent_off"])) / 100
        return int((amount_minor * share).quantize(Decimal(1), ROUND_HALF_UP))
    if coupon.get("currency") == currency:
        return min(amount_minor, int(coupon["amount_off"]))
    option = (coupon.get("currency_options") or {}).get(currency)
    return None if option is None else min(amount_minor, int(option["amount_off"]))


def _refused(detail: str) -> Refusal:
    return invalid("/promotion_code", detail)
