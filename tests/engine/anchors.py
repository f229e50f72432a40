"""Random anchors, intervals and zones: every window of the engine beside one that was worked out the slow way."""

import random
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from plangate.engine.periods import Cycle
from plangate.engine.values import Interval, PeriodKind
from tests.engine.calendar_oracle import Billing, window

LENGTHS = (
    (Interval.MONTH, 1),
    (Interval.MONTH, 3),
    (Interval.MONTH, 6),
    (Interval.YEAR, 1),
    (Interval.YEAR, 3),
    (Interval.WEEK, 1),
    (Interval.WEEK, 2),
    (Interval.DAY, 1),
    (Interval.DAY, 90),
)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)
_FIRST, _LAST = datetime(2010, 1, 1, tzinfo=UTC), datetime(2034, 12, 31, tzinfo=UTC)


class Compared(NamedTuple):
    """How many windows were compared, and every mismatch in a sentence."""

    windows: int
    mismatches: list[str]


def compare(anchors: int, *, seed: int) -> Compared:
    """Each anchor with each interval, at instants anywhere and at the edges of what was found there."""
    dice = random.Random(seed)  # noqa: S311 - anchors to be found again, not secrets
    windows = 0
    mismatches: list[str] = []
    for _ in range(anchors):
        anchor_at = _anchor(dice)
        zone, week_start = dice.choice(ZONES), dice.randrange(7)
        for interval, count in LENGTHS:
            paid = _paid(anchor_at, dice)
            cycle = Cycle(
                anchor_at=anchor_at,
                interval=interval,
                interval_count=count,
                time_zone=zone,
                week_start=week_start,
                period_start_at=paid[0] if paid else None,
                period_end_at=paid[1] if paid else None,
            )
            kind = dice.choice(list(PeriodKind))
            billing = Billing(anchor_at, interval.value, paid, count)
            for at in _instants(anchor_at, cycle, kind, dice):
                expected = window(kind.value, at, billing, zone, week_start)
                actual = cycle.window(kind, at)
                windows += 1
                if actual != expected or cycle.rebound(kind, at) != expected[1]:
                    mismatches.append(f"{kind} at {at} of {cycle}: {actual}, not {expected}")
    return Compared(windows, mismatches)


def _anchor(dice: random.Random) -> datetime:
    """Every second one on the 29th to the 31st, every eighth on 29 February."""
    at = _FIRST + timedelta(seconds=dice.randrange(int((_LAST - _FIRST).total_seconds())))
    if dice.random() < 0.125:
        return at.replace(year=dice.choice([2012, 2016, 2020, 2024, 2028, 2032]), month=2, day=29)
    if dice.random() < 0.5:
        return at.replace(day=min(dice.choice([29, 30, 31]), monthrange(at.year, at.month)[1]))
    return at


def _paid(anchor_at: datetime, dice: random.Random) -> tuple[datetime, datetime] | None:
    """Sometimes the period that Stripe reports is a trial, or one that began before the anchor moved."""
    if dice.random() < 0.5:
        return None
    start = anchor_at + timedelta(days=dice.choice([-14, 0, 31]))
    return start, start + timedelta(days=dice.choice([7, 14, 30, 365]))


def _instants(anchor_at: datetime, cycle: Cycle, kind: PeriodKind, dice: random.Random) -> Iterator[datetime]:
    at = anchor_at + timedelta(seconds=dice.randrange(-200_000_000, 400_000_000))
    at = min(max(at, _FIRST), _LAST)
    yield at
    for edge in cycle.window(kind, at):
        if edge is not None:
            yield edge
            yield edge - timedelta(microseconds=1)
    yield anchor_at
