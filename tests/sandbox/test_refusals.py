"""What Stripe would not do, the sandbox does not either: combinations that no parameter type can tell apart."""

from typing import Any

import pytest
import stripe

from tests.sandbox.shop import DAY, first_item, open_shop, subscribe
from tests.sandbox_server import SandboxServer


async def test_a_customer_is_made_with_a_card_that_is_its_default(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    customer = await client.v1.customers.create_async(
        {"payment_method": "pm_card_visa", "invoice_settings": {"default_payment_method": "pm_card_visa"}}
    )
    cards = await client.v1.customers.payment_methods.list_async(customer.id)
    assert customer.invoice_settings is not None
    assert [card.id for card in cards.data] == [customer.invoice_settings.default_payment_method]
    with pytest.raises(stripe.InvalidRequestError, match="pm_card_visa"):
        await client.v1.customers.update_async(
            customer.id, {"invoice_settings": {"default_payment_method": "pm_card_visa"}}
        )


async def test_prorations_are_never_discountable(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    coupon = await shop.client.v1.coupons.create_async({"percent_off": 20, "duration": "forever"})
    subscription = await subscribe(shop, shop.starter, discounts=[{"coupon": coupon.id}])
    item = first_item(subscription)
    sandbox.advance("P10D")
    items: Any = [{"id": item.id, "price": shop.pro}]
    await shop.client.v1.subscriptions.update_async(subscription.id, {"items": items})
    upcoming = await shop.client.v1.invoices.create_preview_async({"subscription": subscription.id})
    told = {
        bool(line.parent and line.parent.subscription_item_details and line.parent.subscription_item_details.proration)
        is not line.discountable
        for line in upcoming.lines.data
    }
    assert len(upcoming.lines.data) == 3
    assert told == {True}


async def test_the_default_price_of_a_product_cannot_be_archived(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    product = await client.v1.products.create_async(
        {
            "name": "Pro",
            "default_price_data": {"currency": "usd", "unit_amount": 4900, "recurring": {"interval": "month"}},
        }
    )
    default = str(product.default_price)
    with pytest.raises(stripe.InvalidRequestError, match="default price of its product"):
        await client.v1.prices.update_async(default, {"active": False})
    other = await client.v1.prices.create_async({"product": product.id, "currency": "usd", "unit_amount": 5900})
    await client.v1.products.update_async(product.id, {"default_price": other.id})
    assert not (await client.v1.prices.update_async(default, {"active": False})).active


async def test_days_until_due_belong_to_invoices_that_are_sent(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    with pytest.raises(stripe.InvalidRequestError, match="days_until_due"):
        await subscribe(shop, shop.pro, days_until_due=14)
    with pytest.raises(stripe.InvalidRequestError, match="days_until_due"):
        await subscribe(shop, shop.pro, collection_method="send_invoice")
    sent = await subscribe(shop, shop.pro, collection_method="send_invoice", days_until_due=14)
    subscriptions = shop.client.v1.subscriptions
    assert (await subscriptions.update_async(sent.id, {"days_until_due": 20})).days_until_due == 20
    charged = await subscriptions.update_async(sent.id, {"collection_method": "charge_automatically"})
    assert charged.days_until_due is None
    with pytest.raises(stripe.InvalidRequestError, match="days_until_due"):
        await subscriptions.update_async(sent.id, {"days_until_due": 20})
    with pytest.raises(stripe.InvalidRequestError, match="days_until_due"):
        await subscriptions.update_async(sent.id, {"collection_method": "send_invoice"})


async def test_a_trial_cannot_end_in_the_past(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    trial = await subscribe(shop, shop.pro, trial_period_days=14)
    over = trial.created - DAY
    with pytest.raises(stripe.InvalidRequestError, match="in the future"):
        await shop.client.v1.subscriptions.update_async(trial.id, {"trial_end": over})
    with pytest.raises(stripe.InvalidRequestError, match="in the future"):
        await shop.client.v1.invoices.create_preview_async(
            {"subscription": trial.id, "subscription_details": {"trial_end": over}}
        )
    assert (await shop.client.v1.subscriptions.retrieve_async(trial.id)).status == "trialing"


async def test_an_amount_is_taken_off_in_its_own_currencies_only(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    euros = await shop.client.v1.coupons.create_async({"amount_off": 500, "currency": "eur", "duration": "forever"})
    with pytest.raises(stripe.InvalidRequestError, match="currency"):
        await subscribe(shop, shop.pro, discounts=[{"coupon": euros.id}])
    both = await shop.client.v1.coupons.create_async(
        {
            "amount_off": 500,
            "currency": "eur",
            "duration": "forever",
            "currency_options": {"usd": {"amount_off": 700}},
        }
    )
    shown = await shop.client.v1.coupons.retrieve_async(both.id, {"expand": ["currency_options"]})
    assert shown.to_dict()["currency_options"] == {"eur": {"amount_off": 500}, "usd": {"amount_off": 700}}
    subscription = await subscribe(shop, shop.pro, discounts=[{"coupon": both.id}], expand=["latest_invoice"])
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert subscription.latest_invoice.total == 4900 - 700


async def test_a_schedule_that_waits_pins_the_currency(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    first: Any = {"items": [{"price": shop.pro}], "currency": "eur", "duration": {"interval": "month"}}
    ahead = (await shop.client.v1.customers.retrieve_async(shop.customer)).created + 40 * DAY
    schedule = await shop.client.v1.subscription_schedules.create_async(
        {"customer": shop.customer, "start_date": ahead, "phases": [first]}
    )
    with pytest.raises(stripe.InvalidRequestError, match="combine currencies"):
        await subscribe(shop, shop.pro)
    assert (await subscribe(shop, shop.pro, currency="eur")).currency == "eur"
    await shop.client.v1.subscription_schedules.release_async(schedule.id)
    dollars: Any = {**first, "currency": "usd"}
    with pytest.raises(stripe.InvalidRequestError, match="combine currencies"):
        await shop.client.v1.subscription_schedules.create_async(
            {"customer": shop.customer, "start_date": ahead, "phases": [dollars]}
        )


async def test_a_deleted_customer_takes_what_waits_for_its_day_along(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    phase: Any = {"items": [{"price": shop.pro}], "duration": {"interval": "month"}}
    ahead = (await shop.client.v1.customers.retrieve_async(shop.customer)).created + 5 * DAY
    schedule = await shop.client.v1.subscription_schedules.create_async(
        {"customer": shop.customer, "start_date": ahead, "phases": [phase]}
    )
    await shop.client.v1.customers.delete_async(shop.customer)
    sandbox.advance("P1M")
    assert (await shop.client.v1.subscription_schedules.retrieve_async(schedule.id)).status == "canceled"
    assert (await shop.client.v1.subscriptions.list_async({"status": "all"})).data == []
