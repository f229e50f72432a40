"""What can be counted without reading anything first: events of companies, users and windows that are in memory.

Nearly all usage is so. Everything else, and whatever turned out not to be as memory said, is left to
`metering.batch`, which reads what is true while it holds the companies.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from plangate.engine.model import WindowCounter
from plangate.environment import PROCESS, Environment
from plangate.ids import id_series
from plangate.members import held_member
from plangate.metering.events import EventResult, EventStatus, Item
from plangate.standing import Place, Standing
from plangate.store.columns import to_microseconds
from plangate.store.counting import Counting, Entry, count_known
from plangate.store.feed import announcing
from plangate.usage_windows import counted_in, reported_meters

ACCEPTED: Final = EventResult(status=EventStatus.ACCEPTED)
_QUANTITY_LIMIT: Final = 2**50  # a thousand of them leave a 64-bit sum far from its limit


class _Batch:
    """The items of one batch that can be counted so, and where."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._now = env.clock.now()
        self._nobodys: dict[tuple[tuple[str, str], str], Place | None] = {}
        self._users: dict[tuple[str, str, str], Place | None] = {}
        self._standings: dict[str, Standing] = {}
        self._revision: int | None = None

    def place(self, item: Item) -> Place | None:
        """Where the item counts, or None when that takes more than memory."""
        if item.kind != "track" or len(item.company) != 1:
            return None
        (pair,) = item.company.items()
        if item.user is None:
            asked = (pair, item.name)
            try:
                place = self._nobodys[asked]
            except KeyError:
                standing = self._env.standings.peek(*pair)
                place = None if standing is None else self._found(standing, "", item.name)
                self._nobodys[asked] = place
        else:
            place = self._users_place(pair, item.user, item.name)
        if place is None or (item.occurred_at is not None and not place.holds(min(item.occurred_at, self._now))):
            return None
        return place

    def _users_place(self, pair: tuple[str, str], user: Mapping[str, str], event: str) -> Place | None:
        standing = self._env.standings.peek(*pair)
        person = None if standing is None else held_member(self._env, standing, user)
        if standing is None or person is None:
            return None
        asked = (standing.facts.company_id, person.user_id, event)
        if asked not in self._users:
            self._users[asked] = self._found(standing, person.user_id, event)
        return self._users[asked]

    def _found(self, standing: Standing, user_id: str, event: str) -> Place | None:
        windows_known = standing.windows_known.get("")
        if windows_known is None or standing.windows_known.get(user_id) != windows_known:
            return None
        if self._revision is None:
            self._revision = standing.catalog.revision
        if standing.catalog.revision != self._revision:
            return None
        place = None if user_id else standing.places.get(event)
        if place is None or place.windows_known != windows_known or not place.holds(self._now):
            place = self._looked_up(standing, user_id, event, windows_known)
        if place is None:
            return None
        self._standings[place.company_id] = standing
        return place

    def _looked_up(self, standing: Standing, user_id: str, event: str, windows_known: int) -> Place | None:
        catalog, counters = standing.catalog, standing.counters
        if reported_meters(catalog, event):
            return None
        place = Place(standing.facts.company_id, user_id, event, windows_known)
        features, keys = counted_in(catalog, standing.facts, event, user_id, standing.counted)
        for key in keys:
            window = counters.get(key)
            if window is None:
                return None
            place.add(window)
        if features:
            for key, window in counters.items():
                # A period that is no longer granted is counted to the end of its window.
                if key[0] in features and key[2] in {"", user_id} and key not in keys:
                    if window.end_at is not None and window.end_at <= self._now:
                        place.not_before(window.end_at)
                    else:
                        place.add(window)
        if not place.holds(self._now):
            return None
        if features and not user_id:
            # Only events of the catalogue: anybody may send any number of others.
            standing.places[event] = place
        return place

    async def count(self, items: Sequence[Item], places: Sequence[Place]) -> bool:
        """Count them, and bring memory up to date; False when nothing was counted."""
        env, now, ids = self._env, to_microseconds(self._now), id_series("evt")
        entries: list[Entry] = []
        keys: list[tuple[bytes, bytes]] = []
        sums: dict[Place, int] = dict.fromkeys(places, 0)
        for item, place in zip(items, places, strict=True):
            at = item.occurred_at
            occurred_at = now if at is None or at > self._now else to_microseconds(at)
            entries.append((next(ids), place.company_id, place.user_id, place.event, item.quantity, occurred_at))
            if item.key_hash is not None:
                keys.append((item.key_hash, item.body_hash))
            sums[place] += item.quantity
        windows: dict[str, tuple[str, WindowCounter]] = {}
        added: dict[str, int] = {}
        for place, quantity in sums.items():
            for window in place.windows:
                windows[window.window_id] = (place.company_id, window)
                added[window.window_id] = added.get(window.window_id, 0) + quantity
        companies = {place.company_id for place in sums}
        counted = await count_known(
            env.database,
            Counting(
                environment_id=env.id,
                recorded_at=now,
                revision=self._revision or 0,
                known={company_id: self._known(company_id) for company_id in companies},
                entries=entries,
                keys=keys,
                added=added,
                told=announcing(
                    env.id,
                    sorted({company_id for company_id, _ in windows.values()}),
                    origin=PROCESS,
                    recorded_at=now,
                    is_postgresql=env.database.is_postgresql,
                ),
            ),
        )
        if counted is None:
            return False
        for company_id in companies:
            if env.standings.held(company_id) is not self._standings[company_id]:
                # Also makes a load that is under way start again: it may have read what was true before this commit.
                env.forget(company_id)
        for window_id, (_, window) in windows.items():
            window.used, window.reserved = counted[window_id]
        return True

    def _known(self, company_id: str) -> tuple[int, int]:
        standing = self._standings[company_id]
        return standing.facts.version, standing.windows_known[""]


async def write_known(env: Environment, items: Sequence[Item]) -> list[EventResult | None]:
    """Count those of the items that can be counted so, in one transaction; None for each that was not.

    Where all quantities are small, it makes no difference which of them are counted first. Raises the database's
    errors; then nothing was written.
    """
    if any(abs(item.quantity) > _QUANTITY_LIMIT for item in items):
        # Which of them the 64 bits of a counter have room for depends on their order.
        return [None] * len(items)
    batch = _Batch(env)
    places = [batch.place(item) for item in items]
    if None in places:
        # A key that is used by something that takes longer belongs to whichever came first.
        others = {item.key_hash for item, place in zip(items, places, strict=True) if place is None}
        others.discard(None)
    else:
        others = set()
    chosen: list[Item] = []
    chosen_places: list[Place] = []
    results: list[EventResult | None] = []
    for item, place in zip(items, places, strict=True):
        if place is None or item.key_hash in others:
            results.append(None)
            continue
        if item.key_hash is not None:
            others.add(item.key_hash)
        chosen.append(item)
        chosen_places.append(place)
        results.append(ACCEPTED)
    if chosen and await batch.count(chosen, chosen_places):
        return results
    return [None] * len(items)
