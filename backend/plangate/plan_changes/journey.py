"""The journey of a plan change: previewed, confirmed, carried out, taken back, and finished after a crash.

Intent before effect: a confirmed quote becomes one saved row before the first call to Stripe, and the state of that
row only moves on by what a fetch found. One company at a time, under its lease.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.transport import within
from plangate.change_terms import Action, Terms
from plangate.clock import wall_now
from plangate.environment import Environment, Lease
from plangate.errors import Code, Refusal, invalid
from plangate.ids import new_id
from plangate.mirroring import Mirrored, buying_customers_of, refetch_held
from plangate.plan_changes.carrying import KEY_LIFETIME, POLL_SECONDS, carry_out, clear_up, put_back
from plangate.plan_changes.endings import is_given_back
from plangate.plan_changes.open_changes import UNDER_WAY, WAITING, Room, in_progress, is_closed, make_room, resolved
from plangate.plan_changes.preview import Proposal, propose
from plangate.plan_changes.quotes import Promise, read, refuse_if_over
from plangate.plan_changes.records import current, moved, refusal_view, shown, side
from plangate.plan_changes.request import ChangeRequest
from plangate.plan_changes.terms import refuse_foreign
from plangate.shapes import Actor, ChangeState, PlanChange, Quote
from plangate.store.audit import append_audit
from plangate.store.companies import is_company
from plangate.store.plan_changes import (
    PlanChangeRow,
    change_by_id,
    change_by_quote,
    changes_in,
    changes_of,
    insert_change,
    operations_of,
    unfinished_changes,
    update_change,
)

_ANSWER_SECONDS: Final = 9.0
_RESUME_SECONDS: Final = 20.0
_FIRST_RESUME: Final = timedelta(seconds=15)
_RESUMED_AT_ONCE: Final = 20
_BACKOFF_SECONDS_MAX: Final = 3_600
_URL_LENGTH_MAX: Final = 2_048
_SYSTEM: Final = Actor(kind="system", id="plangate")
# A change that was tried and came to nothing has failed, and may be tried again; every other refusal is a plain no.
_TRIED: Final = frozenset({Code.PAYMENT_FAILED, Code.ACTION_REQUIRED, Code.STRIPE_BUSY})
_log = structlog.get_logger(__name__)


async def preview(env: Environment, company_id: str, request: ChangeRequest, *, actor: Actor) -> Quote:
    """A signed quote of the change, valid 15 minutes; nothing is changed. Raises Refusal with the way out."""
    with within(_ANSWER_SECONDS):
        return (await propose(env, company_id, request, actor=actor)).quote


async def confirm(
    env: Environment, company_id: str, quote_text: str, *, actor: Actor, return_url: str | None = None
) -> PlanChange:
    """Make the change a quote promised, exactly once however often it is confirmed.

    Answers the change in whatever state it could be brought to in time; `applying` is finished by the worker, and
    `awaiting_payment` and `requires_action` say in `next_action` where the customer goes on. Raises Refusal:
    quote_stale (409, with the new `quote`) when anything promised no longer holds, payment_failed (402) with nothing
    changed, and everything a preview raises.
    """
    promise, expires_at = read(quote_text, secrets=env.secret_keys, environment_id=env.id, company_id=company_id)
    return_to = _checked_url(env, return_url, actor=actor)
    with within(_ANSWER_SECONDS):
        known = await _change_of(env, promise.quote_id)
        if known is None:
            await _refuse_if_over(env, promise, expires_at, actor=actor)
        async with env.lease(company_id) as lease:
            known = known or await _change_of(env, promise.quote_id)
            if known is not None:
                return shown(await continued(env, await current(env, known), lease))
            await refetch_held(env, company_id, lease)
            proposal = await _held_to(env, promise, actor=actor)
            room = await make_room(env, company_id, proposal)
            if room is Room.MOVED:
                await _settled(env, company_id, lease)
                proposal = await _held_to(env, promise, actor=actor)
                room = await make_room(env, company_id, proposal)
            if isinstance(room, PlanChangeRow):
                return shown(room)
            if room is Room.MOVED:
                raise in_progress()
            row = await _record(env, proposal, promise, actor=actor, return_url=return_to)
            return shown(await continued(env, row, lease))


async def cancel_scheduled(env: Environment, company_id: str, *, actor: Actor) -> PlanChange:
    """Take back the scheduled change, whoever scheduled it here or in the dashboard.

    Raises Refusal: nothing_scheduled, or foreign_schedule when another system's schedule manages the subscription.
    """
    with within(_ANSWER_SECONDS):
        async with env.lease(company_id) as lease:
            await _refuse_unknown(env, company_id)
            mirror = await refetch_held(env, company_id, lease)
            async with env.reading() as session:
                rows = await changes_in(session, company_id, ("scheduled", "cancelling"))
            if rows:
                for fact in mirror.facts:
                    if fact.stripe_subscription_id == rows[0].stripe_subscription_id:
                        refuse_foreign(fact)
                row = await moved(
                    env,
                    rows[0],
                    ChangeState.CANCELLING,
                    actor=actor,
                    available_at=wall_now() + _FIRST_RESUME,
                )
            else:
                proposal = await propose(env, company_id, ChangeRequest(resume=True), actor=actor)
                row = await _record(env, proposal, proposal.promise, actor=actor, return_url=None)
            return shown(await continued(env, row, lease))


async def settle_pending(env: Environment, company_id: str) -> None:
    """Look after what the customer may just have finished elsewhere: a checkout, a confirmation with the bank.

    Cheap when nothing is pending. Never raises because Stripe is slow: the webhook or the worker will tell then.
    """
    async with env.reading() as session:
        waiting = await changes_in(session, company_id, (*WAITING, *UNDER_WAY))
    if not waiting:
        return
    try:
        with within(_ANSWER_SECONDS):
            async with env.lease(company_id, wait_seconds=3) as lease:
                for row in waiting:
                    await continued(env, await current(env, row), lease)
    except Refusal as refusal:
        _log.info("settling_put_off", company=company_id, code=refusal.code.value)


async def resume_unfinished(env: Environment) -> int:
    """Finish changes that a crash, a slow Stripe or an absent customer left on the way. Answers how many were tried."""
    async with env.reading() as session:
        rows = await unfinished_changes(session, due_at=wall_now(), limit=_RESUMED_AT_ONCE)
    for row in rows:
        try:
            with within(_RESUME_SECONDS):
                async with env.lease(row.company_id, wait_seconds=1) as lease:
                    after = await continued(env, await current(env, row), lease)
            if after.state in UNDER_WAY:
                await _put_off(env, after)
        except Refusal as refusal:
            _log.info("change_put_off", change=row.id, company=row.company_id, code=refusal.code.value)
            await _put_off(env, row)
        except Exception:  # noqa: BLE001 - one change we cannot finish must not keep all others waiting.
            _log.exception("change_resume_failed", change=row.id, company=row.company_id)
            await _put_off(env, row)
    return len(rows)


async def listing(
    env: Environment, company_id: str, *, before: str | None = None, limit: int = 100
) -> list[PlanChange]:
    """At most `limit` of the company's changes, newest first; only those requested before the change `before`."""
    await _refuse_unknown(env, company_id)
    async with env.reading() as session:
        return [shown(row) for row in await changes_of(session, company_id, before=before, limit=limit)]


