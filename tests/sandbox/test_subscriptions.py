"""Subscriptions through the official async client: started, changed, prorated, renewed, failed and ended."""

from typing import Any

import pytest
import stripe

from tests.sandbox.shop import amounts, first_item, open_shop, subscribe
from tests.sandbox_server import SandboxServer


async def test_a_subscription_is_charged_and_renewed(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro, expand=["latest_invoice.payments"])
    invoice = subscription.latest_invoice
    assert isinstance(invoice, stripe.Invoice)
    assert (subscription.status, invoice.status, invoice.amount_paid) == ("active", "paid", 4900)
    assert invoice.parent is not None
    assert invoice.parent.subscription_details is not None
    assert invoice.parent.subscription_details.subscription == subscription.id
    assert not hasattr(subscription, "current_period_end")
    end = first_item(subscription).current_period_end
    sandbox.advance("P32D")
    renewed = await shop.client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert first_item(renewed).current_period_start == end
    assert isinstance(renewed.latest_invoice, stripe.Invoice)
    assert (renewed.latest_invoice.billing_reason, renewed.latest_invoice.status) == ("subscription_cycle", "paid")


async def test_a_renewal_invoice_stays_a_draft_for_an_hour(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    end = first_item(subscription).current_period_end
    now = int(sandbox.app_state.sandbox.world.now())
    sandbox.advance(f"PT{end - now + 60}S")
    invoices = await shop.client.v1.invoices.list_async({"subscription": subscription.id, "status": "draft"})
    assert [i.billing_reason for i in invoices.data] == ["subscription_cycle"]
    sandbox.advance("PT1H")
    again = await shop.client.v1.invoices.retrieve_async(invoices.data[0].id or "")
    assert again.status == "paid"


@pytest.mark.parametrize("change", ["price", "quantity", "add", "yearly", "anchor_now"])
async def test_preview_and_charge_have_the_same_amounts(sandbox: SandboxServer, change: str) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.starter)
    sandbox.advance("P11D")
    item = first_item(subscription).id
    items = {
        "price": [{"id": item, "price": shop.pro}],
        "quantity": [{"id": item, "quantity": 4}],
        "add": [{"price": shop.seats, "quantity": 3}],
        "yearly": [{"id": item, "price": shop.pro_yearly}],
        "anchor_now": [{"id": item, "price": shop.pro}],
    }[change]
    at = int(sandbox.app_state.sandbox.world.now())
    params: Any = {"items": items, "proration_behavior": "always_invoice", "proration_date": at}
    if change == "anchor_now":
        params["billing_cycle_anchor"] = {"type": "now"}
    preview = await shop.client.v1.invoices.create_preview_async(
        {"customer": shop.customer, "subscription": subscription.id, "subscription_details": params}
    )
    before = await shop.client.v1.invoices.list_async({"customer": shop.customer})
    update: Any = {**params, "payment_behavior": "pending_if_incomplete", "expand": ["latest_invoice"]}
    changed = await shop.client.v1.subscriptions.update_async(subscription.id, update)
    assert isinstance(changed.latest_invoice, stripe.Invoice)
    assert amounts(changed.latest_invoice) == amounts(preview)
    assert changed.latest_invoice.total == preview.total
    assert changed.latest_invoice.amount_paid == preview.amount_due > 0
    assert len(before.data) == 1


async def test_prorations_wait_for_the_next_invoice_by_default(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.starter)
    sandbox.advance("P10D")
    await shop.client.v1.subscriptions.update_async(
        subscription.id, {"items": [{"id": first_item(subscription).id, "price": shop.pro}]}
    )
    upcoming = await shop.client.v1.invoices.create_preview_async({"subscription": subscription.id})
    lines = amounts(upcoming)
    assert [text.split(" after")[0] for text, _ in lines[:2]] == ["Unused time on Starter", "Remaining time on Pro"]
    assert lines[2][1] == 4900
    sandbox.advance("P31D")
    invoices = await shop.client.v1.invoices.list_async({"subscription": subscription.id, "limit": 1})
    assert invoices.data[0].total == upcoming.total


