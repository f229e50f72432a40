"""Signed deliveries: in the background, tried again with pauses, and disturbed on purpose when a fault says so."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import deque
from typing import TYPE_CHECKING, Any

import httpx

from .clock import Clock
from .render import view
from .resources.events import wanted_by
from .world import World

if TYPE_CHECKING:
    from .faults import Fault, Faults

Obj = dict[str, Any]

REORDER_HOLD_SECONDS = 1.5


def signature(body: bytes, secret: str, at: int) -> str:
    """The `Stripe-Signature` header of a body, made at a wall-clock second."""
    digest = hmac.new(secret.encode(), str(at).encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class Deliverer:
    """Takes events as they happen and posts them, one after another for a tidy order, retries aside."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self._waiting: deque[tuple[str, str]] = deque()
        self._held: list[tuple[str, str]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: httpx.AsyncClient | None = None
        self.attempts: deque[Obj] = deque(maxlen=500)
        world.on_event = self.take

    def take(self, event: Obj) -> None:
        """Queue an event for every endpoint that wants it."""
        for endpoint in self._world.store.all("webhook_endpoint"):
            if wanted_by(endpoint, event["type"]):
                event["_deliveries"][endpoint["id"]] = "pending"
                event["pending_webhooks"] += 1
                self._waiting.append((event["id"], endpoint["id"]))
        if self._waiting:
            self._idle.clear()
            self._wake.set()

    async def run(self) -> None:
        """Deliver for as long as the sandbox runs."""
        config = self._world.config
        async with httpx.AsyncClient(timeout=config.webhook_timeout_seconds, trust_env=False) as client:
            self._client = client
            try:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    while self._waiting:
                        await self._first_attempt(*self._waiting.popleft())
                    self._idle.set()
            finally:
                for task in self._tasks:
                    task.cancel()
                self._client = None

    async def settle(self, timeout_seconds: float) -> bool:
        """Wait until every queued event had its first attempt; False when that took too long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def forget(self) -> None:
        """Drop everything queued or planned."""
        self._waiting.clear()
        self._held.clear()
        for task in self._tasks:
            task.cancel()

    async def resend(self, stripe_event_id: str) -> None:
        """Deliver an old event once more to every endpoint."""
        event = self._world.require("event", stripe_event_id)
        for endpoint in self._world.store.all("webhook_endpoint"):
            if wanted_by(endpoint, event["type"]):
                await self._post(event, endpoint)

    async def _first_attempt(self, event_id: str, endpoint_id: str) -> None:
        event = self._world.store.get("event", event_id)
        endpoint = self._world.store.get("webhook_endpoint", endpoint_id)
        if event is None or endpoint is None:
            return
        struck = {rule.fault: rule for rule in self._faults.for_webhook(event["type"])}
        if "drop_webhooks" in struck:
            event["_deliveries"][endpoint_id] = "lost"
            self._note(event, endpoint, "lost on purpose")
            return
        if "delay_webhooks" in struck:
            self._later(event, endpoint, struck["delay_webhooks"])
            return
        if "reorder_webhooks" in struck:
            self._held.append((event_id, endpoint_id))
            self._spawn(self._release_held_later())
            return
        await self._attempt(event, endpoint)
        if "duplicate_webhooks" in struck:
            await self._post(event, endpoint)
        await self._release_held()

    async def _attempt(self, event: Obj, endpoint: Obj, number: int = 0) -> None:
        is_taken = await self._post(event, endpoint)
        if is_taken:
            self._settle(event, endpoint, "delivered")
            return
        pauses = self._world.config.webhook_retry_seconds
        if number >= len(pauses):
            self._settle(event, endpoint, "failed")
            return
        event["_deliveries"][endpoint["id"]] = "retrying"
        self._spawn(self._again(event, endpoint, number + 1, pauses[number]))

    async def _again(self, event: Obj, endpoint: Obj, number: int, pause: float) -> None:
        await asyncio.sleep(pause)
        await self._attempt(event, endpoint, number)

    async def _release_held_later(self) -> None:
        await asyncio.sleep(REORDER_HOLD_SECONDS)
        await self._release_held()

    async def _release_held(self) -> None:
        while self._held:
            event_id, endpoint_id = self._held.pop()
            event = self._world.store.get("event", event_id)
            endpoint = self._world.store.get("webhook_endpoint", endpoint_id)
            if event is not None and endpoint is not None:
                await self._attempt(event, endpoint)

    def _later(self, event: Obj, endpoint: Obj, rule: Fault) -> None:
        self._spawn(self._again(event, endpoint, 0, rule.seconds))

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - any coroutine of this class.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, event: Obj, endpoint: Obj) -> bool:
        if self._client is None:
            return False
        body = json.dumps(view(self._world, event), separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (sandbox)",
            "Stripe-Signature": signature(body, endpoint["_secret"], Clock.wall()),
        }
        try:
            response = await self._client.post(endpoint["url"], content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            self._note(event, endpoint, type(error).__name__)
            return False
        self._note(event, endpoint, str(response.status_code))
        return 200 <= response.status_code < 300

    def _settle(self, event: Obj, endpoint: Obj, state: str) -> None:
        if event["_deliveries"].get(endpoint["id"]) != "delivered":
            event["_deliveries"][endpoint["id"]] = state
            if state == "delivered":
                event["pending_webhooks"] = max(0, event["pending_webhooks"] - 1)

    def _note(self, event: Obj, endpoint: Obj, result: str) -> None:
        self.attempts.append(
            {"event": event["id"], "type": event["type"], "endpoint": endpoint["id"], "result": result}
        )
