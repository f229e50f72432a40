"""What can be counted without reading anything first: usage of companies, users and windows that are in memory.

Nearly all usage is so. Everything else, and whatever turned out not to be as memory said, is left to
`metering.batch`, which reads what is true while it holds the companies.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Final, NamedTuple, TypeAlias

import msgspec

from plangate.counted_events import event_of, is_counted_here, reported_meters
from plangate.engine.decide import decide
from plangate.engine.decision import Decision
from plangate.engine.facts import UserFacts, WindowCounter
from plangate.engine.snapshot import CompanySnapshot, CounterKey
from plangate.engine.values import PeriodKind
from plangate.environment import PROCESS, Environment
from plangate.ids import id_series
from plangate.members import held_member
from plangate.metering.batch import Consumed
from plangate.metering.events import EventResult, EventStatus, Item
from plangate.standing import Place, Standing
from plangate.store.columns import to_microseconds
from plangate.store.counting import Counting, Entry, OtherwiseNow, Writing, count_known
from plangate.store.feed import announcing
from plangate.store.meter_outbox import adding_meter_events
from plangate.store.used_keys import UsedKey
from plangate.usage_windows import counted_in

_ACCEPTED: Final = EventResult(status=EventStatus.ACCEPTED)
_QUANTITY_LIMIT: Final = 2**50  # a thousand of them leave a 64-bit sum far from its limit
_COUNTERS_LIMIT: Final = 500  # to consume, all of a company's counters are read: better by feature when there are many

Known: TypeAlias = EventResult | Consumed


class _Asked(NamedTuple):
    """A consume of a company in memory."""

    standing: Standing
    snapshot: CompanySnapshot
    person: UserFacts | None
    at: datetime


class _Batch:
    """The items of one batch that can be counted so, and where."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._now = env.clock.now()
        self._nobodys: dict[tuple[tuple[str, str], str], Place | None] = {}
        self._users: dict[tuple[str, str, str], Place | None] = {}
        self._standings: dict[str, Standing] = {}
        self._asked: dict[int, _Asked] = {}
        self._asking: Sequence[_Asked] = ()
        self._revision: int | None = None
        self._items: Sequence[Item] = ()
        self._places: Sequence[Place] = ()
        self._results: list[Known] = []
        self._windows: dict[str, WindowCounter] = {}

    def place(self, item: Item) -> Place | None:
        """Where the item counts, or None when that takes more than memory."""
        if len(item.company) != 1:
            return None
        (pair,) = item.company.items()
        if item.kind == "track" and item.user is None:
            asked = (pair, item.name)
            try:
                place = self._nobodys[asked]
            except KeyError:
                standing = self._env.standings.peek(*pair)
                place = self._nobodys[asked] = None if standing is None else self._found(standing, "", item.name)
        elif item.kind in {"track", "consume"}:
            place = self._looked_at(item, self._env.standings.peek(*pair))
        else:
            return None
        if place is None or (item.occurred_at is not None and not place.holds(min(item.occurred_at, self._now))):
            return None
        return place

    def _looked_at(self, item: Item, standing: Standing | None) -> Place | None:
        if standing is None:
            return None
        person = None
        if item.user is not None:
            person = held_member(self._env, standing, item.user)
            if person is None:
                return None
        event = item.name
        if item.kind == "consume":
            feature = standing.catalog.features.get(item.name)
            at = self._now if item.occurred_at is None else min(item.occurred_at, self._now)
            snapshot = standing.snapshot_at(self._now)
            if (
                feature is None
                or not is_counted_here(feature)
                or not snapshot.holds_at(at)
                or len(standing.counters) > _COUNTERS_LIMIT
            ):
                return None
            event = event_of(feature)
            self._asked[id(item)] = _Asked(standing, snapshot, person, at)
        user_id = "" if person is None else person.user_id
        asked = (standing.facts.company_id, user_id, event)
        if asked not in self._users:
            self._users[asked] = self._found(standing, user_id, event)
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
        meters = reported_meters(catalog, event)
        place = Place(standing.facts.company_id, user_id, event, windows_known=windows_known, meters=meters)
        features, keys = counted_in(catalog, standing.facts, event, user_id, standing.counted)
        for key in keys:
            window = counters.get(key)
            if window is None:
                return None
            place.add(window)
        for former in product(features, PeriodKind, {"", user_id}):
            # A period that is no longer granted is counted to the end of its window.
            window = counters.get(former)
            if window is None or former in keys:
                continue
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

    async def count(self, items: Sequence[Item], places: Sequence[Place]) -> Sequence[Known] | None:
        """Decide and count them, and bring memory up to date; None when nothing was counted."""
        env = self._env
        self._items, self._places = items, places
        self._asking = asking = [self._asked[id(item)] for item in items if item.kind == "consume"]
        companies = {place.company_id for place in places}
        counting = Counting(
            environment_id=env.id,
            recorded_at=to_microseconds(self._now),
            revision=self._revision or 0,
            known={company_id: self._known(company_id) for company_id in companies},
            keys=[item.key_hash for item in items if item.kind == "consume" and item.key_hash is not None],
            windows={window.window_id for one in asking for window in one.standing.counters.values()},
        )
        counted = await count_known(env.database, counting, self.decided)
        if counted is None:
            return None
        for company_id in companies:
            if env.standings.held(company_id) is not self._standings[company_id]:
                # Also makes a load that is under way start again: it may have read what was true before this commit.
                env.forget(company_id)
        for window_id, (used, reserved) in counted.items():
            window = self._windows[window_id]
            window.used, window.reserved = used, reserved
        return self._results

    def decided(self, read: Mapping[str, tuple[int, int]]) -> Writing:
        """What is to be written, when the counters of the companies that consume are as read; it notes the results.

        Raises OtherwiseNow when memory is not enough to decide.
        """
        self._results = []
        ids, now = id_series("evt"), to_microseconds(self._now)
        entries: list[Entry] = []
        keys: list[UsedKey] = []
        sums: dict[Place, int] = {}
        report_ids = id_series("mev")
        reports: list[tuple[str, str, str, str, int, int]] = []
        present = _Present(self._asking, read)
        for item, place in zip(self._items, self._places, strict=True):
            answer: object = None
            if item.kind == "consume":
                asked = self._asked[id(item)]
                decision = present.decision(item, asked, item.quantity)
                if not decision.allowed:
                    self._results.append(Consumed(decision, is_counted=False))
                    continue
                present.add(place, item.quantity)
                decision = present.decision(item, asked, 0)
                answer = msgspec.to_builtins(decision)
                self._results.append(Consumed(decision, is_counted=True))
            else:
                if read:
                    present.add(place, item.quantity)
                self._results.append(_ACCEPTED)
            at = item.occurred_at
            occurred_at = now if at is None or at > self._now else to_microseconds(at)
            entries.append((next(ids), place.company_id, place.user_id, place.event, item.quantity, occurred_at))
            if item.key_hash is not None:
                keys.append(UsedKey(item.key_hash, item.body_hash, answer))
            sums[place] = sums.get(place, 0) + item.quantity
            if place.meters and item.quantity:
                reports += [
                    (next(report_ids), place.company_id, feature, meter, item.quantity, occurred_at)
                    for meter, feature in place.meters.items()
                ]
        added: dict[str, int] = {}
        for place, quantity in sums.items():
            for window in place.windows:
                self._windows[window.window_id] = window
                added[window.window_id] = added.get(window.window_id, 0) + quantity
        announced = None
        if added:
            companies = sorted({place.company_id for place in sums if place.windows})
            is_postgresql = self._env.database.is_postgresql
            announced = announcing(
                self._env.id, companies, origin=PROCESS, recorded_at=now, is_postgresql=is_postgresql
            )
        further = [adding_meter_events(self._env.id, now, reports)] if reports else []
        return Writing(entries, keys, added, announced, further)

    def _known(self, company_id: str) -> tuple[int, int]:
        standing = self._standings[company_id]
        return standing.facts.version, standing.windows_known[""]


