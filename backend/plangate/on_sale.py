"""Whether our prices are on sale in Stripe, where people archive them and their products beside the catalogue."""

import msgspec

from plangate.environment import Environment
from plangate.settling import STRIPE
from plangate.store.audit import append_audit
from plangate.store.catalog import StripePriceRow, all_stripe_prices, save_stripe_price


async def learn_of_price(env: Environment, stripe_price_id: str) -> bool:
    """Look at a price again and keep whether it is on sale; False when it is none of ours.

    It is while neither it nor its product is archived. Whoever holds an archived price keeps what it grants; nobody
    buys it until applying the catalogue restores it. Raises StripeFailure, or Refusal while another process looks at
    the same product.
    """
    async with env.reading() as session:
        rows = [row for row in await all_stripe_prices(session) if row.stripe_price_id == stripe_price_id]
    for row in rows:
        async with env.lease(row.stripe_product_id, wait_seconds=2):
            product = await env.gateway.catalog.fetch_product(row.stripe_product_id)
            await _learn(env, [row], is_product_active=product is not None and bool(product["active"]))
    return bool(rows)


async def learn_of_product(env: Environment, stripe_product_id: str) -> bool:
    """Look at a product again, and at every price of ours that it has; False when it has none.

    As `learn_of_price`: nothing of an archived product is sold.
    """
    async with env.reading() as session:
        rows = [row for row in await all_stripe_prices(session) if row.stripe_product_id == stripe_product_id]
    if not rows:
        return False
    async with env.lease(stripe_product_id, wait_seconds=2):
        product = await env.gateway.catalog.fetch_product(stripe_product_id)
        await _learn(env, rows, is_product_active=product is not None and bool(product["active"]))
    return True


class OffShelf(msgspec.Struct, frozen=True):
    """A price of ours that Stripe sells otherwise than we keep it. `is_missing`: Stripe does not have it at all."""

    stripe_price_id: str
    owner: str
    is_active: bool
    is_missing: bool = False


class Shelf(msgspec.Struct, frozen=True):
    """Where Stripe and we differ on what is sold. `is_ours` is False when Stripe has none of our prices at all."""

    differing: tuple[OffShelf, ...] = ()
    is_ours: bool = True


async def compared_shelf(env: Environment) -> Shelf:
    """Our prices whose sale in Stripe, or whose product's, differs from what is stored; writes nothing.

    Adopted prices that we let go are left out: they were left on sale. Raises StripeFailure.
    """
    async with env.reading() as session:
        rows = [row for row in await all_stripe_prices(session) if row.is_active or not row.is_adopted]
    if not rows:
        return Shelf()
    products = {str(one["id"]) for one in await env.gateway.catalog.products_on_sale()}
    prices = {str(one["id"]) for one in await env.gateway.catalog.prices_on_sale()}
    found: list[OffShelf] = []
    for row in rows:
        is_active = row.stripe_price_id in prices and row.stripe_product_id in products
        if is_active != row.is_active:
            owner = f"{row.owner_kind}:{row.owner_key}{f': {row.feature}' if row.feature else ''}"
            is_missing = (
                row.stripe_price_id not in prices and await env.gateway.catalog.fetch_price(row.stripe_price_id) is None
            )
            found.append(OffShelf(row.stripe_price_id, owner, is_active, is_missing))
    is_ours = any(row.stripe_price_id in prices for row in rows) or not all(one.is_missing for one in found)
    return Shelf(tuple(found), is_ours or not found)


async def _learn(env: Environment, rows: list[StripePriceRow], *, is_product_active: bool) -> None:
    found = {row.stripe_price_id: is_product_active and await _is_active(env, row.stripe_price_id) for row in rows}
    async with env.writing() as session:
        for row in await all_stripe_prices(session):
            is_active = found.get(row.stripe_price_id, row.is_active)
            if row.is_active == is_active:
                continue
            await save_stripe_price(session, row.model_copy(update={"is_active": is_active}))
            await append_audit(
                session,
                actor=STRIPE,
                action="price.restored" if is_active else "price.archived",
                subject=row.stripe_price_id,
                before={"is_active": row.is_active},
                after={"is_active": is_active},
            )
            env.touch_catalog(session)


async def _is_active(env: Environment, stripe_price_id: str) -> bool:
    price = await env.gateway.catalog.fetch_price(stripe_price_id)
    return price is not None and bool(price["active"])
