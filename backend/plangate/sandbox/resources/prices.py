"""Prices: flat, packaged, tiered and metered, in one or several currencies."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from plangate.sandbox.errors import invalid, only_one, required
from plangate.sandbox.money import charge_for, half_up
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .products import new_product

Obj = dict[str, Any]


def create_price(world: World, call: Call) -> Obj:
    """`POST /v1/prices`."""
    return view(world, new_price(world, call.params))


def new_price(world: World, given: Obj) -> Obj:
    """A price from parameters, announced. Raises ApiError 400 for combinations Stripe refuses."""
    currency = given["currency"].lower()
    if "product_data" in given and "product" in given:
        raise only_one("product", "product_data")
    if "product_data" in given:
        product = new_product(world, given["product_data"])
        world.emit("product.created", product)
    elif "product" in given:
        product = world.require("product", given["product"], param="product")
    else:
        raise required("product")
    recurring = _recurring(world, given.get("recurring"))
    scheme = given.get("billing_scheme", "per_unit")
    main = _amounts(given, scheme, "")
    if scheme == "tiered" and not given.get("tiers_mode"):
        raise required("tiers_mode")
    options = {currency: main}
    for other, option in (given.get("currency_options") or {}).items():
        options[other.lower()] = _amounts(option, scheme, f"currency_options[{other}]")
    price: Obj = {
        "id": new_id("price"),
        "object": "price",
        "active": given.get("active", True),
        "billing_scheme": scheme,
        "created": world.now(),
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": merged_metadata({}, given.get("metadata")),
        "nickname": given.get("nickname"),
        "product": product["id"],
        "recurring": recurring,
        "tax_behavior": given.get("tax_behavior", "unspecified"),
        "tiers_mode": given.get("tiers_mode") if scheme == "tiered" else None,
        "transform_quantity": given.get("transform_quantity"),
        "type": "recurring" if recurring else "one_time",
        "unit_amount": main["unit_amount"],
        "unit_amount_decimal": main["unit_amount_decimal"],
        "_tiers": main["tiers"],
        "_currency_options": options,
    }
    _claim_lookup_key(world, price, given.get("lookup_key"), takes_over=given.get("transfer_lookup_key", False))
    return world.add(price, "price.created")


def retrieve_price(world: World, call: Call) -> Obj:
    """`GET /v1/prices/{id}`."""
    return view(world, world.require("price", call.ids[0]))


def update_price(world: World, call: Call) -> Obj:
    """`POST /v1/prices/{id}`: never its amounts."""
    p = call.params
    price = world.require("price", call.ids[0])
    if p.get("active") is False and world.require("product", price["product"])["default_price"] == price["id"]:
        raise invalid("This price cannot be archived because it is the default price of its product.", param="active")
    with world.changing(price, "price.updated"):
        for name in ("active", "nickname", "tax_behavior"):
            if name in p:
                price[name] = p[name] if p[name] != "" else None
        if "metadata" in p:
            price["metadata"] = merged_metadata(price["metadata"], p["metadata"])
        if "lookup_key" in p:
            _claim_lookup_key(world, price, p["lookup_key"], takes_over=p.get("transfer_lookup_key", False))
        for other, option in (p.get("currency_options") or {}).items():
            price["_currency_options"][other.lower()] = _amounts(
                option, price["billing_scheme"], f"currency_options[{other}]"
            )
    return view(world, price)


def list_prices(world: World, call: Call) -> Obj:
    """`GET /v1/prices`."""
    p = call.params
    keys = p.get("lookup_keys")
    recurring = p.get("recurring") or {}
    rows = [
        price
        for price in newest_first(world, "price")
        if p.get("active") in (None, price["active"])
        and p.get("product") in (None, price["product"])
        and p.get("currency") in (None, price["currency"])
        and p.get("type") in (None, price["type"])
        and (keys is None or price["lookup_key"] in keys)
        and all((price["recurring"] or {}).get(name) == value for name, value in recurring.items())
        and in_range(price["created"], p.get("created"))
    ]
    return page(world, call, rows)


def inline_price(world: World, given: Obj) -> Obj:
    """The price behind a `price_data`: made at once, and inactive so that nobody reuses it."""
    described = {k: v for k, v in given.items() if k != "recurring"}
    if given.get("recurring"):
        described["recurring"] = given["recurring"]
    return new_price(world, {**described, "active": False})


def price_of(world: World, row: Obj, where: str) -> Obj:
    """The price a line names by `price` or describes by `price_data`."""
    if row.get("price_data"):
        if row.get("price"):
            raise only_one(f"{where}[price]", f"{where}[price_data]")
        return inline_price(world, row["price_data"])
    stripe_id = row.get("price") or row.get("plan")
    if not stripe_id:
        raise required(f"{where}[price]")
    return world.require("price", stripe_id, param=f"{where}[price]")


def amount_of(price: Obj, currency: str, quantity: int | Decimal) -> int:
    """What a quantity costs in one of the price's currencies, in minor units."""
    return charge_for(amounts_in(price, currency), quantity)


