"""Planning and applying, against the sandbox and both databases: what is published, made in Stripe, and for whom."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from plangate import access, catalog, companies, metering
from plangate.billing.gateway import StripeGateway
from plangate.catalog_document import CatalogDocument
from plangate.catalog_file import catalog_text, parse_catalog, read_catalog
from plangate.engine.facts import PlanSource
from plangate.engine.values import UNLIMITED
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.ids import new_id
from plangate.shapes import Actor
from plangate.store.catalog import all_plan_versions, all_stripe_prices
from plangate.store.companies import CompanyRow, assign
from plangate.store.usage import UsageWindowRow
from tests.sandbox_server import SandboxServer

ACTOR = Actor(kind="cli", id="tests")
DEMO = Path(__file__).parents[2] / "fixtures" / "catalogs" / "demo.yaml"

SMALL: dict[str, Any] = {
    "version": 1,
    "initial_plan": "free",
    "features": {
        "exports": {"name": "Exports", "type": "event", "unit": "export", "units": "exports"},
        "sso": {"name": "Single sign-on", "type": "boolean"},
    },
    "plans": {
        "free": {"name": "Free", "entitlements": {"exports": 10, "sso": True}},
        "pro": {
            "name": "Pro",
            "entitlements": {"exports": 1000, "sso": True},
            "prices": [{"currency": "usd", "interval": "month", "amount_minor": 4900}],
        },
    },
}


def edited(document: Mapping[str, Any], **paths: object) -> CatalogDocument:
    """The document with some values replaced; `plans__pro__name="Pro+"` names a path, None removes it."""
    plain = parse_catalog(document).model_dump(mode="json", exclude_defaults=True)
    for path, value in paths.items():
        *parents, last = path.split("__")
        part = plain
        for name in parents:
            part = part[name]
        if value is None:
            part.pop(last)
        else:
            part[last] = value
    return parse_catalog({"version": 1, **plain})


def stripe_prices(sandbox: SandboxServer) -> dict[str, bool]:
    """Every price in Stripe: its lookup key, and whether it is on sale."""
    listed = sandbox.control("GET", "/_sandbox/state")["objects"]["price"]
    return {price["lookup_key"]: price["active"] for price in listed}


async def a_company(environment: Environment, name: str, *, plan: str | None = None) -> str:
    """A stored company, on the initial plan or on one that was assigned."""
    company_id = new_id("comp")
    async with environment.writing() as session:
        await session.add(
            CompanyRow(
                id=company_id,
                environment_id=environment.id,
                name=name,
                created_at=session.now,
                updated_at=session.now,
            )
        )
        if plan is not None:
            await assign(session, company_id, key=plan, source=PlanSource.ASSIGNMENT)
    return company_id


async def test_the_demo_catalogue_is_applied_here_and_in_stripe(
    connected_environment: Environment, sandbox: SandboxServer
) -> None:
    document = read_catalog(DEMO.read_text("utf-8"))
    planned = await catalog.plan(connected_environment, document)
    applied = await catalog.apply(connected_environment, document, actor=ACTOR)
    assert (planned.revision, applied.revision, applied.is_applied) == (0, 1, True)
    assert planned.changes == applied.changes
    compiled = await connected_environment.catalog()
    assert compiled.revision == 1
    assert [compiled.plans[key].position for key in ("free", "starter", "pro", "enterprise")] == [0, 1, 2, 3]
    assert compiled.plans["free"].stripe_product_id is None
    assert compiled.plans["pro"].stripe_product_id == "plangate_plan_pro"
    sold = [price for plan in (*compiled.plans.values(), *compiled.add_ons.values()) for price in plan.prices]
    assert len(sold) == 16
    for price in sold:
        assert price.stripe_price_id is not None
        assert compiled.price_owners[price.stripe_price_id].price == price
    assert set((stripe_prices(sandbox)).values()) == {True}
    assert catalog_text(await catalog.current_document(connected_environment)) == DEMO.read_text("utf-8")


async def test_applying_again_changes_nothing(connected_environment: Environment, sandbox: SandboxServer) -> None:
    await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    asked = len(sandbox.control("GET", "/_sandbox/requests")["data"])
    again = await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    assert (again.revision, again.is_applied, again.is_empty) == (1, False, True)
    assert (await catalog.plan(connected_environment, SMALL)).is_empty
    assert len(sandbox.control("GET", "/_sandbox/requests")["data"]) == asked


async def test_a_changed_price_is_a_new_one_and_the_old_leaves_the_shelf(
    connected_environment: Environment, sandbox: SandboxServer
) -> None:
    await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    first = (await connected_environment.catalog()).plans["pro"].prices[0].stripe_price_id
    dearer = edited(SMALL, plans__pro__prices=[{"currency": "usd", "interval": "month", "amount_minor": 5900}])
    diff = await catalog.apply(connected_environment, dearer, actor=ACTOR)
    (change,) = diff.changes
    assert (change.kind, change.key, change.action, change.version) == ("plan", "pro", "changed", 2)
    assert [(one.field, one.before, one.after) for one in change.details] == [("prices.usd/month", 4900, 5900)]
    compiled = await connected_environment.catalog()
    second = compiled.plans["pro"].prices[0].stripe_price_id
    assert first is not None
    assert second is not None
    assert first != second
    assert stripe_prices(sandbox) == {
        "plangate_plan_pro_usd_1_month_4900": False,
        "plangate_plan_pro_usd_1_month_5900": True,
    }
    # Who bought at the old price holds the new version, and keeps the old price.
    assert compiled.price_owners[first].version == compiled.price_owners[second].version == 2
    assert compiled.price_owners[first].price.amount_minor == 4900
    assert compiled.older_versions["plan/pro@1"].prices[0].stripe_price_id == first

    back = await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    assert back.changes[0].version == 3
    assert (await connected_environment.catalog()).plans["pro"].prices[0].stripe_price_id == first
    assert stripe_prices(sandbox) == {
        "plangate_plan_pro_usd_1_month_4900": True,
        "plangate_plan_pro_usd_1_month_5900": False,
    }


async def test_how_a_plan_is_shown_changes_without_a_version(connected_environment: Environment) -> None:
    await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    shown = edited(SMALL, plans__pro__name="Professional", plans__pro__recommended=True)
    diff = await catalog.apply(connected_environment, shown, actor=ACTOR)
    assert [(change.key, change.version) for change in diff.changes] == [("pro", None)]
    plan = (await connected_environment.catalog()).plans["pro"]
    assert (plan.name, plan.is_recommended, plan.version) == ("Professional", True, 1)
    product = await connected_environment.gateway.catalog.fetch_product("plangate_plan_pro")
    assert product is not None
    assert product["name"] == "Professional"


async def test_what_the_file_leaves_out_is_archived_and_comes_back(
    connected_environment: Environment, sandbox: SandboxServer
) -> None:
    await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    without = edited(SMALL, plans__pro=None, features__sso=None, plans__free__entitlements={"exports": 10})
    diff = await catalog.apply(connected_environment, without, actor=ACTOR)
    assert {(change.key, change.action) for change in diff.changes} == {
        ("sso", "archived"),
        ("pro", "archived"),
        ("free", "changed"),
    }
    compiled = await connected_environment.catalog()
    assert compiled.plans["pro"].is_archived
    assert compiled.features["sso"].is_archived
    assert [plan.key for plan in await catalog.public_plans(connected_environment)] == ["free"]
    assert set((stripe_prices(sandbox)).values()) == {False}
    assert (await catalog.plan(connected_environment, without)).is_empty
    pulled = await catalog.current_document(connected_environment)
    assert (await catalog.plan(connected_environment, pulled)).is_empty

    restored = await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    assert ("pro", "restored") in {(change.key, change.action) for change in restored.changes}
    assert set((stripe_prices(sandbox)).values()) == {True}
    assert (await connected_environment.catalog()).plans["pro"].version == 1


async def test_what_stays_as_archived_is_counted_before_it_is_too_much(environment: Environment) -> None:
    def many(prefix: str, number: int) -> dict[str, Any]:
        plans = {f"{prefix}{index}": {"name": "A plan"} for index in range(number)}
        return {"version": 1, "features": {}, "plans": plans}

    await catalog.apply(environment, many("old", 150), actor=ACTOR)
    for refused in (
        catalog.plan(environment, many("new", 51)),
        catalog.apply(environment, many("new", 51), actor=ACTOR),
    ):
        with pytest.raises(Refusal) as caught:
            await refused
        assert [error.pointer for error in caught.value.errors] == ["/plans"]
        assert "would be 201 with those published before" in caught.value.detail
    await catalog.apply(environment, many("new", 50), actor=ACTOR)
    assert len((await catalog.current_document(environment)).plans) == 200


async def test_a_feature_keeps_its_type(environment: Environment) -> None:
    free = edited(SMALL, plans__pro=None)
    await catalog.apply(environment, free, actor=ACTOR)
    changed = {
        "version": 1,
        "features": {"exports": {"name": "Exports", "type": "boolean"}},
        "plans": {},
    }
    with pytest.raises(Refusal) as caught:
        await catalog.plan(environment, changed)
    assert [error.pointer for error in caught.value.errors] == ["/features/exports/type"]


async def test_a_feature_keeps_its_event(environment: Environment) -> None:
    free = edited(SMALL, plans__pro=None)
    await catalog.apply(environment, free, actor=ACTOR)
    with pytest.raises(Refusal) as caught:
        await catalog.plan(environment, edited(SMALL, plans__pro=None, features__exports__event="export"))
    assert [error.pointer for error in caught.value.errors] == ["/features/exports/event"]
    spelled = edited(SMALL, plans__pro=None, features__exports__event="exports")
    assert not (await catalog.plan(environment, spelled)).is_empty


async def test_a_new_period_counts_what_was_used_already(environment: Environment) -> None:
    free = edited(SMALL, plans__pro=None)
    await catalog.apply(environment, free, actor=ACTOR)
    company, _ = await companies.upsert(environment, keys={"id": "acme"}, actor=ACTOR)
    event = metering.TrackEvent(event="exports", company={"id": "acme"}, quantity=7, idempotency_key="once")
    await metering.record(environment, [event])
    daily = edited(SMALL, plans__pro=None, plans__free__entitlements={"exports": {"limit": 10, "period": "day"}})
    await catalog.apply(environment, daily, actor=ACTOR)
    decision = await access.check(environment, company={"id": "acme"}, feature="exports", quantity=4)
    assert (decision.allowed, decision.used, decision.remaining) == (False, 7, 3)
    assert decision.company == company.id


async def test_a_stale_plan_is_refused(environment: Environment) -> None:
    free = edited(SMALL, plans__pro=None)
    await catalog.apply(environment, free, actor=ACTOR)
    with pytest.raises(Refusal) as caught:
        await catalog.apply(environment, free, actor=ACTOR, expected_revision=0)
    assert caught.value.code is Code.CATALOG_STALE
    assert caught.value.extra == {"revision": 1}


async def test_two_at_once_make_one_revision_each(connected_environment: Environment) -> None:
    dearer = edited(SMALL, plans__pro__prices=[{"currency": "usd", "interval": "month", "amount_minor": 5900}])
    answers = await asyncio.gather(
        catalog.apply(connected_environment, SMALL, actor=ACTOR),
        catalog.apply(connected_environment, dearer, actor=ACTOR),
        catalog.apply(connected_environment, SMALL, actor=ACTOR, expected_revision=0),
        return_exceptions=True,
    )
    revisions = sorted(one.revision for one in answers if isinstance(one, catalog.CatalogDiff))
    refused = [one for one in answers if isinstance(one, Refusal)]
    assert len(revisions) + len(refused) == 3
    assert all(one.code is Code.CATALOG_STALE for one in refused)
    async with connected_environment.reading() as session:
        versions = [(row.key, row.version) for row in await all_plan_versions(session)]
    assert len(versions) == len(set(versions))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_failure_in_stripe_publishes_nothing_and_a_repeat_finishes(
    connected_environment: Environment, sandbox: SandboxServer, when: str
) -> None:
    fault = {"fault": "fail_call", "when": when, "method": "POST", "path": "/v1/prices", "count": None, "status": 500}
    sandbox.control("POST", "/_sandbox/faults", fault)
    with pytest.raises(Refusal):
        await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    assert await catalog.current_revision(connected_environment) == (0, {"version": 1, "features": {}, "plans": {}})
    sandbox.control("DELETE", "/_sandbox/faults")
    assert (await catalog.apply(connected_environment, SMALL, actor=ACTOR)).revision == 1
    assert stripe_prices(sandbox) == {"plangate_plan_pro_usd_1_month_4900": True}


async def test_an_old_price_that_could_not_be_archived_is_archived_by_the_next_apply(
    connected_environment: Environment, sandbox: SandboxServer
) -> None:
    await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    dearer = edited(SMALL, plans__pro__prices=[{"currency": "usd", "interval": "month", "amount_minor": 5900}])
    fault = {"fault": "fail_call", "method": "POST", "path": "/v1/prices/*", "count": None, "status": 500}
    sandbox.control("POST", "/_sandbox/faults", fault)
    with pytest.raises(Refusal):
        await catalog.apply(connected_environment, dearer, actor=ACTOR)
    sandbox.control("DELETE", "/_sandbox/faults")
    assert (await connected_environment.catalog()).revision == 2
    assert stripe_prices(sandbox)["plangate_plan_pro_usd_1_month_4900"]
    assert not (await catalog.apply(connected_environment, dearer, actor=ACTOR)).is_applied
    assert not stripe_prices(sandbox)["plangate_plan_pro_usd_1_month_4900"]


async def test_a_price_in_stripe_is_found_again_by_its_terms(
    connected_environment: Environment, sandbox: SandboxServer
) -> None:
    await catalog.apply(connected_environment, SMALL, actor=ACTOR)
    async with connected_environment.reading() as session:
        (known,) = await all_stripe_prices(session)
    gateway = StripeGateway(sandbox.secret_key, api_base=sandbox.url)
    found = await gateway.catalog.find_price("plangate_plan_pro_usd_1_month_4900")
    await gateway.aclose()
    assert found is not None
    assert found["id"] == known.stripe_price_id


async def test_the_blast_radius_counts_companies_by_what_they_lose(environment: Environment) -> None:
    free = edited(SMALL, plans__pro=None)
    await catalog.apply(environment, free, actor=ACTOR)
    for name in ("Acme", "Globex"):
        await a_company(environment, name, plan="free")
    busy = await a_company(environment, "Initech", plan="free")
    async with environment.writing() as session:
        await session.add(
            UsageWindowRow(
                id=new_id("win"),
                environment_id=environment.id,
                company_id=busy,
                feature="exports",
                period="billing_month",
                start_at=session.now,
                end_at=session.now.replace(year=session.now.year + 1),
                used=8,
            )
        )
    smaller = edited(
        SMALL,
        plans__pro=None,
        plans__free__entitlements={"exports": 5, "priority": True},
        features__priority={"name": "Priority", "type": "boolean"},
    )
    impact = (await catalog.plan(environment, smaller)).impact
    assert impact is not None
    assert (impact.examined, impact.affected, impact.is_complete) == (3, 3, True)
    (plan,) = impact.plans
    assert (plan.plan, plan.companies) == ("free", 3)
    assert {(one.feature, one.count) for one in plan.lost} == {("sso", 3), ("exports", 3)}
    assert {(one.feature, one.count) for one in plan.gained} == {("priority", 3)}
    assert [(one.feature, one.companies) for one in plan.over_limit] == [("exports", ("Initech",))]
    # The limit is looked at after each page of 200, so three companies are all examined.
    assert (await catalog.plan(environment, smaller, impact_limit=1)).impact == impact
    assert (await catalog.plan(environment, smaller, with_impact=False)).impact is None


async def test_what_is_public_has_prices_and_names(connected_environment: Environment) -> None:
    await catalog.apply(connected_environment, read_catalog(DEMO.read_text("utf-8")), actor=ACTOR)
    offers = await catalog.public_plans(connected_environment)
    assert [(one.kind, one.key) for one in offers] == [
        ("plan", "free"),
        ("plan", "starter"),
        ("plan", "pro"),
        ("plan", "enterprise"),
        ("add_on", "extra-exports"),
        ("add_on", "priority-support"),
    ]
    pro = offers[2]
    assert pro.is_recommended
    assert [(one.currency, one.interval, one.amount_minor) for one in pro.prices][:2] == [
        ("usd", "month", 4900),
        ("usd", "year", 47000),
    ]
    exports = next(one for one in pro.entitlements if one.feature == "exports")
    assert (exports.name, exports.limit, exports.period, exports.units) == ("Exports", 1000, "billing_month", "exports")
    assert next(one for one in offers[3].entitlements if one.feature == "exports").unlimited
    assert offers[3].contact_us
    assert offers[4].fits == ("starter", "pro")


async def test_grants_reach_the_engine(environment: Environment) -> None:
    free = edited(SMALL, plans__pro=None, plans__free__entitlements={"exports": "unlimited"})
    await catalog.apply(environment, free, actor=ACTOR)
    company_id = await a_company(environment, "Acme", plan="free")
    standing = await environment.standings.of(company_id)
    assert standing is not None
    assert standing.snapshot.features["exports"].answer.allowances[0].limit is None
    more = edited(SMALL, plans__pro=None, plans__free__entitlements={"exports": 7})
    await catalog.apply(environment, more, actor=ACTOR)
    standing = await environment.standings.of(company_id)
    assert standing is not None
    assert standing.snapshot.features["exports"].answer.allowances[0].limit == 7
    assert (await environment.catalog()).older_versions["plan/free@1"].entitlements[0].limit is UNLIMITED
