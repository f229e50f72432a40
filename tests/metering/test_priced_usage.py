"""Usage that is paid for as it is used: the whole of it reaches the feature's meter, and the invoice bills that."""

from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import pytest

from plangate import access, drift, metering
from plangate.environment import Environment
from plangate.metering import TrackEvent
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop

ACME = {"id": "acme"}
GRADUATED = {
    "currency": "usd",
    "tiers_mode": "graduated",
    "tiers": [
        {"up_to": 1000, "amount_minor": 0},
        {"up_to": 5000, "amount_minor": 1},
        {"up_to": None, "amount_decimal": "0.5", "flat_amount_minor": 1000},
    ],
}
PACKAGES = {"currency": "usd", "amount_minor": 500, "package": {"size": 1000, "round": "up"}}


def _document(behaviour: str, terms: dict[str, Any]) -> dict[str, Any]:
    """Starter, whose exports are paid for as they are used."""
    document = deepcopy(DOCUMENT)
    document["plans"]["starter"]["entitlements"]["exports"] = {
        "period": "billing_month",
        "price_behaviour": behaviour,
        "prices": [{**terms, "interval": interval} for interval in ("month", "year")],
    }
    return document


@pytest.fixture(params=[("tiers", GRADUATED, 4000 + 1000 + 50), ("pay_as_you_go", PACKAGES, 6 * 500)])
async def sold(
    request: pytest.FixtureRequest, connected_environment: Environment, sandbox: SandboxServer
) -> AsyncIterator[tuple[Shop, int]]:
    """A company that pays for starter in the sandbox, and what 5,100 exports cost it."""
    behaviour, terms, cost = request.param
    shop = await Shop.open(connected_environment, sandbox, _document(behaviour, terms))
    customer = await shop.customer()
    starter = (await shop.env.catalog()).plans["starter"]
    (granted,) = [one for one in starter.entitlements if one.feature == "exports"]
    prices = [next(price for price in held if price.interval == "month") for held in (starter.prices, granted.prices)]
    # A metered item may come first.
    items: Any = [{"price": price.stripe_price_id} for price in reversed(prices)]
    shop.stripe.subscriptions.create({"customer": customer, "items": items})
    await shop.sync()
    yield shop, cost
    await shop.close()


async def test_the_invoice_at_renewal_bills_the_whole_usage(sold: tuple[Shop, int]) -> None:
    shop, cost = sold
    assert await shop.plan() == "starter"
    for quantity in (5_000, -50, 150):
        event = TrackEvent(event="exports", company=ACME, quantity=quantity)
        (result,) = await metering.record(shop.env, [event], may_correct=True)
        assert result.status == "accepted"
    decision = await access.check(shop.env, company=ACME, feature="exports")
    assert (decision.allowed, decision.unlimited, decision.used) == (True, True, 5_100)
    await metering.forward(shop.env)
    assert (await shop.env.catalog()).features["exports"].stripe_meter == "plangate_exports"
    told = shop.requests(path="/v1/billing/meter_events")
    assert {one["params"]["event_name"] for one in told} == {"plangate_exports"}
    shop.advance("P1M")
    await shop.sync()
    invoices = sorted(shop.objects("invoice"), key=lambda one: (one["created"], one["total"]))
    assert [one["total"] for one in invoices] == [1900, 1900 + cost]
    assert await drift.meter_drift(shop.env) == []
