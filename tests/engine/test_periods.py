"""Proves window arithmetic: windows tile time, contain their instant, and never drift from their anchor."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plangate.engine.periods import Cycle, add_months, window_at
from plangate.engine.values import Interval, PeriodKind
from tests.engine.factories import instants, instants_between

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # the clocks go back at one in the morning, to midnight
    "America/St_Johns",  # until 2011 the clocks went back at a minute past midnight, to yesterday
    "Africa/Cairo",  # the clocks skip midnight
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",  # skipped a whole day in 2011
]
BILLING = [PeriodKind.BILLING_MONTH, PeriodKind.BILLING_INTERVAL]
CALENDAR = [PeriodKind.DAY, PeriodKind.WEEK, PeriodKind.MONTH]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]  # Only as many parts as a test needs.


old_and_new = instants_between(utc(2006, 1, 1), utc(2032, 1, 1))


def bounds(kind: PeriodKind, at: datetime, **options: object) -> tuple[datetime, datetime]:
    start, end = window_at(kind, at, **{"anchor_at": utc(2026, 1, 31), **options})  # type: ignore[arg-type]
    assert start is not None
    assert end is not None
    return start, end


@given(st.sampled_from(BILLING), instants, instants, st.sampled_from(Interval), st.integers(1, 6))
def test_billing_windows_tile_time(
    kind: PeriodKind, at: datetime, anchor_at: datetime, interval: Interval, count: int
) -> None:
    options = {"anchor_at": anchor_at, "interval": interval, "interval_count": count}
    start, end = bounds(kind, at, **options)
    assert start <= at < end
    assert bounds(kind, start, **options) == (start, end)
    assert bounds(kind, end - timedelta(microseconds=1), **options) == (start, end)
    assert bounds(kind, end, **options)[0] == end
    assert bounds(kind, start - timedelta(microseconds=1), **options)[1] == start


@given(st.sampled_from(CALENDAR), old_and_new, st.sampled_from(ZONES), st.integers(0, 6))
def test_calendar_windows_tile_time(kind: PeriodKind, at: datetime, time_zone: str, week_start: int) -> None:
    options = {"time_zone": time_zone, "week_start": week_start}
    start, end = bounds(kind, at, **options)
    assert start <= at < end
    assert bounds(kind, start, **options) == (start, end)
    assert bounds(kind, end - timedelta(microseconds=1), **options) == (start, end)
    assert bounds(kind, end, **options)[0] == end


def oracle(anchor_at: datetime, at: datetime, months: int) -> tuple[datetime, datetime]:
    """Steps one month at a time from the anchor's own day of the month: slow, and written without the engine."""

    def boundary(number: int) -> datetime:
        month_index = anchor_at.year * 12 + anchor_at.month - 1 + number * months
        year, month = month_index // 12, month_index % 12 + 1
        last_day = monthrange(year, month)[1]
        clock = anchor_at.timetz()
        return datetime.combine(datetime(year, month, min(anchor_at.day, last_day), tzinfo=UTC).date(), clock)

    number = 0
    while boundary(number) > at:
        number -= 1
    while boundary(number + 1) <= at:
        number += 1
    return boundary(number), boundary(number + 1)


@given(
    instants_between(utc(2023, 12, 27), utc(2024, 3, 2)),
    instants,
    st.sampled_from([(Interval.MONTH, 1), (Interval.MONTH, 3), (Interval.YEAR, 12), (Interval.YEAR, 24)]),
)
def test_anchors_equal_the_oracle(anchor_at: datetime, at: datetime, length: tuple[Interval, int]) -> None:
    interval, months = length
    count = months if interval is Interval.MONTH else months // 12
    window = bounds(PeriodKind.BILLING_INTERVAL, at, anchor_at=anchor_at, interval=interval, interval_count=count)
    assert window == oracle(anchor_at, at, months)


