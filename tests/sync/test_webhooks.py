"""Webhooks are hints: whatever their order, number, age or content, the state ends as fetching now would give it."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from plangate import sync
from plangate.billing.failures import StripeFailure
from plangate.clock import wall_now
from plangate.errors import Code, Refusal
from plangate.mirroring import refetch
from plangate.store.inbox import InboxState, inbox, inbox_figures
from plangate.store.subscriptions import subscriptions, subscriptions_of
from tests.shop import Shop

Event = dict[str, Any]


async def events_of(shop: Shop) -> list[Event]:
    """All events the sandbox made, oldest first, as a webhook would carry them."""
    found = shop.stripe.events.list({"limit": 100})
    return [event.to_dict(for_json=True) for event in found.auto_paging_iter()][::-1]


async def deliver(shop: Shop, *events: Event) -> None:
    for event in events:
        await sync.receive(shop.env, event)
    while await sync.work_inbox(shop.env):
        pass


async def states(shop: Shop) -> dict[str, str]:
    async with shop.env.reading() as session:
        rows = await session.all(select(inbox.c.stripe_event_id, inbox.c.state))
    return {row["stripe_event_id"]: row["state"] for row in rows}


async def started(shop: Shop, plan: str = "pro") -> str:
    """A subscription that nobody told us of yet."""
    customer = await shop.customer()
    price = (await shop.env.catalog()).plans[plan].prices[0].stripe_price_id or ""
    return shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price}]}).id


def an_event(**changes: object) -> Event:
    return {
        "id": "evt_made_up",
        "object": "event",
        "type": "customer.subscription.updated",
        "livemode": False,
        "created": 1,
        "data": {"object": {"id": "sub_1", "object": "subscription", "customer": "cus_unknown"}},
        **changes,
    }


async def test_w1_updated_before_created(shop: Shop) -> None:
    await started(shop)
    events = [event for event in await events_of(shop) if event["type"].startswith("customer.subscription")]
    await deliver(shop, *events[::-1])
    assert await shop.plan() == "pro"


async def test_w2_and_promise_2_any_order_any_number_ends_the_same(shop: Shop) -> None:
    stripe_subscription_id = await started(shop)
    shop.stripe.subscriptions.update(stripe_subscription_id, {"cancel_at_period_end": True})
    shop.stripe.subscriptions.update(stripe_subscription_id, {"cancel_at_period_end": False})
    shop.stripe.subscriptions.update(stripe_subscription_id, {"metadata": {"a": "b"}})
    events = await events_of(shop)
    chance = random.Random(20261120)  # noqa: S311 - repeatable shuffles, not secrets.
    expected = None
    for _ in range(4):
        async with shop.env.writing() as session:
            await session.run(inbox.delete())
        shuffled = [event for event in events if chance.random() > 0.3] * chance.randint(1, 3)
        chance.shuffle(shuffled)
        await deliver(shop, *shuffled)
        await refetch(shop.env, shop.company_id)
        async with shop.env.reading() as session:
            known = await subscriptions_of(session, shop.company_id)
        assert expected in {None, known}
        expected = known
    async with shop.env.reading() as session:
        rows = await session.all(select(subscriptions.c.state_hash))
    # Only real differences are kept as history.
    assert len(rows) == 1


async def test_w3_the_same_event_many_times_at_once(shop: Shop) -> None:
    await started(shop)
    event = next(event for event in await events_of(shop) if event["type"] == "customer.subscription.created")
    stored = await asyncio.gather(*(sync.receive(shop.env, event) for _ in range(4)))
    assert sum(row is not None for row in stored) == 1
    await asyncio.gather(*(sync.work_inbox(shop.env) for _ in range(4)))
    assert await shop.plan() == "pro"
    async with shop.env.reading() as session:
        assert (await inbox_figures(session))["counts"] == {"processed": 1}


async def test_w4_and_w21_a_failed_refetch_is_tried_again_and_the_payload_is_never_believed(shop: Shop) -> None:
    await started(shop)
    events = await events_of(shop)
    shop.sandbox.control("POST", "faults", {"fault": "fail_call", "path": "/v1/*", "count": None, "status": 500})
    await deliver(shop, events[-1])
    assert await shop.plan() == "free"
    assert set((await states(shop)).values()) == {"pending"}
    # A repetition by Stripe does not settle what was never worked on.
    await deliver(shop, events[-1])
    assert set((await states(shop)).values()) == {"pending"}
    shop.sandbox.control("DELETE", "faults")
    async with shop.env.writing() as session:
        await session.run(update(inbox).values(available_at=wall_now() - timedelta(seconds=1)))
    await sync.work_inbox(shop.env)
    assert set((await states(shop)).values()) == {"processed"}
    assert await shop.plan() == "pro"


async def test_w5_what_was_stored_before_a_crash_is_worked_on_after_it(shop: Shop) -> None:
    await started(shop)
    await sync.receive(shop.env, (await events_of(shop))[-1])
    shop.env.forget("")
    await sync.work_inbox(shop.env)
    assert await shop.plan() == "pro"


async def test_w6_an_old_event_replayed_restores_nothing(shop: Shop) -> None:
    stripe_subscription_id = await started(shop)
    old = await events_of(shop)
    await deliver(shop, *old)
    shop.stripe.subscriptions.cancel(stripe_subscription_id)
    await deliver(shop, *await events_of(shop))
    assert await shop.plan() == "free"
    replayed = next(event for event in old if event["type"] == "customer.subscription.created")
    await deliver(shop, {**replayed, "id": "evt_replayed"})
    assert await shop.plan() == "free"


async def test_w10_a_sweep_heals_what_no_webhook_brought(shop: Shop) -> None:
    stripe_subscription_id = await started(shop)
    assert await sync.sweep(shop.env) > 0
    await sync.work_inbox(shop.env)
    assert await shop.plan() == "pro"
    assert await sync.sweep(shop.env) == 0
    shop.advance("P3D")
    shop.stripe.subscriptions.cancel(stripe_subscription_id)
    assert await sync.sweep(shop.env) > 0
    await sync.work_inbox(shop.env)
    assert await shop.plan() == "free"


async def test_w10_after_a_gap_longer_than_events_are_kept_everything_is_imported(shop: Shop) -> None:
    await sync.sweep(shop.env)
    await started(shop)
    shop.advance("P40D")
    await sync.sweep(shop.env)
    assert await shop.plan() == "pro"


async def test_w14_two_events_of_one_change_fetch_once(shop: Shop) -> None:
    await started(shop)
    event = (await events_of(shop))[-1]
    await sync.receive(shop.env, event)
    await sync.receive(shop.env, {**event, "id": "evt_twin"})
    before = len(shop.requests("GET", "/v1/subscriptions"))
    await sync.work_inbox(shop.env)
    assert len(shop.requests("GET", "/v1/subscriptions")) == before + 1
    assert set((await states(shop)).values()) == {"processed"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "evt_1"},
        an_event(id=5),
        an_event(id="x" * 300),
        an_event(type=None),
        an_event(data=None),
        an_event(data={"object": []}),
        {"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered"},
        {"version": "0", "detail": an_event(), "detail-type": "customer.updated", "source": "aws.partner"},
    ],
)
async def test_w15_what_is_no_snapshot_event_is_refused(shop: Shop, body: Event) -> None:
    with pytest.raises(Refusal) as caught:
        await sync.receive(shop.env, body)
    assert caught.value.code is Code.MALFORMED
    assert await states(shop) == {}


@pytest.mark.parametrize(
    "event",
    [
        an_event(account="acct_of_somebody_else"),
        an_event(livemode=True),
        an_event(type="product.created", data={"object": {"id": "prod_1", "object": "product"}}),
        an_event(type="something.new", data={"object": {"id": "x_1", "object": "x", "customer": "cus_1"}}),
        an_event(type="invoice.paid", data={"object": {"id": "in_1", "object": "invoice", "customer": None}}),
    ],
)
async def test_w17_and_w19_events_that_are_none_of_ours_are_ignored(shop: Shop, event: Event) -> None:
    row = await sync.receive(shop.env, event)
    assert row is not None
    assert row.state == InboxState.IGNORED.value
    assert await sync.work_inbox(shop.env) == 0


async def test_w17_a_customer_of_another_product_is_left_alone(shop: Shop) -> None:
    other = shop.stripe.customers.create({"name": "Somebody else"})
    await deliver(shop, *await events_of(shop), an_event(data={"object": {"id": other.id, "object": "customer"}}))
    assert set((await states(shop)).values()) == {"ignored"}


async def test_w18_an_object_deleted_meanwhile_is_no_error(shop: Shop) -> None:
    await deliver(shop, an_event())
    assert await states(shop) == {"evt_made_up": "ignored"}


async def test_w20_workers_share_one_company_without_losing_anything(shop: Shop) -> None:
    stripe_subscription_id = await started(shop)
    for number in range(3):
        shop.stripe.subscriptions.update(stripe_subscription_id, {"metadata": {"n": str(number)}})
    for event in await events_of(shop):
        await sync.receive(shop.env, event)
    await asyncio.gather(*(sync.work_inbox(shop.env, limit=2) for _ in range(6)))
    while await sync.work_inbox(shop.env):
        pass
    assert await shop.plan() == "pro"
    assert "failed" not in set((await states(shop)).values())


async def test_s16_a_deleted_customer_ends_its_subscriptions(shop: Shop) -> None:
    await started(shop)
    await deliver(shop, *await events_of(shop))
    assert await shop.plan() == "pro"
    (customer,) = shop.objects("customer")
    shop.stripe.customers.delete(customer["id"])
    await deliver(shop, *await events_of(shop))
    assert await shop.plan() == "free"


async def test_a_subscriber_nobody_knows_becomes_a_company(shop: Shop) -> None:
    made = shop.stripe.customers.create({"name": "From the dashboard"})
    shop.new_card(made.id, "pm_card_visa")
    price = (await shop.env.catalog()).plans["starter"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.create({"customer": made.id, "items": [{"price": price}]})
    await deliver(shop, *await events_of(shop))
    standing = await shop.env.standings.of_keys({"stripe_customer_id": made.id})
    assert standing is not None
    assert standing.snapshot.plan is not None
    assert standing.snapshot.plan.key == "starter"


async def test_a_customer_is_linked_by_our_own_metadata(shop: Shop) -> None:
    metadata = {"plangate_company": shop.company_id, "plangate_environment": shop.env.id}
    made = shop.stripe.customers.create({"metadata": metadata})
    await deliver(shop, *await events_of(shop))
    standing = await shop.env.standings.of_keys({"stripe_customer_id": made.id})
    assert standing is not None
    assert standing.facts.company_id == shop.company_id


async def test_another_environments_metadata_links_nothing(shop: Shop) -> None:
    metadata = {"plangate_company": shop.company_id, "plangate_environment": "env_other"}
    made = shop.stripe.customers.create({"metadata": metadata})
    await deliver(shop, *await events_of(shop))
    assert await shop.env.standings.of_keys({"stripe_customer_id": made.id}) is None


async def test_a_poison_event_is_set_aside_in_the_end(shop: Shop) -> None:
    await started(shop)
    await sync.receive(shop.env, (await events_of(shop))[-1])
    shop.sandbox.control("POST", "faults", {"fault": "fail_call", "path": "/v1/*", "count": None, "status": 500})
    async with shop.env.writing() as session:
        await session.run(update(inbox).values(attempts=14))
    await sync.work_inbox(shop.env)
    assert set((await states(shop)).values()) == {"failed"}


async def test_w21_what_an_outage_left_behind_is_tried_again_by_each_sweep(shop: Shop) -> None:
    await started(shop)
    await sync.receive(shop.env, (await events_of(shop))[-1])
    shop.sandbox.control("POST", "faults", {"fault": "fail_call", "path": "/v1/customers/*", "count": 2, "status": 401})

    async def try_for_the_last_time() -> None:
        async with shop.env.writing() as session:
            await session.run(update(inbox).values(attempts=14, available_at=wall_now()))
        await sync.work_inbox(shop.env)

    await try_for_the_last_time()
    assert set((await states(shop)).values()) == {"failed"}
    # The key is still wrong an hour later: it is tried once, and waits for a person or for the next hour.
    (name,) = await states(shop)
    await sync.sweep(shop.env)
    assert (await states(shop))[name] == "pending"
    await sync.work_inbox(shop.env)
    assert (await states(shop))[name] == "failed"
    shop.sandbox.control("DELETE", "faults")
    await sync.sweep(shop.env)
    await sync.work_inbox(shop.env)
    assert ((await states(shop))[name], await shop.plan()) == ("processed", "pro")


def test_the_wait_grows_and_ends() -> None:
    waits = [sync.backoff_seconds(attempts) for attempts in range(1, 20)]
    assert waits[:3] == [0.5, 1, 2]
    assert waits == sorted(waits)
    assert max(waits) == 3600


async def test_nothing_is_written_when_stripe_cannot_be_asked(shop: Shop) -> None:
    await started(shop)
    shop.sandbox.control("POST", "faults", {"fault": "fail_call", "path": "/v1/*", "count": None, "status": 503})
    with pytest.raises(StripeFailure):
        await refetch(shop.env, shop.company_id)
    async with shop.env.reading() as session:
        assert await subscriptions_of(session, shop.company_id) == ()
