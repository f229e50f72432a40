"""Takes Stripe prices off sale once nothing on sale uses them and no subscription holds them any more."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from plangate.catalog.stripe_objects import WantedInStripe, wanted_in_stripe
from plangate.catalog.stripe_side import archive_in_stripe, rows_of
from plangate.catalog_document import CatalogDocument
from plangate.engine.catalog import Catalog, PlanVersion
from plangate.environment import Environment
from plangate.store.catalog import StripePriceRow, all_stripe_prices, revision_row, save_stripe_price
from plangate.store.database import StoreSession
from plangate.store.plan_changes import has_open, is_price_promised
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
        document = CatalogDocument.model_validate(row.document)
        return await clear_shelf(environment, document, revision=row.revision, versions=row.versions)


async def clear_shelf(
    environment: Environment, document: CatalogDocument, *, revision: int, versions: Mapping[str, int]
) -> int:
    """Archive the prices that nobody needs, in Stripe and then here; answers how many. Raises StripeFailure.

    `versions` are the document's newest, by `plan:KEY`. Prices that others made are left alone in Stripe.
    """
    wanted = wanted_in_stripe(document, versions)
    async with environment.reading() as session:
        rows = leftover(wanted, await all_stripe_prices(session))
        gone = await unneeded(session, rows, await environment.catalog_in(session)) if rows else []
    for row in gone:
        if not row.is_adopted:
            await archive_in_stripe(environment, [row], intent_id=f"catalog:{environment.id}:{revision}:shelf")
        async with environment.writing() as session:
            await save_stripe_price(session, row.model_copy(update={"is_active": False}))
            environment.touch_catalog(session)
    return len(gone)


def leftover(wanted: WantedInStripe, rows: Sequence[StripePriceRow]) -> list[StripePriceRow]:
    """The prices on sale that nothing wanted is sold at."""
    active = [row for row in rows if row.is_active]
    sold = {row.stripe_price_id for price in wanted.prices for row in rows_of(price, active)}
    return [row for row in active if row.stripe_price_id not in sold]


async def unneeded(
    session: StoreSession, candidates: Sequence[StripePriceRow], catalog: Catalog
) -> list[StripePriceRow]:
    """Those of the prices that nobody needs.

    A price is needed while a subscription holds it, now or in a scheduled phase, and while a change under way leads to
    it, such as a Checkout that nobody has paid yet: Stripe takes no inactive price when a subscription is made or
    written anew. Then all prices of the version it is of are needed too, if companies were left on that version: they
    may change what they hold of it.
    """
    kept = [_price_ids(version) for version in _kept_versions(catalog)]
    held: set[str] = set()
    for stripe_price_id in {row.stripe_price_id for row in candidates}.union(*kept):
        if await is_price_held(session, stripe_price_id) or await is_price_promised(session, stripe_price_id):
            held.add(stripe_price_id)
    # What is agreed on with a company may wait for its day, or for somebody to pay.
    for row in candidates:
        if row.company_id is not None and await has_open(session, row.company_id):
            held.add(row.stripe_price_id)
    needed = held.union(*(prices for prices in kept if prices & held))
    return [row for row in candidates if row.stripe_price_id not in needed]


def _kept_versions(catalog: Catalog) -> Iterator[PlanVersion]:
    """The older versions that companies may still hold."""
    for name, kept in catalog.kept.items():
        kind, _, key = name.partition("/")
        for number, _ in kept.versions[:-1]:
            version = catalog.version_of("plan" if kind == "plan" else "add_on", key, number)
            if version is not None:
                yield version


def _price_ids(version: PlanVersion) -> set[str]:
    granted = (price for entitlement in version.entitlements for price in entitlement.prices)
    return {price.stripe_price_id for price in (*version.prices, *granted) if price.stripe_price_id is not None}
