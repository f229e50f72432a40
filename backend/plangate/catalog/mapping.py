"""Which plan or add-on a Stripe product's prices stand for, and mapping those that somebody else made.

A price that the catalogue file sells is mapped by it alone. Any other one may be mapped by hand: it is never sold from
here, but whoever holds it has what it stands for. What it stood for before is kept, so that the past stays answerable.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from plangate.catalog.shelf import LEASE
from plangate.catalog.stripe_objects import price_from_stripe
from plangate.catalog_compiled import price_terms
from plangate.catalog_document import Kind
from plangate.engine.catalog import Catalog, PlanVersion, Price, PriceOwner
from plangate.engine.facts import CompanyFacts
from plangate.engine.holdings import resolve_holdings
from plangate.environment import Environment
from plangate.errors import Code, FieldError, Refusal, invalid
from plangate.shapes import Actor
from plangate.store.audit import append_audit
from plangate.store.catalog import StripePriceRow, all_stripe_prices
from plangate.store.companies import company_row
from plangate.store.database import StoreSession
from plangate.store.population import facts_of_companies
from plangate.store.price_mappings import companies_holding, map_price

_EXAMINED: Final = 200
_NAMED: Final = 5


class StandsFor(msgspec.Struct, frozen=True, kw_only=True):
    """What a price stands for. `feature` is what it pays for within the plan or add-on; None: the whole of it."""

    kind: Kind
    key: str
    name: str
    version: int
    feature: str | None = None


class ProductPrice(msgspec.Struct, frozen=True, kw_only=True):
    """One price of the product. `companies` hold it; `fault` says why it cannot be mapped, in words.

    `amount_minor` is None where tiers, packages or fractions say what it costs.
    """

    id: str
    currency: str
    amount_minor: int | None
    interval: str | None
    interval_count: int
    is_active: bool
    is_metered: bool
    stands_for: StandsFor | None
    is_sold_here: bool
    companies: int
    fault: str | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A plan or add-on that prices may be mapped to."""

    kind: Kind
    key: str
    name: str


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A company whose base plan a mapping would change, by name."""

    company: str
    name: str | None
    before: str | None
    after: str | None


class MappingPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a mapping would do: `companies` hold the prices, `examined` of them were looked at, `moving` change plan."""

    kind: Kind
    key: str
    prices: tuple[str, ...]
    companies: int
    examined: int
    moving: int
    moves: tuple[Move, ...] = ()


