"""Moves subscribers to the prices of a new version, company by company: each is a plan change of its own.

The version itself was given to them by its migration; here the price they pay in Stripe follows, prorated as was
chosen. What stands in the way of one company is written down beside it and holds up nobody else.
"""

from datetime import datetime, timedelta
from typing import Final, TypeAlias

import msgspec
import structlog

from plangate.billing.transport import within
from plangate.change_terms import LIVE_STATUSES, Action, Line, Terms
from plangate.clock import wall_now
from plangate.engine.catalog import Catalog
from plangate.engine.facts import SubscriptionFact
from plangate.engine.holding import Holding, holding_of
from plangate.engine.snapshot import CompanySnapshot
from plangate.environment import Environment, Lease
from plangate.errors import Code, Refusal
from plangate.ids import new_id
from plangate.mirroring import refetch_held
from plangate.plan_changes.journey import continued
from plangate.plan_changes.lines import TargetLine, item_params, target_lines
from plangate.plan_changes.records import current, side
from plangate.shapes import Actor, ChangeKind, ChangeState
from plangate.store.audit import append_audit
from plangate.store.plan_changes import PlanChangeRow, change_by_quote, changes_in, insert_change
from plangate.store.version_migrations import (
    PRICE_PENDING,
    MigratingCompanyRow,
    PriceOutcome,
    VersionMigrationRow,
    claim_companies,
    running_migrations,
    settle_price,
)

_MOVED_AT_ONCE: Final = 20
_CLAIM_SECONDS: Final = 120
_SECONDS: Final = 20.0
_ATTEMPTS_MAX: Final = 8
_BACKOFF_SECONDS_MAX: Final = 3_600
_BEHAVIOURS: Final = {"none": "none", "next_invoice": "create_prorations", "charge_now": "always_invoice"}
_OPEN: Final = ("requested", "applying", "cancelling", "awaiting_payment", "requires_action")
_OUTCOMES: Final = {
    Code.PAYMENT_FAILED: PriceOutcome.PAYMENT_FAILED,
    Code.ACTION_REQUIRED: PriceOutcome.PAYMENT_FAILED,
    Code.STRIPE_REFUSED: PriceOutcome.STRIPE_REFUSED,
    Code.FOREIGN_SCHEDULE: PriceOutcome.FOREIGN_SCHEDULE,
    Code.INVALID: PriceOutcome.NOT_SOLD,
    Code.NOT_FOUND: PriceOutcome.NOT_HELD,  # It was merged into another.
}
# These pass by themselves: the company is tried again in a while.
_PASSING: Final = frozenset({Code.CHANGE_IN_PROGRESS, Code.STRIPE_BUSY})

_Found: TypeAlias = tuple[PriceOutcome, str | None]
_log = structlog.get_logger(__name__)


async def carry_on_repricing(env: Environment) -> int:
    """Move the prices of some companies of every running migration. Answers how many were looked at."""
    async with env.reading() as session:
        running = [row for row in await running_migrations(session) if row.proration is not None]
    found = 0
    for row in running:
        async with env.writing() as session:
            claimed = await claim_companies(
                session,
                row.id,
                wall_now=wall_now(),
                lease_seconds=_CLAIM_SECONDS,
                limit=_MOVED_AT_ONCE,
                for_prices=True,
            )
        for one in claimed:
            await _settle(env, row, one)
        found += len(claimed)
    return found


async def _settle(env: Environment, row: VersionMigrationRow, one: MigratingCompanyRow) -> None:
    """Move one company's price and write down what came of it; what passes by itself is tried again."""
    price, detail, available_at = PRICE_PENDING, None, None
    try:
        with within(_SECONDS):
            async with env.lease(one.company_id, wait_seconds=1) as lease:
                outcome, detail = await _moved(env, row, one, lease)
        price = outcome.value
    except Refusal as refusal:
        detail = f"{refusal.code.value}: {refusal.detail}"
        if refusal.code not in _PASSING:
            price = _OUTCOMES.get(refusal.code, PriceOutcome.FAILED).value
        elif one.attempts >= _ATTEMPTS_MAX:
            is_busy = refusal.code is Code.CHANGE_IN_PROGRESS
            price = (PriceOutcome.CHANGE_IN_PROGRESS if is_busy else PriceOutcome.FAILED).value
    except Exception as problem:  # noqa: BLE001 - one company that cannot be moved must not hold up the others.
        _log.exception("repricing_failed", migration=row.id, company=one.company_id)
        detail = f"{type(problem).__name__}: {problem}"[:500]
        price = PriceOutcome.FAILED.value if one.attempts >= _ATTEMPTS_MAX else PRICE_PENDING
    if price == PRICE_PENDING:
        available_at = wall_now() + timedelta(seconds=min(2**one.attempts, _BACKOFF_SECONDS_MAX))
    async with env.writing() as session:
        await settle_price(session, row.id, one.company_id, price=price, detail=detail, available_at=available_at)


