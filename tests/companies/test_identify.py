"""Companies and users are known once, by any of their keys, whoever makes them known at the same moment."""

import asyncio

import pytest
from sqlalchemy import func, select

from plangate import access, companies
from plangate.deployment import Deployment
from plangate.engine.decision import Reason
from plangate.engine.facts import PlanSource
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.store.companies import companies as company_table
from tests.world import ACTOR, make_company, publish, still


async def test_a_new_company_starts_on_the_initial_plan(environment: Environment) -> None:
    await publish(environment)
    company, is_created = await companies.upsert(
        environment, keys={"id": "acme"}, name="Acme", traits={"seats": 2, "vip": True}, actor=ACTOR
    )
    assert is_created
    assert company.id.startswith("comp_")
    assert (company.keys, company.name, company.traits) == ({"id": "acme"}, "Acme", {"seats": 2, "vip": True})
    assert company.plan is not None
    assert (company.plan.key, company.plan.version, company.plan.source) == ("free", 1, PlanSource.INITIAL)
    assert (company.subscription, company.scheduled_change, company.add_ons) == (None, None, ())
    assert await companies.get(environment, company.id) == company


async def test_any_known_key_finds_the_company_and_new_ones_are_added(environment: Environment) -> None:
    await publish(environment)
    first, _ = await companies.upsert(environment, keys={"id": "acme"}, actor=ACTOR)
    second, is_created = await companies.upsert(environment, keys={"id": "acme", "crm": "42"}, name="A", actor=ACTOR)
    assert (second.id, is_created) == (first.id, False)
    third, _ = await companies.upsert(environment, keys={"crm": "42"}, traits={"seats": 1}, actor=ACTOR)
    assert third.id == first.id
    assert (third.keys, third.name, third.traits) == ({"id": "acme", "crm": "42"}, "A", {"seats": 1})
    assert await companies.find(environment, {"crm": "42"}) == first.id
    assert await companies.find(environment, {"crm": "43"}) is None


async def test_a_company_may_have_several_stripe_customers(environment: Environment) -> None:
    await publish(environment)
    await companies.upsert(environment, keys={"id": "acme"}, stripe_customer_ids=["cus_1"], actor=ACTOR)
    company, _ = await companies.upsert(environment, keys={"id": "acme"}, stripe_customer_ids=["cus_2"], actor=ACTOR)
    assert set(company.stripe_customer_ids) == {"cus_1", "cus_2"}
    assert company.keys == {"id": "acme"}
    assert await companies.find(environment, {"stripe_customer_id": "cus_2"}) == company.id
    by_customer, is_created = await companies.upsert(
        environment, keys={}, stripe_customer_ids=["cus_1"], name="Acme", actor=ACTOR
    )
    assert (by_customer.id, is_created) == (company.id, False)


async def test_keys_of_two_companies_are_a_conflict_naming_both(environment: Environment) -> None:
    await publish(environment)
    one = await make_company(environment, "one")
    two = await make_company(environment, "two")
    await companies.upsert(environment, keys={"id": "two", "crm": "2"}, actor=ACTOR)
    with pytest.raises(Refusal) as caught:
        await companies.upsert(environment, keys={"id": "one", "crm": "2"}, actor=ACTOR)
    assert (caught.value.code, caught.value.status) == (Code.KEY_CONFLICT, 409)
    assert one.id in caught.value.detail
    assert two.id in caught.value.detail


async def test_o10_upserts_of_one_new_key_make_one_company(deployment: Deployment, environment: Environment) -> None:
    await publish(environment)
    other = await Deployment.open(deployment.settings)
    try:
        both = (environment, other.named(None))
        answers = await asyncio.gather(
            *(
                companies.upsert(both[number % 2], keys={"id": "acme", f"key{number % 4}": "x"}, actor=ACTOR)
                for number in range(12)
            )
        )
    finally:
        await other.close()
    assert len({company.id for company, _ in answers}) == 1
    assert sum(is_created for _, is_created in answers) == 1
    async with environment.reading() as session:
        assert await session.scalar(select(func.count()).select_from(company_table)) == 1


async def test_an_upsert_that_says_nothing_new_changes_nothing(environment: Environment) -> None:
    await publish(environment)
    before = await make_company(environment, "acme", seats=2)
    version = (await environment.standings.of(before.id) or pytest.fail("no standing")).facts.version
    again, is_created = await companies.upsert(
        environment, keys={"id": "acme"}, name="Acme", traits={"seats": 2}, actor=ACTOR
    )
    assert (again, is_created) == (before, False)
    assert (await environment.standings.of(before.id) or pytest.fail("no standing")).facts.version == version
    assert len(await companies.history(environment, before.id)) == 1