async def test_a_downgrade_now_credits_the_balance_and_the_next_invoice_uses_it(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro_yearly)
    sandbox.advance("P30D")
    await shop.client.v1.subscriptions.update_async(
        subscription.id,
        {
            "items": [{"id": first_item(subscription).id, "price": shop.starter}],
            "proration_behavior": "always_invoice",
        },
    )
    customer = await shop.client.v1.customers.retrieve_async(shop.customer)
    assert customer.balance is not None
    assert customer.balance < -40000
    sandbox.advance("P32D")
    invoices = await shop.client.v1.invoices.list_async({"customer": shop.customer, "limit": 1})
    assert (invoices.data[0].total, invoices.data[0].amount_due) == (1900, 0)


async def test_a_card_that_fails_later_leads_to_past_due_retries_and_the_end(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    bad = await shop.client.v1.payment_methods.attach_async("pm_card_chargeCustomerFail", {"customer": shop.customer})
    await shop.client.v1.customers.update_async(shop.customer, {"invoice_settings": {"default_payment_method": bad.id}})
    sandbox.advance("P32D")
    found = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert found.status == "past_due"
    await shop.client.v1.customers.update_async(
        shop.customer, {"invoice_settings": {"default_payment_method": shop.card}}
    )
    sandbox.advance("P4D")
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"
    await shop.client.v1.customers.update_async(shop.customer, {"invoice_settings": {"default_payment_method": bad.id}})
    sandbox.advance("P60D")
    ended = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert ended.status == "canceled"
    assert ended.cancellation_details is not None
    assert ended.cancellation_details.reason == "payment_failed"


async def test_a_change_that_needs_authentication_waits_and_expires(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.starter)
    card = await shop.client.v1.payment_methods.attach_async(
        "pm_card_authenticationRequired", {"customer": shop.customer}
    )
    await shop.client.v1.subscriptions.update_async(subscription.id, {"default_payment_method": card.id})
    sandbox.advance("P3D")
    pending = await shop.client.v1.subscriptions.update_async(
        subscription.id,
        {
            "items": [{"id": first_item(subscription).id, "price": shop.pro}],
            "proration_behavior": "always_invoice",
            "payment_behavior": "pending_if_incomplete",
            "expand": ["latest_invoice"],
        },
    )
    assert pending.status == "active"
    assert pending.pending_update is not None
    assert first_item(pending).price.id == shop.starter
    assert isinstance(pending.latest_invoice, stripe.Invoice)
    assert pending.latest_invoice.hosted_invoice_url is not None
    sandbox.advance("P1D")
    after = await shop.client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert after.pending_update is None
    assert first_item(after).price.id == shop.starter
    events = await shop.client.v1.events.list_async({"type": "customer.subscription.pending_update_expired"})
    assert len(events.data) == 1


async def test_error_if_incomplete_changes_nothing(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.starter)
    bad = await shop.client.v1.payment_methods.attach_async("pm_card_chargeCustomerFail", {"customer": shop.customer})
    await shop.client.v1.subscriptions.update_async(subscription.id, {"default_payment_method": bad.id})
    count = len((await shop.client.v1.invoices.list_async({"customer": shop.customer})).data)
    with pytest.raises(stripe.CardError) as refused:
        await shop.client.v1.subscriptions.update_async(
            subscription.id,
            {
                "items": [{"id": first_item(subscription).id, "price": shop.pro}],
                "proration_behavior": "always_invoice",
                "payment_behavior": "error_if_incomplete",
            },
        )
    assert (refused.value.http_status, refused.value.code) == (402, "card_declined")
    same = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert first_item(same).price.id == shop.starter
    assert len((await shop.client.v1.invoices.list_async({"customer": shop.customer})).data) == count


async def test_a_trial_gives_notice_ends_and_charges(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro, trial_period_days=14)
    assert subscription.status == "trialing"
    sandbox.advance("P12D")
    events = await shop.client.v1.events.list_async({"type": "customer.subscription.trial_will_end"})
    assert len(events.data) == 1
    sandbox.advance("P3D")
    found = await shop.client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert found.status == "active"
    assert isinstance(found.latest_invoice, stripe.Invoice)
    assert found.latest_invoice.amount_paid == 4900


async def test_a_trial_without_a_card_pauses_when_told_to(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    other = await shop.client.v1.customers.create_async({"name": "Globex"})
    subscription = await shop.client.v1.subscriptions.create_async(
        {
            "customer": other.id,
            "items": [{"price": shop.pro}],
            "trial_period_days": 7,
            "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
        }
    )
    sandbox.advance("P8D")
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "paused"
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        await shop.client.v1.subscriptions.resume_async(subscription.id)


async def test_cancel_at_period_end_and_taking_it_back(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    ending = await shop.client.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    assert ending.cancel_at == first_item(ending).current_period_end
    kept = await shop.client.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": False})
    assert (kept.cancel_at, kept.cancel_at_period_end) == (None, False)
    await shop.client.v1.subscriptions.update_async(subscription.id, {"cancel_at": "min_period_end"})
    sandbox.advance("P32D")
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "canceled"
    listed = await shop.client.v1.subscriptions.list_async({"customer": shop.customer})
    everything = await shop.client.v1.subscriptions.list_async({"customer": shop.customer, "status": "all"})
    assert (len(listed.data), len(everything.data)) == (0, 1)
    with pytest.raises(stripe.InvalidRequestError, match="canceled subscription can only update"):
        await shop.client.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        await shop.client.v1.subscriptions.cancel_async(subscription.id)


async def test_an_incomplete_subscription_expires_after_23_hours(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro, payment_behavior="default_incomplete")
    assert subscription.status == "incomplete"
    sandbox.advance("PT24H")
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "incomplete_expired"
    with pytest.raises(stripe.InvalidRequestError, match="incomplete_expired"):
        await shop.client.v1.subscriptions.update_async(subscription.id, {"metadata": {"a": "b"}})


async def test_paying_the_open_invoice_activates(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro, payment_behavior="default_incomplete")
    await shop.client.v1.invoices.pay_async(str(subscription.latest_invoice))
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        await shop.client.v1.invoices.pay_async(str(subscription.latest_invoice))


async def test_refusals_in_stripes_words(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    with pytest.raises(stripe.InvalidRequestError, match="Cannot add multiple subscription items with the same plan"):
        await subscribe(shop, shop.pro, shop.pro)
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await subscribe(shop, "price_nope")
    assert (unknown.value.http_status, unknown.value.code, unknown.value.param) == (
        400,
        "resource_missing",
        "items[0][price]",
    )
    with pytest.raises(stripe.InvalidRequestError) as absent:
        await shop.client.v1.subscriptions.retrieve_async("sub_nope")
    assert (absent.value.http_status, absent.value.code) == (404, "resource_missing")
    await subscribe(shop, shop.pro)
    with pytest.raises(stripe.InvalidRequestError, match="cannot combine currencies"):
        await subscribe(shop, shop.starter, currency="eur")
    nobody = await shop.client.v1.customers.create_async({})
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        await shop.client.v1.subscriptions.create_async({"customer": nobody.id, "items": [{"price": shop.pro}]})


async def test_classic_billing_refuses_mixed_intervals_and_flexible_allows_them(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    with pytest.raises(stripe.InvalidRequestError, match="must have the same"):
        await subscribe(shop, shop.pro_yearly, shop.seats, billing_mode={"type": "classic"})
    mixed = await subscribe(shop, shop.pro_yearly, shop.seats)
    ends = {item.current_period_end for item in mixed["items"].data}
    assert len(ends) == 2
    assert mixed.billing_mode.type == "flexible"


async def test_pause_collection_keeps_the_status(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    await shop.client.v1.subscriptions.update_async(subscription.id, {"pause_collection": {"behavior": "void"}})
    sandbox.advance("P32D")
    found = await shop.client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert found.status == "active"
    assert isinstance(found.latest_invoice, stripe.Invoice)
    assert found.latest_invoice.status == "void"


async def test_discounts_apply_once_and_previews_know_them(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    coupon = await shop.client.v1.coupons.create_async({"percent_off": 25, "duration": "once"})
    code = await shop.client.v1.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "quarter"}
    )
    subscription = await subscribe(shop, shop.pro, discounts=[{"promotion_code": code.id}], expand=["latest_invoice"])
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert subscription.latest_invoice.amount_paid == 3675
    upcoming = await shop.client.v1.invoices.create_preview_async({"subscription": subscription.id})
    assert upcoming.amount_due == 4900


async def test_month_ends_clamp_and_come_back(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    sandbox.control("POST", "clock", {"to": "2027-01-31T10:00:00Z"})
    subscription = await subscribe(shop, shop.pro)
    days = []
    for _ in range(3):
        found = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
        end = first_item(found).current_period_end
        days.append(end)
        now = int(sandbox.app_state.sandbox.world.now())
        sandbox.advance(f"PT{end - now + 1}S")
    from datetime import UTC, datetime

    assert [datetime.fromtimestamp(d, UTC).strftime("%m-%d") for d in days] == ["02-28", "03-31", "04-30"]


async def test_a_preview_changes_nothing(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.starter)
    await shop.client.v1.coupons.create_async({"id": "ten", "percent_off": 10, "duration": "once"})
    sandbox.advance("P3D")

    def everything() -> dict[str, Any]:
        objects: dict[str, Any] = sandbox.control("GET", "state")["objects"]
        return objects

    before = everything()
    for details in (
        {"items": [{"id": first_item(subscription).id, "price": shop.pro_yearly}]},
        {"items": [{"price": shop.seats, "quantity": 2}], "proration_behavior": "always_invoice"},
        {"cancel_now": True},
        {"cancel_at_period_end": False},
    ):
        params: Any = {
            "subscription": subscription.id,
            "subscription_details": details,
            "discounts": [{"coupon": "ten"}],
        }
        await shop.client.v1.invoices.create_preview_async(params)
    created: Any = {"customer": shop.customer, "subscription_details": {"items": [{"price": shop.pro}]}}
    assert (await shop.client.v1.invoices.create_preview_async(created)).amount_due == 4900
    assert everything() == before
    ending: Any = {"subscription": subscription.id, "subscription_details": {"cancel_at_period_end": True}}
    with pytest.raises(stripe.InvalidRequestError) as none:
        await shop.client.v1.invoices.create_preview_async(ending)
    assert (none.value.http_status, none.value.code) == (404, "invoice_upcoming_none")
    assert everything() == before


async def test_a_preview_of_a_schedule_shows_the_phase_that_comes(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    item = first_item(subscription)
    params: Any = {
        "subscription": subscription.id,
        "schedule_details": {
            "proration_behavior": "none",
            "phases": [
                {
                    "start_date": item.current_period_start,
                    "end_date": item.current_period_end,
                    "items": [{"price": shop.pro, "quantity": 1}],
                },
                {"items": [{"price": shop.starter, "quantity": 1}], "proration_behavior": "none"},
            ],
        },
    }
    upcoming = await shop.client.v1.invoices.create_preview_async(params)
    assert (upcoming.amount_due, upcoming.period_end) == (1900, item.current_period_end)
    assert (await shop.client.v1.subscriptions.retrieve_async(subscription.id)).schedule is None