async def _moved(env: Environment, row: VersionMigrationRow, one: MigratingCompanyRow, lease: Lease) -> _Found:
    """Bring one company to the new prices, from wherever an earlier try stopped. The lease is held.

    Each try that a person asked for is an intent of its own, so that one is one change however often it is repeated.
    """
    change = await _begun(env, row, one)
    if change is None:
        await refetch_held(env, one.company_id, lease)
        found = await _proposed(env, row, one)
        if not isinstance(found, PlanChangeRow):
            return found
        change = found
    change = await continued(env, await current(env, change), lease)
    if change.state == ChangeState.APPLIED.value:
        return PriceOutcome.MOVED, None
    raise Refusal(Code.STRIPE_BUSY, "Stripe did not answer yet; the change goes on by itself.")


async def _begun(env: Environment, row: VersionMigrationRow, one: MigratingCompanyRow) -> PlanChangeRow | None:
    """The change an earlier try of this company began and did not see the end of, or that was applied."""
    async with env.reading() as session:
        for number in range(1, _ATTEMPTS_MAX * 4):
            known = await change_by_quote(session, _intent(row, one, number))
            if known is None:
                return None
            if known.state not in {ChangeState.FAILED.value, ChangeState.REFUSED.value, ChangeState.CANCELLED.value}:
                return known
    return None


async def _proposed(env: Environment, row: VersionMigrationRow, one: MigratingCompanyRow) -> PlanChangeRow | _Found:
    """The change saved before its first call to Stripe; or why there is none, from what was just fetched."""
    standing = await env.standings.of(one.company_id)
    if standing is None:
        return PriceOutcome.NOT_HELD, None
    snapshot = standing.snapshot_at(env.clock.now())
    subscription = _paying(row, snapshot)
    if subscription is None:
        return PriceOutcome.NOT_HELD, None
    async with env.reading() as session:
        waiting = await changes_in(session, one.company_id, _OPEN)
    if waiting:
        raise Refusal(Code.CHANGE_IN_PROGRESS, "Another change of the company is under way.")
    standing_in_the_way = _in_the_way(subscription, env.clock.now())
    if standing_in_the_way is not None:
        return standing_in_the_way
    held = holding_of(snapshot)
    if held.own_price is not None and row.kind == "plan":
        return PriceOutcome.CUSTOM_PRICE, None
    target = msgspec.structs.replace(held, version=row.version) if row.kind == "plan" else held
    try:
        lines = target_lines(
            standing.catalog,
            target,
            subscription,
            company_id=one.company_id,
            renewed=("plan" if row.kind == "plan" else "add_on", row.key),
        )
    except Refusal as refusal:
        return PriceOutcome.NOT_SOLD, refusal.detail
    if any(line.price is not None and not _fits(line, target) for line in lines):
        return PriceOutcome.NOT_SOLD, "The new version has no price in that currency and interval."
    items = item_params(standing.catalog, lines, subscription, company_id=one.company_id)
    if not items:
        return PriceOutcome.ALREADY_THERE, None
    terms = _terms(row, lines, subscription, target, items, at=env.clock.now())
    return await _recorded(env, row, one, terms, held, target, subscription, standing.catalog)


def _paying(row: VersionMigrationRow, snapshot: CompanySnapshot) -> SubscriptionFact | None:
    """The subscription that pays for what is migrated; the base one, which alone can be changed here."""
    subscription = snapshot.subscription
    if subscription is None or subscription.status not in {*LIVE_STATUSES, "unpaid"}:
        return None
    for item in subscription.items:
        owner = snapshot.catalog.owner_of(item.stripe_price_id, snapshot.company_id)
        if owner is not None and (owner.kind, owner.key) == (row.kind, row.key):
            return subscription
    return None


