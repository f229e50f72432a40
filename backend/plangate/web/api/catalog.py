"""The catalogue over HTTP: read it, plan or apply a new one, and list what is on sale."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from plangate import catalog
from plangate.catalog_document import CatalogDocument
from plangate.errors import Code, FieldError, Refusal
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.schemas import CatalogQuery, NoQuery

_TAG: Final = "Catalogue"


class PublicPlanList(msgspec.Struct, frozen=True, kw_only=True):
    """Plans, then add-ons, in the catalogue's order."""

    data: list[catalog.PublicPlan]
    next_cursor: None = None


async def get_catalog(call: Call[None, None]) -> Answer:
    """The catalogue in force."""
    return Answer(await catalog.current(call.environment))


async def put_catalog(call: Call[Mapping[str, Any], CatalogQuery]) -> Answer:
    """Apply a catalogue, or say what applying it would change."""
    document = call.body
    if not isinstance(document, dict):
        raise Refusal(
            Code.INVALID,
            "The body must be a catalogue document.",
            errors=[FieldError("", Code.INVALID, "The body must be a JSON object.")],
        )
    if call.query.dry_run:
        return Answer(await catalog.plan(call.environment, document))
    return Answer(await catalog.apply(call.environment, document, actor=call.actor))


async def public_plans(call: Call[None, None]) -> Answer:
    """What is on sale."""
    return Answer(PublicPlanList(data=await catalog.public_plans(call.environment)))


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/catalog",
        name="getCatalog",
        tag=_TAG,
        summary="The catalogue",
        text="The document that `plangate catalog pull` writes as a file.",
        scope="read",
        answer=get_catalog,
        query=NoQuery,
        responses={200: Documented("The document.", CatalogDocument)},
    ),
    Operation(
        method="PUT",
        path="/v1/catalog",
        name="putCatalog",
        tag=_TAG,
        summary="Plan or apply a catalogue",
        text="With `dry_run=true`, only says what would change and whom it would reach. Applying creates or updates "
        "products and prices in Stripe, then publishes new versions.",
        scope="admin",
        answer=put_catalog,
        body=dict,
        body_schema=CatalogDocument,
        query=CatalogQuery,
        responses={200: Documented("What changes, or changed.", catalog.CatalogDiff)},
        problems=(Code.CATALOG_STALE, Code.STRIPE_REFUSED, Code.STRIPE_BUSY),
    ),
    Operation(
        method="GET",
        path="/v1/public/plans",
        name="listPublicPlans",
        tag=_TAG,
        summary="What is on sale",
        text="Plans in their order with prices, entitlements and add-ons. A publishable key is enough.",
        scope="public",
        answer=public_plans,
        query=NoQuery,
        responses={200: Documented("The plans.", PublicPlanList)},
    ),
)
