"""How a coupon or a promotion code becomes a discount of a customer, a subscription or an invoice."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.errors import invalid
from plangate.sandbox.periods import add_months
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

Obj = dict[str, Any]


def discount_ids(world: World, subscription: Obj, rows: list[Obj] | None) -> list[str]:
    """Discount objects for what a list of coupons, promotion codes or discounts names."""
    found = []
    for row in rows or []:
        if row.get("discount"):
            found.append(world.require("discount", row["discount"], param="discounts[0][discount]")["id"])
            continue
        current = [world.store.get("discount", d) for d in subscription["discounts"]]
        same = next((d for d in current if d and row.get("coupon") == d["source"]["coupon"]), None)
        discount = same or new_discount(
            world,
            row,
            customer=subscription["customer"],
            subscription=subscription["id"],
            currency=subscription["currency"],
        )
        found.append(discount["id"])
    return found


def amount_off(coupon: Obj, currency: str) -> int:
    """What a coupon takes off in a currency, in minor units. Raises ApiError 400 when it has no amount in it."""
    option = coupon["_currency_options"].get(currency)
    if option is None:
        raise invalid(
            f"The coupon `{coupon['id']}` has no amount in the currency `{currency}`: it cannot be applied.",
            param="discounts[0][coupon]",
        )
    return int(option["amount_off"])


def new_discount(
    world: World, row: Obj, *, customer: str, subscription: str | None, currency: str, session: str | None = None
) -> Obj:
    """Redeem a coupon or promotion code. Raises ApiError 400 when it cannot be redeemed, or not in this currency."""
    now = world.now()
    code = None
    if row.get("promotion_code"):
        code = world.require("promotion_code", row["promotion_code"], param="discounts[0][promotion_code]")
        spent = code["max_redemptions"] is not None and code["times_redeemed"] >= code["max_redemptions"]
        if not code["active"] or spent or (code["expires_at"] or now + 1) <= now:
            raise invalid("This promotion code cannot be redeemed.", param="discounts[0][promotion_code]")
        if code["customer"] not in (None, customer):
            raise invalid(
                "This promotion code cannot be redeemed because it belongs to a different customer.",
                param="discounts[0][promotion_code]",
            )
    stripe_id = code["promotion"]["coupon"] if code else row.get("coupon")
    coupon = world.require("coupon", stripe_id, param="discounts[0][coupon]")
    spent = coupon["max_redemptions"] is not None and coupon["times_redeemed"] >= coupon["max_redemptions"]
    if not coupon["valid"] or spent or (coupon["redeem_by"] or now + 1) <= now:
        raise invalid(f"Coupon expired: {coupon['id']}", param="discounts[0][coupon]", code="coupon_expired")
    if coupon["percent_off"] is None:
        amount_off(coupon, currency)
    for redeemed in (coupon, code):
        if redeemed is not None and not world.is_rehearsal:
            world.store.touch(redeemed)
            redeemed["times_redeemed"] += 1
    end = add_months(now, coupon["duration_in_months"]) if coupon["duration"] == "repeating" else None
    return world.store.add(
        {
            "id": new_id("di"),
            "object": "discount",
            "checkout_session": session,
            "customer": customer,
            "end": end,
            "invoice": None,
            "invoice_item": None,
            "promotion_code": code["id"] if code else None,
            "source": {"coupon": coupon["id"], "type": "coupon"},
            "start": now,
            "subscription": subscription,
            "subscription_item": None,
        }
    )
