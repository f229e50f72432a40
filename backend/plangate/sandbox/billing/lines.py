"""Lines of an invoice: a period in advance, usage in arrears, and shares of a period for a change in the middle."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from plangate.sandbox.money import share, written
from plangate.sandbox.periods import written_day
from plangate.sandbox.resources.meters import usage
from plangate.sandbox.resources.prices import amount_of, amounts_in
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

Obj = dict[str, Any]

TIMES = "\u00d7"


def period_line(world: World, subscription: Obj, item: Obj, *, start: int, end: int) -> Obj:
    """A licensed item for a whole period, charged in advance."""
    price = world.require("price", item["price"])
    quantity = item.get("quantity") or 0
    return new_line(
        world,
        amount=amount_of(price, subscription["currency"], quantity),
        currency=subscription["currency"],
        description=f"{quantity} {TIMES} {_name(world, price)} (at {_rate(price, subscription['currency'])})",
        period=(start, end),
        price=price,
        quantity=quantity,
        subscription=subscription["id"],
        item=item["id"],
    )


def trial_line(world: World, subscription: Obj, item: Obj, *, start: int, end: int) -> Obj:
    """A trial costs nothing and says so."""
    price = world.require("price", item["price"])
    return new_line(
        world,
        amount=0,
        currency=subscription["currency"],
        description=f"Trial period for {_name(world, price)}",
        period=(start, end),
        price=price,
        quantity=item.get("quantity") or 0,
        subscription=subscription["id"],
        item=item["id"],
    )


def usage_line(world: World, subscription: Obj, item: Obj, *, start: int, end: int) -> Obj:
    """A metered item for a period that is over."""
    line = new_line(
        world,
        amount=0,
        currency=subscription["currency"],
        description="",
        period=(start, end),
        price=world.require("price", item["price"]),
        quantity=0,
        subscription=subscription["id"],
        item=item["id"],
    )
    line["_is_usage"] = True
    count_usage(world, line, subscription["customer"])
    return line


def count_usage(world: World, line: Obj, stripe_customer_id: str) -> bool:
    """Charge a line of `usage_line` for what was used in its period, as far as is known now; answers whether it moved.

    What is reported late counts for the period in which it was used.
    """
    price = world.require("price", line["pricing"]["price_details"]["price"])
    meter = world.require("billing.meter", price["recurring"]["meter"])
    used = usage(world, meter, stripe_customer_id, line["period"]["start"], line["period"]["end"])
    amount = amount_of(price, line["currency"], used)
    counted = {
        "amount": amount,
        "description": f"{used.normalize():f} {TIMES} {_name(world, price)}",
        "quantity": int(used),
        "quantity_decimal": str(Decimal(int(used))),
        "subtotal": amount,
    }
    is_moved = any(line[member] != value for member, value in counted.items())
    line.update(counted)
    return is_moved


def share_line(world: World, subscription: Obj, item: Obj, *, since: int, is_credit: bool) -> Obj:
    """The rest of a running period: given back for what was there, or charged for what comes."""
    price = world.require("price", item["price"])
    quantity = item.get("quantity") or 0
    whole = amount_of(price, subscription["currency"], quantity)
    start, end = item["current_period_start"], item["current_period_end"]
    part = share(whole, start=start, end=end, since=since)
    count = f"{quantity} {TIMES} " if quantity != 1 else ""
    words = "Unused time on" if is_credit else "Remaining time on"
    return new_line(
        world,
        amount=-part if is_credit else part,
        currency=subscription["currency"],
        description=f"{words} {count}{_name(world, price)} after {written_day(since)}",
        period=(since, end),
        price=price,
        quantity=quantity,
        subscription=subscription["id"],
        item=item["id"],
        is_proration=True,
    )


def new_line(
    world: World,
    *,
    amount: int,
    currency: str,
    description: str,
    period: tuple[int, int],
    price: Obj | None,
    quantity: int,
    subscription: str | None,
    item: str | None,
    is_proration: bool = False,
    metadata: dict[str, str] | None = None,
) -> Obj:
    """An invoice line that belongs to no invoice yet."""
    details = {
        "invoice_item": None,
        "proration": is_proration,
        "proration_details": {"credited_items": None},
        "subscription": subscription,
    }
    parent: Obj = {
        "invoice_item_details": None if item else {**details, "invoice_item": new_id("ii")},
        "subscription_item_details": {**details, "subscription_item": item} if item else None,
        "type": "subscription_item_details" if item else "invoice_item_details",
    }
    pricing: Obj | None = None
    if price is not None:
        pricing = {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        }
    return {
        "id": new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": description,
        "discount_amounts": [],
        "discountable": not is_proration,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": metadata or {},
        "parent": parent,
        "period": {"start": period[0], "end": period[1]},
        "pretax_credit_amounts": [],
        "pricing": pricing,
        "quantity": quantity,
        "quantity_decimal": str(Decimal(quantity)),
        "subscription": subscription,
        "subtotal": amount,
        "taxes": [],
        "_is_proration": is_proration,
    }


def is_metered(world: World, item: Obj) -> bool:
    """Whether an item is charged by use."""
    recurring = world.require("price", item["price"])["recurring"] or {}
    return bool(recurring.get("usage_type") == "metered")


def interval_of(world: World, item: Obj) -> tuple[str, int]:
    """An item's billing interval and how many of them make a period."""
    recurring = world.require("price", item["price"])["recurring"]
    return recurring["interval"], recurring["interval_count"]


def _name(world: World, price: Obj) -> str:
    product = world.store.get("product", price["product"])
    return str(product["name"]) if product else price["product"]


def _rate(price: Obj, currency: str) -> str:
    recurring = price["recurring"]
    count = recurring["interval_count"]
    every = recurring["interval"] if count == 1 else f"{count} {recurring['interval']}s"
    if price["billing_scheme"] == "tiered":
        return f"tiered / {every}"
    amount = Decimal(amounts_in(price, currency)["unit_amount_decimal"])
    return f"{written(int(amount), currency)} / {every}"
