"""Hard cases of subscriptions and webhooks that need the whole way from Stripe to the decision."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from plangate import access, catalog, companies, overrides, sync
from plangate.deployment import Deployment
from plangate.mirroring import refetch
from plangate.shapes import Actor
from plangate.store.inbox import cursor, inbox_figures
from plangate.web.api.service import Readiness, Service
from plangate.web.metrics import RequestMetrics
from tests.shop import DOCUMENT, STAFF, Shop


async def priced(shop: Shop, plan: str = "pro") -> str:
    return (await shop.env.catalog()).plans[plan].prices[0].stripe_price_id or ""


async def subscribe(shop: Shop, *, card: str | None = "pm_card_visa", **params: object) -> str:
    customer = await shop.customer(card)
    asked: Any = {"customer": customer, "items": [{"price": await priced(shop)}], **params}
    made = shop.stripe.subscriptions.create(asked)
    await refetch(shop.env, shop.company_id)
    return made.id


async def test_w11_events_that_no_webhook_brought_are_warned_of_until_webhooks_come_again(
    shop: Shop, connected: Deployment
) -> None:
    async def warnings() -> list[str]:
        service = Service(connected, RequestMetrics(), lambda: b"{}")
        found = cast("Readiness", (await service.readiness(cast("Any", None))).body)
        return [words for words in found.warnings if "no webhook brought" in words]

    # What happened before the first sweep is no webhook's fault.
    await subscribe(shop)
    assert await sync.sweep(shop.env) > 0
    assert await warnings() == []
    shop.stripe.subscriptions.create({"customer": await shop.customer(), "items": [{"price": await priced(shop)}]})
    missed = await sync.sweep(shop.env)
    (words,) = await warnings()
    assert f"{missed} events" in words
    shown = (await Service(connected, RequestMetrics(), lambda: b"{}").metrics(cast("Any", None))).body
    assert f'state="missed_by_last_sweep"}} {missed}.0' in bytes(cast("bytes", shown)).decode()
    # An hour in which nothing happened mends no endpoint; a webhook that comes does.
    assert await sync.sweep(shop.env) == 0
    assert (await warnings()) == [words]
    told = {event.id for event in shop.stripe.events.list({"limit": 100}).data}
    shop.advance("PT1M")
    shop.stripe.subscriptions.create({"customer": await shop.customer(), "items": [{"price": await priced(shop)}]})
    fresh = [event for event in shop.stripe.events.list({"limit": 100}).data if event.id not in told]
    asked_for = [event for event in fresh if event.type in sync.CONSUMED_EVENTS]
    assert len(asked_for) < len(fresh)
    for event in asked_for:
        await sync.receive(shop.env, event.to_dict(for_json=True))
    # What the endpoint was never to send is not missing.
    assert await sync.sweep(shop.env) == 0
    assert await warnings() == []


async def test_w11_what_one_of_several_processes_found_missing_no_other_takes_for_brought(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All begin to sweep when they start, and again each hour: at the same time."""
    await subscribe(shop)
    await sync.sweep(shop.env)
    shop.advance("PT1M")
    shop.stripe.subscriptions.create({"customer": await shop.customer(), "items": [{"price": await priced(shop)}]})
    listed, swept = shop.env.gateway.event_pages, list[int]()

    async def others_first(**asked: Any) -> AsyncIterator[Sequence[Any]]:  # noqa: ANN401 - passed on
        async for page in listed(**asked):
            if not swept:
                swept.append(0)
                swept[0] = await sync.sweep(shop.env)
            yield page

    monkeypatch.setattr(shop.env.gateway, "event_pages", others_first)
    assert await sync.sweep(shop.env) == 0
    async with shop.env.reading() as session:
        place = await cursor(session, sync.SWEEP_CURSOR)
    assert place["missed"] == swept[0] > 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_w22_a_webhook_is_stored_at_once_while_stripe_is_slow(shop: Shop) -> None:
    await subscribe(shop)
    events = [one.to_dict(for_json=True) for one in shop.stripe.events.list({"limit": 5}).data]
    told = [one for one in events if one["type"].startswith(("customer.", "invoice."))]
    await sync.receive(shop.env, told[0])
    fault: dict[str, Any] = {"fault": "timeout", "path": "/v1/customers/*", "seconds": 3, "count": 1}
    shop.sandbox.control("POST", "faults", fault)
    working = asyncio.create_task(sync.work_inbox(shop.env))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await sync.receive(shop.env, {**told[0], "id": "evt_while_slow"})
    took = time.monotonic() - began
    assert not working.done()
    assert took < 0.5
    async with shop.env.reading() as session:
        assert (await inbox_figures(session))["counts"]["pending"] >= 1
    await working


