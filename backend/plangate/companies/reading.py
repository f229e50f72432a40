"""Companies as people see them: what they hold now, what is scheduled, their list and their history."""

import re
from datetime import datetime

import msgspec

from plangate.companies.paging import LARGEST_PAGE, PAGE, after_id, checked_search, cursor_of
from plangate.engine.catalog import Catalog, Price
from plangate.engine.facts import SubscriptionFact
from plangate.engine.holding import Holding, holding_of, unit_key
from plangate.engine.plan_change import classify
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.subscriptions import is_of_ours
from plangate.engine.values import Interval, Json, PeriodKind
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.shapes import (
    Actor,
    ChangeState,
    ChangeTarget,
    Company,
    HeldAddOn,
    HeldPlan,
    ScheduledChange,
    SubscriptionPeriod,
    SubscriptionView,
)
from plangate.store.audit import audit_of
from plangate.store.companies import (
    STRIPE_CUSTOMER_KEY,
    CompanyRow,
    company_row,
    is_company,
    keys_of,
    page_of_companies,
)
from plangate.store.merging import merged_companies
from plangate.store.plan_changes import PlanChangeRow, changes_in

_OVER = frozenset({"canceled", "incomplete_expired"})


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One audited change. `subject` is the id of what was changed, such as an override or a plan change."""

    at: datetime
    actor: Actor
    action: str
    subject: str
    before: Json = None
    after: Json = None
    note: str = ""


async def get(env: Environment, company_id: str) -> Company:
    """One company. Raises Refusal (404), for one that was merged as well."""
    return await company_view(env, company_id)


async def company_view(env: Environment, company_id: str, *, at_least: int = 0) -> Company:
    """The company in its outer shape, no older than version `at_least`. Raises Refusal (404)."""
    async with env.reading() as session:
        row = await company_row(session, company_id)
        if row is None or row.merged_into is not None:
            raise _no_company()
        pairs = (await keys_of(session, [row.id]))[row.id]
        scheduled = await changes_in(session, row.id, [ChangeState.SCHEDULED.value])
    return await _shown(env, row, pairs, scheduled[0] if scheduled else None, at_least)


async def search(
    env: Environment, *, search: str | None = None, cursor: str | None = None, limit: int = PAGE
) -> tuple[list[Company], str | None]:
    """A page of companies, oldest first, and the cursor of the next page (None: this was the last).

    `search` looks in names and key values, letter case aside. Raises Refusal (422) for a cursor that is not ours or a
    limit outside 1 to 100.
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise invalid("/limit", f"The limit is a number from 1 to {LARGEST_PAGE}.")
    after = after_id(cursor, prefix="comp_")
    async with env.reading() as session:
        rows = await page_of_companies(session, search=checked_search(search), after=after, limit=limit + 1)
        keys = await keys_of(session, [row.id for row in rows])
        changes = {row.id: await changes_in(session, row.id, [ChangeState.SCHEDULED.value]) for row in rows[:limit]}
    found = [await _shown(env, row, keys[row.id], next(iter(changes[row.id]), None)) for row in rows[:limit]]
    return found, cursor_of(rows[limit - 1].id) if len(rows) > limit else None


async def history(env: Environment, company_id: str, *, limit: int = 200) -> list[HistoryEntry]:
    """Who changed what about the company, newest first. Raises Refusal (404)."""
    return (await history_page(env, company_id, limit=limit))[0]


async def history_page(
    env: Environment, company_id: str, *, cursor: str | None = None, limit: int = 200
) -> tuple[list[HistoryEntry], str | None]:
    """A page of the company's history, newest first, and the cursor of the next page (None: this was the last).

    What was noted of companies that were merged into it is part of it. Raises Refusal: 404, 422 for a cursor that is
    not ours.
    """
    before = None if cursor is None else _sequence(cursor)
    async with env.reading() as session:
        if not await is_company(session, company_id):
            raise _no_company()
        ids = [company_id, *await merged_companies(session, company_id)]
        rows = await audit_of(session, *ids, before=before, limit=limit + 1)
    entries = [
        HistoryEntry(
            at=row.at,
            actor=msgspec.convert(row.actor, Actor),
            action=row.action,
            subject=row.subject,
            before=row.before,
            after=row.after,
            note=row.note,
        )
        for row in rows[:limit]
    ]
    return entries, str(rows[limit - 1].sequence) if len(rows) > limit else None


