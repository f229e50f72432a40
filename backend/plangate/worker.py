"""The loops that keep promises made earlier: act on webhooks, finish changes, heal what was missed, tidy up.

Each loop runs for every environment. A failure is logged and the loop goes on after a pause that grows; nothing here
is lost by a stop, because all work is rows in the store.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from plangate import catalog, grace, metering, plan_changes, sync
from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.store import due
from plangate.store.feed import prune_feed
from plangate.store.idempotency import prune_requests
from plangate.store.inbox import prune_events
from plangate.store.leases import drop_old_leases
from plangate.store.meter_outbox import prune_delivered

_PAUSE_SECONDS_MAX: Final = 60.0
_ACTING_MAX: Final = 8
_SWEEP_SECONDS: Final = 3_600.0
_TIDY_SECONDS: Final = 600.0
_LEASES_KEPT: Final = timedelta(hours=1)
_REPORTS_KEPT: Final = timedelta(days=40)  # five more than Stripe's sums are compared for
_EVENTS_KEPT: Final = timedelta(days=40)  # ten more than Stripe lists events for
_EVENTS_AT_ONCE: Final = 1_000
_FEED_KEPT: Final = timedelta(hours=1)
_ANSWERS_KEPT: Final = timedelta(hours=24)
_log = structlog.get_logger(__name__)


class Loop(msgspec.Struct, frozen=True):
    """One kind of work: `run` answers how much it found; when that is none it rests for `every_seconds`.

    With a `look` it is only run when there is something.
    """

    name: str
    run: Callable[[Environment], Awaitable[int]]
    every_seconds: float
    look: due.Look | None = None


async def tidy(env: Environment) -> int:
    """Forget old leases, changes every process has seen, answers kept for repeats, and what Stripe has long forgotten.

    That is reports it took, and events that were acted on. Answers how many rows went.
    """
    async with env.writing() as session:
        dropped = await drop_old_leases(session, before=wall_now() - _LEASES_KEPT)
        # The feed is stamped with business time, like every row of a transaction.
        pruned = await prune_feed(session, before=env.clock.now() - _FEED_KEPT)
        answered = await prune_requests(session, before=wall_now() - _ANSWERS_KEPT)
        reported = await prune_delivered(session, before=env.clock.now() - _REPORTS_KEPT)
    return dropped + pruned + answered + reported + await _forget_events(env)


async def _forget_events(env: Environment) -> int:
    """A few in each transaction: whoever writes meanwhile, and every lease, waits for it."""
    found = 0
    while True:
        async with env.writing() as session:
            gone = await prune_events(session, before=wall_now() - _EVENTS_KEPT, limit=_EVENTS_AT_ONCE)
        found += gone
        if gone < _EVENTS_AT_ONCE:
            return found


LOOPS: Final = (
    Loop("inbox", sync.work_inbox, 0.5, due.EVENTS),
    Loop("plan_changes", plan_changes.resume_unfinished, 2.0, due.CHANGES),
    Loop("reservations", metering.release_expired, 0.5, due.RESERVATIONS),
    Loop("migrations", catalog.carry_on_migrations, 2.0, due.MIGRATIONS),
    Loop("repricing", plan_changes.carry_on_repricing, 2.0, due.MIGRATIONS),
    Loop("shelf", catalog.tidy_shelf, _SWEEP_SECONDS),
    Loop("grace", grace.note_ended_grace, 60.0),
    Loop("overage", metering.keep_overage_settled, 5.0),
    Loop("meters", metering.forward, 1.0, due.METERS),
    Loop("pulled_meters", metering.pull, 300.0),
    Loop("sweep", sync.sweep, _SWEEP_SECONDS),
    Loop("tidy", tidy, _TIDY_SECONDS),
)


class Worker:
    """Runs all loops for some environments: `await worker.start()`, later `await worker.stop()`.

    `wake()` makes the inbox look at once, so that a webhook received in this process does not wait for the next turn.
    """

    def __init__(self, environments: Iterable[Environment], *, loops: Iterable[Loop] = LOOPS) -> None:
        self._environments = tuple(environments)
        self._loops = tuple(loops)
        self._woken = {env.id: asyncio.Event() for env in self._environments}
        self._tasks: list[asyncio.Task[None]] = []
        self._acting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start every loop; answers at once."""
        for env in self._environments:
            for loop in self._loops:
                name = f"{loop.name}:{env.settings.name}"
                self._tasks.append(asyncio.create_task(self._turn(env, loop), name=name))

    async def stop(self) -> None:
        """Stop every loop where it stands; what was begun is finished by the next start."""
        stopped = [*self._tasks, *self._acting]
        for task in stopped:
            task.cancel()
        for task in stopped:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    def act_on(self, env: Environment, claim: sync.Claim) -> None:
        """Act beside the loops on an event that this process claimed as it stored it; answers at once."""
        task = asyncio.create_task(self._acted_on(env, claim), name=f"webhook:{env.settings.name}")
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    @property
    def has_room(self) -> bool:
        """Whether one more event may be acted on at once; otherwise it waits its turn in the inbox."""
        return len(self._acting) < _ACTING_MAX

    def wake(self, environment_id: str) -> None:
        """Let the inbox of one environment look now."""
        event = self._woken.get(environment_id)
        if event is not None:
            event.set()

    async def _acted_on(self, env: Environment, claim: sync.Claim) -> None:
        try:
            await sync.act_on(env, claim)
        except Exception:  # noqa: BLE001 - nobody waits for this task; the event is claimed again soon.
            _log.exception("webhook_failed", environment=env.settings.name)

    async def _turn(self, env: Environment, loop: Loop) -> None:
        """One loop for one environment, until cancelled."""
        failures = 0
        is_inbox = loop.run is sync.work_inbox
        while True:
            if is_inbox:
                self._woken[env.id].clear()
            found = 0
            try:
                found = await _found(env, loop)
                failures = 0
            except Refusal as refusal:
                failures += 1
                _log.warning("loop_put_off", loop=loop.name, environment=env.settings.name, code=refusal.code.value)
            except Exception:  # noqa: BLE001 - a loop that ends would silently break every promise it keeps.
                failures += 1
                _log.exception("loop_failed", loop=loop.name, environment=env.settings.name)
            pause = pause_after(loop, found=found, failures=failures)
            if is_inbox:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken[env.id].wait(), pause)
            else:
                await asyncio.sleep(pause)


async def _found(env: Environment, loop: Loop) -> int:
    if loop.look is not None:
        async with env.at_once(only_reads=True) as session:
            if not await due.is_any_due(session, loop.look, wall_now=wall_now()):
                return 0
    return await loop.run(env)


def pause_after(loop: Loop, *, found: int, failures: int) -> float:
    """Until the next turn: at once while there is work, longer and longer while it fails."""
    if failures:
        return float(min(2 ** min(failures - 1, 10), _PAUSE_SECONDS_MAX))
    if found and loop.every_seconds < _TIDY_SECONDS:
        return 0.0
    return loop.every_seconds
