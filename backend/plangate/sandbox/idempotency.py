"""Idempotency keys: the first answer is the answer, and the same key with other parameters is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from .clock import DAY
from .errors import ApiError
from .world import World

Obj = dict[str, Any]

MEMORY_SECONDS = DAY
MAX_KEY = 255


@dataclass(frozen=True)
class Replay:
    """An answer given before."""

    status: int
    body: Obj
    request_id: str


class KeyRing:
    """Answers by key, for a day of sandbox time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: set[str] = set()

    def find(self, key: str, method: str, path: str, form: str) -> Replay | None:
        """The answer a key has had. Raises ApiError 400 for other parameters and 409 while the first still runs."""
        if len(key) > MAX_KEY:
            raise ApiError(400, "Idempotency keys can be at most 255 characters.", type="idempotency_error")
        if key in self._running:
            raise ApiError(
                409,
                "There is currently another in-progress request using this Stripe-Idempotent-Key (that probably means "
                "you submitted twice, and the other request is still going through): " + key,
                type="idempotency_error",
                code="idempotency_key_in_use",
                is_replayable=False,
            )
        kept = self._kept().get(key)
        if kept is None or self._world.now() - kept["at"] >= MEMORY_SECONDS:
            return None
        if kept["endpoint"] != f"{method} {path}":
            raise ApiError(
                400,
                f"Keys for idempotent requests can only be used for the same endpoint they were first used for "
                f"('{path}' vs '{kept['endpoint'].partition(' ')[2]}'). Try using a key other than '{key}' if you "
                "meant to execute a different request.",
                type="idempotency_error",
                is_replayable=False,
            )
        if kept["form"] != _digest(form):
            raise ApiError(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were first used with. Try "
                f"using a key other than '{key}' if you meant to execute a different request.",
                type="idempotency_error",
                is_replayable=False,
            )
        return Replay(kept["status"], kept["body"], kept["request_id"])

    def start(self, key: str) -> None:
        """A request with this key is running."""
        self._running.add(key)

    def finish(self, key: str) -> None:
        """It is done, answered or not."""
        self._running.discard(key)

    def keep(self, key: str, method: str, path: str, form: str, *, status: int, body: Obj, request_id: str) -> None:
        """Remember an answer, failures of the server included."""
        self._kept()[key] = {
            "at": self._world.now(),
            "endpoint": f"{method} {path}",
            "form": _digest(form),
            "status": status,
            "body": body,
            "request_id": request_id,
        }

    def forget_old(self) -> None:
        """Drop answers nobody can ask for any more."""
        kept, now = self._kept(), self._world.now()
        for key in [k for k, answer in kept.items() if now - answer["at"] >= MEMORY_SECONDS]:
            del kept[key]

    def _kept(self) -> dict[str, Obj]:
        kept: dict[str, Obj] = self._world.store.notes.setdefault("idempotency", {})
        return kept


def _digest(form: str) -> str:
    return hashlib.sha256("&".join(sorted(form.split("&"))).encode()).hexdigest()