@given(old_and_new, st.sampled_from(ZONES[:3]))
def test_days_begin_at_local_midnight(at: datetime, time_zone: str) -> None:
    start, end = bounds(PeriodKind.DAY, at, time_zone=time_zone)
    zone = ZoneInfo(time_zone)
    local_start, local_end = start.astimezone(zone), end.astimezone(zone)
    assert (local_start.hour, local_start.minute, local_end.hour, local_end.minute) == (0, 0, 0, 0)
    assert local_end.date() - local_start.date() == timedelta(days=1)
    assert end - start in {timedelta(hours=hours) for hours in (23, 24, 25)}


@given(instants, st.integers(-300, 300))
def test_adding_months_keeps_the_day_or_clamps_it(anchor_at: datetime, months: int) -> None:
    moved = add_months(anchor_at, months)
    assert (moved.year - anchor_at.year) * 12 + moved.month - anchor_at.month == months
    assert moved.day == min(anchor_at.day, monthrange(moved.year, moved.month)[1])
    assert moved.timetz() == anchor_at.timetz()


def test_t1_anchor_on_the_31st_clamps_and_comes_back() -> None:
    # Computed from the window before, March would begin on the 28th for ever.
    anchor_at = utc(2026, 1, 31)
    starts = [bounds(PeriodKind.BILLING_MONTH, utc(2026, month, 28), anchor_at=anchor_at)[1] for month in range(2, 8)]
    assert starts == [
        utc(2026, 3, 31),
        utc(2026, 3, 31),
        utc(2026, 4, 30),
        utc(2026, 5, 31),
        utc(2026, 6, 30),
        utc(2026, 7, 31),
    ]


def test_t3_yearly_anchor_on_29_february() -> None:
    # The 28th in common years, the 29th again in leap years.
    options = {"anchor_at": utc(2024, 2, 29), "interval": Interval.YEAR}
    ends = [bounds(PeriodKind.BILLING_INTERVAL, utc(year, 6, 1), **options)[1] for year in range(2024, 2029)]
    assert ends == [utc(2025, 2, 28), utc(2026, 2, 28), utc(2027, 2, 28), utc(2028, 2, 29), utc(2029, 2, 28)]


def test_t4_paid_period_comes_from_the_subscription_not_the_calendar() -> None:
    # On the 1st nothing is reset; the paid period is what Stripe's item says.
    cycle = Cycle(
        anchor_at=utc(2026, 11, 17, 9),
        period_start_at=utc(2026, 11, 17, 9),
        period_end_at=utc(2026, 12, 17, 9),
    )
    window = (utc(2026, 11, 17, 9), utc(2026, 12, 17, 9))
    for at in (utc(2026, 11, 17, 9), utc(2026, 11, 30), utc(2026, 12, 1), utc(2026, 12, 17, 8, 59)):
        assert cycle.window(PeriodKind.BILLING_MONTH, at) == window
        assert cycle.window(PeriodKind.BILLING_INTERVAL, at) == window


@pytest.mark.parametrize(
    ("day", "hours"), [(utc(2026, 3, 29, 12), 23), (utc(2026, 10, 25, 12), 25), (utc(2026, 11, 20), 24)]
)
def test_t5_days_of_a_clock_change(day: datetime, hours: int) -> None:
    # The boundaries are instants in UTC, so that a day in Berlin may last 23 or 25 hours.
    start, end = bounds(PeriodKind.DAY, day, time_zone="Europe/Berlin")
    assert end - start == timedelta(hours=hours)
    assert start.tzinfo is UTC


@pytest.mark.parametrize(
    ("week_start", "start"),
    [(0, utc(2026, 11, 16)), (4, utc(2026, 11, 20)), (5, utc(2026, 11, 14)), (6, utc(2026, 11, 15))],
)
def test_weeks_begin_on_the_day_that_is_set(week_start: int, start: datetime) -> None:
    # 20 November 2026 is a Friday.
    window = bounds(PeriodKind.WEEK, utc(2026, 11, 20, 12), week_start=week_start)
    assert window == (start, start + timedelta(days=7))


