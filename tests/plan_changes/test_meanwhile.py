"""What happens between a change's confirmation and its day, and what the quote said about that day."""

from datetime import timedelta

import pytest

from plangate import catalog, plan_changes
from plangate.mirroring import refetch
from plangate.shapes import Actor, ChangeState
from tests.shop import DOCUMENT, STAFF, Shop


def _archive(shop: Shop, amount_minor: int) -> None:
    """Somebody takes the price off sale in the dashboard."""
    (price,) = (one for one in shop.objects("price") if one["unit_amount"] == amount_minor)
    shop.stripe.prices.update(price["id"], {"active": False})


async def test_a_downgrade_arrives_although_its_price_was_archived_meanwhile(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    change = await shop.change(plan="starter")
    _archive(shop, 1900)
    shop.advance("P32D")
    await shop.sync()
    assert await shop.plan() == "starter"
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED
    invoice = max(shop.objects("invoice"), key=lambda one: (one["created"], one["id"]))
    assert (invoice["status"], invoice["amount_due"]) == ("paid", 1900)


async def test_a_deal_starts_although_its_price_was_archived_meanwhile(shop: Shop) -> None:
    await shop.customer()
    deal = {
        "amount_minor": 12_345,
        "currency": "usd",
        "interval": "month",
        "starts_at": (shop.now() + timedelta(days=5)).isoformat(),
    }
    change = await shop.change(actor=STAFF, plan="pro", custom_price=deal)
    assert change.state is ChangeState.SCHEDULED
    _archive(shop, 12_345)
    shop.advance("P6D")
    await shop.sync()
    assert await shop.plan() == "pro"
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED


@pytest.mark.parametrize("days", [3, 30])
async def test_the_quote_of_a_longer_trial_names_the_invoice_at_its_end(shop: Shop, days: int) -> None:
    plans = {**DOCUMENT["plans"], "starter": {**DOCUMENT["plans"]["starter"], "trial_days": 14}}
    await catalog.apply(shop.env, {**DOCUMENT, "plans": plans}, actor=Actor(kind="cli", id="tests"))
    await shop.customer()
    await shop.change(plan="starter")
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert subscription.trial_end_at is not None
    ends_at = subscription.trial_end_at + timedelta(days=days)
    quote = await shop.preview(actor=STAFF, trial_end=ends_at.isoformat())
    assert quote.due_today.amount_minor == 0
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.next_invoice.at) == (1900, ends_at)
    await shop.confirm(quote, actor=STAFF)
    shop.advance(f"P{15 + days}D")
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "starter"
    paid = [one["amount_due"] for one in shop.objects("invoice") if one["amount_due"]]
    assert paid == [1900]
