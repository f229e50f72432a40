"""The paths of a plan change, each with what must have come of it however it was disturbed; and ways to disturb them.

A dead process does nothing more: every later call and commit of it fails too, and its lease stays behind until its
time is over. Then another process resumes.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar, Final, Protocol

import pytest
from sqlalchemy import update

from plangate import catalog, plan_changes
from plangate.billing.transport import StripeJson, Transport
from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.mirroring import refetch
from plangate.shapes import Actor, Quote
from plangate.store.database import StoreSession
from plangate.store.inbox import InboxState, inbox
from plangate.store.leases import leases
from plangate.store.plan_changes import plan_changes as rows_table
from plangate.store.version_migrations import migrating_companies
from tests.shop import CUSTOMER, DOCUMENT, STAFF, Shop, new_company

SOLD: Final[dict[str, Any]] = {
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
_DEAL: Final[dict[str, Any]] = {"amount_minor": 120_000, "currency": "usd", "interval": "month"}


class Died(Exception):
    """The process was killed here."""


class Process:
    """Counts the points at which a process can die, and dies at one of them."""

    def __init__(self, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points = 0
        self.dies_at: int | None = None
        self.is_dead = False
        self._install(env, monkeypatch)

    def point(self) -> None:
        if self.is_dead:
            raise Died
        self.points += 1
        if self.points == self.dies_at:
            self.is_dead = True
            raise Died

    def around(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The call, before and after which the process can die."""

        async def dying(*arguments: object, **options: object) -> object:
            self.point()
            answer = await call(*arguments, **options)
            self.point()
            return answer

        return dying

    def start(self, *, dies_at: int | None) -> None:
        self.points, self.dies_at, self.is_dead = 0, dies_at, False

    def _install(self, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        process, write, writing = self, Transport.write, env.writing

        async def dying_write(
            self: Transport, request: Callable[[Any], Awaitable[Any]], *, idempotency_key: str
        ) -> StripeJson:
            process.point()
            answer = await write(self, request, idempotency_key=idempotency_key)
            process.point()
            return answer

        @asynccontextmanager
        async def dying_writing() -> AsyncIterator[StoreSession]:
            process.point()
            async with writing() as session:
                yield session
                if process.is_dead:
                    raise Died
            process.point()

        monkeypatch.setattr(Transport, "write", dying_write)
        monkeypatch.setattr(env, "writing", dying_writing)
        for commit in ("claim", "write_back"):
            monkeypatch.setattr(env, commit, self.around(getattr(env, commit)))


async def on_plan(shop: Shop, name: str, plan: str) -> str:
    """A new company with a running subscription; answers its Stripe customer."""
    shop.company_id = await new_company(shop.env, name)
    stripe_customer_id = await shop.customer()
    price = (await shop.env.catalog()).plans[plan].prices[0].stripe_price_id
    shop.stripe.subscriptions.create({"customer": stripe_customer_id, "items": [{"price": price or ""}]})
    await refetch(shop.env, shop.company_id)
    if shop.hours_subscribed:
        shop.advance(f"PT{shop.hours_subscribed}H")
    return stripe_customer_id


async def restart(shop: Shop) -> None:
    """The dead process' lease is over, and what it left is due."""
    await outlast(shop)
    await plan_changes.resume_unfinished(shop.env)
    await plan_changes.carry_on_repricing(shop.env)


async def outlast(shop: Shop) -> None:
    """Let time pass until another process may go on."""
    past = wall_now() - timedelta(seconds=1)
    async with shop.env.writing() as session:
        await session.run(update(leases).values(expires_at=past))
        await session.run(
            update(rows_table).where(rows_table.c.company_id == shop.company_id).values(available_at=past)
        )
        await session.run(update(migrating_companies).values(available_at=past))
        await session.run(update(inbox).where(inbox.c.state == InboxState.PENDING.value).values(available_at=past))
    shop.env.forget("")


class Scenario(Protocol):
    """One path: `prepare` a company of that name, `act` on what that answered, `check` what came of it."""

    async def prepare(self, shop: Shop, name: str) -> None: ...

    async def act(self, shop: Shop) -> object: ...

    async def check(self, shop: Shop, *, is_saved: bool) -> None: ...


async def every_death(
    shop: Shop, scenario: Scenario, monkeypatch: pytest.MonkeyPatch, *, step: int = 1, number: int = 1
) -> int:
    """Run once whole to count the points, then once for each `step`th of them; answers how many there were.

    In the first round somebody resumes at once. In others, by their `number`, the company subscribed a while ago, and
    something else goes on beside the death.
    """
    process = Process(shop.env, monkeypatch)
    await scenario.prepare(shop, "whole")
    process.start(dies_at=None)
    await scenario.act(shop)
    total = process.points
    await scenario.check(shop, is_saved=True)
    for place in range(1, total + 1, step):
        chance = random.Random(f"{type(scenario).__name__}/{number}/{place}")  # noqa: S311 - repeatable, no secret
        shop.hours_subscribed = chance.randint(1, 640) if number > 1 and chance.random() < 0.5 else 0
        process.start(dies_at=None)
        await scenario.prepare(shop, f"dies-at-{place}")
        rows_before = {row.id: row.state for row in await shop.rows()}
        process.start(dies_at=place)
        with pytest.raises(Died):
            await scenario.act(shop)
        process.start(dies_at=None)
        is_saved = {row.id: row.state for row in await shop.rows()} != rows_before
        meanwhile = chance.choice(MEANWHILE) if number > 1 else _nothing
        try:
            is_saved |= await meanwhile(shop, scenario, process, chance)
            await restart(shop)
            await scenario.check(shop, is_saved=is_saved)
        except AssertionError as difference:
            words = f"dies at {place} of {total} after {shop.hours_subscribed} hours, {meanwhile.__name__.strip('_')}"
            raise AssertionError(words) from difference
    return total


async def _nothing(shop: Shop, scenario: Scenario, process: Process, chance: random.Random) -> bool:
    """Nobody does anything before a process resumes. Each of these answers whether it made the intent a saved one."""
    return False


async def _told(shop: Shop, scenario: Scenario, process: Process, chance: random.Random) -> bool:
    """Webhooks of what was done by then are acted on first."""
    await outlast(shop)
    await shop.sync()
    return False


async def _later(shop: Shop, scenario: Scenario, process: Process, chance: random.Random) -> bool:
    """Nobody resumes for most of the day for which Stripe knows a key."""
    shop.advance(f"PT{chance.randint(1, 20)}H")
    return False


async def _dies_again(shop: Shop, scenario: Scenario, process: Process, chance: random.Random) -> bool:
    """Who resumes dies as well, and who comes after it, each somewhere."""
    for _ in range(2):
        await outlast(shop)
        process.start(dies_at=chance.randint(1, 12))
        with suppress(Died):
            await plan_changes.resume_unfinished(shop.env)
            await plan_changes.carry_on_repricing(shop.env)
        process.start(dies_at=None)
    return False


async def _again(shop: Shop, scenario: Scenario, process: Process, chance: random.Random) -> bool:
    """The person clicks again, once or twice at the same time, while a process resumes."""
    await outlast(shop)
    clicks = [scenario.act(shop) for _ in range(chance.choice([1, 2]))]
    *answers, resumed = await asyncio.gather(*clicks, plan_changes.resume_unfinished(shop.env), return_exceptions=True)
    strange = [one for one in (*answers, resumed) if isinstance(one, BaseException) and not isinstance(one, Refusal)]
    assert not strange, strange
    return any(not isinstance(one, BaseException) for one in answers)


MEANWHILE: Final = (_nothing, _told, _later, _dies_again, _again)


class Path:
    """What the scenarios share: a company on a plan, and a quote to confirm."""

    starts_on = "pro"
    asked: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.customer = ""
        self.quote: Quote | None = None

    async def prepare(self, shop: Shop, name: str) -> None:
        self.customer = await on_plan(shop, name, self.starts_on)
        self.quote = await shop.preview(**self.asked)

    async def act(self, shop: Shop) -> object:
        assert self.quote is not None
        return await shop.confirm(self.quote)

    def of_customer(self, shop: Shop, kind: str) -> list[dict[str, Any]]:
        return [one for one in shop.objects(kind) if one["customer"] == self.customer]

    async def states(self, shop: Shop) -> list[str]:
        return [row.state for row in await shop.rows()]


class Downgrade(Path):
    asked: ClassVar[dict[str, Any]] = {"plan": "starter"}

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        schedules = self.of_customer(shop, "subscription_schedule")
        if not is_saved:
            assert schedules == []
            assert await self.states(shop) == []
            return
        assert await self.states(shop) == ["scheduled"]
        (schedule,) = schedules
        assert (schedule["status"], len(schedule["phases"])) == ("active", 2)
        assert schedule["metadata"]["plangate_change"] == (await shop.rows())[0].id
        assert await shop.plan() == "pro"


class Upgrade(Path):
    starts_on = "starter"
    asked: ClassVar[dict[str, Any]] = {"plan": "pro"}

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        invoices = self.of_customer(shop, "invoice")
        assert len(invoices) == (2 if is_saved else 1)
        assert await self.states(shop) == (["applied"] if is_saved else [])
        assert await shop.plan() == ("pro" if is_saved else "starter")


class Subscribe(Path):
    asked: ClassVar[dict[str, Any]] = {"plan": "pro"}

    async def prepare(self, shop: Shop, name: str) -> None:
        shop.company_id = await new_company(shop.env, name)
        self.customer = await shop.customer()
        self.quote = await shop.preview(**self.asked)

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        assert len(self.of_customer(shop, "subscription")) == (1 if is_saved else 0)
        assert [one["amount_paid"] for one in self.of_customer(shop, "invoice")] == ([4900] if is_saved else [])
        assert await self.states(shop) == (["applied"] if is_saved else [])
        assert await shop.plan() == ("pro" if is_saved else "free")


class Checkout(Path):
    asked: ClassVar[dict[str, Any]] = {"plan": "pro"}

    async def prepare(self, shop: Shop, name: str) -> None:
        shop.company_id = await new_company(shop.env, name)
        self.quote = await shop.preview(**self.asked)

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        company_id = shop.company_id
        ours = [one for one in shop.objects("customer") if one["metadata"].get("plangate_company") == company_id]
        pages = [one for one in shop.objects("checkout.session") if one["metadata"]["plangate_company"] == company_id]
        assert (len(ours), len(pages)) == ((1, 1) if is_saved else (0, 0))
        assert await self.states(shop) == (["awaiting_payment"] if is_saved else [])


class TakeBack(Path):
    asked: ClassVar[dict[str, Any]] = {"plan": "starter"}

    async def prepare(self, shop: Shop, name: str) -> None:
        await super().prepare(shop, name)
        await super().act(shop)

    async def act(self, shop: Shop) -> object:
        return await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        (schedule,) = self.of_customer(shop, "subscription_schedule")
        assert schedule["status"] == ("released" if is_saved else "active")
        assert await self.states(shop) == (["cancelled"] if is_saved else ["scheduled"])
        assert await shop.plan() == "pro"


class End(Path):
    asked: ClassVar[dict[str, Any]] = {"cancel": "period_end"}

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        (subscription,) = self.of_customer(shop, "subscription")
        assert subscription["cancel_at_period_end"] is is_saved
        assert await self.states(shop) == (["scheduled"] if is_saved else [])
        assert await shop.plan() == "pro"


class EndNow(Path):
    asked: ClassVar[dict[str, Any]] = {"cancel": "now"}

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        (subscription,) = self.of_customer(shop, "subscription")
        assert subscription["status"] == ("canceled" if is_saved else "active")
        assert len(self.of_customer(shop, "invoice")) == (2 if is_saved else 1)
        assert await self.states(shop) == (["applied"] if is_saved else [])
        assert self.quote is not None
        assert self.quote.credit is not None
        (balance,) = (one["balance"] for one in shop.objects("customer") if one["id"] == self.customer)
        assert balance == (-self.quote.credit.amount_minor if is_saved else 0)


class EndTrial(Path):
    """Staff end a trial at once, and the first invoice is paid."""

    async def prepare(self, shop: Shop, name: str) -> None:
        shop.company_id = await new_company(shop.env, name)
        self.customer = await shop.customer()
        price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
        shop.stripe.subscriptions.create(
            {"customer": self.customer, "items": [{"price": price}], "trial_period_days": 14}
        )
        await refetch(shop.env, shop.company_id)
        self.quote = await shop.preview(actor=STAFF, is_trial_over=True)

    async def act(self, shop: Shop) -> object:
        assert self.quote is not None
        return await shop.confirm(self.quote, actor=STAFF)

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        (subscription,) = self.of_customer(shop, "subscription")
        assert subscription["status"] == ("active" if is_saved else "trialing")
        paid = [one["amount_paid"] for one in self.of_customer(shop, "invoice") if one["amount_due"]]
        assert paid == ([4900] if is_saved else [])
        assert await self.states(shop) == (["applied"] if is_saved else [])
        assert await shop.plan() == "pro"


class UpgradeInstead(Path):
    """An upgrade takes the place of the downgrade that was scheduled."""

    asked: ClassVar[dict[str, Any]] = {"interval": "year"}

    async def prepare(self, shop: Shop, name: str) -> None:
        self.customer = await on_plan(shop, name, "pro")
        await shop.change(plan="starter")
        self.quote = await shop.preview(**self.asked)

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        (schedule,) = self.of_customer(shop, "subscription_schedule")
        assert schedule["status"] == ("released" if is_saved else "active")
        assert len(self.of_customer(shop, "invoice")) == (2 if is_saved else 1)
        assert await self.states(shop) == (["applied", "cancelled"] if is_saved else ["scheduled"])
        assert await shop.plan() == "pro"


def own_prices(shop: Shop) -> list[dict[str, Any]]:
    """The prices agreed on with the shop's company."""
    return [one for one in shop.objects("price") if one["metadata"].get("plangate_company") == shop.company_id]


class Deal(Path):
    """A plan at a price of the company's own, charged to the card on file."""

    async def prepare(self, shop: Shop, name: str) -> None:
        shop.company_id = await new_company(shop.env, name)
        self.customer = await shop.customer()
        self.quote = await shop.preview(actor=STAFF, plan="enterprise", custom_price=_DEAL)

    async def act(self, shop: Shop) -> object:
        assert self.quote is not None
        return await shop.confirm(self.quote, actor=STAFF)

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        assert len(own_prices(shop)) == (1 if is_saved else 0)
        assert [one["amount_paid"] for one in self.of_customer(shop, "invoice")] == ([120_000] if is_saved else [])
        assert await self.states(shop) == (["applied"] if is_saved else [])
        assert await shop.plan() == ("enterprise" if is_saved else "free")


class DealLater(Deal):
    """The same, invoiced, to start on a day ahead."""

    async def prepare(self, shop: Shop, name: str) -> None:
        shop.company_id = await new_company(shop.env, name)
        self.customer = await shop.customer()
        starts_at = (shop.now() + timedelta(days=20)).isoformat()
        deal = {**_DEAL, "collection_method": "send_invoice", "starts_at": starts_at}
        self.quote = await shop.preview(actor=STAFF, plan="enterprise", custom_price=deal)

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        schedules = self.of_customer(shop, "subscription_schedule")
        assert [one["status"] for one in schedules] == (["not_started"] if is_saved else [])
        assert len(own_prices(shop)) == (1 if is_saved else 0)
        assert await self.states(shop) == (["scheduled"] if is_saved else [])
        assert await shop.plan() == "free"


class Repriced(Path):
    """One subscriber of many follows a new version to its price."""

    async def prepare(self, shop: Shop, name: str) -> None:
        self.customer = await on_plan(shop, name, "pro")
        price = (await shop.env.catalog()).plans["pro"].prices[0]
        self.amount = price.amount_minor + 100
        dearer = {
            **SOLD["plans"]["pro"],
            "prices": [
                {"currency": "usd", "interval": "month", "amount_minor": self.amount},
                {"currency": "usd", "interval": "year", "amount_minor": 47_000},
            ],
        }
        document = {**SOLD, "plans": {**SOLD["plans"], "pro": dearer}}
        who = catalog.read_migrations(["none", f"pro={shop.company_id}"])
        await catalog.apply(
            shop.env, document, actor=Actor(kind="cli", id="tests"), migrate=who, proration="charge_now"
        )
        while await catalog.carry_on_migrations(shop.env):
            pass

    async def act(self, shop: Shop) -> object:
        return await plan_changes.carry_on_repricing(shop.env)

    async def check(self, shop: Shop, *, is_saved: bool) -> None:
        if not is_saved:
            # Nobody asked twice: the migration itself begins again.
            await restart(shop)
        (subscription,) = self.of_customer(shop, "subscription")
        assert [one["price"]["unit_amount"] for one in subscription["items"]["data"]] == [self.amount]
        assert len(self.of_customer(shop, "invoice")) <= 2
        assert await self.states(shop) == ["applied"]
        assert await shop.plan() == "pro"
        (migration, *_) = (await catalog.migrations(shop.env))[0]
        assert dict(migration.prices) == {"moved": 1}


# The paths that are longest to walk are walked in part by the suite, and whole by the proofs.
STEPS: Final[dict[Callable[[], Scenario], int]] = {
    End: 3,
    EndNow: 3,
    EndTrial: 3,
    UpgradeInstead: 5,
    Deal: 4,
    DealLater: 4,
    Repriced: 11,
}
PATHS: Final[tuple[Callable[[], Scenario], ...]] = (
    Downgrade,
    Upgrade,
    Subscribe,
    Checkout,
    TakeBack,
    End,
    EndNow,
    EndTrial,
    UpgradeInstead,
    Deal,
    DealLater,
    Repriced,
)
