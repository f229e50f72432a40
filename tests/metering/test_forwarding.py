"""Usage on its way to Stripe's meters: each quantity arrives once, whatever crashes, repeats or is refused."""

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from plangate import companies, drift, metering
from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.meter_calls import MeterCalls
from plangate.clock import BusinessClock
from plangate.deployment import Deployment
from plangate.environment import Environment
from plangate.errors import Code
from plangate.metering import TrackEvent
from plangate.store.meter_outbox import DELIVERED, SET_ASIDE, WAITING, MeterEventRow, meter_outbox
from plangate.worker import tidy
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop

ACME = {"id": "acme"}


def _metered() -> dict[str, Any]:
    document = deepcopy(DOCUMENT)
    document["features"]["exports"]["stripe_meter"] = "exports"
    return document


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """A shop whose exports are reported to a meter; its company has a Stripe customer."""
    opened = await Shop.open(connected_environment, sandbox, _metered())
    meters = opened.stripe.billing.meters.list({"status": "active"}).data
    if not meters:
        opened.stripe.billing.meters.create(
            {"display_name": "Exports", "event_name": "exports", "default_aggregation": {"formula": "sum"}}
        )
    await opened.customer(card=None)
    yield opened
    await opened.close()


async def _use(shop: Shop, quantity: int = 1, *, ago: timedelta = timedelta()) -> None:
    event = TrackEvent(event="exports", company=ACME, quantity=quantity, occurred_at=shop.env.clock.now() - ago)
    (result,) = await metering.record(shop.env, [event], may_correct=True)
    assert result.status == "accepted"


async def _rows(shop: Shop) -> list[MeterEventRow]:
    async with shop.env.reading() as session:
        rows = await session.all(select(meter_outbox).order_by(meter_outbox.c.recorded_at, meter_outbox.c.id))
    return [MeterEventRow(**row) for row in rows]


async def _change(shop: Shop, **values: object) -> None:
    async with shop.env.writing() as session:
        await session.run(update(meter_outbox).values(**values))


async def _counted(shop: Shop) -> int:
    now = shop.env.clock.now().replace(second=0, microsecond=0) + timedelta(minutes=1)
    meters = await shop.env.gateway.metering.meters()
    async with shop.env.reading() as session:
        customer = await session.scalar(select(meter_outbox.c.stripe_customer_id).limit(1))
    sums = await shop.env.gateway.metering.metered(
        meters["exports"], customer, start_at=now - timedelta(days=60), end_at=now
    )
    return int(sum(sums.values()))


def _later(shop: Shop, duration: str, **by: float) -> None:
    """Move both clocks on, as the sandbox's clock control does."""
    shop.sandbox.advance(duration)
    moved = BusinessClock(0)
    moved.offset = shop.env.clock.offset + timedelta(**by)
    shop.env.clock = moved


async def test_everything_counted_is_reported_once(shop: Shop) -> None:
    await _use(shop, 7)
    await _use(shop, -2)
    await metering.consume(shop.env, company=ACME, feature="exports", quantity=3, idempotency_key="k")
    held = await metering.reserve(shop.env, company=ACME, feature="exports", quantity=2)
    assert held.id is not None
    assert len(await _rows(shop)) == 3
    await metering.settle(shop.env, held.id, 1)
    assert await metering.forward(shop.env) == 4
    rows = await _rows(shop)
    assert {row.state for row in rows} == {DELIVERED}
    assert all(len(row.id) <= 100 for row in rows)
    assert await _counted(shop) == 9
    assert await metering.forward(shop.env) == 0
    assert await drift.meter_drift(shop.env) == []


async def test_u3_an_identifier_that_stripe_knows_counts_as_delivered(shop: Shop) -> None:
    await _use(shop, 5)
    await _use(shop, 1)
    fault = {"fault": "fail_call", "path": "/v1/billing/meter_events", "when": "before", "status": 500, "count": None}
    shop.sandbox.control("POST", "faults", fault)
    await metering.forward(shop.env)
    shop.sandbox.control("DELETE", "faults")
    rows = await _rows(shop)
    assert {(row.state, row.report_id) for row in rows} == {(WAITING, rows[0].report_id)}
    # Another try arrived, under another key, and its answer was lost.
    shop.stripe.billing.meter_events.create(
        {
            "event_name": "exports",
            "payload": {"stripe_customer_id": await _customer(shop) or "", "value": "6"},
            "identifier": rows[0].report_id or "",
            "timestamp": int(rows[0].occurred_at.timestamp()),
        }
    )
    _later(shop, "PT1H", hours=1)
    await metering.forward(shop.env)
    assert [one.state for one in await _rows(shop)] == [DELIVERED, DELIVERED]
    assert await _counted(shop) == 6


