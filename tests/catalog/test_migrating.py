"""Who gets a new version: everybody at once, nobody, or some in the background; nobody else moves."""

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plangate import access, catalog, companies
from plangate.catalog import migrating
from plangate.catalog.migrating import carry_on_migrations, read_migrations
from plangate.catalog_document import MigrationDocument
from plangate.engine.facts import PlanSource
from plangate.engine.values import Stacking
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.store.companies import assign
from plangate.store.version_migrations import VersionMigrationRow, migration_row
from plangate.usage_windows import rebind_windows
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT as SOLD
from tests.shop import STAFF, Shop
from tests.world import ACTOR, DOCUMENT, make_company, publish, put_on, still


def exports(limit: int, *, plan: str = "pro", **settings: object) -> dict[str, Any]:
    """The test catalogue with another limit of exports on one plan."""
    document: dict[str, Any] = copy.deepcopy(dict(DOCUMENT))
    document["plans"][plan]["entitlements"]["exports"]["limit"] = limit
    return {**document, **({"settings": settings} if settings else {})}


async def limit_of(environment: Environment, key: str) -> int | None:
    """What a company may export each month."""
    return (await access.check(environment, company={"id": key}, feature="exports")).limit


async def version_of(environment: Environment, company_id: str) -> tuple[str, int] | None:
    """The plan and version that a company is on."""
    standing = await environment.standings.of(company_id)
    assert standing is not None
    plan = standing.snapshot_at(environment.clock.now()).plan
    return None if plan is None else (plan.key, plan.version)


async def finish(environment: Environment) -> None:
    """Let the worker go on until there is nothing to do."""
    while await carry_on_migrations(environment):
        pass


async def test_everybody_gets_a_new_version_at_once_unless_told_otherwise(environment: Environment) -> None:
    await publish(environment)
    acme = await make_company(environment)
    await put_on(environment, acme.id, "pro")
    await publish(environment, exports(2_000))
    assert await version_of(environment, acme.id) == ("pro", 2)
    assert await limit_of(environment, "acme") == 2_000
    ((one,), _) = await catalog.migrations(environment)
    assert (one.key, one.version, one.mode, one.state) == ("pro", 2, "all", "finished")


