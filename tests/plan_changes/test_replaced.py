"""A scheduled change that another one replaces: only the newest waits, is followed when edited, and arrives."""

from typing import Any

import pytest

from plangate import plan_changes
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeState
from tests.shop import Shop


async def _states(shop: Shop) -> list[str]:
    """The states of the company's changes, the newest first, without the first subscription."""
    return [one.state.value for one in await plan_changes.listing(shop.env, shop.company_id)][:-1]


@pytest.mark.parametrize(
    ("first", "second", "arrives"),
    [
        ({"quantities": {"plan": 5}}, {"quantities": {"plan": 3}}, ("pro", 3)),
        (
            {"plan": "starter", "quantities": {"plan": 4}},
            {"plan": "starter", "quantities": {"plan": 2}},
            ("starter", 2),
        ),
    ],
)
async def test_an_edit_in_the_dashboard_does_not_bring_back_what_was_replaced(
    shop: Shop, first: dict[str, Any], second: dict[str, Any], arrives: tuple[str, int]
) -> None:
    stripe_subscription_id = await shop.subscribed(quantities={"plan": 10})
    await shop.change(**first)
    assert await _states(shop) == ["scheduled"]
    await shop.change(**second)
    assert await _states(shop) == ["scheduled", "cancelled"]
    item = shop.stripe.subscriptions.retrieve(stripe_subscription_id)["items"].data[0]
    edited: Any = {"items": [{"id": item.id, "quantity": 8}], "proration_behavior": "none"}
    shop.stripe.subscriptions.update(stripe_subscription_id, edited)
    await shop.sync()
    await plan_changes.resume_unfinished(shop.env)
    assert await _states(shop) == ["scheduled", "cancelled"]
    shop.advance("P32D")
    await shop.sync()
    plan = (await shop.snapshot()).plan
    assert plan is not None
    assert (plan.key, plan.quantity) == arrives
    assert await _states(shop) == ["applied", "cancelled"]


async def test_what_is_scheduled_already_is_not_scheduled_again(shop: Shop) -> None:
    await shop.subscribed()
    first, second = await shop.preview(plan="starter"), await shop.preview(plan="starter")
    assert (await shop.confirm(first)).state is ChangeState.SCHEDULED
    for again in (shop.confirm(second), shop.preview(plan="starter")):
        with pytest.raises(Refusal) as caught:
            await again
        assert caught.value.code is Code.NO_CHANGE
    assert await _states(shop) == ["scheduled"]


async def test_giving_up_an_add_on_keeps_the_move_to_another_plan_that_waits(shop: Shop) -> None:
    """What is not mentioned stays, also of what is scheduled: the plan goes down and the add-on with it."""
    await shop.subscribed(quantities={"plan": 3}, add_ons={"extra-exports": 2})
    await shop.change(plan="starter", quantities={"plan": 3})
    quote = await shop.preview(add_ons={"extra-exports": 0})
    assert quote.next_invoice is not None
    assert quote.next_invoice.amount_minor == 3 * 1900
    await shop.confirm(quote)
    quote = await shop.preview(quantities={"plan": 2})
    await shop.confirm(quote)
    assert await _states(shop) == ["scheduled", "cancelled", "cancelled"]
    shop.advance("P32D")
    await shop.sync()
    snapshot = await shop.snapshot()
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.plan.quantity, list(snapshot.add_ons)) == ("starter", 2, [])


@pytest.mark.parametrize(
    ("scheduled", "fewer", "arrives"),
    [
        ({"interval": "month"}, {"pro": 3}, ("pro", "month", 3)),
        ({"plan": "starter"}, {"starter": 2}, ("starter", "year", 2)),
        # Who names the plan held means that one.
        ({"plan": "starter"}, {"pro": 4}, ("pro", "year", 4)),
    ],
)
async def test_fewer_seats_of_a_plan_that_is_named_are_of_what_waits(
    shop: Shop, scheduled: dict[str, Any], fewer: dict[str, int], arrives: tuple[str, str, int]
) -> None:
    await shop.subscribed(interval="year", quantities={"plan": 5})
    await shop.change(**scheduled)
    change = await shop.change(quantities=fewer)
    assert (change.state, change.to.plan, change.to.interval, change.to.quantity) == (ChangeState.SCHEDULED, *arrives)
    assert await _states(shop) == ["scheduled", "cancelled"]


@pytest.mark.parametrize("asked", [{"add_ons": {"extra-exports": 0}}, {"quantities": {"plan": 1}}])
async def test_less_of_what_ends_anyway_does_not_take_the_end_back(shop: Shop, asked: dict[str, Any]) -> None:
    stripe_subscription_id = await shop.subscribed(quantities={"plan": 3}, add_ons={"extra-exports": 2})
    await shop.change(cancel="period_end")
    with pytest.raises(Refusal) as caught:
        await shop.preview(**asked)
    assert caught.value.code is Code.NO_CHANGE
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).cancel_at is not None
