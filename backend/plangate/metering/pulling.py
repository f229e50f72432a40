"""Usage that the product reports to a Stripe meter itself: its sums are brought into the ledger, hour by hour, late.

What the meter counted more (or less) than the ledger holds for an hour is appended as one row, so that counters,
history and the past work as for any other usage. None of it is ever sent back.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from plangate.counted_events import event_of
from plangate.engine.catalog import Feature
from plangate.environment import Environment
from plangate.ids import new_id
from plangate.store.companies import STRIPE_CUSTOMER_KEY, keys_of, page_of_companies
from plangate.store.ledger import LedgerEntry, add_usage, ledger_buckets, lock_companies
from plangate.store.snapshot import company_facts
from plangate.store.usage import set_counters
from plangate.usage_windows import Overflow, company_usage

_PAGE: Final = 200
_AT_ONCE: Final = 8
_HOUR: Final = timedelta(hours=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_USUALLY: Final = timedelta(hours=48)
_AT_FIRST: Final = timedelta(days=35)


async def pull(env: Environment) -> int:
    """Bring every company's usage of features that a Stripe meter counts up to date. Raises StripeFailure.

    Usually the last two days are compared; 35 days for a company whose ledger holds nothing of the feature in them.
    Answers 0: whatever was found, there is nothing more until the meters move on.
    """
    catalog = await env.catalog()
    features = [feature for feature in catalog.features.values() if feature.usage_source == "stripe_meter"]
    if not features or env.settings.stripe_secret_key is None:
        return 0
    meters = await env.gateway.metering.meters()
    gate = asyncio.Semaphore(_AT_ONCE)
    last: str | None = None
    while True:
        async with env.reading() as session:
            page = [row.id for row in await page_of_companies(session, search=None, after=last, limit=_PAGE)]
            keys = await keys_of(session, page)
        customers = {
            company_id: [value for name, value in keys[company_id] if name == STRIPE_CUSTOMER_KEY]
            for company_id in page
        }
        await asyncio.gather(
            *(
                _pull_one(env, company_id, stripe_customer_ids, feature, meters[feature.stripe_meter or ""], gate)
                for company_id, stripe_customer_ids in customers.items()
                for feature in features
                if stripe_customer_ids and feature.stripe_meter in meters
            )
        )
        if len(page) < _PAGE:
            return 0
        last = page[-1]


async def _pull_one(
    env: Environment,
    company_id: str,
    stripe_customer_ids: Sequence[str],
    feature: Feature,
    stripe_meter_id: str,
    gate: asyncio.Semaphore,
) -> None:
    async with gate:
        end_at = env.clock.now().replace(minute=0, second=0, microsecond=0) + _HOUR
        start_at = end_at - _USUALLY
        if not await _held(env, company_id, feature, start_at, end_at):
            start_at = end_at - _AT_FIRST
        counted: dict[datetime, int] = {}
        for stripe_customer_id in stripe_customer_ids:
            sums = await env.gateway.metering.metered(
                stripe_meter_id, stripe_customer_id, start_at=start_at, end_at=end_at, by="hour"
            )
            for hour, total in sums.items():
                # The sum of an hour is a whole number wherever a product counts whole units, as we do.
                counted[hour] = counted.get(hour, 0) + int(total)
        held = await _held(env, company_id, feature, start_at, end_at)
        if {hour: total for hour, total in counted.items() if total} != held:
            await _book(env, company_id, feature, counted, start_at, end_at)


async def _held(
    env: Environment, company_id: str, feature: Feature, start_at: datetime, end_at: datetime
) -> Mapping[datetime, int]:
    """What the ledger holds of the feature, by hour; hours that come to nothing are left out."""
    async with env.reading() as session:
        buckets = await ledger_buckets(
            session,
            company_id,
            event_of(feature),
            start_at=start_at,
            end_at=end_at,
            width_microseconds=_HOUR // _MICROSECOND,
        )
    return {start_at + number * _HOUR: total for number, total in buckets.items() if total}


async def _book(
    env: Environment,
    company_id: str,
    feature: Feature,
    counted: Mapping[datetime, int],
    start_at: datetime,
    end_at: datetime,
) -> None:
    """Append what the ledger lacks of each hour, compared under the company's lock: nothing is booked twice."""
    catalog, event = await env.catalog(), event_of(feature)
    async with env.writing() as session:
        held_companies = await lock_companies(session, [company_id])
        facts = await company_facts(session, company_id) if held_companies else None
        if facts is None:
            return
        if held_companies[company_id].catalog_revision != catalog.revision:
            catalog = await env.catalog_in(session)
        buckets = await ledger_buckets(
            session,
            company_id,
            event,
            start_at=start_at,
            end_at=end_at,
            width_microseconds=_HOUR // _MICROSECOND,
        )
        held = {start_at + number * _HOUR: total for number, total in buckets.items()}
        usage = await company_usage(session, catalog, facts)
        entries: list[LedgerEntry] = []
        for hour in sorted({*held, *counted}):
            missing = counted.get(hour, 0) - held.get(hour, 0)
            if not missing:
                continue
            at = min(hour + _HOUR - _MICROSECOND, session.now)
            try:
                await usage.count(event, "", missing, at)
            except Overflow:
                continue
            entries.append(LedgerEntry(new_id("evt"), company_id, "", event, missing, at))
        await add_usage(session, entries)
        await set_counters(session, list(usage.changed.values()))
        session.counted.add(company_id)
    env.forget(company_id)
