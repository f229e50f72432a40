"""Compares what is stored with where it came from, or went to: subscriptions, usage counters, reports to meters."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from plangate import on_sale
from plangate.billing.mirror import mirrored, state_hash, without_holding_times
from plangate.billing.transport import StripeJson
from plangate.engine.catalog import Catalog
from plangate.engine.facts import PlanSource, ScheduledPhase, SubscriptionFact, SubscriptionItem
from plangate.engine.values import Json
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.listing import (
    Listed,
    Listing,
    Progress,
    agrees,
    listed_state,
    several_at_once,
    subscriptions_held,
    untold,
)
from plangate.mirroring import customers_of, refetch, refetch_customer, refuse_other_account
from plangate.newcomers import is_subscriber
from plangate.recording import plan_meant
from plangate.store.companies import page_of_companies
from plangate.store.database import StoreSession
from plangate.store.known import companies_at_stripe, known_customers
from plangate.store.ledger import lock_companies
from plangate.store.meter_outbox import DELIVERED, SET_ASIDE, WAITING, Reported, put_back, reported_meters
from plangate.store.subscriptions import subscriptions_of
from plangate.usage_windows import Miscount, miscounted, recount

_PAGE: Final = 200
_ASKED_FOR_MAX: Final = 100  # from more companies on, the list of all customers is asked for before each of theirs
_REPORTED_FOR: Final = timedelta(days=35)


class DriftKind(StrEnum):
    """The classes of drift: what of Stripe differs, or that usage was counted otherwise."""

    MISSING = "missing"  # A subscription Stripe has and we do not know.
    GONE = "gone"  # One that runs here and Stripe no longer lists.
    STATUS = "status"
    ITEMS = "items"
    SCHEDULE = "schedule"
    ENDING = "ending"
    DETAILS = "details"
    UNLINKED_CUSTOMER = "unlinked_customer"  # A Stripe customer of ours that no company has.
    UNKNOWN_CUSTOMER = "unknown_customer"  # A linked customer this Stripe account never had.
    UNREADABLE = "unreadable"  # Stripe did not answer for this company, so it was not compared.
    PRICE_NOT_ON_SALE = "price_not_on_sale"  # One we sell that was archived in Stripe, or whose product was.
    PRICE_ON_SALE = "price_on_sale"  # One that Stripe sells and we do not.
    PRICE_MISSING = "price_missing"  # One of ours that this Stripe account does not have.
    UNMAPPED_PRICE = "unmapped_price"  # One a company pays for and no plan names, so that the last known plan stays.
    USAGE = "usage"


# What no repair mends: a person has to see to the key, the link or the catalogue.
FOR_PEOPLE: Final = frozenset({DriftKind.UNKNOWN_CUSTOMER, DriftKind.UNREADABLE, DriftKind.UNMAPPED_PRICE})


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `subject` is a subscription's, customer's or price's id, or a feature.

    `here` and `in_stripe` are the values of a subscription that differ, by their names in `SubscriptionFact`.
    `is_repaired` says it is gone. `company` is empty for a Stripe customer that has none, and for a price.
    """

    company: str
    subject: str
    detail: str
    kind: DriftKind = DriftKind.USAGE
    here: Mapping[str, Json] = {}
    in_stripe: Mapping[str, Json] = {}
    is_repaired: bool = False


