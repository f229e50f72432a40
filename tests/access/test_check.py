"""Checks of the present: from memory, of known and unknown things, never counting anything."""

from datetime import timedelta

import anyio
import pytest

from plangate import access, companies, metering
from plangate.deployment import Deployment
from plangate.engine.decision import Reason
from plangate.engine.values import INT64_MAX, FeatureType
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import TrackEvent
from tests.world import ACTOR, DOCUMENT, make_company, publish, put_on, still

ACME = {"id": "acme"}


async def test_a_check_is_a_preflight_that_never_counts(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    for _ in range(3):
        decision = await access.check(environment, company=ACME, feature="exports", quantity=10)
        assert (decision.allowed, decision.used, decision.remaining) == (True, 0, 10)
    decision = await access.check(environment, company=ACME, feature="exports", quantity=11)
    assert (decision.allowed, decision.reason) == (False, Reason.LIMIT_REACHED)


async def test_every_type_of_feature_is_answered(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment, "acme", seats=3, projects=1, projects_bought=2)
    found = await access.checks(environment, company=ACME)
    assert list(found) == list(DOCUMENT["features"])
    assert {key: (one.type, one.allowed) for key, one in found.items()} == {
        "exports": (FeatureType.EVENT, True),
        "api-calls": (FeatureType.EVENT, True),
        "sso": (FeatureType.BOOLEAN, False),
        "seats": (FeatureType.SEAT, False),
        "projects": (FeatureType.TRAIT, True),
        "max-upload": (FeatureType.CONFIG, True),
        "theme": (FeatureType.CONFIG, False),
        "layout": (FeatureType.CONFIG, False),
    }
    assert (found["seats"].used, found["seats"].limit, found["max-upload"].value) == (3, 3, 5)
    listed = await access.entitlements(environment, company.id)
    assert [(one.feature, one.allowed, one.used) for one in listed] == [
        (one.feature, one.allowed, one.used) for one in found.values()
    ]


async def test_only_the_features_named_are_answered(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    found = await access.checks(environment, company=ACME, features=["sso", "nothing"])
    assert {key: one.reason for key, one in found.items()} == {
        "sso": Reason.NO_ENTITLEMENT,
        "nothing": Reason.UNKNOWN_FEATURE,
    }


async def test_unknown_things_never_grant(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    await make_company(environment, "globex")
    await companies.upsert_user(environment, keys={"id": "ada"}, companies=[{"id": "globex"}])
    nobody = {"id": "nobody"}
    for company, user, reason in (
        (nobody, None, Reason.UNKNOWN_COMPANY),
        (ACME, nobody, Reason.UNKNOWN_USER),
        # A user of another company is nobody here.
        (ACME, {"id": "ada"}, Reason.UNKNOWN_USER),
    ):
        decision = await access.check(environment, company=company, user=user, feature="exports")
        assert (decision.allowed, decision.reason) == (False, reason)
        several = await access.checks(environment, company=company, user=user, features=["exports", "sso"])
        assert {one.reason for one in several.values()} == {reason}
        everything = await access.checks(environment, company=company, user=user)
        assert everything.keys() == (await access.checks(environment, company=ACME)).keys()
        assert {one.reason for one in everything.values()} == {reason}
    decision = await access.check(environment, company={"id": "globex"}, user={"id": "ada"}, feature="exports")
    assert decision.allowed
    assert decision.user is not None


async def test_keys_of_two_companies_are_a_conflict(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    await companies.upsert(environment, keys={"crm": "7"}, actor=ACTOR)
    with pytest.raises(Refusal) as caught:
        await access.check(environment, company={"id": "acme", "crm": "7"}, feature="exports")
    assert caught.value.code is Code.KEY_CONFLICT


@pytest.mark.parametrize("quantity", [-1, INT64_MAX + 1])
async def test_quantities_outside_the_range_are_refused(environment: Environment, quantity: int) -> None:
    with pytest.raises(Refusal) as caught:
        await access.check(environment, company=ACME, feature="exports", quantity=quantity)
    assert (caught.value.status, caught.value.errors[0].pointer) == (422, "/quantity")


async def test_a_company_found_by_memory_is_the_one_asked_for(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    assert environment.standings.peek("id", "acme") is None or environment.standings.held(company.id) is not None
    await access.check(environment, company=ACME, feature="sso")
    standing = environment.standings.peek("id", "acme")
    assert standing is not None
    assert access.check_now(environment, standing, "exports", quantity=3).company == company.id
    assert set(access.checks_now(environment, standing, ["sso"])) == {"sso"}


async def test_a_version_sent_back_is_never_answered_older(deployment: Deployment, environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    other = await Deployment.open(deployment.settings)
    try:
        second = other.named(None)
        assert not (await access.check(second, company=ACME, feature="sso")).allowed
        await put_on(environment, company.id, "pro")
        standing = await environment.standings.of(company.id)
        assert standing is not None
        version = standing.facts.version
        assert (await access.check(second, company=ACME, feature="sso", at_least=version)).allowed
    finally:
        await other.close()


async def test_checks_see_usage_of_other_processes_within_a_second(
    deployment: Deployment, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Changes of one's own process are not listened to, so the second deployment pretends to be another.
    monkeypatch.setattr("plangate.deployment.PROCESS", "another")
    await publish(environment)
    await make_company(environment)
    other = await Deployment.open(deployment.settings)
    second = other.named(None)
    other.start_following()
    try:
        assert (await access.check(second, company=ACME, feature="exports")).used == 0
        await anyio.sleep(0.4)  # the follower has begun to listen
        await metering.record(environment, [TrackEvent(event="export", company=ACME, quantity=4)])
        with anyio.fail_after(1):
            while (await access.check(second, company=ACME, feature="exports")).used != 4:
                await anyio.sleep(0.02)
    finally:
        await other.close()


async def test_the_why_names_the_sources_and_the_way_out(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    decision = await access.check(environment, company=ACME, feature="sso", trace=True)
    assert decision.trace is not None
    assert decision.trace.steps
    listed = await access.entitlements(environment, company.id, trace=True)
    assert all(one.trace is not None for one in listed)


async def test_t4_usage_resets_with_the_billing_month_and_not_the_calendar(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    await make_company(environment)
    await metering.record(environment, [TrackEvent(event="export", company=ACME, quantity=6)])
    clock.advance(days=11)  # 1 December
    decision = await access.check(environment, company=ACME, feature="exports")
    assert (decision.used, decision.period and decision.period.kind) == (6, "billing_month")
    clock.advance(days=19)  # 20 December, the anchor's day
    decision = await access.check(environment, company=ACME, feature="exports")
    assert decision.used == 0
    assert decision.period is not None
    assert decision.period.resets_at is not None
    assert (decision.period.resets_at.month, decision.period.resets_at.day) == (1, 20)


async def test_an_unknown_company_has_no_entitlements_to_list(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    before = environment.clock.now() - timedelta(days=1)
    for attempt in (
        access.entitlements(environment, "comp_unknown"),
        access.entitlements(environment, company.id, at=before),
    ):
        with pytest.raises(Refusal) as caught:
            await attempt
        assert caught.value.code is Code.NOT_FOUND
