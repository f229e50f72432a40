"""Fetches what Stripe holds for a company and writes it back, one company at a time, under the company's lease.

Used by everything that learns that something may have changed: webhooks, the sweep, imports, and plan changes after
each of their own calls. No transaction is open while Stripe is asked; the lease's fence is checked when writing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError

from plangate.billing.gateway import CustomerState
from plangate.billing.mirror import (
    ENVIRONMENT_METADATA,
    mirrored,
    owning_company,
    state_hash,
    subscription_fact,
    with_holding_times,
)
from plangate.billing.transport import StripeJson
from plangate.engine.catalog import Catalog
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, SubscriptionFact
from plangate.environment import Environment, Lease
from plangate.errors import Code, Refusal
from plangate.newcomers import is_subscriber, make_companies
from plangate.recording import plan_meant, subscription_entries, warn_of
from plangate.settling import STRIPE, WATCHED, Awaited, look_up, settle_changes
from plangate.standing import Standing
from plangate.store.audit import AuditRow, append_audit, append_entries
from plangate.store.companies import (
    STRIPE_CUSTOMER_KEY,
    add_keys,
    company_row,
    keys_of,
    owner_of_key,
)
from plangate.store.company_terms import deleted_customers, note_deleted_customers
from plangate.store.database import StoreSession
from plangate.store.direct import together
from plangate.store.environments import environment
from plangate.store.ledger import held_companies, lock_pairs, locking
from plangate.store.plan_changes import PlanChangeRow, changes_in
from plangate.store.present import PresentFacts, asking_facts, facts_of, present_facts
from plangate.store.subscriptions import (
    newest_state_at,
    save_subscriptions,
    subscriptions_of,
)
from plangate.store.writing_back import AsRead
from plangate.usage_windows import attribute_waiting, rebind_windows

_CLOCKS_APART = timedelta(seconds=60)
Closing = Callable[[StoreSession], Awaitable[None]]  # what is written in the commit that stores what was fetched
_log = structlog.get_logger(__name__)


class Mirrored(msgspec.Struct, frozen=True, kw_only=True):
    """What one refetch found: the facts now stored, the raw subscriptions behind them, and whether anything changed."""

    company_id: str
    facts: tuple[SubscriptionFact, ...]
    subscriptions: tuple[StripeJson, ...] = ()
    schedules: tuple[StripeJson, ...] = ()
    is_changed: bool = False

    def raw(self, stripe_subscription_id: str) -> StripeJson | None:
        """The subscription as Stripe answered it."""
        return next((one for one in self.subscriptions if one["id"] == stripe_subscription_id), None)

    def schedule(self, stripe_schedule_id: str) -> StripeJson | None:
        """The schedule in force as Stripe answered it."""
        return next((one for one in self.schedules if one["id"] == stripe_schedule_id), None)

    def fact(self, stripe_subscription_id: str | None) -> SubscriptionFact | None:
        """The fact about one subscription."""
        return next((one for one in self.facts if one.stripe_subscription_id == stripe_subscription_id), None)


async def refetch(
    env: Environment, company_id: str, *, wait_seconds: float = 8, closing: Closing | None = None
) -> Mirrored:
    """Fetch and store the company's state in Stripe. Raises `StripeFailure`, or Refusal when the lease is taken."""
    async with env.lease(company_id, wait_seconds=wait_seconds) as lease:

        async def close(session: StoreSession) -> None:
            if closing is not None:
                await closing(session)
            lease.give_back(session)

        return await refetch_held(env, company_id, lease, closing=close)


async def refetch_held(env: Environment, company_id: str, lease: Lease, *, closing: Closing | None = None) -> Mirrored:
    """As `refetch`, for a caller that holds the company's lease already.

    `closing` writes in the commit that stores what was fetched; it is not called when nothing is stored. Raises
    Refusal, and then nothing is written: change_in_progress when the lease was lost meanwhile, not_found when the
    company was merged, as its customers then are another one's.
    """
    watched: list[PlanChangeRow] = []
    async with env.reading() as session:
        present = await present_facts(session, company_id)
        if present is None:
            raise _no_such_company()
        if present.has_open_changes:
            watched = await changes_in(session, company_id, WATCHED)
    known, stripe_customer_ids = present.facts.subscriptions, _customers_in(present)
    if not stripe_customer_ids:
        return Mirrored(company_id=company_id, facts=known)
    awaited = await look_up(env, watched, stripe_customer_ids)
    states = [
        state
        for stripe_customer_id in stripe_customer_ids
        if (state := await env.gateway.fetch_customer_state(stripe_customer_id)) is not None
    ]
    if len(states) < len(stripe_customer_ids):
        # To another account's word, everything that is held here would have ended.
        await refuse_other_account(env)
    return await _stored(env, company_id, lease, states, known, awaited=awaited, closing=closing)


