"""Reservations: an estimate held against the limit, settled with the real number, never lost and never leaked."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from plangate import access, companies, metering, overrides
from plangate.deployment import Deployment
from plangate.engine.decision import Reason
from plangate.engine.values import INT64_MAX
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import Reserved, TrackEvent
from plangate.store.ledger import ledger_total
from plangate.store.reservations import held_total
from plangate.store.usage import usage_windows
from tests.world import ACTOR, StillClock, make_company, publish, put_on, still

ACME = {"id": "acme"}


@pytest.fixture
async def acme(environment: Environment) -> Environment:
    """An environment with the company acme, which may export ten times a month."""
    await publish(environment)
    await make_company(environment)
    return environment


async def _reserve(environment: Environment, quantity: int, *, seconds: int = 60) -> Reserved:
    return await metering.reserve(
        environment, company=ACME, feature="exports", quantity=quantity, time_to_live=timedelta(seconds=seconds)
    )


async def _held(environment: Environment, quantity: int, *, seconds: int = 60) -> str:
    answer = await _reserve(environment, quantity, seconds=seconds)
    assert answer.id is not None
    return answer.id


async def _figures(environment: Environment) -> tuple[int | None, int | None, int | None]:
    check = await access.check(environment, company=ACME, feature="exports")
    return check.used, check.reserved, check.remaining


async def _counters_equal_their_sources(environment: Environment, company_id: str) -> None:
    events = {"exports": "export", "api-calls": "api-calls"}
    async with environment.reading() as session:
        for row in await session.all(select(usage_windows)):
            bounds = {"start_at": row["start_at"], "end_at": row["end_at"], "user_id": row["user_id"]}
            event = events[row["feature"]]
            assert row["used"] == await ledger_total(session, company_id, event, **bounds)
            assert row["reserved"] == await held_total(session, company_id, event, **bounds)


async def test_what_is_held_counts_against_the_limit(acme: Environment) -> None:
    answer = await _reserve(acme, 7)
    assert answer.expires_at is not None
    decision = answer.decision
    assert (decision.allowed, decision.used, decision.reserved, decision.remaining) == (True, 0, 7, 3)
    assert await _figures(acme) == (0, 7, 3)
    refused, is_counted = await metering.consume(
        acme, company=ACME, feature="exports", quantity=4, idempotency_key="four"
    )
    assert (refused.reason, is_counted, refused.remaining) == (Reason.LIMIT_REACHED, False, 3)
    no = await _reserve(acme, 4)
    assert (no.id, no.expires_at, no.decision.allowed) == (None, None, False)
    assert await _figures(acme) == (0, 7, 3)


async def test_a_partial_settlement_gives_the_rest_back_and_repeats_alike(acme: Environment) -> None:
    held = await _held(acme, 8)
    closed = await metering.settle(acme, held, 3)
    assert (closed.state, closed.reserved, closed.quantity, closed.overrun) == ("settled", 8, 3, 0)
    assert (closed.decision.used, closed.decision.reserved, closed.decision.remaining) == (3, 0, 7)
    assert await metering.settle(acme, held, 3) == closed
    assert await _figures(acme) == (3, 0, 7)
    with pytest.raises(Refusal) as caught:
        await metering.settle(acme, held, 4)
    assert (caught.value.code, caught.value.status) == (Code.RESERVATION_CLOSED, 409)
    with pytest.raises(Refusal) as caught:
        await metering.release(acme, held)
    assert caught.value.status == 409
    assert await _figures(acme) == (3, 0, 7)


async def test_an_overrun_is_counted_in_full_and_kept_as_debt(acme: Environment) -> None:
    held = await _held(acme, 4)
    other = await _held(acme, 5)
    closed = await metering.settle(acme, held, 25)
    # Ten are allowed and five are held for others: five of the 25 had room.
    assert (closed.quantity, closed.overrun) == (25, 20)
    assert await _figures(acme) == (25, 5, 0)
    assert (await metering.settle(acme, other, 5)).overrun == 5
    assert await _figures(acme) == (30, 0, 0)


async def test_release_gives_everything_back_once(acme: Environment) -> None:
    held = await _held(acme, 10)
    closed = await metering.release(acme, held)
    assert (closed.state, closed.quantity) == ("released", None)
    assert await metering.release(acme, held) == closed
    assert await _figures(acme) == (0, 0, 10)
    with pytest.raises(Refusal) as caught:
        await metering.settle(acme, held, 1)
    assert caught.value.code is Code.RESERVATION_CLOSED


async def test_room_of_an_expired_reservation_is_taken_in_the_transaction_that_needs_it(acme: Environment) -> None:
    clock = still(acme)
    await _held(acme, 10, seconds=30)
    clock.advance(seconds=29)
    assert (await _reserve(acme, 1)).id is None
    clock.advance(seconds=2)
    answer, is_counted = await metering.consume(
        acme, company=ACME, feature="exports", quantity=10, idempotency_key="ten"
    )
    assert (is_counted, answer.used, answer.reserved) == (True, 10, 0)


async def test_the_worker_gives_back_what_nobody_asked_for(acme: Environment) -> None:
    clock = still(acme)
    held = await _held(acme, 6, seconds=30)
    assert await metering.release_expired(acme) == 0
    clock.advance(seconds=31)
    assert await metering.release_expired(acme) == 1
    assert await metering.release_expired(acme) == 0
    assert await _figures(acme) == (0, 0, 10)
    # It may still be released, which changes nothing.
    assert (await metering.release(acme, held)).state == "released"
    assert await _figures(acme) == (0, 0, 10)


async def test_a_settlement_after_expiry_is_still_counted(acme: Environment) -> None:
    clock = still(acme)
    first, second = await _held(acme, 4, seconds=10), await _held(acme, 5, seconds=10)
    clock.advance(minutes=10)
    assert (await metering.settle(acme, first, 4)).overrun == 0
    assert await _figures(acme) == (4, 0, 6)
    await metering.consume(acme, company=ACME, feature="exports", quantity=6, idempotency_key="six")
    late = await metering.settle(acme, second, 5)
    assert (late.quantity, late.overrun) == (5, 5)
    assert await _figures(acme) == (15, 0, 0)


async def test_a_settlement_belongs_to_the_period_of_its_reservation(environment: Environment) -> None:
    clock = still(environment, datetime(2026, 11, 20, 23, 59, 30, tzinfo=UTC))
    await publish(environment)
    company = await make_company(environment)
    answer = await metering.reserve(environment, company=ACME, feature="api-calls", quantity=60)
    assert answer.id is not None
    clock.advance(seconds=40)  # past midnight, and the allowance is a day's
    today, _ = await metering.consume(
        environment, company=ACME, feature="api-calls", quantity=100, idempotency_key="today"
    )
    assert today.remaining == 0
    closed = await metering.settle(environment, answer.id, 80)
    assert (closed.overrun, closed.decision.used) == (0, 80)
    assert closed.decision.period is not None
    assert closed.decision.period.start == datetime(2026, 11, 20, tzinfo=UTC)
    check = await access.check(environment, company=ACME, feature="api-calls")
    assert (check.used, check.reserved) == (100, 0)
    await _counters_equal_their_sources(environment, company.id)


async def test_after_35_days_a_period_can_no_longer_be_counted(acme: Environment) -> None:
    clock = still(acme)
    held = await _held(acme, 4)
    clock.advance(days=36)
    with pytest.raises(Refusal) as caught:
        await metering.settle(acme, held, 4)
    assert caught.value.code is Code.TIMESTAMP_TOO_OLD


async def test_nothing_is_held_for_what_is_unknown_or_not_metered(acme: Environment) -> None:
    for company, feature, reason in (
        ({"id": "nobody"}, "exports", Reason.UNKNOWN_COMPANY),
        (ACME, "nothing", Reason.UNKNOWN_FEATURE),
        (ACME, "sso", Reason.NO_ENTITLEMENT),
    ):
        answer = await metering.reserve(acme, company=company, feature=feature)
        assert (answer.id, answer.decision.reason) == (None, reason)
    answer = await metering.reserve(acme, company=ACME, feature="exports", user={"id": "nobody"})
    assert (answer.id, answer.decision.reason) == (None, Reason.UNKNOWN_USER)
    answer = await metering.reserve(acme, company=ACME, feature="seats")
    assert answer.id is None
    with pytest.raises(Refusal) as caught:
        await metering.settle(acme, "resv_unknown", 1)
    assert caught.value.status == 404


@pytest.mark.parametrize("quantity", [0, -1, INT64_MAX + 1])
async def test_u15_what_cannot_be_held_is_refused(acme: Environment, quantity: int) -> None:
    with pytest.raises(Refusal) as caught:
        await _reserve(acme, quantity)
    assert caught.value.status == 422
    with pytest.raises(Refusal) as caught:
        await _reserve(acme, 1, seconds=quantity if quantity < 1 else 86_401)
    assert caught.value.status == 422


async def test_u15_what_is_used_and_what_is_held_stay_within_64_bits(acme: Environment) -> None:
    company = await make_company(acme)
    await put_on(acme, company.id, "pro")
    first = await metering.reserve(acme, company=ACME, feature="api-calls", quantity=INT64_MAX)
    assert first.id is not None
    with pytest.raises(Refusal) as caught:
        await metering.reserve(acme, company=ACME, feature="api-calls", quantity=1)
    assert caught.value.status == 422
    await metering.record(acme, [TrackEvent(event="api-calls", company=ACME)])
    with pytest.raises(Refusal):
        await metering.settle(acme, first.id, INT64_MAX)
    assert (await metering.settle(acme, first.id, 5)).decision.used == 6


async def test_each_user_holds_of_their_own(acme: Environment) -> None:
    clock = still(acme)
    ada = {"id": "ada"}
    user, _ = await companies.upsert_user(acme, keys=ada, companies=[ACME])
    company = await companies.get(acme, (await make_company(acme)).id)
    await overrides.grant(
        acme, company.id, feature="exports", value=50, user=user.id, note="Each of her own", actor=ACTOR
    )
    answer = await metering.reserve(acme, company=ACME, feature="exports", quantity=40, user=ada)
    assert answer.id is not None
    assert (answer.decision.reserved, answer.decision.remaining) == (40, 10)
    clock.advance(seconds=61)
    assert await metering.release_expired(acme) == 1
    check = await access.check(acme, company=ACME, feature="exports", user=ada)
    assert (check.used, check.reserved, check.remaining) == (0, 0, 50)
    closed = await metering.settle(acme, answer.id, 45)
    assert (closed.overrun, closed.decision.used) == (0, 45)
    await _counters_equal_their_sources(acme, company.id)


async def test_u11_reservations_and_consumers_together_admit_exactly_the_limit(
    deployment: Deployment, environment: Environment
) -> None:
    await publish(environment)
    company = await make_company(environment)
    await overrides.grant(environment, company.id, feature="exports", value=100, note="Load", actor=ACTOR)
    other = await Deployment.open(deployment.settings)
    try:
        sides = (environment, other.named(None))

        async def once(number: int) -> int:
            side = sides[number % 2]
            if number % 3:
                answer = await metering.reserve(side, company=ACME, feature="exports")
                if answer.id is None:
                    return 0
                closed = await metering.settle(sides[(number + 1) % 2], answer.id, 1)
                assert closed.overrun == 0
                return 1
            _, is_counted = await metering.consume(
                side, company=ACME, feature="exports", idempotency_key=f"key-{number}"
            )
            return int(is_counted)

        admitted = sum(await asyncio.gather(*(once(number) for number in range(600))))
        assert admitted == 100
        async with environment.reading() as session:
            assert await ledger_total(session, company.id, "export", start_at=None, end_at=None) == 100
        await _counters_equal_their_sources(environment, company.id)
    finally:
        await other.close()


async def test_a_random_life_leaves_nothing_held_and_nothing_lost(acme: Environment) -> None:
    clock: StillClock = still(acme)
    company = await make_company(acme)
    rng = random.Random(20_261_120)  # noqa: S311 - the same life in every run
    opened: list[Reserved] = []
    total = 0
    for number in range(150):
        clock.advance(seconds=rng.choice([1, 20, 3_600, 86_400 * 2]))
        match rng.randrange(5):
            case 0 | 1:
                answer = await _reserve(acme, rng.randint(1, 6), seconds=rng.choice([5, 600, 86_400]))
                if answer.id is not None:
                    opened.append(answer)
            case 2 if opened:
                quantity = rng.randint(0, 9)
                total += await _settled(acme, clock, opened.pop(rng.randrange(len(opened))), quantity)
            case 3 if opened:
                await metering.release(acme, opened.pop(rng.randrange(len(opened))).id or "")
            case 4:
                _, is_counted = await metering.consume(
                    acme, company=ACME, feature="exports", quantity=2, idempotency_key=f"k{number}"
                )
                total += 2 * is_counted
            case _:
                await metering.release_expired(acme)
    await _counters_equal_their_sources(acme, company.id)
    async with acme.reading() as session:
        assert await ledger_total(session, company.id, "export", start_at=None, end_at=None) == total
    clock.advance(days=2)
    await metering.release_expired(acme)
    async with acme.reading() as session:
        assert not await session.all(select(usage_windows.c.id).where(usage_windows.c.reserved != 0))


async def _settled(environment: Environment, clock: StillClock, reserved: Reserved, quantity: int) -> int:
    """Settle, and answer what was counted: nothing once the period lies more than 35 days back."""
    assert reserved.id is not None
    assert reserved.decision.at is not None
    if reserved.decision.at < clock.at - timedelta(days=35):
        with pytest.raises(Refusal):
            await metering.settle(environment, reserved.id, quantity)
        return 0
    closed = await metering.settle(environment, reserved.id, quantity)
    assert closed.quantity == quantity
    return quantity
