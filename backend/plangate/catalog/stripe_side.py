"""The catalogue's other half in Stripe: a product for what is sold, a price for each amount, old prices archived.

Every write is saved with its idempotency key before the first try, so applying again after a crash repeats nothing.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from plangate.billing.failures import StripeFailure
from plangate.billing.gateway import StripeGateway, reference
from plangate.clock import wall_now
from plangate.engine.model import PlanVersion, Price
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.store.catalog import StripeObjectRow, StripePriceRow
from plangate.store.plan_changes import StripeOperationRow, begin_operation, complete_operation

METADATA: Final = "plangate_"
_KEYS: Final = 5


class Made(msgspec.Struct, frozen=True):
    """What stands in Stripe for the versions asked about, ready to be stored with the revision."""

    products: tuple[StripeObjectRow, ...]
    prices: tuple[StripePriceRow, ...]


async def make_in_stripe(environment: Environment, versions: Iterable[PlanVersion], *, intent_id: str) -> Made:
    """Create the product and prices of each version on sale, or adopt those that it names.

    What others made is never changed. Raises StripeFailure, and Refusal (422) for a named product or price that Stripe
    does not have or that says something else.
    """
    products: list[StripeObjectRow] = []
    prices: list[StripePriceRow] = []
    for version in versions:
        if not version.prices or version.is_archived:
            continue
        product_id = product_id_of(version)
        if version.stripe_product_id is not None:
            await _adopt_product(environment.gateway, version)
        else:
            step = f"product:{version.kind}:{version.key}"
            await _once(environment, intent_id, step, _product(environment.gateway, version))
        products.append(
            StripeObjectRow(
                environment_id=environment.id,
                kind=version.kind,
                key=version.key,
                stripe_id=product_id,
                recorded_at=environment.clock.now(),
            )
        )
        for price in version.prices:
            if price.stripe_price_id is not None:
                stripe_price_id = await _adopt_price(environment.gateway, version, price)
            else:
                step = f"price:{lookup_key_of(version, price)}"
                stripe_price_id = await _once(environment, intent_id, step, _price(environment.gateway, version, price))
            prices.append(
                StripePriceRow(
                    environment_id=environment.id,
                    stripe_price_id=stripe_price_id,
                    stripe_product_id=product_id,
                    owner_kind=version.kind,
                    owner_key=version.key,
                    owner_version=version.version,
                    currency=price.currency,
                    interval=price.interval.value,
                    interval_count=price.interval_count,
                    amount_minor=price.amount_minor,
                    is_active=True,
                    is_adopted=price.stripe_price_id is not None,
                    recorded_at=environment.clock.now(),
                )
            )
    return Made(tuple(products), tuple(prices))


async def _adopt_product(gateway: StripeGateway, version: PlanVersion) -> None:
    product = await gateway.fetch_product(product_id_of(version))
    if product is None or not product["active"]:
        section = "plans" if version.kind == "plan" else "add_ons"
        raise invalid(
            f"/{section}/{version.key}/stripe_product",
            f"Stripe has no active product {version.stripe_product_id}. Name another one, or leave it out to make one.",
        )


async def _adopt_price(gateway: StripeGateway, version: PlanVersion, price: Price) -> str:
    pointer = f"/{'plans' if version.kind == 'plan' else 'add_ons'}/{version.key}/prices/{version.prices.index(price)}"
    found = await gateway.fetch_price(price.stripe_price_id or "")
    if found is None or not found["active"]:
        raise invalid(f"{pointer}/stripe_price", f"Stripe has no active price {price.stripe_price_id}.")
    terms = price_terms(found)
    wanted = (price.currency, price.interval.value, price.interval_count, price.amount_minor)
    if terms is None:
        raise invalid(f"{pointer}/stripe_price", f"{found['id']} is not a plain recurring price for each unit.")
    if terms != wanted:
        said = f"{terms[3]} {terms[0]} every {terms[2]} {terms[1]}"
        raise invalid(f"{pointer}/stripe_price", f"{found['id']} says something else: {said}.")
    if reference(found["product"]) != product_id_of(version):
        raise invalid(
            f"{pointer}/stripe_price",
            f"{found['id']} belongs to {reference(found['product'])}: name that as `stripe_product`.",
        )
    return str(found["id"])


def price_terms(price: Mapping[str, Any]) -> tuple[str, str, int, int] | None:
    """Currency, interval, interval count and whole amount of a Stripe price; None for one that cannot be sold here."""
    recurring = price.get("recurring")
    is_plain = (
        recurring is not None
        and recurring.get("usage_type", "licensed") == "licensed"
        and price.get("billing_scheme", "per_unit") == "per_unit"
        and price.get("transform_quantity") is None
        and isinstance(price.get("unit_amount"), int)
    )
    if not is_plain or recurring is None:
        return None
    return price["currency"], recurring["interval"], recurring.get("interval_count", 1), price["unit_amount"]


async def archive_in_stripe(environment: Environment, rows: Iterable[StripePriceRow], *, intent_id: str) -> None:
    """Take prices off sale; subscriptions that hold them keep them. Raises StripeFailure."""
    for row in rows:
        await _once(environment, intent_id, f"archive:{row.stripe_price_id}", _archive(environment.gateway, row))


def product_id_of(version: PlanVersion) -> str:
    """The Stripe product's id: the adopted one, or ours to choose, so that no plan can ever become two products."""
    return version.stripe_product_id or f"plangate_{version.kind}_{version.key}"