def _in_the_way(subscription: SubscriptionFact, at: datetime) -> _Found | None:
    if subscription.status in {"past_due", "unpaid"}:
        return PriceOutcome.PAST_DUE, "A payment is overdue: it is moved when that was paid."
    if subscription.stripe_schedule_id is not None and not subscription.is_schedule_ours:
        return PriceOutcome.FOREIGN_SCHEDULE, "Another system schedules changes of this subscription."
    if subscription.scheduled_end_at is not None:
        return PriceOutcome.ENDING, None
    if any(phase.starts_at > at for phase in subscription.phases):
        return PriceOutcome.SCHEDULED_CHANGE, "A change is scheduled: it is moved when that has arrived."
    return None


def _fits(line: TargetLine, target: Holding) -> bool:
    """Whether a price is in the interval the company pays in: a migration never changes that."""
    if line.price is None or line.kind == "add_on":
        return True
    return (line.price.interval, line.price.interval_count) == (target.interval, target.interval_count)


def _terms(
    row: VersionMigrationRow,
    lines: tuple[TargetLine, ...],
    subscription: SubscriptionFact,
    target: Holding,
    items: list[dict[str, object]],
    *,
    at: datetime,
) -> Terms:
    behaviour = "none" if subscription.status == "trialing" else _BEHAVIOURS[row.proration or "none"]
    params: dict[str, object] = {"items": items, "proration_behavior": behaviour}
    if behaviour != "none":
        params["proration_date"] = int(at.timestamp())
    return Terms(
        action=Action.UPDATE,
        lines=tuple(Line(line.stripe_price_id, line.quantity) for line in lines),
        plan_price_id=next((line.stripe_price_id for line in lines if line.kind == "plan"), None),
        params=params,
        interval=target.interval or subscription.items[0].interval,
        interval_count=target.interval_count,
        stripe_schedule_id=subscription.stripe_schedule_id,
        is_unattended=True,
    )


async def _recorded(
    env: Environment,
    row: VersionMigrationRow,
    one: MigratingCompanyRow,
    terms: Terms,
    held: Holding,
    target: Holding,
    subscription: SubscriptionFact,
    catalog: Catalog,
) -> PlanChangeRow:
    actor = msgspec.convert(row.author, Actor)
    paid = {item.stripe_price_id: item.quantity for item in subscription.items}
    before = sum(
        (owner.price.amount_minor * (paid[price] or 0))
        for price in paid
        if (owner := catalog.owner_of(price, one.company_id)) is not None
    )
    after = sum(
        owner.price.amount_minor * (line.quantity or 0)
        for line in terms.lines
        if (owner := catalog.owner_of(line.stripe_price_id, one.company_id)) is not None
    )
    change_id = new_id("chg")
    async with env.writing() as session:
        number = 1
        while await change_by_quote(session, _intent(row, one, number)) is not None:
            number += 1
        change = PlanChangeRow(
            id=change_id,
            environment_id=env.id,
            company_id=one.company_id,
            quote_id=_intent(row, one, number),
            state=ChangeState.REQUESTED.value,
            kind=(ChangeKind.UPGRADE if after >= before else ChangeKind.DOWNGRADE).value,
            held=msgspec.to_builtins(side(held)),
            target=msgspec.to_builtins(side(target)),
            terms=msgspec.to_builtins(terms),
            effective_at=session.now,
            requested_by=msgspec.to_builtins(actor),
            stripe_customer_id=subscription.stripe_customer_id,
            stripe_subscription_id=subscription.stripe_subscription_id,
            stripe_schedule_id=terms.stripe_schedule_id,
            # The migration carries it out; the worker takes over what a crash leaves.
            available_at=wall_now() + timedelta(seconds=_CLAIM_SECONDS),
            created_at=session.now,
            updated_at=session.now,
        )
        await env.touch(session, one.company_id)
        await insert_change(session, change)
        await append_audit(
            session,
            actor=actor,
            action="plan_change.requested",
            subject=change_id,
            company_id=one.company_id,
            before=change.held,
            after=change.target,
            note=f"migration {row.id}",
        )
    return change


def _intent(row: VersionMigrationRow, one: MigratingCompanyRow, number: int) -> str:
    """Stands for the quote of a change that nobody previewed, so that a migration asks each company once a try."""
    return f"{row.id}:{one.company_id}:{number}"
