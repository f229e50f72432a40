"""The less travelled ways: trials, intervals, settings of the catalogue, changes made in the dashboard meanwhile."""

from datetime import timedelta
from typing import Any

import pytest

from plangate import catalog, plan_changes
from plangate.billing.gateway import StripeGateway
from plangate.engine.values import Interval
from plangate.errors import Code, Refusal
from plangate.mirroring import refetch
from plangate.shapes import Actor, ChangeKind, ChangeState
from tests.shop import CUSTOMER, DOCUMENT, Shop, new_company


def with_settings(**settings: object) -> dict[str, Any]:
    return {**DOCUMENT, "settings": settings}


async def apply(shop: Shop, document: dict[str, Any]) -> None:
    await catalog.apply(shop.env, document, actor=Actor(kind="cli", id="tests"))


@pytest.mark.parametrize("asked", [{}, {"plan": "pro"}, {"plan": "pro", "interval": "month"}, {"plan": "starter"}])
async def test_another_currency_is_refused_also_when_nothing_else_changes(shop: Shop, asked: dict[str, Any]) -> None:
    await shop.subscribed()
    with pytest.raises(Refusal) as caught:
        await shop.preview(currency="eur", **asked)
    assert (caught.value.code, caught.value.extra["way_out"]) == (Code.CURRENCY_PINNED, "keep_currency")
    with pytest.raises(Refusal) as same:
        await shop.preview(currency="usd", plan="pro")
    assert same.value.code is Code.NO_CHANGE


async def test_month_to_year_starts_a_new_period_and_charges_what_was_quoted(shop: Shop) -> None:
    await shop.subscribed()
    shop.advance("P10D")
    await shop.sync()
    quote = await shop.preview(interval="year")
    assert quote.kind is ChangeKind.UPGRADE
    assert 43_000 < quote.due_today.amount_minor < 45_000
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.next_invoice.at.year) == (47_000, shop.now().year + 1)
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    newest = max(shop.objects("invoice"), key=lambda invoice: invoice["created"])
    assert newest["amount_paid"] == quote.due_today.amount_minor
    assert (await shop.snapshot()).cycle.interval is Interval.YEAR


async def test_d6_a_new_interval_at_the_boundary_is_charged_there(shop: Shop) -> None:
    await shop.subscribed(interval="year")
    quote = await shop.preview(plan="starter", interval="month")
    assert (quote.kind, quote.is_scheduled) == (ChangeKind.DOWNGRADE, True)
    change = await shop.confirm(quote)
    assert change.state is ChangeState.SCHEDULED
    shop.advance("P1Y")
    shop.advance("P1D")
    await shop.sync()
    assert await shop.plan() == "starter"
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED
    assert sorted(invoice["amount_paid"] for invoice in shop.objects("invoice")) == [1900, 47_000]
    shop.advance("P1M")
    await shop.sync()
    assert sorted(invoice["amount_paid"] for invoice in shop.objects("invoice")) == [1900, 1900, 47_000]


@pytest.mark.parametrize(("proration", "is_charged_later"), [("next_invoice", True), ("none", False)])
async def test_the_proration_setting(shop: Shop, proration: str, is_charged_later: bool) -> None:
    await shop.subscribed(plan="starter")
    await apply(shop, with_settings(proration=proration))
    shop.advance("P10D")
    await shop.sync()
    quote = await shop.preview(plan="pro")
    assert quote.due_today.amount_minor == 0
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor > 4900) is is_charged_later
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert len(shop.objects("invoice")) == 1
    shop.advance("P1M")
    await shop.sync()
    renewal = max(shop.objects("invoice"), key=lambda invoice: invoice["created"])
    assert renewal["amount_paid"] == quote.next_invoice.amount_minor


async def test_the_setting_that_reduces_at_once(shop: Shop) -> None:
    await shop.subscribed()
    await apply(shop, with_settings(downgrades="now"))
    quote = await shop.preview(plan="starter")
    assert not quote.is_scheduled
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert await shop.plan() == "starter"


async def test_an_end_set_in_the_dashboard_is_taken_back(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    shop.stripe.subscriptions.update(stripe_subscription_id, {"cancel_at_period_end": True})
    taken_back = await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)
    assert (taken_back.kind, taken_back.state) == (ChangeKind.RESUME, ChangeState.APPLIED)
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).cancel_at is None


