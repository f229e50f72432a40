"""What the catalogue wants to stand in Stripe: products, meters and prices, how they are called there, and what a price
of Stripe's says here. Pure.
"""

import hashlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from plangate.billing.transport import StripeJson
from plangate.catalog_compiled import METERED, meter_of, offered_version, price_terms
from plangate.catalog_document import CatalogDocument, FeatureDocument, Kind
from plangate.catalog_rules import pointer_of
from plangate.engine.catalog import Entitlement, PlanVersion, Price, PriceTier
from plangate.engine.values import Interval, PriceBehaviour

METADATA: Final = "plangate_"
_PRODUCT_NAME_LENGTH: Final = 250


class WantedProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product: of a plan or add-on, or of a feature that one charges for. `key` is that of its stored row."""

    kind: Literal["plan", "add_on", "entitlement"]
    key: str
    stripe_product_id: str
    is_adopted: bool
    name: str
    description: str
    metadata: Mapping[str, str]
    pointer: str


class WantedMeter(msgspec.Struct, frozen=True, kw_only=True):
    """A meter by its event name. `is_named` says that the document names it, `is_fed` that the product feeds it."""

    event_name: str
    display_name: str
    is_named: bool
    is_fed: bool
    pointer: str


class WantedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A price of a plan or add-on version, or of a feature that it charges for; with `stripe_price_id` adopted."""

    kind: Kind
    key: str
    version: int
    price: Price
    stripe_product_id: str
    lookup_key: str
    name: str
    pointer: str
    feature: str | None = None


class WantedInStripe(msgspec.Struct, frozen=True):
    """Everything, in the order in which it can be made."""

    products: tuple[WantedProduct, ...]
    meters: tuple[WantedMeter, ...]
    prices: tuple[WantedPrice, ...]


def wanted_in_stripe(
    document: CatalogDocument, versions: Mapping[str, int], *, with_archived: bool = False
) -> WantedInStripe:
    """What must stand in Stripe for a document to be sold, whose newest versions are `versions` (`plan:KEY`)."""
    products: list[WantedProduct] = []
    meters: dict[str, WantedMeter] = {}
    prices: list[WantedPrice] = []
    for kind, key, sold in document.sold():
        if sold.archived and not with_archived:
            continue
        version = offered_version(document, kind, key, version=versions[f"{kind}:{key}"])
        if version.prices or version.is_contact_us:
            # What is sold by hand has its prices made with each deal, on a product that is there by then.
            products.append(_product(version))
        prices += _prices(version)
        for entitlement in version.entitlements:
            if not entitlement.prices:
                continue
            feature = document.features[entitlement.feature]
            if any(price.stripe_price_id is None for price in entitlement.prices):
                products.append(_feature_product(version, entitlement, feature))
            prices += _feature_prices(version, entitlement, feature)
            if entitlement.price_behaviour in METERED:
                meter = _meter(entitlement, feature)
                meters[meter.event_name] = meter
    return WantedInStripe(tuple(products), tuple(meters.values()), tuple(prices))


def product_id_of(version: PlanVersion) -> str:
    """The Stripe product's id: the adopted one, or ours to choose, so that no plan can ever become two products."""
    return version.stripe_product_id or f"plangate_{version.kind}_{version.key}"


def price_params(wanted: WantedPrice, stripe_meter_id: str | None) -> StripeJson:
    """How Stripe is told to make the price."""
    price = wanted.price
    recurring: StripeJson = {"interval": price.interval.value, "interval_count": price.interval_count}
    if price.is_metered:
        recurring |= {"usage_type": "metered", "meter": stripe_meter_id}
    params: StripeJson = {
        "product": wanted.stripe_product_id,
        "currency": price.currency,
        "recurring": recurring,
        "metadata": {
            f"{METADATA}{wanted.kind}": wanted.key,
            f"{METADATA}version": str(wanted.version),
            **({f"{METADATA}feature": wanted.feature} if wanted.feature is not None else {}),
        },
    }
    if price.package_size > 1:
        params["transform_quantity"] = {"divide_by": price.package_size, "round": price.package_rounding}
    if price.tiers:
        params |= {"billing_scheme": "tiered", "tiers_mode": price.tiers_mode}
        params["tiers"] = [
            {
                "up_to": "inf" if tier.up_to is None else tier.up_to,
                "unit_amount_decimal": tier.amount,
                **({"flat_amount": tier.flat_amount_minor} if tier.flat_amount_minor else {}),
            }
            for tier in price.tiers
        ]
    elif price.amount_decimal is not None:
        params["unit_amount_decimal"] = price.amount_decimal
    else:
        params["unit_amount"] = price.amount_minor
    return params


