"""A published change reaches companies that are in memory at once, and loses nothing that is counted there."""

import copy
from typing import Any

import pytest

from plangate import access, catalog, metering
from plangate.environment import Environment
from tests.world import ACTOR, DOCUMENT, make_company, publish, put_on


def exports(limit: int) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(dict(DOCUMENT))
    document["plans"]["pro"]["entitlements"]["exports"]["limit"] = limit
    return document


def used(quantity: int, key: str) -> list[metering.TrackEvent]:
    return [metering.TrackEvent(event="export", company={"id": "acme"}, quantity=quantity, idempotency_key=key)]


async def test_the_next_decision_needs_no_read_of_the_company(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(environment)
    acme = await make_company(environment)
    await put_on(environment, acme.id, "pro")
    await metering.record(environment, used(3, "a"))
    before = await access.check(environment, company={"id": "acme"}, feature="exports")
    await catalog.apply(environment, exports(5), actor=ACTOR)

    async def unasked(company_id: str) -> Any:  # noqa: ANN401 - it never answers
        raise AssertionError(f"{company_id} was read again")

    monkeypatch.setattr(environment.standings, "_load", unasked)
    after = await access.check(environment, company={"id": "acme"}, feature="exports")
    assert (before.limit, before.used) == (1_000, 3)
    assert (after.limit, after.used, after.remaining) == (5, 3, 2)
    assert environment.standings.held(acme.id) is not None


async def test_usage_counted_after_a_publication_and_before_the_next_question_counts(environment: Environment) -> None:
    await publish(environment)
    acme = await make_company(environment)
    await put_on(environment, acme.id, "pro")
    await metering.record(environment, used(3, "a"))
    await access.check(environment, company={"id": "acme"}, feature="exports")
    for number in range(3):
        await catalog.apply(environment, exports(10 + number), actor=ACTOR)
        await metering.record(environment, used(1, f"b{number}"))
        decision = await access.check(environment, company={"id": "acme"}, feature="exports")
        assert (decision.limit, decision.used) == (10 + number, 4 + number)


async def test_facts_changed_after_a_publication_are_read(environment: Environment) -> None:
    await publish(environment)
    acme = await make_company(environment)
    await put_on(environment, acme.id, "pro")
    await access.check(environment, company={"id": "acme"}, feature="exports")
    await catalog.apply(environment, exports(5), actor=ACTOR)
    await put_on(environment, acme.id, "free")
    assert (await access.check(environment, company={"id": "acme"}, feature="exports")).limit == 10