async def get(env: Environment, company_id: str, change_id: str) -> PlanChange:
    """One change of the company. Raises Refusal (not_found)."""
    async with env.reading() as session:
        row = await change_by_id(session, company_id, change_id)
    if row is None:
        raise Refusal(Code.NOT_FOUND, "There is no such plan change.")
    return shown(row)


async def portal_url(env: Environment, company_id: str, *, return_url: str) -> str:
    """The address of Stripe's billing portal for the company. Raises Refusal when it has no customer there."""
    await _refuse_unknown(env, company_id)
    async with env.reading() as session:
        stripe_customer_ids = await buying_customers_of(session, company_id)
    if not stripe_customer_ids:
        raise Refusal(Code.NOT_FOUND, "There is no billing page now: there is one after the next payment.")
    with within(_ANSWER_SECONDS):
        session_object = await env.gateway.create_portal_session(
            stripe_customer_ids[0], return_url=return_url, idempotency_key=new_id("portal")
        )
    return str(session_object["url"])


async def continued(env: Environment, row: PlanChangeRow, lease: Lease) -> PlanChangeRow:
    """Bring a change as far as it goes now. The lease is held; the state is fetched before anything is written.

    Raises Refusal when the payment failed or Stripe refused; the change is `failed` then. When Stripe is slow the
    change is answered as it is.
    """
    if row.state not in {*UNDER_WAY, *WAITING}:
        _repeat_refusal(row)
        return row
    try:
        mirror = await refetch_held(env, row.company_id, lease)
        row = await current(env, row)
        if row.state in WAITING:
            return await _looked_after(env, row)
        if row.state not in UNDER_WAY:
            _repeat_refusal(row)
            return row
        if await _is_too_old(env, row) and not _is_half_ended(row, mirror):
            row = await _given_up(env, row, mirror)
            # What was left behind is gone: nobody must be refused because of it.
            await refetch_held(env, row.company_id, lease)
            return row
        if row.state == ChangeState.REQUESTED.value:
            async with env.writing() as session:
                await update_change(session, row.id, state=ChangeState.APPLYING.value)
            row = await current(env, row)
        row = await carry_out(env, row, mirror)
        await refetch_held(env, row.company_id, lease)
        row = await current(env, row)
        if row.state in UNDER_WAY:
            row = await _accepted(env, row)
    except StripeFailure as failure:
        if failure.is_final:
            await _failed(env, row, failure)
            raise
        _log.warning("change_unfinished", change=row.id, company=row.company_id, kind=failure.kind.value)
    except Refusal as refusal:
        if refusal.code is Code.CHANGE_IN_PROGRESS:
            raise
        await _failed(env, row, refusal)
        raise
    return await current(env, row)


