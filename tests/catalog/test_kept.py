"""Those who were left on an older version get the newest later, all or some, and nothing is published for it."""

import copy
from collections.abc import Awaitable
from typing import Any

import pytest

from plangate import catalog, plan_changes
from plangate.catalog_document import MigrationDocument
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from tests.catalog.test_migrating import exports, finish, limit_of, version_of
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT as SOLD
from tests.shop import Shop
from tests.world import ACTOR, make_company, publish, put_on, still


async def left_behind(environment: Environment) -> dict[str, str]:
    """Acme and Globex hold Pro 1, while Pro 2 is sold; their ids."""
    clock = still(environment)
    await publish(environment)
    held = {name: (await make_company(environment, name)).id for name in ("acme", "globex")}
    for company_id in held.values():
        await put_on(environment, company_id, "pro")
    clock.advance(days=1)
    await catalog.apply(environment, exports(2_000), actor=ACTOR, migrate={"": "none"})
    clock.advance(days=1)
    assert await limit_of(environment, "acme") == 1_000
    return held


async def test_all_of_them_get_it_at_once(environment: Environment) -> None:
    held = await left_behind(environment)
    before = await catalog.current_revision(environment)
    planned = await catalog.plan_migration(environment, "pro", "all")
    assert (planned.kind, planned.key, planned.version, planned.migration) == ("plan", "pro", 2, None)
    assert planned.impact is not None
    assert planned.impact.affected == 2
    assert await catalog.current_revision(environment) == before
    done = await catalog.migrate_kept(environment, "plan:pro", "all", actor=ACTOR)
    assert done.migration is not None
    assert (done.migration.mode, done.migration.state) == ("all", "finished")
    assert {await version_of(environment, one) for one in held.values()} == {("pro", 2)}
    assert await limit_of(environment, "acme") == 2_000
    revision, document = await catalog.current_revision(environment)
    assert (revision, document) == (before[0] + 1, before[1])
    assert (await refused(catalog.migrate_kept(environment, "pro", "all", actor=ACTOR))).code is Code.NOT_FOUND
    # The next publication that leaves everybody behind counts from here.
    await catalog.apply(environment, exports(3_000), actor=ACTOR, migrate={"": "none"})
    assert {await version_of(environment, one) for one in held.values()} == {("pro", 2)}


async def test_some_of_them_get_it_in_the_background(environment: Environment) -> None:
    held = await left_behind(environment)
    some = MigrationDocument(companies=["id=acme", "id=nobody"])
    planned = await catalog.plan_migration(environment, "pro", some)
    assert planned.impact is not None
    assert planned.impact.affected == 1
    begun = await catalog.migrate_kept(environment, "pro", some, actor=ACTOR)
    assert begun.migration is not None
    assert begun.migration.state == "running"
    await finish(environment)
    assert await version_of(environment, held["acme"]) == ("pro", 2)
    assert await version_of(environment, held["globex"]) == ("pro", 1)
    assert (await catalog.migration(environment, begun.migration.id)).counts.done == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_prices_move_along_where_that_is_said(connected_environment: Environment, sandbox: SandboxServer) -> None:
    shop = await Shop.open(connected_environment, sandbox)
    await shop.subscribed()
    old = shop.objects("subscription")[0]["items"]["data"][0]["price"]["id"]
    dearer: dict[str, Any] = copy.deepcopy(SOLD)
    dearer["plans"]["pro"]["prices"][0]["amount_minor"] = 5900
    await catalog.apply(shop.env, dearer, actor=ACTOR, migrate={"": "none"})
    done = await catalog.migrate_kept(shop.env, "pro", "all", actor=ACTOR, proration="none")
    assert done.migration is not None
    assert done.migration.state == "running"
    while await catalog.carry_on_migrations(shop.env) + await plan_changes.carry_on_repricing(shop.env):
        pass
    now = shop.objects("subscription")[0]["items"]["data"][0]["price"]
    assert (now["id"] != old, now["unit_amount"]) == (True, 5900)
    assert (await catalog.migration(shop.env, done.migration.id)).state == "finished"
    await shop.close()


async def test_what_makes_no_sense_is_refused(environment: Environment) -> None:
    await publish(environment)
    nobody = catalog.migrate_kept(environment, "pro", "all", actor=ACTOR)
    assert (await refused(nobody)).code is Code.NOT_FOUND
    await left_behind(environment)
    empty = catalog.plan_migration(environment, "pro", MigrationDocument())
    assert [error.pointer for error in (await refused(empty)).errors] == ["/migrate"]


async def refused(work: Awaitable[object]) -> Refusal:
    """What it is refused with."""
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value
