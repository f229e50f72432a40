"""Brings Stripe's state into ours: webhooks from the inbox, and the sweep that heals what was missed.

A webhook is only a hint that something of a customer changed. It is stored before it is answered; here the customer's
present objects are fetched instead of believing the payload, so order, repetition and age of events do not matter.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog

from plangate import on_sale, reviews
from plangate.billing.gateway import reference
from plangate.billing.transport import within
from plangate.clock import wall_now
from plangate.environment import Environment, Lease
from plangate.errors import Code, Refusal
from plangate.importing import import_account
from plangate.mirroring import refetch_customer, refetch_held, refetch_plain
from plangate.store.companies import STRIPE_CUSTOMER_KEY
from plangate.store.database import StoreSession
from plangate.store.inbox import (
    InboxRow,
    InboxState,
    claim_events,
    cursor,
    known_event_ids,
    revive_put_off,
    set_cursor,
    settle_event,
    store_event,
)

_CLAIMED_AT_ONCE: Final = 50
_CLAIM_SECONDS: Final = 60
_REFETCH_SECONDS: Final = 20
_ACTING_SECONDS: Final = _REFETCH_SECONDS + 5  # of one event that is acted on at once, its commit included
_ATTEMPTS_MAX: Final = 15
_BACKOFF_SECONDS_MAX: Final = 3_600
SWEEP_CURSOR: Final = "events"
_SWEEP_OVERLAP: Final = timedelta(minutes=10)
_EVENTS_KEPT: Final = timedelta(days=29)  # Stripe lists events of the last 30 days.
_OUTAGES: Final = (Code.STRIPE_BUSY.value, Code.UNAVAILABLE.value, Code.CHANGE_IN_PROGRESS.value)
_ERROR_LENGTH_MAX: Final = 500
_TEXT_LENGTH_MAX: Final = 255
_LATEST_CREATED: Final = 253_402_300_800  # the year 10000
_log = structlog.get_logger(__name__)

# Events that say that something of one customer may have changed. All others are kept, and ignored.
CUSTOMER_EVENTS: Final = ("customer.", "checkout.session.", "subscription_schedule.", "invoice.")
# Events that say that a payment was given back, or is disputed. Theirs is the charge that is looked at again.
_CHARGE_EVENTS: Final = ("charge.refunded", "refund.failed", "charge.dispute.")
# Events that say that a price, or all prices of a product, may have come on sale or gone off it.
_PRICE_EVENTS: Final = ("price.updated", "price.deleted")
_PRODUCT_EVENTS: Final = ("product.updated", "product.deleted")

# What the webhook endpoint in Stripe should send: docs/how-to/connect-stripe.md lists the same. Others do no harm.
CONSUMED_EVENTS: Final = (
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "charge.refunded",
    "customer.created",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    "customer.subscription.resumed",
    "customer.subscription.trial_will_end",
    "customer.subscription.updated",
    "customer.updated",
    "invoice.finalized",
    "invoice.marked_uncollectible",
    "invoice.paid",
    "invoice.payment_action_required",
    "invoice.payment_failed",
    "invoice.voided",
    "price.deleted",
    "price.updated",
    "product.deleted",
    "product.updated",
    "refund.failed",
    "subscription_schedule.aborted",
    "subscription_schedule.canceled",
    "subscription_schedule.completed",
    "subscription_schedule.created",
    "subscription_schedule.expiring",
    "subscription_schedule.released",
    "subscription_schedule.updated",
)


class Claim(NamedTuple):
    """An event that was claimed in the commit that stored it, and the company whose lease was taken there too.

    `is_plain` as in `store.arriving`.
    """

    row: InboxRow
    company_id: str
    lease: Lease
    is_plain: bool


async def receive(env: Environment, event: Mapping[str, Any]) -> InboxRow | None:
    """Store one verified event for later; the stored row, or None when its id was known.

    An event of another account or mode is stored as ignored. Raises Refusal (malformed) for something that is no event.
    """
    _refuse_ill_typed(event)
    return await _received(env, inbox_row(env, event, received_at=wall_now()))


async def _received(env: Environment, row: InboxRow) -> InboxRow | None:
    async with env.writing() as session:
        is_new = await store_event(session, row)
    return row if is_new else None


async def receive_to_act(env: Environment, event: Mapping[str, Any]) -> tuple[InboxRow | None, Claim | None]:
    """As `receive`, for a process that acts on the event at once: `act_on` the claim, in every case.

    There is none when the event needs no action, its company is not known, or somebody is at work on the company: then
    it waits in the inbox like any other.
    """
    _refuse_ill_typed(event)
    row = inbox_row(env, event, received_at=wall_now())
    if row.state != InboxState.PENDING.value or row.stripe_customer_id is None:
        return await _received(env, row), None
    until = row.received_at + timedelta(seconds=_ACTING_SECONDS)
    async with env.at_once() as session:
        arrived, lease = await env.claim(session, row, (STRIPE_CUSTOMER_KEY, row.stripe_customer_id), until=until)
    if not arrived.is_new:
        return None, None
    if lease is None or arrived.company_id is None:
        return row, None
    row.attempts, row.available_at = 1, until
    return row, Claim(row, arrived.company_id, lease, arrived.is_plain)


def inbox_row(env: Environment, event: Mapping[str, Any], *, received_at: datetime) -> InboxRow:
    """The row an event is stored as: pending when it concerns a customer of this environment, else ignored.

    Raises Refusal when it lacks what every snapshot event has, as thin events and other envelopes do.
    """
    event_id, event_type, told = event.get("id"), event.get("type"), event.get("data")
    if not _is_text(event_id) or not _is_text(event_type):
        raise Refusal(Code.MALFORMED, "The body is no Stripe event: it has no id or no type.")
    subject = told.get("object") if isinstance(told, Mapping) else None
    if not isinstance(subject, Mapping):
        raise Refusal(
            Code.MALFORMED, "This address takes snapshot events, which carry data.object; send thin ones elsewhere."
        )
    object_id = subject.get("id")
    stripe_customer_id = _customer_of(subject) if str(event_type).startswith(CUSTOMER_EVENTS) else None
    is_about_charge = str(event_type).startswith(_CHARGE_EVENTS)
    if is_about_charge:
        object_id = subject.get("id") if subject.get("object") == "charge" else reference(subject.get("charge"))
    is_of_others = is_about_charge or event_type in (*_PRICE_EVENTS, *_PRODUCT_EVENTS)
    is_consumed = stripe_customer_id is not None or (is_of_others and _is_text(object_id))
    is_foreign = not _is_of_environment(env, event)
    return InboxRow(
        environment_id=env.id,
        stripe_event_id=str(event_id),
        type=str(event_type),
        stripe_object_id=object_id if _is_text(object_id) else None,
        stripe_customer_id=stripe_customer_id,
        payload=event,
        state=InboxState.IGNORED.value if is_foreign or not is_consumed else InboxState.PENDING.value,
        available_at=received_at,
        received_at=received_at,
        processed_at=None,
        last_error="of another account or mode" if is_foreign else None,
    )


async def work_inbox(env: Environment, *, limit: int = _CLAIMED_AT_ONCE) -> int:
    """Act on due events, one refetch for each customer they name. Answers how many events were claimed."""
    async with env.writing() as session:
        claimed = await claim_events(session, wall_now=wall_now(), lease_seconds=_CLAIM_SECONDS, limit=limit)
    by_subject: dict[tuple[str | None, str | None], list[InboxRow]] = {}
    for row in claimed:
        about = None if row.stripe_customer_id is not None else row.stripe_object_id
        by_subject.setdefault((row.stripe_customer_id, about), []).append(row)
    for (stripe_customer_id, _), rows in by_subject.items():
        await _act_on(env, stripe_customer_id, rows)
    return len(claimed)


async def sweep(env: Environment) -> int:
    """Store the events that no webhook brought, since the last sweep; answers how many were missed.

    Events are listed again from a little before the newest one seen, because Stripe's times are whole seconds and
    events may appear late. After a gap longer than Stripe keeps events, everything is imported instead. Only what the
    endpoint is to send can be missed, and what was missed is remembered until a webhook brings an event again.
    """
    began_at = env.clock.now()
    async with env.reading() as session:
        reached: Mapping[str, int] | None = await cursor(session, SWEEP_CURSOR)
    since = None if reached is None else datetime.fromtimestamp(reached["created"], began_at.tzinfo)
    if since is not None and since < began_at - _EVENTS_KEPT:
        _log.warning("sweep_gap_too_long", environment=env.id, since=since.isoformat())
        if (await import_account(env)).failed:
            # The place to go on from stays, so that the next sweep imports again.
            return 0
        since = began_at
    # The place is taken from events alone, because Stripe's clock and ours may differ.
    seen_until = newest = 0 if since is None else int(since.timestamp())
    missed, is_brought = 0, False
    async for page in env.gateway.event_pages(created_from=(since or began_at - _EVENTS_KEPT) - _SWEEP_OVERLAP):
        awaited = [event for event in page if event["type"] in CONSUMED_EVENTS]
        unheard = await _store_missed(env, awaited)
        missed += len(unheard)
        is_brought |= any(event["created"] > seen_until and event["id"] not in unheard for event in awaited)
        newest = max(newest, *(int(event["created"]) for event in page))
    # Only a sweep that went through moves the place to go on from.
    async with env.writing() as session:
        latest = await cursor(session, SWEEP_CURSOR, lock=True)
        if reached is None:
            # What the first sweep brings happened before there was an endpoint, so no webhook is missing.
            remembered = 0
        elif latest != reached:
            # Another process swept meanwhile, and what it stored passed for brought here.
            remembered, newest = missed + latest["missed"], max(newest, latest["created"])
        else:
            remembered = missed or (0 if is_brought else reached["missed"])
        place = {"created": newest or int(began_at.timestamp()), "missed": remembered}
        await set_cursor(session, SWEEP_CURSOR, place)
        # Stripe answers, so what it did not answer too often is asked once more, an hour later again.
        await revive_put_off(session, _OUTAGES, attempts=_ATTEMPTS_MAX - 1, wall_now=wall_now())
    if missed:
        _log.info("sweep_found_missed_events", environment=env.id, missed=missed)
    return missed


async def _store_missed(env: Environment, events: Sequence[Mapping[str, Any]]) -> set[str]:
    """Store those of these events that are not known; answers their ids."""
    rows = [inbox_row(env, event, received_at=wall_now()) for event in events]
    async with env.writing() as session:
        known = await known_event_ids(session, [row.stripe_event_id for row in rows])
        missed = [row for row in rows if row.stripe_event_id not in known and await store_event(session, row)]
    return {row.stripe_event_id for row in missed}


async def act_on(env: Environment, claim: Claim) -> None:
    """Refetch the company of an event claimed by `receive_to_act`; its lease is given back in every case."""
    async with env.keeping(claim.lease):
        try:
            await _act_on(env, claim.row.stripe_customer_id, [claim.row], claim)
        except asyncio.CancelledError:
            # The process is stopping; another may act at once.
            if not claim.lease.is_over:
                async with env.writing() as session:
                    claim.lease.give_back(session)
                    settle_event(session, claim.row.stripe_event_id, state=InboxState.PENDING, wall_now=wall_now())
            raise


async def _act_on(
    env: Environment, stripe_customer_id: str | None, rows: Sequence[InboxRow], claim: Claim | None = None
) -> None:
    """Refetch one customer, charge, price or product, and settle all its claimed events alike. No payload is used."""
    state, error = InboxState.PROCESSED, None
    is_ours: bool
    settled: list[InboxRow] = []

    async def settle(session: StoreSession) -> None:
        for row in rows:
            settle_event(session, row.stripe_event_id, state=InboxState.PROCESSED, wall_now=wall_now())
        if claim is not None:
            claim.lease.give_back(session)
        session.after_commit.append(lambda: settled.extend(rows))

    try:
        with within(_REFETCH_SECONDS):
            if claim is not None and claim.is_plain and stripe_customer_id is not None:
                await refetch_plain(env, claim.company_id, claim.lease, stripe_customer_id, closing=settle)
                is_ours = True
            elif claim is not None:
                await refetch_held(env, claim.company_id, claim.lease, closing=settle)
                is_ours = True
            elif stripe_customer_id is not None:
                is_ours = await refetch_customer(env, stripe_customer_id, wait_seconds=2, closing=settle) is not None
            elif rows[0].type in _PRICE_EVENTS:
                is_ours = await on_sale.learn_of_price(env, rows[0].stripe_object_id or "")
            elif rows[0].type in _PRODUCT_EVENTS:
                is_ours = await on_sale.learn_of_product(env, rows[0].stripe_object_id or "")
            else:
                is_ours = await reviews.learn_of_charge(env, rows[0].stripe_object_id or "")
        if settled:
            return
        if not is_ours:
            state = InboxState.IGNORED
    except Refusal as refusal:
        error = f"{refusal.code.value}: {refusal.detail}"
    except Exception as problem:  # noqa: BLE001 - one customer we cannot read must not keep all others waiting.
        error = f"{type(problem).__name__}: {problem}"
        _log.exception("inbox_failed", environment=env.id, stripe_customer=stripe_customer_id)
    now = wall_now()
    async with env.writing() as session:
        if claim is not None:
            claim.lease.give_back(session)
        for row in rows:
            if error is None:
                settle_event(session, row.stripe_event_id, state=state, wall_now=now)
            elif row.attempts >= _ATTEMPTS_MAX:
                settle_event(
                    session,
                    row.stripe_event_id,
                    state=InboxState.FAILED,
                    wall_now=now,
                    error=error[:_ERROR_LENGTH_MAX],
                )
            else:
                settle_event(
                    session,
                    row.stripe_event_id,
                    state=InboxState.PENDING,
                    wall_now=now,
                    error=error[:_ERROR_LENGTH_MAX],
                    available_at=now + timedelta(seconds=backoff_seconds(row.attempts)),
                )


def backoff_seconds(attempts: int) -> float:
    """How long to wait after this many tries: half a second, doubling, at most an hour."""
    return float(min(0.5 * 2 ** max(0, attempts - 1), _BACKOFF_SECONDS_MAX))


def _refuse_ill_typed(event: Mapping[str, Any]) -> None:
    """Raise Refusal (malformed) for an envelope that Stripe never sends, although somebody who knows the secret did."""
    created, account = event.get("created"), event.get("account")
    if type(created) is not int or not 0 < created < _LATEST_CREATED:
        raise Refusal(Code.MALFORMED, "The body is no Stripe event: `created` is not a time in whole seconds.")
    if not isinstance(event.get("livemode"), bool):
        raise Refusal(Code.MALFORMED, "The body is no Stripe event: `livemode` is not true or false.")
    if account is not None and not _is_text(account):
        raise Refusal(Code.MALFORMED, "The body is no Stripe event: `account` is not the id of an account.")


def _customer_of(subject: Mapping[str, Any]) -> str | None:
    """The customer an object belongs to; a customer belongs to itself."""
    found = subject.get("id") if subject.get("object") == "customer" else reference(subject.get("customer"))
    return str(found) if _is_text(found) else None


def _is_of_environment(env: Environment, event: Mapping[str, Any]) -> bool:
    """Whether an event is of this environment's account and mode. `account` is only there for connected accounts."""
    account = event.get("account")
    is_own_account = account is None or not env.settings.stripe_account or account == env.settings.stripe_account
    return is_own_account and event.get("livemode") is (env.settings.stripe_mode == "live")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _TEXT_LENGTH_MAX
