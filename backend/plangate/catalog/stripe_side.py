"""The catalogue's other half in Stripe: what is missing there, in words that `plan` shows, and making it.

Products come first, then meters, then prices. Every write is saved with its idempotency key before the first try, and
reads before it writes, so applying again after a crash repeats nothing.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Literal

import msgspec

from plangate.billing.catalog_calls import CatalogCalls, counts_otherwise
from plangate.billing.failures import StripeFailure
from plangate.billing.gateway import reference
from plangate.billing.transport import StripeJson
from plangate.catalog.stripe_objects import (
    METADATA,
    WantedInStripe,
    WantedMeter,
    WantedPrice,
    WantedProduct,
    price_from_stripe,
    price_params,
    price_words,
)
from plangate.catalog_compiled import price_of, price_terms
from plangate.clock import wall_now
from plangate.engine.catalog import Price
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.store.catalog import StripeObjectRow, StripePriceRow
from plangate.store.plan_changes import StripeOperationRow, begin_operation, complete_operation

_KEYS: Final = 5


class StripeCall(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that applying makes, changes, adopts or archives in Stripe.

    `key` is what it is found by there: a product's id, a price's lookup key (or its id, when it has one already), the
    event name of a meter. `name` is for people.
    """

    action: Literal["create", "update", "restore", "adopt", "archive"]
    kind: Literal["product", "meter", "price"]
    key: str
    name: str


class InStripe(msgspec.Struct, frozen=True):
    """What stands in Stripe as far as the store knows: ids of products and meters by their stored key, and prices."""

    products: Mapping[tuple[str, str], str]
    meters: Mapping[str, str]
    prices: tuple[StripePriceRow, ...]


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """What must be done in Stripe before a revision can be published, each with its action."""

    products: tuple[tuple[Literal["create", "update", "adopt"], WantedProduct], ...]
    meters: tuple[tuple[Literal["create", "update", "adopt"], WantedMeter], ...]
    prices: tuple[tuple[Literal["create", "restore", "adopt"], WantedPrice], ...]

    def calls(self) -> tuple[StripeCall, ...]:
        """The same in words."""
        return (
            *(
                StripeCall(action=action, kind="product", key=one.stripe_product_id, name=one.name)
                for action, one in self.products
            ),
            *(
                StripeCall(action=action, kind="meter", key=one.event_name, name=one.display_name)
                for action, one in self.meters
            ),
            *(
                StripeCall(action=action, kind="price", key=one.price.stripe_price_id or one.lookup_key, name=one.name)
                for action, one in self.prices
            ),
        )


class Made(msgspec.Struct, frozen=True):
    """What now stands in Stripe beyond what the store knew, ready to be stored with the revision."""

    objects: tuple[StripeObjectRow, ...]
    prices: tuple[StripePriceRow, ...]


def missing_in_stripe(wanted: WantedInStripe, known: InStripe, *, before: WantedInStripe) -> Missing:
    """What of the wanted is not known to stand in Stripe, or is called otherwise there; `before` was wanted until now.

    Asks nobody: it goes by what was stored when it was made.
    """
    named = {one.stripe_product_id: (one.name, one.description) for one in before.products}
    counted = {one.event_name: one.display_name for one in before.meters}
    products: list[tuple[Literal["create", "update", "adopt"], WantedProduct]] = []
    for one in wanted.products:
        if known.products.get((one.kind, one.key)) != one.stripe_product_id:
            products.append(("adopt" if one.is_adopted else "create", one))
        elif not one.is_adopted and named.get(one.stripe_product_id) != (one.name, one.description):
            products.append(("update", one))
    meters: list[tuple[Literal["create", "update", "adopt"], WantedMeter]] = []
    for meter in wanted.meters:
        if meter.event_name not in known.meters:
            meters.append(("adopt" if meter.is_fed else "create", meter))
        elif not meter.is_named and counted.get(meter.event_name) != meter.display_name:
            meters.append(("update", meter))
    prices: list[tuple[Literal["create", "restore", "adopt"], WantedPrice]] = []
    for price in wanted.prices:
        found = rows_of(price, known.prices)
        if any(row.is_active for row in found):
            continue
        again: Literal["create", "restore"] = "restore" if found else "create"
        prices.append(("adopt" if price.price.stripe_price_id is not None else again, price))
    return Missing(products=tuple(products), meters=tuple(meters), prices=tuple(prices))


def rows_of(wanted: WantedPrice, rows: Iterable[StripePriceRow]) -> list[StripePriceRow]:
    """The stored prices that are the wanted one: the named one, else ours of the same terms and product."""
    named = wanted.price.stripe_price_id
    return [
        row
        for row in rows
        if (row.owner_kind, row.owner_key, row.feature) == (wanted.kind, wanted.key, wanted.feature)
        and row.company_id is None
        and (
            (row.stripe_price_id == named and row.is_adopted)
            if named is not None
            else not row.is_adopted and row.stripe_product_id == wanted.stripe_product_id
        )
        and price_terms(price_of(row)) == price_terms(wanted.price)
    ]