def price_from_stripe(found: Mapping[str, Any], meters: Mapping[str, str]) -> Price | str:
    """What a Stripe price (with its tiers) says, or why it cannot be sold here, in words.

    `meters` are the event names of active meters by id.
    """
    recurring = found.get("recurring")
    if recurring is None:
        return "is charged once"
    if found.get("custom_unit_amount") is not None:
        return "lets customers choose the amount"
    is_metered = recurring.get("usage_type") == "metered"
    meter = meters.get(recurring.get("meter") or "") if is_metered else None
    if is_metered and meter is None:
        return "is metered without an active meter"
    package = found.get("transform_quantity") or {"divide_by": 1, "round": "up"}
    price = Price(
        currency=found["currency"],
        interval=Interval(recurring["interval"]),
        interval_count=recurring.get("interval_count") or 1,
        stripe_price_id=found["id"],
        package_size=package["divide_by"],
        package_rounding=package["round"] if package["divide_by"] > 1 else "up",
        is_metered=is_metered,
        meter=meter,
    )
    if found.get("billing_scheme") == "tiered":
        return _with_tiers(price, found)
    amount = _text(found, "unit_amount")
    if amount is None:
        return "has no amount"
    if "." in amount:
        return msgspec.structs.replace(price, amount_decimal=amount)
    return msgspec.structs.replace(price, amount_minor=int(amount))


def price_words(price: Price) -> str:
    """A price in a few words, in minor units: `1900 usd every month`."""
    often = price.interval.value if price.interval_count == 1 else f"{price.interval_count} {price.interval.value}s"
    amount = price.amount_decimal or str(price.amount_minor)
    if price.tiers:
        amount = f"{price.tiers_mode} tiers"
        first = price.tiers[0]
        amount += f" from {first.amount}" + (f" + {first.flat_amount_minor}" if first.flat_amount_minor else "")
    package = f" per {price.package_size:,}" if price.package_size > 1 else ""
    metered = f" of {price.meter}" if price.is_metered else ""
    return f"{amount} {price.currency}{package}{metered} every {often}"


def _with_tiers(price: Price, found: Mapping[str, Any]) -> Price | str:
    tiers: list[PriceTier] = []
    for tier in found.get("tiers") or []:
        flat = _text(tier, "flat_amount") or "0"
        if "." in flat:
            return "has a tier whose flat amount is not whole"
        tiers.append(
            PriceTier(up_to=tier.get("up_to"), amount=_text(tier, "unit_amount") or "0", flat_amount_minor=int(flat))
        )
    if not tiers:
        return "has no tiers"
    return msgspec.structs.replace(price, tiers_mode=found["tiers_mode"], tiers=tuple(tiers))