async def refetch_plain(
    env: Environment, company_id: str, lease: Lease, stripe_customer_id: str, *, closing: Closing
) -> Mirrored:
    """As `refetch_held`, for a company with one customer and no open plan change: it is read while Stripe is asked.

    What was fetched is stored by `env.write_back` where it can be: `closing` only defers, and may be called twice.
    """
    reading = asyncio.create_task(_read(env, company_id))
    try:
        state = await env.gateway.fetch_customer_state(stripe_customer_id)
    finally:
        # Also when Stripe fails: no session is left behind.
        present = await reading
    if state is None or present is None or present.has_open_changes or _customers_in(present) != [stripe_customer_id]:
        return await refetch_held(env, company_id, lease, closing=closing)
    at_once = await _stored_at_once(env, lease, state, present, closing)
    if at_once is not None:
        return at_once
    return await _stored(env, company_id, lease, [state], present.facts.subscriptions, closing=closing)


async def _read(env: Environment, company_id: str) -> PresentFacts | None:
    async with env.at_once(only_reads=True) as session:
        return await present_facts(session, company_id)


def _customers_in(present: PresentFacts) -> list[str]:
    return [value for name, value in present.keys if name == STRIPE_CUSTOMER_KEY]


async def keep_fetched(
    env: Environment, state: CustomerState, *, asked_at: datetime, is_every_customer_wanted: bool = False
) -> Mirrored | None:
    """As `refetch_customer`, with the state of a customer that was listed with many others, asked for at `asked_at`.

    It is stored only while nothing newer can be known; otherwise, and for what a list cannot tell, it is fetched anew.
    """
    async with env.reading() as session:
        company_id = await company_of_customer(session, state.stripe_customer_id)
        known, is_overtaken = await _looked_up(session, company_id, state, asked_at)
    if company_id is None:
        if state.customer.get("deleted"):
            return None
        company_id = await _linked(env, state, is_every_customer_wanted=is_every_customer_wanted)
        if company_id is None:
            return None
        async with env.reading() as session:
            known, is_overtaken = await _looked_up(session, company_id, state, asked_at)
        if state_hash(mirrored(state)) == state_hash(known):
            # Stored together with the link.
            return Mirrored(company_id=company_id, facts=known, subscriptions=state.subscriptions, is_changed=True)
    if not state.customer.get("deleted") and state_hash(mirrored(state)) == state_hash(known):
        return Mirrored(company_id=company_id, facts=known, subscriptions=state.subscriptions)
    if is_overtaken or state.customer.get("deleted"):
        return await refetch(env, company_id)
    async with env.lease(company_id) as lease:
        async with env.reading() as session:
            known, is_overtaken = await _looked_up(session, company_id, state, asked_at)
        if is_overtaken:
            return await refetch_held(env, company_id, lease)
        return await _stored(env, company_id, lease, [state], known)


async def _looked_up(
    session: StoreSession, company_id: str | None, state: CustomerState, asked_at: datetime
) -> tuple[tuple[SubscriptionFact, ...], bool]:
    """What is known of a company, and whether the listed customer is not the whole or not the newest word on it."""
    if company_id is None:
        return (), False
    is_sole = await customers_of(session, company_id) == [state.stripe_customer_id]
    known = await subscriptions_of(session, company_id)
    return known, not is_sole or await _is_overtaken(session, company_id, asked_at)


async def _is_overtaken(session: StoreSession, company_id: str, asked_at: datetime) -> bool:
    """Whether somebody may have fetched later than `asked_at`; clocks of two servers are a little apart."""
    recorded_at = await newest_state_at(session, company_id)
    return recorded_at is not None and recorded_at > asked_at - _CLOCKS_APART


