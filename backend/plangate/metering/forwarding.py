"""Reports usage to Stripe meters from the outbox: each quantity arrives once, whatever crashes, repeats or is refused.

What a company used in one hour goes as one report, unless a billing period begins or ends in between: Stripe then puts
each part where it belongs. Stripe remembers an identifier for a day. Within it a repetition is harmless; later, what
the meter counted decides whether the first try arrived.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.values import PeriodKind
from plangate.environment import Environment
from plangate.store.companies import STRIPE_CUSTOMER_KEY
from plangate.store.meter_outbox import (
    DELIVERED,
    SET_ASIDE,
    WAITING,
    Reportable,
    companies_due,
    due_meter_events,
    reported_between,
    save_meter_events,
)

REPORTABLE: Final = timedelta(days=35)
_REMEMBERED: Final = timedelta(hours=23, minutes=30)  # Stripe promises a day; clocks may differ
_PAGE: Final = 2_000
_AT_ONCE: Final = 16  # some hundreds of reports a second; Stripe takes a thousand
_CLAIMED_FOR: Final = timedelta(minutes=2)
_NOT_YET: Final = timedelta(minutes=10)
_LONGEST_PAUSE: Final = timedelta(hours=1)
_HOUR: Final = timedelta(hours=1)
_REASON_LENGTH: Final = 300
_log = structlog.get_logger(__name__)

_TOO_OLD: Final = "It lies more than 35 days back, and Stripe takes nothing older."
_UNCLEAR: Final = "It was sent more than a day ago, and what the meter counted since does not tell whether it arrived."


class _Report:
    """Rows that Stripe is told of in one call, under one identifier that stays."""

    def __init__(self, rows: Sequence[Reportable]) -> None:
        self.rows = rows
        self.first = next((row for row in rows if row.id == row.report_id), rows[0])

    @property
    def quantity(self) -> int:
        """What the rows come to; corrections may bring it to nothing, or below."""
        return sum(row.quantity for row in self.rows)

    @property
    def occurred_at(self) -> datetime:
        """An instant in the hour and in the billing period of all rows."""
        return max(row.occurred_at for row in self.rows)

    @property
    def hour(self) -> datetime:
        return self.first.occurred_at.replace(minute=0, second=0, microsecond=0)

    def put_off(self, until: datetime) -> None:
        for row in self.rows:
            row.available_at = until

    def sent(self, now: datetime) -> None:
        """Note that it is sent: for the first time, or once more within the day that Stripe remembers it."""
        for row in self.rows:
            row.report_id = self.first.id
            row.first_sent_at = row.first_sent_at or now
            row.attempts += 1
            row.available_at = now + _CLAIMED_FOR

    def settle(self, state: str, reason: str | None = None) -> None:
        for row in self.rows:
            row.state, row.reason = state, reason


async def forward(env: Environment) -> int:
    """Report what is due; answers how many rows were looked at. Raises nothing for a row that Stripe will not take.

    Those are set aside with their reason, and the others flow. Usage of a company without a Stripe customer waits.
    """
    if env.settings.stripe_secret_key is None:
        return 0
    fresh, doubtful, looked_at = await _claimed(env)
    if not fresh and not doubtful:
        return looked_at
    sendable = [*fresh, *await _unarrived(env, doubtful)] if doubtful else fresh
    gate = asyncio.Semaphore(_AT_ONCE)
    await asyncio.gather(*(_send(env, report, gate) for report in sendable))
    async with env.writing() as session:
        await save_meter_events(session, [row for report in (*fresh, *doubtful) for row in report.rows])
    return looked_at


async def _claimed(env: Environment) -> tuple[list[_Report], list[_Report], int]:
    """Reports to send now, reports first sent so long ago that Stripe may have forgotten them, and how many rows.

    Their turn is put off and the first sending noted before any call, so that a crash in between is known of.
    """
    async with env.reading() as session:
        companies = await companies_due(session, limit=_PAGE)
    if not companies:
        return [], [], 0
    payers = {company_id: await _payer(env, company_id) for company_id in companies}
    async with env.writing() as session:
        now = session.now
        due = [row for row in await due_meter_events(session, limit=_PAGE, lock=True) if row.company_id in payers]
        known: dict[str, list[Reportable]] = {}
        new: list[Reportable] = []
        for row in due:
            row.stripe_customer_id = row.stripe_customer_id or payers[row.company_id].stripe_customer_id
            if row.occurred_at < now - REPORTABLE and row.first_sent_at is None:
                row.state, row.reason = SET_ASIDE, _TOO_OLD
            elif row.stripe_customer_id is None:
                row.available_at = now + _NOT_YET
            elif row.report_id is not None:
                known.setdefault(row.report_id, []).append(row)
            else:
                new.append(row)
        fresh: list[_Report] = []
        doubtful: list[_Report] = []
        for report in (*(_Report(rows) for rows in known.values()), *_gathered(new, payers)):
            sent_at = report.first.first_sent_at
            if sent_at is not None and sent_at < now - _REMEMBERED:
                report.put_off(now + _CLAIMED_FOR)
                doubtful.append(report)
            else:
                report.sent(now)
                fresh.append(report)
        await save_meter_events(session, due)
    return fresh, doubtful, len(due)


class _Payer:
    """Who pays for a company's usage, and the instants between which Stripe puts it on one invoice."""

    def __init__(self, snapshot: CompanySnapshot | None, stripe_customer_id: str | None) -> None:
        self.stripe_customer_id = stripe_customer_id
        self._snapshot = snapshot
        edges: set[datetime | None] = set()
        for subscription in () if snapshot is None else snapshot.facts.subscriptions:
            edges |= {subscription.started_at, subscription.ended_at, subscription.trial_end_at}
            for item in subscription.items:
                edges |= {item.period_start_at, item.period_end_at, item.held_since}
        self._edges = sorted(edge for edge in edges if edge is not None)

    def span(self, at: datetime) -> tuple[int, datetime | None]:
        """Names the part of the billing period that an instant lies in."""
        cycle = None if self._snapshot is None else self._snapshot.cycle
        start = None if cycle is None else cycle.window(PeriodKind.BILLING_INTERVAL, at)[0]
        return bisect_right(self._edges, at), start


