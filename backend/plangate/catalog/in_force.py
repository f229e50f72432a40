"""The catalogue as it is stored, read whole in one transaction, and the turn of whoever changes it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec

from plangate.catalog.shelf import LEASE
from plangate.catalog.stripe_side import InStripe
from plangate.catalog_compiled import compile_catalog
from plangate.engine.catalog import Catalog
from plangate.environment import Environment, Lease
from plangate.errors import Code, Refusal
from plangate.store.catalog import (
    CatalogRevisionRow,
    PlanVersionRow,
    StripePriceRow,
    all_plan_versions,
    all_stripe_prices,
    revision_row,
    stripe_objects_of,
)
from plangate.store.database import StoreSession

BUSY: Final = "Another catalogue is being applied. Try again in a minute."


class StoredCatalog(msgspec.Struct, frozen=True):
    """Everything of the catalogue in the store, read in one transaction."""

    revision: CatalogRevisionRow | None
    versions: list[PlanVersionRow]
    prices: list[StripePriceRow]
    plan_products: dict[str, str]
    add_on_products: dict[str, str]
    feature_products: dict[str, str]
    meters: dict[str, str]

    @property
    def in_stripe(self) -> InStripe:
        """What stands in Stripe, as far as it was stored."""
        products = {"plan": self.plan_products, "add_on": self.add_on_products, "entitlement": self.feature_products}
        return InStripe(
            {(kind, key): stripe_id for kind, found in products.items() for key, stripe_id in found.items()},
            self.meters,
            tuple(self.prices),
        )

    @property
    def number(self) -> int:
        """The number of the revision in force; 0 before the first."""
        return 0 if self.revision is None else self.revision.revision

    def compiled(self, environment: Environment) -> Catalog:
        """The engine's catalogue of it."""
        return compile_catalog(
            self.revision,
            self.versions,
            self.prices,
            self.plan_products,
            self.add_on_products,
            time_zone=environment.settings.time_zone,
        )


async def stored_catalog(session: StoreSession) -> StoredCatalog:
    """Everything of the catalogue in the store."""
    return StoredCatalog(
        await revision_row(session),
        await all_plan_versions(session),
        await all_stripe_prices(session),
        await stripe_objects_of(session, "plan"),
        await stripe_objects_of(session, "add_on"),
        await stripe_objects_of(session, "entitlement"),
        await stripe_objects_of(session, "meter"),
    )


@asynccontextmanager
async def turn(environment: Environment) -> AsyncIterator[Lease]:
    """One change of the catalogue at a time. Raises Refusal (409) while another one is under way."""
    async with AsyncExitStack() as stack:
        try:
            lease = await stack.enter_async_context(environment.lease(LEASE))
        except Refusal as busy:
            if busy.code is Code.CHANGE_IN_PROGRESS:
                raise Refusal(busy.code, BUSY, headers=busy.headers) from None
            raise
        yield lease
