"""Schedules: the scheduled downgrade from end to end, and the traps on the way in Stripe's own words."""

from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop, first_item, open_shop, subscribe
from tests.sandbox_server import SandboxServer


async def _schedule_downgrade(shop: Shop, subscription: stripe.Subscription) -> stripe.SubscriptionSchedule:
    schedule = await shop.client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    current = schedule.phases[0]
    params: Any = {
        "end_behavior": "release",
        "proration_behavior": "none",
        "metadata": {"plangate": "chg_1"},
        "phases": [
            {
                "start_date": current.start_date,
                "end_date": current.end_date,
                "items": [{"price": str(i.price), "quantity": i.quantity} for i in current.items],
                "proration_behavior": "none",
            },
            {"items": [{"price": shop.starter, "quantity": 1}], "proration_behavior": "none"},
        ],
    }
    return await shop.client.v1.subscription_schedules.update_async(schedule.id, params)


async def test_a_scheduled_downgrade_arrives(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    end = first_item(subscription).current_period_end
    schedule = await _schedule_downgrade(shop, subscription)
    assert schedule.status == "active"
    assert schedule.current_phase is not None
    assert schedule.current_phase.end_date == end
    upcoming = await shop.client.v1.invoices.create_preview_async({"schedule": schedule.id})
    assert upcoming.amount_due == 1900
    before = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert (first_item(before).price.id, before.schedule) == (shop.pro, schedule.id)
    sandbox.advance("P32D")
    after = await shop.client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert first_item(after).price.id == shop.starter
    assert first_item(after).current_period_start == end
    assert isinstance(after.latest_invoice, stripe.Invoice)
    assert (after.latest_invoice.status, after.latest_invoice.amount_paid) == ("paid", 1900)
    sandbox.advance("P32D")
    released = await shop.client.v1.subscription_schedules.retrieve_async(schedule.id)
    assert (released.status, released.released_subscription) == ("released", subscription.id)
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).schedule is None