def _gathered(rows: Iterable[Reportable], payers: Mapping[str, _Payer]) -> list[_Report]:
    """What one company used on one meter in one hour of one billing period, as one report each."""
    together: dict[tuple[object, ...], list[Reportable]] = {}
    for row in rows:
        hour = row.occurred_at.replace(minute=0, second=0, microsecond=0)
        span = payers[row.company_id].span(row.occurred_at)
        # One that was claimed by itself before it was put aside keeps its own sending time.
        key = (row.company_id, row.stripe_customer_id, row.meter, hour, span, row.first_sent_at)
        together.setdefault(key, []).append(row)
    return [_Report(found) for found in together.values()]


async def _payer(env: Environment, company_id: str) -> _Payer:
    """The Stripe customer that pays for the company's plan, else any of its own: the first by id, each time."""
    standing = await env.standings.of(company_id)
    if standing is None:
        return _Payer(None, None)
    snapshot = standing.snapshot_at(env.clock.now())
    if snapshot.subscription is not None:
        return _Payer(snapshot, snapshot.subscription.stripe_customer_id)
    prefix = f"{STRIPE_CUSTOMER_KEY}="
    customers = (key.removeprefix(prefix) for key in standing.facts.keys if key.startswith(prefix))
    return _Payer(snapshot, min(customers, default=None))


async def _send(env: Environment, report: _Report, gate: asyncio.Semaphore) -> None:
    """One call; the rows say afterwards what became of it."""
    first, quantity = report.first, report.quantity
    if first.state != WAITING or first.stripe_customer_id is None:
        return
    if not quantity:
        # What was corrected before anybody was told of it: Stripe counts the same without it.
        report.settle(DELIVERED)
        return
    async with gate:
        try:
            await env.gateway.metering.send(
                event_name=first.meter,
                stripe_customer_id=first.stripe_customer_id,
                value=str(quantity),
                identifier=first.id,
                occurred_at=report.occurred_at,
            )
        except StripeFailure as failure:
            if failure.is_final and failure.kind is not FailureKind.KEY_REUSED:
                reason = failure.detail[:_REASON_LENGTH]
                report.settle(SET_ASIDE, reason)
                _log.warning("meter_event_set_aside", meter=first.meter, company=first.company_id, reason=reason)
            else:
                pause = min(_LONGEST_PAUSE, timedelta(seconds=2 ** min(first.attempts, 12)))
                report.put_off(env.clock.now() + pause)
        else:
            report.settle(DELIVERED)


async def _unarrived(env: Environment, doubtful: Sequence[_Report]) -> list[_Report]:
    """Of reports whose identifiers Stripe may have forgotten, those that surely did not arrive and are sent again.

    The meter's own sum of their hour decides: without them, or with all of them. Anything else is set aside.
    """
    hours: dict[tuple[str, str, datetime], list[_Report]] = {}
    for report in doubtful:
        hours.setdefault((report.first.stripe_customer_id or "", report.first.meter, report.hour), []).append(report)
    meters = await env.gateway.metering.meters()
    again: list[_Report] = []
    for (stripe_customer_id, meter, hour), reports in hours.items():
        stripe_meter_id = meters.get(meter)
        if stripe_meter_id is None:
            for report in reports:
                report.settle(SET_ASIDE, f"Stripe has no active meter for the event name {meter}.")
            continue
        counted = await env.gateway.metering.metered(
            stripe_meter_id, stripe_customer_id, start_at=hour, end_at=hour + _HOUR, by="hour"
        )
        found = counted.get(hour, 0)
        async with env.reading() as session:
            known = await reported_between(session, stripe_customer_id, meter, start_at=hour, end_at=hour + _HOUR)
        ids = {row.id for report in reports for row in report.rows}
        if any(one.state == WAITING and one.first_sent_at is not None and one.id not in ids for one in known):
            # Whether these arrived is open as well, so the sum tells nothing yet.
            for report in reports:
                report.put_off(env.clock.now() + _NOT_YET)
            continue
        delivered = sum(one.quantity for one in known if one.state == DELIVERED)
        ours = sum(report.quantity for report in reports)
        if found == max(0, delivered + ours) and ours:
            for report in reports:
                report.settle(DELIVERED)
        elif found == max(0, delivered):
            again += _renewed(env, reports)
        else:
            for report in reports:
                report.settle(SET_ASIDE, _UNCLEAR)
    return again


def _renewed(env: Environment, reports: Sequence[_Report]) -> list[_Report]:
    """Reports that are sent as for the first time; those that became too old meanwhile are set aside."""
    now = env.clock.now()
    kept = []
    for report in reports:
        if report.occurred_at < now - REPORTABLE:
            report.settle(SET_ASIDE, _TOO_OLD)
            continue
        for row in report.rows:
            row.report_id, row.first_sent_at, row.attempts = report.first.id, now, row.attempts + 1
        kept.append(report)
    return kept
