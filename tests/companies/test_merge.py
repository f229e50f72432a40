"""Two companies that turn out to be one: everything moves, usage counts once, and the past stays as it was."""

import asyncio
import random
from datetime import datetime, timedelta

import msgspec
import pytest
from sqlalchemy import func, select

from plangate import access, companies, drift, metering, overrides
from plangate.deployment import Deployment
from plangate.engine.decision import Decision, Reason
from plangate.engine.facts import PlanSource
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import TrackEvent
from plangate.store.companies import assign
from plangate.store.usage import usage_events
from tests.world import ACTOR, make_company, publish, put_on, still

ACME, TWIN = {"id": "acme"}, {"id": "twin"}


async def _use(environment: Environment, company: dict[str, str], quantity: int, **changes: object) -> None:
    event = TrackEvent(event="export", company=company, quantity=quantity, **changes)  # type: ignore[arg-type]
    (result,) = await metering.record(environment, [event], may_correct=True)
    assert result.status == "accepted", result


async def _used(environment: Environment, company: dict[str, str], **changes: object) -> int | None:
    decision = await access.check(environment, company=company, feature="exports", **changes)  # type: ignore[arg-type]
    return decision.used


async def _ledger(environment: Environment) -> int:
    async with environment.reading() as session:
        return int(await session.scalar(select(func.sum(usage_events.c.quantity))) or 0)


