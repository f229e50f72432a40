"""The only place that reads the machine's clock: wall time, and each environment's business time.

Signatures, tokens and leases read wall time. Periods, expiries, event ages and `at` read business time,
which is wall time plus an offset that only a test-mode environment may carry.
"""

from datetime import UTC, datetime, timedelta


def wall_now() -> datetime:
    """The present instant by the machine's clock, aware, in UTC."""
    return datetime.now(UTC)


class BusinessClock:
    """Business time of one environment. `offset` is replaced when the environment's clock is moved."""

    __slots__ = ("offset",)

    def __init__(self, offset_seconds: int = 0) -> None:
        self.offset = timedelta(seconds=offset_seconds)

    def now(self) -> datetime:
        """The present business instant, aware, in UTC."""
        return datetime.now(UTC) + self.offset
