"""Promotion codes: refused before anything is promised."""

from datetime import datetime

from plangate.billing.gateway import StripeGateway, reference
from plangate.billing.transport import StripeJson
from plangate.errors import Refusal, invalid


async def promotion_of(
    gateway: StripeGateway, text: str, *, stripe_customer_id: str | None, currency: str, at: datetime
) -> StripeJson:
    """The promotion code, with its coupon, that `text` names: Stripe's id, or what a customer types.

    Raises Refusal (422) for one that is unknown, over, used up, somebody else's, for another currency, or for the first
    purchase of somebody who has paid before.
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
    if coupon.get("amount_off") is not None and not _is_for(coupon, currency):
        raise _refused(f"This promotion code is not for payments in {currency.upper()}.")
    is_for_first = (code.get("restrictions") or {}).get("first_time_transaction")
    if is_for_first and stripe_customer_id is not None and await gateway.has_paid(stripe_customer_id):
        raise _refused("This promotion code is for a first purchase, and this company has paid before.")
    return code


def _is_for(coupon: StripeJson, currency: str) -> bool:
    """Whether an amount off is one in this currency."""
    return coupon.get("currency") == currency or currency in (coupon.get("currency_options") or {})


def _refused(detail: str) -> Refusal:
    return invalid("/promotion_code", detail)