async def stripe_drift(environment: Environment, *, repair: bool = False, progress: Progress = untold) -> list[Drift]:
    """Every price and subscription that Stripe has otherwise than we do; with `repair`, fetched and stored again.

    Repaired is one company at a time; without `repair` nothing is written. A company whose customer this account never
    had is reported and never repaired: to Stripe's word that would end every subscription it holds, and it is far
    likelier that the key is another account's. Raises Refusal (unavailable) when the key is known to be another
    account's.
    """
    with environment.gateway.long_work():
        await refuse_other_account(environment)
        held = await subscriptions_held(environment, progress)
        agreeing, strangers, suspects = await _listed(environment, held, progress)
        found = await _prices(environment, repair=repair)
        others = [one for one in await _companies_at_stripe(environment) if one not in agreeing]
        if len(others) > _ASKED_FOR_MAX:
            quiet = await _without_subscriptions(environment, held, progress)
            others = [one for one in others if one not in quiet]
        differing = await _differing(environment, others, progress)
        for number, (company_id, differences) in enumerate(differing.items(), start=1):
            found.extend(await _repaired(environment, company_id, differences) if repair else differences)
            if repair:
                progress("Repairing companies", number, len(differing))
        for stripe_customer_id in strangers:
            found.extend(await _unlinked(environment, stripe_customer_id, repair=repair))
        # Last, because a repair may just have brought such a price.
        found.extend([one for one in [await _unmapped(environment, name) for name in suspects] if one is not None])
    return found


async def _prices(environment: Environment, *, repair: bool) -> list[Drift]:
    """Prices that came on sale or went off it unnoticed; none of a company.

    Where Stripe has none of ours, nothing is repaired: it is far likelier that the key is another account's.
    """
    shelf = await on_sale.compared_shelf(environment)
    found: list[Drift] = []
    for one in shelf.differing:
        kind, detail = _PRICES[one.is_active, one.is_missing]
        try:
            is_repaired = repair and shelf.is_ours and await on_sale.learn_of_price(environment, one.stripe_price_id)
        except Refusal as refusal:
            is_repaired, detail = False, f"{detail}; {refusal.detail}"
        drift = Drift(
            company="", subject=one.stripe_price_id, detail=f"{one.owner}: {detail}", kind=kind, is_repaired=is_repaired
        )
        found.append(drift)
    return found


_PRICES: Final = {
    (False, False): (DriftKind.PRICE_NOT_ON_SALE, "sold here, archived in Stripe, or its product is"),
    (True, False): (DriftKind.PRICE_ON_SALE, "on sale in Stripe, not sold here"),
    (False, True): (DriftKind.PRICE_MISSING, "this Stripe account does not have it"),
}


async def _unmapped(environment: Environment, company_id: str) -> Drift | None:
    """A company that keeps its last known plan because no plan names what it pays; to be mended in the catalogue."""
    standing = await environment.standings.of(company_id)
    snapshot = None if standing is None else standing.snapshot_at(environment.clock.now())
    if snapshot is None or snapshot.subscription is None or snapshot.plan is None:
        return None
    if snapshot.plan.source is not PlanSource.SUBSCRIPTION or plan_meant(snapshot) is not None:
        return None
    detail = "; ".join(notice.detail for notice in snapshot.notices if notice.code == "unmapped_price")
    name = snapshot.subscription.stripe_subscription_id
    return Drift(company=company_id, subject=name, detail=detail, kind=DriftKind.UNMAPPED_PRICE)


async def _listed(
    environment: Environment, held: Counter[str], tell: Progress
) -> tuple[set[str], list[str], list[str]]:
    """Companies that agree with the list of all subscriptions, and customers of our prices that no company has; last
    companies with a price that no plan names, nor an add-on.

    Only a company whose one customer is told whole can agree. All others are compared one by one, with what is fetched
    for them alone, so that nothing that changed while we listed passes for drift.
    """
    catalog = await environment.catalog()
    agreeing, strangers, suspects, through = set[str](), dict[str, None](), dict[str, None](), 0
    listing = Listing(environment, held)

    async def compare(whole: Mapping[str, Listed], apart: Mapping[str, Listed]) -> None:
        async with environment.reading() as session:
            known = await known_customers(session, [*whole, *apart])
        # Who cannot be read for now is compared alone, and reported then.
        states = await several_at_once(
            [name for name in whole if name in known and known[name].is_sole],
            lambda name: listed_state(environment, name, whole[name]),
            refused=lambda _name, _refusal: None,
        )
        agreeing.update(
            known[name].company_id for name, one in states.items() if one is not None and agrees(known[name], one)
        )
        agreeing.difference_update(known[name].company_id for name in apart if name in known)
        for name, listed in {**whole, **apart}.items():
            if name in known and not all(
                _is_named(catalog, known[name].company_id, one) for one in listed.subscriptions
            ):
                suspects[known[name].company_id] = None
            elif name not in known and is_subscriber(catalog, listed.subscriptions):
                strangers[name] = None

    async for page in listing.pages():
        await compare(page.whole, page.apart)
        through += len(page.whole) + len(page.apart)
        tell("Comparing subscribers", through, max(len(held), through))
    await compare({}, listing.waiting)
    return agreeing, list(strangers), list(suspects)


