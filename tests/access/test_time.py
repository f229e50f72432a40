"""Time that does not do what one expects: clocks that jump or run apart, and renewals that are told late."""

from datetime import datetime, timedelta

import msgspec
import pytest

from plangate import access, companies, metering, overrides
from plangate.clock import wall_now
from plangate.engine.decision import Reason
from plangate.environment import Environment
from plangate.metering import TrackEvent
from tests.world import ACTOR, DOCUMENT, fetched, make_company, monthly_item, price_of, publish, still, subscription_of

ACME = {"id": "acme"}
PRICED = {
    **DOCUMENT,
    "plans": {
        **DOCUMENT["plans"],
        "pro": {
            **DOCUMENT["plans"]["pro"],
            "entitlements": {"exports": {"limit": 20, "period": "billing_month"}},
            "prices": [{"currency": "usd", "interval": "month", "amount_minor": 1_900}],
        },
    },
}


async def _subscribe(environment: Environment, company_id: str, start: datetime, end: datetime) -> None:
    """Store what a fetch of a monthly subscription to `pro` finds while this period runs."""
    item = monthly_item(await price_of(environment, "pro"), start, end)
    await fetched(environment, company_id, subscription_of(item, anchor_at=START), state=start.isoformat())


START = datetime.fromisoformat("2026-01-31T10:00:00+00:00")
FIRST_END = datetime.fromisoformat("2026-02-28T10:00:00+00:00")
SECOND_END = datetime.fromisoformat("2026-03-31T10:00:00+00:00")


async def test_t10_a_renewal_told_late_has_begun_its_period_all_the_same(connected_environment: Environment) -> None:
    environment = connected_environment
    clock = still(environment, START)
    await publish(environment, PRICED)
    company = await make_company(environment)
    await _subscribe(environment, company.id, START, FIRST_END)

    async def consume(quantity: int, key: str) -> tuple[int | None, bool]:
        decision, is_counted = await metering.consume(
            environment, company=ACME, feature="exports", quantity=quantity, idempotency_key=key
        )
        return decision.used, is_counted

    assert await consume(20, "the first month") == (20, True)
    assert await consume(1, "too many") == (20, False)
    clock.at = FIRST_END + timedelta(hours=2)  # Stripe has not told of the renewal yet
    assert await consume(3, "the second month") == (3, True)
    decision = await access.check(environment, company=ACME, feature="exports")
    assert decision.period is not None
    assert (decision.used, decision.period.start, decision.period.resets_at) == (3, FIRST_END, SECOND_END)
    # A straggler of the first month belongs there, also now.
    late = TrackEvent(event="export", company=ACME, quantity=5, occurred_at=FIRST_END - timedelta(minutes=1))
    await metering.record(environment, [late])
    clock.advance(hours=1)
    await _subscribe(environment, company.id, FIRST_END, SECOND_END)
    again = await access.check(environment, company=ACME, feature="exports")
    assert msgspec.structs.replace(again, at=decision.at) == decision
    assert await consume(17, "the rest") == (20, True)


async def test_t8_periods_and_overrides_follow_business_time_and_leases_wall_time(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    ends_at = environment.clock.now() + timedelta(days=10)
    await overrides.grant(
        environment, company.id, feature="exports", mode="add", value=5, expires_at=ends_at, note="x", actor=ACTOR
    )
    await metering.record(environment, [TrackEvent(event="export", company=ACME, quantity=4)])
    before = await access.check(environment, company=ACME, feature="exports")
    assert (before.limit, before.used) == (15, 4)
    environment.clock.offset = timedelta(days=40)
    async with environment.lease(company.id) as lease, environment.writing() as session:
        assert await lease.still_held(session)
    after = await access.check(environment, company=ACME, feature="exports")
    assert (after.limit, after.used) == (10, 0)
    assert after.at is not None
    assert timedelta(days=39) < after.at - wall_now() < timedelta(days=41)
    then = await access.check(environment, company=ACME, feature="exports", at=before.at)
    assert then == before


async def test_t9_a_clock_that_jumps_back_neither_loses_usage_nor_opens_the_limit(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    clock.advance(days=1)

    async def consume(number: int) -> bool:
        _, is_counted = await metering.consume(
            environment, company=ACME, feature="exports", idempotency_key=str(number)
        )
        return is_counted

    assert [await consume(number) for number in range(4)] == [True] * 4
    granted = await overrides.grant(
        environment, company.id, feature="exports", mode="add", value=2, note="x", actor=ACTOR
    )
    clock.advance(hours=-1)
    # An override granted an hour ahead begins when its instant comes again; nothing else is different.
    assert [await consume(number) for number in range(4, 12)] == [True] * 6 + [False] * 2
    await companies.upsert(environment, keys=ACME, traits={"region": "eu"}, actor=ACTOR)
    clock.advance(hours=2)
    assert [await consume(number) for number in range(20, 24)] == [True, True, False, False]
    revoked = await overrides.revoke(environment, granted.id, note="x", actor=ACTOR)
    assert revoked.state == "revoked"
    clock.advance(days=1)
    decision = await access.check(environment, company=ACME, feature="exports")
    assert (decision.reason, decision.used, decision.limit) == (Reason.LIMIT_REACHED, 12, 10)
    assert (await companies.get(environment, company.id)).traits == {"region": "eu"}


@pytest.mark.parametrize("ahead", [timedelta(minutes=6), timedelta(days=1)])
async def test_t9_events_of_a_clock_that_is_ahead_are_refused_one_by_one(
    environment: Environment, ahead: timedelta
) -> None:
    clock = still(environment)
    await publish(environment)
    await make_company(environment)
    results = await metering.record(
        environment,
        [
            TrackEvent(event="export", company=ACME, occurred_at=clock.at + ahead),
            TrackEvent(event="export", company=ACME, occurred_at=clock.at + timedelta(minutes=4)),
        ],
    )
    assert [(one.status, one.code) for one in results] == [("refused", "timestamp_in_future"), ("accepted", None)]
    assert (await access.check(environment, company=ACME, feature="exports")).used == 1
