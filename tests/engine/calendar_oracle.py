"""Windows worked out the slow way: every boundary around an instant is written down, and the nearest two are taken."""

from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

Window = tuple[datetime | None, datetime | None]


class Billing(NamedTuple):
    """What billing windows are counted from. `paid` is the paid period that Stripe reports, if there is one."""

    anchor_at: datetime
    interval: str
    paid: tuple[datetime, datetime] | None
    interval_count: int = 1


def window(kind: str, at: datetime, billing: Billing, time_zone: str, week_start: int) -> Window:
    """The window of a kind that contains `at`."""
    if kind == "all_time":
        return None, None
    if kind in {"day", "week", "month"}:
        edges = calendar_edges(kind, at, time_zone, week_start)
    else:
        interval, count = ("month", 1) if kind == "billing_month" else (billing.interval, billing.interval_count)
        edges = billing_edges(billing.anchor_at, interval, count, at)
        if billing.paid is not None:
            if kind == "billing_interval":
                edges = [edge for edge in edges if not billing.paid[0] < edge < billing.paid[1]]
            edges += billing.paid
    return max(edge for edge in edges if edge <= at), min(edge for edge in edges if edge > at)


def billing_edges(anchor_at: datetime, interval: str, count: int, at: datetime) -> list[datetime]:
    """The boundaries around `at`, each computed from the anchor."""
    if interval in {"day", "week"}:
        length = timedelta(days=count * (7 if interval == "week" else 1))
        nearest = int((at - anchor_at) / length)
        return [anchor_at + number * length for number in range(nearest - 2, nearest + 3)]
    months = count * (12 if interval == "year" else 1)
    nearest = int(((at - anchor_at).days / 30.4375) / months)
    return [moved(anchor_at, number * months) for number in range(nearest - 2, nearest + 3)]


def moved(anchor_at: datetime, months: int) -> datetime:
    """The anchor's day and hour, so many months on; the last day of months that are too short."""
    number = anchor_at.year * 12 + anchor_at.month - 1 + months
    day = anchor_at.day
    while True:
        try:
            return anchor_at.replace(year=number // 12, month=number % 12 + 1, day=day)
        except ValueError:
            day -= 1


def calendar_edges(kind: str, at: datetime, time_zone: str, week_start: int) -> list[datetime]:
    """The local midnights around `at` on which a day, week or month begins, in UTC."""
    zone = ZoneInfo(time_zone)
    today = at.astimezone(zone).date()
    days = [today + timedelta(days=offset) for offset in range(-40, 41)]
    if kind == "week":
        days = [day for day in days if day.weekday() == week_start]
    elif kind == "month":
        days = [day for day in days if day.day == 1]
    return [midnight(day, zone) for day in days]


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a local day."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)
