"""A company to which all that moves overage happens, and what Stripe should be told of it, worked out apart."""

import random
from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from plangate import metering, overrides
from plangate.engine.values import PeriodKind
from plangate.environment import Environment
from plangate.metering import TrackEvent
from plangate.shapes import OverrideView
from plangate.store.meter_outbox import MeterEventRow, meter_outbox
from plangate.store.usage import usage_windows
from tests.shop import DOCUMENT
from tests.world import ACTOR, StillClock, make_company, publish, put_on, still

ACME = {"id": "acme"}
METER = "plangate_overage_exports"


def overage(soft_limit: int, amount: str = "0.2", period: str = "billing_month") -> dict[str, Any]:
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


def document() -> dict[str, Any]:
    """Starter includes 100 exports and pro 300, and each further one has a price; on free there is no further one."""
    made = deepcopy(DOCUMENT)
    made["plans"]["starter"]["entitlements"]["exports"] = overage(100)
    made["plans"]["pro"]["entitlements"]["exports"] = overage(300, "0.1")
    return made


async def use(env: Environment, quantity: int, at: datetime | None = None, company: Mapping[str, str] = ACME) -> None:
    event = TrackEvent(event="exports", company=company, quantity=quantity, occurred_at=at)
    (result,) = await metering.record(env, [event], may_correct=True)
    assert result.status == "accepted", result


async def grant(env: Environment, company_id: str, value: object, **more: Any) -> OverrideView:  # noqa: ANN401 - of grant
    return await overrides.grant(
        env, company_id, feature="exports", note="a favour", actor=ACTOR, value=value, **{"mode": "add", **more}
    )


async def settle(env: Environment) -> None:
    while await metering.settle_overage(env):
        pass


async def told(env: Environment, company_id: str) -> list[MeterEventRow]:
    """Every report of overage, in the order it was worked out."""
    query = select(meter_outbox).where(meter_outbox.c.meter == METER, meter_outbox.c.company_id == company_id)
    async with env.reading() as session:
        rows = await session.all(query.order_by(meter_outbox.c.recorded_at, meter_outbox.c.id))
    return [MeterEventRow(**row) for row in rows]


async def windows(env: Environment, company_id: str) -> list[tuple[datetime, datetime, int, int]]:
    """Each window of the company: its bounds, what was used in it, and what was reported in it."""
    reports = await told(env, company_id)
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
            sum(one.quantity for one in reports if row["start_at"] <= one.occurred_at < row["end_at"]),
        )
        for row in rows
    ]


async def live(env: Environment, seed: int, *, steps: int) -> tuple[int, list[str]]:
    """Live so many steps; answers how many windows were compared on the way, and every mismatch in words."""
    clock = still(env)
    await publish(env, document())
    company = await make_company(env)
    await put_on(env, company.id, "starter")
    life = Life(env, clock, company.id, seed)
    compared = 0
    wrong: list[str] = []
    for number in range(1, steps + 1):
        await life.step()
        if number % 20:
            continue
        await settle(env)
        # A window that was over for 35 days stays as it was last looked at.
        since = clock.at - timedelta(days=34)
        for start, end, _, reported in await windows(env, company.id):
            compared += end > since
            if end > since and reported != life.due(start, end):
                wrong.append(f"step {number}, from {start}: {reported} was reported, {life.due(start, end)} is due")
        if await metering.settle_overage(env):
            wrong.append(f"step {number}: what was settled is looked at again")
    return compared, wrong


class Life:
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
                await self.use_some(self.dice.choice([1, 20, 60, 150]), timedelta())
            case 4:
                await self.use_some(self.dice.choice([5, 40, 90]), timedelta(days=self.dice.choice([1, 9, 30])))
            case 5:
                await self.use_some(-self.dice.choice([3, 50, 400]), timedelta(days=self.dice.choice([0, 0, 20])))
            case 6:
                await self.grant_some("add", self.dice.choice([10, 70]))
            case 7:
                await self.grant_some("set", self.dice.choice([50, 200, "unlimited"]))
            case 8:
                await self._revoke()
            case 9:
                self.clock.advance(days=self.dice.choice([1, 6, 17]))
            case 10:
                await self._move()
            case _:
                await settle(self.env)

    async def use_some(self, quantity: int, ago: timedelta) -> None:
        at = max(self.clock.at - ago, self.plans[0][0] + timedelta(seconds=1))
        if at > self.clock.at:
            at = self.clock.at
        await use(self.env, quantity, at)
        self.used.append((at, quantity))

    async def grant_some(self, mode: str, value: object) -> None:
        if any(one[4] == mode and (one[2] is None or one[2] > self.clock.at) for one in self.granted):
            return
        expires_at = self.dice.choice([None, self.clock.at + timedelta(days=self.dice.choice([2, 20]))])
        made = await grant(self.env, self.company_id, value, mode=mode, expires_at=expires_at)
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
