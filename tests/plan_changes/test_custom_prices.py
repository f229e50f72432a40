"""Deals made by sales: a plan for one company at a price of its own, charged or invoiced, now or on its day."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from plangate import access, catalog, companies, plan_changes
from plangate.catalog.shelf import tidy_shelf
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.mirroring import refetch
from plangate.shapes import Actor, ChangeKind, ChangeState
from tests.sandbox_server import SandboxServer
from tests.shop import CUSTOMER, DOCUMENT, STAFF, Shop, new_company

DEAL: dict[str, Any] = {"amount_minor": 120_000, "currency": "usd", "interval": "month", "name": "Acme 2027"}
INVOICED: dict[str, Any] = {**DEAL, "collection_method": "send_invoice", "days_until_due": 14}
SOLD: dict[str, Any] = {
    **DOCUMENT,
    "plans": {
        **DOCUMENT["plans"],
        "enterprise": {
            "name": "Enterprise",
            "entitlements": {"exports": {"limit": 50_000, "period": "billing_month"}, "sso": True},
            "contact_us": True,
        },
    },
}


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> Any:  # noqa: ANN401 - a Shop, then closed
    opened = await Shop.open(connected_environment, sandbox, SOLD)
    yield opened
    await opened.close()


def _own_prices(shop: Shop) -> list[dict[str, Any]]:
    return [price for price in shop.objects("price") if (price["lookup_key"] or "").startswith("plangate_own_")]


async def test_a_deal_is_quoted_charged_and_held_as_the_plan(shop: Shop) -> None:
    await shop.customer()
    quote = await shop.preview(actor=STAFF, plan="enterprise", custom_price=DEAL)
    assert (quote.kind, quote.due_today.amount_minor, quote.needs_checkout) == (ChangeKind.SUBSCRIBE, 120_000, False)
    assert [effect.feature for effect in quote.gained] == ["exports", "sso"]
    assert not _own_prices(shop)  # a preview makes nothing

    change = await shop.confirm(quote, actor=STAFF)
    assert change.state is ChangeState.APPLIED
    assert change.to.custom_price is not None
    assert (change.to.plan, change.to.custom_price.amount_minor) == ("enterprise", 120_000)
    (price,) = _own_prices(shop)
    assert (price["unit_amount"], price["nickname"], price["product"]) == (
        120_000,
        "Acme 2027",
        "plangate_plan_enterprise",
    )
    assert price["metadata"]["plangate_company"] == shop.company_id
    assert [invoice["amount_paid"] for invoice in shop.objects("invoice")] == [120_000]
    snapshot = await shop.snapshot()
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.notices) == ("enterprise", ())

    shop.advance("P32D")
    await shop.sync()
    assert sorted(invoice["total"] for invoice in shop.objects("invoice")) == [120_000, 120_000]
    assert await shop.plan() == "enterprise"


async def test_a_deal_without_a_card_is_paid_on_the_page(shop: Shop) -> None:
    change = await shop.change(actor=STAFF, plan="enterprise", custom_price=DEAL, quantities={"plan": 2})
    assert change.next_action is not None
    assert shop.pay(change.next_action.url) == 303
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert await shop.plan() == "enterprise"
    assert [invoice["amount_paid"] for invoice in shop.objects("invoice")] == [240_000]


async def test_a_deal_can_be_invoiced(shop: Shop) -> None:
    quote = await shop.preview(actor=STAFF, plan="enterprise", custom_price=INVOICED)
    assert quote.due_today.amount_minor == 120_000
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.APPLIED
    (subscription,) = shop.objects("subscription")
    assert (subscription["collection_method"], subscription["days_until_due"]) == ("send_invoice", 14)
    assert await shop.plan() == "enterprise"


async def test_a_deal_can_start_on_its_day(shop: Shop) -> None:
    starts_at = (shop.now() + timedelta(days=20)).replace(microsecond=0)
    deal = {**INVOICED, "starts_at": starts_at.isoformat()}
    quote = await shop.preview(actor=STAFF, plan="enterprise", custom_price=deal)
    assert (quote.when, quote.due_today.amount_minor, quote.is_scheduled) == (starts_at, 0, True)
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.next_invoice.at) == (120_000, starts_at)
    change = await shop.confirm(quote, actor=STAFF)
    assert (change.state, change.effective_at) == (ChangeState.SCHEDULED, starts_at)
    assert await shop.plan() == "free"
    assert await tidy_shelf(shop.env) == 0  # its price waits with it
    with pytest.raises(Refusal) as caught:
        await shop.preview(plan="pro")
    assert caught.value.code is Code.CHANGE_IN_PROGRESS

    shop.advance("P21D")
    await shop.sync()
    assert await shop.plan() == "enterprise"
    (subscription,) = shop.objects("subscription")
    assert (subscription["collection_method"], subscription["days_until_due"]) == ("send_invoice", 14)
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED
    assert [invoice["total"] for invoice in shop.objects("invoice")] == [120_000]


async def test_a_deal_that_waits_can_be_called_off(shop: Shop) -> None:
    deal = {**INVOICED, "starts_at": (shop.now() + timedelta(days=20)).isoformat()}
    change = await shop.change(actor=STAFF, plan="enterprise", custom_price=deal)
    called_off = await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=STAFF)
    assert (called_off.id, called_off.state) == (change.id, ChangeState.CANCELLED)
    shop.advance("P21D")
    await shop.sync()
    assert await shop.plan() == "free"
    assert not shop.objects("subscription")
    assert await tidy_shelf(shop.env) == 1
    assert [price["active"] for price in _own_prices(shop)] == [False]


async def test_a_deal_for_a_subscriber_starts_now_or_with_the_next_period(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    with pytest.raises(Refusal) as caught:
        starts_at = (shop.now() + timedelta(days=3)).isoformat()
        await shop.preview(actor=STAFF, plan="enterprise", custom_price={**INVOICED, "starts_at": starts_at})
    assert caught.value.errors[0].pointer == "/custom_price/starts_at"

    quote = await shop.preview(actor=STAFF, plan="enterprise", custom_price=INVOICED, when="period_end")
    assert quote.next_invoice is not None
    assert (quote.due_today.amount_minor, quote.next_invoice.amount_minor) == (0, 120_000)
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.SCHEDULED
    assert await shop.plan() == "pro"
    shop.advance("P32D")
    await shop.sync()
    assert await shop.plan() == "enterprise"
    (subscription,) = shop.objects("subscription")
    assert (subscription["collection_method"], subscription["days_until_due"]) == ("send_invoice", 14)
    assert max(invoice["total"] for invoice in shop.objects("invoice")) == 120_000


async def test_a_deal_now_is_prorated_and_kept_when_seats_change(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    shop.advance("P10D")
    await shop.sync()
    quote = await shop.preview(actor=STAFF, plan="enterprise", custom_price=DEAL)
    assert quote.kind is ChangeKind.UPGRADE
    change = await shop.confirm(quote, actor=STAFF)
    assert change.state is ChangeState.APPLIED
    charged = max(shop.objects("invoice"), key=lambda invoice: invoice["created"])
    assert charged["amount_paid"] == quote.due_today.amount_minor
    # More of it, at the same price, by the customer.
    more = await shop.change(quantities={"plan": 3})
    assert more.state is ChangeState.APPLIED
    (price,) = _own_prices(shop)
    (subscription,) = shop.objects("subscription")
    assert [(item["price"]["id"], item["quantity"]) for item in subscription["items"]["data"]] == [(price["id"], 3)]


async def test_a_deal_ends_with_a_change_to_a_plan_on_sale(shop: Shop) -> None:
    await shop.customer()
    await shop.change(actor=STAFF, plan="enterprise", custom_price=DEAL)
    change = await shop.change(plan="starter")
    assert (change.state, change.kind) == (ChangeState.SCHEDULED, ChangeKind.DOWNGRADE)
    shop.advance("P32D")
    await shop.sync()
    assert await shop.plan() == "starter"
    assert await tidy_shelf(shop.env) == 1
    assert [price["active"] for price in _own_prices(shop)] == [False]


async def test_a_new_deal_replaces_the_old_one(shop: Shop) -> None:
    await shop.customer()
    await shop.change(actor=STAFF, plan="enterprise", custom_price=DEAL)
    with pytest.raises(Refusal) as caught:
        await shop.preview(actor=STAFF, custom_price=DEAL)
    assert caught.value.code is Code.NO_CHANGE
    dearer = await shop.change(actor=STAFF, custom_price={**DEAL, "amount_minor": 150_000})
    assert (dearer.kind, dearer.state) == (ChangeKind.UPGRADE, ChangeState.APPLIED)
    cheaper = await shop.preview(actor=STAFF, custom_price={**DEAL, "amount_minor": 90_000})
    assert (cheaper.kind, cheaper.is_scheduled) == (ChangeKind.DOWNGRADE, True)
    assert await shop.plan() == "enterprise"


async def test_a_price_of_one_company_is_unknown_on_anothers_subscription(shop: Shop) -> None:
    await shop.customer()
    await shop.change(actor=STAFF, plan="enterprise", custom_price=DEAL)
    (price,) = _own_prices(shop)
    shop.company_id = await new_company(shop.env, "globex")
    customer = await shop.customer()
    shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price["id"]}]})
    await shop.sync()
    assert await shop.plan() == "free"
    assert [notice.code for notice in (await shop.snapshot()).notices] == ["unmapped_price"]


async def test_a_deal_is_nothing_for_the_public(shop: Shop) -> None:
    await shop.customer()
    await shop.change(actor=STAFF, plan="pro", custom_price={**DEAL, "amount_minor": 4_900})
    offered = (await shop.env.catalog()).plans["pro"]
    (price,) = _own_prices(shop)
    assert price["id"] not in {one.stripe_price_id for one in offered.prices}
    # Applying the catalogue again neither sells nor archives it.
    await catalog.apply(shop.env, SOLD, actor=Actor(kind="cli", id="tests"))
    assert [one["active"] for one in _own_prices(shop)] == [True]
    assert await shop.plan() == "pro"


async def test_only_staff_makes_deals(shop: Shop) -> None:
    with pytest.raises(Refusal) as caught:
        await shop.preview(actor=CUSTOMER, plan="enterprise", custom_price=DEAL)
    assert caught.value.code is Code.FORBIDDEN


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"plan": "free"}, "/custom_price"),
        ({"custom_price": {**DEAL, "amount_minor": -1}}, "/custom_price/amount_minor"),
        ({"custom_price": {**DEAL, "amount_minor": 100_000_000}}, "/custom_price/amount_minor"),
        ({"custom_price": {**DEAL, "currency": "USD"}}, "/custom_price/currency"),
        ({"custom_price": {**DEAL, "interval": "year", "interval_count": 4}}, "/custom_price/interval_count"),
        ({"custom_price": {**DEAL, "name": " "}}, "/custom_price/name"),
        ({"custom_price": {**DEAL, "days_until_due": 3}}, "/custom_price/days_until_due"),
        ({"custom_price": {**INVOICED, "days_until_due": 366}}, "/custom_price/days_until_due"),
        ({"custom_price": {**DEAL, "starts_at": "2020-01-01T00:00:00Z"}}, "/custom_price/starts_at"),
        ({"custom_price": {**DEAL, "starts_at": "2099-01-01T00:00:00Z"}}, "/custom_price/starts_at"),
        ({"interval": "month"}, "/interval"),
        ({"currency": "usd"}, "/currency"),
        ({"custom_price": {**INVOICED, "starts_at": "2026-12-24T00:00:00Z"}, "when": "now"}, "/when"),
    ],
)
async def test_a_deal_that_cannot_be_is_refused_by_its_field(shop: Shop, asked: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Refusal) as caught:
        await shop.preview(actor=STAFF, **{"plan": "enterprise", "custom_price": DEAL, **asked})
    assert caught.value.status == 422
    assert caught.value.errors[0].pointer == pointer


async def test_a_later_start_needs_a_card_or_an_invoice(shop: Shop) -> None:
    starts_at = datetime(2027, 1, 1, tzinfo=UTC).isoformat()
    with pytest.raises(Refusal) as caught:
        await shop.preview(actor=STAFF, plan="enterprise", custom_price={**DEAL, "starts_at": starts_at})
    assert caught.value.code is Code.INVALID
    await shop.customer()
    change = await shop.change(actor=STAFF, plan="enterprise", custom_price={**DEAL, "starts_at": starts_at})
    assert change.state is ChangeState.SCHEDULED


@pytest.mark.parametrize(
    ("asked", "listed"), [({"interval": "year"}, 47_000), ({"plan": "starter", "when": "now"}, 1_900)]
)
async def test_another_plan_or_interval_ends_the_deal_and_the_quote_says_the_list_price(
    shop: Shop, asked: dict[str, Any], listed: int
) -> None:
    await shop.customer()
    await shop.change(actor=STAFF, plan="pro", custom_price={**DEAL, "amount_minor": 3_000})
    quote = await shop.preview(**asked)
    assert max(line.amount_minor for line in quote.lines) == listed
    assert quote.due_today.amount_minor == max(0, listed - 3_000)
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    (subscription,) = shop.objects("subscription")
    assert [one["price"]["unit_amount"] for one in subscription["items"]["data"]] == [listed]
    back = await shop.preview(plan="pro", interval="month", when="now")
    assert 4_900 in [line.amount_minor for line in back.lines]


async def test_a_deal_goes_with_the_company_that_is_merged(shop: Shop) -> None:
    """The price agreed on stays the plan's for whom the company becomes, and for nobody else."""
    await shop.customer()
    await shop.change(actor=STAFF, plan="enterprise", custom_price=DEAL)
    former_id, before = shop.company_id, shop.now()
    shop.advance("PT1M")
    shop.company_id = await new_company(shop.env, "acme-holding")
    merged = await companies.merge(shop.env, shop.company_id, former_id, actor=STAFF)
    assert merged.plan is not None
    assert (merged.plan.key, await shop.plan()) == ("enterprise", "enterprise")
    assert not (await shop.snapshot()).notices
    with pytest.raises(Refusal) as caught:
        await shop.preview(actor=STAFF, custom_price=DEAL)
    assert caught.value.code is Code.NO_CHANGE
    # What Stripe says of it now is what was moved, and more of the plan is sold at the price agreed on.
    assert not (await refetch(shop.env, shop.company_id)).is_changed
    more = await shop.change(actor=STAFF, quantities={"plan": 2})
    assert (more.state, more.to.custom_price and more.to.custom_price.amount_minor) == (ChangeState.APPLIED, 120_000)
    assert len(_own_prices(shop)) == 1
    # The shelf keeps it for as long as it is held.
    assert await tidy_shelf(shop.env) == 0
    assert [price["active"] for price in _own_prices(shop)] == [True]
    # The past is answered with whose price it was then.
    then = await access.check(shop.env, company={"id": "acme"}, feature="sso", at=before)
    assert (then.allowed, then.source.key if then.source is not None else None) == (True, "enterprise")
