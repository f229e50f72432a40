"""What is on sale, for anybody to see: plans and add-ons in their order, with prices and what they grant."""

from typing import Literal

import msgspec

from plangate.engine.catalog import Catalog, Entitlement, Feature, PlanVersion, Price, PriceTier
from plangate.engine.values import UNLIMITED, Json, PriceBehaviour
from plangate.environment import Environment


class PublicPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What it costs each `interval_count` intervals, in minor units for each unit, or each package of `package_size`.

    `amount_minor` is 0 where `amount_decimal` (decimal text) or `tiers` say it.
    """

    currency: str
    interval: str
    amount_minor: int
    interval_count: int = 1
    amount_decimal: str | None = None
    tiers_mode: Literal["graduated", "volume"] | None = None
    tiers: tuple[PriceTier, ...] = ()
    package_size: int = 1
    package_rounding: Literal["up", "down"] = "up"


class PublicEntitlement(msgspec.Struct, frozen=True, kw_only=True):
    """One feature it grants. `limit` is a number or null and `unlimited` says the rest; `value`: a switch or config.

    `prices` are paid for the feature beside the plan's own, as `price_behaviour` says.
    """

    feature: str
    name: str
    type: str
    description: str = ""
    value: Json = None
    limit: int | None = None
    unlimited: bool = False
    limit_trait: str | None = None
    soft_limit: int | None = None
    period: str | None = None
    unit: str = "unit"
    units: str = "units"
    display_divisor: int = 1
    price_behaviour: PriceBehaviour = PriceBehaviour.INCLUDED
    prices: tuple[PublicPrice, ...] = ()


class PublicPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan or add-on on sale, its newest version. `fits` are the plans an add-on may stand beside (none: any)."""

    kind: Literal["plan", "add_on"]
    key: str
    version: int
    name: str
    description: str = ""
    is_free: bool = False
    is_recommended: bool = False
    contact_us: bool = False
    contact_url: str | None = None
    trial_days: int = 0
    prices: tuple[PublicPrice, ...] = ()
    entitlements: tuple[PublicEntitlement, ...] = ()
    fits: tuple[str, ...] = ()


async def public_plans(environment: Environment) -> list[PublicPlan]:
    """Plans, then add-ons, that can be bought or asked for now, in the catalogue's order."""
    catalog = await environment.catalog()
    return [
        _public(catalog, offered)
        for versions in (catalog.plans, catalog.add_ons)
        for version in sorted(versions.values(), key=lambda one: one.position)
        # An add-on without a price is given by hand; nobody can buy it.
        if not version.is_archived
        and not (version.kind == "add_on" and version.is_free)
        and (offered := on_offer(catalog, version)) is not None
    ]


def on_offer(catalog: Catalog, version: PlanVersion) -> PlanVersion | None:
    """The version with those of its prices that can be bought; None when it had some and all were archived in Stripe.

    A catalogue that Stripe knows nothing of is shown whole.
    """
    if not catalog.price_owners or not version.prices:
        return version
    prices = tuple(price for price in version.prices if price.stripe_price_id is not None)
    return msgspec.structs.replace(version, prices=prices) if prices or version.is_contact_us else None


def _public(catalog: Catalog, version: PlanVersion) -> PublicPlan:
    return PublicPlan(
        kind=version.kind,
        key=version.key,
        version=version.version,
        name=version.name,
        description=version.description,
        is_free=version.is_free,
        is_recommended=version.is_recommended,
        contact_us=version.is_contact_us,
        contact_url=version.contact_url,
        trial_days=version.trial_days,
        prices=tuple(map(_price, version.prices)),
        entitlements=tuple(
            _entitlement(feature, entitlement)
            for entitlement in version.entitlements
            if (feature := catalog.features.get(entitlement.feature)) is not None and not feature.is_archived
        ),
        fits=version.fits,
    )


def _entitlement(feature: Feature, entitlement: Entitlement) -> PublicEntitlement:
    return PublicEntitlement(
        feature=feature.key,
        name=feature.name,
        type=feature.type.value,
        description=feature.description,
        value=entitlement.enabled if entitlement.enabled is not None else entitlement.config,
        limit=None if entitlement.limit is UNLIMITED else entitlement.limit,
        unlimited=entitlement.limit is UNLIMITED,
        limit_trait=entitlement.limit_trait,
        soft_limit=entitlement.soft_limit,
        period=None if entitlement.period is None else entitlement.period.value,
        unit=feature.unit,
        units=feature.units,
        display_divisor=feature.display_divisor,
        price_behaviour=entitlement.price_behaviour,
        prices=tuple(map(_price, entitlement.prices)),
    )


def _price(price: Price) -> PublicPrice:
    return PublicPrice(
        currency=price.currency,
        interval=price.interval.value,
        amount_minor=price.amount_minor,
        interval_count=price.interval_count,
        amount_decimal=price.amount_decimal,
        tiers_mode=price.tiers_mode,
        tiers=price.tiers,
        package_size=price.package_size,
        package_rounding=price.package_rounding,
    )
