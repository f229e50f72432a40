"""Meters and the arithmetic of prices: identifiers, ages, sums, tiers, packages and bills in arrears."""

from typing import Any

import pytest
import stripe

from plangate.sandbox.money import charge_for, share, written
from tests.sandbox.shop import Shop, amounts, first_item, open_shop, subscribe
from tests.sandbox_server import SandboxServer


async def _record(shop: Shop, value: str, identifier: str, **more: int) -> stripe.billing.MeterEvent:
    payload = {"stripe_customer_id": shop.customer, "value": value}
    return await shop.client.v1.billing.meter_events.create_async(
        {"event_name": "exports", "payload": payload, "identifier": identifier, **more}  # type: ignore[typeddict-item]  # A timestamp.
    )


async def test_identifiers_count_once(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    await _record(shop, "3", "a")
    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier a") as repeated:
        await _record(shop, "3", "a")
    assert repeated.value.headers is not None
    assert repeated.value.headers["stripe-should-retry"] == "false"
    assert await _total(sandbox, shop) == 3


async def test_events_too_old_or_early_are_refused(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    now = int(sandbox.app_state.sandbox.world.now())
    with pytest.raises(stripe.InvalidRequestError, match="more than 35 days in past"):
        await _record(shop, "1", "old", timestamp=now - 35 * 86_400 - 60)
    with pytest.raises(stripe.InvalidRequestError, match="in the future"):
        await _record(shop, "1", "early", timestamp=now + 400)
    with pytest.raises(stripe.InvalidRequestError, match="at most 12 decimals"):
        await _record(shop, "0.1234567890123", "fine")
    with pytest.raises(stripe.InvalidRequestError, match="No active meter"):
        await shop.client.v1.billing.meter_events.create_async(
            {"event_name": "nothing", "payload": {"stripe_customer_id": shop.customer, "value": "1"}}
        )
    await _record(shop, "0.5", "half")
    await _record(shop, "-10", "correction")
    assert await _total(sandbox, shop) == 0


async def test_usage_is_billed_in_arrears(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro, shop.metered)
    await _record(shop, "250", "one")
    upcoming = await shop.client.v1.invoices.create_preview_async({"subscription": subscription.id})
    assert amounts(upcoming)[0] == ("250 \u00d7 Export", 500)
    sandbox.advance("P32D")
    invoices = await shop.client.v1.invoices.list_async({"subscription": subscription.id, "limit": 1})
    assert invoices.data[0].amount_paid == 5400
    with pytest.raises(stripe.InvalidRequestError, match="cannot set the quantity"):
        await shop.client.v1.subscriptions.create_async(
            {"customer": shop.customer, "items": [{"price": shop.metered, "quantity": 2}]}
        )


async def test_usage_reported_until_an_invoice_is_final_counts_on_it(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    await shop.client.v1.coupons.create_async({"id": "tenth", "percent_off": 10, "duration": "forever"})
    subscription = await subscribe(shop, shop.pro, shop.metered, discounts=[{"coupon": "tenth"}])
    await _record(shop, "250", "one")
    over_at = first_item(subscription).current_period_end
    sandbox.advance(f"PT{over_at - int(sandbox.app_state.sandbox.world.now()) + 60}S")
    asked: Any = {"subscription": subscription.id, "status": "draft"}
    draft = (await shop.client.v1.invoices.list_async(asked)).data[0]
    assert (draft.subtotal, draft.total) == (5400, 4860)
    await _record(shop, "50", "late", timestamp=over_at - 30)
    await _record(shop, "7", "next", timestamp=over_at + 30)
    sandbox.advance("PT1H")
    final = await shop.client.v1.invoices.retrieve_async(draft.id or "")
    assert amounts(final)[0] == ("300 \u00d7 Export", 600)
    assert (final.subtotal, final.total, final.amount_paid) == (5500, 4950, 4950)
    sandbox.advance("P32D")
    later = (await shop.client.v1.invoices.list_async({"subscription": subscription.id, "limit": 1})).data[0]
    assert amounts(later)[0] == ("7 \u00d7 Export", 14)


async def test_deactivated_meters_count_no_more(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    await shop.client.v1.billing.meters.deactivate_async(shop.meter)
    with pytest.raises(stripe.InvalidRequestError, match="No active meter"):
        await _record(shop, "1", "x")
    await shop.client.v1.billing.meters.reactivate_async(shop.meter)
    assert (await _record(shop, "1", "x")).identifier == "x"


@pytest.mark.parametrize(
    ("mode", "quantity", "expected"),
    [
        ("graduated", 0, 0),
        ("graduated", 10, 50),
        ("graduated", 11, 63),
        ("volume", 10, 50),
        ("volume", 11, 43),
    ],
)
def test_tiers(mode: str, quantity: int, expected: int) -> None:
    tiers = [
        {"up_to": 10, "unit_amount_decimal": "5", "flat_amount_decimal": None},
        {"up_to": None, "unit_amount_decimal": "3", "flat_amount_decimal": "10"},
    ]
    price = {"billing_scheme": "tiered", "tiers_mode": mode, "tiers": tiers}
    assert charge_for(price, quantity) == expected


def test_packages_and_fractions_round_as_stripe_does() -> None:
    flat = {"billing_scheme": "per_unit", "unit_amount_decimal": "0.5"}
    assert [charge_for(flat, n) for n in (1, 2, 3)] == [1, 1, 2]
    up = {**flat, "unit_amount_decimal": "100", "transform_quantity": {"divide_by": 1000, "round": "up"}}
    assert [charge_for(up, n) for n in (0, 1, 1000, 1001)] == [0, 100, 100, 200]
    assert share(1000, start=0, end=3, since=1) == 667
    assert share(1, start=0, end=2, since=1) == 1
    assert [written(a, c) for a, c in ((4900, "usd"), (-5, "eur"), (500, "jpy"), (1234567, "chf"))] == [
        "$49.00",
        "-€0.05",
        "¥500",
        "CHF 12,345.67",
    ]


async def _total(sandbox: SandboxServer, shop: Shop) -> float:
    now = int(sandbox.app_state.sandbox.world.now())
    start = now - now % 60 - 86_400
    summaries = await shop.client.v1.billing.meters.event_summaries.list_async(
        shop.meter, {"customer": shop.customer, "start_time": start, "end_time": start + 2 * 86_400}
    )
    assert len(summaries.data) == 1
    return summaries.data[0].aggregated_value
