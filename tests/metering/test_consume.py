"""Consume: yes and counted, or no and not counted, once per key, exactly up to the limit."""

import asyncio
from datetime import timedelta

import pytest

from plangate import access, metering, overrides
from plangate.deployment import Deployment
from plangate.engine.decision import Decision, Reason
from plangate.engine.values import INT64_MAX, PeriodKind
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import EventStatus, TrackEvent
from plangate.store.ledger import ledger_total
from plangate.store.usage import newest_windows
from tests.world import ACTOR, make_company, publish, put_on, still

ACME = {"id": "acme"}


async def _consume(environment: Environment, key: str, quantity: int = 1, **more: object) -> tuple[Decision, bool]:
    arguments: dict[str, object] = {"company": ACME, "feature": "exports", **more}
    return await metering.consume(
        environment,
        quantity=quantity,
        idempotency_key=key,
        **arguments,  # type: ignore[arg-type]  # keyword options
    )


async def test_a_hard_limit_is_counted_to_the_last_unit(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    decision, is_counted = await _consume(environment, "one", 9)
    assert (decision.allowed, is_counted, decision.used, decision.remaining) == (True, True, 9, 1)
    refused, is_counted = await _consume(environment, "two", 2)
    assert (refused.allowed, refused.reason, is_counted) == (False, Reason.LIMIT_REACHED, False)
    assert (refused.used, refused.remaining) == (9, 1)
    decision, is_counted = await _consume(environment, "three", 1)
    assert (decision.allowed, is_counted, decision.used, decision.remaining) == (True, True, 10, 0)
    check = await access.check(environment, company=ACME, feature="exports")
    assert (check.allowed, check.reason, check.used, check.limit) == (False, Reason.LIMIT_REACHED, 10, 10)


async def test_u1_a_retry_answers_as_the_first_did_and_counts_once(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    first = await _consume(environment, "key", 4)
    await _consume(environment, "other", 1)
    assert await _consume(environment, "key", 4) == first
    check = await access.check(environment, company=ACME, feature="exports")
    assert check.used == 5


async def test_u2_the_same_key_with_another_body_is_a_conflict(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    await _consume(environment, "key", 4)
    with pytest.raises(Refusal) as caught:
        await _consume(environment, "key", 5)
    assert caught.value.code is Code.IDEMPOTENCY_CONFLICT
    assert caught.value.status == 409
    results = await metering.record(
        environment, [TrackEvent(event="export", company=ACME, quantity=4, idempotency_key="key")]
    )
    assert results[0].code is Code.IDEMPOTENCY_CONFLICT
    assert (await access.check(environment, company=ACME, feature="exports")).used == 4


async def test_a_refused_consume_does_not_use_up_its_key(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    assert (await _consume(environment, "key", 11))[1] is False
    await overrides.grant(
        environment, company.id, feature="exports", mode="add", value=5, note="A week of goodwill", actor=ACTOR
    )
    decision, is_counted = await _consume(environment, "key", 11)
    assert (is_counted, decision.limit, decision.used) == (True, 15, 11)


@pytest.mark.parametrize("quantity", [0, -1, INT64_MAX + 1])
async def test_u15_quantities_outside_the_range_are_refused(environment: Environment, quantity: int) -> None:
    with pytest.raises(Refusal) as caught:
        await _consume(environment, "key", quantity)
    assert caught.value.status == 422


async def test_u15_a_sum_that_leaves_64_bits_is_refused_and_counts_nothing(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await put_on(environment, company.id, "pro")
    assert (await _consume(environment, "one", INT64_MAX, feature="api-calls"))[1] is True
    with pytest.raises(Refusal) as caught:
        await _consume(environment, "two", 1, feature="api-calls")
    assert caught.value.status == 422
    check = await access.check(environment, company=ACME, feature="api-calls")
    assert (check.used, check.allowed) == (INT64_MAX, True)


async def test_unknown_things_are_reasons_and_count_nothing(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    decision, is_counted = await _consume(environment, "a", company={"id": "nobody"})
    assert (decision.reason, is_counted) == (Reason.UNKNOWN_COMPANY, False)
    decision, is_counted = await _consume(environment, "a", feature="nothing")
    assert (decision.reason, is_counted) == (Reason.UNKNOWN_FEATURE, False)
    decision, is_counted = await _consume(environment, "a", user={"id": "nobody"})
    assert (decision.reason, is_counted) == (Reason.UNKNOWN_USER, False)
    decision, is_counted = await _consume(environment, "a", feature="seats")
    assert (decision.allowed, is_counted) == (False, False)
    assert (await _consume(environment, "a"))[1] is True


async def test_u12_usage_survives_a_change_of_plan(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await _consume(environment, "one", 10)
    assert (await _consume(environment, "two"))[0].reason is Reason.LIMIT_REACHED
    await put_on(environment, company.id, "pro")
    decision, is_counted = await _consume(environment, "two")
    assert (is_counted, decision.limit, decision.used) == (True, 1000, 11)


async def test_a_late_consume_is_decided_by_the_period_it_lies_in(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    clock.advance(days=1)
    yesterday = clock.at - timedelta(hours=23)
    assert (await _consume(environment, "one", 100, feature="api-calls"))[1] is True
    assert (await _consume(environment, "two", 1, feature="api-calls"))[1] is False
    decision, is_counted = await _consume(environment, "three", 40, feature="api-calls", occurred_at=yesterday)
    assert (is_counted, decision.used, decision.remaining) == (True, 40, 60)
    decision, is_counted = await _consume(environment, "four", 61, feature="api-calls", occurred_at=yesterday)
    assert (is_counted, decision.used) == (False, 40)
    assert (await access.check(environment, company=ACME, feature="api-calls")).used == 100
    async with environment.reading() as session:
        windows = await newest_windows(session, [company.id])
        newest = windows[company.id, "api-calls", PeriodKind.DAY, ""]
    assert newest.used == 100


async def test_u11_two_thousand_at_once_admit_exactly_the_limit(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await overrides.grant(environment, company.id, feature="exports", value=100, note="Load", actor=ACTOR)
    answers = await asyncio.gather(*(_consume(environment, f"key-{number}") for number in range(2_000)))
    assert sum(is_counted for _, is_counted in answers) == 100
    assert sum(decision.allowed for decision, _ in answers) == 100
    assert (await access.check(environment, company=ACME, feature="exports")).used == 100
    async with environment.reading() as session:
        assert await ledger_total(session, company.id, "export", start_at=None, end_at=None) == 100


async def test_u11_two_processes_admit_exactly_the_limit(deployment: Deployment, environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await overrides.grant(environment, company.id, feature="exports", value=100, note="Load", actor=ACTOR)
    other = await Deployment.open(deployment.settings)
    try:
        second = other.named(None)
        await second.standings.of(company.id)
        answers = await asyncio.gather(
            *(_consume((environment, second)[number % 2], f"key-{number // 2 * 2}") for number in range(600))
        )
        assert len({id(answer) for answer in answers}) == 600
        async with environment.reading() as session:
            assert await ledger_total(session, company.id, "export", start_at=None, end_at=None) == 100
        # Each key was sent through both: a repeat answers as the first did, and counts once.
        assert sum(is_counted for _, is_counted in answers) == 200
    finally:
        await other.close()


async def test_a_revocation_made_elsewhere_is_seen_by_the_next_consume(
    deployment: Deployment, environment: Environment
) -> None:
    await publish(environment)
    company = await make_company(environment)
    other = await Deployment.open(deployment.settings)
    try:
        second = other.named(None)
        for number in range(5):
            granted = await overrides.grant(
                environment, company.id, feature="exports", mode="deny", note="Abuse", actor=ACTOR
            )
            decision, is_counted = await _consume(second, f"denied-{number}")
            assert (decision.reason, is_counted) == (Reason.OVERRIDE_DENIED, False)
            await overrides.revoke(environment, granted.id, note="Cleared", actor=ACTOR)
            assert (await _consume(second, f"allowed-{number}"))[1] is True
    finally:
        await other.close()


async def test_usage_of_a_new_period_starts_at_nothing(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    await make_company(environment)
    await _consume(environment, "one", 10)
    clock.advance(days=30)
    decision, is_counted = await _consume(environment, "two", 1)
    assert (is_counted, decision.used) == (True, 1)
    assert decision.period is not None
    assert decision.period.start is not None
    assert decision.period.start.day == 20


async def test_one_bad_item_does_not_fail_its_batch_mates(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await put_on(environment, company.id, "pro")
    await metering.record(environment, [TrackEvent(event="api-calls", company=ACME, quantity=INT64_MAX)])
    good = TrackEvent(event="export", company=ACME)
    results = await metering.record(
        environment,
        [good, TrackEvent(event="api-calls", company=ACME), TrackEvent(event="", company=ACME), good],
    )
    assert [one.status for one in results] == [
        EventStatus.ACCEPTED,
        EventStatus.REFUSED,
        EventStatus.REFUSED,
        EventStatus.ACCEPTED,
    ]
    assert (await access.check(environment, company=ACME, feature="exports")).used == 2