def test_intervals_of_days_and_weeks() -> None:
    options = {"anchor_at": utc(2026, 11, 1), "interval": Interval.WEEK, "interval_count": 2}
    assert bounds(PeriodKind.BILLING_INTERVAL, utc(2026, 11, 20), **options) == (utc(2026, 11, 15), utc(2026, 11, 29))
    options = {"anchor_at": utc(2026, 11, 1), "interval": Interval.DAY, "interval_count": 10}
    assert bounds(PeriodKind.BILLING_INTERVAL, utc(2026, 10, 31), **options) == (utc(2026, 10, 22), utc(2026, 11, 1))


def test_all_time_has_no_ends() -> None:
    cycle = Cycle(anchor_at=utc(2026, 1, 1))
    assert window_at(PeriodKind.ALL_TIME, utc(2026, 5, 5), anchor_at=utc(2026, 1, 1)) == (None, None)
    assert cycle.window(PeriodKind.ALL_TIME, utc(2026, 5, 5)) == (None, None)
    assert cycle.next_window(PeriodKind.ALL_TIME, utc(2026, 5, 1), utc(2026, 5, 5)) == (None, None)
    assert cycle.rebound(PeriodKind.ALL_TIME, utc(2026, 5, 5)) is None


def test_moved_anchor_bounds_the_running_window_and_the_next_one_follows_it() -> None:
    # Free since the 3rd, Pro since the 20th: the running window ends at Pro's next boundary.
    cycle = Cycle(anchor_at=utc(2026, 11, 20, 10))
    end_at = cycle.rebound(PeriodKind.BILLING_MONTH, utc(2026, 11, 20, 10))
    assert end_at == utc(2026, 12, 20, 10)
    assert cycle.next_window(PeriodKind.BILLING_MONTH, end_at, end_at) == (end_at, utc(2027, 1, 20, 10))
    # A stored window that ended inside the computed one pushes the start, so that none is counted twice.
    late = utc(2026, 11, 25)
    assert cycle.next_window(PeriodKind.BILLING_MONTH, late, utc(2026, 11, 26)) == (late, utc(2026, 12, 20, 10))
    # One that has not ended yet, or ended long ago, changes nothing.
    whole = (utc(2026, 11, 20, 10), utc(2026, 12, 20, 10))
    assert cycle.next_window(PeriodKind.BILLING_MONTH, utc(2026, 11, 30), utc(2026, 11, 26)) == whole
    assert cycle.next_window(PeriodKind.BILLING_MONTH, utc(2026, 10, 1), utc(2026, 11, 26)) == whole


def test_edges_of_a_trial_are_edges_of_windows() -> None:
    # A trial of 14 days: the anchor is its end, and the month before the anchor is not one window.
    trial = Cycle(anchor_at=utc(2026, 11, 28), period_start_at=utc(2026, 11, 14), period_end_at=utc(2026, 11, 28))
    for kind in BILLING:
        assert trial.window(kind, utc(2026, 11, 20)) == (utc(2026, 11, 14), utc(2026, 11, 28))
        assert trial.window(kind, utc(2026, 11, 13)) == (utc(2026, 10, 28), utc(2026, 11, 14))
        assert trial.window(kind, utc(2026, 11, 28)) == (utc(2026, 11, 28), utc(2026, 12, 28))
    assert trial.window(PeriodKind.MONTH, utc(2026, 11, 20)) == (utc(2026, 11, 1), utc(2026, 12, 1))


@given(st.sampled_from(BILLING), instants, st.integers(1, 400), st.integers(-500, 500))
def test_windows_around_a_paid_period_tile_time(kind: PeriodKind, start_at: datetime, days: int, offset: int) -> None:
    cycle = Cycle(
        anchor_at=start_at + timedelta(days=3),
        period_start_at=start_at,
        period_end_at=start_at + timedelta(days=days),
    )
    at = start_at + timedelta(days=offset)
    start, end = cycle.window(kind, at)
    assert start is not None
    assert end is not None
    assert start <= at < end
    assert cycle.window(kind, end)[0] == end
    assert cycle.window(kind, end - timedelta(microseconds=1)) == (start, end)