async def test_s17_usage_follows_a_merge_and_is_counted_once(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    acme = await make_company(environment)
    clock.advance(days=3)
    twin = await make_company(environment, "twin")
    await _use(environment, ACME, 2)
    await _use(environment, TWIN, 3)
    clock.advance(hours=1)
    await _use(environment, TWIN, 4, occurred_at=clock.at - timedelta(minutes=30))
    before, total = clock.now(), await _ledger(environment)
    clock.advance(minutes=1)
    merged = await companies.merge(environment, acme.id, twin.id, actor=ACTOR)
    assert merged.keys == ACME
    assert await _used(environment, ACME) == await _used(environment, TWIN) == 9
    assert await _ledger(environment) == total == 9
    assert await drift.usage_drift(environment) == []
    # What was known before is answered as before, whichever of the keys asks.
    assert await _used(environment, ACME, at=before) == 2
    assert await _used(environment, TWIN, at=before) == 7
    series = await metering.series(environment, acme.id, "exports", "day")
    assert sum(point.quantity for point in series.points) == 9
    decision, is_counted = await metering.consume(
        environment, company=TWIN, feature="exports", quantity=2, idempotency_key="one too many"
    )
    assert (decision.reason, is_counted) == (Reason.LIMIT_REACHED, False)


async def test_everything_else_moves_as_well(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    acme, twin = await make_company(environment, seats=2), await make_company(environment, "twin", seats=9, region="eu")
    await companies.upsert(environment, keys=TWIN, stripe_customer_ids=("cus_twin",), actor=ACTOR)
    await companies.upsert_user(environment, keys={"id": "ada"}, companies=[TWIN])
    override = await overrides.grant(environment, twin.id, feature="sso", value=True, note="beta", actor=ACTOR)
    ended = await overrides.grant(environment, twin.id, feature="exports", mode="add", value=1, note="x", actor=ACTOR)
    await overrides.revoke(environment, ended.id, note="over", actor=ACTOR)
    await put_on(environment, twin.id, "pro")
    clock.advance(minutes=1)
    merged = await companies.merge(environment, acme.id, TWIN, actor=ACTOR)
    assert (merged.name, merged.traits) == ("Acme", {"seats": 2, "region": "eu"})
    assert merged.stripe_customer_ids == ("cus_twin",)
    assert merged.plan is not None
    assert (merged.plan.key, merged.plan.source) == ("pro", PlanSource.ASSIGNMENT)
    user, _ = await companies.upsert_user(environment, keys={"id": "ada"})
    assert user.companies == (acme.id,)
    listed = await overrides.listing(environment, acme.id)
    assert {(one.id, one.company, one.state) for one in listed} == {
        (override.id, acme.id, "active"),
        (ended.id, acme.id, "revoked"),
    }
    edited = await overrides.edit(environment, override.id, etag="*", changes={"note": "for good"}, actor=ACTOR)
    assert edited.company == acme.id
    history = await companies.history(environment, acme.id)
    assert ("company.merged", twin.id) in {(entry.action, entry.subject) for entry in history}
    assert "override.granted" in {entry.action for entry in history}
    assert (await access.check(environment, company=TWIN, user={"id": "ada"}, feature="sso")).allowed


async def test_the_former_id_is_unknown_and_merging_again_changes_nothing(environment: Environment) -> None:
    await publish(environment)
    acme, twin = await make_company(environment), await make_company(environment, "twin")
    third = await make_company(environment, "third")
    first = await companies.merge(environment, acme.id, twin.id, actor=ACTOR)
    assert await companies.merge(environment, acme.id, twin.id, actor=ACTOR) == first
    for attempt in (
        companies.get(environment, twin.id),
        companies.history(environment, twin.id),
        overrides.listing(environment, twin.id),
        access.entitlements(environment, twin.id),
        companies.merge(environment, twin.id, third.id, actor=ACTOR),
        companies.merge(environment, third.id, twin.id, actor=ACTOR),
        companies.merge(environment, third.id, {"id": "nobody"}, actor=ACTOR),
    ):
        with pytest.raises(Refusal) as caught:
            await attempt
        assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(Refusal) as caught:
        await companies.merge(environment, acme.id, TWIN, actor=ACTOR)
    assert (caught.value.status, caught.value.errors[0].pointer) == (422, "/from")
    await companies.merge(environment, third.id, acme.id, actor=ACTOR)
    assert await companies.became(environment, twin.id) == third.id
    found, _ = await companies.search(environment)
    assert [one.id for one in found] == [third.id]


async def test_overrides_that_would_overlap_are_a_conflict_naming_them(environment: Environment) -> None:
    still(environment)
    await publish(environment)
    acme, twin = await make_company(environment), await make_company(environment, "twin")
    granted = [
        await overrides.grant(environment, one.id, feature="exports", mode="add", value=5, note="x", actor=ACTOR)
        for one in (acme, twin)
    ]
    with pytest.raises(Refusal) as caught:
        await companies.merge(environment, acme.id, twin.id, actor=ACTOR)
    assert (caught.value.code, caught.value.extra["overrides"]) == (
        Code.OVERRIDE_OVERLAP,
        [[one.id for one in granted]],
    )
    assert (await companies.get(environment, twin.id)).keys == TWIN
    await overrides.revoke(environment, granted[1].id, note="merging", actor=ACTOR)
    await companies.merge(environment, acme.id, twin.id, actor=ACTOR)
    decision = await access.check(environment, company=TWIN, feature="exports")
    assert decision.limit == 15


async def test_assigned_add_ons_add_up(connected_environment: Environment) -> None:
    environment = connected_environment
    await publish(
        environment,
        {
            "version": 1,
            "initial_plan": "free",
            "features": {"exports": {"name": "Exports", "type": "event"}},
            "plans": {"free": {"name": "Free", "entitlements": {"exports": {"limit": 10, "period": "billing_month"}}}},
            "add_ons": {
                "more": {
                    "name": "More",
                    "entitlements": {"exports": {"limit": 5, "period": "billing_month", "stacking": "sum"}},
                    "prices": [{"currency": "usd", "interval": "month", "amount_minor": 500}],
                }
            },
        },
    )
    acme, twin = await make_company(environment), await make_company(environment, "twin")
    for number, company in enumerate((acme, twin), start=1):
        async with environment.writing() as session:
            await assign(session, company.id, key="more", source=PlanSource.ASSIGNMENT, kind="add_on", quantity=number)
            await environment.touch(session, company.id)
    merged = await companies.merge(environment, acme.id, twin.id, actor=ACTOR)
    assert [(one.key, one.quantity) for one in merged.add_ons] == [("more", 3)]
    assert (await access.check(environment, company=ACME, feature="exports")).limit == 25


async def test_usage_reported_while_merging_is_counted_once(deployment: Deployment, environment: Environment) -> None:
    await publish(environment)
    other = await Deployment.open(deployment.settings)
    elsewhere = other.named(None)
    try:
        acme, twin = await make_company(environment), await make_company(environment, "twin")
        assert await _used(elsewhere, TWIN) == 0  # the other process holds the company that goes away

        async def report(env: Environment) -> None:
            for _ in range(15):
                await _use(env, TWIN, 1)

        async def put(env: Environment) -> None:
            for number in range(5):
                await companies.upsert(env, keys=TWIN, traits={f"t{number}": number}, actor=ACTOR)

        await asyncio.gather(
            report(environment),
            report(elsewhere),
            put(elsewhere),
            companies.merge(environment, acme.id, twin.id, actor=ACTOR),
        )
        environment.forget(acme.id)
        assert await _used(environment, TWIN) == 30
        assert await drift.usage_drift(environment) == []
        assert set((await companies.get(environment, acme.id)).traits) == {f"t{number}" for number in range(5)}
    finally:
        await other.close()


@pytest.mark.parametrize("seed", range(4))
async def test_merges_at_random_conserve_usage_and_the_past(environment: Environment, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a repeatable life, not a secret
    clock = still(environment)
    await publish(environment)
    keys = [{"id": f"c{number}"} for number in range(6)]
    ids = {number: (await make_company(environment, f"c{number}")).id for number in range(6)}
    owner = {number: number for number in ids}
    used = dict.fromkeys(ids, 0)
    asked: list[tuple[dict[str, str], datetime, Decision]] = []
    for _ in range(40):
        clock.advance(minutes=chance.randrange(1, 2_000))
        number = chance.randrange(6)
        if chance.random() < 0.2 and owner[number] != number:
            continue
        live = sorted(set(owner.values()))
        if chance.random() < 0.15 and len(live) > 1:
            target, former = chance.sample(live, 2)
            await companies.merge(environment, ids[target], ids[former], actor=ACTOR)
            owner = {key: target if value == former else value for key, value in owner.items()}
            used[target] += used.pop(former)
        else:
            quantity = chance.randrange(-1, 4)
            late = timedelta(minutes=chance.randrange(0, 3_000))
            await _use(environment, keys[number], quantity, occurred_at=clock.at - late)
            used[owner[number]] += quantity
        at = clock.now()
        decision = await access.check(environment, company=keys[number], feature="exports")
        asked.append((keys[number], at, decision))
    assert await _ledger(environment) == sum(used.values())
    assert await drift.usage_drift(environment) == []
    for target, total in used.items():
        series = await metering.series(
            environment, ids[target], "exports", "month", since=clock.at - timedelta(days=90), until=clock.at
        )
        assert sum(point.quantity for point in series.points) == total
    for company, at, decision in asked:
        again = await access.check(environment, company=company, feature="exports", at=decision.at)
        assert msgspec.structs.replace(again, at=decision.at) == decision, at
