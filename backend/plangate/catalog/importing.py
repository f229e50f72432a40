"""Drafts a catalogue from what a Stripe account sells already: its products as plans, with their ids to be adopted."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from plangate.billing.gateway import reference
from plangate.catalog.publishing import current_document
from plangate.catalog.stripe_side import METADATA, price_terms
from plangate.catalog_document import CatalogDocument, PlanDocument, PriceDocument
from plangate.environment import Environment
from plangate.store.catalog import all_stripe_prices

_KEY_LENGTH: Final = 60
_NAME_LENGTH: Final = 120
_DESCRIPTION_LENGTH: Final = 2_000


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A drafted catalogue, and in `notes` what of the account is not in it, and why."""

    document: CatalogDocument
    notes: tuple[str, ...]


async def draft_from_stripe(environment: Environment) -> Imported:
    """The catalogue in force, with a plan for every product on sale in Stripe that it does not know yet.

    Writes nothing. What each plan grants is for people to add. Raises StripeFailure.
    """
    document = await current_document(environment)
    async with environment.reading() as session:
        known = {row.stripe_price_id for row in await all_stripe_prices(session)}
    named = {sold.stripe_product for _, _, sold in document.sold()}
    products = await environment.gateway.products_on_sale()
    prices = await environment.gateway.prices_on_sale()
    plans = dict(document.plans)
    notes: list[str] = []
    # Stripe lists the newest first; what was made first is sold first.
    for product in reversed(products):
        is_ours = any(name.startswith(METADATA) for name in product.get("metadata") or {})
        if is_ours or product["id"] in named:
            continue
        found = [price for price in reversed(prices) if reference(price["product"]) == product["id"]]
        sold = _prices(product, [price for price in found if price["id"] not in known], notes)
        if not sold:
            notes.append(f"{product['id']} ({product['name']}) has no recurring price that can be sold here.")
            continue
        key = _key(product["name"], {*plans, *document.add_ons})
        plans[key] = PlanDocument(
            name=product["name"].strip()[:_NAME_LENGTH] or product["id"],
            description=(product.get("description") or "")[:_DESCRIPTION_LENGTH],
            stripe_product=product["id"],
            prices=sold,
        )
    return Imported(document=document.model_copy(update={"plans": plans}), notes=tuple(notes))


def _prices(product: Mapping[str, Any], prices: list[Mapping[str, Any]], notes: list[str]) -> list[PriceDocument]:
    """The product's prices, one for each currency and interval: its default price, else the oldest."""
    default = reference(product.get("default_price"))
    sold: dict[tuple[str, str, int], PriceDocument] = {}
    for price in sorted(prices, key=lambda one: one["id"] != default):
        terms = price_terms(price)
        if terms is None:
            notes.append(f"{price['id']} of {product['name']} is metered, tiered or not a whole amount: left out.")
            continue
        currency, interval, interval_count, amount_minor = terms
        if (currency, interval, interval_count) in sold:
            notes.append(f"{price['id']} of {product['name']} is a second price in {currency} for the same interval.")
            continue
        try:
            sold[currency, interval, interval_count] = PriceDocument.model_validate(
                {
                    "currency": currency,
                    "interval": interval,
                    "interval_count": interval_count,
                    "amount_minor": amount_minor,
                    "stripe_price": price["id"],
                }
            )
        except ValidationError:
            notes.append(f"{price['id']} of {product['name']} is outside of what a price here may be: left out.")
    return list(sold.values())


def _key(name: str, taken: Collection[str]) -> str:
    """A key of the catalogue made from a name; a number is added where it is taken."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_KEY_LENGTH].strip("-") or "plan"
    key, number = plain, 2
    while key in taken:
        key, number = f"{plain}-{number}", number + 1
    return key
