"""What a catalogue may sell, drawn at random: entitlements with and without prices, and conditions of every kind."""

import random
from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec.structs import replace

from plangate.engine.catalog import Condition, Entitlement, Price
from plangate.engine.values import UNLIMITED, Interval, PeriodKind, PriceBehaviour, Stacking

Operator: TypeAlias = Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in"]


def any_entitlements(dice: random.Random) -> Iterator[Entitlement]:
    """What a version may grant."""
    for key in ("exports", "exports", "emails"):
        if dice.random() < 0.85:
            yield replace(_limit(dice, key), period=dice.choice([None, *PeriodKind]))
    for key in ("seats", "projects"):
        if dice.random() < 0.6:
            yield _limit(dice, key)
    if dice.random() < 0.4:
        yield Entitlement(feature="sso", enabled=dice.choice([True, True, False]))
    if dice.random() < 0.4:
        yield Entitlement(feature="upload", config=dice.choice([64, 512, 0.5]))
    if dice.random() < 0.4:
        yield Entitlement(feature="theme", config=dice.choice(["plain", "branded"]))


def priced(dice: random.Random, key: str, entitlement: Entitlement) -> Entitlement:
    """What is not included has a price of its own, unless it was forgotten."""
    if entitlement.price_behaviour is PriceBehaviour.INCLUDED or dice.random() < 0.2:
        return entitlement
    name = f"price_{key}_{entitlement.feature}_{entitlement.price_behaviour.value}"
    is_metered = entitlement.price_behaviour is not PriceBehaviour.PAY_IN_ADVANCE
    price = Price(currency="usd", interval=Interval.MONTH, amount_minor=5, stripe_price_id=name, is_metered=is_metered)
    return replace(entitlement, prices=(price,))


def any_groups(dice: random.Random, number: int) -> tuple[tuple[Condition, ...], ...]:
    """So many groups of conditions, of which one may be empty."""
    return tuple(tuple(_condition(dice) for _ in range(dice.choice([1, 1, 2, 0]))) for _ in range(number))


def _limit(dice: random.Random, key: str) -> Entitlement:
    form = dice.choice(["limit", "limit", "limit", "unlimited", "trait", "enabled"])
    return Entitlement(
        feature=key,
        limit=dice.choice([0, 5, 20, 50]) if form == "limit" else UNLIMITED if form == "unlimited" else None,
        limit_trait="quota" if form == "trait" else None,
        enabled=dice.choice([True, False]) if form == "enabled" else None,
        stacking=dice.choice(list(Stacking)),
        soft_limit=dice.choice([None, None, None, 4, 20, 30]),
        price_behaviour=dice.choice([PriceBehaviour.INCLUDED, PriceBehaviour.PAY_IN_ADVANCE, *PriceBehaviour]),
        scope=dice.choice(["company", "company", "user"]),
    )


def _condition(dice: random.Random) -> Condition:
    size: Operator = dice.choice(["eq", "ne", "lt", "lte", "gt", "gte"])
    among: Operator = dice.choice(["eq", "in", "not_in", "ne"])
    return dice.choice(
        [
            Condition(kind="company", values=dice.choice([("id=acme",), ("id=other",)]), operator=among),
            Condition(kind="plan", values=("pro", "starter"), operator=among),
            Condition(kind="add_on", values=("extra",), operator=among),
            Condition(kind="product", values=dice.choice([("prod_mystery",), ("prod_pro",)]), operator=among),
            Condition(kind="user", values=dice.choice([("user_ann",), ("email=ann",)]), operator=among),
            Condition(kind="trait", trait="region", value="eu", operator=size),
            Condition(kind="trait", trait="region", value=["eu", 5], operator=dice.choice(["in", "not_in"])),
            Condition(kind="trait", trait="region", value="e", operator="contains"),
            Condition(kind="trait", trait="size", value=250, operator=size, value_type=dice.choice([None, "number"])),
            Condition(kind="trait", trait="size", value="250", operator=size, value_type="string"),
            Condition(kind="trait", trait="people", other_trait="quota", operator=size),
            Condition(kind="trait", trait="since", value="2026-06-01", operator=size, value_type="date"),
            Condition(kind="trait", subject="user", trait="role", value="admin"),
            Condition(kind="trait", subject="user", trait="age", value=30, operator=size),
            Condition(kind="usage", feature="exports", value=dice.choice([1, 20]), operator=size),
            Condition(kind="usage", feature="seats", value=3, operator=size),
        ]
    )
