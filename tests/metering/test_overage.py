"""Overage on its way to Stripe: of each window exactly what lies beyond the allowance, whatever changes meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from plangate import access, companies, drift, metering, overrides
from plangate.engine.model import PeriodKind
from plangate.environment import Environment
from plangate.metering import TrackEvent
from plangate.shapes import OverrideView
from plangate.store.meter_outbox import DELIVERED, MeterEventRow, meter_outbox
from plangate.store.overage import overage_reports
from plangate.store.usage import usage_windows
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR, StillClock, make_company, publish, put_on, still

ACME, TWIN = {"id": "acme"}, {"id": "twin"}
METER = "plangate_overage_exports"


def _overage(soft_limit: int, amount: str = "0.2", period: str = "billing_month") -> dict[str, Any]:
    return {
        "limit": "unlimited",
        "soft_limit": soft_limit,
        "period": period,
        "price_behaviour": "overage",
        "prices": [
            {"currency": "usd", "interval": "month", "amount_decimal": amount},
            {"currency": "usd", "interval": "year", "amount_decimal": amount},
        ],
    }


def _document() -> dict[str, Any]:
    """Starter includes 100 exports and pro 300, and each further one has a price; on free there is no further one."""
    document = deepcopy(DOCUMENT)
    document["plans"]["starter"]["entitlements"]["exports"] = _overage(100)
    document["plans"]["pro"]["entitlements"]["exports"] = _overage(300, "0.1")
    return document


@pytest.fixture
async def env(connected_environment: Environment) -> Environment:
    """A catalogue that sells overage; nothing of it is reported to anybody."""
    await publish(connected_environment, _document())
    return connected_environment


async def _use(env: Environment, quantity: int, at: datetime | None = None, company: Mapping[str, str] = ACME) -> None:
    event = TrackEvent(event="exports", company=company, quantity=quantity, occurred_at=at)
    (result,) = await metering.record(env, [event], may_correct=True)
    assert result.status == "accepted", result


async def _grant(env: Environment, company_id: str, value: object, **more: Any) -> OverrideView:  # noqa: ANN401 - of grant
    return await overrides.grant(
        env, company_id, feature="exports", note="a favour", actor=ACTOR, value=value, **{"mode": "add", **more}
    )


async def _settle(env: Environment) -> None:
    while await metering.settle_overage(env):
        pass


async def _told(env: Environment, company_id: str) -> list[MeterEventRow]:
    """Every report of overage, in the order it was worked out."""
    query = select(meter_outbox).where(meter_outbox.c.meter == METER, meter_outbox.c.company_id == company_id)
    async with env.reading() as session:
        rows = await session.all(query.order_by(meter_outbox.c.recorded_at, meter_outbox.c.id))
    return [MeterEventRow(**row) for row in rows]


async def _windows(env: Environment, company_id: str) -> list[tuple[datetime, datetime, int, int]]:
    """Each window of the company: its bounds, what was used in it, and what was reported in it."""
    told = await _told(env, company_id)
    query = select(usage_windows).where(
        usage_windows.c.company_id == company_id,
        usage_windows.c.period == PeriodKind.BILLING_MONTH.value,
        usage_windows.c.feature == "exports",
        usage_windows.c.user_id == "",
    )
    async with env.reading() as session:
        rows = await session.all(query.order_by(usage_windows.c.start_at))
    return [
        (
            row["start_at"],
            row["end_at"],
            row["used"],
            sum(one.quantity for one in told if row["start_at"] <= one.occurred_at < row["end_at"]),
        )
        for row in rows
    ]


async def test_only_what_lies_beyond_is_reported_and_only_once(env: Environment) -> None:
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    await _use(env, 100)
    await _settle(env)
    assert await _told(env, company.id) == []
    await _use(env, 5)
    await _settle(env)
    await _settle(env)
    await _use(env, 7)
    await _settle(env)
    await _use(env, -4)
    await _settle(env)
    assert [row.quantity for row in await _told(env, company.id)] == [5, 7, -4]
    await _use(env, -50)
    await _settle(env)
    assert sum(row.quantity for row in await _told(env, company.id)) == 0
    assert await metering.settle_overage(env) == 0


async def test_free_overage_is_not_reported(connected_environment: Environment) -> None:
    document = deepcopy(DOCUMENT)
    free = {"limit": "unlimited", "soft_limit": 100, "period": "billing_month", "overage": "free"}
    document["plans"]["starter"]["entitlements"]["exports"] = free
    await publish(connected_environment, document)
    company = await make_company(connected_environment)
    await put_on(connected_environment, company.id, "starter")
    await _use(connected_environment, 500)
    assert await metering.settle_overage(connected_environment) == 0
    assert await _told(connected_environment, company.id) == []
    decision = await access.check(connected_environment, company=ACME, feature="exports")
    assert (decision.allowed, decision.over_soft_limit) == (True, True)


async def test_what_raises_the_allowance_is_never_billed(env: Environment) -> None:
    clock = still(env)
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    await _use(env, 150)
    await _settle(env)
    granted = await _grant(env, company.id, 30)
    await _settle(env)
    assert sum(row.quantity for row in await _told(env, company.id)) == 20
    await _grant(env, company.id, 1_000, mode="set", expires_at=clock.at + timedelta(days=2))
    await _settle(env)
    assert sum(row.quantity for row in await _told(env, company.id)) == 0
    clock.advance(days=3)
    await _settle(env)
    assert sum(row.quantity for row in await _told(env, company.id)) == 20
    await overrides.revoke(env, granted.id, note="over", actor=ACTOR)
    await _settle(env)
    assert sum(row.quantity for row in await _told(env, company.id)) == 50
    await _grant(env, company.id, None, mode="deny")
    await _settle(env)
    assert sum(row.quantity for row in await _told(env, company.id)) == 50


async def test_a_window_that_is_over_keeps_its_allowance_and_corrects_itself(env: Environment) -> None:
    clock = still(env)
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    began = clock.at
    await _use(env, 120)
    # Nobody looked before the window was over, and what is granted afterwards is of the next one.
    clock.advance(days=33)
    await _grant(env, company.id, 500)
    await _settle(env)
    await _use(env, 9, at=began + timedelta(days=1))
    await _settle(env)
    (first,) = [one for one in await _windows(env, company.id) if one[2]]
    assert first[2:] == (129, 29)
    assert all(row.occurred_at < first[1] for row in await _told(env, company.id))
    clock.advance(days=40)
    await _use(env, 1)
    assert await metering.settle_overage(env) == 0
    assert sum(row.quantity for row in await _told(env, company.id)) == 29


async def test_what_was_reported_stays_where_overage_is_no_longer_sold(env: Environment) -> None:
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    await _use(env, 140)
    await _settle(env)
    await put_on(env, company.id, "free")
    await _use(env, 5)
    await _settle(env)
    assert [row.quantity for row in await _told(env, company.id)] == [40]
    # Back on a plan that sells it, the whole window is compared with what that one includes.
    await put_on(env, company.id, "pro")
    await _settle(env)
    assert sum(row.quantity for row in await _told(env, company.id)) == 0


async def test_what_was_reported_of_two_companies_becomes_one(env: Environment) -> None:
    clock = still(env)
    company = await make_company(env)
    twin = await make_company(env, "twin")
    for one in (company, twin):
        await put_on(env, one.id, "starter")
    await _use(env, 130)
    await _use(env, 110, company=TWIN)
    await _settle(env)
    clock.advance(minutes=1)
    await companies.merge(env, company.id, TWIN, actor=ACTOR)
    await _settle(env)
    await _settle(env)
    (window,) = await _windows(env, company.id)
    assert window[2:] == (240, 140)
    assert await metering.settle_overage(env) == 0


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


class _Life:
    """A company to which all that moves overage happens, and what it should come to, kept apart from the product."""

    def __init__(self, env: Environment, clock: StillClock, company_id: str, seed: int) -> None:
        self.env, self.clock, self.company_id = env, clock, company_id
        self.dice = random.Random(seed)  # noqa: S311 - a life that can be lived again
        self.plan = "starter"
        self.used: list[tuple[datetime, int]] = []
        self.granted: list[tuple[OverrideView, datetime, datetime | None, object, str]] = []
        self.plans: list[tuple[datetime, int]] = [(clock.at, 100)]

    async def step(self) -> None:
        """One thing happens."""
        match self.dice.randrange(12):
            case 0 | 1 | 2 | 3:
                await self._use(self.dice.choice([1, 20, 60, 150]), timedelta())
            case 4:
                await self._use(self.dice.choice([5, 40, 90]), timedelta(days=self.dice.choice([1, 9, 30])))
            case 5:
                await self._use(-self.dice.choice([3, 50, 400]), timedelta(days=self.dice.choice([0, 0, 20])))
            case 6:
                await self._grant("add", self.dice.choice([10, 70]))
            case 7:
                await self._grant("set", self.dice.choice([50, 200, "unlimited"]))
            case 8:
                await self._revoke()
            case 9:
                self.clock.advance(days=self.dice.choice([1, 6, 17]))
            case 10:
                await self._move()
            case _:
                await _settle(self.env)

    async def _use(self, quantity: int, ago: timedelta) -> None:
        at = max(self.clock.at - ago, self.plans[0][0] + timedelta(seconds=1))
        if at > self.clock.at:
            at = self.clock.at
        await _use(self.env, quantity, at)
        self.used.append((at, quantity))

    async def _grant(self, mode: str, value: object) -> None:
        if any(one[4] == mode and (one[2] is None or one[2] > self.clock.at) for one in self.granted):
            return
        expires_at = self.dice.choice([None, self.clock.at + timedelta(days=self.dice.choice([2, 20]))])
        made = await _grant(self.env, self.company_id, value, mode=mode, expires_at=expires_at)
        self.granted.append((made, self.clock.at, expires_at, value, mode))

    async def _revoke(self) -> None:
        for number, (made, start, expires_at, value, mode) in enumerate(self.granted):
            if expires_at is None or expires_at > self.clock.at:
                await overrides.revoke(self.env, made.id, note="over", actor=ACTOR)
                self.granted[number] = (made, start, self.clock.at, value, mode)
                return

    async def _move(self) -> None:
        self.plan = "pro" if self.plan == "starter" else "starter"
        await put_on(self.env, self.company_id, self.plan)
        self.plans.append((self.clock.at, 300 if self.plan == "pro" else 100))

    def due(self, start: datetime, end: datetime) -> int:
        """What lies beyond the allowance, as it is now or was at the window's end."""
        at = min(self.clock.at, end - timedelta(microseconds=1))
        total: float = next(limit for since, limit in reversed(self.plans) if since <= at)
        running = [one for one in self.granted if one[1] <= at and (one[2] is None or at < one[2])]
        for _, _, _, value, mode in sorted(running, key=lambda one: one[4] == "add"):
            amount = float("inf") if value == "unlimited" else float(str(value))
            total = total + amount if mode == "add" else max(total, amount)
        used = max(0, sum(quantity for when, quantity in self.used if start <= when < end))
        return int(max(0, used - total))


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_reported_is_what_lies_beyond_at_each_windows_end(env: Environment, seed: int) -> None:
    clock = still(env)
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    life = _Life(env, clock, company.id, seed)
    for _ in range(60):
        await life.step()
    await _settle(env)
    # A window that was over for 35 days stays as it was last looked at.
    since = clock.at - timedelta(days=34)
    windows = [one for one in await _windows(env, company.id) if one[1] > since]
    assert windows
    assert [(start, reported) for start, _, _, reported in windows] == [
        (start, life.due(start, end)) for start, end, _, _ in windows
    ]
    assert await metering.settle_overage(env) == 0
    assert await drift.usage_drift(env) == []


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """A company that pays for starter in the sandbox: 100 exports, and $0.002 for each further one."""
    opened = await Shop.open(connected_environment, sandbox, _document())
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
    await _use(shop.env, 90)
    await _report(shop)
    await _use(shop.env, 2_510)
    await _grant(shop.env, shop.company_id, 500)
    await _report(shop)
    shop.advance("P10D")
    await _use(shop.env, 25)
    await _report(shop)
    shop.advance("P1M")
    await shop.sync()
    invoices = sorted(shop.objects("invoice"), key=lambda one: (one["created"], one["total"]))
    # 2,625 used, 600 included: 2,025 at $0.002 are $4.05.
    assert [one["total"] for one in invoices] == [1900, 1900 + 405]
    assert await drift.meter_drift(shop.env) == []
    # The next window begins with nothing reported, and nothing of the old one is sent again.
    await _use(shop.env, 601)
    await _report(shop)
    assert sum(row.quantity for row in await _told(shop.env, shop.company_id)) == 2_025 + 1


async def test_u4_faults_bill_no_overage_twice_and_lose_none(shop: Shop) -> None:
    dice = random.Random(7)  # noqa: S311 - the same faults each time
    used = 0
    for _ in range(25):
        quantity = dice.choice([30, 80])
        await _use(shop.env, quantity)
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
    rows = await _told(shop.env, shop.company_id)
    assert {row.state for row in rows} == {DELIVERED}
    assert sum(row.quantity for row in rows) == used - 100
    assert await drift.meter_drift(shop.env) == []


async def test_a_death_before_the_report_is_sent_changes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await _use(shop.env, 150)

    async def die(*_: object) -> None:
        raise SystemError

    with monkeypatch.context() as patched:
        patched.setattr("plangate.metering.overage.save_overage", die)
        with pytest.raises(SystemError):
            await metering.settle_overage(shop.env)
    assert await _told(shop.env, shop.company_id) == []
    async with shop.env.reading() as session:
        assert await session.all(select(overage_reports)) == []
    await _report(shop)
    assert [row.quantity for row in await _told(shop.env, shop.company_id)] == [50]
