"""Usage that a Stripe meter counts: read into the ledger, shown as lagging, and never sent back."""

from collections.abc import AsyncIterator
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from plangate import access, companies, drift, metering
from plangate.clock import BusinessClock
from plangate.environment import Environment
from plangate.errors import Code
from plangate.metering import EventStatus, TrackEvent
from plangate.store.meter_outbox import meter_outbox
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR, publish

ACME = {"id": "acme"}


def _document(source: str) -> dict[str, Any]:
    document = deepcopy(DOCUMENT)
    document["features"]["exports"] |= {"stripe_meter": "exports", "usage_source": source}
    return document


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """A shop whose product reports exports to Stripe itself; its company has a Stripe customer."""
    opened = await Shop.open(connected_environment, sandbox, _document("stripe_meter"))
    if not opened.stripe.billing.meters.list({"status": "active"}).data:
        opened.stripe.billing.meters.create(
            {"display_name": "Exports", "event_name": "exports", "default_aggregation": {"formula": "sum"}}
        )
    await opened.customer(card=None)
    yield opened
    await opened.close()


async def _reported(shop: Shop, value: int, *, ago: timedelta = timedelta()) -> None:
    """The product tells Stripe, not us."""
    (customer,) = (await companies.get(shop.env, shop.company_id)).stripe_customer_ids
    shop.stripe.billing.meter_events.create(
        {
            "event_name": "exports",
            "payload": {"stripe_customer_id": customer, "value": str(value)},
            "timestamp": int((shop.env.clock.now() - ago).timestamp()),
        }
    )


async def test_what_the_meter_counted_is_read_and_marked_as_lagging(shop: Shop) -> None:
    before = await access.check(shop.env, company=ACME, feature="exports")
    assert (before.used, before.stale) == (0, True)
    await _reported(shop, 4)
    await _reported(shop, 3)
    await metering.pull(shop.env)
    check = await access.check(shop.env, company=ACME, feature="exports", quantity=4)
    assert (check.used, check.remaining, check.allowed, check.stale) == (7, 3, False, True)
    await metering.pull(shop.env)
    await _reported(shop, 1)
    await metering.pull(shop.env)
    assert (await access.check(shop.env, company=ACME, feature="exports")).used == 8
    series = await metering.series(shop.env, shop.company_id, "exports", "day")
    assert sum(point.quantity for point in series.points) == 8
    assert await drift.usage_drift(shop.env) == []


async def test_it_is_never_sent_back_and_never_counted_here(shop: Shop) -> None:
    await _reported(shop, 4)
    await metering.pull(shop.env)
    decision, is_counted = await metering.consume(shop.env, company=ACME, feature="exports", idempotency_key="k")
    assert (decision.allowed, is_counted, decision.used) == (True, False, 4)
    assert (await metering.reserve(shop.env, company=ACME, feature="exports")).id is None
    await metering.record(shop.env, [TrackEvent(event="exports", company=ACME, quantity=50)])
    forged = await metering.record(shop.env, [TrackEvent(event="stripe_meter:exports", company=ACME)])
    assert (forged[0].status, forged[0].code) == (EventStatus.REFUSED, Code.INVALID)
    assert (await access.check(shop.env, company=ACME, feature="exports")).used == 4
    assert await metering.forward(shop.env) == 0
    async with shop.env.reading() as session:
        assert await session.scalar(select(func.count()).select_from(meter_outbox)) == 0


async def test_the_past_knows_what_had_been_read_by_then(shop: Shop) -> None:
    await _reported(shop, 4)
    await metering.pull(shop.env)
    then = shop.env.clock.now()
    shop.sandbox.advance("PT3H")
    moved = BusinessClock(0)
    moved.offset = shop.env.clock.offset + timedelta(hours=3)
    shop.env.clock = moved
    await _reported(shop, 2, ago=timedelta(hours=1))
    await metering.pull(shop.env)
    assert (await access.check(shop.env, company=ACME, feature="exports")).used == 6
    past = await access.check(shop.env, company=ACME, feature="exports", at=then)
    assert (past.used, past.stale) == (4, True)


async def test_usage_that_comes_from_elsewhere_is_counted_anew(shop: Shop) -> None:
    await metering.record(shop.env, [TrackEvent(event="exports", company=ACME, quantity=5)])
    await _reported(shop, 2)
    await metering.pull(shop.env)
    await publish(shop.env, _document("events"))
    check = await access.check(shop.env, company=ACME, feature="exports")
    assert (check.used, check.stale) == (5, False)
    assert await drift.usage_drift(shop.env) == []
    await publish(shop.env, _document("stripe_meter"))
    assert (await access.check(shop.env, company=ACME, feature="exports")).used == 2


async def test_two_companies_have_their_own(shop: Shop) -> None:
    await companies.upsert(shop.env, keys={"id": "idle"}, actor=ACTOR, stripe_customer_ids=("cus_idle",))
    await _reported(shop, 2)
    await metering.pull(shop.env)
    assert (await access.check(shop.env, company={"id": "idle"}, feature="exports")).used == 0
    assert (await access.check(shop.env, company=ACME, feature="exports")).used == 2
