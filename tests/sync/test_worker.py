"""The loops run, survive what they meet, and stop."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select, update
from sqlmodel import SQLModel

from plangate import plan_changes, sync, worker
from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeState
from plangate.store.database import StoreSession
from plangate.store.feed import change_feed
from plangate.store.idempotency import IdempotencyRow, begin_request, idempotency
from plangate.store.inbox import InboxTable, inbox, prune_events
from plangate.store.leases import leases
from plangate.store.meter_outbox import MeterEventRow
from plangate.store.plan_changes import PlanChangeRow
from plangate.store.plan_changes import plan_changes as rows_table
from plangate.store.reservations import ReservationRow
from plangate.store.version_migrations import VersionMigrationRow
from plangate.worker import LOOPS, Loop, Worker, tidy
from tests.shop import Shop
from tests.sync.test_webhooks import an_event


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 5) -> None:
    ends = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < ends, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_a_webhook_is_acted_on_as_soon_as_it_is_told_of(shop: Shop) -> None:
    running = Worker([shop.env])
    await running.start()
    try:
        customer = await shop.customer()
        price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
        shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price}]})
        newest = shop.stripe.events.list({"limit": 1}).data[0].to_dict(for_json=True)
        await sync.receive(shop.env, newest)
        running.wake(shop.env.id)

        async def is_pro() -> bool:
            return await shop.plan() == "pro"

        await until(is_pro)
        assert await shop.plan() == "pro"
    finally:
        await running.stop()
    running.wake("env_unknown")


async def test_an_unfinished_change_is_finished(shop: Shop) -> None:
    change = await shop.change(plan="pro")
    assert change.next_action is not None
    shop.pay(change.next_action.url)
    async with shop.env.writing() as session:
        await session.run(update(rows_table).values(available_at=wall_now()))
    running = Worker([shop.env])
    await running.start()

    async def is_applied() -> bool:
        return (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED

    try:
        await until(is_applied)
    finally:
        await running.stop()


async def test_a_loop_survives_what_it_meets(shop: Shop) -> None:
    met: list[str] = []

    async def stumbling(env: Environment) -> int:
        met.append(env.id)
        if len(met) == 1:
            raise Refusal(Code.STRIPE_BUSY, "later")
        if len(met) == 2:
            raise ZeroDivisionError
        return 0

    running = Worker([shop.env], loops=[Loop("stumbling", stumbling, 0.01)])
    await running.start()

    async def has_gone_on() -> bool:
        return len(met) > 4

    try:
        await until(has_gone_on, seconds=8)
    finally:
        await running.stop()
    count = len(met)
    await asyncio.sleep(0.05)
    assert len(met) == count


def _waiting(loop: str, env: Environment) -> SQLModel:
    """A row that the loop has something to do about."""
    now = env.clock.now()
    told: dict[str, Any] = {"environment_id": env.id, "company_id": "comp_1"}
    used: dict[str, Any] = {**told, "feature": "exports", "quantity": 1, "recorded_at": now}
    if loop == "inbox":
        event = sync.inbox_row(env, an_event(), received_at=wall_now())
        return InboxTable(**msgspec.structs.asdict(event))
    if loop == "plan_changes":
        told |= {"quote_id": "q", "state": "requested", "kind": "move", "held": {}, "target": {}, "terms": {}}
        told |= {"requested_by": {}, "effective_at": now, "created_at": now, "updated_at": now}
        return PlanChangeRow(id="chg_1", available_at=wall_now(), **told)
    if loop == "reservations":
        return ReservationRow(id="rsv_1", event="exports", reserved_at=now, expires_at=now, **used)
    if loop == "meters":
        return MeterEventRow(id="met_1", meter="exports", occurred_at=now, available_at=now, **used)
    return VersionMigrationRow(
        id="mig_1", environment_id=env.id, kind="plan", key="pro", version=1, mode="all", author={}, created_at=now
    )


@pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop.look is not None], ids=lambda loop: loop.name)
async def test_a_loop_rests_until_somebody_wrote_what_it_looks_for(shop: Shop, loop: Loop) -> None:
    ran: list[str] = []

    async def run(env: Environment) -> int:
        ran.append(env.id)
        return 0

    running = Worker([shop.env], loops=[msgspec.structs.replace(loop, run=run, every_seconds=0.01)])
    await running.start()

    async def has_run() -> bool:
        return bool(ran)

    try:
        await asyncio.sleep(0.1)
        assert not ran
        # Nothing is said in this process: the row is all there is.
        async with shop.env.database.writing(shop.env.id, shop.now()) as session:
            await session.add(_waiting(loop.name, shop.env))
        await until(has_run)
    finally:
        await running.stop()


async def test_answers_for_repeats_are_kept_a_day_whatever_the_business_clock_says(shop: Shop) -> None:
    for key_hash, age in (("young", timedelta(hours=23)), ("old", timedelta(hours=25))):
        row = IdempotencyRow(
            environment_id=shop.env.id, scope="s", key_hash=key_hash, body_hash="b", created_at=wall_now() - age
        )
        async with shop.env.writing() as session:
            assert await begin_request(session, row) is None
    shop.advance("P1M")
    await tidy(shop.env)
    async with shop.env.reading() as session:
        assert await session.scalar(select(func.count()).select_from(idempotency)) == 1


async def test_tidying_drops_what_everybody_has_seen(shop: Shop) -> None:
    async with shop.env.lease(shop.company_id):
        assert await tidy(shop.env) == 0
    shop.advance("P1D")
    async with shop.env.writing() as session:
        await session.run(update(leases).values(expires_at=shop.now().replace(year=2020)))
    assert await tidy(shop.env) > 0
    async with shop.env.reading() as session:
        assert await session.scalar(select(func.count()).select_from(leases)) == 0
        # The newest change stays, so that SQLite goes on counting from it; PostgreSQL needs no rows at all.
        left = await session.scalar(select(func.count()).select_from(change_feed))
        assert left == (0 if shop.env.database.is_postgresql else 1)


async def test_events_are_kept_for_longer_than_stripe_lists_them_and_dead_letters_until_somebody_came(
    shop: Shop,
) -> None:
    ages = {"evt_processed": 41, "evt_ignored": 41, "evt_failed": 41, "evt_pending": 41, "evt_young": 39}
    states = {"evt_young": "processed", **{name: name.removeprefix("evt_") for name in ages if name != "evt_young"}}
    for name, days in ages.items():
        await sync.receive(shop.env, an_event(id=name))
        at = wall_now() - timedelta(days=days)
        async with shop.env.writing() as session:
            values = {"state": states[name], "received_at": at, "available_at": at}
            await session.run(update(inbox).where(inbox.c.stripe_event_id == name).values(values))
    assert await tidy(shop.env) == 2
    async with shop.env.reading() as session:
        kept = {row["stripe_event_id"] for row in await session.all(select(inbox))}
    assert kept == {"evt_failed", "evt_pending", "evt_young"}
    async with shop.env.writing() as session:
        settled = {"state": "processed", "available_at": wall_now() - timedelta(days=99)}
        await session.run(update(inbox).values(settled))
    assert await tidy(shop.env) == 2
    async with shop.env.reading() as session:
        # The newest stays, however old: it tells since when nothing came.
        assert [row["stripe_event_id"] for row in await session.all(select(inbox))] == ["evt_young"]


async def test_many_old_events_go_a_few_at_a_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned: list[int] = []

    async def noted(session: StoreSession, *, before: datetime, limit: int) -> int:
        pruned.append(await prune_events(session, before=before, limit=limit))
        return pruned[-1]

    monkeypatch.setattr(worker, "prune_events", noted)
    monkeypatch.setattr(worker, "_EVENTS_AT_ONCE", 2)
    for number in range(6):
        await sync.receive(shop.env, an_event(id=f"evt_{number}"))
    async with shop.env.writing() as session:
        old = wall_now() - timedelta(days=41)
        is_old = inbox.c.stripe_event_id != "evt_5"
        await session.run(update(inbox).where(is_old).values(state="processed", received_at=old, available_at=old))
    assert await tidy(shop.env) == 5
    assert pruned == [2, 2, 1]


def test_pauses_grow_while_it_fails_and_end_while_there_is_work() -> None:
    loop = Loop("any", sync.work_inbox, 0.5)
    assert [worker.pause_after(loop, found=0, failures=n) for n in (1, 2, 3, 20)] == [1, 2, 4, 60]
    assert worker.pause_after(loop, found=3, failures=0) == 0
    assert worker.pause_after(loop, found=0, failures=0) == 0.5