def _text(part: Mapping[str, Any], name: str) -> str | None:
    """An amount as decimal text without trailing zeros: from its decimal field, else from the whole one."""
    value = part.get(f"{name}_decimal")
    value = part.get(name) if value is None else value
    if value is None:
        return None
    text = format(Decimal(str(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _product(version: PlanVersion) -> WantedProduct:
    return WantedProduct(
        kind=version.kind,
        key=version.key,
        stripe_product_id=product_id_of(version),
        is_adopted=version.stripe_product_id is not None,
        name=version.name,
        description=version.description,
        metadata={f"{METADATA}{version.kind}": version.key},
        pointer=f"{_pointer(version)}/stripe_product",
    )


def _feature_product(version: PlanVersion, entitlement: Entitlement, feature: FeatureDocument) -> WantedProduct:
    # A product of its own for each feature, because invoices show the names of products.
    return WantedProduct(
        kind="entitlement",
        key=f"{version.kind}:{version.key}:{entitlement.feature}",
        stripe_product_id=_feature_product_id(version, entitlement.feature),
        is_adopted=False,
        name=f"{version.name}: {feature.name}"[:_PRODUCT_NAME_LENGTH],
        description=feature.description,
        metadata={f"{METADATA}{version.kind}": version.key, f"{METADATA}feature": entitlement.feature},
        pointer=f"{_pointer(version)}{pointer_of('entitlements', entitlement.feature)}",
    )


def _feature_product_id(version: PlanVersion, feature: str) -> str:
    # Keys may hold what joins them here, so a digest tells apart what would read alike.
    named = f"{version.kind}/{version.key}/{feature}"
    return f"plangate_{version.kind}_{version.key}_{feature}_{hashlib.sha256(named.encode()).hexdigest()[:8]}"


def _meter(entitlement: Entitlement, feature: FeatureDocument) -> WantedMeter:
    event_name = meter_of(entitlement.feature, feature, entitlement.price_behaviour)
    is_named = feature.stripe_meter == event_name
    is_overage = entitlement.price_behaviour is PriceBehaviour.OVERAGE
    return WantedMeter(
        event_name=event_name,
        display_name=f"{feature.name}: overage"[:_PRODUCT_NAME_LENGTH] if is_overage else feature.name,
        is_named=is_named,
        is_fed=is_named and feature.usage_source == "stripe_meter",
        pointer=pointer_of("features", entitlement.feature, "stripe_meter"),
    )


def _prices(version: PlanVersion) -> Iterator[WantedPrice]:
    for index, price in enumerate(version.prices):
        yield WantedPrice(
            kind=version.kind,
            key=version.key,
            version=version.version,
            price=price,
            stripe_product_id=product_id_of(version),
            lookup_key=_lookup_key(version, price),
            name=f"{version.name}, {price_words(price)}",
            pointer=f"{_pointer(version)}/prices/{index}",
        )


def _feature_prices(version: PlanVersion, entitlement: Entitlement, feature: FeatureDocument) -> Iterator[WantedPrice]:
    for index, price in enumerate(entitlement.prices):
        yield WantedPrice(
            kind=version.kind,
            key=version.key,
            version=version.version,
            price=price,
            feature=entitlement.feature,
            stripe_product_id=_feature_product_id(version, entitlement.feature),
            lookup_key=_feature_lookup_key(version, entitlement.feature, price),
            name=f"{version.name}: {feature.name}, {price_words(price)}",
            pointer=f"{_pointer(version)}{pointer_of('entitlements', entitlement.feature, 'prices', index)}",
        )


def _lookup_key(version: PlanVersion, price: Price) -> str:
    """The price's name in Stripe: with its terms and an adopted product, because none of them ever changes."""
    named = f"plangate_{version.kind}_{version.key}_{price.currency}_{price.interval_count}_{price.interval.value}"
    plain = Price(
        currency=price.currency,
        interval=price.interval,
        interval_count=price.interval_count,
        amount_minor=price.amount_minor,
    )
    said = str(price.amount_minor) if price_terms(price) == plain else _digest(price_terms(price))
    adopted = hashlib.sha256(version.stripe_product_id.encode()).hexdigest()[:12] if version.stripe_product_id else ""
    return f"{named}_{said}{adopted and '_' + adopted}"


def _feature_lookup_key(version: PlanVersion, feature: str, price: Price) -> str:
    return f"plangate_{version.kind}_{version.key}_{_digest([feature, price_terms(price)])}"


def _digest(terms: object) -> str:
    return hashlib.sha256(msgspec.json.encode(terms, order="deterministic")).hexdigest()[:24]


def _pointer(version: PlanVersion) -> str:
    return pointer_of("plans" if version.kind == "plan" else "add_ons", version.key)
