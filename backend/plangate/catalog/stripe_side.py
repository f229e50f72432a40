"""The catalogue's other half in Stripe: a product for what is sold, a price for each amount, old prices archived.

Every write is saved with its idempotency key before the first try, so applying again after a crash repeats nothing.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec

from plangate.billing.failures import StripeFailure
from plangate.billing.gateway import StripeGateway
from plangate.clock import wall_now
from plangate.engine.model import PlanVersion, Price
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.store.catalog import StripeObjectRow, StripePriceRow
from plangate.store.plan_changes import StripeOperationRow, begin_operation, complete_operation

METADATA: Final = "plangate_"
_KEYS: Final = 5


class Made(msgspec.Struct, frozen=True):
    """What stands in Stripe for the versions asked about, ready to be stored with the revision."""

    products: tuple[StripeObjectRow, ...]
    prices: tuple[StripePriceRow, ...]


async def make_in_stripe(environment: Environment, versions: Iterable[PlanVersion], *, intent_id: str) -> Made:
    """Create or adopt the product and prices of each version on sale. Raises StripeFailure."""
    products: list[StripeObjectRow] = []
    prices: list[StripePriceRow] = []
    for version in versions:
        if not version.prices or version.is_archived:
            continue
        gateway = environment.gateway
        product_id = product_id_of(version)
        await _once(
            environment,
            intent_id,
            f"product:{version.kind}:{version.key}",
            _product(gateway, version),
        )
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
            stripe_price_id = await _once(
                environment, intent_id, f"price:{lookup_key_of(version, price)}", _price(gateway, version, price)
            )
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
                    recorded_at=environment.clock.now(),
                )
            )
    return Made(tuple(products), tuple(prices))


async def archive_in_stripe(environment: Environment, rows: Iterable[StripePriceRow], *, intent_id: str) -> None:
    """Take prices off sale; subscriptions that hold them keep them. Raises StripeFailure."""
    for row in rows:
        await _once(environment, intent_id, f"archive:{row.stripe_price_id}", _archive(environment.gateway, row))


def product_id_of(version: PlanVersion) -> str:
    """The Stripe product's id: ours to choose, so the same plan can never become two products."""
    return f"plangate_{version.kind}_{version.key}"


def lookup_key_of(version: PlanVersion, price: Price) -> str:
    """The price's name in Stripe. It holds the amount, because the amount of a price never changes."""
    terms = f"{price.currency}_{price.interval_count}_{price.interval.value}_{price.amount_minor}"
    return f"plangate_{version.kind}_{version.key}_{terms}"


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
