"""What a company is on, or wants to be on, as one value: the plan, its interval, quantities, add-ons and own price."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from plangate.engine.catalog import Catalog, Entitlement, PlanVersion, Price, PriceOwner
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.values import Interval, PriceBehaviour


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What a company is on, or wants to be on. `add_ons` maps keys to quantities; `plan` None is no plan at all.

    `version` None means the newest published one. Interval and currency are None where nothing is paid. `units` are
    those bought of features paid in advance, by `unit_key`. `own_price` is what was agreed on with the company for
    the plan, in place of the catalogue's price.
    """

    plan: str | None
    version: int | None = None
    interval: Interval | None = None
    interval_count: int = 1
    currency: str | None = None
    quantity: int = 1
    add_ons: Mapping[str, int] = {}
    units: Mapping[str, int] = {}
    own_price: Price | None = None


def unit_key(kind: Literal["plan", "add_on"], key: str, feature: str) -> str:
    """How `Holding.units` names a feature paid in advance: `seats` of the plan, `extra/seats` of an add-on."""
    return feature if kind == "plan" else f"{key}/{feature}"


def sold_in_advance(version: PlanVersion) -> Mapping[str, Entitlement]:
    """The features of a version that are paid in advance, by `unit_key`."""
    return {
        unit_key(version.kind, version.key, one.feature): one
        for one in version.entitlements
        if one.price_behaviour is PriceBehaviour.PAY_IN_ADVANCE and one.prices
    }


def version_held(catalog: Catalog, holding: Holding) -> PlanVersion | None:
    """The version of the plan a holding means; None when it has none, or the catalogue never had it."""
    if holding.plan is None:
        return None
    pinned = catalog.version_of("plan", holding.plan, holding.version) if holding.version is not None else None
    return pinned or catalog.newest("plan", holding.plan)


def holding_of(snapshot: CompanySnapshot) -> Holding:
    """What the company is on and may change, read from its snapshot: the base plan, and what its subscription holds.

    What other subscriptions hold, and add-ons given by hand, are granted beside that: no change moves or bills them.
    """
    subscription, plan = snapshot.subscription, snapshot.plan
    numbers: dict[tuple[str, str], int | None] = {}
    units: dict[str, int] = {}
    own_price: Price | None = None
    for item in subscription.items if subscription is not None else ():
        owner = snapshot.catalog.owner_of(item.stripe_price_id, snapshot.company_id)
        if owner is None:
            continue
        before = numbers.setdefault((owner.kind, owner.key), None)
        if owner.feature is None and item.quantity is not None:
            numbers[owner.kind, owner.key] = (before or 0) + item.quantity
        if owner.feature is not None and item.quantity:
            key = unit_key(owner.kind, owner.key, owner.feature)
            units[key] = units.get(key, 0) + item.quantity
        if plan is not None and is_own_price(owner, plan.key):
            own_price = msgspec.structs.replace(owner.price, stripe_price_id=item.stripe_price_id)
    return Holding(
        plan=None if plan is None else plan.key,
        version=None if plan is None else plan.version,
        interval=None if subscription is None else snapshot.cycle.interval,
        interval_count=snapshot.cycle.interval_count,
        currency=None if subscription is None else subscription.currency,
        quantity=1 if plan is None else _number(numbers.get(("plan", plan.key))),
        add_ons={
            one.key: _number(numbers["add_on", one.key]) for one in snapshot.add_ons if ("add_on", one.key) in numbers
        },
        units=units,
        own_price=own_price,
    )


def _number(told: int | None) -> int:
    """How many are held: one where nothing says so, as with what is billed as it is used."""
    return 1 if told is None else told


def is_own_price(owner: PriceOwner, plan: str) -> bool:
    """Whether a price was agreed on with one company, for this plan itself."""
    return owner.company_id is not None and (owner.kind, owner.key, owner.feature) == ("plan", plan, None)