async def make_in_stripe(environment: Environment, missing: Missing, known: InStripe, *, intent_id: str) -> Made:
    """Make, rename, restore or adopt what is missing.

    What others made is never changed. Raises StripeFailure, and Refusal (422) for what the document names and Stripe
    does not have, or has otherwise.
    """
    making = _Making(environment, intent_id, meters=dict(known.meters))
    objects: list[StripeObjectRow] = []
    for action, product in missing.products:
        if action == "adopt":
            await making.adopt_product(product)
        else:
            is_known = known.products.get((product.kind, product.key)) == product.stripe_product_id
            await making.product(product, is_known=is_known)
        objects.append(_object(environment, product.kind, product.key, product.stripe_product_id))
    for action, meter in missing.meters:
        if action == "update":
            await making.rename_meter(meter)
            continue
        await making.meter(meter)
        objects.append(_object(environment, "meter", meter.event_name, making.meters[meter.event_name]))
    prices = [_row(environment, price, *(await making.price(price))) for _, price in missing.prices]
    return Made(tuple(objects), tuple(prices))


async def archive_in_stripe(environment: Environment, rows: Iterable[StripePriceRow], *, intent_id: str) -> None:
    """Take prices off sale; subscriptions that hold them keep them. Raises StripeFailure."""
    calls = environment.gateway.catalog
    for row in rows:

        async def archive(idempotency_key: str, stripe_price_id: str = row.stripe_price_id) -> str:
            found = await calls.set_price_active(stripe_price_id, is_active=False, idempotency_key=idempotency_key)
            return str(found["id"])

        await _once(environment, intent_id, f"archive:{row.stripe_price_id}", archive)


class _Making:
    """The calls of one intent."""

    def __init__(self, environment: Environment, intent_id: str, *, meters: dict[str, str]) -> None:
        self._environment = environment
        self._intent_id = intent_id
        self.meters = meters
        self._listed: dict[str, StripeJson] | None = None
        self._sold: set[str] = set()

    @property
    def _calls(self) -> CatalogCalls:
        return self._environment.gateway.catalog

    async def adopt_product(self, wanted: WantedProduct) -> None:
        product = await self._calls.fetch_product(wanted.stripe_product_id)
        if product is None or not product["active"]:
            raise invalid(
                wanted.pointer,
                f"Stripe has no active product {wanted.stripe_product_id}. Name another one, or leave it out to make "
                "one.",
            )

    async def product(self, wanted: WantedProduct, *, is_known: bool) -> None:
        async def call(idempotency_key: str) -> str:
            found = await self._calls.fetch_product(wanted.stripe_product_id)
            if found is None:
                made = await self._calls.create_product(
                    wanted.stripe_product_id,
                    name=wanted.name,
                    description=wanted.description,
                    metadata=wanted.metadata,
                    idempotency_key=idempotency_key,
                )
                return str(made["id"])
            if not is_known and not any(name.startswith(METADATA) for name in found.get("metadata") or {}):
                raise invalid(
                    wanted.pointer,
                    f"Stripe has a product {wanted.stripe_product_id} that was not made here. Name it as "
                    "`stripe_product` to adopt it, or give it another id.",
                )
            made = await self._calls.update_product(
                found,
                name=wanted.name,
                description=wanted.description,
                metadata=wanted.metadata,
                idempotency_key=f"{idempotency_key}:update",
            )
            return str(made["id"])

        await self._once(f"product:{wanted.kind}:{wanted.key}", call)

    async def meter(self, wanted: WantedMeter) -> None:
        """Find the meter again or make it; one that counts otherwise is refused."""

        async def call(idempotency_key: str) -> str:
            found = (await self._active_meters()).get(wanted.event_name)
            if found is not None:
                why = counts_otherwise(found)
                if why is not None:
                    raise invalid(
                        wanted.pointer,
                        f"Stripe's meter {wanted.event_name} cannot bill this: {why}. Name another one"
                        f"{', or leave it out to make one' if wanted.is_named else ''}.",
                    )
                return str(found["id"])
            if wanted.is_fed:
                raise invalid(
                    wanted.pointer,
                    f"Stripe has no active meter with the event name {wanted.event_name}. Name the one that your "
                    "product feeds, or leave out `usage_source` to have one made.",
                )
            made = await self._calls.create_meter(
                wanted.event_name, display_name=wanted.display_name, idempotency_key=idempotency_key
            )
            return str(made["id"])

        self.meters[wanted.event_name] = await self._once(f"meter:{wanted.event_name}", call)

    async def rename_meter(self, wanted: WantedMeter) -> None:
        async def call(idempotency_key: str) -> str:
            made = await self._calls.rename_meter(
                self.meters[wanted.event_name], display_name=wanted.display_name, idempotency_key=idempotency_key
            )
            return str(made["id"])

        await self._once(f"meter:{wanted.event_name}", call)

    async def price(self, wanted: WantedPrice) -> tuple[str, str]:
        """The ids of the price and of its product."""
        if wanted.price.stripe_price_id is not None:
            return await self._adopt_price(wanted, wanted.price.stripe_price_id)
        await self._sell(wanted)
        meter = wanted.price.meter
        stripe_meter_id = None if meter is None else self.meters[meter]

        async def call(idempotency_key: str) -> str:
            found = await self._calls.find_price(wanted.lookup_key)
            if found is None:
                params = price_params(wanted, stripe_meter_id)
                made = await self._calls.create_price(wanted.lookup_key, params, idempotency_key=idempotency_key)
                return str(made["id"])
            _assert_says(wanted, found, {stripe_meter_id: meter} if stripe_meter_id and meter else {})
            if not found["active"]:
                await self._calls.set_price_active(found["id"], is_active=True, idempotency_key=f"{idempotency_key}:on")
            return str(found["id"])

        return await self._once(f"price:{wanted.lookup_key}", call), wanted.stripe_product_id

    async def _sell(self, wanted: WantedPrice) -> None:
        """Put the price's product back on sale, if somebody archived it: Stripe sells nothing of an archived one."""
        if wanted.stripe_product_id in self._sold:
            return
        found = await self._calls.fetch_product(wanted.stripe_product_id)
        if found is not None and not found["active"]:
            if not any(name.startswith(METADATA) for name in found.get("metadata") or {}):
                raise invalid(
                    wanted.pointer,
                    f"The product {wanted.stripe_product_id} is archived in Stripe, and was not made here. Restore it "
                    "there, or name another one.",
                )

            async def call(idempotency_key: str) -> str:
                made = await self._calls.restore_product(found["id"], idempotency_key=idempotency_key)
                return str(made["id"])

            await self._once(f"product:{wanted.stripe_product_id}:on", call)
        self._sold.add(wanted.stripe_product_id)

    async def _adopt_price(self, wanted: WantedPrice, stripe_price_id: str) -> tuple[str, str]:
        found = await self._calls.fetch_price(stripe_price_id)
        if found is None or not found["active"]:
            raise invalid(f"{wanted.pointer}/stripe_price", f"Stripe has no active price {stripe_price_id}.")
        meters = (
            {one["id"]: name for name, one in (await self._active_meters()).items()} if wanted.price.is_metered else {}
        )
        _assert_says(wanted, found, meters)
        product = reference(found["product"]) or ""
        if wanted.feature is None and product != wanted.stripe_product_id:
            raise invalid(
                f"{wanted.pointer}/stripe_price",
                f"{stripe_price_id} belongs to {product}: name that as `stripe_product`.",
            )
        return stripe_price_id, product

    async def _active_meters(self) -> dict[str, StripeJson]:
        if self._listed is None:
            self._listed = {str(one["event_name"]): one for one in await self._calls.active_meters()}
        return self._listed

    async def _once(self, step: str, call: "_Call") -> str:
        return await _once(self._environment, self._intent_id, step, call)


