"""Works out what each company used beyond its allowance, window by window, and leaves the difference to be reported.

What Stripe was told of a window is always brought to what lies beyond the allowance now, or at the window's end once it
is over: late events, corrections, overrides and changes of plan make a difference, up or down, never a second report of
the same. Where a company's overage stops being billed, what was reported of the window stays.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from weakref import WeakKeyDictionary

from plangate.engine.catalog import Catalog
from plangate.engine.facts import CompanyFacts, WindowCounter
from plangate.engine.holdings import boundaries
from plangate.engine.overage import Sold, beyond, included, sold_overage
from plangate.environment import Environment
from plangate.ids import new_id
from plangate.metering.forwarding import REPORTABLE
from plangate.store.database import StoreSession
from plangate.store.ledger import lock_companies
from plangate.store.meter_outbox import WAITING, add_meter_events
from plangate.store.overage import (
    OverageRow,
    companies_with_overage_to_see,
    overage_of,
    save_overage,
    windows_of_feature,
)
from plangate.store.snapshot import company_facts

_SENDING_TIME: Final = timedelta(hours=1)  # left of the 35 days in which Stripe takes a report
_SECOND: Final = timedelta(seconds=1)
_RESTS: Final = 20  # times as long as looking took
_MICROSECOND: Final = timedelta(microseconds=1)

_resting_until: WeakKeyDictionary[Environment, float] = WeakKeyDictionary()


async def settle_overage(env: Environment) -> int:
    """Bring what is reported of overage up to date; answers how many companies were looked at.

    Each in one short transaction that holds it, in which the report and what it is the difference of are written.
    """
    catalog = await env.catalog()
    sold = sold_overage(catalog)
    if not sold:
        return 0
    since = env.clock.now() - REPORTABLE + _SENDING_TIME
    async with env.reading() as session:
        company_ids = await companies_with_overage_to_see(session, sold, revision=catalog.revision, since=since)
    for company_id in company_ids:
        async with env.writing() as session:
            await _Settling(env, session, since).settle(company_id)
    return len(company_ids)


async def keep_overage_settled(env: Environment) -> int:
    """As `settle_overage`, for a loop: where looking takes long it looks more seldom, and so never costs much.

    Answers 0 while it rests.
    """
    now = time.monotonic()
    if now < _resting_until.get(env, 0.0):
        return 0
    found = await settle_overage(env)
    if not found:
        _resting_until[env] = time.monotonic() + _RESTS * (time.monotonic() - now)
    return found


class _Settling:
    """One company's overage inside one transaction."""

    def __init__(self, env: Environment, session: StoreSession, since: datetime) -> None:
        self._env = env
        self._session = session
        self._since = since
        self._rows: list[OverageRow] = []
        self._known: set[str] = set()
        self._reports: list[Mapping[str, object]] = []

    async def settle(self, company_id: str) -> None:
        session = self._session
        held = (await lock_companies(session, [company_id])).get(company_id)
        facts = None if held is None else await company_facts(session, company_id)
        if held is None or facts is None:
            return
        catalog = await self._env.catalog()
        if catalog.revision != held.catalog_revision:
            catalog = await self._env.catalog_in(session)
        for one in sold_overage(catalog):
            windows = await windows_of_feature(session, company_id, one.feature, one.kind, since=self._since)
            if not windows:
                continue
            rows = await overage_of(session, company_id, one.feature, one.kind, start_at=windows[0].start_at)
            self._known |= {row.id for row in rows}
            for window in windows:
                await self._window(catalog, facts, one, window, [row for row in rows if _lies_in(window, row.start_at)])
        await add_meter_events(session, self._reports)
        await save_overage(session, self._rows, self._known)

    async def _window(
        self, catalog: Catalog, facts: CompanyFacts, sold: Sold, window: WindowCounter, rows: Sequence[OverageRow]
    ) -> None:
        """Compare what was reported of a window, companies merged into this one included, with what is due."""
        now = self._session.now
        is_open = window.end_at is None or now < window.end_at
        seen = [row for row in rows if row.start_at == window.start_at]
        if not rows and window.used <= sold.least:
            return
        if seen and not is_open and all(not row.is_open and row.seen_used == window.used for row in seen):
            return
        is_billed, before = await self._included(catalog, facts, sold, window)
        reported = sum(row.reported for row in rows)
        due = beyond(window.used, before) if is_billed else reported
        if not seen:
            seen = [_new_row(self._session, facts.company_id, sold, window)]
        seen[0].reported += due - reported
        instants = [at for at in (*boundaries(catalog, facts), window.end_at) if at is not None and at > now]
        for row in seen:
            row.seen_used, row.seen_version, row.seen_revision = window.used, facts.version, catalog.revision
            row.is_open = is_open
            row.look_again_at = min(instants, default=None) if is_open else None
        self._rows += seen
        if due != reported:
            self._reports.append(self._report(facts.company_id, sold, window, due - reported))

    async def _included(
        self, catalog: Catalog, facts: CompanyFacts, sold: Sold, window: WindowCounter
    ) -> tuple[bool, int | None]:
        if window.end_at is None or self._session.now < window.end_at:
            return included(catalog, facts, sold.feature, sold.kind, self._session.now)
        # What is learnt or granted after a window's end changes nothing of what was included in it.
        at = window.end_at - _MICROSECOND
        then = await company_facts(self._session, facts.company_id, at=at)
        if then is None:
            return False, None
        return included(await self._env.catalog_in(self._session, at=at), then, sold.feature, sold.kind, at)

    def _report(self, company_id: str, sold: Sold, window: WindowCounter, quantity: int) -> Mapping[str, object]:
        now = self._session.now
        # Inside the window, and so in the billing period that it belongs to.
        is_open = window.end_at is None or now < window.end_at
        occurred_at = now if is_open or window.end_at is None else max(window.start_at, window.end_at - _SECOND)
        return {
            "id": new_id("mev"),
            "environment_id": self._session.environment_id,
            "company_id": company_id,
            "feature": sold.feature,
            "meter": sold.meter,
            "quantity": quantity,
            "occurred_at": occurred_at,
            "recorded_at": now,
            "available_at": now,
            "state": WAITING,
            "attempts": 0,
        }


def _lies_in(window: WindowCounter, at: datetime) -> bool:
    return window.start_at <= at and (window.end_at is None or at < window.end_at)


def _new_row(session: StoreSession, company_id: str, sold: Sold, window: WindowCounter) -> OverageRow:
    return OverageRow(
        id=new_id("ovg"),
        environment_id=session.environment_id,
        company_id=company_id,
        feature=sold.feature,
        period=sold.kind.value,
        start_at=window.start_at,
    )
