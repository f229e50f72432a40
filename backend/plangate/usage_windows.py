"""Which stored windows usage counts in: opened when first needed, moved when an anchor moves, never overlapping.

Every journey that counts does it through `CompanyUsage`, inside a transaction that holds the company's lock, so the
counters of all windows always equal the ledger.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from plangate.counted_events import event_of, meter_events, metered_by
from plangate.engine.catalog import Catalog
from plangate.engine.entitlements import build_snapshot, is_counted_per_user, window_kinds
from plangate.engine.facts import CompanyFacts, WindowCounter
from plangate.engine.periods import Cycle
from plangate.engine.snapshot import CompanySnapshot, CounterKey
from plangate.engine.values import INT64_MAX, FeatureType, OverrideMode, PeriodKind
from plangate.environment import Environment
from plangate.standing import CountedIn
from plangate.store.database import StoreSession
from plangate.store.ledger import (
    LedgerEntry,
    add_usage,
    companies_that_used,
    ledger_total,
    lock_companies,
    running_windows,
    stored_windows,
    users_that_used,
    windows_around,
)
from plangate.store.meter_outbox import add_meter_events
from plangate.store.reservations import held_total
from plangate.store.snapshot import company_facts
from plangate.store.usage import (
    move_window_end,
    newest_windows,
    open_window,
    set_counters,
    take_unattributed,
)
from plangate.store.users import user_facts, user_of_keys

BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)  # where the window of all time starts
ATTRIBUTABLE: Final = timedelta(hours=24)
_PAGE: Final = 500
_BILLING_KINDS: Final = (PeriodKind.BILLING_MONTH, PeriodKind.BILLING_INTERVAL)


class Overflow(Exception):
    """A counter would leave the 64-bit range; nothing was counted."""


class CompanyUsage:
    """One company's windows inside one transaction that holds the company's lock.

    `newest` are its newest windows by (feature, kind, user id or ""), as counted so far; `changed` those to be written;
    `windows_opened` is how many were stored here.
    `counted` remembers, for as long as catalogue and facts stay the same, what each event of the company counts in.
    """

    def __init__(
        self,
        session: StoreSession,
        catalog: Catalog,
        facts: CompanyFacts,
        cycle: Cycle,
        newest: dict[CounterKey, WindowCounter],
        counted: dict[str, CountedIn] | None = None,
    ) -> None:
        self.newest = newest
        self.changed: dict[str, WindowCounter] = {}
        self.windows_opened = 0
        self._session = session
        self._catalog = catalog
        self._facts = facts
        self._cycle = cycle
        self._older: dict[CounterKey, list[WindowCounter]] = {}
        self._counted: dict[str, CountedIn] = {} if counted is None else counted

    async def counters_at(self, feature_key: str, user_id: str, at: datetime) -> Mapping[CounterKey, WindowCounter]:
        """Counters for a decision at `at`: the windows of the feature that contain it are opened when missing."""
        keys = _counter_keys(self._catalog, self._facts, [feature_key], user_id)
        located = {key: await self._window(key, event, at) for key, event in keys}
        if all(self.newest.get(key) is window for key, window in located.items()):
            return self.newest
        return {**self.newest, **located}

    async def count(self, event: str, user_id: str, quantity: int, at: datetime, *, reserved: int = 0) -> None:
        """Add a quantity to every window its event counts in, and `reserved` (or less than nothing) to what they hold.

        Raises Overflow, and then counts nothing.
        """
        features, keys = counted_in(self._catalog, self._facts, event, user_id, self._counted)
        windows = []
        for key in keys:
            newest = self.newest.get(key)
            is_in_newest = newest is not None and _contains(newest, at)
            windows.append(newest if newest is not None and is_in_newest else await self._window(key, event, at))
        # A period that is no longer granted is counted to the end of its window: it may be granted again before.
        former = [key for key in self.newest if key[0] in features and key[2] in {"", user_id} and key not in keys]
        windows += [window for key in former if (window := await self._stored(key, at)) is not None]
        if any(
            not -INT64_MAX <= window.used + quantity <= INT64_MAX or window.reserved + reserved > INT64_MAX
            for window in windows
        ):
            raise Overflow
        for window in windows:
            window.used += quantity
            window.reserved += reserved
            self.changed[window.window_id] = window

    async def open_missing(self, feature_keys: Iterable[str], at: datetime) -> None:
        """Open the windows at `at` that no event has opened, so that checks see what the ledger holds for them."""
        for feature_key in feature_keys:
            users = {user for feature, user in _personal(self._facts) if feature == feature_key}
            if is_counted_per_user(self._catalog, feature_key):
                users |= await self._users_of(event_of(self._catalog.features[feature_key]))
            for user_id in ("", *sorted(users)):
                for key, event in _counter_keys(self._catalog, self._facts, [feature_key], user_id):
                    await self._window(key, event, at)

    async def _users_of(self, event: str) -> set[str]:
        """Everyone whose usage of an event the ledger holds; their newest windows are read on the way."""
        found: set[str] = set()
        last, company_id = "", self._facts.company_id
        while True:
            page = await users_that_used(self._session, company_id, event, after=last, limit=_PAGE)
            windows = await newest_windows(self._session, [company_id], user_ids=page, lock=True) if page else {}
            for (_, feature, kind, user_id), window in windows.items():
                self.newest.setdefault((feature, kind, user_id), window)
            found |= set(page)
            if len(page) < _PAGE:
                return found
            last = page[-1]

    async def _stored(self, key: CounterKey, at: datetime) -> WindowCounter | None:
        """The stored window of this key that contains `at`, if there is one."""
        newest = self.newest.get(key)
        known: list[WindowCounter] = list(self._older.get(key, ()))
        if newest is not None:
            known.append(newest)
        for window in known:
            if _contains(window, at):
                return window
        if newest is None or at >= newest.start_at:
            return None
        earlier, _ = await windows_around(self._session, self._facts.company_id, *key, at)
        if earlier is None or not _contains(earlier, at):
            return None
        self._older.setdefault(key, []).append(earlier)
        return earlier

    async def _window(self, key: CounterKey, event: str, at: datetime) -> WindowCounter:
        """The stored window of this key that contains `at`; opened, with what the ledger holds for it, when missing."""
        stored = await self._stored(key, at)
        if stored is not None:
            return stored
        feature, kind, user_id = key
        company_id = self._facts.company_id
        newest = self.newest.get(key)
        earlier, later = newest, None
        if newest is not None and at < newest.start_at:
            earlier, later = await windows_around(self._session, company_id, *key, at)
        start, end = self._cycle.window(kind, at)
        start_at = start or BEGINNING
        known_since = self._facts.created_at
        if newest is None and kind in _BILLING_KINDS and known_since - ATTRIBUTABLE <= at < known_since:
            # What a company used in the day before it was made known belongs to its first period.
            first, first_end = self._cycle.window(kind, known_since)
            if first is not None and at < first:
                start_at, end = known_since - ATTRIBUTABLE, first_end
        # Neighbours keep the bounds they have, so that windows never overlap and no event counts in two of them.
        if earlier is not None and earlier.end_at is not None:
            start_at = max(start_at, earlier.end_at)
        if later is not None:
            end = later.start_at if end is None else min(end, later.start_at)
        used = await ledger_total(self._session, company_id, event, start_at=start_at, end_at=end, user_id=user_id)
        held = await held_total(self._session, company_id, event, start_at=start_at, end_at=end, user_id=user_id)
        opened = await open_window(
            self._session,
            company_id,
            feature,
            kind,
            user_id,
            start_at=start_at,
            end_at=end,
            used=clamped(used),
            reserved=held,
        )
        self.windows_opened += 1
        if later is None:
            if newest is not None:
                # It may have been counted in already: a later item that lies in it must find this very object.
                self._older.setdefault(key, []).append(newest)
            self.newest[key] = opened
        else:
            self._older.setdefault(key, []).append(opened)
        return opened


def counted_in(
    catalog: Catalog, facts: CompanyFacts, event: str, user_id: str, remembered: dict[str, CountedIn]
) -> CountedIn:
    """The features that count an event of a company, and the keys of the windows it counts in.

    `user_id` is "" for usage that is nobody's. `remembered` keeps the answers for as long as catalogue and facts last.
    """
    counted = None if user_id else remembered.get(event)
    if counted is None:
        features = [feature.key for feature in metered_by(catalog, event)]
        counted = (features, [key for key, _ in _counter_keys(catalog, facts, features, user_id)])
        if features and not user_id:
            # Only events of the catalogue: anybody may send any number of others.
            remembered[event] = counted
    return counted


def _counter_keys(
    catalog: Catalog, facts: CompanyFacts, feature_keys: Iterable[str], user_id: str
) -> list[tuple[CounterKey, str]]:
    found: list[tuple[CounterKey, str]] = []
    for feature_key in feature_keys:
        feature = catalog.features.get(feature_key)
        if feature is None:
            continue
        has_own = bool(user_id) and (
            (feature_key, user_id) in _personal(facts) or is_counted_per_user(catalog, feature_key)
        )
        users = ("", user_id) if has_own else ("",)
        kinds = sorted(window_kinds(catalog, feature_key, facts.overrides))
        found.extend(((feature_key, kind, user), event_of(feature)) for user in users for kind in kinds)
    return found


def _personal(facts: CompanyFacts) -> set[tuple[str, str]]:
    """Features and users with windows of their own, because an override gives them an allowance of their own."""
    return {
        (override.feature, override.user)
        for override in facts.overrides
        if override.user is not None and override.mode is OverrideMode.SET
    }


def clamped(total: int) -> int:
    """A total of the ledger as a counter can hold it."""
    return max(-INT64_MAX, min(INT64_MAX, total))


def _contains(window: WindowCounter, at: datetime) -> bool:
    return window.start_at <= at and (window.end_at is None or at < window.end_at)


def _is_counted_otherwise(before: Catalog, after: Catalog, feature_key: str) -> bool:
    old, new = before.features.get(feature_key), after.features[feature_key]
    return old is not None and old.type is new.type is FeatureType.EVENT and event_of(old) != event_of(new)


async def company_usage(
    session: StoreSession,
    catalog: Catalog,
    facts: CompanyFacts,
    *,
    snapshot: CompanySnapshot | None = None,
    newest: dict[CounterKey, WindowCounter] | None = None,
) -> CompanyUsage:
    """The windows of one company, whose lock the transaction holds; read unless the caller has them already."""
    if snapshot is None:
        snapshot = build_snapshot(catalog, facts, session.now)
    if newest is None:
        users = {override.user for override in facts.overrides if override.user is not None}
        found = await newest_windows(session, [facts.company_id], user_ids=["", *sorted(users)], lock=True)
        newest = {(feature, kind, user_id): window for (_, feature, kind, user_id), window in found.items()}
    return CompanyUsage(session, catalog, facts, snapshot.cycle, newest)


async def rebind_windows(
    env: Environment, session: StoreSession, before: CompanySnapshot, after: CompanySnapshot
) -> None:
    """Let running billing windows end where the new anchor's period ends; they keep their start and their usage.

    Called in the transaction that stored what moved the anchor (product.md, Usage). Nothing happens while the cycle
    stays the same.
    """
    if before.cycle == after.cycle:
        return
    await lock_companies(session, [after.company_id])
    for (feature, kind, user_id), window in await running_windows(
        session, after.company_id, _BILLING_KINDS, session.now
    ):
        end_at = after.cycle.rebound(kind, session.now)
        if end_at != window.end_at:
            window.end_at = end_at
            await move_window_end(session, after.company_id, feature, kind, user_id, window)
            session.changed.add(after.company_id)


async def open_missing_windows(
    session: StoreSession, catalog: Catalog, company_id: str, features: Collection[str] | None = None
) -> None:
    """After a change that grants a period kind not counted before: open its windows with what the ledger holds.

    `features` limits the work to those keys. The caller touches the company.
    """
    await lock_companies(session, [company_id])
    facts = await company_facts(session, company_id)
    if facts is None:
        return
    usage = await company_usage(session, catalog, facts)
    await usage.open_missing(catalog.features if features is None else features, session.now)


async def open_windows_of_new_periods(env: Environment, before: Catalog, after: Catalog) -> int:
    """After a catalogue was published: open windows where a feature is counted by a period, or for each user, for the
    first time, and count anew where its usage now comes from elsewhere.

    Without them checks would show nothing used until the next event; `consume` opens what it needs by itself. One short
    transaction per company that used such a feature; may be repeated. Answers how many companies were looked at.
    """
    moved = [key for key in after.features if _is_counted_otherwise(before, after, key)]
    per_user = [
        key for key in after.features if is_counted_per_user(after, key) and not is_counted_per_user(before, key)
    ]
    wider = [key for key in after.features if window_kinds(after, key) - window_kinds(before, key)]
    features = sorted({*moved, *per_user, *wider})
    if not features:
        return 0
    # Windows of a feature counted before name its companies; a new one's events have only the ledger to name them.
    events = [event_of(after.features[key]) for key in features if key in moved or not window_kinds(before, key)]
    looked_at, last = 0, ""
    while True:
        async with env.reading() as session:
            page = await companies_that_used(session, features=features, events=events, after=last, limit=_PAGE)
        for company_id in page:
            async with env.writing() as session:
                await open_missing_windows(session, after, company_id, features)
                if moved:
                    await recount(session, await miscounted(session, after, company_id))
                session.counted.add(company_id)
            env.forget(company_id)
        looked_at += len(page)
        if len(page) < _PAGE:
            return looked_at
        last = page[-1]


class Miscount(NamedTuple):
    """A stored window whose counters are not what the ledger and the reservations say."""

    feature: str
    kind: PeriodKind
    user_id: str
    window: WindowCounter
    used: int
    reserved: int


async def miscounted(session: StoreSession, catalog: Catalog, company_id: str) -> list[Miscount]:
    """Every stored window of a company and its users, old ones included, that does not equal what it is derived from.

    Hold the company's lock for an answer to act on.
    """
    found: list[Miscount] = []
    last = ""
    while True:
        page = await stored_windows(session, company_id, after=last, limit=_PAGE)
        for (feature_key, kind, user_id), window in page:
            feature = catalog.features.get(feature_key)
            if feature is None or feature.type is not FeatureType.EVENT:
                continue
            event = event_of(feature)
            used = clamped(
                await ledger_total(
                    session, company_id, event, start_at=window.start_at, end_at=window.end_at, user_id=user_id
                )
            )
            reserved = await held_total(
                session, company_id, event, start_at=window.start_at, end_at=window.end_at, user_id=user_id
            )
            if (window.used, window.reserved) != (used, reserved):
                found.append(Miscount(feature_key, kind, user_id, window, used, reserved))
        if len(page) < _PAGE:
            return found
        last = page[-1][1].window_id


async def recount(session: StoreSession, miscounts: Sequence[Miscount]) -> None:
    """Bring windows to what they are derived from, in the transaction that found them and holds their company."""
    for miscount in miscounts:
        miscount.window.used, miscount.window.reserved = miscount.used, miscount.reserved
    await set_counters(session, [miscount.window for miscount in miscounts])


async def attribute_waiting(
    session: StoreSession, catalog: Catalog, company_id: str, pairs: Sequence[tuple[str, str]]
) -> int:
    """Count the events of the last 24 hours that waited for these new keys of the company; answers how many.

    They enter the ledger now, at the instants they occurred. Call `lock_pairs` before giving the keys to the company;
    the caller touches the company.
    """
    rows = await take_unattributed(session, pairs, since=session.now - ATTRIBUTABLE)
    facts = await company_facts(session, company_id) if rows else None
    if facts is None:
        return 0
    # Their users are looked for now: whoever is not known, or belongs to another company, is left out.
    users = [await _user_of(session, company_id, row.user_keys) for row in rows]
    newest = await newest_windows(
        session, [company_id], user_ids=sorted({"", *users, *(one.user or "" for one in facts.overrides)}), lock=True
    )
    usage = await company_usage(
        session,
        catalog,
        facts,
        newest={(feature, kind, user_id): window for (_, feature, kind, user_id), window in newest.items()},
    )
    ledger: list[LedgerEntry] = []
    uncountable: list[Mapping[str, object]] = []
    for index, row in enumerate(rows):
        try:
            await usage.count(row.event, users[index], row.quantity, row.occurred_at)
        except Overflow:
            uncountable.append(row.model_dump())
            continue
        ledger.append(LedgerEntry(row.event_id, company_id, users[index], row.event, row.quantity, row.occurred_at))
    await add_usage(session, ledger, waiting=uncountable)
    await add_meter_events(session, meter_events(session, catalog, ledger))
    await set_counters(session, list(usage.changed.values()))
    return len(ledger)


async def _user_of(session: StoreSession, company_id: str, keys: Mapping[str, str] | None) -> str:
    found = [] if keys is None else await user_of_keys(session, keys)
    person = await user_facts(session, company_id, found[0]) if len(found) == 1 else None
    return "" if person is None else person.user_id
