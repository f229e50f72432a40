"""A recorded change as the API, the Stripe App and the components show it, and how its state is moved on."""

from collections.abc import Mapping
from typing import Any

import msgspec

from plangate.engine.holding import Holding
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.shapes import (
    Actor,
    AgreedPrice,
    ChangeKind,
    ChangeState,
    ChangeTarget,
    NextAction,
    PlanChange,
    RefusalView,
)
from plangate.store.audit import append_audit
from plangate.store.plan_changes import PlanChangeRow, change_by_id, update_change


def shown(row: PlanChangeRow) -> PlanChange:
    """The recorded change in its outer shape."""
    return PlanChange(
        id=row.id,
        state=ChangeState(row.state),
        kind=ChangeKind(row.kind),
        from_=msgspec.convert(row.held, ChangeTarget),
        to=msgspec.convert(row.target, ChangeTarget),
        effective_at=row.effective_at,
        next_action=None if row.next_action is None else msgspec.convert(row.next_action, NextAction),
        requested_by=msgspec.convert(row.requested_by, Actor),
        refusal=None if row.refusal is None else msgspec.convert(row.refusal, RefusalView),
        company=row.company_id,
        created_at=row.created_at,
    )


def side(holding: Holding) -> ChangeTarget:
    """One side of a change, as it is recorded."""
    own = holding.own_price
    return ChangeTarget(
        plan=holding.plan,
        version=holding.version,
        interval=None if holding.interval is None else holding.interval.value,
        interval_count=holding.interval_count,
        currency=holding.currency,
        quantity=holding.quantity,
        add_ons=dict(holding.add_ons),
        units=dict(holding.units),
        custom_price=None
        if own is None
        else AgreedPrice(
            amount_minor=own.amount_minor,
            currency=own.currency,
            interval=own.interval.value,
            interval_count=own.interval_count,
        ),
    )


async def current(env: Environment, row: PlanChangeRow) -> PlanChangeRow:
    """The row as it is stored now."""
    async with env.reading() as session:
        found = await change_by_id(session, row.company_id, row.id)
    if found is None:
        raise LookupError(f"plan change {row.id} vanished")
    return found


async def moved(
    env: Environment,
    row: PlanChangeRow,
    state: ChangeState,
    *,
    actor: Actor,
    note: str = "",
    **values: Any,  # noqa: ANN401 - columns of the row
) -> PlanChangeRow:
    """Put a change into another state, with its audit entry, and answer the row as stored."""
    async with env.writing() as session:
        # The company's scheduled change and notices are shown from these rows. It is locked before the audit,
        # as everywhere, so that two writers never wait for each other.
        await env.touch(session, row.company_id)
        await update_change(session, row.id, state=state.value, **values)
        await append_audit(
            session,
            actor=actor,
            action=f"plan_change.{state.value}",
            subject=row.id,
            company_id=row.company_id,
            before={"state": row.state},
            after={"state": state.value},
            note=note,
        )
    return await current(env, row)


def completed(change: PlanChange, *, headers: Mapping[str, str] | None = None) -> PlanChange:
    """The change, unless the customer's bank must agree to the payment first (S21).

    Raises Refusal (action_required, 402) with `next_action` and the `change`, which goes on as soon as it was paid.
    """
    if change.state is not ChangeState.REQUIRES_ACTION:
        return change
    raise Refusal(
        Code.ACTION_REQUIRED,
        "The bank wants the customer to confirm this payment: send them to `next_action.url`. Until then nothing is "
        "changed.",
        extra={"next_action": msgspec.to_builtins(change.next_action), "change": msgspec.to_builtins(change)},
        headers=headers,
    )


def refusal_view(refusal: Refusal) -> dict[str, str]:
    """What is kept of a refusal beside the change that met it."""
    return {"code": refusal.code.value, "detail": refusal.detail}
