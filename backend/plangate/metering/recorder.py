"""Group commit: everything reported at the same time is decided and written in one transaction.

While one batch commits, what arrives meanwhile forms the next. A single durable commit per event would be the ceiling
otherwise, on both databases.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeAlias
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from plangate.engine.decision import Decision
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering.batch import Consumed, Outcome, write_batch
from plangate.metering.events import (
    EVENTS_PER_BATCH,
    EventResult,
    EventStatus,
    Item,
    Told,
    closing,
    consumed,
    reserved,
    tracked,
)
from plangate.metering.known import write_known
from plangate.metering.reservations import Closed, Reserved
from plangate.store.races import is_lost_race

_TRIES = 5
_AT_A_STRETCH = 200  # events that are read before others, who may only want to ask, have their turn
_WAITING = 50_000  # items that may queue in one process before it says "try again"
_TURNS = 3  # of the event loop: whoever was just answered reads it, asks again, and is heard
_GATHERING_SECONDS = 0.001  # about as long as a small batch takes to write
_log = structlog.get_logger(__name__)

Settled: TypeAlias = Outcome | Exception  # an exception is the fault of that item alone
_Submission: TypeAlias = tuple[Sequence[Item], "asyncio.Future[list[Settled]]"]


async def consume(
    env: Environment,
    *,
    company: Mapping[str, str],
    feature: str,
    quantity: int = 1,
    idempotency_key: str,
    user: Mapping[str, str] | None = None,
    occurred_at: datetime | None = None,
    trace: bool = False,
) -> tuple[Decision, bool]:
    """Check and count in one step: yes and counted, or no and not counted. A hard limit is never exceeded.

    The Decision of a "yes" shows usage after counting. A repeat with the same key answers as the first did; a refused
    consume does not use up its key. Features that are not metered are answered and nothing is counted. A late
    `occurred_at` is decided by the period it lies in. With `trace` the Decision also says why; a repeat shows the
    trace of the first answer, if that had one. Raises Refusal: 422 for input out of bounds, 409 for a key used
    with another body or keys of two companies.
    """
    item = consumed(
        feature=feature,
        company=company,
        user=user,
        quantity=quantity,
        occurred_at=occurred_at,
        idempotency_key=idempotency_key,
        environment_id=env.id,
        now=env.clock.now(),
        trace=trace,
    )
    (outcome,) = await _recorder(env).submit(env, [item])
    match outcome:
        case Consumed():
            return outcome.decision, outcome.is_counted
        case Exception():
            raise outcome
        case _:
            raise TypeError("a consume was answered as something else")


async def reserve(
    env: Environment,
    *,
    company: Mapping[str, str],
    feature: str,
    quantity: int = 1,
    user: Mapping[str, str] | None = None,
    time_to_live: timedelta = timedelta(seconds=60),
    trace: bool = False,
) -> Reserved:
    """Hold a quantity until it is settled, released, or `time_to_live` (1 second to a day) is over.

    What is held counts against the limit like what is used. A "no" holds nothing, and neither does a feature that is
    not metered: then `id` is None. The Decision of a "yes" shows the quantity among `reserved`, and with `trace` why.
    Raises Refusal: 422 for input out of bounds, 409 for keys of two companies.
    """
    item = reserved(
        feature=feature,
        company=company,
        user=user,
        quantity=quantity,
        time_to_live=time_to_live,
        now=env.clock.now(),
        trace=trace,
    )
    (outcome,) = await _recorder(env).submit(env, [item])
    match outcome:
        case Reserved():
            return outcome
        case Exception():
            raise outcome
        case _:
            raise TypeError("a reservation was answered as something else")


async def settle(env: Environment, reservation_id: str, quantity: int) -> Closed:
    """Count what was really used, in the period of the reservation, and give the rest of what it held back.

    It is counted whatever the limit says, also when the reservation has expired: what the limit has no room for is the
    `overrun`. The same quantity again answers as the first time. Raises Refusal: 404 for an unknown reservation, 409
    when it was released or settled with another quantity, 422 for a quantity out of bounds or after 35 days.
    """
    return await _close(env, closing("settle", reservation_id, quantity=quantity))


async def release(env: Environment, reservation_id: str) -> Closed:
    """Give back what a reservation holds; nothing is counted. Safe to repeat, also after it expired.

    Raises Refusal: 404 for an unknown reservation, 409 when it was settled.
    """
    return await _close(env, closing("release", reservation_id))


async def _close(env: Environment, item: Item) -> Closed:
    (outcome,) = await _recorder(env).submit(env, [item])
    match outcome:
        case Closed():
            return outcome
        case Exception():
            raise outcome
        case _:
            raise TypeError("the end of a reservation was answered as something else")


async def record(env: Environment, events: Sequence[Told], *, may_correct: bool = False) -> list[EventResult]:
    """Record what happened, up to 1,000 events at once, each with its own result, in order. Limits never refuse it.

    An event of a company not known yet waits 24 hours for it. Events no feature counts are kept as well: a feature
    added later finds them. A user who is not known is left out; the company's usage counts all the same. Up to five
    minutes ahead of our clock is taken for clock skew and counts as now. Raises Refusal: 413 for a longer list, 503
    when none of it could be written.
    """
    if len(events) > EVENTS_PER_BATCH:
        raise Refusal(Code.TOO_LARGE, f"At most {EVENTS_PER_BATCH:,} events may be sent at once.")
    now = env.clock.now()
    results: list[EventResult | None] = []
    items: list[Item] = []
    for number, event in enumerate(events, start=1):
        if number % _AT_A_STRETCH == 0:
            await asyncio.sleep(0)
        try:
            items.append(tracked(event, environment_id=env.id, now=now, may_correct=may_correct))
        except Refusal as refusal:
            results.append(_refused(refusal))
        else:
            results.append(None)
    outcomes = await _recorder(env).submit(env, items)
    unwritten = [one for one in outcomes if isinstance(one, Refusal) and one.code is Code.UNAVAILABLE]
    if unwritten and len(unwritten) == len(outcomes):
        # Nothing could be written at all: one answer for the whole list, which may be sent again.
        raise unwritten[0]
    if len(items) == len(events):
        return [one if type(one) is EventResult else _result(one) for one in outcomes]
    following = iter(outcomes)
    return [_result(next(following)) if result is None else result for result in results]


class Recorder:
    """The queue of one environment in one process. It writes while there is something to write, then rests."""

    def __init__(self) -> None:
        self._waiting: deque[_Submission] = deque()
        self._items_waiting = 0
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, env: Environment, items: Sequence[Item]) -> list[Settled]:
        """Wait until every item is decided and durable; outcomes are in the order of the items, faults among them.

        Raises Refusal (503) when more is waiting than this process can soon write.
        """
        if not items:
            return []
        if self._items_waiting + len(items) > _WAITING:
            raise Refusal(
                Code.UNAVAILABLE, "Too much usage is waiting to be written. Try again.", headers={"Retry-After": "1"}
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Settled]] = loop.create_future()
        self._waiting.append((items, future))
        self._items_waiting += len(items)
        if self._writer is None:
            self._writer = loop.create_task(self._write(env))
        return await future

    async def _write(self, env: Environment) -> None:
        batch: list[_Submission] = []
        try:
            while self._waiting:
                await self._gather()
                batch = self._next_batch()
                outcomes = iter(await _written(env, [item for items, _ in batch for item in items]))
                for items, future in batch:
                    own = list(islice(outcomes, len(items)))
                    # A caller that went away took its future along; what it sent is written all the same.
                    if not future.done():
                        future.set_result(own)
        finally:
            # Only a cancelled writer leaves anything here: nobody may wait for ever.
            for _, future in (*batch, *self._waiting):
                if not future.done():
                    future.cancel()
            self._waiting.clear()
            self._items_waiting = 0
            self._writer = None

    async def _gather(self) -> None:
        """Let what is on its way join the next batch: while a turn of the loop brings more, but not for long.

        Those whose batch was just written ask again at once. Without this they would always be one batch behind the
        others, and each durable commit would serve half of those who wait.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _GATHERING_SECONDS
        size = 0
        while size < self._items_waiting < EVENTS_PER_BATCH and loop.time() < end:
            size = self._items_waiting
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    def _next_batch(self) -> "list[_Submission]":
        batch: list[_Submission] = []
        size = 0
        # What was submitted together is written together.
        while self._waiting and (not batch or size + len(self._waiting[0][0]) <= EVENTS_PER_BATCH):
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0])
        self._items_waiting -= size
        return batch


