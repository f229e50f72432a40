"""Coupons and promotion codes."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.errors import invalid, only_one, required
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

Obj = dict[str, Any]


def create_coupon(world: World, call: Call) -> Obj:
    """`POST /v1/coupons`."""
    p = call.params
    if ("percent_off" in p) == ("amount_off" in p):
        raise only_one("amount_off", "percent_off") if "percent_off" in p else required("percent_off")
    if "amount_off" in p and not p.get("currency"):
        raise required("currency")
    if "percent_off" in p and not 0 < p["percent_off"] <= 100:
        raise invalid("percent_off must be greater than 0 and at most 100.", param="percent_off")
    duration = p.get("duration", "once")
    if duration == "repeating" and not p.get("duration_in_months"):
        raise required("duration_in_months")
    if not 1 <= (p.get("duration_in_months") or 1) <= 120:
        raise invalid("duration_in_months must be from 1 to 120.", param="duration_in_months")
    stripe_id = p.get("id") or new_id("", 8)[1:]
    if world.store.get("coupon", stripe_id):
        raise invalid("Coupon already exists.", param="id", code="resource_already_exists")
    coupon = {
        "id": stripe_id,
        "object": "coupon",
        "amount_off": p.get("amount_off"),
        "created": world.now(),
        "currency": (p.get("currency") or "").lower() or None,
        "duration": duration,
        "duration_in_months": p.get("duration_in_months"),
        "livemode": False,
        "max_redemptions": p.get("max_redemptions"),
        "metadata": merged_metadata({}, p.get("metadata")),
        "name": p.get("name"),
        "percent_off": p.get("percent_off"),
        "redeem_by": p.get("redeem_by"),
        "times_redeemed": 0,
        "valid": True,
        "_applies_to": p.get("applies_to"),
        "_currency_options": _currency_options(p),
    }
    return view(world, world.add(coupon, "coupon.created"))


def _currency_options(p: Obj) -> Obj | None:
    """What is taken off in each currency; None for a percentage."""
    if p.get("amount_off") is None:
        return None
    others = {currency.lower(): dict(option) for currency, option in (p.get("currency_options") or {}).items()}
    return {p["currency"].lower(): {"amount_off": p["amount_off"]}, **others}


def retrieve_coupon(world: World, call: Call) -> Obj:
    """`GET /v1/coupons/{id}`."""
    return view(world, world.require("coupon", call.ids[0]))


def update_coupon(world: World, call: Call) -> Obj:
    """`POST /v1/coupons/{id}`: name and metadata."""
    coupon = world.require("coupon", call.ids[0])
    with world.changing(coupon, "coupon.updated"):
        coupon["name"] = call.params.get("name", coupon["name"])
        coupon["metadata"] = merged_metadata(coupon["metadata"], call.params.get("metadata"))
    return view(world, coupon)


def delete_coupon(world: World, call: Call) -> Obj:
    """`DELETE /v1/coupons/{id}`: discounts already given stay; nobody can redeem it any more."""
    coupon = world.require("coupon", call.ids[0])
    with world.changing(coupon, None):
        coupon["valid"] = False
    world.emit("coupon.deleted", coupon)
    return {"id": coupon["id"], "object": "coupon", "deleted": True}


def list_coupons(world: World, call: Call) -> Obj:
    """`GET /v1/coupons`."""
    created = call.params.get("created")
    return page(world, call, [c for c in newest_first(world, "coupon") if in_range(c["created"], created)])


def create_code(world: World, call: Call) -> Obj:
    """`POST /v1/promotion_codes`."""
    p = call.params
    promotion = p["promotion"]
    coupon = world.require("coupon", promotion.get("coupon"), param="promotion[coupon]")
    code = (p.get("code") or new_id("", 8)[1:]).upper()
    if any(c["active"] and c["code"].upper() == code for c in world.store.all("promotion_code")):
        raise invalid("An active promotion code with this code already exists.", param="code")
    row = {
        "id": new_id("promo"),
        "object": "promotion_code",
        "active": p.get("active", True),
        "code": code,
        "created": world.now(),
        "customer": p.get("customer"),
        "expires_at": p.get("expires_at"),
        "livemode": False,
        "max_redemptions": p.get("max_redemptions"),
        "metadata": merged_metadata({}, p.get("metadata")),
        "promotion": {"coupon": coupon["id"], "type": "coupon"},
        "restrictions": {
            "first_time_transaction": False,
            "minimum_amount": None,
            "minimum_amount_currency": None,
            **(p.get("restrictions") or {}),
        },
        "times_redeemed": 0,
    }
    return view(world, world.add(row, "promotion_code.created"))


def retrieve_code(world: World, call: Call) -> Obj:
    """`GET /v1/promotion_codes/{id}`."""
    return view(world, world.require("promotion_code", call.ids[0]))


def update_code(world: World, call: Call) -> Obj:
    """`POST /v1/promotion_codes/{id}`: whether it is active, and metadata."""
    row = world.require("promotion_code", call.ids[0])
    with world.changing(row, "promotion_code.updated"):
        row["active"] = call.params.get("active", row["active"])
        row["metadata"] = merged_metadata(row["metadata"], call.params.get("metadata"))
    return view(world, row)


def list_codes(world: World, call: Call) -> Obj:
    """`GET /v1/promotion_codes`."""
    p = call.params
    rows = [
        c
        for c in newest_first(world, "promotion_code")
        if p.get("active") in (None, c["active"])
        and ("code" not in p or c["code"].upper() == p["code"].upper())
        and p.get("coupon") in (None, c["promotion"]["coupon"])
        and p.get("customer") in (None, c["customer"])
    ]
    return page(world, call, rows)


ROUTES = [
    Route("POST", "/v1/coupons", "CouponCreateParams", create_coupon, "Coupon"),
    Route("GET", "/v1/coupons", "CouponListParams", list_coupons, "list:Coupon"),
    Route("GET", "/v1/coupons/{}", "CouponRetrieveParams", retrieve_coupon, "Coupon"),
    Route("POST", "/v1/coupons/{}", "CouponUpdateParams", update_coupon, "Coupon"),
    Route("DELETE", "/v1/coupons/{}", "CouponDeleteParams", delete_coupon, "Coupon"),
    Route("POST", "/v1/promotion_codes", "PromotionCodeCreateParams", create_code, "PromotionCode"),
    Route("GET", "/v1/promotion_codes", "PromotionCodeListParams", list_codes, "list:PromotionCode"),
    Route("GET", "/v1/promotion_codes/{}", "PromotionCodeRetrieveParams", retrieve_code, "PromotionCode"),
    Route("POST", "/v1/promotion_codes/{}", "PromotionCodeUpdateParams", update_code, "PromotionCode"),
]
