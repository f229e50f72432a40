"""Windows of usage: they tile time, keep their usage when an anchor moves, and always equal the ledger."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select

from plangate import access, companies, metering, overrides
from plangate.engine.values import PeriodKind
from plangate.environment import Environment
from plangate.metering import TrackEvent
from plangate.store.ledger import ledger_total
from plangate.store.usage import UsageWindowRow, usage_windows
from plangate.usage_windows import open_windows_of_new_periods
from tests.world import ACTOR, DOCUMENT, make_company, publish, put_on, still

ACME = {"id": "acme"}
ADA = {"id": "ada"}
EVENTS = {"exports": "export", "api-calls": "api-calls"}


async def _windows(environment: Environment, feature: str, kind: PeriodKind, user: str = "") -> list[UsageWindowRow]:
    async with environment.reading() as session:
        rows = await session.all(
            select(usage_windows)
            .where(
                usage_windows.c.feature == feature,
                usage_windows.c.period == kind.value,
                usage_windows.c.user_id == user,
            )
            .order_by(usage_windows.c.start_at)
        )
    return [UsageWindowRow(**row) for row in rows]


async def _use(environment: Environment, quantity: int = 1, *, ago: timedelta = timedelta(0)) -> None:
    occurred_at = environment.clock.now() - ago
    await metering.record(
        environment, [TrackEvent(event="export", company=ACME, quantity=quantity, occurred_at=occurred_at)]
    )


async def test_when_the_anchor_moves_the_running_window_keeps_its_start_and_usage(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    await _use(environment, 10)
    before = await access.check(environment, company=ACME, feature="exports")
    clock.advance(days=15)
    await put_on(environment, company.id, "pro")
    moved_at = clock.at
    after = await access.check(environment, company=ACME, feature="exports")
    assert before.period is not None
    assert after.period is not None
    assert after.period.start == before.period.start
    assert (after.used, after.limit, after.allowed) == (10, 1_000, True)
    # It ends at the new anchor's next boundary: a month after the move.
    assert after.period.resets_at is not None
    assert (after.period.resets_at.month, after.period.resets_at.day) == (1, 5)
    assert timedelta(0) <= moved_at + timedelta(days=31) - after.period.resets_at < timedelta(seconds=1)
    clock.advance(days=31)
    await _use(environment, 3)
    first, second = await _windows(environment, "exports", PeriodKind.BILLING_MONTH)
    assert (first.used, second.used, first.end_at) == (10, 3, second.start_at)


async def test_t1_an_anchor_on_the_31st_clamps_and_comes_back(environment: Environment) -> None:
    clock = still(environment, datetime(2026, 1, 31, 12, tzinfo=UTC))
    await publish(environment)
    await make_company(environment)
    starts = []
    for month, day in ((2, 1), (3, 1), (4, 1), (5, 1), (6, 1)):
        clock.at = datetime(2026, month, day, tzinfo=UTC)
        await _use(environment, month)
        decision = await access.check(environment, company=ACME, feature="exports")
        assert decision.used == month
        assert decision.period is not None
        assert decision.period.start is not None
        starts.append((decision.period.start.month, decision.period.start.day))
    assert starts == [(1, 31), (2, 28), (3, 31), (4, 30), (5, 31)]


async def test_the_day_before_a_company_was_known_belongs_to_its_first_period(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    await _use(environment, 4)
    clock.advance(hours=5)
    await make_company(environment)
    await _use(environment, 2)
    decision = await access.check(environment, company=ACME, feature="exports")
    assert (decision.used, decision.remaining) == (6, 4)
    assert len(await _windows(environment, "exports", PeriodKind.BILLING_MONTH)) == 1


@pytest.mark.parametrize("seed", [11, 12, 13])
async def test_counters_always_equal_the_ledger_and_windows_never_overlap(environment: Environment, seed: int) -> None:
    story = random.Random(seed)  # noqa: S311 - a reproducible story, not a secret
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    await companies.upsert_user(environment, keys=ADA, companies=[ACME])
    for number in range(60):
        clock.advance(hours=story.choice([0.01, 2, 50, 300]))
        match story.randrange(8):
            case 0:
                await put_on(environment, company.id, story.choice(["free", "pro"]))
            case 1:
                expires_at = clock.at + timedelta(hours=story.choice([10, 100]))
                listed = await overrides.listing(environment, company.id)
                if not any(one.state == "active" for one in listed):
                    await overrides.grant(
                        environment,
                        company.id,
                        feature=story.choice(["exports", "api-calls"]),
                        value=story.randrange(5, 90),
                        user=story.choice([None, ADA]),
                        period=story.choice([None, "week", "all_time", "billing_interval"]),
                        expires_at=expires_at,
                        note="Story",
                        actor=ACTOR,
                    )
            case 2 | 3:
                feature = story.choice(list(EVENTS))
                occurred_at = clock.at - timedelta(hours=story.choice([0, 5, 700]))
                await metering.consume(
                    environment,
                    company=ACME,
                    user=story.choice([None, ADA]),
                    feature=feature,
                    quantity=story.randrange(1, 4),
                    idempotency_key=str(number),
                    occurred_at=occurred_at,
                )
            case _:
                events = [
                    TrackEvent(
                        event=story.choice(list(EVENTS.values())),
                        company=ACME,
                        user=story.choice([None, ADA]),
                        quantity=story.randrange(-1, 9),
                        occurred_at=clock.at - timedelta(hours=story.randrange(0, 800)),
                    )
                    for _ in range(story.randrange(1, 6))
                ]
                await metering.record(environment, events, may_correct=True)
    seen = 0
    standing = await environment.standings.of(company.id)
    assert standing is not None
    for user in ("", next(iter(await _user_ids(environment)))):
        for feature, event in EVENTS.items():
            for kind in PeriodKind:
                windows = await _windows(environment, feature, kind, user)
                for one, next_one in pairwise(windows):
                    assert one.end_at is not None
                    assert one.end_at <= next_one.start_at
                for window in windows:
                    seen += 1
                    async with environment.reading() as session:
                        total = await ledger_total(
                            session,
                            company.id,
                            event,
                            start_at=window.start_at,
                            end_at=window.end_at,
                            user_id=user,
                        )
                    assert window.used == total, (feature, kind, user, window.start_at)
                if windows and (held := standing.counters.get((feature, kind, user))) is not None:
                    assert (held.window_id, held.used) == (windows[-1].id, windows[-1].used)
    assert seen > 10


async def _user_ids(environment: Environment) -> list[str]:
    user, _ = await companies.upsert_user(environment, keys=ADA)
    return [user.id]


def _counted_by(period: str) -> dict[str, Any]:
    free = DOCUMENT["plans"]["free"]
    entitlements = {**free["entitlements"], "exports": {"limit": 10, "period": period}}
    return {**DOCUMENT, "plans": {**DOCUMENT["plans"], "free": {**free, "entitlements": entitlements}}}


async def test_a_feature_granted_by_another_period_later_starts_from_what_was_used(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    await _use(environment, 7)
    await publish(environment, _counted_by("month"))
    decision, is_counted = await metering.consume(
        environment, company=ACME, feature="exports", quantity=4, idempotency_key="k"
    )
    assert (is_counted, decision.used, decision.remaining) == (False, 7, 3)
    decision = await access.check(environment, company=ACME, feature="exports")
    assert (decision.used, decision.remaining) == (7, 3)


async def test_windows_of_new_periods_can_be_opened_before_anybody_counts(environment: Environment) -> None:
    await publish(environment)
    await make_company(environment)
    await make_company(environment, "idle")
    await _use(environment, 7)
    before = await environment.catalog()
    await publish(environment, _counted_by("week"))
    after = await environment.catalog()
    await open_windows_of_new_periods(environment, before, after)
    decision = await access.check(environment, company=ACME, feature="exports")
    assert (decision.used, decision.period and decision.period.kind) == (7, "week")
    assert await open_windows_of_new_periods(environment, after, after) == 0
