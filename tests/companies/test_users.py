"""Users: who they are, which companies they belong to and belonged to, and what they may do in each."""

import pytest

from plangate import access, companies, metering, overrides
from plangate.engine.decision import Reason
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from tests.world import ACTOR, DOCUMENT, make_company, publish, put_on, still

ACME, GLOBEX, ADA = {"id": "acme"}, {"id": "globex"}, {"id": "ada"}


async def test_o11_a_user_of_two_companies_has_what_the_company_asked_about_has(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment, "acme")
    globex = await make_company(environment, "globex")
    await put_on(environment, globex.id, "pro")
    await companies.upsert_user(environment, keys=ADA, companies=[ACME, GLOBEX])
    answers = [await access.check(environment, company=company, user=ADA, feature="sso") for company in (ACME, GLOBEX)]
    assert [one.allowed for one in answers] == [False, True]
    assert len({one.user for one in answers}) == 1
    await make_company(environment, "initech")
    decision = await access.check(environment, company={"id": "initech"}, user=ADA, feature="sso")
    assert (decision.reason, decision.allowed) == (Reason.UNKNOWN_USER, False)


async def test_one_who_left_is_unknown_there_but_was_known_before(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    acme = await make_company(environment)
    await companies.upsert_user(environment, keys=ADA, companies=[ACME], actor=ACTOR)
    await overrides.grant(environment, acme.id, feature="sso", value=True, user=ADA, note="x", actor=ACTOR)
    assert (await access.check(environment, company=ACME, user=ADA, feature="sso")).allowed
    before = clock.now()
    clock.advance(days=1)
    user, _ = await companies.upsert_user(environment, keys=ADA, left=[ACME], actor=ACTOR)
    assert user.companies == ()
    decision = await access.check(environment, company=ACME, user=ADA, feature="sso")
    assert decision.reason is Reason.UNKNOWN_USER
    between = clock.now()
    assert (await access.check(environment, company=ACME, user=ADA, feature="sso", at=before)).allowed
    clock.advance(days=1)
    await companies.upsert_user(environment, keys=ADA, companies=[ACME], actor=ACTOR)
    assert (await access.check(environment, company=ACME, user=ADA, feature="sso")).allowed
    decision = await access.check(environment, company=ACME, user=ADA, feature="sso", at=between)
    assert decision.reason is Reason.UNKNOWN_USER
    actions = [entry.action for entry in await companies.history(environment, acme.id)]
    assert actions == ["user.joined", "user.left", "override.granted", "user.joined", "company.created"]
    with pytest.raises(Refusal) as caught:
        await companies.upsert_user(environment, keys=ADA, companies=[ACME], left=[ACME])
    assert caught.value.errors[0].pointer == "/left"


async def test_users_are_listed_searched_and_read_one_by_one(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    acme = await make_company(environment)
    made = []
    for number in range(5):
        clock.advance(seconds=1)
        user, _ = await companies.upsert_user(
            environment, keys={"id": f"u{number}"}, name=f"User {number}", companies=[ACME] if number % 2 else []
        )
        made.append(user)
    assert await companies.get_user(environment, made[3].id) == made[3]
    with pytest.raises(Refusal) as caught:
        await companies.get_user(environment, acme.id)
    assert caught.value.code is Code.NOT_FOUND
    found, cursor = await companies.search_users(environment, limit=3)
    rest, end = await companies.search_users(environment, cursor=cursor, limit=3)
    assert {user.id for user in (*found, *rest)} == {user.id for user in made}
    assert end is None
    found, _ = await companies.search_users(environment, company_id=acme.id)
    assert {user.id for user in found} == {made[1].id, made[3].id}
    found, _ = await companies.search_users(environment, search="USER 4")
    assert [user.id for user in found] == [made[4].id]
    for wrong in ({"cursor": "x"}, {"limit": 0}, {"company_id": "comp_x"}, {"search": "\x00"}):
        with pytest.raises(Refusal) as caught:
            await companies.search_users(environment, **wrong)
        assert caught.value.status == 422


async def test_each_user_gets_an_allowance_of_their_own(environment: Environment) -> None:
    plans = {**DOCUMENT["plans"], "free": {"name": "Free", "entitlements": {}}}
    plans["free"]["entitlements"] = {"exports": {"limit": 2, "period": "billing_month", "per": "user"}}
    await publish(environment, {**DOCUMENT, "plans": plans})
    await make_company(environment)
    for name in ("ada", "bob"):
        await companies.upsert_user(environment, keys={"id": name}, companies=[ACME])
    for name in ("ada", "bob"):
        for number in range(3):
            decision, is_counted = await metering.consume(
                environment, company=ACME, user={"id": name}, feature="exports", idempotency_key=f"{name}{number}"
            )
            assert is_counted is (number < 2), (name, number, decision)
        decision = await access.check(environment, company=ACME, user={"id": name}, feature="exports")
        assert (decision.reason, decision.used) == (Reason.LIMIT_REACHED, 2)
