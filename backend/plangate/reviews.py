"""Refunds and disputes: recorded for a person to look at, and by policy without access until one did.

Nothing is ever revoked silently, and a dispute that is won gives back what it took (S24). What is stored follows from
the charge as Stripe holds it now, so that any order of events ends in the same reviews.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from plangate.billing.gateway import reference
from plangate.billing.payment_calls import Payment
from plangate.billing.transport import StripeJson
from plangate.engine.catalog import CatalogSettings
from plangate.engine.entitlements import build_snapshot
from plangate.environment import Environment, Lease
from plangate.errors import Code, Refusal, invalid
from plangate.ids import new_id
from plangate.mirroring import company_of_customer
from plangate.settling import STRIPE
from plangate.shapes import Actor
from plangate.store.audit import append_audit
from plangate.store.company_terms import withhold
from plangate.store.database import StoreSession
from plangate.store.ledger import lock_companies
from plangate.store.reviews import (
    ReviewRow,
    ReviewState,
    is_withheld_by_others,
    page_of_reviews,
    review_of,
    review_row,
    update_review,
)
from plangate.store.snapshot import company_facts
from plangate.usage_windows import rebind_windows

NOTE_MAX: Final = 1_000
_WON: Final = frozenset({"won", "warning_closed", "prevented"})
_PAGE_MAX: Final = 100

Access = Literal["keep", "revoke"]
__all__ = ["Access", "Review", "ReviewState", "learn_of_charge", "listing", "resolve"]


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """A refund or dispute to look at. `access` says whether the subscription it paid for grants what it says.

    `stripe_status` is Stripe's word for a dispute, and `refunded`, `partially_refunded` or `not_refunded`. `outcome`
    is `keep`, `revoke`, `dispute_won`, or `refund_failed`.
    """

    id: str
    company: str
    kind: Literal["refund", "dispute"]
    state: ReviewState
    stripe_object_id: str
    stripe_charge_id: str
    stripe_subscription_id: str | None
    stripe_status: str
    amount_minor: int
    currency: str
    access: Literal["kept", "withheld"]
    outcome: str | None
    note: str
    resolved_by: Actor | None
    opened_at: datetime
    resolved_at: datetime | None


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What Stripe says of one refunded charge or one dispute."""

    kind: Literal["refund", "dispute"]
    stripe_object_id: str
    stripe_status: str
    amount_minor: int
    currency: str
    is_whole: bool

    @property
    def undoing(self) -> tuple[str, str] | None:
        """The outcome, and why, when the payment stands after all."""
        if self.kind == "dispute" and self.stripe_status in _WON:
            return "dispute_won", "The bank decided for us."
        if self.kind == "refund" and self.amount_minor == 0:
            return "refund_failed", "The refund did not go through, so the payment stands."
        return None


async def learn_of_charge(env: Environment, stripe_charge_id: str) -> bool:
    """Look at a charge again and keep what it says of refunds and disputes; False when it is none of our companies'.

    Raises `StripeFailure`, or Refusal when the company is busy.
    """
    charge = await env.gateway.payments.fetch_charge(stripe_charge_id)
    stripe_customer_id = None if charge is None else reference(charge.get("customer"))
    if stripe_customer_id is None:
        return False
    async with env.reading() as session:
        company_id = await company_of_customer(session, stripe_customer_id)
    if company_id is None:
        return False
    async with env.lease(company_id, wait_seconds=2) as lease:
        # Fetched again under the lease: who fetched earlier must not write later.
        payment = await env.gateway.payments.fetch_payment(stripe_charge_id)
        if payment is not None:
            await _keep(env, company_id, lease, payment)
    return True


async def listing(
    env: Environment,
    *,
    state: ReviewState | None = ReviewState.OPEN,
    company_id: str | None = None,
    before: str | None = None,
    limit: int = _PAGE_MAX,
) -> list[Review]:
    """Reviews, the newest first; those before one of them, to go on there."""
    async with env.reading() as session:
        rows = await page_of_reviews(session, state=state, company_id=company_id, before=before, limit=limit)
    return [_shown(row) for row in rows]