async def _without_subscriptions(environment: Environment, held: Counter[str], tell: Progress) -> set[str]:
    """Companies that never subscribed to anything, here or in Stripe, whose one customer the account lists."""
    found, through = set[str](), 0
    async for page in environment.gateway.iterate_customers():
        async with environment.reading() as session:
            known = await known_customers(session, [one["id"] for one in page if one["id"] not in held])
        found.update(one.company_id for one in known.values() if one.is_sole and not one.states)
        through += len(page)
        tell("Looking at all customers", through, None)
    return found


async def _companies_at_stripe(environment: Environment) -> list[str]:
    found: list[str] = []
    while True:
        async with environment.reading() as session:
            page = await companies_at_stripe(session, after=found[-1] if found else "", limit=_PAGE)
        found += page
        if len(page) < _PAGE:
            return found


def _is_named(catalog: Catalog, company_id: str, subscription: StripeJson) -> bool:
    """Whether a plan or add-on names every price of a subscription."""
    prices = (item["price"]["id"] for item in subscription["items"]["data"])
    return all(catalog.owner_of(one, company_id) is not None for one in prices)


async def _differing(environment: Environment, company_ids: Sequence[str], tell: Progress) -> dict[str, list[Drift]]:
    """The differences of each company that has any, as fetched for it alone, several companies at once."""
    found: dict[str, list[Drift]] = {}
    through = 0

    async def compare(company_id: str) -> None:
        nonlocal through
        found[company_id] = await _of_company(environment, company_id)
        through += 1
        tell("Comparing companies", through, len(company_ids))

    def refused(company_id: str, refusal: Refusal) -> None:
        found[company_id] = [_unreadable(company_id, refusal)]

    await several_at_once(company_ids, compare, refused=refused)
    return {company_id: found[company_id] for company_id in company_ids if found[company_id]}


def _unreadable(company_id: str, refusal: Refusal) -> Drift:
    """What Stripe does not answer for one keeps nobody else from being compared."""
    return Drift(company=company_id, subject="", detail=refusal.detail, kind=DriftKind.UNREADABLE)


async def _repaired(environment: Environment, company_id: str, differences: list[Drift]) -> list[Drift]:
    """The differences, and which of them are gone after Stripe's word was fetched and stored again."""
    if any(one.kind in FOR_PEOPLE for one in differences):
        return differences
    try:
        await refetch(environment, company_id)
        left = {one.subject for one in await _of_company(environment, company_id)}
    except Refusal as refusal:
        return [_unreadable(company_id, refusal)]
    return [msgspec.structs.replace(one, is_repaired=one.subject not in left) for one in differences]


async def _unlinked(environment: Environment, stripe_customer_id: str, *, repair: bool) -> list[Drift]:
    """A customer that subscribes to our prices, and that no company has."""
    try:
        made = await refetch_customer(environment, stripe_customer_id) if repair else None
    except Refusal as refusal:
        return [Drift(company="", subject=stripe_customer_id, detail=refusal.detail, kind=DriftKind.UNREADABLE)]
    return [
        Drift(
            company="" if made is None else made.company_id,
            subject=stripe_customer_id,
            detail="subscribes to our prices and is no company's customer",
            kind=DriftKind.UNLINKED_CUSTOMER,
            is_repaired=made is not None,
        )
    ]


