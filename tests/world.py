"""What tests of checks, usage and overrides stand on: a catalogue with no prices, and a clock that stands still."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from plangate import catalog, companies
from plangate.clock import BusinessClock
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import PlanSource
from plangate.environment import Environment
from plangate.shapes import Actor, Company
from plangate.store.companies import assign
from plangate.store.ledger import lock_companies
from plangate.store.snapshot import company_facts
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
    await catalog.apply(environment, document, actor=ACTOR)


async def make_company(environment: Environment, key: str = "acme", **traits: object) -> Company:
    """A company known by `id`, on the catalogue's initial plan."""
    company, _ = await companies.upsert(environment, keys={"id": key}, name=key.title(), traits=traits, actor=ACTOR)
    return company


async def put_on(environment: Environment, company_id: str, plan: str) -> None:
    """Assign a plan, as an operator would; running windows end where the new anchor's period does."""
    loaded = await environment.catalog()
    async with environment.writing() as session:
        await lock_companies(session, [company_id])
        before = await company_facts(session, company_id)
        await assign(session, company_id, key=plan, source=PlanSource.ASSIGNMENT)
        after = await company_facts(session, company_id)
        assert before is not None
        assert after is not None
        await rebind_windows(
            environment,
            session,
            build_snapshot(loaded, before, session.now),
            build_snapshot(loaded, after, session.now),
        )
        await environment.touch(session, company_id)