async def _accepted(env: Environment, row: PlanChangeRow) -> PlanChangeRow:
    """A change that Stripe took, though what was fetched right after shows something else: others were at it too.

    It ends as what Stripe accepted, or it would be under way for ever; the next fetch corrects a scheduled one.
    """
    action = msgspec.convert(row.terms, Terms).action
    reached = ChangeState.APPLIED
    if row.state == ChangeState.CANCELLING.value:
        reached = ChangeState.CANCELLED
    elif action in {Action.SCHEDULE, Action.START_LATER, Action.CANCEL_AT_PERIOD_END}:
        reached = ChangeState.SCHEDULED
    _log.warning("change_concluded_by_acceptance", change=row.id, company=row.company_id, state=reached.value)
    return await moved(env, row, reached, actor=_SYSTEM)


async def _looked_after(env: Environment, row: PlanChangeRow) -> PlanChangeRow:
    """A change that still waits for the customer, as the last fetch found: it is looked at again in a while.

    A page is closed where a subscription to one of our plans began otherwise: nobody pays for two (S26).
    """
    if row.stripe_checkout_session_id is not None and row.state == ChangeState.AWAITING_PAYMENT.value:
        standing = await env.standings.of(row.company_id)
        is_subscribed = standing is not None and standing.snapshot_at(env.clock.now()).subscription is not None
        if is_subscribed and await is_closed(env, row.stripe_checkout_session_id):
            return await moved(env, row, ChangeState.CANCELLED, actor=_SYSTEM, next_action=None)
    async with env.writing() as session:
        await update_change(session, row.id, available_at=wall_now() + timedelta(seconds=POLL_SECONDS))
    return await current(env, row)