async def test_an_end_by_date_is_taken_back_by_a_quote(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    ends = int((shop.now() + timedelta(days=12)).timestamp())
    shop.stripe.subscriptions.update(stripe_subscription_id, {"cancel_at": ends})
    await shop.sync()
    quote = await shop.preview(resume=True)
    assert (quote.kind, quote.due_today.amount_minor) == (ChangeKind.RESUME, 0)
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).cancel_at is None


async def test_an_upgrade_takes_a_scheduled_end_back(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed(plan="starter")
    cancelled = await shop.change(cancel="period_end")
    upgraded = await shop.change(plan="pro")
    assert (upgraded.kind, upgraded.state) == (ChangeKind.UPGRADE, ChangeState.APPLIED)
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).cancel_at is None
    assert (await plan_changes.get(shop.env, shop.company_id, cancelled.id)).state is ChangeState.CANCELLED


async def test_d9_cancelling_replaces_a_scheduled_downgrade(shop: Shop) -> None:
    await shop.subscribed()
    downgrade = await shop.change(plan="starter")
    cancel = await shop.change(cancel="period_end")
    assert cancel.state is ChangeState.SCHEDULED
    assert (await plan_changes.get(shop.env, shop.company_id, downgrade.id)).state is ChangeState.CANCELLED
    shop.advance("P1M")
    shop.advance("P1D")
    await shop.sync()
    assert await shop.plan() == "free"


async def test_a_downgrade_replaces_a_scheduled_end(shop: Shop) -> None:
    await shop.subscribed()
    cancel = await shop.change(cancel="period_end")
    downgrade = await shop.change(plan="starter")
    assert downgrade.state is ChangeState.SCHEDULED
    assert (await plan_changes.get(shop.env, shop.company_id, cancel.id)).state is ChangeState.CANCELLED
    shop.advance("P1M")
    shop.advance("P1D")
    await shop.sync()
    assert await shop.plan() == "starter"


async def test_a_schedule_released_in_the_dashboard_cancels_the_change(shop: Shop) -> None:
    await shop.subscribed()
    change = await shop.change(plan="starter")
    (schedule,) = shop.objects("subscription_schedule")
    shop.stripe.subscription_schedules.release(schedule["id"])
    await shop.sync()
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.CANCELLED


async def test_a_mixed_change_is_decided_by_the_plan(shop: Shop) -> None:
    await shop.subscribed(plan="starter", add_ons={"extra-exports": 2})
    assert (await shop.snapshot()).add_ons[0].quantity == 2
    change = await shop.change(plan="pro", add_ons={"extra-exports": 0})
    assert (change.kind, change.state) == (ChangeKind.UPGRADE, ChangeState.APPLIED)
    assert (await shop.snapshot()).add_ons == ()