async def resolve(env: Environment, review_id: str, *, access: Access, note: str, actor: Actor) -> Review:
    """Close a review: the company keeps what it pays for, or the subscription grants nothing from now on.

    A closed one may be decided anew. Raises Refusal: 404, 422 for a note that is empty or too
    long, and when there is no subscription to revoke.
    """
    if not note.strip() or len(note) > NOTE_MAX:
        raise invalid("/note", f"Say why, in 1 to {NOTE_MAX:,} characters.")
    async with env.reading() as session:
        found = await review_row(session, review_id)
    if found is None:
        raise Refusal(Code.NOT_FOUND, "There is no such review.")
    async with env.writing() as session:
        await lock_companies(session, [found.company_id])
        row = await review_row(session, review_id)
        if row is None:
            raise Refusal(Code.NOT_FOUND, "There is no such review.")
        if access == "revoke" and row.stripe_subscription_id is None:
            raise invalid("/access", "What was paid is no subscription, so there is no access to revoke: keep it.")
        await _close(env, session, row, outcome=access, note=note, actor=actor)
        row = await review_row(session, review_id)
    if row is None:
        raise LookupError(f"review {review_id} vanished")
    return _shown(row)


async def _keep(env: Environment, company_id: str, lease: Lease, payment: Payment) -> None:
    settings = (await env.catalog()).settings
    async with env.writing() as session:
        if not await lease.still_held(session):
            raise Refusal(Code.CHANGE_IN_PROGRESS, "Another change of this company took over. It will be tried again.")
        await lock_companies(session, [company_id])
        for told in _told_by(payment):
            row = await review_of(session, told.stripe_object_id)
            if row is None and told.amount_minor > 0:
                await _open(env, session, company_id, payment, told, settings)
            elif row is not None:
                await _follow(env, session, row, told, settings)


def _told_by(payment: Payment) -> Sequence[_Told]:
    charge: StripeJson = payment.charge
    found = [
        _Told(
            kind="dispute",
            stripe_object_id=dispute["id"],
            stripe_status=dispute["status"],
            amount_minor=dispute["amount"],
            currency=dispute["currency"],
            is_whole=dispute["amount"] >= charge["amount"],
        )
        for dispute in payment.disputes
    ]
    refund = _Told(
        kind="refund",
        stripe_object_id=charge["id"],
        stripe_status=_refunded(charge),
        amount_minor=charge["amount_refunded"],
        currency=charge["currency"],
        is_whole=bool(charge["refunded"]),
    )
    return [*found, refund]


def _refunded(charge: StripeJson) -> str:
    if charge["refunded"]:
        return "refunded"
    return "partially_refunded" if charge["amount_refunded"] > 0 else "not_refunded"


async def _open(
    env: Environment,
    session: StoreSession,
    company_id: str,
    payment: Payment,
    told: _Told,
    settings: CatalogSettings,
) -> None:
    if _policy(settings, told) == "ignore":
        return
    row = ReviewRow(
        id=new_id("rev"),
        environment_id=env.id,
        company_id=company_id,
        kind=told.kind,
        stripe_object_id=told.stripe_object_id,
        stripe_charge_id=payment.charge["id"],
        stripe_subscription_id=payment.stripe_subscription_id,
        stripe_status=told.stripe_status,
        amount_minor=told.amount_minor,
        currency=told.currency,
        is_whole=told.is_whole,
        opened_at=session.now,
    )
    await session.add(row)
    await _note(session, STRIPE, "review.opened", row, after=_summary(told))
    if told.undoing is not None:
        outcome, why = told.undoing
        await _close(env, session, row, outcome=outcome, note=why, actor=STRIPE)
    elif _revokes(settings, told):
        await _set_withheld(env, session, row, is_withheld=True)


