"""Carries out what sales agreed on: makes the company's own price, and starts a subscription on its day."""

from collections.abc import Mapping

import msgspec

from plangate.billing.transport import StripeJson
from plangate.change_terms import OwnPrice, Terms, priced
from plangate.environment import Environment
from plangate.plan_changes.custom import lookup_key_of, price_params
from plangate.plan_changes.lines import start_items
from plangate.plan_changes.steps import step
from plangate.store.catalog import StripePriceRow, save_stripe_price
from plangate.store.plan_changes import PlanChangeRow, update_change


async def with_own_price(env: Environment, row: PlanChangeRow, terms: Terms) -> Terms:
    """The terms with the price agreed on, which is made in Stripe and mapped to the plan of this company alone.

    Whoever else had it on a subscription would hold an unknown price. Raises StripeFailure.
    """
    own = terms.own
    if own is None:
        return terms
    params = price_params(own, row.company_id, row.id)

    async def make(sent: StripeJson, key: str) -> StripeJson:
        lookup_key = lookup_key_of(own, row.company_id)
        found = await env.gateway.catalog.find_price(lookup_key)
        if found is None:
            return await env.gateway.catalog.create_price(lookup_key, sent, idempotency_key=key)
        if not found["active"]:
            return await env.gateway.catalog.set_price_active(found["id"], is_active=True, idempotency_key=f"{key}:on")
        return found

    made = await step(env, row, "own_price", params, make)
    settled = msgspec.structs.replace(priced(terms, made["id"]), own=None)
    async with env.writing() as session:
        await save_stripe_price(session, _price_row(env, row.company_id, own, made["id"]))
        env.touch_catalog(session)
        await update_change(session, row.id, terms=msgspec.to_builtins(settled))
    return settled


async def start_later(
    env: Environment, row: PlanChangeRow, terms: Terms, *, stripe_customer_id: str, marks: Mapping[str, str]
) -> None:
    """Let a schedule start the subscription on its day, and leave it alone after the first period."""
    collection = {name: value for name, value in terms.collection.items() if name == "collection_method"}
    if "days_until_due" in terms.collection:
        collection["invoice_settings"] = {"days_until_due": terms.collection["days_until_due"]}
    phase: StripeJson = {
        "items": start_items(terms.lines),
        "duration": {"interval": terms.interval.value, "interval_count": terms.interval_count},
        "metadata": dict(marks),
        "proration_behavior": "none",
        **collection,
    }
    if terms.promotion_code is not None:
        phase["discounts"] = [{"promotion_code": terms.promotion_code}]
    params: StripeJson = {
        "customer": stripe_customer_id,
        "start_date": terms.boundary,
        "end_behavior": "release",
        "metadata": dict(marks),
        "default_settings": collection,
        "phases": [phase],
    }
    made = await step(
        env, row, "schedule_start", params, lambda sent, key: env.gateway.schedules.start(sent, idempotency_key=key)
    )
    async with env.writing() as session:
        await update_change(session, row.id, stripe_schedule_id=made["id"], stripe_customer_id=stripe_customer_id)


def _price_row(env: Environment, company_id: str, own: OwnPrice, stripe_price_id: str) -> StripePriceRow:
    return StripePriceRow(
        environment_id=env.id,
        stripe_price_id=stripe_price_id,
        stripe_product_id=own.stripe_product_id,
        owner_kind="plan",
        owner_key=own.plan,
        owner_version=own.version,
        currency=own.currency,
        interval=own.interval.value,
        interval_count=own.interval_count,
        amount_minor=own.amount_minor,
        company_id=company_id,
        recorded_at=env.clock.now(),
    )