async def _failed(env: Environment, row: PlanChangeRow, refusal: Refusal) -> None:
    """Record why a change came to nothing, and put back the scheduled change that it had to release first."""
    row = await current(env, row)
    if row.state == ChangeState.CANCELLING.value:
        # It could not be taken back, so it still waits for its date.
        await moved(env, row, ChangeState.SCHEDULED, actor=_SYSTEM)
    elif row.state in {*UNDER_WAY, *WAITING}:
        state = ChangeState.FAILED if refusal.code in _TRIED else ChangeState.REFUSED
        await moved(env, row, state, actor=_SYSTEM, refusal=refusal_view(refusal), next_action=None)
    if msgspec.convert(row.terms, Terms).action is not Action.UPDATE:
        return
    async with env.reading() as session:
        scheduled = await changes_in(session, row.company_id, ("scheduled",))
        begun = await operations_of(session, row.id)
    for earlier in scheduled:
        is_ending = msgspec.convert(earlier.terms, Terms).action is Action.CANCEL_AT_PERIOD_END
        if is_ending and "keep" not in begun:
            continue  # The scheduled end would have been undone by the very call that failed.
        try:
            await put_back(env, earlier)
        except Refusal as problem:
            _log.warning("schedule_not_put_back", change=earlier.id, code=problem.code.value)


async def _is_too_old(env: Environment, row: PlanChangeRow) -> bool:
    """Whether the first call of this change lies so far back that Stripe has forgotten its keys."""
    async with env.reading() as session:
        operations = await operations_of(session, row.id)
    unfinished = [one.created_at for one in operations.values() if one.completed_at is None]
    return bool(unfinished) and min(unfinished) < wall_now() - KEY_LIFETIME


def _is_half_ended(row: PlanChangeRow, mirror: Mirrored) -> bool:
    """Whether a subscription that ends at once was given back and only waits to be cancelled: that is always done."""
    terms = msgspec.convert(row.terms, Terms)
    raw = mirror.raw(row.stripe_subscription_id or "")
    return terms.action is Action.CANCEL_NOW and raw is not None and is_given_back(terms, raw)


async def _given_up(env: Environment, row: PlanChangeRow, mirror: Mirrored) -> PlanChangeRow:
    """After a day Stripe has forgotten the keys and the offer is stale: leave nothing behind, and say so."""
    await clear_up(env, row, mirror)
    refusal = Refusal(Code.STRIPE_BUSY, "Stripe could not be reached for a day; nothing was changed. Start again.")
    return await moved(env, row, ChangeState.FAILED, actor=_SYSTEM, refusal=refusal_view(refusal), next_action=None)


async def _held_to(env: Environment, promise: Promise, *, actor: Actor) -> Proposal:
    """The quote worked out once more on what was just fetched. Raises Refusal (quote_stale) when it differs."""
    try:
        pinned = promise.proration_at
        proposal = await propose(env, promise.company_id, promise.request, actor=actor, proration_at=pinned)
        if msgspec.structs.replace(proposal.promise, quote_id=promise.quote_id) == promise:
            return proposal
    except StripeFailure as failure:
        # Stripe counts from no instant of a period that is over; the new quote says what it says now.
        if failure.kind is not FailureKind.REFUSED:
            raise
    newest = await propose(env, promise.company_id, promise.request, actor=actor)
    raise Refusal(
        Code.QUOTE_STALE,
        "Something this quote was worked out from has changed; nothing was charged. Look at the new quote.",
        extra={"quote": msgspec.to_builtins(newest.quote)},
    )


async def _refuse_if_over(env: Environment, promise: Promise, expires_at: datetime, *, actor: Actor) -> None:
    try:
        refuse_if_over(expires_at, wall_now=wall_now())
    except Refusal as refusal:
        newest = await propose(env, promise.company_id, promise.request, actor=actor)
        raise Refusal(refusal.code, refusal.detail, extra={"quote": msgspec.to_builtins(newest.quote)}) from None


