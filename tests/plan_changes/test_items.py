"""Subscriptions of several items: the plan's own price, what is bought in advance, what is billed as it is used."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from plangate import companies
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeKind, ChangeState
from tests.plan_changes.generated import SOLD
from tests.sandbox_server import SandboxServer
from tests.shop import STAFF, Shop


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, {**SOLD, "settings": {"proration": "charge_now"}})
    yield opened
    await opened.close()


def _items(shop: Shop) -> dict[str, int | None]:
    """What the subscription holds, by the lookup key of each price without its terms, and how many."""
    (subscription,) = [one for one in shop.objects("subscription") if one["status"] in {"active", "trialing"}]
    named = {price["id"]: price["metadata"] for price in shop.objects("price")}
    found: dict[str, int | None] = {}
    for item in subscription["items"]["data"]:
        marks = named[item["price"]["id"]]
        owner = marks.get("plangate_plan") or f"+{marks['plangate_add_on']}"
        feature = marks.get("plangate_feature")
        found[f"{owner}/{feature}" if feature else owner] = item.get("quantity")
    return found


async def _limit(shop: Shop, feature: str) -> int | None:
    answer = (await shop.snapshot()).features[feature].answer
    return answer.allowances[0].limit if answer.allowances else answer.template.limit


async def test_a_plan_is_bought_with_all_it_charges_for(shop: Shop) -> None:
    await shop.customer()
    quote = await shop.preview(plan="scale", quantities={"plan": 2, "seats": 7})
    # Two at 5,000 each, seats at 600 up to five and at 450 beyond.
    assert quote.due_today.amount_minor == 2 * 5_000 + 5 * 600 + 2 * 450
    assert [(one.feature, one.price.tiers_mode, one.price.package_size) for one in quote.plus_usage] == [
        ("calls", None, 100),
        ("storage", "graduated", 1),
    ]
    assert all(one.price.stripe_price_id is None for one in quote.plus_usage)
    change = await shop.confirm(quote)
    assert (change.state, change.to.units) == (ChangeState.APPLIED, {"seats": 7})
    assert _items(shop) == {"scale": 2, "scale/seats": 7, "scale/calls": None, "scale/storage": None}
    assert await _limit(shop, "seats") == 7
    assert (await companies.get(shop.env, shop.company_id)).units == {"seats": 7}


async def test_what_was_not_bought_in_advance_is_no_item(shop: Shop) -> None:
    await shop.subscribed(plan="scale")
    assert _items(shop) == {"scale": 1, "scale/calls": None, "scale/storage": None}
    more = await shop.change(quantities={"seats": 4})
    assert (more.kind, more.state) == (ChangeKind.UPGRADE, ChangeState.APPLIED)
    assert _items(shop)["scale/seats"] == 4
    fewer = await shop.change(quantities={"seats": 0}, when="now")
    assert fewer.kind is ChangeKind.DOWNGRADE
    assert "scale/seats" not in _items(shop)


async def test_an_interval_moves_every_item(shop: Shop) -> None:
    await shop.subscribed(plan="scale", quantities={"plan": 2, "seats": 3}, add_ons={"tokens": 1})
    change = await shop.change(interval="year")
    assert change.state is ChangeState.APPLIED
    (subscription,) = shop.objects("subscription")
    assert {item["price"]["recurring"]["interval"] for item in subscription["items"]["data"]} == {"year"}
    assert _items(shop) == {
        "scale": 2,
        "scale/seats": 3,
        "scale/calls": None,
        "scale/storage": None,
        "+tokens": 1,
        "+tokens/tokens": None,
    }


async def test_what_is_charged_for_ends_with_its_plan(shop: Shop) -> None:
    await shop.subscribed(plan="scale", quantities={"seats": 3})
    change = await shop.change(plan="starter", when="now")
    assert change.state is ChangeState.APPLIED
    assert _items(shop) == {"starter": 1}


async def test_what_an_add_on_charges_for_ends_with_it(shop: Shop) -> None:
    await shop.subscribed(plan="starter", add_ons={"tokens": 1}, quantities={"tokens/seats": 2})
    assert _items(shop) == {"starter": 1, "+tokens": 1, "+tokens/seats": 2, "+tokens/tokens": None}
    await shop.change(add_ons={"tokens": 0}, when="now")
    assert _items(shop) == {"starter": 1}


async def test_another_plan_takes_over_what_both_charge_for(shop: Shop) -> None:
    await shop.subscribed(plan="scale", quantities={"seats": 3})
    await shop.change(plan="team", when="now")
    assert _items(shop) == {"team": 1, "team/seats": 3, "team/calls": None}


async def test_fewer_seats_wait_for_the_end_of_the_period_and_more_are_not_bought_meanwhile(shop: Shop) -> None:
    await shop.subscribed(plan="scale", quantities={"seats": 6})
    fewer = await shop.change(quantities={"seats": 2})
    assert fewer.state is ChangeState.SCHEDULED
    assert _items(shop)["scale/seats"] == 6
    with pytest.raises(Refusal) as caught:
        await shop.preview(quantities={"seats": 8})
    assert caught.value.code is Code.DOWNGRADE_SCHEDULED
    shop.advance("P32D")
    await shop.sync()
    assert _items(shop)["scale/seats"] == 2
    assert await _limit(shop, "seats") == 2


async def test_a_plan_that_costs_only_what_is_used_is_held_by_that_alone(shop: Shop) -> None:
    await shop.customer()
    quote = await shop.preview(plan="metered")
    assert (quote.due_today.amount_minor, [one.feature for one in quote.plus_usage]) == (0, ["calls"])
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert await shop.plan() == "metered"
    assert _items(shop) == {"metered/calls": None}
    with pytest.raises(Refusal) as caught:
        await shop.preview(quantities={"plan": 3})
    assert caught.value.errors[0].pointer == "/quantities/plan"


async def test_what_is_not_sold_in_advance_cannot_be_bought(shop: Shop) -> None:
    await shop.subscribed(plan="scale")
    with pytest.raises(Refusal) as caught:
        await shop.preview(quantities={"storage": 3})
    assert (caught.value.status, caught.value.errors[0].pointer) == (422, "/quantities/storage")


async def test_a_discount_for_one_product_is_quoted_before_there_is_a_customer(shop: Shop) -> None:
    products = {one["metadata"].get("plangate_plan"): one["id"] for one in shop.objects("product")}
    asked: Any = {"percent_off": 50, "duration": "once", "applies_to": {"products": [products["starter"]]}}
    coupon = shop.stripe.coupons.create(asked)
    shop.stripe.promotion_codes.create({"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "HALF"})
    quote = await shop.preview(plan="starter", add_ons={"tokens": 1}, promotion_code="HALF")
    assert (quote.needs_checkout, quote.due_today.amount_minor) == (True, 950 + 999)
    change = await shop.confirm(quote)
    assert change.next_action is not None
    assert shop.pay(change.next_action.url) == 303
    assert [invoice["amount_paid"] for invoice in shop.objects("invoice")] == [950 + 999]


async def test_a_longer_trial_is_quoted_with_what_comes_at_its_end(shop: Shop) -> None:
    await shop.subscribed(plan="team", quantities={"seats": 2})
    ends_at = (shop.now() + timedelta(days=30)).replace(microsecond=0)
    quote = await shop.preview(actor=STAFF, trial_end=ends_at.isoformat())
    assert quote.next_invoice is not None
    assert (quote.due_today.amount_minor, quote.next_invoice.amount_minor) == (0, 3_333 + 2 * 700)
    assert quote.next_invoice.at == ends_at
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.APPLIED
    shop.advance("P31D")
    await shop.sync()
    assert max(invoice["total"] for invoice in shop.objects("invoice")) == 3_333 + 2 * 700


async def test_a_trial_whose_end_a_change_waits_for_is_not_moved(shop: Shop) -> None:
    await shop.subscribed(plan="team")
    change = await shop.change(plan="starter", when="period_end")
    with pytest.raises(Refusal) as caught:
        await shop.preview(actor=STAFF, trial_end=(shop.now() + timedelta(days=30)).isoformat())
    assert caught.value.code is Code.DOWNGRADE_SCHEDULED
    assert change.state is ChangeState.SCHEDULED