async def _stored(
    env: Environment,
    company_id: str,
    lease: Lease,
    states: Sequence[CustomerState],
    known: Sequence[SubscriptionFact],
    *,
    awaited: Awaited | None = None,
    closing: Closing | None = None,
) -> Mirrored:
    """Write back what was fetched, unless the lease was lost. `awaited` as in `settling.settle_changes`."""
    found = await _completed(env, states, known)
    subscriptions = tuple(one for state in states for one in state.subscriptions)
    schedules = tuple(one for state in states for one in state.schedules)
    schedules += () if awaited is None else awaited.schedules
    catalog = await env.catalog()
    async with env.writing() as session:
        # The company before the audit, as everywhere, so that two writers never wait for each other.
        fence, rows, told = await together(
            session,
            lease.asking(session),
            locking(session, [company_id]),
            asking_facts(session, company_id),
        )
        if not lease.is_in(fence):
            raise Refusal(
                Code.CHANGE_IN_PROGRESS, "Another change of this company took over. Try again in a few seconds."
            )
        present, held = facts_of(told, company_id), held_companies(rows).get(company_id)
        if present is None or held is None:
            raise _no_such_company()
        if held.catalog_revision != catalog.revision:
            # Another process published it, and this one did not hear of it yet.
            catalog = await env.catalog_in(session)
        found = with_holding_times(found, known, at=session.now)
        is_changed = await _write_back(env, session, catalog, present.facts, known, found, stored=present.states)
        is_settled = present.has_open_changes and await settle_changes(
            session, company_id, found, subscriptions, awaited
        )
        deleted = [state.stripe_customer_id for state in states if state.is_deleted]
        if deleted:
            await note_deleted_customers(session, company_id, deleted)
        if is_changed or is_settled:
            await env.touch(session, company_id, is_locked=True)
        if closing is not None:
            await closing(session)
    return Mirrored(
        company_id=company_id,
        facts=found,
        subscriptions=subscriptions,
        schedules=schedules,
        is_changed=is_changed,
    )


async def _stored_at_once(
    env: Environment,
    lease: Lease,
    state: CustomerState,
    present: PresentFacts,
    closing: Closing,
) -> Mirrored | None:
    """As `_stored`, worked out beforehand from what was read under the lease: the commit only looks whether it is so.

    None, and then nothing was written, when it is not, and for what is rare: deleted customers, and billing windows
    that have to move.
    """
    before = present.facts
    company_id, known = before.company_id, before.subscriptions
    if state.is_deleted:
        return None
    fetched = await _completed(env, [state], known)
    catalog = await env.catalog()
    async with env.at_once() as session:
        found = with_holding_times(fetched, known, at=session.now)
        facts = msgspec.structs.replace(before, subscriptions=tuple(found), version=before.version + 1)
        after = build_snapshot(catalog, facts, session.now)
        meant = plan_meant(after)
        is_changed = await save_subscriptions(
            session,
            company_id,
            [(fact, state_hash([fact])) for fact in found],
            mapped_plan=meant,
            stored=present.states,
        )
        entries: list[AuditRow] = []
        held = env.standings.held(company_id)
        if held is not None and held.catalog is catalog and held.facts.version == before.version:
            earlier = held.snapshot_at(session.now)
        else:
            earlier = build_snapshot(catalog, before, session.now)
        is_moved = is_changed and after.cycle != earlier.cycle
        if is_moved and held is not None and held.counters:
            return None
        if is_changed:
            facts = msgspec.structs.replace(facts, last_mapped_plan=meant or before.last_mapped_plan)
            after = msgspec.structs.replace(after, facts=facts)
            entries = subscription_entries(session, company_id, known, found)
            await env.touch(session, company_id, is_locked=True)
        await closing(session)
        as_read = AsRead(
            lease.subject, lease.fence, company_id, before.version, catalog.revision, has_no_windows=is_moved
        )
        standing = Standing(catalog, facts, {}, session.now, after)
        if not await env.write_back(session, as_read, entries, after=standing):
            return None
    warn_of(after, before=earlier)
    return Mirrored(
        company_id=company_id,
        facts=found,
        subscriptions=state.subscriptions,
        schedules=state.schedules,
        is_changed=is_changed,
    )


async def _write_back(
    env: Environment,
    session: StoreSession,
    catalog: Catalog,
    before: CompanyFacts,
    known: Sequence[SubscriptionFact],
    found: Sequence[SubscriptionFact],
    *,
    stored: Mapping[str, str],
) -> bool:
    """Save what differs from what is `stored`, note it, and move usage windows along. Answers whether anything did."""
    after = build_snapshot(catalog, msgspec.structs.replace(before, subscriptions=tuple(found)), session.now)
    states_found = [(fact, state_hash([fact])) for fact in found]
    is_changed = await save_subscriptions(
        session, before.company_id, states_found, mapped_plan=plan_meant(after), stored=stored
    )
    if is_changed:
        await append_entries(session, subscription_entries(session, before.company_id, known, found))
        earlier = build_snapshot(catalog, before, session.now)
        await rebind_windows(env, session, earlier, after)
        warn_of(after, before=earlier)
    return is_changed


