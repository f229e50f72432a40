"""Keeps long work, such as an import, below Stripe's rate limits, so that people's own changes are never refused.

Only calls made inside `paced` wait for their turn; a checkout that runs beside an import does not.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import anyio

_PAUSE_SECONDS: Final = 1.0
_PAUSE_SECONDS_MAX: Final = 30.0
_REFUSALS_MAX: Final = 10


class Pace:
    """Turns at an even pace, `per_second` of them, for all who share it; slower after Stripe asked for it."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._next_at = 0.0
        self._refusals = 0

    async def turn(self) -> None:
        """Wait for the next turn."""
        now = time.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + self._interval
        if at > now:
            await anyio.sleep(at - now)

    def answered(self) -> None:
        """A call went through."""
        self._refusals = 0

    def refused(self) -> bool:
        """Stripe asked us to slow down: the next turns come later. False when it asked too often in a row."""
        self._refusals += 1
        pause = min(_PAUSE_SECONDS * 2 ** (self._refusals - 1), _PAUSE_SECONDS_MAX)
        self._next_at = max(self._next_at, time.monotonic() + pause)
        return self._refusals <= _REFUSALS_MAX


_pace: ContextVar[Pace | None] = ContextVar("stripe_pace", default=None)


@contextmanager
def paced(pace: Pace) -> Iterator[None]:
    """All calls inside the block, and in tasks started inside it, take their turns with this pace."""
    token = _pace.set(pace)
    try:
        yield
    finally:
        _pace.reset(token)


def current_pace() -> Pace | None:
    """The pace of the block we are in, if any."""
    return _pace.get()
