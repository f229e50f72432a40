"""Cancelling at once gives back what was quoted, whichever second Stripe acts in, and always comes to its end."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.mirroring import refetch
from plangate.shapes import ChangeState
from plangate.store.plan_changes import stripe_operations
from tests.plan_changes.generated import SOLD
from tests.plan_changes.scenarios import restart
from tests.sandbox_server import SandboxServer
from tests.shop import STAFF, Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

_DAILY: dict[str, Any] = {
    **SOLD,
    "plans": {
        **SOLD["plans"],
        # One yen a second, in a month of thirty days.
        "fleet": {"name": "Fleet", "prices": [{"currency": "jpy", "interval": "month", "amount_minor": 30 * 86_400}]},
        "bundle": {
            "name": "Bundle",
            "prices": [
                {
                    "currency": "usd",
                    "interval": "month",
                    "tiers_mode": "graduated",
                    "tiers": [
                        {"up_to": 10, "amount_minor": 500, "flat_amount_minor": 2_000},
                        {"up_to": None, "amount_minor": 400},
                    ],
                }
            ],
        },
    },
}
_CANCEL = {"method": "DELETE", "path": "/v1/subscriptions/*"}


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, _DAILY)
    yield opened
    await opened.close()


def last_invoice(shop: Shop) -> dict[str, Any]:
    """The newest invoice of the shop's only customer."""
    (customer,) = shop.objects("customer")
    listed = shop.stripe.invoices.list({"customer": customer["id"], "limit": 1})
    found: dict[str, Any] = listed.data[0].to_dict(for_json=True)
    return found


def subscription_status(shop: Shop) -> str:
    (subscription,) = shop.objects("subscription")
    return str(subscription["status"])


async def test_the_second_in_which_stripe_acts_does_not_count(shop: Shop) -> None:
    """Each second is worth a yen here, and passes between the quote and the confirmation, and in Stripe itself."""
    await shop.subscribed(plan="fleet", currency="jpy")
    shop.advance("P9DT5H")
    quote = await shop.preview(cancel="now", actor=STAFF)
    assert quote.credit is not None
    shop.advance("PT40S")
    for method in ("POST", "DELETE"):
        slow = {"fault": "timeout", "when": "before", "method": method, "path": "/v1/subscriptions/*", "seconds": 1.1}
        shop.sandbox.control("POST", "faults", slow)
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.APPLIED
    invoice, (customer,) = last_invoice(shop), shop.objects("customer")
    assert (invoice["total"], customer["balance"]) == (-quote.credit.amount_minor, -quote.credit.amount_minor)
    assert [line.amount_minor for line in quote.lines] == [-quote.credit.amount_minor]
    assert subscription_status(shop) == "canceled"
    assert await shop.plan() == "free"


@pytest.mark.parametrize(
    ("bought", "used"),
    [
        ({"plan": "team", "quantities": {"seats": 4}, "add_ons": {"extra-exports": 2}}, 0),
        ({"plan": "team", "quantities": {"seats": 4}}, 90_000),
        ({"plan": "metered"}, 250),
        ({"plan": "bundle", "quantities": {"plan": 12}}, 0),
    ],
)
async def test_everything_held_is_given_back_and_what_was_used_is_billed(
    shop: Shop, bought: dict[str, Any], used: int
) -> None:
    await shop.subscribed(**bought, interval="month")
    if subscription_status(shop) == "trialing":
        shop.advance("P15D")
    shop.advance("P3DT7H11M")
    (customer,) = shop.objects("customer")
    for meter in shop.objects("billing.meter") if used else ():
        told = {"stripe_customer_id": customer["id"], "value": str(used)}
        at = int(shop.now().timestamp())
        shop.stripe.billing.meter_events.create({"event_name": meter["event_name"], "payload": told, "timestamp": at})
    shop.advance("PT2S")
    await refetch(shop.env, shop.company_id)
    known = {one["id"] for one in shop.objects("invoice")}
    quote = await shop.preview(cancel="now", actor=STAFF)
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.APPLIED
    (made,) = [one for one in shop.objects("invoice") if one["id"] not in known]
    credit = 0 if quote.credit is None else quote.credit.amount_minor
    assert (made["amount_due"], max(0, -made["total"])) == (quote.due_today.amount_minor, credit)
    assert sum(line.amount_minor for line in quote.lines) == made["total"] != 0
    assert all(line.amount_minor for line in quote.lines)
    assert subscription_status(shop) == "canceled"


async def test_nothing_of_a_tiered_price_with_a_flat_amount_is_kept(shop: Shop) -> None:
    """None of it would still cost the flat amount of the first tier."""
    await shop.subscribed(plan="bundle", quantities={"plan": 3})
    quote = await shop.preview(cancel="now", actor=STAFF)
    await shop.confirm(quote, actor=STAFF)
    # Bought a moment ago: all but the share of some seconds comes back.
    assert quote.credit is not None
    assert 3_490 <= quote.credit.amount_minor <= 3_500


