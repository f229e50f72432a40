"""Tells a lease that is held from one whose holder died: a holder renews it while at work, and a dead one is silent.

No clock of another server is asked. Whoever waits sees for itself that nothing was renewed for a while, so that after a
`kill -9` a company is free within seconds; that the holder lives after all, it notices by its fence.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, NamedTuple

import structlog

from plangate.store.database import StoreSession
from plangate.store.direct import together
from plangate.store.leases import asking_lease, taking_silent_lease

RENEWED_EVERY_SECONDS = 1.0
SILENT_SECONDS = 4.0
_WATCHED_MAX: Final = 1_000
_log = structlog.get_logger(__name__)


class _Seen(NamedTuple):
    fence: int
    expires_at: int
    since: float


class Watch:
    """What this process has seen of leases that others hold."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    async def take_over(
        self, session: StoreSession, subject: str, holder: str, *, wall_now: datetime, seconds: int
    ) -> int | None:
        """The fence of a lease that fell silent and is the new holder's now; None while it is renewed, or not yet."""
        (rows,) = await together(session, asking_lease(session, subject))
        if not rows or rows[0][0] is None:
            self._seen.pop(subject, None)
            return None
        _, fence, expires_at = rows[0]
        now = asyncio.get_running_loop().time()
        seen = self._seen.get(subject)
        if seen is None or (seen.fence, seen.expires_at) != (fence, expires_at):
            if len(self._seen) >= _WATCHED_MAX:
                self._seen.clear()
            self._seen[subject] = _Seen(fence, expires_at, now)
            return None
        if now - seen.since < SILENT_SECONDS:
            return None
        del self._seen[subject]
        silent = taking_silent_lease(
            session, subject, holder, fence=fence, expires_at=expires_at, wall_now=wall_now, seconds=seconds
        )
        (taken,) = await together(session, silent)
        if not taken:
            return None
        _log.warning("silent_lease_taken_over", subject=subject, fence=fence)
        return int(taken[0][0])


class Heart:
    """Renews a lease for as long as it is held: `beat` does so, and answers whether it is still held."""

    def __init__(self, beat: Callable[[], Awaitable[bool]]) -> None:
        self._beat = beat
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Most leases are given back before the first beat, and cost no task.
        self._timer = asyncio.get_running_loop().call_later(RENEWED_EVERY_SECONDS, self._start)

    async def stop(self) -> None:
        """Beat no more; a beat under way ends first."""
        self._timer.cancel()
        self._over.set()
        if self._task is not None:
            await self._task

    def _start(self) -> None:
        self._task = asyncio.create_task(self._beating())

    async def _beating(self) -> None:
        is_held = True
        while is_held and not self._over.is_set():
            try:
                is_held = await self._beat()
            except Exception:  # noqa: BLE001 - the next beat comes before anybody takes over.
                _log.exception("lease_not_renewed")
            try:
                await asyncio.wait_for(self._over.wait(), RENEWED_EVERY_SECONDS)
            except TimeoutError:
                continue
