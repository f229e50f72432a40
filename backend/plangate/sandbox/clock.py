"""The sandbox's own time: wall time plus an offset, or the instant of whatever is being caught up with."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86_400


class Clock:
    """Whole seconds since 1970. ``offset_seconds`` moves it ahead of the wall; it never goes back."""

    def __init__(self, offset_seconds: int = 0) -> None:
        self.offset_seconds = offset_seconds
        self._stopped_at: int | None = None

    def now(self) -> int:
        """The sandbox's present."""
        return self._stopped_at if self._stopped_at is not None else self.wall() + self.offset_seconds

    @staticmethod
    def wall() -> int:
        """Real time, which signatures are made with."""
        return int(time.time())

    @contextmanager
    def standing_at(self, instant: int) -> Iterator[None]:
        """Act as of an instant that has passed while nobody looked, or of one that is only imagined."""
        before, self._stopped_at = self._stopped_at, instant
        try:
            yield
        finally:
            self._stopped_at = before
