"""Where every company stands: compiled snapshots and live counters, kept in memory and forgotten when facts change.

All surfaces answer from here, so a check, a meter and a list cannot differ.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from plangate.engine.catalog import Catalog
from plangate.engine.entitlements import CompanySnapshot, build_snapshot
from plangate.engine.facts import CompanyFacts, WindowCounter
from plangate.engine.values import PeriodKind

_COMPANIES_HELD = 200_000

CounterKey = tuple[str, PeriodKind, str]  # feature, period kind, user id or ""
CountedIn = tuple[list[str], list[CounterKey]]  # the features that count an event, and where


class Place:
    """Where events of one name count: windows of a company and of one of its users, for instants between bounds.

    `user_id` is "" for usage that is nobody's. `windows_known` is how many windows the company had when it was found,
    and `meters` are the Stripe meters the usage is reported to, each with its feature.
    """

    __slots__ = ("company_id", "end_at", "event", "meters", "start_at", "user_id", "windows", "windows_known")

    def __init__(
        self, company_id: str, user_id: str, event: str, *, windows_known: int, meters: Mapping[str, str]
    ) -> None:
        self.company_id = company_id
        self.user_id = user_id
        self.event = event
        self.windows: list[WindowCounter] = []
        self.windows_known = windows_known
        self.meters = meters
        self.start_at: datetime | None = None
        self.end_at: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Whether what happened at this instant counts in just these windows."""
        return (self.start_at is None or self.start_at <= at) and (self.end_at is None or at < self.end_at)

    def add(self, window: WindowCounter) -> None:
        """Count in this window as well."""
        self.windows.append(window)
        self.not_before(window.start_at)
        if window.end_at is not None and (self.end_at is None or window.end_at < self.end_at):
            self.end_at = window.end_at

    def not_before(self, at: datetime) -> None:
        """What happened earlier counts elsewhere."""
        if self.start_at is None or at > self.start_at:
            self.start_at = at


class Standing:
    """One company as known now: stored facts, the snapshot compiled from them, and its usage counters.

    The snapshot is replaced when its validity ends; counters are updated in place by the process that counts, which
    keeps in `counted` and `places` what each event counts in. `windows_known` says for a user ("" for the company
    itself) how many windows the company had when all that count for them were among the counters.
    """

    __slots__ = ("catalog", "counted", "counters", "facts", "places", "snapshot", "windows_known")

    def __init__(
        self,
        catalog: Catalog,
        facts: CompanyFacts,
        counters: dict[CounterKey, WindowCounter],
        at: datetime,
        snapshot: CompanySnapshot | None = None,
    ) -> None:
        self.catalog = catalog
        self.facts = facts
        self.counters = counters
        self.counted: dict[str, CountedIn] = {}
        self.windows_known: dict[str, int] = {}
        self.places: dict[str, Place] = {}
        self.snapshot: CompanySnapshot = build_snapshot(catalog, facts, at) if snapshot is None else snapshot

    def snapshot_at(self, at: datetime) -> CompanySnapshot:
        """The snapshot for the present instant, compiled again if an override or a period has ended since."""
        snapshot = self.snapshot
        if (snapshot.valid_until is None or at < snapshot.valid_until) and at >= snapshot.valid_from:
            return snapshot
        self.snapshot = build_snapshot(self.catalog, self.facts, at)
        return self.snapshot


Load = Callable[[str], Awaitable[tuple[Standing | None, tuple[tuple[str, str], ...]]]]
Renew = Callable[[Standing], Awaitable[Standing]]


