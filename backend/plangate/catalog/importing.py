"""Drafts a catalogue from what a Stripe account sells already: products as plans and add-ons, meters as features, their
prices with their ids to be adopted.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from plangate.billing.catalog_calls import counts_otherwise
from plangate.billing.gateway import StripeGateway, reference
from plangate.billing.transport import StripeJson
from plangate.catalog.publishing import current_document
from plangate.catalog.stripe_objects import METADATA, price_from_stripe
from plangate.catalog_document import (
    AddOnDocument,
    CatalogDocument,
    Entitled,
    EntitlementDocument,
    FeatureDocument,
    Kind,
    PlanDocument,
    PriceDocument,
)
from plangate.engine.catalog import Price
from plangate.engine.pricing import monthly_amount
from plangate.environment import Environment
from plangate.store.catalog import all_stripe_prices
from plangate.store.subscriptions import ENDED

_KEY_LENGTH: Final = 60
_NAME_LENGTH: Final = 120
_DESCRIPTION_LENGTH: Final = 2_000
_SUBSCRIPTIONS_READ: Final = 2_000
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_ADD_ON: Final = re.compile(r"\badd[-_ ]?ons?\b", re.IGNORECASE)


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A drafted catalogue, and in `notes` what of the account is not in it, and why; and what was guessed."""

    document: CatalogDocument
    notes: tuple[str, ...]


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the account holds, as far as it decides about a draft."""

    products: Sequence[StripeJson]
    prices: Sequence[StripeJson]
    meters: Mapping[str, StripeJson]  # by id
    sold_together: Sequence[frozenset[str]]  # the products of each subscription
    held: Mapping[str, int]  # how many subscriptions hold prices that are not on sale any more


async def draft_from_stripe(environment: Environment) -> Imported:
    """The catalogue in force, with a plan or add-on for every product on sale in Stripe that it does not know yet.

    A product is an add-on when it says so, or when subscriptions hold it only beside another one. What a meter counts
    becomes a feature, and the metered prices of a product what it charges for that feature. Writes nothing. What else
    each plan grants is for people to add. Raises StripeFailure.
    """
    document = await current_document(environment)
    async with environment.reading() as session:
        known = {row.stripe_price_id for row in await all_stripe_prices(session)}
    with environment.gateway.long_work():
        found = await _found(environment.gateway)
    return _Drafting(document, found, known).drafted()


async def _found(gateway: StripeGateway) -> _Found:
    together: list[frozenset[str]] = []
    held: Counter[str] = Counter()
    async for page in gateway.iterate_subscriptions():
        for subscription in page:
            prices = [item["price"] for item in subscription["items"]["data"]]
            together.append(frozenset(reference(price["product"]) or "" for price in prices))
            if subscription["status"] not in ENDED:
                held.update({price["id"] for price in prices if not price["active"]})
        if len(together) >= _SUBSCRIPTIONS_READ:
            break
    return _Found(
        products=await gateway.catalog.products_on_sale(),
        prices=await gateway.catalog.prices_on_sale(),
        meters={meter["id"]: meter for meter in await gateway.catalog.active_meters()},
        sold_together=together,
        held=held,
    )


class _Drafting:
    """One draft in the making."""

    def __init__(self, document: CatalogDocument, found: _Found, known: Collection[str]) -> None:
        self._document = document
        self._found = found
        self._known = known
        self._notes: list[str] = []
        self._features = dict(document.features)
        self._plans = dict(document.plans)
        self._add_ons = dict(document.add_ons)

    def drafted(self) -> Imported:
        for meter in self._found.meters.values():
            self._add_feature(meter)
        named = {sold.stripe_product for _, _, sold in self._document.sold()}
        # Stripe lists the newest first; what was made first is sold first.
        for product in reversed(self._found.products):
            is_ours = any(name.startswith(METADATA) for name in product.get("metadata") or {})
            if not is_ours and product["id"] not in named:
                self._add_product(product)
        for stripe_price_id, number in self._found.held.items():
            if stripe_price_id not in self._known:
                subscriptions = "1 subscription holds" if number == 1 else f"{number:,} subscriptions hold"
                self._notes.append(
                    f"{stripe_price_id} is archived in Stripe, so it is left out, but {subscriptions} it: once this is "
                    "applied, map it to what it stands for, on its product's page in the Stripe dashboard."
                )
        parts = {"features": self._features, "plans": self._plans, "add_ons": self._add_ons}
        return Imported(document=self._document.model_copy(update=parts), notes=tuple(self._notes))

    def _add_feature(self, meter: StripeJson) -> None:
        event_name: str = meter["event_name"]
        if event_name.startswith(METADATA) or self._feature_of(event_name) is not None:
            return
        why = counts_otherwise(meter)
        if why is not None:
            self._notes.append(f"The meter {event_name} is left out: {why}.")
            return
        key = _key((meter["display_name"], event_name), self._features)
        # Whoever made the meter feeds it, so what it counted is read instead of being reported twice.
        self._features[key] = FeatureDocument(
            name=_name(meter["display_name"]) or event_name,
            type="event",
            stripe_meter=event_name,
            usage_source="stripe_meter",
        )

    def _feature_of(self, event_name: str) -> str | None:
        return next((key for key, one in self._features.items() if one.stripe_meter == event_name), None)

    def _add_product(self, product: StripeJson) -> None:
        prices = self._prices_of(product)
        licensed = [price for price in prices if not price.is_metered]
        metered = [price for price in prices if price.is_metered]
        sold = self._documents(product, licensed)
        charged = self._charged(product, metered, [_terms(one) for one in sold])
        if not sold and not charged:
            self._notes.append(f"{product['id']} ({product['name']}) has no recurring price that can be sold here.")
            return
        kind = self._kind_of(product)
        key = _key((product["name"], product["id"]), {*self._plans, *self._add_ons})
        said: dict[str, Any] = {
            "name": _name(product["name"]) or product["id"],
            "description": (product.get("description") or "")[:_DESCRIPTION_LENGTH],
            "stripe_product": product["id"] if sold else None,
            "prices": sold,
            "entitlements": charged,
        }
        if kind == "plan":
            self._plans[key] = PlanDocument(**said)
        else:
            self._add_ons[key] = AddOnDocument(**said)

    def _prices_of(self, product: StripeJson) -> list[Price]:
        """The product's prices that can be sold here: its default price first, then the oldest."""
        default = reference(product.get("default_price"))
        listed = [one for one in reversed(self._found.prices) if reference(one["product"]) == product["id"]]
        event_names = {stripe_id: str(meter["event_name"]) for stripe_id, meter in self._found.meters.items()}
        prices: list[Price] = []
        for one in sorted(listed, key=lambda one: bool(one["id"] != default)):
            if one["id"] in self._known:
                continue
            price = price_from_stripe(one, event_names)
            if isinstance(price, str):
                self._notes.append(f"{one['id']} of {product['name']} {price}: left out.")
                continue
            others = sorted(set(one.get("currency_options") or {}) - {price.currency})
            if others:
                self._notes.append(
                    f"{one['id']} of {product['name']} also sells in {', '.join(others)}: a price here is in one "
                    f"currency, and is drafted in {price.currency}."
                )
            prices.append(price)
        return prices

    def _documents(self, product: StripeJson, prices: Iterable[Price]) -> list[PriceDocument]:
        """One price for each currency and interval."""
        kept: dict[tuple[str, str, int], PriceDocument] = {}
        for price in prices:
            document = _document(price)
            if document is None:
                self._notes.append(
                    f"{price.stripe_price_id} of {product['name']} is outside of what a price here may be: left out."
                )
            elif _terms(document) in kept:
                self._notes.append(
                    f"{price.stripe_price_id} of {product['name']} is a second price in {price.currency} for the same "
                    "interval."
                )
            else:
                kept[_terms(document)] = document
        return list(kept.values())

    def _charged(
        self, product: StripeJson, prices: Sequence[Price], sold: Sequence[tuple[str, str, int]]
    ) -> dict[str, Entitled]:
        """What the product charges for as it is used, by feature, in every currency and interval that it is sold in."""
        found: dict[str, list[PriceDocument]] = {}
        for event_name in dict.fromkeys(price.meter for price in prices):
            feature = self._feature_of(event_name or "")
            own = [price for price in prices if price.meter == event_name]
            if feature is None or len({bool(price.tiers) for price in own}) > 1:
                why = "its meter was left out" if feature is None else "some of its prices have tiers and others do not"
                names = " and ".join(price.stripe_price_id or "" for price in own)
                self._notes.append(f"{names} of {product['name']}: left out, because {why}.")
                continue
            found[feature] = self._documents(product, own)
        wanted = set(sold) if sold else _common([{_terms(one) for one in prices} for prices in found.values()])
        charged: dict[str, Entitled] = {}
        for feature, documents in found.items():
            matching = [one for one in documents if _terms(one) in wanted]
            is_whole = len(matching) == len(wanted) and bool(matching)
            for one in documents:
                if not is_whole or one not in matching:
                    self._notes.append(
                        f"{one.stripe_price} of {product['name']} is left out: what is used must be charged in just "
                        "the currencies and intervals of the product."
                    )
            if is_whole:
                behaviour = "tiers" if matching[0].tiers else "pay_as_you_go"
                charged[feature] = EntitlementDocument.model_validate(
                    {"price_behaviour": behaviour, "prices": [one.model_dump() for one in matching]}
                )
        return charged

    def _kind_of(self, product: StripeJson) -> Kind:
        metadata = product.get("metadata") or {}
        if any(_ADD_ON.search(text) for text in (product["name"], *metadata, *map(str, metadata.values()))):
            self._notes.append(f"{product['id']} ({product['name']}) is drafted as an add-on, because it says so.")
            return "add_on"
        together = [one for one in self._found.sold_together if product["id"] in one]
        own = self._rank(product["id"])
        if together and all(any(self._rank(other) > own for other in one) for one in together):
            self._notes.append(
                f"{product['id']} ({product['name']}) is drafted as an add-on, because subscriptions hold it only "
                "beside other products."
            )
            return "add_on"
        return "plan"

    def _rank(self, stripe_product_id: str) -> tuple[bool, Fraction]:
        """How likely a product is what others stand beside: it is sold alone too, and it is dearer."""
        is_alone = frozenset({stripe_product_id}) in self._found.sold_together
        amounts = [
            monthly_amount(price)
            for one in self._found.prices
            if reference(one["product"]) == stripe_product_id
            and not isinstance(price := price_from_stripe(one, {}), str)
        ]
        return is_alone, max(amounts, default=Fraction(0))


