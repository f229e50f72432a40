"""Laws that must hold whatever happens: a random life of one customer, checked for sums, statuses and server errors."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import stripe

from tests.sandbox.shop import Shop, first_item, open_shop, subscribe
from tests.sandbox_server import SandboxServer

STEPS = 60


@pytest.mark.parametrize("seed", [11, 23, 47])
async def test_a_random_life_keeps_the_books(sandbox: SandboxServer, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, no secret
    shop = await open_shop(sandbox)
    asking = await shop.client.v1.payment_methods.attach_async(
        "pm_card_authenticationRequired", {"customer": shop.customer}
    )
    refusals: list[stripe.StripeError] = []
    for _ in range(STEPS):
        step = chance.choice([_start, _change, _change, _plan, _end, _use, _wait, _wait, _switch_card])
        try:
            await step(sandbox, shop, chance, asking.id)
        except stripe.StripeError as error:
            refusals.append(error)
    assert [str(r) for r in refusals if r.http_status is None or r.http_status >= 500] == []
    assert len(refusals) < STEPS / 2
    _check_books(sandbox)


async def test_a_second_currency_runs_through(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro, currency="eur", expand=["latest_invoice"])
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert (subscription.currency, subscription.latest_invoice.amount_paid) == ("eur", 4800)
    upcoming = await shop.client.v1.invoices.create_preview_async(
        {
            "subscription": subscription.id,
            "subscription_details": {
                "items": [{"id": first_item(subscription).id, "price": shop.starter}],
                "proration_behavior": "none",
            },
        }
    )
    assert (upcoming.currency, upcoming.amount_due) == ("eur", 1800)


async def test_a_new_cycle_on_a_failing_card_is_past_due_at_once(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.starter)
    bad = await shop.client.v1.payment_methods.attach_async("pm_card_chargeCustomerFail", {"customer": shop.customer})
    await shop.client.v1.subscriptions.update_async(subscription.id, {"default_payment_method": bad.id})
    late = await shop.client.v1.subscriptions.update_async(
        subscription.id, {"billing_cycle_anchor": {"type": "now"}, "proration_behavior": "none"}
    )
    assert late.status == "past_due"
    invoice = await shop.client.v1.invoices.retrieve_async(str(late.latest_invoice))
    assert (invoice.status, invoice.attempt_count) == ("open", 1)
    assert invoice.next_payment_attempt is not None
    with pytest.raises(stripe.CardError):
        await shop.client.v1.invoices.pay_async(str(late.latest_invoice))
    await shop.client.v1.invoices.pay_async(str(late.latest_invoice), {"payment_method": shop.card})
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"


Step = Callable[[SandboxServer, Shop, random.Random, str], Awaitable[object]]


async def _start(_sandbox: SandboxServer, shop: Shop, chance: random.Random, _asking: str) -> object:
    prices = chance.sample([shop.starter, shop.pro, shop.seats, shop.metered], chance.randint(1, 3))
    options: Any = {"trial_period_days": 9} if chance.random() < 0.3 else {}
    return await subscribe(shop, *prices, **options)


async def _change(_sandbox: SandboxServer, shop: Shop, chance: random.Random, _asking: str) -> object:
    subscription = await _any(shop, chance)
    if subscription is None:
        return None
    item = chance.choice(subscription["items"].data)
    changes: list[Any] = [
        {"id": item.id, "price": chance.choice([shop.starter, shop.pro, shop.pro_yearly])},
        {"id": item.id, "quantity": chance.randint(0, 6)},
        {"price": shop.seats, "quantity": 2},
    ]
    params: Any = {
        "items": [chance.choice(changes)],
        "proration_behavior": chance.choice(["none", "create_prorations", "always_invoice"]),
        "payment_behavior": chance.choice(["allow_incomplete", "error_if_incomplete", "pending_if_incomplete"]),
    }
    return await shop.client.v1.subscriptions.update_async(subscription.id, params)


async def _plan(_sandbox: SandboxServer, shop: Shop, chance: random.Random, _asking: str) -> object:
    subscription = await _any(shop, chance)
    if subscription is None:
        return None
    if subscription.schedule:
        return await shop.client.v1.subscription_schedules.release_async(str(subscription.schedule))
    schedule = await shop.client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    now = schedule.phases[0]
    current: Any = {"start_date": now.start_date, "end_date": now.end_date}
    current["items"] = [
        {"price": str(i.price), **({} if i.quantity is None else {"quantity": i.quantity})} for i in now.items
    ]
    if now.trial_end:
        current["trial_end"] = now.trial_end
    later: Any = {"items": [{"price": chance.choice([shop.starter, shop.pro])}], "proration_behavior": "none"}
    return await shop.client.v1.subscription_schedules.update_async(
        schedule.id, {"phases": [current, later], "proration_behavior": "none"}
    )


async def _end(_sandbox: SandboxServer, shop: Shop, chance: random.Random, _asking: str) -> object:
    subscription = await _any(shop, chance)
    if subscription is None:
        return None
    if chance.random() < 0.5:
        return await shop.client.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    return await shop.client.v1.subscriptions.cancel_async(subscription.id, {"prorate": True, "invoice_now": True})


async def _use(_sandbox: SandboxServer, shop: Shop, chance: random.Random, _asking: str) -> object:
    payload = {"stripe_customer_id": shop.customer, "value": str(chance.randint(1, 90))}
    return await shop.client.v1.billing.meter_events.create_async({"event_name": "exports", "payload": payload})


async def _wait(sandbox: SandboxServer, _shop: Shop, chance: random.Random, _asking: str) -> object:
    return sandbox.advance(chance.choice(["PT1H", "P1D", "P6D", "P1M"]))


async def _switch_card(_sandbox: SandboxServer, shop: Shop, chance: random.Random, asking: str) -> object:
    card = chance.choice([shop.card, shop.card, asking])
    return await shop.client.v1.customers.update_async(
        shop.customer, {"invoice_settings": {"default_payment_method": card}}
    )


async def _any(shop: Shop, chance: random.Random) -> stripe.Subscription | None:
    live = (await shop.client.v1.subscriptions.list_async({"customer": shop.customer})).data
    return chance.choice(live) if live else None


def _check_books(sandbox: SandboxServer) -> None:
    objects = sandbox.control("GET", "state")["objects"]
    for invoice in objects["invoice"]:
        lines = sandbox.app_state.sandbox.world.store.get("invoice", invoice["id"])["_lines"]
        assert invoice["subtotal"] == sum(line["amount"] for line in lines)
        assert invoice["total"] == invoice["subtotal"]
        if invoice["status"] in ("paid", "open"):
            due = max(0, invoice["total"] + invoice["starting_balance"]) if invoice["total"] > 0 else 0
            assert invoice["amount_due"] == due
            assert invoice["amount_paid"] + invoice["amount_remaining"] == due
    for customer in objects["customer"]:
        rows = [t for t in objects.get("customer_balance_transaction", []) if t["customer"] == customer["id"]]
        assert customer["balance"] == sum(t["amount"] for t in rows)
    for subscription in objects["subscription"]:
        prices = [item["price"]["id"] for item in subscription["items"]["data"]]
        assert len(prices) == len(set(prices)) > 0
        if subscription["status"] in ("active", "past_due", "trialing"):
            now = sandbox.app_state.sandbox.world.now()
            assert all(
                i["current_period_start"] <= now < i["current_period_end"] for i in subscription["items"]["data"]
            )
        owners = [s for s in objects.get("subscription_schedule", []) if s["subscription"] == subscription["id"]]
        if subscription["schedule"]:
            assert [s["id"] for s in owners if s["status"] == "active"] == [subscription["schedule"]]
