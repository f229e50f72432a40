"""Overrides: granted, edited and revoked by people, in force exactly as long as they say, all of it on record."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from plangate import access, companies, metering, overrides
from plangate.deployment import Deployment
from plangate.engine.decision import Decision, Reason, SourceKind
from plangate.engine.values import INT64_MAX
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import TrackEvent
from plangate.shapes import Actor, OverrideState, OverrideView
from tests.world import ACTOR, DOCUMENT, make_company, publish, still

ACME = {"id": "acme"}


async def _grant(environment: Environment, company_id: str, **said: Any) -> OverrideView:  # noqa: ANN401 - any option
    options = {"feature": "exports", "note": "Goodwill", "actor": ACTOR, **said}
    return await overrides.grant(environment, company_id, **options)


async def _check(environment: Environment, feature: str = "exports") -> Decision:
    return await access.check(environment, company=ACME, feature=feature)


async def test_add_counts_on_top_until_it_expires(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    granted = await _grant(
        environment, company.id, mode="add", value=500, expires_at=clock.at + timedelta(days=7), note="A week"
    )
    assert (granted.state, granted.company, granted.mode, granted.value) == ("active", company.id, "add", 500)
    assert (granted.author, granted.note, granted.revoked_at) == (ACTOR, "A week", None)
    assert (await _check(environment)).limit == 510
    clock.advance(days=8)
    assert (await _check(environment)).limit == 10
    assert (await overrides.listing(environment, company.id))[0].state is OverrideState.EXPIRED


async def test_o1_an_override_ends_at_its_instant_in_memory_too(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    expires_at = clock.at + timedelta(hours=1)
    await _grant(environment, company.id, value=50, expires_at=expires_at)
    standing = await environment.standings.of(company.id)
    assert standing is not None
    last = expires_at - timedelta(microseconds=1)
    assert access.check_now(environment, standing, "exports", at=last).limit == 50
    assert access.check_now(environment, standing, "exports", at=expires_at).limit == 10


async def test_o2_of_an_override_and_the_plan_the_more_generous_applies(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    less = await _grant(environment, company.id, value=5)
    decision = await _check(environment)
    assert (decision.limit, decision.source and decision.source.kind) == (10, SourceKind.PLAN)
    more = await overrides.edit(environment, less.id, etag=less.etag, changes={"value": 50}, actor=ACTOR)
    decision = await _check(environment)
    assert (decision.limit, decision.source and decision.source.key) == (50, more.id)
    await overrides.edit(environment, more.id, etag=more.etag, changes={"value": "unlimited"}, actor=ACTOR)
    assert (await _check(environment)).unlimited


async def test_a_scheduled_override_begins_at_its_instant(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    granted = await _grant(environment, company.id, value=50, starts_at=clock.at + timedelta(hours=1))
    assert granted.state is OverrideState.SCHEDULED
    assert (await _check(environment)).limit == 10
    clock.advance(hours=1)
    decision = await _check(environment)
    assert (decision.limit, decision.source and decision.source.kind) == (50, SourceKind.OVERRIDE)
    assert (await overrides.get(environment, granted.id)).state is OverrideState.ACTIVE


async def test_o4_two_of_one_mode_may_not_overlap(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    end = clock.at + timedelta(days=1)
    first = await _grant(environment, company.id, value=50, expires_at=end)
    with pytest.raises(Refusal) as caught:
        await _grant(environment, company.id, value=60)
    assert (caught.value.code, caught.value.status) == (Code.OVERRIDE_OVERLAP, 409)
    assert caught.value.extra == {"override": first.id}
    # Another mode, another feature, another user, and the time after it are free.
    await _grant(environment, company.id, mode="add", value=1)
    await _grant(environment, company.id, feature="api-calls", value=60)
    await companies.upsert_user(environment, keys={"id": "ada"}, companies=[ACME])
    await _grant(environment, company.id, value=60, user={"id": "ada"})
    later = await _grant(environment, company.id, value=70, starts_at=end, expires_at=end + timedelta(days=1))
    with pytest.raises(Refusal) as caught:
        await overrides.edit(
            environment, first.id, etag=first.etag, changes={"expires_at": end + timedelta(hours=1)}, actor=ACTOR
        )
    assert caught.value.extra == {"override": later.id}
    await overrides.revoke(environment, later.id, note="Not needed", actor=ACTOR)
    edited = await overrides.edit(
        environment, first.id, etag=first.etag, changes={"expires_at": end + timedelta(hours=1)}, actor=ACTOR
    )
    assert edited.expires_at == end + timedelta(hours=1)


async def test_of_many_granted_at_once_exactly_one_stands(deployment: Deployment, environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    other = await Deployment.open(deployment.settings)
    try:
        both = (environment, other.named(None))
        answers = await asyncio.gather(
            *(_grant(both[number % 2], company.id, value=number) for number in range(10)), return_exceptions=True
        )
    finally:
        await other.close()
    assert sum(isinstance(one, OverrideView) for one in answers) == 1
    assert sum(isinstance(one, Refusal) and one.code is Code.OVERRIDE_OVERLAP for one in answers) == 9


async def test_o7_every_step_is_in_the_history_with_both_sides(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    agent = Actor(kind="stripe_user", id="usr_1")
    granted = await _grant(environment, company.id, value=50, actor=agent)
    edited = await overrides.edit(
        environment, granted.id, etag=granted.etag, changes={"value": 60, "note": "More"}, actor=agent
    )
    await overrides.revoke(environment, granted.id, note="Enough", actor=agent)
    revoked, changed, made, _ = await companies.history(environment, company.id)
    assert [one.action for one in (made, changed, revoked)] == [
        "override.granted",
        "override.edited",
        "override.revoked",
    ]
    assert all(one.actor == agent and one.subject == granted.id for one in (made, changed, revoked))
    assert (made.before, changed.before["value"], changed.after["value"]) == (None, 50, 60)
    assert (changed.note, revoked.note) == ("More", "Enough")
    assert (revoked.before["state"], revoked.after["state"]) == ("active", "revoked")
    assert edited.etag != granted.etag


async def test_an_edit_of_a_state_nobody_sees_any_more_is_lost(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    granted = await _grant(environment, company.id, value=50)
    await overrides.edit(environment, granted.id, etag=granted.etag, changes={"value": 60}, actor=ACTOR)
    for etag, code in ((granted.etag, Code.ETAG_MISMATCH), (None, Code.ETAG_REQUIRED)):
        with pytest.raises(Refusal) as caught:
            await overrides.edit(environment, granted.id, etag=etag, changes={"value": 70}, actor=ACTOR)
        assert caught.value.code is code
    assert (await _check(environment)).limit == 60


async def test_revoking_ends_it_at_once_and_for_good(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    granted = await _grant(environment, company.id, mode="deny")
    assert (await _check(environment)).reason is Reason.OVERRIDE_DENIED
    revoked = await overrides.revoke(environment, granted.id, note="Cleared", actor=ACTOR)
    assert (revoked.state, (await _check(environment)).reason) == (OverrideState.REVOKED, Reason.WITHIN_LIMIT)
    assert revoked.revoked_at is not None
    again = await overrides.revoke(environment, granted.id, note="Again", actor=ACTOR)
    assert again == revoked
    with pytest.raises(Refusal) as caught:
        await overrides.edit(environment, granted.id, etag=revoked.etag, changes={"note": "x"}, actor=ACTOR)
    assert caught.value.status == 422
    assert [one.id for one in await overrides.listing(environment, company.id)] == [granted.id]


async def test_o14_an_archived_feature_answers_no_and_takes_no_override(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await _grant(environment, company.id, feature="sso", value=True)
    assert (await _check(environment, "sso")).allowed
    features = {**DOCUMENT["features"], "sso": {**DOCUMENT["features"]["sso"], "archived": True}}
    await publish(environment, {**DOCUMENT, "features": features})
    decision = await _check(environment, "sso")
    assert (decision.allowed, decision.reason) == (False, Reason.ARCHIVED_FEATURE)
    with pytest.raises(Refusal) as caught:
        await _grant(environment, company.id, feature="sso", mode="deny")
    assert caught.value.errors[0].pointer == "/feature"


GOOD: list[Mapping[str, Any]] = [
    {"feature": "sso", "value": True},
    {"feature": "sso", "value": False},
    {"feature": "sso", "mode": "deny"},
    {"feature": "exports", "value": 0},
    {"feature": "exports", "value": INT64_MAX},
    {"feature": "exports", "value": "unlimited"},
    {"feature": "exports", "value": 5, "period": "day"},
    {"feature": "seats", "mode": "add", "value": 2},
    {"feature": "max-upload", "value": 2.5},
    {"feature": "theme", "value": "dark"},
    {"feature": "layout", "value": {"columns": [1, 2]}},
]
BAD: list[tuple[str, Mapping[str, Any]]] = [
    ("/value", {"feature": "sso", "value": 1}),
    ("/value", {"feature": "sso", "value": None}),
    ("/mode", {"feature": "sso", "mode": "add", "value": 1}),
    ("/value", {"feature": "sso", "mode": "deny", "value": True}),
    ("/value", {"value": -1}),
    ("/value", {"value": INT64_MAX + 1}),
    ("/value", {"value": True}),
    ("/value", {"value": 1.5}),
    ("/value", {"value": "many"}),
    ("/value", {"mode": "add", "value": 0}),
    ("/value", {"mode": "add", "value": "unlimited"}),
    ("/mode", {"mode": "take", "value": 1}),
    ("/period", {"value": 1, "period": "fortnight"}),
    ("/period", {"feature": "seats", "value": 1, "period": "day"}),
    ("/mode", {"feature": "theme", "mode": "add", "value": 1}),
    ("/value", {"feature": "theme", "value": 1}),
    ("/value", {"feature": "max-upload", "value": "1"}),
    ("/value", {"feature": "max-upload", "value": float("inf")}),
    ("/value", {"feature": "max-upload", "value": float("nan")}),
    ("/value", {"feature": "layout", "value": "x" * 20_000}),
    ("/value", {"feature": "layout", "value": None}),
    ("/feature", {"feature": "nothing", "value": 1}),
    ("/note", {"value": 1, "note": " "}),
    ("/note", {"value": 1, "note": "x" * 2_001}),
    ("/note", {"value": 1, "note": "a\x00"}),
    ("/user", {"value": 1, "user": {"id": "nobody"}}),
    ("/user", {"value": 1, "user": "usr_nobody"}),
]


@pytest.mark.parametrize("said", GOOD, ids=str)
async def test_values_that_fit_their_feature_are_granted(environment: Environment, said: Mapping[str, Any]) -> None:
    await publish(environment)
    company = await make_company(environment)
    granted = await _grant(environment, company.id, **said)
    (listed,) = await overrides.listing(environment, company.id)
    assert listed == granted
    assert (granted.value, granted.feature) == (said.get("value"), said["feature"])


async def test_values_that_do_not_fit_are_refused_at_their_field(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    for pointer, said in BAD:
        with pytest.raises(Refusal) as caught:
            await _grant(environment, company.id, **said)
        assert (caught.value.status, caught.value.errors[0].pointer) == (422, pointer), said
    assert await overrides.listing(environment, company.id) == []


async def test_times_that_make_no_sense_are_refused(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    hour = timedelta(hours=1)
    for said in (
        {"expires_at": clock.at - hour},
        {"starts_at": clock.at + 2 * hour, "expires_at": clock.at + hour},
        {"expires_at": (clock.at + hour).replace(tzinfo=None)},
        {"starts_at": (clock.at + hour).replace(tzinfo=None)},
    ):
        with pytest.raises(Refusal) as caught:
            await _grant(environment, company.id, value=1, **said)
        assert caught.value.status == 422
    granted = await _grant(environment, company.id, value=1, starts_at=clock.at - hour)
    # What was answered before cannot change any more: a start in the past means now.
    assert granted.starts_at > clock.at - timedelta(seconds=1)


async def test_edits_out_of_bounds_are_refused(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    granted = await _grant(environment, company.id, value=5)
    for changes in ({}, {"mode": "deny"}, {"value": "x"}, {"note": ""}, {"period": "x"}, {"feature": "sso"}):
        with pytest.raises(Refusal) as caught:
            await overrides.edit(environment, granted.id, etag="*", changes=changes, actor=ACTOR)
        assert caught.value.status == 422
    assert await overrides.get(environment, granted.id) == granted


async def test_unknown_ids_are_not_found(environment: Environment) -> None:
    await publish(environment)
    for attempt in (
        _grant(environment, "comp_unknown", value=1),
        overrides.listing(environment, "comp_unknown"),
        overrides.get(environment, "ovr_unknown"),
        overrides.edit(environment, "ovr_unknown", etag="r1", changes={"value": 1}, actor=ACTOR),
        overrides.revoke(environment, "ovr_unknown", note="x", actor=ACTOR),
    ):
        with pytest.raises(Refusal) as caught:
            await attempt
        assert caught.value.code is Code.NOT_FOUND


async def test_a_period_not_counted_before_shows_what_was_already_used(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await metering.record(environment, [TrackEvent(event="export", company=ACME, quantity=10)])
    await _grant(environment, company.id, value=25, period="day")
    decision = await _check(environment)
    assert (decision.limit, decision.used, decision.period and decision.period.kind) == (25, 10, "day")
    answer, is_counted = await metering.consume(
        environment, company=ACME, feature="exports", quantity=16, idempotency_key="k"
    )
    assert (is_counted, answer.used) == (False, 10)


async def test_a_user_has_an_allowance_of_their_own(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await companies.upsert_user(environment, keys={"id": "ada"}, companies=[ACME])
    ada = {"id": "ada"}
    await metering.record(environment, [TrackEvent(event="export", company=ACME, user=ada, quantity=8)])
    await _grant(environment, company.id, value=50, user=ada)
    assert (await _check(environment)).remaining == 2
    decision = await access.check(environment, company=ACME, user=ada, feature="exports")
    assert (decision.limit, decision.used, decision.remaining) == (50, 8, 42)
    answer, is_counted = await metering.consume(
        environment, company=ACME, user=ada, feature="exports", quantity=42, idempotency_key="a"
    )
    assert (is_counted, answer.used) == (True, 50)
    answer, is_counted = await metering.consume(
        environment, company=ACME, user=ada, feature="exports", idempotency_key="b"
    )
    assert (is_counted, answer.reason) == (False, Reason.LIMIT_REACHED)
    decision = await access.check(environment, company=ACME, user=ada, feature="exports")
    assert (decision.allowed, decision.used) == (False, 50)
