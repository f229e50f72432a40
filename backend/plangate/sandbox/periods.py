"""Billing periods counted from an anchor, clamped to short months and coming back afterwards."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .errors import invalid

_DURATION = re.compile(
    r"P(?=\d|T)(?:(?P<years>\d{1,3})Y)?(?:(?P<months>\d{1,4})M)?(?:(?P<weeks>\d{1,4})W)?(?:(?P<days>\d{1,5})D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d{1,6})H)?(?:(?P<minutes>\d{1,8})M)?(?:(?P<seconds>\d{1,10})S)?)?\Z"
)


def boundary(anchor: int, interval: str, count: int, number: int) -> int:
    """The ``number``-th boundary after the anchor (0 is the anchor itself), in unix seconds."""
    steps = count * number
    if interval == "day":
        return anchor + steps * 86_400
    if interval == "week":
        return anchor + steps * 7 * 86_400
    return add_months(anchor, steps * (12 if interval == "year" else 1))


def period_at(anchor: int, interval: str, count: int, instant: int) -> tuple[int, int]:
    """The half-open period `[start, end)` that holds an instant."""
    length = {"day": 86_400, "week": 604_800, "month": 2_592_000, "year": 31_536_000}[interval] * count
    number = (instant - anchor) // length
    while boundary(anchor, interval, count, number) > instant:
        number -= 1
    while boundary(anchor, interval, count, number + 1) <= instant:
        number += 1
    return boundary(anchor, interval, count, number), boundary(anchor, interval, count, number + 1)


def add_months(instant: int, months: int) -> int:
    """The same day and time so many months on, clamped to the end of a shorter month."""
    moment = datetime.fromtimestamp(instant, UTC)
    years, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, calendar.monthrange(years, month + 1)[1])
    return int(moment.replace(year=years, month=month + 1, day=day).timestamp())


def add_duration(instant: int, text: str) -> int:
    """An instant moved by an ISO 8601 duration such as `P1M` or `P1DT2H`. Raises ApiError 400 for other text."""
    match = _DURATION.match(text)
    if match is None:
        raise invalid(f"Invalid duration: {text[:40]}. Use ISO 8601, for example P1M, P7D or PT1H.", param="advance")
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    moved = add_months(instant, part["years"] * 12 + part["months"])
    return moved + int(
        timedelta(
            weeks=part["weeks"],
            days=part["days"],
            hours=part["hours"],
            minutes=part["minutes"],
            seconds=part["seconds"],
        ).total_seconds()
    )


def checked_instant(value: int, *, now: int, param: str, years: int = 10) -> int:
    """An instant that calendars can hold. Raises ApiError 400 for one further away than so many years."""
    if abs(value - now) > years * 366 * 86_400:
        raise invalid(f"Invalid timestamp: can be no more than {years} years from now", param=param)
    return value


def read_instant(text: str) -> int:
    """Unix seconds of an RFC 3339 instant. Raises ApiError 400 for other text or a missing zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid(f"Invalid instant: {text[:40]}. Use RFC 3339 with a zone.", param="to") from error
    if moment.tzinfo is None:
        raise invalid(f"Invalid instant: {text[:40]}. It needs a zone, for example Z.", param="to")
    return int(moment.timestamp())


def written_instant(instant: int) -> str:
    """RFC 3339 in UTC."""
    return datetime.fromtimestamp(instant, UTC).isoformat().replace("+00:00", "Z")


def written_day(instant: int) -> str:
    """The day as invoices write it: `20 Nov 2026`."""
    return datetime.fromtimestamp(instant, UTC).strftime("%d %b %Y")


def written_every(recurring: Mapping[str, Any]) -> str:
    """How often a recurring price is paid, as pages write it: `per month`, `every 3 months`."""
    count, interval = recurring["interval_count"], recurring["interval"]
    return f"per {interval}" if count == 1 else f"every {count} {interval}s"
