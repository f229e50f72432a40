"""An old price leaves the shelf when nobody needs it: no subscription, no scheduled phase, no open Checkout."""

import copy
from collections.abc import AsyncIterator

import pytest

from plangate import catalog
from plangate.environment import Environment
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox)
    yield opened
    await opened.close()


def monthly_price(shop: Shop, plan: str, amount: int) -> str:
    """The Stripe id of what a plan costs each month."""
    (found,) = [
        one["id"]
        for one in shop.objects("price")
        if (one["product"], one["unit_amount"]) == (f"plangate_plan_{plan}", amount)
    ]
    return str(found)


async def raise_price(shop: Shop, plan: str) -> None:
    """Sell the plan for a dollar more each month."""
    document = copy.deepcopy(DOCUMENT)
    document["plans"][plan]["prices"][0]["amount_minor"] += 100
    await catalog.apply(shop.env, document, actor=ACTOR)


async def test_an_open_checkout_can_still_be_paid_at_the_price_it_shows(shop: Shop) -> None:
    change = await shop.change(plan="pro")
    assert change.next_action is not None
    old = monthly_price(shop, "pro", 4900)
    await raise_price(shop, "pro")
    assert await catalog.tidy_shelf(shop.env) == 0
    assert shop.stripe.prices.retrieve(old).active
    shop.pay(change.next_action.url)
    await shop.sync()
    assert await shop.plan() == "pro"
    assert [row.state for row in await shop.rows()] == ["applied"]
    assert await catalog.tidy_shelf(shop.env) == 0


async def test_a_checkout_that_nobody_paid_frees_the_price(shop: Shop) -> None:
    assert (await shop.change(plan="pro")).state == "awaiting_payment"
    old = monthly_price(shop, "pro", 4900)
    await raise_price(shop, "pro")
    shop.advance("P2D")
    await shop.sync()
    assert [row.state for row in await shop.rows()] == ["cancelled"]
    assert await catalog.tidy_shelf(shop.env) == 1
    assert not shop.stripe.prices.retrieve(old).active


async def test_a_price_that_a_scheduled_phase_leads_to_stays(shop: Shop) -> None:
    await shop.subscribed()
    assert (await shop.change(plan="starter")).state == "scheduled"
    old = monthly_price(shop, "starter", 1900)
    await raise_price(shop, "starter")
    assert await catalog.tidy_shelf(shop.env) == 0
    assert shop.stripe.prices.retrieve(old).active
    shop.advance("P32D")
    await shop.sync()
    assert await shop.plan() == "starter"
    assert await catalog.tidy_shelf(shop.env) == 0
    assert (await shop.change(plan="pro")).state == "applied"
    assert await catalog.tidy_shelf(shop.env) == 1
    assert not shop.stripe.prices.retrieve(old).active


async def test_an_upgrade_that_waits_for_the_bank_keeps_the_price_it_leads_to(shop: Shop) -> None:
    subscription = await shop.subscribed(plan="starter")
    method = shop.new_card(shop.objects("customer")[0]["id"], "pm_card_authenticationRequired")
    shop.stripe.subscriptions.update(subscription, {"default_payment_method": method})
    await shop.sync()
    assert (await shop.change(plan="pro")).state == "requires_action"
    old = monthly_price(shop, "pro", 4900)
    await raise_price(shop, "pro")
    assert await catalog.tidy_shelf(shop.env) == 0
    assert shop.stripe.prices.retrieve(old).active