class _Present:
    """The counters of companies that consume as they were read, and as each item of the batch leaves them."""

    def __init__(self, asking: Sequence[_Asked], read: Mapping[str, tuple[int, int]]) -> None:
        self._by_id: dict[str, WindowCounter] = {}
        self._of: dict[str, dict[CounterKey, WindowCounter]] = {}
        for one in asking:
            company_id = one.standing.facts.company_id
            if company_id not in self._of:
                self._of[company_id] = {key: self._read(window, read) for key, window in one.standing.counters.items()}

    def _read(self, window: WindowCounter, read: Mapping[str, tuple[int, int]]) -> WindowCounter:
        used, reserved = read[window.window_id]
        if reserved:
            # What has expired by now must be given back first.
            raise OtherwiseNow
        copy = self._by_id[window.window_id] = msgspec.structs.replace(window, used=used, reserved=0)
        return copy

    def decision(self, item: Item, asked: _Asked, quantity: int) -> Decision:
        """May it be consumed, or with no quantity: what is left?"""
        return decide(
            asked.snapshot,
            item.name,
            self._of[asked.standing.facts.company_id],
            at=asked.at,
            quantity=quantity,
            user=asked.person,
            with_trace=item.has_trace,
        )

    def add(self, place: Place, quantity: int) -> None:
        """Count in the windows of a place, if its company consumes."""
        for window in place.windows:
            counter = self._by_id.get(window.window_id)
            if counter is not None:
                counter.used += quantity


async def write_known(env: Environment, items: Sequence[Item]) -> list[Known | None]:
    """Decide and count those of the items that can be counted so, in one transaction; None for each that was not.

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
    where: list[int] = []
    for index, (item, place) in enumerate(zip(items, places, strict=True)):
        if place is None or item.key_hash in others:
            continue
        if item.key_hash is not None:
            others.add(item.key_hash)
        chosen.append(item)
        chosen_places.append(place)
        where.append(index)
    found = await batch.count(chosen, chosen_places) if chosen else None
    if found is not None and len(chosen) == len(items):
        return list(found)
    results: list[Known | None] = [None] * len(items)
    for index, one in zip(where, found or (), strict=found is not None):
        results[index] = one
    return results
