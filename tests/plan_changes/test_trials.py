"""Trials: with and without a card, once per company and plan, what ends them, and what people change meanwhile."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import httpx
import pytest

from plangate import catalog, plan_changes
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.mirroring import refetch
from plangate.shapes import ChangeState
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, STAFF, Shop

SOLD: Final[dict[str, Any]] = {
    **DOCUMENT,
    "trial_expiry_plan": "lapsed",
    "plans": {
        **DOCUMENT["plans"],
        "pro": {**DOCUMENT["plans"]["pro"], "trial_days": 14},
        "starter": {**DOCUMENT["plans"]["starter"], "trial_days": 7},
        "lapsed": {"name": "Lapsed"},
    },
}


@pytest.fixture
async def trial_shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, SOLD)
    yield opened
    await opened.close()


async def with_checkout(shop: Shop, **checkout: bool) -> None:
    """Sell the same, and let Stripe's page ask for this."""
    await catalog.apply(shop.env, {**SOLD, "settings": checkout}, actor=STAFF)


async def page_at(url: str) -> str:
    """What a person sees there."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        return (await browser.get(url)).text


async def test_a_trial_costs_nothing_keeps_its_end_and_comes_once(trial_shop: Shop) -> None:
    shop = trial_shop
    await shop.customer()
    quote = await shop.preview(plan="pro")
    assert quote.due_today.amount_minor == sum(line.amount_minor for line in quote.lines) == 0
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.next_invoice.at.date()) == (
        4900,
        (shop.now() + timedelta(days=14)).date(),
    )
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert (subscription.status, await shop.plan()) == ("trialing", "pro")
    trial_end_at = subscription.trial_end_at

    added = await shop.preview(add_ons={"extra-exports": 2})
    assert (added.due_today.amount_minor, added.lines) == (0, ())
    assert added.next_invoice is not None
    assert (added.next_invoice.amount_minor, added.next_invoice.at) == (5900, trial_end_at)
    assert (await shop.confirm(added)).state is ChangeState.APPLIED
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert subscription.trial_end_at == trial_end_at

    assert (await shop.change(cancel="now", actor=STAFF)).state is ChangeState.APPLIED
    assert (await shop.preview(plan="pro")).due_today.amount_minor == 4900


async def test_a_trial_through_checkout(trial_shop: Shop) -> None:
    change = await trial_shop.change(plan="pro")
    assert change.next_action is not None
    trial_shop.pay(change.next_action.url)
    await plan_changes.settle_pending(trial_shop.env, trial_shop.company_id)
    subscription = (await trial_shop.snapshot()).subscription
    assert subscription is not None
    assert (subscription.status, await trial_shop.plan()) == ("trialing", "pro")


async def test_staff_extend_a_trial(trial_shop: Shop) -> None:
    shop = trial_shop
    await shop.subscribed()
    later = (shop.now() + timedelta(days=30)).replace(microsecond=0)
    with pytest.raises(Refusal) as caught:
        await shop.preview(trial_end=later)
    assert caught.value.code is Code.FORBIDDEN
    assert (await shop.change(trial_end=later, actor=STAFF)).state is ChangeState.APPLIED
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert subscription.trial_end_at == later


@pytest.mark.parametrize("is_instant", [False, True])
async def test_staff_end_a_trial_at_once_for_what_was_quoted(trial_shop: Shop, *, is_instant: bool) -> None:
    shop = trial_shop
    await shop.subscribed(add_ons={"extra-exports": 2})
    shop.advance("P3D")
    await shop.sync()
    asked: dict[str, Any] = {"trial_end": shop.now() - timedelta(hours=1)} if is_instant else {"is_trial_over": True}
    with pytest.raises(Refusal) as caught:
        await shop.preview(**asked)
    assert caught.value.code is Code.FORBIDDEN
    quote = await shop.preview(actor=STAFF, **asked)
    assert (quote.due_today.amount_minor, [line.amount_minor for line in quote.lines]) == (5900, [4900, 1000])
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.next_invoice.at.month) == (5900, (shop.now().month % 12) + 1)
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.APPLIED
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert (subscription.status, await shop.plan()) == ("active", "pro")
    assert [one["amount_paid"] for one in shop.objects("invoice") if one["amount_paid"]] == [5900]
    with pytest.raises(Refusal) as over:
        await shop.preview(actor=STAFF, **asked)
    assert over.value.code is Code.SUBSCRIPTION_INACTIVE


@pytest.mark.parametrize("card", ["pm_card_chargeCustomerFail", None])
async def test_a_trial_goes_on_when_its_end_cannot_be_paid(trial_shop: Shop, card: str | None) -> None:
    shop = trial_shop
    if card is None:
        customer = await shop.customer(None)
        price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
        shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price}], "trial_period_days": 14})
        await refetch(shop.env, shop.company_id)
    else:
        await shop.subscribed(card)
    with pytest.raises(Refusal) as caught:
        await shop.change(actor=STAFF, is_trial_over=True)
    assert caught.value.code is (Code.PAYMENT_FAILED if card else Code.STRIPE_REFUSED)
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert (subscription.status, await shop.plan()) == ("trialing", "pro")
    assert not [one for one in shop.objects("invoice") if one["amount_due"]]


async def test_a_trial_ends_once_the_bank_has_agreed(trial_shop: Shop) -> None:
    shop = trial_shop
    await shop.subscribed("pm_card_threeDSecure2Required")
    change = await shop.change(actor=STAFF, is_trial_over=True)
    assert change.state is ChangeState.REQUIRES_ACTION
    assert change.next_action is not None
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert subscription.status == "trialing"
    assert shop.pay(change.next_action.url) == 303
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert subscription.status == "active"


async def test_each_plan_is_tried_once_whatever_was_taken_since(trial_shop: Shop) -> None:
    """Pro is left in the middle of its trial, and is no trial again; Starter was tried with what was left of it."""
    shop = trial_shop
    await shop.subscribed()
    await shop.change(plan="starter", when="now", actor=STAFF)
    await shop.change(cancel="now")
    assert await plan_changes.plans_tried(shop.env, shop.company_id) == {"pro", "starter"}
    assert (await shop.preview(plan="pro")).due_today.amount_minor == 4900
    assert (await shop.preview(plan="starter")).due_today.amount_minor == 1900


async def test_a_plan_moved_to_after_a_trial_was_not_tried(trial_shop: Shop) -> None:
    shop = trial_shop
    await shop.subscribed()
    await shop.change(actor=STAFF, is_trial_over=True)
    await shop.change(plan="starter", when="now", actor=STAFF)
    assert await shop.plan() == "starter"
    assert await plan_changes.plans_tried(shop.env, shop.company_id) == {"pro"}


async def test_a_trial_that_was_over_when_it_was_first_seen_counts(trial_shop: Shop) -> None:
    shop = trial_shop
    customer = await shop.customer()
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    made = shop.stripe.subscriptions.create(
        {"customer": customer, "items": [{"price": price}], "trial_period_days": 14}
    )
    shop.stripe.subscriptions.cancel(made.id)
    await refetch(shop.env, shop.company_id)
    assert (await shop.preview(plan="pro")).due_today.amount_minor == 4900


@pytest.mark.parametrize("is_through_checkout", [True, False])
async def test_a_trial_whose_card_is_gone_leads_to_the_plan_for_that(
    trial_shop: Shop, *, is_through_checkout: bool
) -> None:
    shop = trial_shop
    if not is_through_checkout:
        await shop.customer()
    change = await shop.change(plan="pro")
    if change.next_action is not None:
        shop.pay(change.next_action.url)
        await plan_changes.settle_pending(shop.env, shop.company_id)
    for method in shop.objects("payment_method"):
        shop.stripe.payment_methods.detach(method["id"])
    shop.advance("P15D")
    await shop.sync()
    assert await shop.plan() == "lapsed"
    assert not [one for one in shop.objects("invoice") if one["amount_due"]]
    assert (await shop.preview(plan="pro")).needs_checkout


async def test_a_trial_without_a_card_ends_unless_one_is_on_file(trial_shop: Shop) -> None:
    shop = trial_shop
    await with_checkout(shop, checkout_trial_card=False)
    quote = await shop.preview(plan="pro")
    assert (quote.needs_checkout, quote.due_today.amount_minor) == (True, 0)
    change = await shop.confirm(quote)
    assert change.next_action is not None
    assert "No card is needed today." in await page_at(change.next_action.url)
    shop.pay(change.next_action.url, card="")
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    assert shop.objects("payment_method") == []
    assert (await shop.change(add_ons={"extra-exports": 1})).state is ChangeState.APPLIED
    shop.advance("P15D")
    await shop.sync()
    assert await shop.plan() == "lapsed"
    # Tried once; bought now, a card is asked for.
    again = await shop.change(plan="pro")
    assert again.next_action is not None
    assert "No card is needed today." not in await page_at(again.next_action.url)


async def test_a_trial_without_a_card_goes_on_with_one_added_in_the_portal(trial_shop: Shop) -> None:
    shop = trial_shop
    await with_checkout(shop, checkout_trial_card=False)
    change = await shop.change(plan="pro")
    assert change.next_action is not None
    shop.pay(change.next_action.url, card="")
    await plan_changes.settle_pending(shop.env, shop.company_id)
    (customer,) = shop.objects("customer")
    shop.new_card(customer["id"], "pm_card_visa")
    shop.advance("P15D")
    await shop.sync()
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert (subscription.status, await shop.plan()) == ("active", "pro")


async def test_checkout_asks_for_what_the_catalogue_says(trial_shop: Shop) -> None:
    shop = trial_shop
    await with_checkout(shop, checkout_billing_address=True, checkout_phone=True, checkout_tax_id=True)
    change = await shop.change(plan="pro")
    assert change.next_action is not None
    assert "Tax ID" in await page_at(change.next_action.url)
    assert shop.pay(change.next_action.url) == 200  # the page again: the address is missing
    typed = {"line1": "1 Main St", "city": "Springfield", "postal_code": "12345", "country": "US", "phone": "555 0100"}
    assert shop.pay(change.next_action.url, business_name="Acme Inc", tax_id="12-345", **typed) == 303
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    (customer,) = shop.objects("customer")
    assert (customer["name"], customer["phone"], customer["address"]["city"]) == ("Acme Inc", "555 0100", "Springfield")
    (session,) = shop.objects("checkout.session")
    assert [one["value"] for one in session["customer_details"]["tax_ids"]] == ["12-345"]


async def test_checkout_asks_for_a_card_alone_unless_told_otherwise(trial_shop: Shop) -> None:
    await trial_shop.change(plan="pro")
    (asked,) = trial_shop.requests(path="/v1/checkout/sessions")
    assert not {"billing_address_collection", "customer_update", "payment_method_collection"} & set(asked["params"])