def _common(sets: Sequence[set[tuple[str, str, int]]]) -> set[tuple[str, str, int]]:
    return set.intersection(*sets) if sets else set()


def _terms(price: PriceDocument) -> tuple[str, str, int]:
    return (price.currency, price.interval, price.interval_count)


def _document(price: Price) -> PriceDocument | None:
    """The price as a document writes it; None when it is outside of what one may say."""
    said: dict[str, Any] = {
        "currency": price.currency,
        "interval": price.interval.value,
        "interval_count": price.interval_count,
        "stripe_price": price.stripe_price_id,
    }
    if price.tiers:
        said |= {
            "tiers_mode": price.tiers_mode,
            "tiers": [
                {"up_to": tier.up_to, "flat_amount_minor": tier.flat_amount_minor, **_amount(tier.amount)}
                for tier in price.tiers
            ],
        }
    else:
        said |= _amount(price.amount_decimal or str(price.amount_minor))
    if price.package_size > 1:
        said["package"] = {"size": price.package_size, "round": price.package_rounding}
    try:
        return PriceDocument.model_validate(said)
    except ValidationError:
        return None


def _amount(text: str) -> dict[str, Any]:
    return {"amount_decimal": text} if "." in text else {"amount_minor": int(text)}


def _name(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()[:_NAME_LENGTH].strip()


def _key(names: Iterable[str], taken: Collection[str]) -> str:
    """A key of the catalogue made from the first name that has letters for one; a number is added where it is taken."""
    plains = (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_KEY_LENGTH].strip("-") for name in names)
    plain = next(filter(None, plains), "unnamed")
    key, number = plain, 2
    while key in taken:
        key, number = f"{plain}-{number}", number + 1
    return key
