"""A webhook acted on where it arrives: one commit stores and claims it, another writes what Stripe said and ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from plangate import catalog, sync
from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.engine.facts import PlanRef
from plangate.errors import Code, Refusal
from plangate.mirroring import company_of_customer, refetch
from plangate.shapes import Actor
from plangate.store.database import Database, StoreSession
from plangate.store.inbox import InboxState, inbox
from plangate.store.leases import leases
from plangate.store.present import present_facts
from plangate.worker import Worker
from tests.shop import DOCUMENT, Shop
from tests.sync.test_webhooks import an_event, events_of, started, states
from tests.sync.test_worker import until


async def newest(shop: Shop) -> dict[str, Any]:
    """The event of a subscription that nobody told us of yet."""
    await started(shop)
    return (await events_of(shop))[-1]


async def claimed(shop: Shop) -> sync.Claim:
    row, claim = await sync.receive_to_act(shop.env, await newest(shop))
    assert row is not None
    assert claim is not None
    return claim


async def holders(shop: Shop) -> list[str | None]:
    """Who holds the company's lease."""
    async with shop.env.reading() as session:
        rows = await session.all(select(leases.c.holder).where(leases.c.subject == f"company:{shop.company_id}"))
    return [row["holder"] for row in rows]


async def test_two_commits_are_all_it_takes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    event = await newest(shop)
    transactions: list[str] = []

    def counting(name: str) -> None:
        opened = getattr(Database, name)

        @asynccontextmanager
        async def counted(
            self: Database, environment_id: str, now: datetime, **options: bool
        ) -> AsyncIterator[StoreSession]:
            transactions.extend([] if options.get("only_reads") else [name])
            async with opened(self, environment_id, now, **options) as session:
                yield session

        monkeypatch.setattr(Database, name, counted)

    counting("writing")
    counting("at_once")
    _, claim = await sync.receive_to_act(shop.env, event)
    assert claim is not None
    await sync.act_on(shop.env, claim)
    monkeypatch.undo()
    assert transactions == ["at_once", "at_once"]
    assert await shop.plan() == "pro"
    assert set((await states(shop)).values()) == {"processed"}
    assert await holders(shop) == [None]


async def test_what_was_written_stays_in_memory_as_the_store_has_it(shop: Shop) -> None:
    await shop.subscribed()
    held = await shop.env.standings.of(shop.company_id)
    assert held is not None
    price = (await shop.env.catalog()).plans["starter"].prices[0].stripe_price_id or ""
    (fact,) = held.facts.subscriptions
    shop.stripe.subscriptions.update(
        fact.stripe_subscription_id,
        {"items": [{"id": fact.items[0].stripe_item_id, "price": price}], "proration_behavior": "none"},
    )
    _, claim = await sync.receive_to_act(shop.env, (await events_of(shop))[-1])
    assert claim is not None
    await sync.act_on(shop.env, claim)
    now = shop.env.standings.held(shop.company_id)
    assert now is not None
    assert now is not held
    assert now.counters is held.counters
    async with shop.env.reading() as session:
        present = await present_facts(session, shop.company_id)
    assert present is not None
    assert now.facts == present.facts == now.snapshot.facts
    assert await shop.plan() == "starter"


async def published_elsewhere(connected: Deployment) -> str:
    """The price of the plan 'max', which another process publishes."""
    dearer = {"name": "Max", "prices": [{"currency": "usd", "interval": "month", "amount_minor": 9900}]}
    other = await Deployment.open(connected.settings)
    document = {**DOCUMENT, "plans": {**DOCUMENT["plans"], "max": dearer}}
    await catalog.apply(other.named(None), document, actor=Actor(kind="cli", id="tests"))
    price = (await other.named(None).catalog()).plans["max"].prices[0].stripe_price_id or ""
    await other.close()
    return price


@pytest.mark.parametrize("is_at_once", [True, False])
async def test_what_prices_mean_is_told_by_the_newest_catalogue(
    shop: Shop, connected: Deployment, *, is_at_once: bool
) -> None:
    """Another process published it, and this one did not hear of it yet."""
    await shop.env.catalog()
    price = await published_elsewhere(connected)
    shop.stripe.subscriptions.create({"customer": await shop.customer(), "items": [{"price": price}]})
    if is_at_once:
        _, claim = await sync.receive_to_act(shop.env, (await events_of(shop))[-1])
        assert claim is not None
        await sync.act_on(shop.env, claim)
    else:
        await refetch(shop.env, shop.company_id)
    async with shop.env.reading() as session:
        present = await present_facts(session, shop.company_id)
    assert present is not None
    assert present.facts.last_mapped_plan == PlanRef("max", 1)


async def test_who_subscribes_to_what_was_published_a_moment_ago_becomes_a_company(
    shop: Shop, connected: Deployment
) -> None:
    """Another process published it, and this one did not hear of it yet."""
    await shop.env.catalog()
    customer = shop.stripe.customers.create({"name": "Early"}).id
    shop.new_card(customer, "pm_card_visa")
    price = await published_elsewhere(connected)
    shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price}]})
    await sync.receive(shop.env, (await events_of(shop))[-1])
    assert await sync.work_inbox(shop.env) == 1
    async with shop.env.reading() as session:
        company_id = await company_of_customer(session, customer)
        present = await present_facts(session, company_id or "")
    assert present is not None
    assert present.facts.last_mapped_plan == PlanRef("max", 1)


