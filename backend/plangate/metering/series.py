"""What was used when: a feature's usage by hour, day or month, from the ledger, with no gaps."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec

from plangate.counted_events import event_of
from plangate.engine.periods import window_at
from plangate.engine.values import FeatureType, PeriodKind
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.members import one_user
from plangate.store.companies import is_company
from plangate.store.database import StoreSession
from plangate.store.ledger import ledger_buckets
from plangate.store.users import user_of_keys

By = Literal["hour", "day", "month"]

POINTS: Final = 1_000
_HOUR: Final = timedelta(hours=1)
# Every local midnight on earth falls on a quarter of an hour, so quarters add up to days of any time zone.
_QUARTER: Final = timedelta(minutes=15)
_MICROSECOND: Final = timedelta(microseconds=1)
_AHEAD: Final = timedelta(days=366)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_USUAL_POINTS: Final[Mapping[By, int]] = {"hour": 48, "day": 31, "month": 12}


class UsagePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Usage in `[start, end)`. Corrections may make it negative."""

    start: datetime
    end: datetime
    quantity: int


class UsageSeries(msgspec.Struct, frozen=True, kw_only=True):
    """A feature's usage, oldest first, in base units; days and months are those of the environment's time zone."""

    feature: str
    by: By
    user: str | None
    points: tuple[UsagePoint, ...]


async def series(
    env: Environment,
    company_id: str,
    feature: str,
    by: By,
    *,
    user: Mapping[str, str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> UsageSeries:
    """A metered feature's usage of the company, or of one user of it, by hour, day or month; gaps are zeros.

    The range is `[since, until)`, rounded out to whole steps, so that ranges put end to end share none; by default it
    is the last 48 hours, 31 days or 12 months, with the running one. Raises Refusal: 404 for an unknown company, 422
    for a feature that is not metered, an unknown user, a range that ends where it begins or earlier, or one of more
    than 1,000 steps.
    """
    catalog = await env.catalog()
    known = catalog.features.get(feature)
    if known is None or known.type is not FeatureType.EVENT:
        raise invalid("/feature", "That is not a metered feature.")
    zone, now = catalog.settings.time_zone, env.clock.now()
    if since is not None and until is not None and until <= since:
        raise invalid("/until", "The range must end after it begins.")
    last_at = now if until is None else min(until.astimezone(UTC), now + _AHEAD) - _MICROSECOND
    if min(last_at, last_at if since is None else since) < _EARLIEST:
        raise invalid("/since", "The range begins too far back.")
    steps = _steps(by, since, last_at, zone)
    async with env.reading() as session:
        if not await is_company(session, company_id):
            raise Refusal(Code.NOT_FOUND, "There is no such company.")
        user_id = await _user_id(session, user)
        width = _HOUR if by == "hour" else _QUARTER
        buckets = await ledger_buckets(
            session,
            company_id,
            event_of(known),
            start_at=steps[0][0],
            end_at=steps[-1][1],
            width_microseconds=width // _MICROSECOND,
            user_id=user_id or "",
        )
    totals = [0] * len(steps)
    step = 0
    for number, quantity in sorted(buckets.items()):
        at = steps[0][0] + number * width
        while at >= steps[step][1]:
            step += 1
        totals[step] += quantity
    points = tuple(
        UsagePoint(start=start, end=end, quantity=total) for (start, end), total in zip(steps, totals, strict=True)
    )
    return UsageSeries(feature=feature, by=by, user=user_id, points=points)


def _steps(by: By, since: datetime | None, last_at: datetime, zone: str) -> list[tuple[datetime, datetime]]:
    """Whole steps from that of `since` to that of `last_at`, oldest first."""
    wanted = POINTS + 1 if since is not None else _USUAL_POINTS[by]
    found: list[tuple[datetime, datetime]] = []
    at = last_at
    while len(found) < wanted and (since is None or not found or found[-1][0] > since):
        start, end = _step(by, at, zone)
        found.append((start, end))
        at = start - _MICROSECOND
    if len(found) > POINTS:
        raise invalid("/since", f"The range spans more than {POINTS} steps; ask for less, or by a longer step.")
    return found[::-1]


def _step(by: By, at: datetime, zone: str) -> tuple[datetime, datetime]:
    if by == "hour":
        start = at.replace(minute=0, second=0, microsecond=0)
        return start, start + _HOUR
    kind = PeriodKind.DAY if by == "day" else PeriodKind.MONTH
    first, last = window_at(kind, at, anchor_at=at, time_zone=zone)
    if first is None or last is None:
        raise LookupError(f"a {by} without bounds")
    return first, last


async def _user_id(session: StoreSession, user: Mapping[str, str] | None) -> str | None:
    if user is None:
        return None
    user_id = one_user(await user_of_keys(session, user))
    if user_id is None:
        raise invalid("/user", "There is no such user.")
    return user_id
