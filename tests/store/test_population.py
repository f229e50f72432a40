"""The facts of many companies at once are those of each, so that a blast radius asks what a check would."""

from collections.abc import AsyncIterator

import pytest

from plangate import catalog, companies, overrides
from plangate.catalog.migrating import carry_on_migrations
from plangate.catalog_document import MigrationDocument
from plangate.environment import Environment
from plangate.store.companies import page_of_companies
from plangate.store.company_terms import withhold
from plangate.store.population import facts_of_companies
from plangate.store.snapshot import company_facts
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR, make_company, put_on


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox)
    yield opened
    await opened.close()


async def test_they_are_what_each_company_would_be_loaded_with(shop: Shop) -> None:
    env = shop.env
    await shop.subscribed()
    assert (await shop.change(interval="year")).state == "applied"
    globex = await make_company(env, "globex", size=5, region="eu")
    await put_on(env, globex.id, "pro")
    initech = await make_company(env, "initech")
    await overrides.grant(env, initech.id, feature="exports", mode="add", value=5, note="trial", actor=ACTOR)
    dearer = {
        **DOCUMENT,
        "plans": {**DOCUMENT["plans"], "pro": {**DOCUMENT["plans"]["pro"], "entitlements": {"sso": True}}},
    }
    await catalog.apply(env, dearer, actor=ACTOR, migrate={"": MigrationDocument(companies=["id=globex"])})
    while await carry_on_migrations(env):
        pass
    await companies.upsert(env, keys={"id": "initech"}, past_due_grace_days=21, actor=ACTOR)
    (held,) = (await shop.snapshot()).facts.subscriptions
    async with env.writing() as session:
        await withhold(session, shop.company_id, held.stripe_subscription_id, is_withheld=True)
    async with env.reading() as session:
        rows = await page_of_companies(session, search=None, after=None, limit=10)
        found = await facts_of_companies(session, rows)
        each = {row.id: await company_facts(session, row.id) for row in rows}
        as_the_past = {row.id: await company_facts(session, row.id, at=session.now) for row in rows}
    assert len(rows) == 3
    assert found == each == as_the_past
    assert found[globex.id].pins
    assert found[initech.id].overrides
    assert found[shop.company_id].subscriptions
    assert found[shop.company_id].last_mapped_plan is not None
    assert found[shop.company_id].withheld == {held.stripe_subscription_id}
    assert found[initech.id].past_due_grace_days == 21