async def test_a_customer_linked_while_an_event_is_acted_on_is_fetched_as_well(shop: Shop) -> None:
    claim = await claimed(shop)
    assert claim.is_plain
    other = await shop.customer()
    price = (await shop.env.catalog()).plans["starter"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.create({"customer": other, "items": [{"price": price}]})
    await sync.act_on(shop.env, claim)
    assert len((await shop.snapshot()).facts.subscriptions) == 2
    assert set((await states(shop)).values()) == {"processed"}
    assert await holders(shop) == [None]
    _, again = await sync.receive_to_act(shop.env, (await events_of(shop))[-1])
    assert again is not None
    assert not again.is_plain
    await sync.act_on(shop.env, again)


async def test_a_claimed_event_is_nobody_elses(shop: Shop) -> None:
    claim = await claimed(shop)
    assert await sync.work_inbox(shop.env) == 0
    assert await holders(shop) != [None]
    await sync.act_on(shop.env, claim)
    assert await shop.plan() == "pro"


async def test_w3_a_repeat_is_neither_stored_nor_claimed(shop: Shop) -> None:
    event = await newest(shop)
    first, again = await asyncio.gather(*(sync.receive_to_act(shop.env, event) for _ in range(2)))
    assert sorted(row is None for row, _ in (first, again)) == [False, True]
    (claim,) = [claim for _, claim in (first, again) if claim is not None]
    await sync.act_on(shop.env, claim)


async def test_w5_what_a_killed_process_had_claimed_is_done_by_the_next(shop: Shop) -> None:
    await claimed(shop)
    # The process is gone: its claim and its lease end by themselves.
    async with shop.env.writing() as session:
        await session.run(update(inbox).values(available_at=wall_now()))
        await session.run(update(leases).values(expires_at=wall_now() - timedelta(seconds=1)))
    assert await sync.work_inbox(shop.env) == 1
    assert await shop.plan() == "pro"


async def test_w20_while_somebody_is_at_work_on_the_company_the_event_waits(shop: Shop) -> None:
    event = await newest(shop)
    async with shop.env.lease(shop.company_id):
        row, claim = await sync.receive_to_act(shop.env, event)
    assert row is not None
    assert claim is None
    assert await sync.work_inbox(shop.env) == 1
    assert await shop.plan() == "pro"


@pytest.mark.usefixtures("soon")
async def test_w20_a_fetch_that_takes_long_keeps_its_lease(shop: Shop) -> None:
    claim = await claimed(shop)
    shop.sandbox.control("POST", "faults", {"fault": "timeout", "path": "/v1/customers/*", "seconds": 1.5})
    acting = asyncio.create_task(sync.act_on(shop.env, claim))
    with pytest.raises(Refusal) as refused:
        async with shop.env.lease(shop.company_id, wait_seconds=1.2):
            raise AssertionError("two hold it")
    assert refused.value.code is Code.CHANGE_IN_PROGRESS
    await acting
    assert await shop.plan() == "pro"
    assert await holders(shop) == [None]


@pytest.mark.usefixtures("soon")
async def test_w20_the_lease_of_a_process_killed_while_it_fetched_is_taken_over(shop: Shop) -> None:
    killed = await claimed(shop)
    async with shop.env.lease(shop.company_id, wait_seconds=4) as lease:
        assert lease.fence == killed.lease.fence + 1
    await sync.act_on(shop.env, killed)
    assert await shop.plan() == "free"
    assert set((await states(shop)).values()) == {"pending"}


@pytest.mark.usefixtures("soon")
async def test_w5_what_a_killed_process_was_acting_on_is_done_by_another_before_half_a_minute_is_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claimed(shop)
    later = wall_now() + timedelta(seconds=30)
    monkeypatch.setattr(sync, "wall_now", lambda: later)
    assert await sync.work_inbox(shop.env) == 1
    assert await shop.plan() == "pro"
    assert set((await states(shop)).values()) == {"processed"}


async def test_w20_a_lease_that_was_taken_over_writes_nothing(shop: Shop) -> None:
    claim = await claimed(shop)
    async with shop.env.writing() as session:
        await session.run(update(leases).values(fence=leases.c.fence + 1))
    await sync.act_on(shop.env, claim)
    assert await shop.plan() == "free"
    assert set((await states(shop)).values()) == {"pending"}


async def test_w21_a_fetch_that_fails_leaves_the_event_waiting_and_the_lease_free(shop: Shop) -> None:
    claim = await claimed(shop)
    shop.sandbox.control("POST", "faults", {"fault": "fail_call", "path": "/v1/*", "count": None, "status": 503})
    await sync.act_on(shop.env, claim)
    assert set((await states(shop)).values()) == {"pending"}
    assert await holders(shop) == [None]
    assert await sync.work_inbox(shop.env) == 0


async def test_a_process_that_stops_gives_everything_back(shop: Shop) -> None:
    claim = await claimed(shop)
    shop.sandbox.control("POST", "faults", {"fault": "timeout", "path": "/v1/customers/*", "seconds": 5})
    acting = asyncio.create_task(sync.act_on(shop.env, claim))
    await asyncio.sleep(0.1)
    acting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acting
    assert await holders(shop) == [None]
    assert await sync.work_inbox(shop.env) == 1
    assert await shop.plan() == "pro"


async def test_what_needs_no_action_is_not_claimed(shop: Shop) -> None:
    unknown, claim = await sync.receive_to_act(shop.env, an_event())
    assert unknown is not None
    assert unknown.state == InboxState.PENDING.value
    assert claim is None
    foreign, claim = await sync.receive_to_act(shop.env, an_event(id="evt_foreign", livemode=True))
    assert foreign is not None
    assert foreign.state == InboxState.IGNORED.value
    assert claim is None


async def test_the_worker_acts_beside_its_loops_and_stops_with_them(shop: Shop) -> None:
    claim = await claimed(shop)
    running = Worker([shop.env], loops=[])
    await running.start()
    running.act_on(shop.env, claim)
    assert running.has_room

    async def is_pro() -> bool:
        return await shop.plan() == "pro"

    await until(is_pro)
    await running.stop()
