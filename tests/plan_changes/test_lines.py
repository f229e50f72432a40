"""The lines of a quote are those of the invoice made now: they come to what is due, and to nothing where none is."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from plangate.environment import Environment
from plangate.mirroring import refetch
from tests.plan_changes.generated import SOLD
from tests.sandbox_server import SandboxServer
from tests.shop import STAFF, Shop, assert_adds_up

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def selling(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, SOLD)
    yield opened
    await opened.close()


@pytest.mark.parametrize("has_card", [True, False])
async def test_a_subscription_that_starts_with_a_trial(selling: Shop, *, has_card: bool) -> None:
    if has_card:
        await selling.customer()
    quote = await selling.preview(plan="team", quantities={"seats": 2})
    assert quote.next_invoice is not None
    assert (quote.due_today.amount_minor, quote.next_invoice.amount_minor) == (0, 3_333 + 2 * 700)
    assert all(line.amount_minor == 0 for line in quote.lines)


async def test_a_change_in_a_trial_has_no_lines_of_the_invoice_at_its_end(selling: Shop) -> None:
    await selling.subscribed(plan="team", quantities={"seats": 2})
    coupon = selling.stripe.coupons.create({"percent_off": 50, "duration": "forever"})
    selling.stripe.promotion_codes.create({"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "HALF"})
    subscription = (await selling.snapshot()).subscription
    assert subscription is not None
    ends_at = subscription.trial_end_at
    later = (selling.now() + timedelta(days=30)).replace(microsecond=0)
    asked: dict[str, Any]
    for asked, comes_at in (
        ({"plan": "pro"}, ends_at),
        ({"plan": "starter", "when": "now"}, ends_at),
        ({"interval": "year"}, ends_at),
        ({"quantities": {"plan": 3}}, ends_at),
        ({"quantities": {"seats": 5}}, ends_at),
        ({"add_ons": {"tokens": 1}}, ends_at),
        ({"add_ons": {"tokens": 1}, "promotion_code": "HALF"}, ends_at),
        ({"trial_end": later}, later),
        ({"cancel": "period_end"}, None),
        ({"cancel": "now"}, None),
    ):
        quote = await selling.preview(actor=STAFF, **asked)
        assert (quote.due_today.amount_minor, quote.credit, quote.tax) == (0, None, None), asked
        assert all(line.amount_minor == 0 for line in quote.lines), asked
        assert (quote.next_invoice and quote.next_invoice.at) == comes_at, asked
        assert quote.next_invoice is None or quote.next_invoice.amount_minor > 0, asked


async def test_a_start_ahead_has_no_lines_of_its_first_invoice(selling: Shop) -> None:
    await selling.customer()
    starts_at = (selling.now() + timedelta(days=30)).replace(microsecond=0)
    price = {"amount_minor": 12_000, "currency": "usd", "interval": "month", "starts_at": starts_at}
    quote = await selling.preview(actor=STAFF, plan="pro", custom_price=price)
    assert (quote.due_today.amount_minor, quote.lines) == (0, ())
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.next_invoice.at) == (12_000, starts_at)


async def test_a_very_long_invoice_adds_up_too(selling: Shop) -> None:
    stripe_subscription_id = await selling.subscribed(plan="starter")
    (item,) = selling.stripe.subscriptions.retrieve(stripe_subscription_id)["items"]["data"]
    for quantity in range(2, 32):
        # Each leaves two lines that wait for the next invoice.
        edited: Any = {"items": [{"id": item["id"], "quantity": quantity}], "proration_behavior": "create_prorations"}
        selling.stripe.subscriptions.update(stripe_subscription_id, edited)
    await selling.sync()
    quote = await selling.preview(plan="pro")
    assert quote.due_today.amount_minor == sum(line.amount_minor for line in quote.lines) > 0
    assert (len(quote.lines), quote.lines[-1].description.endswith(" more")) == (51, True)


@pytest.mark.parametrize("is_inclusive", [False, True])
async def test_tax_is_on_top_of_the_lines_or_in_them(selling: Shop, *, is_inclusive: bool) -> None:
    stripe_subscription_id = await selling.subscribed(plan="starter")
    rate = selling.stripe.tax_rates.create({"display_name": "VAT", "percentage": 19, "inclusive": is_inclusive})
    taxed: Any = {"default_tax_rates": [rate.id], "proration_behavior": "none"}
    selling.stripe.subscriptions.update(stripe_subscription_id, taxed)
    for asked in ({"plan": "pro"}, {"interval": "year"}, {"cancel": "now"}):
        quote = await selling.preview(actor=STAFF, **asked)
        assert_adds_up(quote)
        credit = 0 if quote.credit is None else quote.credit.amount_minor
        on_top = quote.due_today.amount_minor - credit - sum(line.amount_minor for line in quote.lines)
        assert quote.tax is not None
        assert on_top == (0 if is_inclusive else quote.tax.amount_minor)


async def test_the_next_invoice_of_a_period_that_begins_anew_is_asked_with_automatic_tax(selling: Shop) -> None:
    """Asked about a subscription Stripe knows it; asked what comes after a new beginning, it must be told."""
    customer = await selling.customer()
    price = (await selling.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    taxed: Any = {"customer": customer, "items": [{"price": price}], "automatic_tax": {"enabled": True}}
    selling.stripe.subscriptions.create(taxed)
    await refetch(selling.env, selling.company_id)
    quote = await selling.preview(interval="year")
    assert quote.next_invoice is not None
    anew = [one["params"] for one in selling.requests(path="create_preview") if "subscription" not in one["params"]]
    assert [one["automatic_tax"] for one in anew] == [{"enabled": "true"}]
