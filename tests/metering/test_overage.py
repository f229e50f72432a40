"""Overage on its way to Stripe: of each window exactly what lies beyond the allowance, whatever changes meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from plangate import access, companies, drift, metering, overrides
from plangate.deployment import Deployment
from plangate.environment import Environment
from plangate.store.meter_outbox import DELIVERED
from plangate.store.overage import overage_reports
from tests.metering.overage_life import ACME, document, grant, live, settle, told, use, windows
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR, make_company, publish, put_on, still

TWIN = {"id": "twin"}


@pytest.fixture
async def env(connected_environment: Environment) -> Environment:
    """A catalogue that sells overage; nothing of it is reported to anybody."""
    await publish(connected_environment, document())
    return connected_environment


async def test_only_what_lies_beyond_is_reported_and_only_once(env: Environment) -> None:
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    await use(env, 100)
    await settle(env)
    assert await told(env, company.id) == []
    await use(env, 5)
    await settle(env)
    await settle(env)
    await use(env, 7)
    await settle(env)
    await use(env, -4)
    await settle(env)
    assert [row.quantity for row in await told(env, company.id)] == [5, 7, -4]
    await use(env, -50)
    await settle(env)
    assert sum(row.quantity for row in await told(env, company.id)) == 0
    assert await metering.settle_overage(env) == 0


async def test_free_overage_is_not_reported(connected_environment: Environment) -> None:
    free_of_charge = deepcopy(DOCUMENT)
    free = {"limit": "unlimited", "soft_limit": 100, "period": "billing_month", "overage": "free"}
    free_of_charge["plans"]["starter"]["entitlements"]["exports"] = free
    await publish(connected_environment, free_of_charge)
    company = await make_company(connected_environment)
    await put_on(connected_environment, company.id, "starter")
    await use(connected_environment, 500)
    assert await metering.settle_overage(connected_environment) == 0
    assert await told(connected_environment, company.id) == []
    decision = await access.check(connected_environment, company=ACME, feature="exports")
    assert (decision.allowed, decision.over_soft_limit) == (True, True)


async def test_what_raises_the_allowance_is_never_billed(env: Environment) -> None:
    clock = still(env)
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    await use(env, 150)
    await settle(env)
    granted = await grant(env, company.id, 30)
    await settle(env)
    assert sum(row.quantity for row in await told(env, company.id)) == 20
    await grant(env, company.id, 1_000, mode="set", expires_at=clock.at + timedelta(days=2))
    await settle(env)
    assert sum(row.quantity for row in await told(env, company.id)) == 0
    clock.advance(days=3)
    await settle(env)
    assert sum(row.quantity for row in await told(env, company.id)) == 20
    await overrides.revoke(env, granted.id, note="over", actor=ACTOR)
    await settle(env)
    assert sum(row.quantity for row in await told(env, company.id)) == 50
    await grant(env, company.id, None, mode="deny")
    await settle(env)
    assert sum(row.quantity for row in await told(env, company.id)) == 50


async def test_a_window_that_is_over_keeps_its_allowance_and_corrects_itself(env: Environment) -> None:
    clock = still(env)
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    began = clock.at
    await use(env, 120)
    # Nobody looked before the window was over, and what is granted afterwards is of the next one.
    clock.advance(days=33)
    await grant(env, company.id, 500)
    await settle(env)
    await use(env, 9, at=began + timedelta(days=1))
    await settle(env)
    (first,) = [one for one in await windows(env, company.id) if one[2]]
    assert first[2:] == (129, 29)
    assert all(row.occurred_at < first[1] for row in await told(env, company.id))
    clock.advance(days=40)
    await use(env, 1)
    assert await metering.settle_overage(env) == 0
    assert sum(row.quantity for row in await told(env, company.id)) == 29


async def test_what_was_reported_stays_where_overage_is_no_longer_sold(env: Environment) -> None:
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    await use(env, 140)
    await settle(env)
    await put_on(env, company.id, "free")
    await use(env, 5)
    await settle(env)
    assert [row.quantity for row in await told(env, company.id)] == [40]
    # Back on a plan that sells it, the whole window is compared with what that one includes.
    await put_on(env, company.id, "pro")
    await settle(env)
    assert sum(row.quantity for row in await told(env, company.id)) == 0


async def test_what_was_reported_of_two_companies_becomes_one(env: Environment) -> None:
    clock = still(env)
    company = await make_company(env)
    twin = await make_company(env, "twin")
    for one in (company, twin):
        await put_on(env, one.id, "starter")
    await use(env, 130)
    await use(env, 110, company=TWIN)
    await settle(env)
    clock.advance(minutes=1)
    await companies.merge(env, company.id, TWIN, actor=ACTOR)
    await settle(env)
    await settle(env)
    (window,) = await windows(env, company.id)
    assert window[2:] == (240, 140)
    assert await metering.settle_overage(env) == 0


async def test_two_workers_tell_each_difference_once(env: Environment, connected: Deployment) -> None:
    ids = []
    for number in range(12):
        company = await make_company(env, f"company-{number}")
        await put_on(env, company.id, "starter")
        ids.append(company.id)
    other = await Deployment.open(connected.settings)
    try:
        sides = (env, other.named(None))
        for round_number in range(3):
            for number in range(12):
                await use(env, 70, company={"id": f"company-{number}"})
            await asyncio.gather(*(metering.settle_overage(sides[turn % 2]) for turn in range(6)))
            due = max(0, 70 * (round_number + 1) - 100)
            assert [sum(row.quantity for row in await told(env, one)) for one in ids] == [due] * 12
    finally:
        await other.close()


async def test_looking_for_overage_rests_as_long_as_it_takes(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def look(_env: Environment) -> int:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.02)
        return int(looks == 1)

    monkeypatch.setattr("plangate.metering.overage.settle_overage", look)
    # While there is something it goes on; then it rests twenty times as long as the last look took.
    assert await metering.keep_overage_settled(env) == 1
    assert [await metering.keep_overage_settled(env) for _ in range(20)] == [0] * 20
    assert looks == 2
    await asyncio.sleep(0.5)
    await metering.keep_overage_settled(env)
    assert looks == 3


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_reported_is_what_lies_beyond_at_each_windows_end(
    connected_environment: Environment, seed: int
) -> None:
    compared, mismatches = await live(connected_environment, seed, steps=60)
    assert compared
    assert mismatches == []
    assert await drift.usage_drift(connected_environment) == []


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """A company that pays for starter in the sandbox: 100 exports, and $0.002 for each further one."""
    opened = await Shop.open(connected_environment, sandbox, document())
    customer = await opened.customer()
    catalog = await opened.env.catalog()
    starter = catalog.plans["starter"]
    (granted,) = [one for one in starter.entitlements if one.feature == "exports"]
    prices = [next(price for price in held if price.interval == "month") for held in (starter.prices, granted.prices)]
    items: Any = [{"price": price.stripe_price_id} for price in prices]
    opened.stripe.subscriptions.create({"customer": customer, "items": items})
    await opened.sync()
    assert await opened.plan() == "starter"
    yield opened
    await opened.close()


async def _report(shop: Shop) -> None:
    while await metering.settle_overage(shop.env) or await metering.forward(shop.env):
        pass


async def test_the_invoice_at_renewal_bills_exactly_the_overage(shop: Shop) -> None:
    await use(shop.env, 90)
    await _report(shop)
    await use(shop.env, 2_510)
    await grant(shop.env, shop.company_id, 500)
    await _report(shop)
    shop.advance("P10D")
    await use(shop.env, 25)
    await _report(shop)
    shop.advance("P1M")
    await shop.sync()
    invoices = sorted(shop.objects("invoice"), key=lambda one: (one["created"], one["total"]))
    # 2,625 used, 600 included: 2,025 at $0.002 are $4.05.
    assert [one["total"] for one in invoices] == [1900, 1900 + 405]
    assert await drift.meter_drift(shop.env) == []
    # The next window begins with nothing reported, and nothing of the old one is sent again.
    await use(shop.env, 601)
    await _report(shop)
    assert sum(row.quantity for row in await told(shop.env, shop.company_id)) == 2_025 + 1


async def test_tiers_of_overage_begin_anew_with_every_period_and_follow_an_upgrade(shop: Shop) -> None:
    tiered = document()
    steps = [{"up_to": 50, "amount_minor": 3}, {"up_to": None, "amount_minor": 1, "flat_amount_minor": 200}]
    for price in tiered["plans"]["pro"]["entitlements"]["exports"]["prices"]:
        del price["amount_decimal"]
        price |= {"tiers_mode": "graduated", "tiers": steps}
    await publish(shop.env, tiered)
    await use(shop.env, 250)
    await _report(shop)
    # Of 250, 150 are beyond what Starter includes and none beyond what Pro does: nothing is owed for them any more.
    assert (await shop.change(plan="pro")).state == "applied"
    for used in (70, 450, 310):
        await use(shop.env, used)
        await _report(shop)
        shop.advance("P1M")
        await shop.sync()
    renewals = [one for one in shop.objects("invoice") if one["billing_reason"] == "subscription_cycle"]
    # 320, 450 and 310 used of 300 included: 20 at 3 cents; 50 at 3, $2.00 and 100 at 1; 10 at 3.
    assert sorted(one["total"] - 4900 for one in renewals) == [30, 60, 450]
    assert await drift.meter_drift(shop.env) == []


async def test_u4_faults_bill_no_overage_twice_and_lose_none(shop: Shop) -> None:
    dice = random.Random(7)  # noqa: S311 - the same faults each time
    used = 0
    for _ in range(25):
        quantity = dice.choice([30, 80])
        await use(shop.env, quantity)
        used += quantity
        await metering.settle_overage(shop.env)
        if dice.random() < 0.7:
            fault = {
                "fault": "fail_call",
                "path": "/v1/billing/meter_events",
                "when": dice.choice(["before", "after"]),
                "status": dice.choice([429, 500]),
                "count": dice.choice([1, 4]),
            }
            shop.sandbox.control("POST", "faults", fault)
        await metering.forward(shop.env)
        shop.advance("PT3M")
    shop.sandbox.control("DELETE", "faults")
    # For a day Stripe answers with the error again; then the meter's own sum decides what arrived.
    for _ in range(3):
        shop.advance("P1D")
        await _report(shop)
    rows = await told(shop.env, shop.company_id)
    assert {row.state for row in rows} == {DELIVERED}
    assert sum(row.quantity for row in rows) == used - 100
    assert await drift.meter_drift(shop.env) == []


async def test_a_death_before_the_report_is_sent_changes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await use(shop.env, 150)

    async def die(*_: object) -> None:
        raise SystemError

    with monkeypatch.context() as patched:
        patched.setattr("plangate.metering.overage.save_overage", die)
        with pytest.raises(SystemError):
            await metering.settle_overage(shop.env)
    assert await told(shop.env, shop.company_id) == []
    async with shop.env.reading() as session:
        assert await session.all(select(overage_reports)) == []
    await _report(shop)
    assert [row.quantity for row in await told(shop.env, shop.company_id)] == [50]