async def test_release_keeps_the_plan(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    schedule = await _schedule_downgrade(shop, subscription)
    await shop.client.v1.subscription_schedules.release_async(schedule.id)
    sandbox.advance("P32D")
    found = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert (first_item(found).price.id, found.schedule) == (shop.pro, None)
    with pytest.raises(stripe.InvalidRequestError, match="currently in the `released` status"):
        await shop.client.v1.subscription_schedules.release_async(schedule.id)


async def test_the_known_traps_are_refused(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    schedules = shop.client.v1.subscription_schedules
    subscription = await subscribe(shop, shop.pro)
    with pytest.raises(stripe.InvalidRequestError, match="You cannot set `metadata` if `from_subscription` is set"):
        await schedules.create_async({"from_subscription": subscription.id, "metadata": {"a": "b"}})
    schedule = await schedules.create_async({"from_subscription": subscription.id})
    with pytest.raises(stripe.InvalidRequestError, match="already attached to a schedule"):
        await schedules.create_async({"from_subscription": subscription.id})
    with pytest.raises(stripe.InvalidRequestError, match="missing at least one phase with a `start_date`"):
        await schedules.update_async(schedule.id, {"phases": [{"items": [{"price": shop.pro}]}]})
    start = schedule.phases[0].start_date
    with pytest.raises(stripe.InvalidRequestError, match="can not modify the start date of the current phase"):
        await schedules.update_async(
            schedule.id, {"phases": [{"start_date": start + 1, "items": [{"price": shop.pro}]}]}
        )
    with pytest.raises(stripe.InvalidRequestError) as gone:
        iterations: Any = {"start_date": start, "iterations": 1, "items": [{"price": shop.pro}]}
        await schedules.update_async(schedule.id, {"phases": [iterations]})
    assert (gone.value.code, gone.value.param) == ("parameter_unknown", "phases[0][iterations]")
    for ending in ({"cancel_at_period_end": True}, {"cancel_at": "min_period_end"}):
        with pytest.raises(stripe.InvalidRequestError, match="is managed by the subscription schedule"):
            params: Any = ending
            await shop.client.v1.subscriptions.update_async(subscription.id, params)


async def test_month_to_year_is_collected_only_with_phase_start(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    totals = []
    for anchor in ({}, {"billing_cycle_anchor": "phase_start"}):
        subscription = await subscribe(shop, shop.pro)
        schedule = await shop.client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
        current = schedule.phases[0]
        params: Any = {
            "proration_behavior": "none",
            "phases": [
                {"start_date": current.start_date, "end_date": current.end_date, "items": [{"price": shop.pro}]},
                {"items": [{"price": shop.pro_yearly}], "proration_behavior": "none", **anchor},
            ],
        }
        await shop.client.v1.subscription_schedules.update_async(schedule.id, params)
        sandbox.advance("P40D")
        found = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
        assert first_item(found).price.id == shop.pro_yearly
        invoices = await shop.client.v1.invoices.list_async({"subscription": subscription.id})
        totals.append([i.total for i in invoices.data])
        await shop.client.v1.subscriptions.cancel_async(subscription.id)
    assert totals == [[4900], [49000, 4900]]


async def test_rewriting_the_current_phase_loses_what_is_not_resent(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    coupon = await shop.client.v1.coupons.create_async({"percent_off": 10, "duration": "forever"})
    subscription = await subscribe(shop, shop.pro, discounts=[{"coupon": coupon.id}])
    schedule = await shop.client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    current = schedule.phases[0]
    base: Any = {"start_date": current.start_date, "end_date": current.end_date, "items": [{"price": shop.pro}]}
    kept: Any = {**base, "discounts": [{"discount": d.discount} for d in current.discounts]}
    await shop.client.v1.subscription_schedules.update_async(schedule.id, {"phases": [kept]})
    found = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert found.discounts == subscription.discounts
    await shop.client.v1.subscription_schedules.update_async(schedule.id, {"phases": [base]})
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).discounts == []


async def test_rewriting_with_the_default_behaviour_prorates(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    sandbox.advance("P5D")
    schedule = await shop.client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    current = schedule.phases[0]
    phase: Any = {
        "start_date": current.start_date,
        "end_date": current.end_date,
        "items": [{"price": shop.pro, "quantity": 2}],
    }
    await shop.client.v1.subscription_schedules.update_async(schedule.id, {"phases": [phase]})
    found = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert first_item(found).quantity == 2
    upcoming = await shop.client.v1.invoices.create_preview_async({"subscription": subscription.id})
    assert len(upcoming.lines.data) == 3


async def test_a_schedule_from_scratch_starts_on_its_day(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    start = int(sandbox.app_state.sandbox.world.now()) + 5 * 86_400
    schedule = await shop.client.v1.subscription_schedules.create_async(
        {
            "customer": shop.customer,
            "start_date": start,
            "end_behavior": "cancel",
            "phases": [{"items": [{"price": shop.pro}], "duration": {"interval": "month", "interval_count": 2}}],
        }
    )
    assert (schedule.status, schedule.subscription) == ("not_started", None)
    sandbox.advance("P6D")
    begun = await shop.client.v1.subscription_schedules.retrieve_async(schedule.id, {"expand": ["subscription"]})
    assert begun.status == "active"
    assert isinstance(begun.subscription, stripe.Subscription)
    assert begun.subscription.start_date == start
    sandbox.advance("P70D")
    done = await shop.client.v1.subscription_schedules.retrieve_async(schedule.id)
    assert done.status == "completed"
    assert (await shop.client.v1.subscriptions.retrieve_async(begun.subscription.id)).status == "canceled"


async def test_a_direct_change_of_quantity_reaches_the_running_phase_only(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    schedule = await _schedule_downgrade(shop, subscription)
    await shop.client.v1.subscriptions.update_async(
        subscription.id, {"items": [{"id": first_item(subscription).id, "quantity": 3}]}
    )
    found = await shop.client.v1.subscription_schedules.retrieve_async(schedule.id)
    assert [[i.quantity for i in phase.items] for phase in found.phases] == [[3], [1]]


async def test_a_kept_metered_item_moves_to_the_front_at_the_boundary(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro, shop.metered)
    schedule = await shop.client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    current = schedule.phases[0]
    phases: Any = [
        {
            "start_date": current.start_date,
            "end_date": current.end_date,
            "items": [{"price": shop.pro, "quantity": 1}, {"price": shop.metered}],
        },
        {"items": [{"price": shop.starter, "quantity": 1}, {"price": shop.metered}]},
    ]
    await shop.client.v1.subscription_schedules.update_async(
        schedule.id, {"phases": phases, "proration_behavior": "none"}
    )
    sandbox.advance("P32D")
    found = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert [item.price.id for item in found["items"].data] == [shop.metered, shop.starter]