async def _settled(env: Environment, company_id: str, lease: Lease) -> None:
    """Look at what became of changes that were given up; what they had taken away is made again."""
    await refetch_held(env, company_id, lease)
    async with env.reading() as session:
        rows = await changes_in(session, company_id, UNDER_WAY)
    for row in rows:
        await continued(env, row, lease)


async def _record(
    env: Environment, proposal: Proposal, promise: Promise, *, actor: Actor, return_url: str | None
) -> PlanChangeRow:
    """Save the intent. The quote's id is unique, so one quote is one intent."""
    catalog = await env.catalog()
    terms = proposal.drafted.terms
    if terms.action is Action.CHECKOUT and return_url is None:
        raise invalid("/return_url", "The customer pays on Stripe's page: send the address to come back to.")
    subscription = proposal.subscription
    change_id = new_id("chg")
    async with env.writing() as session:
        row = PlanChangeRow(
            id=change_id,
            environment_id=env.id,
            company_id=promise.company_id,
            quote_id=promise.quote_id,
            state=ChangeState.REQUESTED.value,
            kind=proposal.quote.kind.value,
            is_scheduled=proposal.quote.is_scheduled,
            held=msgspec.to_builtins(side(resolved(catalog, proposal.held))),
            target=msgspec.to_builtins(side(resolved(catalog, proposal.target))),
            terms=msgspec.to_builtins(terms),
            effective_at=proposal.effective_at,
            requested_by=msgspec.to_builtins(actor),
            return_url=return_url,
            stripe_customer_id=proposal.stripe_customer_id,
            stripe_subscription_id=subscription.stripe_subscription_id if subscription is not None else None,
            stripe_schedule_id=terms.stripe_schedule_id,
            available_at=wall_now() + _FIRST_RESUME,
            created_at=session.now,
            updated_at=session.now,
        )
        await env.touch(session, promise.company_id)
        if not await insert_change(session, row):
            raise Refusal(Code.CHANGE_IN_PROGRESS, "This quote is being confirmed already; look at it in a moment.")
        await append_audit(
            session,
            actor=actor,
            action="plan_change.requested",
            subject=change_id,
            company_id=promise.company_id,
            before=row.held,
            after=row.target,
            note=promise.request.force.reason if promise.request.force is not None else "",
        )
    return await current(env, row)


async def _change_of(env: Environment, quote_id: str) -> PlanChangeRow | None:
    async with env.reading() as session:
        return await change_by_quote(session, quote_id)


async def _put_off(env: Environment, row: PlanChangeRow) -> None:
    wait = min(2 ** min(row.attempts + 1, 12), _BACKOFF_SECONDS_MAX)
    async with env.writing() as session:
        await update_change(
            session, row.id, attempts=row.attempts + 1, available_at=wall_now() + timedelta(seconds=wait)
        )


async def _refuse_unknown(env: Environment, company_id: str) -> None:
    async with env.reading() as session:
        if not await is_company(session, company_id):
            raise Refusal(Code.NOT_FOUND, "There is no such company.")


def _repeat_refusal(row: PlanChangeRow) -> None:
    """A quote that failed once fails again in the same words: one intent has one end."""
    if row.state in {ChangeState.FAILED.value, ChangeState.REFUSED.value} and row.refusal is not None:
        raise Refusal(Code(row.refusal["code"]), row.refusal["detail"], extra={"change": row.id})


def _checked_url(env: Environment, url: str | None, *, actor: Actor) -> str | None:
    """The address to come back to. An end customer's must be on a site that may use the components."""
    if url is None:
        origins: Sequence[str] = env.settings.allowed_origins
        return origins[0] if origins else None
    parts = urlsplit(url) if len(url) <= _URL_LENGTH_MAX else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.netloc or parts.username is not None:
        raise invalid("/return_url", "Send an http or https address to come back to.")
    if actor.kind == "customer" and f"{parts.scheme}://{parts.netloc}" not in env.settings.allowed_origins:
        raise invalid("/return_url", "The address to come back to is not one of this environment's allowed origins.")
    return url
