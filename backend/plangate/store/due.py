"""Whether there is anything to do at all: what the loops ask every second or so, each in one small statement.

Nearly always there is nothing, and whoever waits for a commit meanwhile shall not notice. A look may say yes too often,
never no: its loop then finds out by itself.
"""

from datetime import datetime
from typing import Final, NamedTuple

from plangate.store.columns import to_microseconds
from plangate.store.database import StoreSession
from plangate.store.direct import Direct, together
from plangate.store.plan_changes import IS_UNFINISHED


class Look(NamedTuple):
    """What is asked, in the words of an index; `clock` is the one its second value is read from, if it has one."""

    statement: Direct
    clock: str


def _look(table: str, condition: str, *, clock: str = "") -> Look:
    text = f"SELECT 1 FROM {table} WHERE environment_id = $1 AND {condition} LIMIT 1"  # noqa: S608 - our own words
    return Look(Direct(sqlite=text.replace("$", "?"), postgresql=text), clock)


EVENTS: Final = _look("inbox", "state = 'pending' AND available_at <= $2", clock="wall")
CHANGES: Final = _look("plan_changes", f"{IS_UNFINISHED} AND available_at <= $2", clock="wall")
RESERVATIONS: Final = _look("reservations", "state = 'held' AND expires_at <= $2", clock="business")
MIGRATIONS: Final = _look("version_migrations", "finished_at IS NULL")
METERS: Final = _look("meter_outbox", "state = 'waiting' AND available_at <= $2", clock="business")


async def is_any_due(session: StoreSession, look: Look, *, wall_now: datetime) -> bool:
    """Whether the loop would find anything; it only reads."""
    instants = {"wall": (to_microseconds(wall_now),), "business": (to_microseconds(session.now),), "": ()}
    (rows,) = await together(session, look.statement.of(session.environment_id, *instants[look.clock]))
    return bool(rows)