@pytest.mark.parametrize(("behaviour", "status"), [("cancel", "canceled"), ("pause", "paused")])
async def test_s7_a_trial_without_a_card_ends_as_stripe_says(shop: Shop, behaviour: str, status: str) -> None:
    await subscribe(
        shop,
        card=None,
        trial_period_days=7,
        trial_settings={"end_behavior": {"missing_payment_method": behaviour}},
    )
    assert await shop.plan() == "pro"
    # Our own clock never ends it: until Stripe was asked, what it said last holds.
    shop.advance("P8D")
    assert await shop.plan() == "pro"
    await refetch(shop.env, shop.company_id)
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert (fact.status, await shop.plan()) == (status, "free")


async def test_s7_a_trial_whose_invoice_is_made_anyway_is_past_due_with_its_grace(shop: Shop) -> None:
    await subscribe(
        shop,
        card=None,
        trial_period_days=7,
        trial_settings={"end_behavior": {"missing_payment_method": "create_invoice"}},
    )
    shop.advance("P7D")
    shop.advance("PT3H")
    await refetch(shop.env, shop.company_id)
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert (fact.status, await shop.plan()) == ("past_due", "pro")


@pytest.mark.parametrize("mode", ["classic", "flexible"])
async def test_s8_an_end_at_the_periods_end_is_seen_in_both_billing_modes(shop: Shop, mode: str) -> None:
    subscription = await subscribe(shop, billing_mode={"type": mode})
    wanted: Any = {"cancel_at_period_end": True}
    shop.stripe.subscriptions.update(subscription, wanted)
    await refetch(shop.env, shop.company_id)
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert fact.scheduled_end_at == fact.items[0].period_end_at
    ends_at = (await companies.get(shop.env, shop.company_id)).subscription
    assert ends_at is not None
    assert ends_at.cancel_at == fact.scheduled_end_at
    # The portal of flexible billing says an instant alone.
    kept: Any = {"cancel_at_period_end": False}
    shop.stripe.subscriptions.update(subscription, kept)
    instant: Any = {"cancel_at": int(fact.items[0].period_end_at.timestamp())}
    shop.stripe.subscriptions.update(subscription, instant)
    await refetch(shop.env, shop.company_id)
    (again,) = (await shop.snapshot()).facts.subscriptions
    assert again.scheduled_end_at == fact.scheduled_end_at
    shop.advance("P1M")
    shop.advance("PT1H")
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "free"


async def test_s12_an_archived_price_and_product_go_on_granting_and_are_not_sold(shop: Shop) -> None:
    await subscribe(shop)
    plan = (await shop.env.catalog()).plans["pro"]
    for price in plan.prices:
        shop.stripe.prices.update(price.stripe_price_id or "", {"active": False})
    product = shop.stripe.prices.retrieve(plan.prices[0].stripe_price_id or "").product
    shop.stripe.products.update(str(product), {"active": False})
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    # Archived in the catalogue as well, it is sold to nobody, and whoever has it keeps it.
    plans = {**DOCUMENT["plans"], "pro": {**DOCUMENT["plans"]["pro"], "archived": True}}
    await catalog.apply(shop.env, {**DOCUMENT, "plans": plans}, actor=Actor(kind="cli", id="tests"))
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    decision = await access.check(shop.env, company={"id": "acme"}, feature="sso")
    assert decision.allowed
    assert (await shop.env.catalog()).plans["pro"].is_archived


async def test_s31_access_is_shown_up_to_the_end_of_the_items_period_not_of_the_invoice(shop: Shop) -> None:
    await subscribe(shop)
    shop.advance("P1M")
    shop.advance("PT2H")
    await refetch(shop.env, shop.company_id)
    (subscription,) = shop.objects("subscription")
    ends = subscription["items"]["data"][0]["current_period_end"]
    renewal = max(shop.objects("invoice"), key=lambda one: one["created"])
    shown = (await companies.get(shop.env, shop.company_id)).subscription
    assert shown is not None
    assert shown.period.end is not None
    assert shown.period.end.timestamp() == ends
    # The invoice's own period is the one that is over.
    assert renewal["period_end"] < ends


async def test_s16_whoever_was_deleted_in_stripe_keeps_the_rest_and_buys_again_as_a_new_customer(shop: Shop) -> None:
    await subscribe(shop)
    await overrides.grant(
        shop.env, shop.company_id, feature="exports", mode="add", value=7, note="Goodwill", actor=STAFF
    )
    (customer,) = shop.objects("customer")
    shop.stripe.customers.delete(customer["id"])
    await refetch(shop.env, shop.company_id)
    company = await companies.get(shop.env, shop.company_id)
    assert company.plan is not None
    assert (company.plan.key, company.stripe_customer_ids) == ("free", (customer["id"],))
    decision = await access.check(shop.env, company={"stripe_customer_id": customer["id"]}, feature="exports")
    assert decision.limit == 17
    change = await shop.change(plan="pro")
    assert change.next_action is not None
    shop.pay(change.next_action.url)
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    assert len((await companies.get(shop.env, shop.company_id)).stripe_customer_ids) == 2
