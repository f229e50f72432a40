"""What tests of checks, usage and overrides stand on: a catalogue with no prices, and a clock that stands still."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from plangate import catalog as catalogue
from plangate import companies
from plangate.clock import BusinessClock
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import PlanRef, PlanSource, SubscriptionFact, SubscriptionItem
from plangate.engine.values import Interval
from plangate.environment import Environment
from plangate.shapes import Actor, Company
from plangate.store.companies import assign
from plangate.store.database import StoreSession
from plangate.store.ledger import lock_companies
from plangate.store.snapshot import company_facts
from plangate.store.subscriptions import save_subscriptions
from plangate.usage_windows import rebind_windows

ACTOR = Actor(kind="api_key", id="key_test")
START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)

DOCUMENT: Mapping[str, Any] = {
    "version": 1,
    "initial_plan": "free",
    "fallback_plan": "free",
    "features": {
        "exports": {"name": "Exports", "type": "event", "event": "export"},
        "api-calls": {"name": "API calls", "type": "event"},
        "sso": {"name": "Single sign-on", "type": "boolean"},
        "seats": {"name": "Seats", "type": "seat", "trait": "seats"},
        "projects": {"name": "Projects", "type": "trait", "trait": "projects"},
        "max-upload": {"name": "Largest upload", "type": "config", "config_type": "number"},
        "theme": {"name": "Theme", "type": "config", "config_type": "string"},
        "layout": {"name": "Layout", "type": "config", "config_type": "json"},
    },
    "plans": {
        "free": {
            "name": "Free",
            "entitlements": {
                "exports": {"limit": 10, "period": "billing_month"},
                "api-calls": {"limit": 100, "period": "day"},
                "seats": 3,
                "projects": {"limit_trait": "projects_bought"},
                "max-upload": {"config": 5},
            },
        },
        "pro": {
            "name": "Pro",
            "entitlements": {
                "exports": {"limit": 1000, "period": "billing_month"},
                "api-calls": "unlimited",
                "seats": "unlimited",
                "sso": True,
            },
        },
    },
}


class StillClock(BusinessClock):
    """Business time that moves only when it is told to."""

    def __init__(self, at: datetime = START) -> None:
        super().__init__()
        self.at = at

    def now(self) -> datetime:
        """The instant it was set to, moved on by a microsecond, so that no two transactions share one."""
        self.at += timedelta(microseconds=1)
        return self.at

    def advance(self, **by: float) -> None:
        """Move on by days, hours, minutes or seconds."""
        self.at += timedelta(**by)


def still(environment: Environment, at: datetime = START) -> StillClock:
    """Give the environment a clock that stands still."""
    clock = StillClock(at)
    environment.clock = clock
    return clock


async def publish(environment: Environment, document: Mapping[str, Any] = DOCUMENT) -> None:
    """Apply a catalogue."""
    await catalogue.apply(environment, document, actor=ACTOR)


async def make_company(environment: Environment, key: str = "acme", **traits: object) -> Company:
    """A company known by `id`, on the catalogue's initial plan."""
    company, _ = await companies.upsert(environment, keys={"id": key}, name=key.title(), traits=traits, actor=ACTOR)
    return company


async def put_on(environment: Environment, company_id: str, plan: str) -> None:
    """Assign a plan, as an operator would; running windows end where the new anchor's period does."""
    async with standing_moves(environment, company_id) as session:
        await assign(session, company_id, key=plan, source=PlanSource.ASSIGNMENT)


async def fetched(environment: Environment, company_id: str, fact: SubscriptionFact, *, state: str) -> None:
    """Store what a fetch from Stripe found of a subscription to `pro`; another `state` is another thing found."""
    async with standing_moves(environment, company_id) as session:
        await save_subscriptions(session, company_id, [(fact, state)], mapped_plan=PlanRef("pro", 1))


async def price_of(environment: Environment, key: str) -> str:
    """The Stripe price that sells a plan or add-on."""
    owners = (await environment.catalog()).price_owners
    return next(price_id for price_id, owner in owners.items() if owner.key == key)


def monthly_item(
    stripe_price_id: str, start: datetime, end: datetime, *, quantity: int = 1, stripe_item_id: str = "si_1"
) -> SubscriptionItem:
    """One item of a subscription that is paid each month, in the period `[start, end)`."""
    return SubscriptionItem(
        stripe_item_id=stripe_item_id,
        stripe_price_id=stripe_price_id,
        stripe_product_id="prod_1",
        quantity=quantity,
        is_metered=False,
        currency="usd",
        interval=Interval.MONTH,
        interval_count=1,
        unit_amount_minor=1_900,
        period_start_at=start,
        period_end_at=end,
    )


def subscription_of(*items: SubscriptionItem, anchor_at: datetime, status: str = "active") -> SubscriptionFact:
    """A subscription that began at its anchor."""
    return SubscriptionFact(
        stripe_subscription_id="sub_1",
        stripe_customer_id="cus_1",
        status=status,
        items=items,
        currency="usd",
        anchor_at=anchor_at,
        started_at=anchor_at,
    )


@asynccontextmanager
async def standing_moves(environment: Environment, company_id: str) -> AsyncIterator[StoreSession]:
    """A transaction that moves what a company is on; its running windows follow."""
    catalog = await environment.catalog()
    async with environment.writing() as session:
        await lock_companies(session, [company_id])
        before = await company_facts(session, company_id)
        yield session
        after = await company_facts(session, company_id)
        assert before is not None
        assert after is not None
        await rebind_windows(
            environment,
            session,
            build_snapshot(catalog, before, session.now),
            build_snapshot(catalog, after, session.now),
        )
        await environment.touch(session, company_id)
