"""The sandbox's calendar: everything that is due, done in order, each at its own instant."""

from __future__ import annotations

import heapq
from typing import Any

from plangate.sandbox.world import World

from .phases import advance_schedule
from .renewals import act_on_invoice, act_on_subscription, invoice_due, subscription_due

Obj = dict[str, Any]

_ORDER = {"subscription_schedule": 0, "subscription": 1, "invoice": 2, "checkout.session": 3}
MAX_STEPS = 200_000


class Agenda:
    """A heap of (instant, order, kind, id). Entries that no longer hold are dropped when their turn comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str, str]] = []

    def catch_up(self, world: World, until: int) -> int:
        """Act out everything due up to an instant, and answer how many steps that took.

        While it works the clock stands at the instant of each step, so what happens carries the right dates.
        """
        steps = 0
        self._note_touched(world)
        while self._heap and self._heap[0][0] <= until:
            instant, _, kind, stripe_id = heapq.heappop(self._heap)
            obj = world.store.get(kind, stripe_id)
            if obj is None or due_at(obj) != instant:
                continue
            with world.clock.standing_at(instant):
                act(world, obj)
            if due_at(obj) == instant:
                raise RuntimeError(f"{kind} {stripe_id} did not move on at {instant}")
            self._note_touched(world)
            steps += 1
            if steps > MAX_STEPS:
                raise RuntimeError("the sandbox cannot catch up: too much is due")
        return steps

    def next_due(self, world: World) -> int | None:
        """When something happens next."""
        self._note_touched(world)
        for instant, _, kind, stripe_id in sorted(self._heap):
            obj = world.store.get(kind, stripe_id)
            if obj is not None and due_at(obj) == instant:
                return instant
        return None

    def _note_touched(self, world: World) -> None:
        for kind, stripe_id in world.store.touched:
            obj = world.store.get(kind, stripe_id)
            if kind in _ORDER and obj is not None and (instant := due_at(obj)) is not None:
                heapq.heappush(self._heap, (instant, _ORDER[kind], kind, stripe_id))
        world.store.touched.clear()


def due_at(obj: Obj) -> int | None:
    """The next instant at which an object changes by itself."""
    kind = obj["object"]
    if kind == "subscription":
        return subscription_due(obj)
    if kind == "invoice":
        return invoice_due(obj)
    if kind == "subscription_schedule":
        if obj["status"] == "not_started":
            return int(obj["phases"][0]["start_date"])
        return int(obj["current_phase"]["end_date"]) if obj["status"] == "active" and obj["current_phase"] else None
    if kind == "checkout.session":
        return int(obj["expires_at"]) if obj["status"] == "open" else None
    return None


def act(world: World, obj: Obj) -> None:
    """Do what is due on one object now."""
    kind = obj["object"]
    if kind == "subscription":
        act_on_subscription(world, obj)
    elif kind == "invoice":
        act_on_invoice(world, obj)
    elif kind == "subscription_schedule":
        advance_schedule(world, obj)
    elif kind == "checkout.session":
        with world.changing(obj, None):
            obj["status"] = "expired"
            obj["url"] = None
        world.emit("checkout.session.expired", obj)