async def _shown(
    env: Environment,
    row: CompanyRow,
    pairs: list[tuple[str, str]],
    change: PlanChangeRow | None,
    at_least: int = 0,
) -> Company:
    standing = await env.standings.of(row.id, at_least=max(row.version, at_least))
    if standing is None:
        raise _no_company()
    now = env.clock.now()
    snapshot = standing.snapshot_at(now)
    subscription = _told(snapshot)
    plan = snapshot.plan
    return Company(
        id=row.id,
        # Of several values of one name the oldest is shown: a merge adds keys, and never changes what is shown.
        keys={name: value for name, value in reversed(pairs) if name != STRIPE_CUSTOMER_KEY},
        stripe_customer_ids=tuple(value for name, value in pairs if name == STRIPE_CUSTOMER_KEY),
        name=row.name,
        traits=standing.facts.traits,
        plan=None if plan is None else HeldPlan(key=plan.key, version=plan.version, source=plan.source),
        add_ons=tuple(HeldAddOn(key=one.key, version=one.version, quantity=one.quantity) for one in snapshot.add_ons),
        units=holding_of(snapshot).units,
        subscription=None if subscription is None else _subscription(snapshot, subscription, now),
        scheduled_change=_scheduled(standing.catalog, snapshot, subscription, change, now),
        past_due_grace_days=standing.facts.past_due_grace_days,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _told(snapshot: CompanySnapshot) -> SubscriptionFact | None:
    """The subscription people are shown: the one that grants, or the newest that could again (unpaid, paused, …)."""
    if snapshot.subscription is not None:
        return snapshot.subscription
    facts = snapshot.facts
    unended = [
        one
        for one in facts.subscriptions
        if one.status not in _OVER and one.ended_at is None and is_of_ours(snapshot.catalog, facts, one)
    ]
    return max(unended, key=lambda one: one.started_at, default=None)


def _subscription(snapshot: CompanySnapshot, fact: SubscriptionFact, now: datetime) -> SubscriptionView:
    cycle = snapshot.cycle
    interval, count = cycle.interval, cycle.interval_count
    start, end = cycle.period_start_at, cycle.period_end_at
    if fact is not snapshot.subscription and fact.items:
        # It grants nothing now, so the snapshot's cycle is not its own.
        item = fact.items[0]
        interval, count = item.interval, item.interval_count
        start, end = item.period_start_at, item.period_end_at
    if start is None or end is None:
        start, end = cycle.window(PeriodKind.BILLING_INTERVAL, now)
    return SubscriptionView(
        status=fact.status,
        interval=interval.value,
        interval_count=count,
        currency=fact.currency,
        period=SubscriptionPeriod(start=start or fact.started_at, end=end or fact.started_at),
        cancel_at=fact.scheduled_end_at,
        trial_end=fact.trial_end_at,
    )


def _scheduled(
    catalog: Catalog,
    snapshot: CompanySnapshot,
    subscription: SubscriptionFact | None,
    change: PlanChangeRow | None,
    now: datetime,
) -> ScheduledChange | None:
    """What waits for its date: as Stripe has it, with our record's id when it is ours; or our record alone."""
    if change is not None:
        target = msgspec.convert(change.target, ChangeTarget)
        return ScheduledChange(
            id=change.id,
            kind=change.kind,
            plan=target.plan,
            effective_at=change.effective_at,
            interval=target.interval,
            interval_count=target.interval_count,
            quantity=target.quantity,
            add_ons=target.add_ons,
            units=target.units,
        )
    if subscription is None:
        return None
    end_at = subscription.scheduled_end_at
    phase = next((one for one in subscription.phases if one.starts_at > now), None)
    if phase is not None and (end_at is None or phase.starts_at < end_at):
        target_holding = _holding_of(catalog, phase.prices, subscription.currency)
        if target_holding.plan is not None:
            interval = target_holding.interval
            return ScheduledChange(
                id=None,
                kind=classify(catalog, holding_of(snapshot), target_holding).value,
                plan=target_holding.plan,
                effective_at=phase.starts_at,
                interval=None if interval is None else interval.value,
                interval_count=target_holding.interval_count,
                quantity=target_holding.quantity,
                add_ons=target_holding.add_ons,
                units=target_holding.units,
            )
    if end_at is not None and end_at > now:
        return ScheduledChange(id=None, kind="cancel", plan=catalog.fallback_plan, effective_at=end_at)
    return None


def _holding_of(catalog: Catalog, prices: tuple[tuple[str, int | None], ...], currency: str) -> Holding:
    """What a schedule's phase holds, read through the catalogue; prices it does not know are left out."""
    plan: str | None = None
    version: int | None = None
    interval: Interval | None = None
    interval_count, quantity = 1, 1
    add_ons: dict[str, int] = {}
    units: dict[str, int] = {}
    own_price: Price | None = None
    for stripe_price_id, count in prices:
        owner = catalog.price_owners.get(stripe_price_id)
        if owner is None:
            continue
        if owner.feature is not None:
            if count:
                units[unit_key(owner.kind, owner.key, owner.feature)] = count
            if plan is None and owner.kind == "plan":
                plan, version = owner.key, owner.version
                interval, interval_count = owner.price.interval, owner.price.interval_count
        elif owner.kind == "plan":
            own_price = owner.price if owner.company_id is not None else None
            plan, version, quantity = owner.key, owner.version, count or 1
            interval, interval_count = owner.price.interval, owner.price.interval_count
        else:
            add_ons[owner.key] = add_ons.get(owner.key, 0) + (count or 1)
    return Holding(
        plan=plan,
        version=version,
        interval=interval,
        interval_count=interval_count,
        currency=currency,
        quantity=quantity,
        add_ons=add_ons,
        units=units,
        own_price=own_price,
    )


def _sequence(cursor: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{0,17}", cursor) is None:
        raise invalid("/cursor", "That is not a cursor of this list; take it from `next_cursor`.")
    return int(cursor)


def _no_company() -> Refusal:
    return Refusal(Code.NOT_FOUND, "There is no such company.")