def amounts_in(price: Obj, currency: str) -> Obj:
    """A price's amounts in a currency. Raises ApiError 400 when it has none."""
    option = price["_currency_options"].get(currency)
    if option is None:
        known = "`, `".join(sorted(price["_currency_options"]))
        raise invalid(
            f"The price specified supports currencies of `{known}`. This doesn't match the expected currency: "
            f"`{currency}`."
        )
    return {
        "billing_scheme": price["billing_scheme"],
        "tiers_mode": price["tiers_mode"],
        "transform_quantity": price["transform_quantity"],
        "unit_amount_decimal": option["unit_amount_decimal"],
        "tiers": option["tiers"] or [],
    }


def _recurring(world: World, given: Obj | None) -> Obj | None:
    if not given:
        return None
    usage = given.get("usage_type", "licensed")
    meter = given.get("meter")
    if usage == "metered" and not meter:
        raise invalid("Metered prices must be backed by a meter: pass `recurring[meter]`.", param="recurring[meter]")
    if usage == "licensed" and meter:
        raise invalid("`recurring[meter]` needs `recurring[usage_type]=metered`.", param="recurring[usage_type]")
    if meter:
        world.require("billing.meter", meter, param="recurring[meter]")
    count = given.get("interval_count", 1)
    longest = {"day": 1095, "week": 156, "month": 36, "year": 3}[given["interval"]]
    if not 1 <= count <= longest:
        raise invalid("Prices can have a billing period of at most three years.", param="recurring[interval_count]")
    return {
        "interval": given["interval"],
        "interval_count": count,
        "meter": meter,
        "trial_period_days": given.get("trial_period_days"),
        "usage_type": usage,
    }


def _amounts(given: Obj, scheme: str, where: str) -> Obj:
    def named(name: str) -> str:
        return f"{where}[{name}]" if where else name

    if scheme == "tiered":
        if not given.get("tiers"):
            raise required(named("tiers"))
        return {"unit_amount": None, "unit_amount_decimal": None, "tiers": _tiers(given["tiers"], named("tiers"))}
    if "unit_amount" in given and "unit_amount_decimal" in given:
        raise only_one(named("unit_amount"), named("unit_amount_decimal"))
    text = given.get("unit_amount_decimal")
    if text is None:
        if given.get("unit_amount") is None:
            raise required(named("unit_amount"))
        text = str(given["unit_amount"])
    if Decimal(text) < 0:
        raise invalid("Invalid non-negative integer", param=named("unit_amount"), code="parameter_invalid_integer")
    return {"unit_amount": _whole(text), "unit_amount_decimal": text, "tiers": None}


def _tiers(given: list[Obj], where: str) -> list[Obj]:
    rows: list[Obj] = []
    floor = 0
    for number, tier in enumerate(given):
        up_to = None if tier["up_to"] == "inf" else tier["up_to"]
        is_last = number == len(given) - 1
        if (up_to is None) != is_last or (up_to is not None and up_to <= floor):
            raise invalid(
                "Tiers must rise, and the last one (and only it) must have `up_to` of `inf`.",
                param=f"{where}[{number}][up_to]",
            )
        floor = up_to or floor
        unit = tier.get("unit_amount_decimal", str(tier["unit_amount"]) if "unit_amount" in tier else None)
        flat = tier.get("flat_amount_decimal", str(tier["flat_amount"]) if "flat_amount" in tier else None)
        if unit is None and flat is None:
            raise required(f"{where}[{number}][unit_amount]")
        rows.append(
            {
                "flat_amount": _whole(flat),
                "flat_amount_decimal": flat,
                "unit_amount": _whole(unit),
                "unit_amount_decimal": unit,
                "up_to": up_to,
            }
        )
    return rows


def _whole(text: str | None) -> int | None:
    return half_up(Decimal(text)) if text is not None and Decimal(text) == Decimal(text).to_integral_value() else None


def _claim_lookup_key(world: World, price: Obj, key: str | None, *, takes_over: bool) -> None:
    if not key:
        if key == "":
            price["lookup_key"] = None
        return
    for other in world.store.all("price"):
        if other["lookup_key"] == key and other["id"] != price["id"]:
            if not takes_over:
                raise invalid(
                    f"A price (`{other['id']}`) already uses that lookup key. You may not have more than one active "
                    "price with the same lookup key.",
                    param="lookup_key",
                )
            with world.changing(other, "price.updated"):
                other["lookup_key"] = None
    price["lookup_key"] = key


ROUTES = [
    Route("POST", "/v1/prices", "PriceCreateParams", create_price, "Price"),
    Route("GET", "/v1/prices", "PriceListParams", list_prices, "list:Price"),
    Route("GET", "/v1/prices/{}", "PriceRetrieveParams", retrieve_price, "Price"),
    Route("POST", "/v1/prices/{}", "PriceUpdateParams", update_price, "Price"),
]
