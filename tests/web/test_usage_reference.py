"""The usage page says what the code does: bounds, results, periods, states, columns."""

import re
from pathlib import Path

import pytest

from plangate.engine.values import INT64_MAX, PeriodKind, PriceBehaviour
from plangate.metering import EventStatus, UsageRecord, events
from plangate.metering.series import POINTS
from plangate.store import meter_outbox, reservations
from plangate.usage_windows import ATTRIBUTABLE
from plangate.web.api import OPERATIONS
from plangate.web.schemas import EVENTS_MAX, ReservationBody

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "usage.md").read_text("utf-8")


def _table(head: str) -> dict[str, str]:
    """The table whose first column is headed so: its first column without marks, and the rest of each line."""
    block = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert block is not None, head
    rows = [line.strip("|").split("|", 1) for line in block[1].splitlines()]
    return {first.strip().replace("`", ""): rest.strip().rstrip("|").strip() for first, rest in rows}


def test_bounds() -> None:
    ttl = ReservationBody.model_json_schema()["properties"]["ttl_seconds"]
    shortest = events.SHORTEST_RESERVATION.total_seconds()
    longest = events.LONGEST_RESERVATION.total_seconds()
    assert (ttl["minimum"], ttl["maximum"]) == (shortest, longest)
    assert EVENTS_MAX == events.EVENTS_PER_BATCH
    assert _table("What") == {
        "Events in one list": f"{events.EVENTS_PER_BATCH}",
        "Oldest event": f"{events.LATEST.days} days",
        "Furthest in the future": f"{events.AHEAD.seconds // 60} minutes; up to that it counts as now",
        "Quantity of an event": f"{-INT64_MAX} to {INT64_MAX}, whole numbers",
        "Quantity of a consume or a reservation": f"1 to {INT64_MAX}",
        "Characters of an event's name": f"{events.NAME_LENGTH}",
        "Characters of an idempotency key": f"{events.KEY_LENGTH}",
        "Waiting for an unknown company": f"{ATTRIBUTABLE.total_seconds() / 3_600:.0f} hours",
        "A reservation's ttl_seconds": f"{shortest:.0f} to {longest:.0f}, default {ttl['default']}",
        "Settling a reservation": f"{events.LATEST.days} days after it was made",
        "Steps of a series": f"{POINTS}",
    }


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("Result", [status.value for status in EventStatus]),
        ("Kind", [kind.value for kind in PeriodKind]),
        ("State", [reservations.HELD, reservations.EXPIRED, reservations.SETTLED, reservations.RELEASED]),
        ("State of a report", [meter_outbox.WAITING, meter_outbox.DELIVERED, meter_outbox.SET_ASIDE]),
        ("`price_behaviour`", [behaviour.value for behaviour in PriceBehaviour]),
        ("Column of the export", list(UsageRecord.__struct_fields__)),
    ],
)
def test_lists_are_whole(head: str, names: list[str]) -> None:
    assert list(_table(head)) == names


def test_its_addresses_exist() -> None:
    known = {f"{one.method} {one.path.replace('{company_id}', '{id}')}" for one in OPERATIONS}
    named = re.findall(r"`((?:GET|POST) /v1/\S+)`", PAGE)
    assert len(named) >= 6
    assert set(named) <= known
