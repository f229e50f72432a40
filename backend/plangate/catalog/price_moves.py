"""Counts who pays another price once the prices of new versions move along, before anybody does."""

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from plangate.catalog.migrating import pins_wanted, selection_of
from plangate.catalog_compiled import price_terms
from plangate.catalog_document import Kind, Migrate, MigrationDocument
from plangate.engine.catalog import Catalog, Price
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, SubscriptionFact
from plangate.environment import Environment
from plangate.store.companies import page_of_companies
from plangate.store.population import facts_of_companies

_PAGE = 200
_MOVABLE = frozenset({"trialing", "active"})


class Repriced(msgspec.Struct, frozen=True, kw_only=True):
    """How many companies will pay another price; `is_complete` is False when there were more to look at."""

    companies: int = 0
    is_complete: bool = True


async def repriced(
    environment: Environment,
    before: Catalog,
    after: Catalog,
    migrations: Mapping[tuple[Kind, str], Migrate],
    *,
    limit: int | None,
    progress: Callable[[int], None] | None = None,
) -> Repriced:
    """Look at every company (or the first `limit`), a page at a time. `migrations` says who gets which new version.

    What was agreed on with one company stays, and so does the price of a subscription that is set to end, past due,
    managed by another system, or about to change: those are left out.
    """
    moving = {named: who for named, who in migrations.items() if who != "none"}
    companies = examined = 0
    cursor: str | None = None
    while moving:
        async with environment.reading() as session:
            rows = await page_of_companies(session, search=None, after=cursor, limit=_PAGE)
            found = await facts_of_companies(session, rows)
            companies += sum(_pays_otherwise(before, after, facts, moving, session.now) for facts in found.values())
        examined += len(rows)
        if progress is not None:
            progress(examined)
        if len(rows) < _PAGE:
            break
        if limit is not None and examined >= limit:
            return Repriced(companies=companies, is_complete=False)
        cursor = rows[-1].id
    return Repriced(companies=companies)


def _pays_otherwise(
    before: Catalog,
    after: Catalog,
    facts: CompanyFacts,
    moving: Mapping[tuple[Kind, str], Migrate],
    at: datetime,
) -> bool:
    if not facts.subscriptions:
        return False
    subscription = build_snapshot(before, facts, at).subscription
    if subscription is None or not _is_movable(subscription, at):
        return False
    return any(
        _gets(after, facts, kind, key, who, at) and _differs(before, after, facts.company_id, subscription, kind, key)
        for (kind, key), who in moving.items()
    )


def _is_movable(subscription: SubscriptionFact, at: datetime) -> bool:
    is_foreign = subscription.stripe_schedule_id is not None and not subscription.is_schedule_ours
    is_changing = subscription.scheduled_end_at is not None or any(one.starts_at > at for one in subscription.phases)
    return subscription.status in _MOVABLE and not is_foreign and not is_changing


def _gets(after: Catalog, facts: CompanyFacts, kind: Kind, key: str, who: Migrate, at: datetime) -> bool:
    """Whether the company is given the new version, if it holds an older one."""
    newest = after.newest(kind, key)
    if newest is None or not isinstance(who, MigrationDocument):
        return newest is not None
    selection = selection_of(who)
    return bool(pins_wanted(after, facts, at, kind=kind, key=key, version=newest.version, selection=selection))


def _differs(
    before: Catalog, after: Catalog, company_id: str, subscription: SubscriptionFact, kind: Kind, key: str
) -> bool:
    """Whether what the subscription pays for a plan or add-on, part by part, is not what the new version asks."""
    held: dict[str | None, Price] = {}
    for item in subscription.items:
        owner = before.owner_of(item.stripe_price_id, company_id)
        if owner is None or (owner.kind, owner.key) != (kind, key):
            continue
        if owner.company_id is not None:
            return False
        held[owner.feature] = price_terms(owner.price)
    version = after.newest(kind, key)
    if not held or version is None:
        return False
    paid = next(iter(held.values()))
    wanted: dict[str | None, Price] = {}
    parts = [(one.feature, one.prices, one.price_behaviour == "pay_in_advance") for one in version.entitlements]
    for feature, prices, is_bought in (
        (None, version.prices, False),
        *((name, sold, is_bought) for name, sold, is_bought in parts if sold),
    ):
        if not prices or (is_bought and feature not in held):
            continue
        price = next((one for one in prices if _is_sold_as(one, paid, subscription.currency)), None)
        if price is None:
            return False
        wanted[feature] = price_terms(price)
    return held != wanted


def _is_sold_as(price: Price, paid: Price, currency: str) -> bool:
    every = (price.interval, price.interval_count)
    return price.currency == currency and every == (paid.interval, paid.interval_count)
