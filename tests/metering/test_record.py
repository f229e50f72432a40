"""Recording what happened: every event counts once, in the period it occurred in, whatever the limit says."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from plangate import access, companies, metering
from plangate.engine.values import INT64_MAX
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import EventStatus, TrackEvent
from plangate.store.ledger import ledger_total
from tests.world import ACTOR, make_company, publish, still

ACME = {"id": "acme"}


async def _used(environment: Environment, feature: str = "exports") -> int | None:
    return (await access.check(environment, company=ACME, feature=feature)).used


async def test_track_counts_beyond_the_limit(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    results = await metering.record(environment, [TrackEvent(event="export", company=ACME, quantity=12)])
    assert results[0].status is EventStatus.ACCEPTED
    check = await access.check(environment, company=ACME, feature="exports")
    assert (check.used, check.remaining, check.allowed) == (12, 0, False)


async def test_an_event_counts_once_within_a_batch_and_across(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    event = TrackEvent(event="export", company=ACME, quantity=2, idempotency_key="k")
    first = await metering.record(environment, [event, event])
    again = await metering.record(environment, [event])
    assert [one.status for one in (*first, *again)] == [
        EventStatus.ACCEPTED,
        EventStatus.DUPLICATE,
        EventStatus.DUPLICATE,
    ]
    assert await _used(environment) == 2


async def test_u5_an_event_older_than_35_days_is_refused_and_the_others_flow(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    await make_company(environment)
    old = clock.at - timedelta(days=35, minutes=1)
    results = await metering.record(
        environment,
        [
            TrackEvent(event="export", company=ACME, occurred_at=old),
            TrackEvent(event="export", company=ACME, occurred_at=clock.at - timedelta(days=35) + timedelta(hours=1)),
            TrackEvent(event="export", company=ACME),
        ],
    )
    assert (results[0].status, results[0].code) == (EventStatus.REFUSED, Code.TIMESTAMP_TOO_OLD)
    assert [one.status for one in results[1:]] == [EventStatus.ACCEPTED, EventStatus.ACCEPTED]
    assert await _used(environment) == 1


async def test_u6_a_clock_ahead_by_more_than_five_minutes_is_refused(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    results = await metering.record(
        environment,
        [
            TrackEvent(event="export", company=ACME, occurred_at=clock.at + timedelta(minutes=6)),
            TrackEvent(event="export", company=ACME, occurred_at=clock.at + timedelta(minutes=4)),
        ],
    )
    assert (results[0].status, results[0].code) == (EventStatus.REFUSED, Code.TIMESTAMP_IN_FUTURE)
    assert results[1].status is EventStatus.ACCEPTED
    # A small skew counts as now: it is in the ledger before that instant comes.
    async with environment.reading() as session:
        assert await ledger_total(session, company.id, "export", start_at=None, end_at=session.now) == 1


async def test_u9_an_event_waits_a_day_for_its_company(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    early = TrackEvent(event="export", company=ACME, quantity=3, idempotency_key="early")
    assert (await metering.record(environment, [early]))[0].status is EventStatus.UNATTRIBUTED
    clock.advance(hours=2)
    await metering.record(environment, [TrackEvent(event="export", company=ACME, quantity=4)])
    assert (await metering.record(environment, [early]))[0].status is EventStatus.DUPLICATE
    clock.advance(hours=23)
    company = await make_company(environment)
    # The first had waited for 25 hours, the second for 23.
    assert await _used(environment) == 4
    async with environment.reading() as session:
        assert await ledger_total(session, company.id, "export", start_at=None, end_at=None) == 4


async def test_u9_waiting_usage_is_found_by_a_key_added_later(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    by_crm = TrackEvent(event="export", company={"crm": "42"}, quantity=3)
    assert (await metering.record(environment, [by_crm]))[0].status is EventStatus.UNATTRIBUTED
    await companies.upsert(environment, keys={"id": "acme", "crm": "42"}, actor=ACTOR)
    assert await _used(environment) == 3
    assert (await metering.record(environment, [by_crm]))[0].status is EventStatus.ACCEPTED
    assert await _used(environment) == 6


async def test_u9_no_event_is_lost_between_waiting_and_a_company_made_meanwhile(environment: Environment) -> None:
    await publish(environment)
    for number in range(10):
        key = {"id": f"company-{number}"}
        sending = [metering.record(environment, [TrackEvent(event="export", company=key)]) for _ in range(3)]
        await asyncio.gather(*sending, companies.upsert(environment, keys=key, actor=ACTOR))
        check = await access.check(environment, company=key, feature="exports")
        assert check.used == 3


async def test_u10_corrections_need_the_right_and_are_shown_from_zero(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    correction = TrackEvent(event="export", company=ACME, quantity=-5)
    refused = await metering.record(environment, [correction])
    assert (refused[0].status, refused[0].code) == (EventStatus.REFUSED, Code.FORBIDDEN)
    await metering.record(environment, [TrackEvent(event="export", company=ACME, quantity=2)])
    await metering.record(environment, [correction], may_correct=True)
    assert await _used(environment) == 0
    async with environment.reading() as session:
        assert await ledger_total(session, company.id, "export", start_at=None, end_at=None) == -3
    await metering.record(environment, [TrackEvent(event="export", company=ACME, quantity=4)])
    assert await _used(environment) == 1


@pytest.mark.parametrize("quantity", [INT64_MAX + 1, -INT64_MAX - 1])
async def test_u15_quantities_beyond_64_bits_are_refused(environment: Environment, quantity: int) -> None:
    event = TrackEvent(event="export", company=ACME, quantity=quantity)
    assert (await metering.record(environment, [event], may_correct=True))[0].code is Code.INVALID


@pytest.mark.parametrize(
    "event",
    [
        TrackEvent(event="", company=ACME),
        TrackEvent(event="x" * 201, company=ACME),
        TrackEvent(event="a\x00b", company=ACME),
        TrackEvent(event="a\ud800b", company=ACME),
        TrackEvent(event="export", company={}),
        TrackEvent(event="export", company={"id": ""}),
        TrackEvent(event="export", company={"id": "a\x00"}),
        TrackEvent(event="export", company={"": "acme"}),
        TrackEvent(event="export", company=ACME, user={}),
        TrackEvent(event="export", company=ACME, idempotency_key=""),
        TrackEvent(event="export", company=ACME, idempotency_key="k" * 256),
        TrackEvent(event="export", company=ACME, occurred_at=datetime(2026, 11, 20)),  # noqa: DTZ001 - on purpose
    ],
)
async def test_events_out_of_bounds_are_refused_alone(environment: Environment, event: TrackEvent) -> None:
    results = await metering.record(environment, [event, TrackEvent(event="export", company={"id": "other"})])
    assert (results[0].status, results[0].code) == (EventStatus.REFUSED, Code.INVALID)
    assert results[1].status is EventStatus.UNATTRIBUTED


async def test_a_list_longer_than_a_thousand_is_refused(environment: Environment) -> None:
    with pytest.raises(Refusal) as caught:
        await metering.record(environment, [TrackEvent(event="export", company=ACME)] * 1_001)
    assert caught.value.code is Code.TOO_LARGE
    assert caught.value.status == 413


async def test_keys_of_two_companies_are_refused_by_item(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    await companies.upsert(environment, keys={"crm": "42"}, actor=ACTOR)
    both = TrackEvent(event="export", company={"id": "acme", "crm": "42"})
    results = await metering.record(environment, [both, TrackEvent(event="export", company=ACME)])
    assert (results[0].status, results[0].code) == (EventStatus.REFUSED, Code.KEY_CONFLICT)
    assert results[1].status is EventStatus.ACCEPTED


async def test_late_events_belong_to_the_period_they_occurred_in(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    await make_company(environment)
    await metering.record(environment, [TrackEvent(event="api-calls", company=ACME, quantity=5)])
    clock.advance(days=2)
    await metering.record(
        environment,
        [
            TrackEvent(event="api-calls", company=ACME, quantity=7),
            TrackEvent(event="api-calls", company=ACME, quantity=11, occurred_at=clock.at - timedelta(days=1)),
            TrackEvent(event="api-calls", company=ACME, quantity=13, occurred_at=clock.at - timedelta(days=2)),
        ],
    )
    assert await _used(environment, "api-calls") == 7
    found = await metering.series(environment, (await companies.find(environment, ACME)) or "", "api-calls", "day")
    assert [point.quantity for point in found.points[-3:]] == [18, 11, 7]


async def test_usage_is_kept_for_users_too(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    await companies.upsert_user(environment, keys={"id": "ada"}, companies=[ACME])
    await metering.record(
        environment,
        [
            TrackEvent(event="export", company=ACME, user={"id": "ada"}, quantity=2),
            TrackEvent(event="export", company=ACME, user={"id": "nobody"}, quantity=3),
            TrackEvent(event="export", company=ACME, quantity=4),
        ],
    )
    whole = await metering.series(environment, company.id, "exports", "month")
    own = await metering.series(environment, company.id, "exports", "month", user={"id": "ada"})
    assert (whole.points[-1].quantity, own.points[-1].quantity) == (9, 2)


async def test_events_no_feature_counts_are_kept_for_one_added_later(environment: Environment) -> None:
    from tests.world import DOCUMENT

    await publish(environment)
    await make_company(environment)
    results = await metering.record(environment, [TrackEvent(event="render", company=ACME, quantity=6)])
    assert results[0].status is EventStatus.ACCEPTED
    features = {**DOCUMENT["features"], "renders": {"name": "Renders", "type": "event", "event": "render"}}
    free = DOCUMENT["plans"]["free"]
    plans = {
        **DOCUMENT["plans"],
        "free": {**free, "entitlements": {**free["entitlements"], "renders": {"limit": 10, "period": "all_time"}}},
    }
    await publish(environment, {**DOCUMENT, "features": features, "plans": plans})
    decision, is_counted = await metering.consume(
        environment, company=ACME, feature="renders", quantity=4, idempotency_key="r"
    )
    assert (is_counted, decision.used, decision.remaining) == (True, 10, 0)


async def test_hours_days_and_months_have_no_gaps(environment: Environment) -> None:
    clock = still(environment, datetime(2026, 3, 1, 0, 30, tzinfo=UTC))
    await publish(environment)
    company = await make_company(environment)
    for hours in (0, 1, 24, 24 * 31):
        occurred_at = clock.at - timedelta(hours=hours)
        await metering.record(environment, [TrackEvent(event="export", company=ACME, occurred_at=occurred_at)])
    hours_found = await metering.series(environment, company.id, "exports", "hour")
    assert len(hours_found.points) == 48
    assert [point.quantity for point in hours_found.points[-3:]] == [0, 1, 1]
    assert sum(point.quantity for point in hours_found.points) == 3
    days = await metering.series(environment, company.id, "exports", "day")
    assert [point.quantity for point in days.points[-3:]] == [0, 2, 1]
    months = await metering.series(environment, company.id, "exports", "month")
    assert len(months.points) == 12
    assert [point.quantity for point in months.points[-3:]] == [1, 2, 1]
    for found in (hours_found, days, months):
        for before, after in zip(found.points, found.points[1:], strict=False):
            assert before.end == after.start


async def test_a_series_of_something_not_metered_is_refused(environment: Environment) -> None:
    await publish(environment)
    company = await make_company(environment)
    with pytest.raises(Refusal) as caught:
        await metering.series(environment, company.id, "sso", "day")
    assert caught.value.status == 422
    with pytest.raises(Refusal) as caught:
        await metering.series(environment, "comp_unknown", "exports", "day")
    assert caught.value.status == 404