async def usage_drift(environment: Environment, *, repair: bool = False, progress: Progress = untold) -> list[Drift]:
    """Every stored window, of companies and of users, whose counters are not the sum of the ledger and of what is held.

    With `repair` they are counted anew, in one short transaction per company that differs.
    """
    catalog = await environment.catalog()
    found: list[Drift] = []
    seen = 0
    async for company_ids in _pages(environment):
        for company_id in company_ids:
            async with environment.reading() as session:
                suspects = await miscounted(session, catalog, company_id)
            if suspects:
                # Usage may have been counted while we read: only what differs under the company's lock is drift.
                found.extend(await _miscounts_of(environment, company_id, repair=repair))
            seen += 1
            progress("Comparing counters", seen, None)
    return found


async def meter_drift(environment: Environment, *, repair: bool = False, progress: Progress = untold) -> list[Drift]:
    """Every company and meter whose usage of the last 35 days Stripe counted otherwise than we reported it.

    Also usage that was set aside; with `repair` it waits for its turn again. What Stripe counted otherwise is never
    changed from here: somebody else may feed the same meter. Usage still on its way is no drift. Raises StripeFailure.
    """
    now = environment.clock.now()
    since = (now - _REPORTED_FOR).replace(minute=0, second=0, microsecond=0)
    until = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    async with environment.reading() as session:
        rows = await reported_meters(session, since=since)
    meters = await environment.gateway.metering.meters() if rows else {}
    sums: dict[tuple[str, str, str, str | None], dict[str, Reported]] = {}
    for row in rows:
        sums.setdefault((row.company_id, row.meter, row.feature, row.stripe_customer_id), {})[row.state] = row
    found: list[Drift] = []
    for seen, ((company_id, meter, feature, stripe_customer_id), by_state) in enumerate(sums.items(), start=1):
        aside, delivered = by_state.get(SET_ASIDE), by_state.get(DELIVERED)
        if aside is not None:
            detail = f"{aside.rows:,} reports to the meter {meter} were set aside: {aside.reason}"
            is_repaired = repair and await _put_back(environment, company_id, meter, since)
            found.append(Drift(company=company_id, subject=feature, detail=detail, is_repaired=is_repaired))
        if stripe_customer_id is not None and delivered is not None and WAITING not in by_state:
            counted = Decimal(0)
            if meter in meters:
                answer = await environment.gateway.metering.metered(
                    meters[meter], stripe_customer_id, start_at=since, end_at=until
                )
                counted = sum(answer.values(), Decimal(0))
            if counted != max(0, delivered.quantity):
                detail = f"{delivered.quantity:,} was reported to the meter {meter}, Stripe counted {counted:,}"
                found.append(Drift(company=company_id, subject=feature, detail=detail))
        progress("Comparing meters", seen, len(sums))
    return found


async def _put_back(environment: Environment, company_id: str, meter: str, since: datetime) -> bool:
    async with environment.writing() as session:
        return await put_back(session, company_id, meter, since=since) > 0


async def _miscounts_of(environment: Environment, company_id: str, *, repair: bool) -> list[Drift]:
    async with environment.writing() as session:
        await lock_companies(session, [company_id])
        miscounts = await miscounted(session, await environment.catalog_in(session), company_id)
        found = [
            Drift(company=company_id, subject=one.feature, detail=_told(one), is_repaired=repair) for one in miscounts
        ]
        if repair and miscounts:
            await recount(session, miscounts)
            session.counted.add(company_id)
    if repair:
        environment.forget(company_id)
    return found


def _told(miscount: Miscount) -> str:
    window, whose = miscount.window, f" of user {miscount.user_id}" if miscount.user_id else ""
    parts = [f"the {miscount.kind.value} counter{whose} from {window.start_at.isoformat()}"]
    if window.used != miscount.used:
        parts.append(f"says {window.used:,}, the ledger {miscount.used:,}")
    if window.reserved != miscount.reserved:
        parts.append(f"holds {window.reserved:,}, the reservations {miscount.reserved:,}")
    return " ".join(parts)