async def test_an_hour_of_usage_is_one_report(shop: Shop) -> None:
    for number in range(1, 41):
        await _use(shop, number)
    await _use(shop, 7, ago=timedelta(hours=3))
    await _use(shop, 5, ago=timedelta(days=2))
    await _use(shop, -5, ago=timedelta(days=2))
    assert await metering.forward(shop.env) == 43
    assert {row.state for row in await _rows(shop)} == {DELIVERED}
    told = shop.requests(path="/v1/billing/meter_events")
    # The hour may have turned while it was used; what came to nothing is not told.
    assert len(told) in {2, 3}
    assert sum(int(one["params"]["payload"]["value"]) for one in told) == 41 * 20 + 7
    assert await _counted(shop) == 41 * 20 + 7
    assert await drift.meter_drift(shop.env) == []


async def test_a_report_never_spans_two_billing_periods(shop: Shop) -> None:
    shop.new_card((await _customer(shop)) or "", "pm_card_visa")
    await shop.change(plan="pro")
    begun = (await shop.snapshot()).cycle.anchor_at
    now = shop.env.clock.now()
    await _use(shop, 3, ago=now - begun + timedelta(milliseconds=1))
    _later(shop, "PT10S", seconds=10)
    await _use(shop, 4)
    await metering.forward(shop.env)
    told = shop.requests(path="/v1/billing/meter_events")
    periods = {one["params"]["payload"]["value"]: int(one["params"]["timestamp"]) >= begun.timestamp() for one in told}
    assert periods == {"3": False, "4": True}


async def test_u4_what_stripe_took_and_answered_with_an_error_is_not_billed_twice(shop: Shop) -> None:
    await _use(shop, 5)
    fault = {"fault": "fail_call", "path": "/v1/billing/meter_events", "when": "after", "status": 500}
    shop.sandbox.control("POST", "faults", fault)
    await metering.forward(shop.env)
    _later(shop, "PT2H", hours=2)
    # For a day Stripe gives the stored answer again; afterwards the meter's own sum decides.
    await metering.forward(shop.env)
    assert [row.state for row in await _rows(shop)] == [WAITING]
    _later(shop, "P1D", days=1)
    await metering.forward(shop.env)
    assert [row.state for row in await _rows(shop)] == [DELIVERED]
    assert await _counted(shop) == 5


@pytest.mark.parametrize("has_arrived", [True, False])
async def test_u4_after_a_day_the_meters_own_sum_decides(shop: Shop, *, has_arrived: bool) -> None:
    await _use(shop, 5)
    if has_arrived:
        await metering.forward(shop.env)
        await _change(shop, state=WAITING, available_at=shop.env.clock.now())
    else:
        await _change(shop, first_sent_at=shop.env.clock.now(), stripe_customer_id=await _customer(shop))
    _later(shop, "P2D", days=2)
    await metering.forward(shop.env)
    (row,) = await _rows(shop)
    assert row.state == DELIVERED
    assert await _counted(shop) == 5
    assert await drift.meter_drift(shop.env) == []


async def _customer(shop: Shop) -> str | None:
    """The company's Stripe customer."""
    company = await companies.get(shop.env, shop.company_id)
    return next(iter(company.stripe_customer_ids), None)


async def test_u4_what_the_sum_does_not_tell_is_set_aside(shop: Shop) -> None:
    await _use(shop, 5)
    customer = await _customer(shop)
    (row,) = await _rows(shop)
    # Somebody else feeds the same meter in the same hour.
    shop.stripe.billing.meter_events.create(
        {
            "event_name": "exports",
            "payload": {"stripe_customer_id": customer or "", "value": "3"},
            "timestamp": int(row.occurred_at.timestamp()),
        }
    )
    await _change(shop, first_sent_at=shop.env.clock.now(), stripe_customer_id=customer)
    _later(shop, "P2D", days=2)
    await metering.forward(shop.env)
    (row,) = await _rows(shop)
    assert row.state == SET_ASIDE
    assert "does not tell" in (row.reason or "")
    (found,) = await drift.meter_drift(shop.env)
    assert (found.company, found.subject, found.is_repaired) == (shop.company_id, "exports", False)