async def test_nobody_moves_when_none_migrate_and_later_all_do(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    acme = await make_company(environment)
    await put_on(environment, acme.id, "pro")
    clock.advance(days=1)
    await catalog.apply(environment, exports(2_000), actor=ACTOR, migrate={"": "none"})
    globex = await make_company(environment, "globex")
    await put_on(environment, globex.id, "pro")
    assert await version_of(environment, acme.id) == ("pro", 1)
    assert await version_of(environment, globex.id) == ("pro", 2)
    assert (await limit_of(environment, "acme"), await limit_of(environment, "globex")) == (1_000, 2_000)

    clock.advance(days=1)
    await catalog.apply(environment, exports(3_000), actor=ACTOR, migrate={"pro": "none"})
    assert (await limit_of(environment, "acme"), await limit_of(environment, "globex")) == (1_000, 2_000)
    clock.advance(days=1)
    between = clock.now()
    clock.advance(days=1)
    await catalog.apply(environment, exports(4_000), actor=ACTOR, migrate={"plan:pro": "all"})
    assert (await limit_of(environment, "acme"), await limit_of(environment, "globex")) == (4_000, 4_000)
    # What was so then stays so.
    then = await access.check(environment, company={"id": "acme"}, feature="exports", at=between)
    assert (then.limit, then.source and then.source.version) == (1_000, 1)


async def test_taking_a_plan_again_takes_the_newest_version(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment, exports(1_000, migrate="none"))
    acme = await make_company(environment)
    await put_on(environment, acme.id, "pro")
    clock.advance(days=1)
    await publish(environment, exports(2_000, migrate="none"))
    assert await version_of(environment, acme.id) == ("pro", 1)
    await put_on(environment, acme.id, "free")
    await put_on(environment, acme.id, "pro")
    assert await version_of(environment, acme.id) == ("pro", 2)


async def test_an_initial_plan_keeps_the_version_it_began_with(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    acme = await make_company(environment)
    clock.advance(days=1)
    await catalog.apply(environment, exports(5, plan="free"), actor=ACTOR, migrate={"": "none"})
    globex = await make_company(environment, "globex")
    assert await version_of(environment, acme.id) == ("free", 1)
    assert await version_of(environment, globex.id) == ("free", 2)


async def test_some_move_in_the_background_and_the_others_stay(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    held = {}
    for name, size in (("acme", 5), ("globex", 500), ("initech", 700), ("hooli", 5)):
        held[name] = (await make_company(environment, name, size=size)).id
        await put_on(environment, held[name], "pro")
    lonely = await make_company(environment, "lonely", size=900)
    clock.advance(days=1)
    before = clock.now()
    document = exports(2_000)
    big = {"kind": "trait", "trait": "size", "operator": "gte", "value": 100}
    document["plans"]["pro"]["migrate"] = {"companies": ["id=acme"], "groups": [[big]]}

    planned = await catalog.plan(environment, document)
    assert planned.impact is not None
    assert [one.migrate for one in planned.changes] == ["some"]
    assert planned.impact.affected == 3

    applied = await catalog.apply(environment, document, actor=ACTOR)
    assert applied.is_applied
    ((one,), _) = await catalog.migrations(environment)
    assert (one.mode, one.state) == ("some", "running")
    assert {await version_of(environment, company_id) for company_id in held.values()} == {("pro", 1)}
    await finish(environment)
    moved = {name: (await version_of(environment, company_id)) for name, company_id in held.items()}
    assert moved == {"acme": ("pro", 2), "globex": ("pro", 2), "initech": ("pro", 2), "hooli": ("pro", 1)}
    assert await version_of(environment, lonely.id) == ("free", 1)
    one = await catalog.migration(environment, one.id)
    assert (one.state, one.counts.done, one.counts.pending, one.counts.failed) == ("finished", 3, 0, 0)
    listed, cursor = await catalog.migrating_companies(environment, one.id, limit=2)
    more, end = await catalog.migrating_companies(environment, one.id, after=cursor, limit=2)
    assert sorted(row.company for row in (*listed, *more)) == sorted(held[name] for name in moved if name != "hooli")
    assert end is None
    then = await access.check(environment, company={"id": "acme"}, feature="exports", at=before)
    assert then.limit == 1_000

    # Who was moved stays there when the next version leaves everybody where they are.
    clock.advance(days=1)
    await catalog.apply(environment, exports(3_000), actor=ACTOR, migrate={"": "none"})
    assert await version_of(environment, held["acme"]) == ("pro", 2)
    assert await version_of(environment, held["hooli"]) == ("pro", 1)


async def test_what_goes_wrong_with_one_company_is_tried_again_and_shown(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(environment)
    acme, globex = await make_company(environment), await make_company(environment, "globex")
    for company in (acme, globex):
        await put_on(environment, company.id, "pro")
    named = {"pro": MigrationDocument(companies=["id=acme", globex.id, "id=nobody"])}
    await catalog.apply(environment, exports(2_000), actor=ACTOR, migrate=named)

    async def broken(env: Environment, session: Any, before: Any, after: Any) -> None:  # noqa: ANN401 - passed on
        if after.company_id == acme.id:
            raise RuntimeError("the disk is full")
        await rebind_windows(env, session, before, after)

    monkeypatch.setattr("plangate.catalog.migrating.rebind_windows", broken)
    monkeypatch.setattr(migrating, "_ATTEMPTS_MAX", 1)
    await finish(environment)
    ((one,), _) = await catalog.migrations(environment)
    assert (one.state, one.counts.done, one.counts.failed) == ("finished", 1, 1)
    (failed,), _ = await catalog.migrating_companies(environment, one.id, state="failed")
    assert (failed.company, failed.detail) == (acme.id, "RuntimeError: the disk is full")
    # Nothing of the step that failed is kept.
    assert await version_of(environment, acme.id) == ("pro", 1)
    assert await version_of(environment, globex.id) == ("pro", 2)

    monkeypatch.undo()
    again = await catalog.retry_migration(environment, one.id, actor=ACTOR)
    assert (again.state, again.counts.pending) == ("running", 1)
    await finish(environment)
    again = await catalog.migration(environment, one.id)
    assert (again.state, again.counts.done, again.counts.failed) == ("finished", 2, 0)
    assert await version_of(environment, acme.id) == ("pro", 2)


async def test_who_left_the_plan_meanwhile_is_not_moved(environment: Environment) -> None:
    await publish(environment)
    acme = await make_company(environment)
    await put_on(environment, acme.id, "pro")
    named = {"pro": MigrationDocument(companies=["id=acme"])}
    await catalog.apply(environment, exports(2_000), actor=ACTOR, migrate=named)
    ((one,), _) = await catalog.migrations(environment)
    await migrating._list_more(environment, await _row(environment, one.id))  # noqa: SLF001 - between its two steps
    await put_on(environment, acme.id, "free")
    await finish(environment)
    one = await catalog.migration(environment, one.id)
    assert (one.state, one.counts.not_held, one.counts.done) == ("finished", 1, 0)


async def _row(environment: Environment, migration_id: str) -> VersionMigrationRow:
    async with environment.reading() as session:
        row = await migration_row(session, migration_id)
    assert row is not None
    return row


async def test_add_ons_are_versioned_the_same_way(environment: Environment) -> None:
    clock = still(environment)
    document: dict[str, Any] = copy.deepcopy(dict(DOCUMENT))
    document["add_ons"] = {
        "more": {"name": "More", "archived": True, "entitlements": {"exports": {"limit": 5, "stacking": "sum"}}}
    }
    await publish(environment, document)
    acme = await make_company(environment)
    async with environment.writing() as session:
        await assign(session, acme.id, key="more", source=PlanSource.ASSIGNMENT, kind="add_on", quantity=2)
        await environment.touch(session, acme.id)
    assert await limit_of(environment, "acme") == 20
    clock.advance(days=1)
    document["add_ons"]["more"]["entitlements"]["exports"]["limit"] = 50
    await catalog.apply(environment, document, actor=ACTOR, migrate={"more": "none"})
    assert await limit_of(environment, "acme") == 20
    loaded = await environment.catalog()
    assert loaded.add_ons["more"].version == 2
    assert loaded.add_ons["more"].entitlements[0].stacking is Stacking.SUM
    await catalog.apply(
        environment,
        {
            **document,
            "add_ons": {
                "more": {**document["add_ons"]["more"], "entitlements": {"exports": {"limit": 7, "stacking": "sum"}}}
            },
        },
        actor=ACTOR,
        migrate={"add_on:more": "all"},
    )
    assert await version_of(environment, acme.id) == ("free", 1)
    assert (await environment.catalog()).add_ons["more"].version == 3
    assert await limit_of(environment, "acme") == 24


def test_who_migrates_is_said_in_words() -> None:
    assert read_migrations(["none"]) == {"": "none"}
    assert read_migrations(["none", "pro=all", "add_on:more=id=acme, id=globex"]) == {
        "": "none",
        "pro": "all",
        "add_on:more": MigrationDocument(companies=["id=acme", "id=globex"]),
    }
    for said in (["some"], [""], ["pro="], ["=all"], ["pro=all", "pro=none"], ["pro=" + "x" * 501]):
        with pytest.raises(Refusal) as caught:
            read_migrations(said)
        assert caught.value.code is Code.INVALID


async def test_nothing_unknown_migrates(environment: Environment) -> None:
    await publish(environment)
    with pytest.raises(Refusal) as caught:
        await catalog.plan(environment, exports(5), migrate={"gold": "none"})
    assert [error.pointer for error in caught.value.errors] == ["/migrate"]


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox)
    yield opened
    await opened.close()


def sold(limit: int, amount_minor: int) -> dict[str, Any]:
    """What the shop sells, with another monthly Pro."""
    document = copy.deepcopy(SOLD)
    document["plans"]["pro"]["entitlements"]["exports"]["limit"] = limit
    document["plans"]["pro"]["prices"][0]["amount_minor"] = amount_minor
    return document


@pytest.mark.parametrize("amount_minor", [4900, 5900])
async def test_a_subscriber_keeps_the_version_through_quantities_and_renewals_but_not_another_interval(
    shop: Shop, amount_minor: int
) -> None:
    stripe_subscription_id = await shop.subscribed()
    (item,) = shop.stripe.subscriptions.retrieve(stripe_subscription_id)["items"]["data"]
    shop.advance("P1D")
    await catalog.apply(shop.env, sold(2_000, amount_minor), actor=ACTOR, migrate={"": "none"})
    assert await version_of(shop.env, shop.company_id) == ("pro", 1)

    assert (await shop.change(quantities={"pro": 3})).state == "applied"
    assert await version_of(shop.env, shop.company_id) == ("pro", 1)
    (after,) = shop.stripe.subscriptions.retrieve(stripe_subscription_id)["items"]["data"]
    assert (after["price"]["id"], after["quantity"]) == (item["price"]["id"], 3)
    shop.advance("P1M")
    await shop.sync()
    assert await version_of(shop.env, shop.company_id) == ("pro", 1)

    assert (await shop.change(interval="year")).state == "applied"
    assert await version_of(shop.env, shop.company_id) == ("pro", 2)


async def test_an_old_price_leaves_the_shelf_with_its_last_subscriber(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    (item,) = shop.stripe.subscriptions.retrieve(stripe_subscription_id)["items"]["data"]
    await catalog.apply(shop.env, sold(1_000, 5900), actor=ACTOR)
    assert await catalog.tidy_shelf(shop.env) == 0
    assert shop.stripe.prices.retrieve(item["price"]["id"]).active
    assert (await shop.change(cancel="now", actor=STAFF)).state == "applied"
    assert await catalog.tidy_shelf(shop.env) == 1
    assert not shop.stripe.prices.retrieve(item["price"]["id"]).active
    assert await catalog.tidy_shelf(shop.env) == 0


async def test_a_scheduled_downgrade_leads_to_the_version_it_was_promised(shop: Shop) -> None:
    await shop.subscribed()
    assert (await shop.change(plan="starter")).state == "scheduled"
    shop.advance("P1D")
    document = copy.deepcopy(SOLD)
    document["plans"]["starter"]["entitlements"]["exports"]["limit"] = 50
    await catalog.apply(shop.env, document, actor=ACTOR, migrate={"": "none"})
    shop.advance("P1D")
    await shop.sync()
    assert await version_of(shop.env, shop.company_id) == ("pro", 1)
    shop.advance("P1M")
    await shop.sync()
    assert await version_of(shop.env, shop.company_id) == ("starter", 1)


async def test_a_new_subscriber_gets_the_newest_version_at_the_price_that_did_not_change(shop: Shop) -> None:
    await catalog.apply(shop.env, sold(2_000, 4900), actor=ACTOR, migrate={"": "none"})
    shop.advance("P1D")
    await shop.subscribed()
    assert await version_of(shop.env, shop.company_id) == ("pro", 2)


async def test_audiences_put_companies_on_plans_without_anything_stored(environment: Environment) -> None:
    document = {
        **DOCUMENT,
        "audiences": {
            "large": {
                "plan": "pro",
                "groups": [
                    [{"kind": "trait", "trait": "size", "operator": "gte", "value": 100, "value_type": "number"}]
                ],
            }
        },
    }
    await publish(environment, document)
    acme = await make_company(environment, size=5)
    assert await version_of(environment, acme.id) == ("free", 1)
    await companies.upsert(environment, keys={"id": "acme"}, traits={"size": 200}, actor=ACTOR)
    assert await version_of(environment, acme.id) == ("pro", 1)
    removed = await catalog.plan(environment, DOCUMENT)
    assert [(one.kind, one.key, one.action) for one in removed.changes] == [("audience", "large", "removed")]
    assert removed.impact is not None
    assert removed.impact.affected == 1


def to_pro(limit: int) -> dict[str, Any]:
    """Pro with so many exports, and large companies on it by audience."""
    large = [[{"kind": "trait", "trait": "size", "operator": "gte", "value": 100}]]
    return {**exports(limit), "audiences": {"large": {"plan": "pro", "groups": large}}}


async def test_who_is_on_a_plan_by_audience_keeps_its_version_too(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment, to_pro(1_000))
    acme = await make_company(environment, "acme", size=500)
    globex = await make_company(environment, "globex", size=5)
    clock.advance(days=1)
    for limit in (2_000, 3_000):
        planned = await catalog.plan(environment, to_pro(limit), migrate={"": "none"})
        assert planned.impact is not None
        assert planned.impact.affected == 0, limit
        await catalog.apply(environment, to_pro(limit), actor=ACTOR, migrate={"": "none"})
        clock.advance(days=1)
        # Whoever comes later takes the newest.
        await companies.upsert(environment, keys={"id": "globex"}, traits={"size": 200}, actor=ACTOR)
        assert await version_of(environment, acme.id) == ("pro", 1)
        assert await version_of(environment, globex.id) == ("pro", 2)
    assert (await limit_of(environment, "acme"), await limit_of(environment, "globex")) == (1_000, 2_000)
    some = MigrationDocument(companies=["id=acme"])
    await catalog.apply(environment, to_pro(4_000), actor=ACTOR, migrate={"": some})
    await finish(environment)
    assert await version_of(environment, acme.id) == ("pro", 4)
    assert await version_of(environment, globex.id) == ("pro", 2)
    clock.advance(days=1)
    await catalog.apply(environment, to_pro(5_000), actor=ACTOR, migrate={"": "all"})
    assert await version_of(environment, globex.id) == ("pro", 5)
    decision = await access.check(environment, company={"id": "globex"}, feature="exports")
    assert (decision.limit, decision.source and decision.source.version) == (5_000, 5)
    # Who no longer fits the audience is not on its plan, whatever was written down.
    await companies.upsert(environment, keys={"id": "acme"}, traits={"size": 5}, actor=ACTOR)
    assert await version_of(environment, acme.id) == ("free", 1)