class ProductPage(msgspec.Struct, frozen=True, kw_only=True):
    """A Stripe product as the catalogue knows it. `mapping` names this state: mapping asks for it back."""

    product: str
    name: str
    is_active: bool
    stands_for: StandsFor | None
    prices: tuple[ProductPrice, ...]
    unmapped: tuple[str, ...]
    companies: int
    choices: tuple[Choice, ...]
    mapping: str
    preview: MappingPreview | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What to map to, and which price of the product (None: every one that stands for nothing yet)."""

    kind: Kind
    key: str
    feature: str | None = None
    price: str | None = None


class _Product(msgspec.Struct, frozen=True):
    """A product as Stripe and the store hold it now."""

    stripe: Mapping[str, Any]
    found: Sequence[Mapping[str, Any]]
    meters: Mapping[str, str]
    rows: Mapping[str, StripePriceRow]
    sold: frozenset[str]


async def product_page(env: Environment, stripe_product_id: str, *, target: Target | None = None) -> ProductPage:
    """What a product's prices stand for and who holds them; with `target` also what mapping them to it would do.

    Raises Refusal: 404 for a product this account does not have, 422 for a target the catalogue does not have, and what
    Stripe refuses.
    """
    catalog = await env.catalog()
    product = await _product(env, catalog, stripe_product_id)
    async with env.reading() as session:
        return await _page(session, catalog, product, target)


async def map_product(
    env: Environment, stripe_product_id: str, *, target: Target, mapping: str, actor: Actor
) -> ProductPage:
    """Let prices of a product stand for a plan or add-on, for whoever holds them, from now on.

    `mapping` is that of the page that was shown. Raises Refusal: 404 and 422 as `product_page`; 409 when the mapping is
    another one meanwhile, when nothing would change, or when the catalogue file says what the price stands for.
    """
    async with env.lease(LEASE):
        catalog = await env.catalog()
        product = await _product(env, catalog, stripe_product_id)
        version = _version(catalog, target)
        async with env.writing() as session:
            page = await _page(session, catalog, product, target)
            if page.mapping != mapping:
                raise Refusal(Code.CATALOG_STALE, "The product was mapped otherwise meanwhile. Look at it again.")
            wanted = _wanted(product, target)
            before, after = {}, {}
            for stripe_price_id, terms in wanted.items():
                known = product.rows.get(stripe_price_id)
                row = _row(env, version, target, stripe_product_id, terms, at=session.now)
                if known is not None and _owner_of(known) == _owner_of(row):
                    continue
                before[stripe_price_id] = None if known is None else _owner_of(known)
                after[stripe_price_id] = _owner_of(row)
                await map_price(session, row, before=known)
            if not after:
                raise Refusal(Code.NO_CHANGE, f"These prices stand for {version.name} already.")
            await append_audit(
                session,
                actor=actor,
                action="catalog.product_mapped",
                subject=stripe_product_id,
                before={"prices": before},
                after={"prices": after, "companies": 0 if page.preview is None else page.preview.companies},
            )
            env.touch_catalog(session)
    return await product_page(env, stripe_product_id)


async def _product(env: Environment, catalog: Catalog, stripe_product_id: str) -> _Product:
    calls = env.gateway.catalog
    found = await calls.fetch_product(stripe_product_id)
    if found is None:
        raise Refusal(Code.NOT_FOUND, "This Stripe account has no such product.")
    prices = await calls.prices_of_product(stripe_product_id)
    meters = {meter["id"]: meter["event_name"] for meter in await calls.active_meters()}
    async with env.reading() as session:
        rows = {row.stripe_price_id: row for row in await all_stripe_prices(session)}
    sold = (
        price.stripe_price_id
        for version in (*catalog.plans.values(), *catalog.add_ons.values())
        for price in (*version.prices, *(price for one in version.entitlements for price in one.prices))
    )
    return _Product(found, prices, meters, rows, frozenset(one for one in sold if one is not None))


async def _page(session: StoreSession, catalog: Catalog, product: _Product, target: Target | None) -> ProductPage:
    prices = tuple([await _price(session, catalog, product, found) for found in product.found])
    whole = [one.stands_for for one in prices if one.stands_for is not None and one.stands_for.feature is None]
    parts = [one.stands_for for one in prices if one.stands_for is not None]
    state = [(one.id, None if one.stands_for is None else msgspec.structs.astuple(one.stands_for)) for one in prices]
    return ProductPage(
        product=product.stripe["id"],
        name=product.stripe["name"],
        is_active=product.stripe["active"],
        stands_for=next(iter((*whole, *parts)), None),
        prices=prices,
        unmapped=tuple(one.id for one in prices if one.stands_for is None and one.fault is None),
        companies=len(await companies_holding(session, [one.id for one in prices])),
        choices=tuple(
            Choice(kind=version.kind, key=version.key, name=version.name)
            for version in (*catalog.plans.values(), *catalog.add_ons.values())
            if not version.is_archived
        ),
        mapping=hashlib.sha256(msgspec.json.encode([catalog.revision, sorted(state)])).hexdigest()[:24],
        preview=None if target is None else await _preview(session, catalog, product, target),
    )


async def _price(session: StoreSession, catalog: Catalog, product: _Product, found: Mapping[str, Any]) -> ProductPrice:
    said = price_from_stripe(found, product.meters)
    terms = said if isinstance(said, Price) else None
    recurring = found.get("recurring") or {}
    is_plain = terms is not None and not terms.tiers and terms.amount_decimal is None and terms.package_size == 1
    row = product.rows.get(found["id"])
    return ProductPrice(
        id=found["id"],
        currency=found["currency"],
        amount_minor=terms.amount_minor if terms is not None and is_plain else None,
        interval=recurring.get("interval"),
        interval_count=recurring.get("interval_count") or 1,
        is_active=found["active"],
        is_metered=recurring.get("usage_type") == "metered",
        stands_for=None if row is None else _stands_for(catalog, row),
        is_sold_here=found["id"] in product.sold,
        companies=len(await companies_holding(session, [found["id"]])),
        fault=said if isinstance(said, str) else None,
    )


def _stands_for(catalog: Catalog, row: StripePriceRow) -> StandsFor:
    kind: Kind = "plan" if row.owner_kind == "plan" else "add_on"
    version = catalog.newest(kind, row.owner_key)
    name = row.owner_key if version is None else version.name
    return StandsFor(kind=kind, key=row.owner_key, name=name, version=row.owner_version, feature=row.feature)


def _version(catalog: Catalog, target: Target) -> PlanVersion:
    version = catalog.newest(target.kind, target.key)
    if version is None:
        raise invalid("/key", f"The catalogue has no such {'plan' if target.kind == 'plan' else 'add-on'}.")
    if target.feature is not None and all(one.feature != target.feature for one in version.entitlements):
        raise invalid("/feature", f"{version.name} grants nothing for that feature.")
    return version


def _wanted(product: _Product, target: Target) -> dict[str, Price]:
    """The prices to map with their terms. Raises Refusal for one that is not the product's, or not ours to map."""
    if target.price is None:
        return {
            found["id"]: said
            for found in product.found
            if found["id"] not in product.rows and isinstance(said := price_from_stripe(found, product.meters), Price)
        }
    found = next((one for one in product.found if one["id"] == target.price), None)
    if found is None:
        raise invalid("/price", "The product has no such price.")
    if target.price in product.sold:
        detail = "The catalogue file sells at this price and says what it stands for. Change it there, and apply it."
        raise Refusal(Code.KEY_CONFLICT, detail, errors=[FieldError("/price", Code.KEY_CONFLICT, detail)])
    said = price_from_stripe(found, product.meters)
    if isinstance(said, str):
        raise invalid("/price", f"This price {said}, so it cannot stand for a plan or add-on.")
    return {target.price: said}


