"""The running sandbox: the account with its calendar, keys, faults, deliveries, request log and file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import httpx

from .billing.agenda import Agenda
from .clock import Clock
from .config import SandboxConfig
from .errors import ApiError
from .faults import Faults
from .idempotency import KeyRing
from .resources.events import EVENT_MEMORY_SECONDS, new_endpoint
from .webhooks import Deliverer
from .world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Obj = dict[str, Any]

log = logging.getLogger(__name__)

TICK_SECONDS = 0.5
QUICK_SAVE_SECONDS = 0.02
SETTLE_SECONDS = 15.0
CLOCK_TIMEOUT_SECONDS = 10.0
ANNOUNCE_TRIES = 60
MAX_ADVANCE_SECONDS = 10 * 366 * 86_400


class Sandbox:
    """One account and everything that keeps it going."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.world = World(config)
        self.faults = Faults()
        self.requests: deque[Obj] = deque(maxlen=2000)
        self.is_dirty = False
        self._save_seconds = 0.0
        self._start_afresh()
        if config.state_path is not None and config.state_path.exists():
            self.world.store.load(config.state_path)
            self.world.clock.offset_seconds = int(self.world.store.notes.get("offset_seconds", 0))
            self._configure_endpoint()

    def _start_afresh(self) -> None:
        self.agenda = Agenda()
        self.keys = KeyRing(self.world)
        self._configure_endpoint()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver and keep time until the block ends; then save."""
        self.deliverer = Deliverer(self.world, self.faults)
        tasks = [asyncio.create_task(self.deliverer.run()), asyncio.create_task(self._tick())]
        if self.world.clock.offset_seconds:
            tasks.append(asyncio.create_task(self._announce_again()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.is_dirty = True
            self.save()

    def catch_up(self) -> None:
        """Do what has come due since anybody looked."""
        if self.agenda.catch_up(self.world, self.world.now()):
            self.is_dirty = True
        self.world.release_events()

    def save(self) -> None:
        """Write the state to its file, when there is one and something changed."""
        if self.config.state_path is None or not self.is_dirty:
            return
        started = time.monotonic()
        self.keys.forget_old()
        self.world.store.notes["offset_seconds"] = self.world.clock.offset_seconds
        self.world.store.save(self.config.state_path)
        self.is_dirty = False
        self._save_seconds = time.monotonic() - started

    def save_soon(self) -> None:
        """Save after a request: at once while that is quick, else with the next tick."""
        if self._save_seconds < QUICK_SAVE_SECONDS:
            self.save()

    async def move_clock(self, target: int) -> int:
        """Move to an instant; everything due happens and its first deliveries are made. Answers the new present.

        Raises ApiError 400 for the past, 502 when the other side's clock cannot be moved (nothing moves then).
        """
        now = self.world.now()
        if target < now:
            raise ApiError(400, "The sandbox's clock only goes forward.", param="to")
        if target - now > MAX_ADVANCE_SECONDS:
            raise ApiError(400, "The clock can move at most ten years at a time.", param="advance")
        self.catch_up()
        # What happened before the move is told before it.
        await self.deliverer.settle(SETTLE_SECONDS)
        await self._announce(target - Clock.wall())
        self.agenda.catch_up(self.world, target)
        self.world.clock.offset_seconds = max(self.world.clock.offset_seconds, target - Clock.wall())
        self.world.release_events()
        self.is_dirty = True
        self.save()
        await self.deliverer.settle(SETTLE_SECONDS)
        self._forget_old_events()
        return self.world.now()

    async def reset(self) -> None:
        """Empty the account and put its clock back on the wall; the configuration stays."""
        await self._announce(0)
        self.deliverer.forget()
        self.faults.clear()
        self.requests.clear()
        self.world.store.tables.clear()
        self.world.store.notes.clear()
        self.world.store.touched.clear()
        self.world.clock.offset_seconds = 0
        self._start_afresh()
        self.is_dirty = True
        self.save()

    def set_webhook(self, url: str | None, secret: str | None = None) -> None:
        """Point the configured endpoint somewhere else."""
        for endpoint in self.world.store.all("webhook_endpoint"):
            if endpoint.get("_is_configured"):
                self.world.store.remove(endpoint)
        if url is not None:
            endpoint = new_endpoint(self.world, url, secret=secret or self.config.webhook_secret)
            endpoint["_is_configured"] = True
        self.is_dirty = True

    def _configure_endpoint(self) -> None:
        if self.config.webhook_url is not None:
            self.set_webhook(self.config.webhook_url)

    def _forget_old_events(self) -> None:
        oldest = self.world.now() - EVENT_MEMORY_SECONDS
        events = self.world.store.tables.get("event", {})
        for key in [
            k for k, e in events.items() if e["created"] < oldest and "pending" not in e["_deliveries"].values()
        ]:
            del events[key]

    async def _announce(self, offset_seconds: int) -> None:
        if self.config.clock_url is None:
            return
        headers = {"Authorization": f"Bearer {self.config.clock_key}"}
        try:
            async with httpx.AsyncClient(timeout=CLOCK_TIMEOUT_SECONDS, trust_env=False) as client:
                answer = await client.put(
                    self.config.clock_url, json={"offset_seconds": offset_seconds}, headers=headers
                )
        except httpx.HTTPError as error:
            raise ApiError(
                502,
                f"The clock did not move: {self.config.clock_url} cannot be reached ({type(error).__name__}).",
                type="api_error",
            ) from error
        if not answer.is_success:
            raise ApiError(
                502,
                f"The clock did not move: {self.config.clock_url} answered {answer.status_code}.",
                type="api_error",
            )

    async def _announce_again(self) -> None:
        """After a restart the other side may still be starting: keep telling it where our clock stands."""
        for _ in range(ANNOUNCE_TRIES):
            with contextlib.suppress(ApiError):
                await self._announce(self.world.clock.offset_seconds)
                return
            await asyncio.sleep(1)
        log.warning("the clock at %s could not be moved to ours", self.config.clock_url)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self.catch_up()
                self.save()
            except Exception:
                # The next tick tries again; the log tells what went wrong.
                log.exception("the sandbox could not catch up")
