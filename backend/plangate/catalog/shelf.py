"""Takes Stripe prices off sale once nothing on sale uses them and no subscription holds them any more."""

from typing import Final

from plangate.catalog.stripe_side import archive_in_stripe
from plangate.catalog_document import CatalogDocument
from plangate.environment import Environment
from plangate.store.catalog import all_stripe_prices, revision_row, save_stripe_price
from plangate.store.subscriptions import is_price_held

LEASE: Final = "catalog"  # held by whoever changes what is on sale


async def tidy_shelf(environment: Environment) -> int:
    """Archive what lost its last subscriber since the catalogue was applied; answers how many prices.

    Raises Refusal while a catalogue is being applied, and StripeFailure.
    """
    async with environment.lease(LEASE, wait_seconds=1):
        async with environment.reading() as session:
            row = await revision_row(session)
        if row is None:
            return 0
        return await clear_shelf(environment, CatalogDocument.model_validate(row.document), revision=row.revision)


async def clear_shelf(environment: Environment, document: CatalogDocument, *, revision: int) -> int:
    """Archive the prices that nobody needs, in Stripe and then here; answers how many. Raises StripeFailure.

    A price that a subscription still holds, now or in a scheduled phase, stays: Stripe takes no inactive price when
    the subscription is written anew. Prices that others made are left alone.
    """
    on_sale = {
        (kind, key, price.currency, price.interval, price.interval_count, price.amount_minor)
        for kind, key, sold in document.sold()
        if not sold.archived
        for price in sold.prices
    }
    adopted = {price.stripe_price for _, _, sold in document.sold() for price in sold.prices}
    replaced = {
        (kind, key, price.currency, price.interval, price.interval_count, price.amount_minor)
        for kind, key, sold in document.sold()
        for price in sold.prices
        if price.stripe_price is not None
    }
    async with environment.reading() as session:
        rows = await all_stripe_prices(session)
        gone = []
        for row in rows:
            terms = (row.owner_kind, row.owner_key, row.currency, row.interval, row.interval_count, row.amount_minor)
            is_sold = terms in on_sale and (terms not in replaced or row.stripe_price_id in adopted)
            if row.is_active and not is_sold and not await is_price_held(session, row.stripe_price_id):
                gone.append(row)
    for row in gone:
        if not row.is_adopted:
            await archive_in_stripe(environment, [row], intent_id=f"catalog:{environment.id}:{revision}:shelf")
        async with environment.writing() as session:
            await save_stripe_price(session, row.model_copy(update={"is_active": False}))
            environment.touch_catalog(session)
    return len(gone)
