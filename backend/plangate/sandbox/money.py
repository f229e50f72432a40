"""Amounts in integer minor units: unit prices, packages, tiers, shares of a period, and how they are shown."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from typing import Any

Obj = dict[str, Any]

ZERO_DECIMAL = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"]
)
# Long enough for any amount times any quantity that the parameters let through.
_EXACT = Context(prec=80)
_SYMBOLS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


def half_up(value: Decimal) -> int:
    """Round half away from zero, as invoices do."""
    return int(value.quantize(Decimal(1), rounding=ROUND_HALF_UP, context=_EXACT))


def charge_for(amounts: Obj, quantity: int | Decimal) -> int:
    """What so many units cost.

    ``amounts`` is a price (or one of its currency options joined with its scheme) holding `billing_scheme`,
    `unit_amount_decimal`, `tiers`, `tiers_mode` and `transform_quantity`.
    """
    units = Decimal(quantity)
    package = amounts.get("transform_quantity")
    if package:
        rounding = ROUND_CEILING if package["round"] == "up" else ROUND_FLOOR
        units = (units / Decimal(package["divide_by"])).to_integral_value(rounding=rounding)
    if amounts["billing_scheme"] != "tiered":
        return half_up(units * Decimal(amounts["unit_amount_decimal"] or 0))
    tiers: list[Obj] = amounts["tiers"]
    if amounts["tiers_mode"] == "volume":
        tier = next(t for t in tiers if t["up_to"] is None or units <= t["up_to"])
        return half_up(_unit(tier) * units + _flat(tier))
    total, floor = Decimal(0), Decimal(0)
    for tier in tiers:
        ceiling = units if tier["up_to"] is None else min(units, Decimal(tier["up_to"]))
        if units > floor or (floor == 0 and units == 0):
            total += _flat(tier) + _unit(tier) * max(ceiling - floor, Decimal(0))
        if tier["up_to"] is None or units <= tier["up_to"]:
            break
        floor = Decimal(tier["up_to"])
    return half_up(total)


def share(amount: int, *, start: int, end: int, since: int) -> int:
    """The part of a period's amount from ``since`` to its end, by seconds, rounded half up."""
    if end <= start:
        return 0
    return half_up(Decimal(amount) * Decimal(max(0, end - since)) / Decimal(end - start))


def percentage(amount: int, percent: float) -> int:
    """So many per cent of an amount, rounded half up."""
    return half_up(Decimal(amount) * Decimal(str(percent)) / 100)


def without_tax(amount: int, percent: float) -> int:
    """What is left of an amount when a tax of so many per cent, contained in it, is taken out, rounded half up."""
    return half_up(Decimal(amount) * 100 / (100 + Decimal(str(percent))))


def written(amount: int, currency: str) -> str:
    """`$49.00`, `€0.50`, `¥500`, `CHF 12.00`."""
    whole, rest = divmod(abs(amount), 1 if currency in ZERO_DECIMAL else 100)
    number = f"{whole:,}" if currency in ZERO_DECIMAL else f"{whole:,}.{rest:02d}"
    symbol = _SYMBOLS.get(currency, f"{currency.upper()} ")
    return f"{'-' if amount < 0 else ''}{symbol}{number}"


def _unit(tier: Obj) -> Decimal:
    return Decimal(tier["unit_amount_decimal"] or 0)


def _flat(tier: Obj) -> Decimal:
    return Decimal(tier["flat_amount_decimal"] or 0)