async def refetch_customer(
    env: Environment,
    stripe_customer_id: str,
    *,
    is_every_customer_wanted: bool = False,
    wait_seconds: float = 8,
    closing: Closing | None = None,
) -> Mirrored | None:
    """Fetch and store the company that a Stripe customer belongs to; None when it is none of ours.

    A customer not known yet is linked by our company id in its metadata; otherwise it becomes a company when it
    subscribes to one of our prices (or, importing, in any case). Other products' customers are left alone.
    """
    async with env.reading() as session:
        company_id = await company_of_customer(session, stripe_customer_id)
    if company_id is None:
        state = await env.gateway.fetch_customer_state(stripe_customer_id)
        if state is None or state.is_deleted:
            return None
        company_id = await _linked(env, state, is_every_customer_wanted=is_every_customer_wanted)
        if company_id is None:
            return None
    return await refetch(env, company_id, wait_seconds=wait_seconds, closing=closing)


def _no_such_company() -> Refusal:
    return Refusal(Code.NOT_FOUND, "There is no such company.")


async def refuse_other_account(env: Environment) -> None:
    """Raise Refusal (unavailable) when the key is known to be another account's, which knows nothing of ours."""
    account = env.settings.stripe_account
    if account and (await env.gateway.fetch_account())["id"] != account:
        raise Refusal(
            Code.UNAVAILABLE,
            "The Stripe key belongs to another account than PLANGATE_STRIPE_ACCOUNT names; nothing was changed.",
        )


async def customers_of(session: StoreSession, company_id: str) -> list[str]:
    """The Stripe customer ids of a company, the one linked first at the front."""
    keys = (await keys_of(session, [company_id]))[company_id]
    return [value for name, value in keys if name == STRIPE_CUSTOMER_KEY]


async def buying_customers_of(session: StoreSession, company_id: str) -> list[str]:
    """Those of `customers_of` that can buy: a deleted one only names its company (S16)."""
    deleted = await deleted_customers(session, company_id)
    return [name for name in await customers_of(session, company_id) if name not in deleted]


async def company_of_customer(session: StoreSession, stripe_customer_id: str) -> str | None:
    """The company that a Stripe customer id belongs to."""
    return await owner_of_key(session, STRIPE_CUSTOMER_KEY, stripe_customer_id)


async def _completed(
    env: Environment, states: Sequence[CustomerState], known: Sequence[SubscriptionFact]
) -> tuple[SubscriptionFact, ...]:
    """All fetched facts, and those known before that no customer lists any more: deleted with their customer."""
    facts = {fact.stripe_subscription_id: fact for state in states for fact in mirrored(state)}
    for fact in known:
        if fact.stripe_subscription_id in facts:
            continue
        raw = await env.gateway.fetch_subscription(fact.stripe_subscription_id)
        if raw is not None:
            facts[fact.stripe_subscription_id] = subscription_fact(raw)
            continue
        ended_at = fact.ended_at or env.clock.now().replace(microsecond=0)
        facts[fact.stripe_subscription_id] = msgspec.structs.replace(
            fact, status="canceled", ended_at=ended_at, scheduled_end_at=None, phases=(), stripe_schedule_id=None
        )
    return tuple(facts[name] for name in sorted(facts))


async def _linked(env: Environment, state: CustomerState, *, is_every_customer_wanted: bool) -> str | None:
    """The company a customer met for the first time is linked to, made when it is ours; None when it is not."""
    metadata: Mapping[str, Any] = state.customer.get("metadata") or {}
    named = owning_company(metadata)
    is_ours = metadata.get(ENVIRONMENT_METADATA) in {None, "", env.id}
    catalog = await env.catalog()
    key = (STRIPE_CUSTOMER_KEY, state.stripe_customer_id)
    try:
        async with env.writing() as session:
            if (await environment(session)).catalog_revision != catalog.revision:
                # As in `_stored`.
                catalog = await env.catalog_in(session)
            row = await company_row(session, named, lock=True) if named is not None and is_ours else None
            while row is not None and row.merged_into is not None:
                # Stripe goes on naming a company that was merged; its customers belong to the one it became.
                row = await company_row(session, row.merged_into, lock=True)
            if row is None:
                is_wanted = is_every_customer_wanted or is_subscriber(catalog, state.subscriptions)
                made = await make_companies(session, catalog, [state]) if is_wanted else {}
                return made.get(state.stripe_customer_id)
            company_id = row.id
            await lock_pairs(session, [key])
            await add_keys(session, company_id, [key])
            await env.touch(session, company_id)
            await attribute_waiting(session, catalog, company_id, [key])
            await append_audit(
                session,
                actor=STRIPE,
                action="company.linked",
                subject=company_id,
                company_id=company_id,
                after={STRIPE_CUSTOMER_KEY: state.stripe_customer_id},
            )
    except IntegrityError:
        # Somebody linked the same customer a moment ago; theirs is the one.
        async with env.reading() as session:
            return await company_of_customer(session, state.stripe_customer_id)
    return company_id