async def _written(env: Environment, items: Sequence[Item]) -> list[Settled]:
    """Write a batch: what is in memory at once, everything else with what is read while it is held."""
    settled: list[Settled | None]
    try:
        settled = [*await write_known(env, items)]
    except (DBAPIError, PoolTimeout, OSError) as error:
        _log.warning("usage_write_failed", error=repr(error), try_number=0)
        settled = [None] * len(items)
    except Exception:  # noqa: BLE001 - nothing was written; the other way finds whose fault it is
        _log.exception("usage_not_counted_from_memory")
        settled = [None] * len(items)
    left = [index for index, outcome in enumerate(settled) if outcome is None]
    if left:
        outcomes = await _written_as_read(env, [items[index] for index in left])
        for index, outcome in zip(left, outcomes, strict=True):
            settled[index] = outcome
    return [one for one in settled if one is not None]


async def _written_as_read(env: Environment, items: Sequence[Item]) -> list[Settled]:
    """Write a batch; one that fails by its own fault is halved until the item at fault stands alone."""
    failure: Exception = Refusal(
        Code.UNAVAILABLE, "The usage could not be written just now. Try again.", headers={"Retry-After": "1"}
    )
    is_own_fault = True
    for number in range(_TRIES):
        try:
            return list(await write_batch(env, items))
        except (DBAPIError, PoolTimeout, OSError) as error:
            if isinstance(error, DBAPIError) and is_lost_race(error):
                # Another process used one of the keys first, or two waited for each other: look again.
                is_own_fault = True
            elif isinstance(error, DBAPIError) and not isinstance(error, OperationalError | InterfaceError):
                failure = error
                break
            else:
                _log.warning("usage_write_failed", error=repr(error), try_number=number + 1)
                is_own_fault = False
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised to the caller it belongs to
            failure = error
            break
        await asyncio.sleep(0.01 * (number + 1))
    if not is_own_fault:
        return [failure] * len(items)
    if len(items) == 1:
        _log.error("usage_not_written", error=repr(failure))
        return [failure]
    middle = len(items) // 2
    return [*await _written_as_read(env, items[:middle]), *await _written_as_read(env, items[middle:])]


_RECORDERS: WeakKeyDictionary[Environment, Recorder] = WeakKeyDictionary()


def _recorder(env: Environment) -> Recorder:
    return _RECORDERS.setdefault(env, Recorder())


def _result(outcome: Settled) -> EventResult:
    match outcome:
        case EventResult():
            return outcome
        case Refusal():
            return _refused(outcome)
        case Consumed() | Reserved() | Closed():
            raise TypeError("an event was answered as something else")
        case _:
            detail = "The event could not be written; the fault is ours."
            return EventResult(status=EventStatus.REFUSED, code=Code.INTERNAL, detail=detail)


def _refused(refusal: Refusal) -> EventResult:
    return EventResult(status=EventStatus.REFUSED, code=refusal.code, detail=refusal.detail)
