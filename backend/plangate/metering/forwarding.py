"""Reports usage to Stripe meters from the outbox: each quantity arrives once, whatever crashes, repeats or is refused.

Stripe remembers an identifier for a day. Within it a repetition is harmless; later, what the meter counted decides
whether the first try arrived.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.environment import Environment
from plangate.store.companies import STRIPE_CUSTOMER_KEY
from plangate.store.meter_outbox import (
    DELIVERED,
    SET_ASIDE,
    WAITING,
    MeterEventRow,
    due_meter_events,
    reported_between,
    save_meter_events,
)

REPORTABLE: Final = timedelta(days=35)
_REMEMBERED: Final = timedelta(hours=23, minutes=30)  # Stripe promises a day; clocks may differ
_PAGE: Final = 200
_AT_ONCE: Final = 16  # some hundreds of reports a second; Stripe takes a thousand
_CLAIMED_FOR: Final = timedelta(minutes=2)
_NOT_YET: Final = timedelta(minutes=10)
_LONGEST_PAUSE: Final = timedelta(hours=1)
_HOUR: Final = timedelta(hours=1)
_REASON_LENGTH: Final = 300
_log = structlog.get_logger(__name__)

_TOO_OLD: Final = "It lies more than 35 days back, and Stripe takes nothing older."
_UNCLEAR: Final = "It was sent more than a day ago, and what the meter counted since does not tell whether it arrived."


async def forward(env: Environment) -> int:
    """Report what is due; answers how many rows were looked at. Raises nothing for a row that Stripe will not take.

    Those are set aside with their reason, and the others flow. Usage of a company without a Stripe customer waits.
    """
    if env.settings.stripe_secret_key is None:
        return 0
    rows, doubtful = await _claimed(env)
    if not rows and not doubtful:
        return 0
    sendable = rows
    if doubtful:
        sendable = [*rows, *await _unarrived(env, doubtful)]
    gate = asyncio.Semaphore(_AT_ONCE)
    await asyncio.gather(*(_send(env, row, gate) for row in sendable))
    async with env.writing() as session:
        await save_meter_events(session, [*rows, *doubtful])
    return len(rows) + len(doubtful)


async def _claimed(env: Environment) -> tuple[list[MeterEventRow], list[MeterEventRow]]:
    """Rows to send now, and rows first sent so long ago that Stripe may have forgotten their identifiers.

    Their turn is put off and the first sending noted before any call, so that a crash in between is known of.
    """
    async with env.reading() as session:
        companies = {row.company_id for row in await due_meter_events(session, limit=_PAGE)}
    if not companies:
        return [], []
    customers = {company_id: await _customer_of(env, company_id) for company_id in companies}
    async with env.writing() as session:
        now = session.now
        due = [row for row in await due_meter_events(session, limit=_PAGE, lock=True) if row.company_id in customers]
        fresh: list[MeterEventRow] = []
        doubtful: list[MeterEventRow] = []
        for row in due:
            row.stripe_customer_id = row.stripe_customer_id or customers[row.company_id]
            if row.occurred_at < now - REPORTABLE and row.first_sent_at is None:
                row.state, row.reason = SET_ASIDE, _TOO_OLD
            elif row.stripe_customer_id is None:
                row.available_at = now + _NOT_YET
            elif row.first_sent_at is not None and row.first_sent_at < now - _REMEMBERED:
                row.available_at = now + _CLAIMED_FOR
                doubtful.append(row)
            else:
                row.available_at = now + _CLAIMED_FOR
                row.first_sent_at = row.first_sent_at or now
                row.attempts += 1
                fresh.append(row)
        await save_meter_events(session, due)
    return fresh, doubtful


async def _customer_of(env: Environment, company_id: str) -> str | None:
    """The Stripe customer that pays for the company's plan, else any of its own: the first by id, each time."""
    standing = await env.standings.of(company_id)
    if standing is None:
        return None
    subscription = standing.snapshot_at(env.clock.now()).subscription
    if subscription is not None:
        return subscription.stripe_customer_id
    prefix = f"{STRIPE_CUSTOMER_KEY}="
    return min((key.removeprefix(prefix) for key in standing.facts.keys if key.startswith(prefix)), default=None)


async def _send(env: Environment, row: MeterEventRow, gate: asyncio.Semaphore) -> None:
    """One call; the row says afterwards what became of it."""
    if row.state != WAITING or row.stripe_customer_id is None:
        return
    async with gate:
        try:
            await env.gateway.send_meter_event(
                event_name=row.meter,
                stripe_customer_id=row.stripe_customer_id,
                value=str(row.quantity),
                identifier=row.id,
                occurred_at=row.occurred_at,
            )
        except StripeFailure as failure:
            if failure.is_final and failure.kind is not FailureKind.KEY_REUSED:
                row.state, row.reason = SET_ASIDE, failure.detail[:_REASON_LENGTH]
                _log.warning("meter_event_set_aside", meter=row.meter, company=row.company_id, reason=row.reason)
            else:
                row.available_at = env.clock.now() + min(_LONGEST_PAUSE, timedelta(seconds=2 ** min(row.attempts, 12)))
        else:
            row.state, row.reason = DELIVERED, None


async def _unarrived(env: Environment, doubtful: Sequence[MeterEventRow]) -> list[MeterEventRow]:
    """Of rows whose identifiers Stripe may have forgotten, those that surely did not arrive and are sent again.

    The meter's own sum of their hour decides: without them, or with all of them. Anything else is set aside.
    """
    hours: dict[tuple[str, str, datetime], list[MeterEventRow]] = {}
    for row in doubtful:
        hour = row.occurred_at.replace(minute=0, second=0, microsecond=0)
        hours.setdefault((row.stripe_customer_id or "", row.meter, hour), []).append(row)
    meters = await env.gateway.meters()
    again: list[MeterEventRow] = []
    for (stripe_customer_id, meter, hour), rows in hours.items():
        stripe_meter_id = meters.get(meter)
        if stripe_meter_id is None:
            for row in rows:
                row.state, row.reason = SET_ASIDE, f"Stripe has no active meter for the event name {meter}."
            continue
        counted = await env.gateway.metered(
            stripe_meter_id, stripe_customer_id, start_at=hour, end_at=hour + _HOUR, by="hour"
        )
        found = counted.get(hour, 0)
        async with env.reading() as session:
            known = await reported_between(session, stripe_customer_id, meter, start_at=hour, end_at=hour + _HOUR)
        ids = {row.id for row in rows}
        if any(one.state == WAITING and one.first_sent_at is not None and one.id not in ids for one in known):
            # Whether these arrived is open as well, so the sum tells nothing yet.
            for row in rows:
                row.available_at = env.clock.now() + _NOT_YET
            continue
        delivered = sum(one.quantity for one in known if one.state == DELIVERED)
        ours = sum(row.quantity for row in rows)
        if found == max(0, delivered + ours) and ours:
            for row in rows:
                row.state, row.reason = DELIVERED, None
        elif found == max(0, delivered):
            again += _renewed(env, rows)
        else:
            for row in rows:
                row.state, row.reason = SET_ASIDE, _UNCLEAR
    return again


def _renewed(env: Environment, rows: Sequence[MeterEventRow]) -> list[MeterEventRow]:
    """Rows that are sent as for the first time; those that became too old meanwhile are set aside."""
    now = env.clock.now()
    kept = []
    for row in rows:
        if row.occurred_at < now - REPORTABLE:
            row.state, row.reason = SET_ASIDE, _TOO_OLD
            continue
        row.first_sent_at, row.attempts = now, row.attempts + 1
        kept.append(row)
    return kept
