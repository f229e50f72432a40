"""Overrides across companies: granted to many, found by when they end, and every state they had."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from plangate import access, companies, overrides
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.shapes import Actor, OverrideState, OverrideView
from tests.world import ACTOR, DOCUMENT, make_company, publish, put_on, still

AGENT = Actor(kind="stripe_user", id="usr_1")


async def _grant(environment: Environment, company_id: str, **said: Any) -> OverrideView:  # noqa: ANN401 - any option
    options = {"feature": "exports", "mode": "add", "value": 5, "note": "Goodwill", "actor": ACTOR, **said}
    return await overrides.grant(environment, company_id, **options)


async def _grant_many(
    environment: Environment,
    chosen: list[Mapping[str, str] | str],
    **said: Any,  # noqa: ANN401 - any option
) -> list[overrides.Granted]:
    options = {"feature": "exports", "mode": "add", "value": 5, "note": "Outage", "actor": ACTOR, **said}
    return await overrides.grant_to_many(environment, chosen, **options)


async def test_many_companies_are_granted_the_same_each_with_its_own_result(environment: Environment) -> None:
    still(environment)
    await publish(environment)
    made = [await make_company(environment, f"c{number:02}") for number in range(60)]
    mine = await _grant(environment, made[7].id)
    results = await _grant_many(
        environment, [*({"id": f"c{number:02}"} for number in range(59)), made[59].id, "comp_nobody", {"id": "nobody"}]
    )
    refused = [(one.company, one.code) for one in results if one.status == "refused"]
    assert refused == [
        (made[7].id, Code.OVERRIDE_OVERLAP),
        ("comp_nobody", Code.NOT_FOUND),
        ({"id": "nobody"}, Code.NOT_FOUND),
    ]
    assert [one.company for one in results[:60]] == [one.id for one in made]
    granted = [one.override for one in results if one.override is not None]
    assert len(granted) == 59
    for number in (0, 7, 59):
        decision = await access.check(environment, company={"id": f"c{number:02}"}, feature="exports")
        assert decision.limit == 15
    assert await overrides.listing(environment, made[7].id) == [mine]
    assert (await companies.history(environment, made[0].id))[0].action == "override.granted"


async def test_a_grant_that_fits_nobody_is_refused_as_a_whole(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    for chosen, said, pointer in (
        ([company.id], {"feature": "nothing"}, "/feature"),
        ([company.id], {"value": "many"}, "/value"),
        ([], {}, "/companies"),
        ([company.id] * 1_001, {}, "/companies"),
    ):
        with pytest.raises(Refusal) as caught:
            await _grant_many(environment, list(chosen), **said)
        assert (caught.value.status, caught.value.errors[0].pointer) == (422, pointer)
    assert await overrides.listing(environment, company.id) == []


async def test_the_companies_of_a_plan_are_found(environment: Environment) -> None:
    await publish(environment)
    made = [await make_company(environment, f"c{number}") for number in range(4)]
    await put_on(environment, made[2].id, "pro")
    assert await overrides.companies_on_plan(environment, "pro") == ([made[2].id], None)
    found, cursor = await overrides.companies_on_plan(environment, "free", after=made[0].id)
    assert (found, cursor) == ([one.id for one in made[1:] if one is not made[2]], None)
    with pytest.raises(Refusal) as caught:
        await overrides.companies_on_plan(environment, "nothing")
    assert caught.value.errors[0].pointer == "/plan"


async def test_those_that_end_soon_come_first(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    made = [await make_company(environment, f"c{number}") for number in range(6)]
    days = (5, 1, 40, 3, 2, 5)
    granted = []
    for company, count in zip(made, days, strict=True):
        clock.advance(seconds=1)
        granted.append(await _grant(environment, company.id, expires_at=clock.at + timedelta(days=count)))
    await overrides.revoke(environment, granted[4].id, note="Enough", actor=ACTOR)
    endless = await _grant(environment, made[0].id, feature="api-calls", mode="set", value=5)
    soon = clock.at + timedelta(days=30)
    page, cursor = await overrides.search(environment, expires_before=soon, limit=3)
    rest, end = await overrides.search(environment, expires_before=soon, cursor=cursor, limit=3)
    assert [one.id for one in (*page, *rest)] == [granted[number].id for number in (1, 3, 0, 5)]
    assert end is None
    revoked, _ = await overrides.search(environment, expires_before=soon, state=OverrideState.REVOKED)
    assert [one.id for one in revoked] == [granted[4].id]
    clock.advance(days=1, seconds=1)
    expired, _ = await overrides.search(environment, state=OverrideState.EXPIRED)
    assert [(one.id, one.state) for one in expired] == [(granted[1].id, OverrideState.EXPIRED)]
    active, cursor = await overrides.search(environment, state=OverrideState.ACTIVE, limit=2)
    assert active[0].id == endless.id
    more, end = await overrides.search(environment, state=OverrideState.ACTIVE, cursor=cursor)
    assert (len(active) + len(more), end) == (5, None)
    assert [one.id for one in (await overrides.search(environment, feature="api-calls"))[0]] == [endless.id]
    for wrong in ({"cursor": "x"}, {"cursor": cursor, "expires_before": soon}, {"limit": 0}):
        with pytest.raises(Refusal) as caught:
            await overrides.search(environment, **wrong)
        assert caught.value.status == 422


async def test_o7_every_state_is_kept_with_who_made_it_and_why(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    acme, twin = await make_company(environment), await make_company(environment, "twin")
    end = clock.at + timedelta(days=9)
    granted = await _grant(environment, twin.id, expires_at=end, actor=AGENT)
    clock.advance(days=1)
    edited = await overrides.edit(
        environment, granted.id, etag=granted.etag, changes={"expires_at": None, "value": 8}, actor=ACTOR
    )
    assert (edited.expires_at, edited.value, edited.etag) == (None, 8, "r2")
    clock.advance(days=1)
    await companies.merge(environment, acme.id, twin.id, actor=ACTOR)
    await overrides.revoke(environment, granted.id, note="Enough", actor=AGENT)
    revoked, moved, changed, made = await overrides.changes(environment, granted.id)
    assert [one.action for one in (made, changed, moved, revoked)] == [
        "override.granted",
        "override.edited",
        "company.merged",
        "override.revoked",
    ]
    assert [one.actor for one in (made, changed, moved, revoked)] == [AGENT, ACTOR, ACTOR, AGENT]
    assert (made.override, made.superseded_at) == (granted, changed.recorded_at)
    assert (changed.override, moved.override.company, revoked.note) == (edited, acme.id, "Enough")
    assert (revoked.override.state, revoked.superseded_at) == (OverrideState.REVOKED, None)
    with pytest.raises(Refusal) as caught:
        await overrides.changes(environment, "ovr_unknown")
    assert caught.value.code is Code.NOT_FOUND


async def test_dates_and_period_are_edited_until_it_begins(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    start, end = clock.at + timedelta(days=1), clock.at + timedelta(days=5)
    granted = await _grant(environment, company.id, mode="set", value=50, period="day", starts_at=start, expires_at=end)
    edited = await overrides.edit(
        environment,
        granted.id,
        etag=granted.etag,
        changes={"starts_at": start + timedelta(days=1), "expires_at": None, "period": None, "note": "Later"},
        actor=ACTOR,
    )
    assert (edited.starts_at, edited.expires_at, edited.period, edited.note) == (
        start + timedelta(days=1),
        None,
        None,
        "Later",
    )
    clock.advance(days=3)
    with pytest.raises(Refusal) as caught:
        await overrides.edit(environment, granted.id, etag=edited.etag, changes={"starts_at": start}, actor=ACTOR)
    assert caught.value.errors[0].pointer == "/starts_at"
    assert (await access.check(environment, company={"id": "acme"}, feature="exports")).limit == 50


async def test_a_config_value_must_fit_its_schema(environment: Environment) -> None:
    schema = {
        "type": "object",
        "required": ["columns"],
        "properties": {"columns": {"type": "integer", "minimum": 1}},
        "additionalProperties": False,
    }
    layout = {**DOCUMENT["features"]["layout"], "config_schema": schema}
    await publish(environment, {**DOCUMENT, "features": {**DOCUMENT["features"], "layout": layout}})
    company = await make_company(environment)
    for value, pointer in (
        ({"columns": 0}, "/value/columns"),
        ({"columns": 1, "rows": 2}, "/value/rows"),
        ({}, "/value"),
        ([], "/value"),
    ):
        with pytest.raises(Refusal) as caught:
            await _grant(environment, company.id, feature="layout", mode="set", value=value)
        assert caught.value.status == 422
        assert caught.value.errors[0].pointer.startswith(pointer), caught.value.errors
    granted = await _grant(environment, company.id, feature="layout", mode="set", value={"columns": 3})
    decision = await access.check(environment, company={"id": "acme"}, feature="layout")
    assert decision.value == granted.value == {"columns": 3}