async def _follow(
    env: Environment, session: StoreSession, row: ReviewRow, told: _Told, settings: CatalogSettings
) -> None:
    """Bring a review to what Stripe says now. A decided one is opened again when there is more to decide."""
    if (row.stripe_status, row.amount_minor) == (told.stripe_status, told.amount_minor):
        return
    is_more = told.amount_minor > row.amount_minor or told.stripe_status == "lost"
    values: dict[str, object] = {
        "stripe_status": told.stripe_status,
        "amount_minor": told.amount_minor,
        "is_whole": told.is_whole,
    }
    if is_more and row.outcome != "revoke":
        values |= {"state": ReviewState.OPEN.value, "outcome": None, "resolved_at": None, "resolved_by": None}
    await update_review(session, row.id, **values)
    before = {"stripe_status": row.stripe_status, "amount_minor": row.amount_minor}
    await _note(session, STRIPE, "review.updated", row, before=before, after=_summary(told))
    changed = await review_row(session, row.id)
    if changed is None:
        return
    is_decided = told.kind == "refund" and row.outcome == "revoke"  # by a person, who may have other reasons
    if told.undoing is not None and not is_decided:
        outcome, why = told.undoing
        await _close(env, session, changed, outcome=outcome, note=why, actor=STRIPE)
    elif changed.state == ReviewState.OPEN.value and _revokes(settings, told):
        await _set_withheld(env, session, changed, is_withheld=True)


async def _close(
    env: Environment, session: StoreSession, row: ReviewRow, *, outcome: str, note: str, actor: Actor
) -> None:
    await update_review(
        session,
        row.id,
        state=ReviewState.RESOLVED.value,
        outcome=outcome,
        note=note,
        resolved_by=msgspec.to_builtins(actor),
        resolved_at=session.now,
    )
    await _set_withheld(env, session, row, is_withheld=outcome == "revoke")
    await _note(session, actor, "review.resolved", row, after={"outcome": outcome}, note=note)


async def _set_withheld(env: Environment, session: StoreSession, row: ReviewRow, *, is_withheld: bool) -> None:
    """Let the subscription grant nothing, or again what it says unless another review still withholds it."""
    if row.stripe_subscription_id is None or row.is_withheld is is_withheld:
        return
    await update_review(session, row.id, is_withheld=is_withheld)
    if await is_withheld_by_others(session, row):
        return
    catalog = await env.catalog()
    before = await company_facts(session, row.company_id)
    await withhold(session, row.company_id, row.stripe_subscription_id, is_withheld=is_withheld)
    after = await company_facts(session, row.company_id)
    if before is not None and after is not None:
        snapshots = [build_snapshot(catalog, facts, session.now) for facts in (before, after)]
        await rebind_windows(env, session, *snapshots)
    await env.touch(session, row.company_id)


def _policy(settings: CatalogSettings, told: _Told) -> Literal["review", "revoke", "ignore"]:
    return settings.on_refund if told.kind == "refund" else settings.on_dispute


def _revokes(settings: CatalogSettings, told: _Told) -> bool:
    """Whether the policy takes access away: for a dispute until it is won, for a refund only of the whole payment."""
    return _policy(settings, told) == "revoke" and (told.kind == "dispute" or told.is_whole)


def _summary(told: _Told) -> dict[str, object]:
    return {"stripe_status": told.stripe_status, "amount_minor": told.amount_minor, "currency": told.currency}


async def _note(
    session: StoreSession, actor: Actor, action: str, row: ReviewRow, *, note: str = "", **told: object
) -> None:
    await append_audit(
        session, actor=actor, action=action, subject=row.id, company_id=row.company_id, note=note, **told
    )


def _shown(row: ReviewRow) -> Review:
    return Review(
        id=row.id,
        company=row.company_id,
        kind="refund" if row.kind == "refund" else "dispute",
        state=ReviewState(row.state),
        stripe_object_id=row.stripe_object_id,
        stripe_charge_id=row.stripe_charge_id,
        stripe_subscription_id=row.stripe_subscription_id,
        stripe_status=row.stripe_status,
        amount_minor=row.amount_minor,
        currency=row.currency,
        access="withheld" if row.is_withheld else "kept",
        outcome=row.outcome,
        note=row.note,
        resolved_by=None if row.resolved_by is None else msgspec.convert(row.resolved_by, Actor),
        opened_at=row.opened_at,
        resolved_at=row.resolved_at,
    )
