"""Window arithmetic in one place: which half-open period an instant belongs to, and where it ends.

Billing windows are always computed from the anchor itself, never from the window before, so that an anchor on the
31st clamps to short months and comes back (Jan 31 → Feb 28 → Mar 31). Calendar windows begin at local midnight of the
environment's time zone and are returned as UTC instants, so a day of a clock change lasts 23 or 25 hours.
"""

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from plangate.engine.values import Interval, PeriodKind

Window: TypeAlias = tuple[datetime | None, datetime | None]

_MONTHS = {Interval.MONTH: 1, Interval.YEAR: 12}
_DAYS = {Interval.DAY: 1, Interval.WEEK: 7}


class Cycle(msgspec.Struct, frozen=True, kw_only=True):
    """What a company's windows are measured from: the billing anchor and interval, and the calendar's zone.

    `period_start_at` and `period_end_at` are the paid period Stripe reports, when a subscription gives the anchor.
    """

    anchor_at: datetime
    interval: Interval = Interval.MONTH
    interval_count: int = 1
    time_zone: str = "UTC"
    week_start: int = 0
    period_start_at: datetime | None = None
    period_end_at: datetime | None = None

    def window(self, kind: PeriodKind, at: datetime) -> Window:
        """The window of this kind that contains `at`; `(None, None)` for all time.

        The edges of the paid period that Stripe reports are edges of billing windows too: a 14-day trial, or the
        months of a yearly plan, start and end where that period does.
        """
        start, end = window_at(
            kind,
            at,
            anchor_at=self.anchor_at,
            interval=self.interval,
            interval_count=self.interval_count,
            time_zone=self.time_zone,
            week_start=self.week_start,
        )
        paid_from, paid_until = self.period_start_at, self.period_end_at
        if kind not in _BILLING or start is None or end is None or paid_from is None or paid_until is None:
            return start, end
        if at < paid_from:
            return start, min(end, paid_from)
        if at >= paid_until:
            return max(start, paid_until), end
        if kind is PeriodKind.BILLING_INTERVAL:
            return paid_from, paid_until
        return max(start, paid_from), min(end, paid_until)

    def next_window(self, kind: PeriodKind, stored_end_at: datetime, at: datetime) -> Window:
        """The window at `at`, following a stored window that ended at `stored_end_at`: it never overlaps that one."""
        start, end = self.window(kind, at)
        return (stored_end_at if start is not None and start < stored_end_at <= at else start), end

    def rebound(self, kind: PeriodKind, at: datetime) -> datetime | None:
        """Where a window that is running at `at` now ends: this cycle's next boundary; None for all time."""
        return self.window(kind, at)[1]


_BILLING = frozenset({PeriodKind.BILLING_MONTH, PeriodKind.BILLING_INTERVAL})


def window_at(
    kind: PeriodKind,
    at: datetime,
    *,
    anchor_at: datetime,
    interval: Interval = Interval.MONTH,
    interval_count: int = 1,
    time_zone: str = "UTC",
    week_start: int = 0,
) -> Window:
    """The half-open window `[start, end)` of one kind that contains `at`, as UTC instants; `(None, None)` for all time.

    `anchor_at` and the interval matter to the billing kinds only; `time_zone` (an IANA name) and `week_start`
    (0 is Monday) to the calendar kinds only. Instants before the anchor have windows too.
    """
    match kind:
        case PeriodKind.ALL_TIME:
            return None, None
        case PeriodKind.BILLING_MONTH:
            return _billing_window(at, anchor_at, Interval.MONTH, 1)
        case PeriodKind.BILLING_INTERVAL:
            return _billing_window(at, anchor_at, interval, interval_count)
        case PeriodKind.DAY | PeriodKind.WEEK | PeriodKind.MONTH:
            return _calendar_window(kind, at, time_zone, week_start)


def add_months(anchor_at: datetime, months: int) -> datetime:
    """The anchor moved by whole months (negative ones back), clamped to the last day of a shorter month."""
    years, month = divmod(anchor_at.month - 1 + months, 12)
    year = anchor_at.year + years
    day = min(anchor_at.day, monthrange(year, month + 1)[1])
    return anchor_at.replace(year=year, month=month + 1, day=day)


def _billing_window(at: datetime, anchor_at: datetime, interval: Interval, count: int) -> tuple[datetime, datetime]:
    days = _DAYS.get(interval)
    if days is not None:
        length = timedelta(days=days * count)
        start = anchor_at + (at - anchor_at) // length * length
        return start, start + length
    months = _MONTHS[interval] * count
    number = ((at.year - anchor_at.year) * 12 + at.month - anchor_at.month) // months
    # The guess looks at months alone; the day and the time of day may show that the boundary is still ahead.
    if add_months(anchor_at, number * months) > at:
        number -= 1
    return add_months(anchor_at, number * months), add_months(anchor_at, (number + 1) * months)


def _calendar_window(kind: PeriodKind, at: datetime, time_zone: str, week_start: int) -> tuple[datetime, datetime]:
    today = at.astimezone(_zone(time_zone)).date()
    if kind is PeriodKind.DAY:
        dates = [today + timedelta(days=n) for n in (-1, 0, 1, 2)]
    elif kind is PeriodKind.WEEK:
        first = today - timedelta(days=(today.weekday() - week_start) % 7)
        dates = [first + timedelta(days=7 * n) for n in (-1, 0, 1, 2)]
    else:
        first = today.replace(day=1)
        dates = [_first_of_month(first, n) for n in (-1, 0, 1, 2)]
    # Zones that move their clocks at midnight can show yesterday's date after today has begun, so the boundaries
    # on both sides are compared with the instant itself instead of trusting the local date.
    boundaries = [_midnight(day, time_zone) for day in dates]
    number = max(index for index, boundary in enumerate(boundaries[:-1]) if boundary <= at)
    return boundaries[number], boundaries[number + 1]


def _first_of_month(first: date, months: int) -> date:
    years, month = divmod(first.month - 1 + months, 12)
    return date(first.year + years, month + 1, 1)


def _midnight(day: date, time_zone: str) -> datetime:
    # A midnight that the clocks skip resolves to the instant of the change; one that happens twice, to the first.
    return datetime.combine(day, time(), tzinfo=_zone(time_zone)).astimezone(UTC)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