def lookup_key_of(version: PlanVersion, price: Price) -> str:
    """The price's name in Stripe: with its amount and an adopted product, because neither of a price ever changes."""
    terms = f"{price.currency}_{price.interval_count}_{price.interval.value}_{price.amount_minor}"
    adopted = hashlib.sha256(version.stripe_product_id.encode()).hexdigest()[:12] if version.stripe_product_id else ""
    return f"plangate_{version.kind}_{version.key}_{terms}{adopted and '_' + adopted}"


_Call = Callable[[str], Awaitable[str]]  # called with the idempotency key; answers the object's Stripe id


def _product(gateway: StripeGateway, version: PlanVersion) -> _Call:
    async def call(idempotency_key: str) -> str:
        product = await gateway.ensure_product(
            product_id_of(version),
            name=version.name,
            metadata={f"{METADATA}{version.kind}": version.key},
            idempotency_key=idempotency_key,
        )
        return str(product["id"])

    return call


def _price(gateway: StripeGateway, version: PlanVersion, price: Price) -> _Call:
    async def call(idempotency_key: str) -> str:
        made = await gateway.ensure_price(
            lookup_key=lookup_key_of(version, price),
            params={
                "product": product_id_of(version),
                "currency": price.currency,
                "unit_amount": price.amount_minor,
                "recurring": {"interval": price.interval.value, "interval_count": price.interval_count},
                "metadata": {f"{METADATA}{version.kind}": version.key, f"{METADATA}version": str(version.version)},
            },
            idempotency_key=idempotency_key,
        )
        return str(made["id"])

    return call


def _archive(gateway: StripeGateway, row: StripePriceRow) -> _Call:
    async def call(idempotency_key: str) -> str:
        return str((await gateway.archive_price(row.stripe_price_id, idempotency_key=idempotency_key))["id"])

    return call


async def _once(environment: Environment, intent_id: str, step: str, call: _Call) -> str:
    """Make one call of the intent under its saved key, unless its answer is known already.

    Stripe repeats a stored failure for a day to the key that met it. Our calls read before they write, so another
    key is safe then, and it too is saved first.
    """
    for attempt in range(1, _KEYS + 1):
        numbered = step if attempt == 1 else f"{step}:{attempt}"
        async with environment.writing() as session:
            row = await begin_operation(
                session,
                StripeOperationRow(
                    environment_id=environment.id,
                    intent_id=intent_id,
                    step=numbered,
                    idempotency_key=f"{intent_id}:{numbered}",
                    params={},
                    created_at=wall_now(),
                ),
            )
        if row.completed_at is not None:
            if row.result is not None:
                return str(row.result)
            continue
        stripe_id: str | None = None
        try:
            stripe_id = await call(row.idempotency_key)
        except StripeFailure as failure:
            if not failure.was_replayed or attempt == _KEYS:
                raise
        async with environment.writing() as session:
            await complete_operation(session, intent_id, numbered, result=stripe_id, wall_now=wall_now())
        if stripe_id is not None:
            return stripe_id
    raise Refusal(Code.STRIPE_BUSY, "Stripe repeats an earlier failure. Apply the catalogue again tomorrow.")