async def _pages(environment: Environment) -> AsyncIterator[Sequence[str]]:
    cursor: str | None = None
    while True:
        async with environment.reading() as session:
            rows = await page_of_companies(session, search=None, after=cursor, limit=_PAGE)
        yield [row.id for row in rows]
        if len(rows) < _PAGE:
            return
        cursor = rows[-1].id


async def _of_company(environment: Environment, company_id: str) -> list[Drift]:
    async with environment.reading() as session:
        stripe_customer_ids, known = await _known(session, company_id)
    fetched: dict[str, SubscriptionFact] = {}
    found: list[Drift] = []
    for stripe_customer_id in stripe_customer_ids:
        state = await environment.gateway.fetch_customer_state(stripe_customer_id)
        if state is not None:
            fetched |= {fact.stripe_subscription_id: fact for fact in mirrored(state)}
        else:
            detail = "this Stripe account never had the customer; not repaired, look at the key or the link"
            found.append(
                Drift(company=company_id, subject=stripe_customer_id, detail=detail, kind=DriftKind.UNKNOWN_CUSTOMER)
            )
    for name in sorted({*known, *fetched}):
        difference = _difference(company_id, name, known.get(name), fetched.get(name))
        if difference is not None:
            found.append(difference)
    return found


def _difference(
    company_id: str, name: str, ours: SubscriptionFact | None, theirs: SubscriptionFact | None
) -> Drift | None:
    """How a subscription differs; None when it does not."""
    if ours is None or theirs is None:
        kind, detail = DriftKind.GONE, "gone in Stripe"
        if theirs is not None:
            kind, detail = DriftKind.MISSING, f"{theirs.status} in Stripe, unknown here: {_said(theirs.items)}"
        elif ours is not None and ours.ended_at is None:
            detail = f"{ours.status} here, gone in Stripe: {_said(ours.items)}"
        else:
            return None
        return Drift(company=company_id, subject=name, detail=detail, kind=kind)
    if state_hash([ours]) == state_hash([theirs]):
        return None
    ours = without_holding_times(ours)
    pairs = {field: (getattr(ours, field), getattr(theirs, field)) for field in ours.__struct_fields__}
    differing = {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}
    told = (
        f"{field.replace('_', ' ')}: {_said(here)} here, {_said(there)} in Stripe"
        for field, (here, there) in differing.items()
    )
    return Drift(
        company=company_id,
        subject=name,
        detail="; ".join(told),
        kind=next((_CLASSES[field] for field in _CLASSES if field in differing), DriftKind.DETAILS),
        here={field: msgspec.to_builtins(pair[0]) for field, pair in differing.items()},
        in_stripe={field: msgspec.to_builtins(pair[1]) for field, pair in differing.items()},
    )


def _said(value: object) -> str:
    """One value of a subscription in few words: prices with their quantities, and until or from when."""
    match value:
        case None | ():
            return "none"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case tuple():
            return ", ".join(map(_said, value))
        case SubscriptionItem():
            return f"{_priced(value.stripe_price_id, value.quantity)} until {_said(value.period_end_at)}"
        case ScheduledPhase():
            prices = " + ".join(_priced(*one) for one in value.prices)
            return f"{prices} from {_said(value.starts_at)}"
        case _:
            return str(value)


def _priced(stripe_price_id: str, quantity: int | None) -> str:
    return stripe_price_id if quantity is None else f"{stripe_price_id} ({quantity:,})"


# The weightiest first: a difference in several is named after the first of them.
_CLASSES: Final = {
    "status": DriftKind.STATUS,
    "ended_at": DriftKind.STATUS,
    "items": DriftKind.ITEMS,
    "phases": DriftKind.SCHEDULE,
    "stripe_schedule_id": DriftKind.SCHEDULE,
    "scheduled_end_at": DriftKind.ENDING,
}


async def _known(session: StoreSession, company_id: str) -> tuple[list[str], dict[str, SubscriptionFact]]:
    facts = await subscriptions_of(session, company_id)
    return await customers_of(session, company_id), {fact.stripe_subscription_id: fact for fact in facts}