async def _preview(session: StoreSession, catalog: Catalog, product: _Product, target: Target) -> MappingPreview:
    version = _version(catalog, target)
    wanted = _wanted(product, target)
    owners = {
        stripe_price_id: PriceOwner(target.kind, target.key, version.version, terms, feature=target.feature)
        for stripe_price_id, terms in wanted.items()
    }
    after = msgspec.structs.replace(catalog, price_owners={**catalog.price_owners, **owners})
    holders = await companies_holding(session, list(wanted))
    rows = [row for one in holders[:_EXAMINED] if (row := await company_row(session, one)) is not None]
    facts = await facts_of_companies(session, rows)
    moves = [
        Move(company=row.id, name=row.name, before=old, after=new)
        for row in rows
        if (old := _base(catalog, facts[row.id], session.now)) != (new := _base(after, facts[row.id], session.now))
    ]
    return MappingPreview(
        kind=target.kind,
        key=target.key,
        prices=tuple(sorted(wanted)),
        companies=len(holders),
        examined=len(rows),
        moving=len(moves),
        moves=tuple(moves[:_NAMED]),
    )


def _base(catalog: Catalog, facts: CompanyFacts, at: datetime) -> str | None:
    plans = resolve_holdings(catalog, facts, at).plans
    return plans[0][0].name if plans else None


def _row(
    env: Environment, version: PlanVersion, target: Target, stripe_product_id: str, price: Price, *, at: datetime
) -> StripePriceRow:
    # Not on sale from here: what is sold is what the catalogue file says.
    return StripePriceRow(
        environment_id=env.id,
        stripe_price_id=price.stripe_price_id or "",
        stripe_product_id=stripe_product_id,
        owner_kind=version.kind,
        owner_key=version.key,
        owner_version=version.version,
        feature=target.feature,
        currency=price.currency,
        interval=price.interval.value,
        interval_count=price.interval_count,
        amount_minor=price.amount_minor,
        terms=msgspec.to_builtins(price_terms(price)),
        is_active=False,
        is_adopted=True,
        recorded_at=at,
    )


def _owner_of(row: StripePriceRow) -> dict[str, object]:
    return {"kind": row.owner_kind, "key": row.owner_key, "feature": row.feature}