async def test_u5_poison_is_set_aside_and_the_others_flow(shop: Shop) -> None:
    await _use(shop, 1, ago=timedelta(days=34))
    await _use(shop, 2)
    _later(shop, "P2D", days=2)
    await _use(shop, 4)
    async with shop.env.writing() as session:
        await session.run(update(meter_outbox).where(meter_outbox.c.quantity == 4).values(meter="unknown"))
    await metering.forward(shop.env)
    told = {row.quantity: (row.state, row.reason) for row in await _rows(shop)}
    assert told[2] == (DELIVERED, None)
    assert told[1][0] == told[4][0] == SET_ASIDE
    assert "35 days" in (told[1][1] or "")
    assert "No active meter found" in (told[4][1] or "")
    assert await _counted(shop) == 2
    assert await metering.forward(shop.env) == 0


async def test_what_was_set_aside_can_be_reported_again(shop: Shop) -> None:
    meter = shop.stripe.billing.meters.list({"status": "active"}).data[0].id
    shop.stripe.billing.meters.deactivate(meter)
    await _use(shop, 6)
    await metering.forward(shop.env)
    assert [row.state for row in await _rows(shop)] == [SET_ASIDE]
    shop.stripe.billing.meters.reactivate(meter)
    assert [one.is_repaired for one in await drift.meter_drift(shop.env, repair=True)] == [True]
    _later(shop, "P2D", days=2)  # Stripe answers a repeated key for a day with its first answer
    await metering.forward(shop.env)
    assert [row.state for row in await _rows(shop)] == [DELIVERED]
    assert await _counted(shop) == 6


async def test_usage_of_a_company_without_a_customer_waits_for_one(
    connected_environment: Environment, sandbox: SandboxServer
) -> None:
    shop = await Shop.open(connected_environment, sandbox, _metered())
    try:
        if not shop.stripe.billing.meters.list({"status": "active"}).data:
            shop.stripe.billing.meters.create(
                {"display_name": "Exports", "event_name": "exports", "default_aggregation": {"formula": "sum"}}
            )
        await _use(shop, 5)
        await metering.forward(shop.env)
        assert [(row.state, row.attempts) for row in await _rows(shop)] == [(WAITING, 0)]
        await shop.customer(card=None)
        _later(shop, "PT11M", minutes=11)
        await metering.forward(shop.env)
        assert [row.state for row in await _rows(shop)] == [DELIVERED]
    finally:
        await shop.close()


async def test_u7_what_stripe_lost_afterwards_is_found(shop: Shop) -> None:
    await _use(shop, 5)
    await metering.forward(shop.env)
    assert await drift.meter_drift(shop.env) == []
    for event in shop.sandbox.app_state.sandbox.world.store.tables["billing.meter_event"].values():
        event["_counts"] = False
    (found,) = await drift.meter_drift(shop.env, repair=True)
    assert "5 was reported to the meter exports, Stripe counted 0" in found.detail
    assert not found.is_repaired


async def test_a_busy_stripe_is_asked_again_later(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(_calls: MeterCalls, **_asked: object) -> None:
        raise StripeFailure(FailureKind.BUSY, Code.STRIPE_BUSY, "Too many requests.")

    await _use(shop, 5)
    with monkeypatch.context() as patched:
        patched.setattr(MeterCalls, "send", busy)
        await metering.forward(shop.env)
    (row,) = await _rows(shop)
    assert (row.state, row.attempts) == (WAITING, 1)
    assert timedelta(0) < row.available_at - shop.env.clock.now() <= timedelta(seconds=3)
    _later(shop, "PT1M", minutes=1)
    await metering.forward(shop.env)
    assert [one.state for one in await _rows(shop)] == [DELIVERED]


async def test_reports_taken_long_ago_are_forgotten(shop: Shop) -> None:
    await _use(shop, 5)
    await metering.forward(shop.env)
    _later(shop, "P41D", days=41)
    await _use(shop, 1)
    assert await tidy(shop.env) >= 1
    assert [row.quantity for row in await _rows(shop)] == [1]


async def test_two_workers_report_each_quantity_once(shop: Shop, connected: Deployment) -> None:
    other = await Deployment.open(connected.settings)
    try:
        for number in range(60):
            await _use(shop, number + 1)
        sides = (shop.env, other.named(None))
        await asyncio.gather(*(metering.forward(sides[number % 2]) for number in range(6)))
        rows = await _rows(shop)
        assert {row.state for row in rows} == {DELIVERED}
        assert await _counted(shop) == 60 * 61 // 2
        assert await drift.meter_drift(shop.env) == []
    finally:
        await other.close()