async def test_o8_a_trait_keeps_its_type_and_a_missing_one_never_grants(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment, "acme", projects=1)
    decision = await access.check(environment, company={"id": "acme"}, feature="projects")
    assert decision.reason is Reason.TRAIT_MISSING
    for value, reason in ((10, Reason.WITHIN_LIMIT), ("10", Reason.TRAIT_MISSING), (True, Reason.TRAIT_MISSING)):
        company, _ = await companies.upsert(
            environment, keys={"id": "acme"}, traits={"projects_bought": value}, actor=ACTOR
        )
        kept = company.traits["projects_bought"]
        assert (type(kept), kept) == (type(value), value)
        decision = await access.check(environment, company={"id": "acme"}, feature="projects")
        assert (decision.reason, decision.allowed) == (reason, reason is Reason.WITHIN_LIMIT)

    company, _ = await companies.upsert(environment, keys={"id": "acme"}, traits={"projects_bought": None}, actor=ACTOR)
    assert "projects_bought" not in company.traits


@pytest.mark.parametrize(
    "keys",
    [{}, {"": "x"}, {"a b": "x"}, {"id": ""}, {"id": "x" * 256}, {"id": "a\x00"}, {f"k{n}": "x" for n in range(21)}],
)
async def test_keys_out_of_bounds_are_refused(environment: Environment, keys: dict[str, str]) -> None:
    with pytest.raises(Refusal) as caught:
        await companies.upsert(environment, keys=keys, actor=ACTOR)
    assert caught.value.status == 422


@pytest.mark.parametrize(
    "value", [2**63, float("nan"), float("inf"), "x" * 4_001, "a\x00", "\ud800", [1], {"a": 1}], ids=repr
)
async def test_traits_out_of_bounds_are_refused(environment: Environment, value: object) -> None:
    with pytest.raises(Refusal) as caught:
        await companies.upsert(environment, keys={"id": "acme"}, traits={"t": value}, actor=ACTOR)
    assert (caught.value.status, caught.value.errors[0].pointer) == (422, "/traits/t")


async def test_users_join_companies_and_are_known_by_any_key(environment: Environment) -> None:
    await publish(environment)
    acme, globex = await make_company(environment, "acme"), await make_company(environment, "globex")
    user, is_created = await companies.upsert_user(
        environment, keys={"id": "ada"}, name="Ada", traits={"role": "owner"}, companies=[{"id": "acme"}]
    )
    assert (is_created, user.name, user.traits, user.companies) == (True, "Ada", {"role": "owner"}, (acme.id,))
    user, is_created = await companies.upsert_user(
        environment, keys={"id": "ada", "email": "ada@acme.test"}, companies=[{"id": "globex"}]
    )
    assert (is_created, user.keys) == (False, {"id": "ada", "email": "ada@acme.test"})
    assert set(user.companies) == {acme.id, globex.id}
    with pytest.raises(Refusal) as caught:
        await companies.upsert_user(environment, keys={"id": "bob"}, companies=[{"id": "nobody"}])
    assert caught.value.errors[0].pointer == "/companies/0"
    await companies.upsert_user(environment, keys={"id": "bob"})
    with pytest.raises(Refusal) as caught:
        await companies.upsert_user(environment, keys={"id": "bob", "email": "ada@acme.test"})
    assert caught.value.code is Code.KEY_CONFLICT


async def test_concurrent_upserts_of_one_user_make_one(environment: Environment) -> None:
    answers = await asyncio.gather(
        *(companies.upsert_user(environment, keys={"id": "ada"}, traits={"n": number}) for number in range(8))
    )
    assert len({user.id for user, _ in answers}) == 1
    assert sum(is_created for _, is_created in answers) == 1


async def test_the_list_is_paged_and_searched(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    made = []
    for number in range(5):
        clock.advance(seconds=1)
        made.append(await make_company(environment, f"shop-{number}"))
    await companies.upsert(environment, keys={"id": "other"}, name="50%_off", actor=ACTOR)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await companies.search(environment, cursor=cursor, limit=2)
        found += [company.id for company in page]
        if cursor is None:
            break
    assert len(found) == len(set(found)) == 6
    assert {company.id for company in made} < set(found)
    page, _ = await companies.search(environment, search="SHOP-3")
    assert [company.id for company in page] == [made[3].id]
    page, _ = await companies.search(environment, search="%_o")
    assert [company.name for company in page] == ["50%_off"]


@pytest.mark.parametrize("cursor", ["x", "!!", "Y29tcA", "\u2603"])
async def test_a_cursor_that_is_not_ours_is_refused(environment: Environment, cursor: str) -> None:
    with pytest.raises(Refusal) as caught:
        await companies.search(environment, cursor=cursor)
    assert caught.value.status == 422


async def test_history_tells_who_changed_what(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment, "acme", seats=1)
    await companies.upsert(environment, keys={"id": "acme"}, traits={"seats": 2}, actor=ACTOR)
    newest, oldest = await companies.history(environment, company.id)
    assert (newest.action, newest.actor) == ("company.updated", ACTOR)
    assert newest.before == {"name": "Acme", "traits": {"seats": 1}}
    assert newest.after == {"keys": [], "traits": {"seats": 2}}
    assert oldest.action == "company.created"


async def test_unknown_companies_are_not_found(environment: Environment) -> None:
    for asked in (companies.get, companies.history):
        with pytest.raises(Refusal) as caught:
            await asked(environment, "comp_unknown")
        assert caught.value.code is Code.NOT_FOUND