class Standings:
    """The standings of one environment's companies, by id and by key. Bounded; the longest held go first.

    When only the catalogue changed, facts and counters stay true: such a standing is `outdated`, and compiled anew from
    memory by the next question about its company.
    """

    def __init__(self, load: Load, find: Callable[[Mapping[str, str]], Awaitable[str | None]], *, renew: Renew) -> None:
        self._load = load
        self._find = find
        self._renew = renew
        self._held: dict[str, Standing] = {}
        self._outdated: dict[str, Standing] = {}
        self._ids: dict[tuple[str, str], str] = {}
        self._keys: dict[str, tuple[tuple[str, str], ...]] = {}
        self._reads: dict[str, set[object]] = {}

    def peek(self, name: str, value: str) -> Standing | None:
        """The standing held in memory for one company key, without waiting; None means: ask `of_keys`."""
        company_id = self._ids.get((name, value))
        return None if company_id is None else self._held.get(company_id)

    def held(self, company_id: str) -> Standing | None:
        """The standing held in memory for a company id, without waiting; None means: ask `of`."""
        return self._held.get(company_id)

    async def of(self, company_id: str, *, at_least: int = 0) -> Standing | None:
        """The company's standing, loaded when it is not in memory or older than version `at_least`."""
        standing = self._held.get(company_id)
        if standing is None:
            standing = await self._renewed(company_id)
        if standing is not None and standing.facts.version >= at_least:
            return standing
        while True:
            read = object()
            self._reads.setdefault(company_id, set()).add(read)
            try:
                standing, keys = await self._load(company_id)
            finally:
                is_current = self._ended(company_id, read)
            if standing is None:
                return None
            if is_current:
                self._keep(company_id, standing, keys)
                return standing
            # The company was forgotten while we read; what we read may be older than that change.

    async def of_keys(self, keys: Mapping[str, str]) -> Standing | None:
        """The standing of the company all known `keys` belong to, or None. Conflicting keys raise Refusal."""
        if len(keys) == 1:
            (pair,) = keys.items()
            company_id = self._ids.get(pair)
            if company_id is not None:
                return await self.of(company_id)
        found = await self._find(keys)
        return None if found is None else await self.of(found)

    def forget(self, company_id: str) -> None:
        """Drop one company, or all of them for the empty id: the next question reads the store."""
        if company_id == "":
            self._reads.clear()
            self._held.clear()
            self._outdated.clear()
            self._ids.clear()
            self._keys.clear()
            return
        self._reads.pop(company_id, None)
        self._held.pop(company_id, None)
        self._outdated.pop(company_id, None)
        for pair in self._keys.pop(company_id, ()):
            self._ids.pop(pair, None)

    def writing(self, company_id: str) -> object:
        """Note that the company is being written; `written` takes what this answers."""
        read = object()
        self._reads.setdefault(company_id, set()).add(read)
        return read

    def written(self, company_id: str, read: object, after: Standing | None, *, version: int) -> None:
        """Hold `after` from now on, or nothing, when the company was of this `version` before it was written.

        Its counters are those held until now: a change of facts leaves them as they are. Where anybody else may have
        changed the company since `writing`, or it is not held, the next question reads the store.
        """
        is_current, held, keys = self._ended(company_id, read), self._held.get(company_id), self._keys.get(company_id)
        self.forget(company_id)
        if is_current and after is not None and held is not None and keys is not None and held.facts.version == version:
            after.counters = held.counters
            self._keep(company_id, after, keys)

    def not_written(self, company_id: str, read: object) -> None:
        """Note that nothing came of `writing`."""
        self._ended(company_id, read)

    def outdate(self) -> None:
        """Note that the catalogue changed: the next question about each company is answered by the new one."""
        self._reads.clear()
        self._outdated.update(self._held)
        self._held = {}
        for company_id in list(self._outdated)[: max(0, len(self._outdated) - _COMPANIES_HELD)]:
            self.forget(company_id)

    async def _renewed(self, company_id: str) -> Standing | None:
        """The company's standing under the present catalogue, from what is in memory; None when nothing is."""
        while (outdated := self._outdated.get(company_id)) is not None:
            read = object()
            self._reads.setdefault(company_id, set()).add(read)
            try:
                renewed = await self._renew(outdated)
            finally:
                is_current = self._ended(company_id, read)
            if is_current and self._outdated.get(company_id) is outdated:
                del self._outdated[company_id]
                self._keep(company_id, renewed, self._keys.get(company_id, ()))
                return renewed
        return self._held.get(company_id)

    def _ended(self, company_id: str, read: object) -> bool:
        """Note that a read of the store is over; answers whether the company was not forgotten meanwhile."""
        reads = self._reads.get(company_id)
        if reads is None or read not in reads:
            return False
        reads.discard(read)
        if not reads:
            del self._reads[company_id]
        return True

    def _keep(self, company_id: str, standing: Standing, keys: tuple[tuple[str, str], ...]) -> None:
        if len(self._held) >= _COMPANIES_HELD and company_id not in self._held:
            self.forget(next(iter(self._held)))
        self._held[company_id] = standing
        self._keys[company_id] = keys
        for pair in keys:
            self._ids[pair] = company_id