def _assert_says(wanted: WantedPrice, found: StripeJson, meters: Mapping[str, str]) -> None:
    said = price_from_stripe(found, meters)
    if isinstance(said, str):
        raise invalid(f"{wanted.pointer}/stripe_price", f"{found['id']} {said}: it cannot be sold here.")
    if price_terms(said) != price_terms(wanted.price):
        raise invalid(f"{wanted.pointer}/stripe_price", f"{found['id']} says something else: {price_words(said)}.")


def _row(environment: Environment, wanted: WantedPrice, stripe_price_id: str, stripe_product_id: str) -> StripePriceRow:
    terms = price_terms(wanted.price)
    plain = Price(
        currency=terms.currency,
        interval=terms.interval,
        interval_count=terms.interval_count,
        amount_minor=terms.amount_minor,
    )
    return StripePriceRow(
        environment_id=environment.id,
        stripe_price_id=stripe_price_id,
        stripe_product_id=stripe_product_id,
        owner_kind=wanted.kind,
        owner_key=wanted.key,
        owner_version=wanted.version,
        feature=wanted.feature,
        currency=terms.currency,
        interval=terms.interval.value,
        interval_count=terms.interval_count,
        amount_minor=terms.amount_minor,
        terms=None if terms == plain else msgspec.to_builtins(terms),
        is_active=True,
        is_adopted=wanted.price.stripe_price_id is not None,
        recorded_at=environment.clock.now(),
    )


def _object(environment: Environment, kind: str, key: str, stripe_id: str) -> StripeObjectRow:
    return StripeObjectRow(
        environment_id=environment.id, kind=kind, key=key, stripe_id=stripe_id, recorded_at=environment.clock.now()
    )


_Call = Callable[[str], Awaitable[str]]  # called with the idempotency key; answers the object's Stripe id


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
