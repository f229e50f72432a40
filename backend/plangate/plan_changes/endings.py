"""Ends a subscription at once: what is unused is given back for the instant that was quoted, then nothing is left.

Stripe's cancel call counts unused time to the second in which it acts, so what it gives back cannot be promised
beforehand. An update takes the instant it counts from. So the items paid in advance are taken away by an update, which
also begins a new period and thereby bills the usage of the one that ends; what is cancelled then costs nothing.
"""

from datetime import datetime

from plangate.billing.failures import StripeFailure
from plangate.billing.transport import StripeJson
from plangate.change_terms import Terms
from plangate.engine.facts import SubscriptionFact, SubscriptionItem
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.mirroring import Mirrored
from plangate.plan_changes.steps import step
from plangate.store.plan_changes import PlanChangeRow


def giving_back(subscription: SubscriptionFact, *, proration_at: datetime) -> StripeJson:
    """The update that takes away all that was paid in advance; empty where nothing is to be given back by the second.

    That is so in a trial, of usage alone, and while collection is paused, when an update's invoice would be voided.
    While a payment is overdue nothing is given back at all, as Stripe's prorations count open invoices as paid: what
    is answered then is a cancellation without them, which leaves the usage until now to be billed.
    """
    if subscription.status == "past_due":
        return {"cancel_now": True, "proration_behavior": "none"}
    advance = [item for item in subscription.items if not item.is_metered]
    is_running = subscription.status == "active" and not subscription.is_collection_paused
    if not is_running or not any(item.quantity for item in advance):
        return {}
    kept = None
    if len(advance) == len(subscription.items):
        # Stripe keeps no subscription without items.
        kept = next((item for item in advance if item.unit_amount_minor is not None), advance[0])
    items: list[StripeJson] = [] if kept is None else [_nothing_of(kept)]
    items += [{"id": item.stripe_item_id, "deleted": True} for item in advance if item is not kept]
    return {
        "items": items,
        "proration_behavior": "always_invoice",
        "proration_date": int(proration_at.timestamp()),
        "billing_cycle_anchor": {"type": "now"},
    }


def is_given_back(terms: Terms, raw: StripeJson) -> bool:
    """Whether the fetched subscription shows that update as made; False where there is none to make."""
    held = {item["id"]: item for item in raw["items"]["data"]}
    asked = terms.params.get("items", ())
    return bool(asked) and all(
        item["id"] not in held if item.get("deleted") else _is_nothing(held.get(item["id"]), item) for item in asked
    )


async def end_now(env: Environment, row: PlanChangeRow, terms: Terms, mirror: Mirrored) -> None:
    """Give back what was quoted, then cancel. Raises StripeFailure, with nothing changed when that is final.

    Once it was given back there is no way back: Raises Refusal (change_in_progress) when Stripe refuses to cancel then,
    and the worker tries again.
    """
    stripe_subscription_id = row.stripe_subscription_id or ""
    raw = mirror.raw(stripe_subscription_id) or {}
    if "items" not in terms.params:
        is_prorated = terms.params.get("proration_behavior") != "none"
        await _cancel(env, row, stripe_subscription_id, is_prorated=is_prorated, is_invoiced=True)
        return
    if not is_given_back(terms, raw):
        params = {**terms.params, **await _collected(env, row, raw)}
        await step(
            env,
            row,
            "give_back",
            params,
            lambda sent, key: env.gateway.update_subscription(stripe_subscription_id, sent, idempotency_key=key),
        )
    try:
        await _cancel(env, row, stripe_subscription_id, is_prorated=False, is_invoiced=False)
    except StripeFailure as failure:
        if not failure.is_final:
            raise
        raise Refusal(
            Code.CHANGE_IN_PROGRESS,
            f"What is unused was given back, but Stripe did not end the subscription yet: {failure.detail}",
            extra={"change": row.id},
        ) from failure


async def _cancel(
    env: Environment, row: PlanChangeRow, stripe_subscription_id: str, *, is_prorated: bool, is_invoiced: bool
) -> None:
    await step(
        env,
        row,
        "cancel_now",
        {},
        lambda _params, key: env.gateway.cancel_subscription(
            stripe_subscription_id, is_prorated=is_prorated, is_invoiced=is_invoiced, idempotency_key=key
        ),
    )


async def _collected(env: Environment, row: PlanChangeRow, raw: StripeJson) -> StripeJson:
    """How usage beyond what is given back is collected. An unpaid invoice never keeps anybody from cancelling."""
    if raw.get("collection_method") != "charge_automatically":
        return {}
    method = raw.get("default_payment_method")
    if method is None and row.stripe_customer_id is not None:
        method = await env.gateway.default_payment_method(row.stripe_customer_id)
    return {"payment_behavior": "default_incomplete" if method is None else "allow_incomplete"}


def _nothing_of(item: SubscriptionItem) -> StripeJson:
    """The change of an item that leaves nothing to pay: none of it, or where none may cost something, another price."""
    if item.unit_amount_minor is not None:
        return {"id": item.stripe_item_id, "quantity": 0}
    free: StripeJson = {
        "currency": item.currency,
        "product": item.stripe_product_id,
        "recurring": {"interval": item.interval.value, "interval_count": item.interval_count},
        "unit_amount": 0,
    }
    return {"id": item.stripe_item_id, "price_data": free, "quantity": 0}


def _is_nothing(item: StripeJson | None, asked: StripeJson) -> bool:
    if item is None or item.get("quantity") != 0:
        return False
    return "price_data" not in asked or item["price"].get("unit_amount") == 0
