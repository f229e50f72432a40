"""Hard cases of schedules and subscriptions that no other test bears the name of."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from plangate import plan_changes
from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.schedule_calls import ScheduleCalls
from plangate.clock import wall_now
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeKind, ChangeState
from plangate.store.plan_changes import plan_changes as rows_table
from plangate.store.plan_changes import stripe_operations
from tests.shop import CUSTOMER, Shop


def _busy(*_args: object, **_options: object) -> None:
    raise StripeFailure(FailureKind.UNCERTAIN, Code.STRIPE_BUSY, "Stripe did not answer.")


async def test_d1_our_own_schedule_is_written_anew_and_no_second_one_made(shop: Shop) -> None:
    await shop.subscribed(plan="pro", interval="year")
    first = await shop.change(plan="starter")
    second = await shop.change(plan="starter", interval="month")
    assert second.state is ChangeState.SCHEDULED
    assert (await plan_changes.get(shop.env, shop.company_id, first.id)).state is ChangeState.CANCELLED
    (schedule,) = shop.objects("subscription_schedule")
    assert (schedule["status"], schedule["metadata"]["plangate_change"]) == ("active", second.id)
    shop.advance("P366D")
    await shop.sync()
    assert (await shop.snapshot()).cycle.interval == "month"


async def test_d1_a_foreign_schedule_is_respected(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed(plan="pro")
    shop.stripe.subscription_schedules.create({"from_subscription": stripe_subscription_id})
    await shop.sync()
    with pytest.raises(Refusal) as caught:
        await shop.preview(plan="starter")
    assert (caught.value.code, caught.value.status) == (Code.FOREIGN_SCHEDULE, 409)
    (schedule,) = shop.objects("subscription_schedule")
    assert (schedule["status"], len(schedule["phases"])) == ("active", 1)


async def test_d2_a_schedule_left_without_its_phases_is_released(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.subscribed(plan="pro")
    quote = await shop.preview(plan="starter")
    with monkeypatch.context() as patched:
        patched.setattr(ScheduleCalls, "update", _busy)
        assert (await shop.confirm(quote)).state is ChangeState.APPLYING
    (orphan,) = shop.objects("subscription_schedule")
    assert (orphan["status"], len(orphan["phases"]), orphan["metadata"]) == ("active", 1, {})
    # A day later Stripe has forgotten the keys, and the offer is stale.
    async with shop.env.writing() as session:
        await session.run(update(stripe_operations).values(created_at=wall_now() - timedelta(hours=24)))
        await session.run(update(rows_table).values(available_at=wall_now() - timedelta(seconds=1)))
    await plan_changes.resume_unfinished(shop.env)
    (orphan,) = shop.objects("subscription_schedule")
    assert orphan["status"] == "released"
    assert next(row.state for row in await shop.rows()) == "failed"
    assert (await shop.change(plan="starter")).state is ChangeState.SCHEDULED


async def test_d4_the_running_phase_keeps_its_start(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    shop.advance("P10D")
    await shop.sync()
    await shop.change(plan="starter")
    (subscription,) = shop.objects("subscription")
    (written,) = [one for one in shop.requests() if "phases" in one["params"]]
    assert int(written["params"]["phases"][0]["start_date"]) == subscription["items"]["data"][0]["current_period_start"]


async def test_d8_the_subscription_outlives_the_schedule(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    await shop.change(plan="starter")
    shop.advance("P100D")
    await shop.sync()
    (schedule,) = shop.objects("subscription_schedule")
    (subscription,) = shop.objects("subscription")
    assert (schedule["status"], subscription["status"]) == ("released", "active")
    assert await shop.plan() == "starter"


async def test_d15_the_clock_alone_never_changes_the_plan(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    change = await shop.change(plan="starter")
    shop.advance("P32D")
    # Stripe is at it, and nobody fetched anything yet.
    assert await shop.plan() == "pro"
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.SCHEDULED
    await shop.sync()
    assert await shop.plan() == "starter"


async def test_d18_what_is_scheduled_is_shown_until_stripe_has_let_go(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.subscribed(plan="pro")
    change = await shop.change(plan="starter")
    with monkeypatch.context() as patched:
        patched.setattr(ScheduleCalls, "release", _busy)
        cancelling = await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)
    assert (cancelling.id, cancelling.state) == (change.id, ChangeState.CANCELLING)
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert len(subscription.phases) == 1
    async with shop.env.writing() as session:
        await session.run(update(rows_table).values(available_at=wall_now() - timedelta(seconds=1)))
    await plan_changes.resume_unfinished(shop.env)
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.CANCELLED
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert subscription.phases == ()


async def test_s2_a_subscription_that_never_began_is_none(shop: Shop) -> None:
    customer = await shop.customer("pm_card_chargeCustomerFail")
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.create(
        {"customer": customer, "items": [{"price": price}], "payment_behavior": "default_incomplete"}
    )
    shop.advance("P1D")
    await shop.sync()
    assert [one["status"] for one in shop.objects("subscription")] == ["incomplete_expired"]
    shop.new_card(customer, "pm_card_visa")
    change = await shop.change(plan="starter")
    assert (change.kind, change.state) == (ChangeKind.SUBSCRIBE, ChangeState.APPLIED)


async def test_s20_two_servers_set_a_number_and_never_add_to_it(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    quotes = [await shop.preview(quantities={"plan": number}) for number in (3, 5)]
    found = await asyncio.gather(*(shop.confirm(quote) for quote in quotes), return_exceptions=True)
    (refused,) = [one for one in found if isinstance(one, Refusal)]
    assert refused.code in {Code.QUOTE_STALE, Code.CHANGE_IN_PROGRESS}
    (subscription,) = shop.objects("subscription")
    assert subscription["items"]["data"][0]["quantity"] in {3, 5}


async def test_s23_a_subscription_that_is_invoiced_changes_without_a_card(shop: Shop) -> None:
    customer = await shop.customer(None)
    price = (await shop.env.catalog()).plans["starter"].prices[0].stripe_price_id or ""
    asked: Any = {"customer": customer, "items": [{"price": price}]}
    asked |= {"collection_method": "send_invoice", "days_until_due": 30}
    shop.stripe.subscriptions.create(asked)
    await shop.sync()
    change = await shop.change(plan="pro")
    assert change.state is ChangeState.APPLIED
    assert await shop.plan() == "pro"
    (sent,) = [one for one in shop.requests(path="/v1/subscriptions/") if "items" in one["params"]]
    assert "payment_behavior" not in sent["params"]


async def test_s25_whoever_comes_back_before_the_webhook_does_not_buy_twice(shop: Shop) -> None:
    change = await shop.change(plan="pro")
    assert change.next_action is not None
    assert shop.pay(change.next_action.url) == 303
    await plan_changes.settle_pending(shop.env, shop.company_id)
    with pytest.raises(Refusal) as caught:
        await shop.change(plan="pro")
    assert caught.value.code is Code.NO_CHANGE
    assert len(shop.objects("subscription")) == 1


async def test_s29_more_of_an_add_on_is_the_same_item(shop: Shop) -> None:
    await shop.subscribed(plan="pro", add_ons={"extra-exports": 1})
    change = await shop.change(add_ons={"extra-exports": 3})
    assert change.state is ChangeState.APPLIED
    (subscription,) = shop.objects("subscription")
    assert sorted(item["quantity"] for item in subscription["items"]["data"]) == [1, 3]
