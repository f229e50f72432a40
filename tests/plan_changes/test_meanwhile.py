"""What happens between a change's confirmation and its day, and what the quote said about that day."""

from datetime import timedelta
from typing import Any

import pytest

from plangate import catalog, plan_changes
from plangate.errors import Code, Refusal
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


async def _with_support(shop: Shop, **asked: str) -> str:
    """On Pro with an item of another system beside it that is billed monthly, ten days into the period."""
    subscription = await shop.subscribed(**asked)
    product = shop.stripe.products.create({"name": "Support"})
    price = shop.stripe.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": 700, "recurring": {"interval": "month"}}
    )
    shop.stripe.subscriptions.update(subscription, {"items": [{"price": price.id}], "proration_behavior": "none"})
    shop.advance("P10D")
    await shop.sync()
    return subscription


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("month", {"interval": "year"}),
        ("month", {"cancel": "period_end"}),
        ("year", {"plan": "starter"}),
        ("year", {"interval": "month"}),
        ("year", {"plan": "starter", "when": "now"}),
        ("year", {"add_ons": {"extra-exports": 1}}),
        ("year", {"resume": True}),
    ],
)
async def test_the_next_invoice_is_the_first_that_comes_where_items_have_intervals_of_their_own(
    shop: Shop, held: str, asked: dict[str, Any]
) -> None:
    subscription = await _with_support(shop, interval=held)
    if "resume" in asked:
        await shop.change(cancel="period_end")
    known = {one["id"] for one in shop.objects("invoice")}
    quote = await shop.preview(**asked)
    assert (await shop.confirm(quote)).state in {ChangeState.APPLIED, ChangeState.SCHEDULED}
    due = [one["amount_due"] for one in shop.objects("invoice") if one["id"] not in known]
    assert due == ([quote.due_today.amount_minor] if quote.lines else [])
    known |= {one["id"] for one in shop.objects("invoice")}
    if "cancel" in asked:
        assert quote.next_invoice is None
        return
    assert quote.next_invoice is not None
    items = shop.stripe.subscriptions.retrieve(subscription)["items"].data
    first = min(item.current_period_end for item in items)
    assert abs(quote.next_invoice.at.timestamp() - first) <= 2
    shop.advance("P32D")
    assert [one["amount_due"] for one in shop.objects("invoice") if one["id"] not in known] == [
        quote.next_invoice.amount_minor
    ]


@pytest.mark.parametrize("again", [{"cancel": "period_end"}, {"plan": "free"}, {"plan": "free", "when": "period_end"}])
@pytest.mark.parametrize("is_in_dashboard", [False, True])
async def test_what_is_set_to_end_is_not_set_to_end_again(
    shop: Shop, again: dict[str, Any], *, is_in_dashboard: bool
) -> None:
    subscription = await shop.subscribed()
    if is_in_dashboard:
        shop.stripe.subscriptions.update(subscription, {"cancel_at_period_end": True})
        await shop.sync()
    else:
        await shop.change(cancel="period_end")
    rows = len(await shop.rows())
    with pytest.raises(Refusal) as caught:
        await shop.change(**again)
    assert (caught.value.code, len(await shop.rows())) == (Code.NO_CHANGE, rows)
    assert (await shop.change(cancel="now", actor=STAFF)).state is ChangeState.APPLIED


async def test_an_end_further_ahead_is_brought_forward_and_a_downgrade_gives_way_to_the_end(shop: Shop) -> None:
    subscription = await shop.subscribed()
    far = int((shop.now() + timedelta(days=90)).timestamp())
    shop.stripe.subscriptions.update(subscription, {"cancel_at": far})
    await shop.sync()
    assert (await shop.change(cancel="period_end")).state is ChangeState.SCHEDULED
    await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=STAFF)
    assert (await shop.change(plan="starter")).state is ChangeState.SCHEDULED
    assert (await shop.change(plan="free")).state is ChangeState.SCHEDULED
    assert sorted(row.state for row in await shop.rows())[-2:] == ["cancelled", "scheduled"]
