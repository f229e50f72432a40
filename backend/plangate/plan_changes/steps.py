"""One call to Stripe of a saved change: key and parameters are saved before its first try, the answer afterwards."""

from collections.abc import Awaitable, Callable
from typing import Final

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.transport import StripeJson
from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.store.plan_changes import (
    PlanChangeRow,
    StripeOperationRow,
    begin_operation,
    complete_operation,
    operations_of,
)

_TRIES_MAX: Final = 5
_DEAD: Final = "is_dead"


async def step(
    env: Environment,
    row: PlanChangeRow,
    name: str,
    params: StripeJson,
    call: Callable[[StripeJson, str], Awaitable[StripeJson]],
    *,
    keep: tuple[str, ...] = ("id",),
) -> StripeJson:
    """One write to Stripe: key and parameters saved first, the kept members of the answer afterwards.

    A step that was answered is not repeated. A stored server error would come back for every repetition of its key,
    so the next try of that step gets a key of its own, after the state was fetched again.
    """
    operation = await _begun(env, row, name, params)
    if operation.completed_at is not None:
        return dict(operation.result)
    try:
        answered = await call(dict(operation.params), operation.idempotency_key)
    except StripeFailure as failure:
        if failure.was_replayed and failure.kind is FailureKind.UNCERTAIN:
            await _completed(env, row, operation.step, {_DEAD: True})
        raise
    kept: StripeJson = {member: answered.get(member) for member in keep}
    await _completed(env, row, operation.step, kept)
    return kept


async def _begun(env: Environment, row: PlanChangeRow, name: str, params: StripeJson) -> StripeOperationRow:
    """The saved step, that of the first try when there was one; a later one when earlier keys are of no more use."""
    for number in range(1, _TRIES_MAX + 1):
        named = name if number == 1 else f"{name}#{number}"
        async with env.writing() as session:
            operation = await begin_operation(
                session,
                StripeOperationRow(
                    environment_id=env.id,
                    intent_id=row.id,
                    step=named,
                    idempotency_key=f"{row.id}:{named}",
                    params=params,
                    created_at=wall_now(),
                ),
            )
        is_dead = operation.completed_at is not None and bool((operation.result or {}).get(_DEAD))
        if not is_dead:
            return operation
    raise Refusal(Code.STRIPE_BUSY, "Stripe failed at this step several times; start the change again later.")


async def _completed(env: Environment, row: PlanChangeRow, name: str, result: StripeJson) -> None:
    async with env.writing() as session:
        await complete_operation(session, row.id, name, result=result, wall_now=wall_now())


async def operations(env: Environment, row: PlanChangeRow) -> dict[str, StripeOperationRow]:
    async with env.reading() as session:
        return await operations_of(session, row.id)