async def test_without_a_card_what_was_used_is_left_open_and_it_ends_all_the_same(shop: Shop) -> None:
    await shop.subscribed(plan="team", interval="month")
    shop.advance("P16D")
    (customer,) = shop.objects("customer")
    for meter in shop.objects("billing.meter"):
        told = {"stripe_customer_id": customer["id"], "value": "900000"}
        at = int(shop.now().timestamp())
        shop.stripe.billing.meter_events.create({"event_name": meter["event_name"], "payload": told, "timestamp": at})
    shop.advance("PT2S")
    for method in shop.objects("payment_method"):
        shop.stripe.payment_methods.detach(method["id"])
    await refetch(shop.env, shop.company_id)
    quote = await shop.preview(cancel="now", actor=STAFF)
    assert quote.due_today.amount_minor > 0
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.APPLIED
    invoice = last_invoice(shop)
    assert (invoice["status"], invoice["amount_due"]) == ("open", quote.due_today.amount_minor)
    assert subscription_status(shop) == "canceled"


async def test_a_trial_ends_without_giving_anything_back(shop: Shop) -> None:
    await shop.subscribed(plan="team", interval="month")
    assert subscription_status(shop) == "trialing"
    quote = await shop.preview(cancel="now", actor=STAFF)
    assert (quote.credit, quote.due_today.amount_minor) == (None, 0)
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.APPLIED
    assert subscription_status(shop) == "canceled"
    (customer,) = shop.objects("customer")
    assert customer["balance"] == 0


async def test_what_was_given_back_is_cancelled_in_the_end(shop: Shop) -> None:
    """Stripe refuses to cancel right after it gave the money back: nobody is told that nothing was changed."""
    await shop.subscribed()
    quote = await shop.preview(cancel="now", actor=STAFF)
    shop.sandbox.control("POST", "faults", {"fault": "fail_call", "when": "before", "status": 400, **_CANCEL})
    with pytest.raises(Refusal) as refused:
        await shop.confirm(quote, actor=STAFF)
    assert refused.value.code is Code.CHANGE_IN_PROGRESS
    assert next(row.state for row in await shop.rows()) == "applying"
    await restart(shop)
    assert next(row.state for row in await shop.rows()) == "applied"
    assert subscription_status(shop) == "canceled"
    assert len(shop.objects("invoice")) == 2


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_day_later_it_is_still_cancelled_and_given_back_once(shop: Shop, is_answered: bool) -> None:
    """Stripe has forgotten the keys by then; that the money was given back is read from the subscription."""
    await shop.subscribed()
    quote = await shop.preview(cancel="now", actor=STAFF)
    shop.sandbox.control(
        "POST", "faults", {"fault": "fail_call", "when": "before", "status": 503, "percent": 100, **_CANCEL}
    )
    if not is_answered:
        lost = {"fault": "fail_call", "when": "after", "method": "POST", "path": "/v1/subscriptions/*", "status": 503}
        shop.sandbox.control("POST", "faults", lost)
    assert (await shop.confirm(quote, actor=STAFF)).state is ChangeState.APPLYING
    shop.sandbox.control("DELETE", "faults")
    async with shop.env.writing() as session:
        await session.run(update(stripe_operations).values(created_at=wall_now() - timedelta(days=2)))
    shop.advance("P2D")
    await restart(shop)
    assert next(row.state for row in await shop.rows()) == "applied"
    assert subscription_status(shop) == "canceled"
    assert len(shop.objects("invoice")) == 2


async def test_a_quote_to_cancel_does_not_outlive_the_period_it_counted(shop: Shop) -> None:
    await shop.subscribed(plan="fleet", currency="jpy")
    quote = await shop.preview(cancel="now", actor=STAFF)
    shop.advance("P40D")
    with pytest.raises(Refusal) as refused:
        await shop.confirm(quote, actor=STAFF)
    assert refused.value.code is Code.QUOTE_STALE
    assert subscription_status(shop) == "active"


@pytest.mark.parametrize("used", [0, 250])
async def test_nothing_is_given_back_of_a_period_that_was_never_paid(shop: Shop, used: int) -> None:
    """Stripe's own prorations take an open invoice for a paid one: the credit would pay for the next subscription."""
    stripe_subscription_id = await shop.subscribed(plan="scale", interval="month")
    (customer,) = shop.objects("customer")
    method = shop.new_card(customer["id"], "pm_card_chargeCustomerFail")
    shop.stripe.subscriptions.update(stripe_subscription_id, {"default_payment_method": method})
    shop.advance("P1M")
    shop.advance("PT6H")
    for meter in shop.objects("billing.meter") if used else ():
        told = {"stripe_customer_id": customer["id"], "value": str(used)}
        at = int(shop.now().timestamp())
        shop.stripe.billing.meter_events.create({"event_name": meter["event_name"], "payload": told, "timestamp": at})
    shop.advance("PT2S")
    await refetch(shop.env, shop.company_id)
    known = {one["id"] for one in shop.objects("invoice")}
    quote = await shop.preview(cancel="now")
    assert quote.credit is None
    assert bool(quote.due_today.amount_minor) is bool(used)
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert subscription_status(shop) == "canceled"
    made = [one for one in shop.objects("invoice") if one["id"] not in known]
    assert sum(one["amount_due"] for one in made) == quote.due_today.amount_minor
    assert shop.objects("customer")[0]["balance"] == 0
    assert "open" in {one["status"] for one in shop.objects("invoice") if one["id"] in known}