async def test_a_downgrade_keeps_its_add_ons_and_discount(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed(add_ons={"extra-exports": 2})
    coupon = shop.stripe.coupons.create({"percent_off": 50, "duration": "forever"})
    shop.stripe.subscriptions.update(
        stripe_subscription_id, {"discounts": [{"coupon": coupon.id}], "metadata": {"crm": "42"}}
    )
    await shop.sync()
    quote = await shop.preview(plan="starter")
    assert quote.next_invoice is not None
    assert quote.next_invoice.amount_minor == (1900 + 2 * 500) // 2
    await shop.confirm(quote)
    shop.advance("P1M")
    shop.advance("P1D")
    await shop.sync()
    assert (await shop.plan(), (await shop.snapshot()).add_ons[0].quantity) == ("starter", 2)
    after = shop.stripe.subscriptions.retrieve(stripe_subscription_id)
    assert after.to_dict()["metadata"]["crm"] == "42"
    newest = max(shop.objects("invoice"), key=lambda invoice: invoice["created"])
    assert newest["amount_paid"] == quote.next_invoice.amount_minor


async def test_quantities_edited_in_the_dashboard_reach_the_later_phase(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed(add_ons={"extra-exports": 2})
    change = await shop.change(plan="starter")
    items = (await shop.snapshot()).subscription
    assert items is not None
    add_on = next(item for item in items.items if item.unit_amount_minor == 500)
    shop.stripe.subscriptions.update(
        stripe_subscription_id,
        {"items": [{"id": add_on.stripe_item_id, "quantity": 5}], "proration_behavior": "none"},
    )
    await shop.sync()
    assert await plan_changes.resume_unfinished(shop.env) == 1
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.SCHEDULED
    (schedule,) = shop.objects("subscription_schedule")
    assert sorted(item["quantity"] for item in schedule["phases"][1]["items"]) == [1, 5]
    # Told again, nothing more is to do.
    await shop.sync()
    assert await plan_changes.resume_unfinished(shop.env) == 0
    shop.advance("P1M")
    shop.advance("P1D")
    await shop.sync()
    assert (await shop.plan(), (await shop.snapshot()).add_ons[0].quantity) == ("starter", 5)
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).status == "active"


async def test_s10_more_than_ten_items_and_metered_ones_first(shop: Shop) -> None:
    """Items beyond the ten that come embedded are fetched, and ones nobody knows are left as they are."""
    customer = await shop.customer()
    product = shop.stripe.products.create({"name": "Elsewhere"})
    meter = shop.stripe.billing.meters.create(
        {"display_name": "Calls", "event_name": "calls", "default_aggregation": {"formula": "sum"}}
    )
    metered = shop.stripe.prices.create(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 1,
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
        }
    )
    others = [
        shop.stripe.prices.create(
            {"product": product.id, "currency": "usd", "unit_amount": 100 + n, "recurring": {"interval": "month"}}
        ).id
        for n in range(11)
    ]
    plan = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.create(
        {"customer": customer, "items": [{"price": price} for price in (metered.id, *others, plan)]}
    )
    found = await refetch(shop.env, shop.company_id)
    assert len(found.facts[0].items) == 13
    assert await shop.plan() == "pro"
    change = await shop.change(plan="starter")
    assert change.state is ChangeState.SCHEDULED
    assert len(found.facts[0].items) == len((await refetch(shop.env, shop.company_id)).facts[0].items)
    shop.advance("P1M")
    shop.advance("P1D")
    await shop.sync()
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert len(subscription.items) == 13
    assert await shop.plan() == "starter"


async def test_companies_nobody_knows(shop: Shop) -> None:
    for call in (
        plan_changes.listing(shop.env, "comp_unknown"),
        plan_changes.cancel_scheduled(shop.env, "comp_unknown", actor=CUSTOMER),
        plan_changes.portal_url(shop.env, "comp_unknown", return_url="http://shop.test"),
        plan_changes.get(shop.env, shop.company_id, "chg_unknown"),
        plan_changes.preview(shop.env, "comp_unknown", plan_changes.ChangeRequest(plan="pro"), actor=CUSTOMER),
    ):
        with pytest.raises(Refusal) as caught:
            await call
        assert caught.value.code is Code.NOT_FOUND
    change = await shop.change(plan="pro")
    other = await new_company(shop.env, "other")
    with pytest.raises(Refusal):
        await plan_changes.get(shop.env, other, change.id)
    assert await plan_changes.listing(shop.env, other) == []
    assert [one.id for one in await plan_changes.listing(shop.env, shop.company_id)] == [change.id]


async def test_a_change_that_others_undid_at_once_is_not_under_way_for_ever(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe took the update, and before the next fetch somebody changed the items in the dashboard."""
    stripe_subscription_id = await shop.subscribed(plan="starter")
    quote = await shop.preview(plan="pro")
    price = (await shop.env.catalog()).add_ons["extra-exports"].prices[0].stripe_price_id or ""
    update = StripeGateway.update_subscription

    async def undone(self: StripeGateway, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on as they come
        answer = await update(self, *args, **options)
        shop.stripe.subscriptions.update(stripe_subscription_id, {"items": [{"price": price}]})
        return answer

    monkeypatch.setattr(StripeGateway, "update_subscription", undone)
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert await shop.plan() == "pro"
    assert await plan_changes.resume_unfinished(shop.env) == 0


async def test_what_cannot_be_taken_back_still_waits_for_its_date(shop: Shop) -> None:
    await shop.subscribed()
    change = await shop.change(plan="starter")
    shop.sandbox.control(
        "POST",
        "faults",
        {"fault": "fail_call", "method": "POST", "path": "/v1/subscription_schedules/*", "status": 400},
    )
    with pytest.raises(Refusal) as caught:
        await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)
    assert caught.value.code is Code.STRIPE_REFUSED
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.SCHEDULED
