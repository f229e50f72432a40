"""Plans that are paid every so many intervals, and add-ons paid more often than the plan beside them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeKind, ChangeState, Quote
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop

_QUARTER = {"currency": "usd", "interval": "month", "interval_count": 3}
_SOLD: dict[str, Any] = {
    **DOCUMENT,
    "plans": {
        **DOCUMENT["plans"],
        "quarterly": {"name": "Quarterly", "prices": [{**_QUARTER, "amount_minor": 12_000}]},
        "both": {
            "name": "Both",
            "prices": [
                {**_QUARTER, "amount_minor": 6_000},
                {"currency": "usd", "interval": "month", "amount_minor": 2_500},
            ],
        },
        "yen": {"name": "Yen", "prices": [{"currency": "jpy", "interval": "month", "amount_minor": 3_000}]},
    },
    "add_ons": {
        **DOCUMENT["add_ons"],
        "monthly": {"name": "Monthly", "prices": [{"currency": "usd", "interval": "month", "amount_minor": 250}]},
        "either": {
            "name": "Either",
            "prices": [
                {**_QUARTER, "amount_minor": 600},
                {"currency": "usd", "interval": "month", "amount_minor": 225},
            ],
        },
    },
}


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, _SOLD)
    yield opened
    await opened.close()


def _paid(shop: Shop) -> list[int]:
    """What every invoice came to, the oldest first."""
    return [one["amount_due"] for one in sorted(shop.objects("invoice"), key=lambda one: one["created"])]


async def _renewed(shop: Shop, quote: Quote) -> int:
    """What is invoiced on the day the quote named as the next, and nothing before it."""
    invoice = quote.next_invoice
    assert invoice is not None
    known = _paid(shop)
    seconds = int((invoice.at - shop.now()).total_seconds())
    shop.advance(f"PT{seconds - 7_200}S")
    assert _paid(shop) == known
    shop.advance("PT4H")
    (*before, renewal) = _paid(shop)
    assert (before, renewal) == (known, invoice.amount_minor)
    await shop.sync()
    return renewal


async def test_a_plan_that_is_sold_by_the_quarter_is_quoted_by_the_quarter(shop: Shop) -> None:
    await shop.customer()
    quote = await shop.preview(plan="quarterly")
    assert quote.next_invoice is not None
    assert quote.next_invoice.at - shop.now() > timedelta(days=88)
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert await _renewed(shop, quote) == 12_000
    assert (await shop.snapshot()).cycle.interval_count == 3


async def test_a_move_to_the_quarter_begins_one_and_is_charged_for_it(shop: Shop) -> None:
    """Up at once, down at the end of the month paid for: the quarter begins with it in Stripe, too."""
    await shop.subscribed(plan="starter", interval="month")
    quote = await shop.preview(plan="quarterly")
    assert (quote.kind, quote.due_today.amount_minor) == (ChangeKind.UPGRADE, 12_000 - 1_900)
    await shop.confirm(quote)
    assert await _renewed(shop, quote) == 12_000
    await shop.change(plan="pro", interval="month", when="now")
    quote = await shop.preview(plan="quarterly")
    assert (quote.kind, quote.is_scheduled) == (ChangeKind.DOWNGRADE, True)
    await shop.confirm(quote)
    (schedule,) = [one for one in shop.objects("subscription_schedule") if one["status"] == "active"]
    following = schedule["phases"][1]
    assert following["billing_cycle_anchor"] == "phase_start"
    assert following["end_date"] - following["start_date"] > 88 * 86_400
    await _renewed(shop, quote)
    assert (await shop.plan(), (await shop.snapshot()).cycle.interval_count) == ("quarterly", 3)


async def test_an_add_on_paid_more_often_is_invoiced_from_the_month_in_which_it_was_added(shop: Shop) -> None:
    await shop.subscribed(plan="starter", interval="year")
    shop.advance("P100D")
    await shop.sync()
    quote = await shop.preview(add_ons={"monthly": 1}, when="now")
    await shop.confirm(quote)
    assert await _renewed(shop, quote) == 250


async def test_an_add_on_paid_more_often_that_comes_with_the_next_year_is_paid_from_its_first_month(shop: Shop) -> None:
    await shop.subscribed(plan="starter", interval="year")
    quote = await shop.preview(add_ons={"monthly": 1}, when="period_end")
    await shop.confirm(quote)
    assert await _renewed(shop, quote) == 18_200 + 250


async def test_a_year_that_follows_beside_a_monthly_add_on_is_invoiced_with_it(shop: Shop) -> None:
    await shop.subscribed(plan="starter", interval="month")
    await shop.change(add_ons={"monthly": 1}, when="now")
    quote = await shop.preview(interval="year", when="period_end")
    await shop.confirm(quote)
    assert await _renewed(shop, quote) == 18_200 + 250


async def test_of_two_prices_the_number_of_intervals_says_which(shop: Shop) -> None:
    """Month to quarter is a longer interval, so an upgrade; quarter to month waits for the end of the quarter."""
    await shop.subscribed(plan="both", interval="month")
    assert _paid(shop) == [2_500]
    quote = await shop.preview(interval="month", interval_count=3)
    assert (quote.kind, quote.due_today.amount_minor) == (ChangeKind.UPGRADE, 6_000 - 2_500)
    await shop.confirm(quote)
    with pytest.raises(Refusal) as caught:
        await shop.preview(interval="month")
    assert caught.value.code is Code.NO_CHANGE
    more = await shop.change(quantities={"plan": 2})
    assert (more.state, (await shop.snapshot()).cycle.interval_count) == (ChangeState.APPLIED, 3)
    quote = await shop.preview(interval="month", interval_count=1)
    assert (quote.kind, quote.is_scheduled) == (ChangeKind.DOWNGRADE, True)
    await shop.confirm(quote)
    assert await _renewed(shop, quote) == 5_000
    assert (await shop.snapshot()).cycle.interval_count == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"plan": "quarterly", "interval": "month", "interval_count": 1},
        {"plan": "both", "interval": "month", "interval_count": 2},
        {"plan": "starter", "interval": "month", "interval_count": 3},
        {"plan": "yen", "add_ons": {"monthly": 1}},
        {"plan": "starter", "interval_count": 3},
    ],
)
async def test_what_is_not_sold_so_is_refused(shop: Shop, asked: dict[str, Any]) -> None:
    await shop.customer()
    with pytest.raises(Refusal) as caught:
        await shop.preview(**asked)
    assert (caught.value.code, caught.value.status) == (Code.INVALID, 422)


@pytest.mark.parametrize(
    ("asked", "due", "renewal"),
    [
        ({"plan": "starter", "interval": "year"}, 18_450, 250),
        ({"plan": "both", "interval": "month", "interval_count": 3}, 6_250, 250),
    ],
)
async def test_an_add_on_paid_each_month_comes_first_beside_a_plan_paid_more_seldom(
    shop: Shop, asked: dict[str, Any], due: int, renewal: int
) -> None:
    await shop.customer()
    quote = await shop.preview(**asked, add_ons={"monthly": 1})
    assert quote.due_today.amount_minor == due
    await shop.confirm(quote)
    assert await _renewed(shop, quote) == renewal


@pytest.mark.parametrize(("before", "after", "renewal"), [(3, 1, 2_500 + 225), (1, 3, 6_000 + 600)])
async def test_an_add_on_that_is_sold_so_is_paid_as_often_as_the_plan_moved(
    shop: Shop, before: int, after: int, renewal: int
) -> None:
    await shop.subscribed(plan="both", interval="month", interval_count=before, add_ons={"either": 1})
    quote = await shop.preview(interval="month", interval_count=after)
    await shop.confirm(quote)
    assert await _renewed(shop, quote) == renewal
    (subscription,) = shop.objects("subscription")
    assert [one["price"]["recurring"]["interval_count"] for one in subscription["items"]["data"]] == [after, after]


async def test_an_add_on_that_is_added_later_has_its_own_next_invoice(shop: Shop) -> None:
    await shop.subscribed(plan="quarterly")
    quote = await shop.preview(add_ons={"monthly": 2})
    await shop.confirm(quote)
    assert await _renewed(shop, quote) == 500


@pytest.mark.parametrize(
    "asked",
    [
        {"plan": "pro", "quantities": {"plan": 2, "pro": 3}},
        {"plan": "pro", "quantities": {"monthly": 2}, "add_ons": {"monthly": 1}},
    ],
)
async def test_a_number_given_twice_is_refused(shop: Shop, asked: dict[str, Any]) -> None:
    await shop.customer()
    with pytest.raises(Refusal) as caught:
        await shop.preview(**asked)
    assert caught.value.code is Code.INVALID
    assert "twice" in caught.value.detail
