"""One batch of usage in one transaction: find companies, hold them, decide in order, write, then tell memory.

The order is what makes limits exact: the company is held before its version, its windows and the used keys are read,
so no other process counts for it, changes it or revokes anything between the decision and the commit.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from plangate.counted_events import event_of, is_counted_here, meter_events
from plangate.engine.catalog import Catalog
from plangate.engine.decide import decide, unanswerable
from plangate.engine.decision import Decision, Reason
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import UserFacts, WindowCounter
from plangate.engine.snapshot import CounterKey
from plangate.environment import Environment, one_owner
from plangate.errors import Code, Refusal, invalid
from plangate.ids import id_series, new_id
from plangate.members import member, member_in
from plangate.metering.events import EventResult, EventStatus, Item
from plangate.metering.reservations import Closed, Reservations, Reserved
from plangate.standing import Standing
from plangate.store.database import StoreSession
from plangate.store.feed import EVERYTHING
from plangate.store.ledger import (
    LedgerEntry,
    Row,
    add_usage,
    hold,
    lock_companies,
    lock_pairs,
    owners_of_pairs,
)
from plangate.store.meter_outbox import add_meter_events
from plangate.store.reservations import expired_reservations, reservations_by_id
from plangate.store.snapshot import company_facts
from plangate.store.usage import WindowKey, newest_windows
from plangate.store.used_keys import UsedKey
from plangate.usage_windows import CompanyUsage, Overflow


class Consumed(msgspec.Struct, frozen=True):
    """The answer to a consume."""

    decision: Decision
    is_counted: bool


Outcome: TypeAlias = EventResult | Consumed | Reserved | Closed | Refusal

_AT_A_STRETCH = 100  # items that are decided before others, who may only want to ask, have their turn
_ACCEPTED = EventResult(status=EventStatus.ACCEPTED)
_DUPLICATE = EventResult(status=EventStatus.DUPLICATE)
_UNATTRIBUTED = EventResult(status=EventStatus.UNATTRIBUTED)


async def write_batch(env: Environment, items: Sequence[Item]) -> list[Outcome]:
    """Decide and write items in order; each gets its outcome, and what one is refused for does not touch the others.

    Raises the database's errors; then nothing was written and the batch may be tried again.
    """
    owners = await _owners_of_reservations(env, items)
    companies: list[Standing | Refusal | None] = [
        _held_standing(env, item) or await _standing(env, item, owners) for item in items
    ]
    members = [
        await _member(env, standing, item) if item.user is not None and isinstance(standing, Standing) else None
        for standing, item in zip(companies, items, strict=True)
    ]
    async with env.writing() as session:
        batch = _Batch(env, session)
        await batch.prepare(items, companies, members)
        outcomes = []
        for item, standing, person in zip(items, companies, members, strict=True):
            outcomes.append(await batch.settle(item, standing, person))
            if len(outcomes) % _AT_A_STRETCH == 0:
                await asyncio.sleep(0)
        await batch.save()
    batch.remember()
    return outcomes


class _Batch:
    """One transaction at work. Nothing in memory changes before `remember`, which follows the commit."""

    def __init__(self, env: Environment, session: StoreSession) -> None:
        self._env = env
        self._session = session
        self._catalog: Catalog | None = None
        self._owners: dict[tuple[str, str], str] = {}
        self._standings: dict[str, Standing] = {}
        self._usage: dict[str, CompanyUsage] = {}
        self._stale: set[str] = set()
        self._windows_opened: dict[str, int] = {}
        self._users: dict[str, set[str]] = {}
        self._keys: dict[bytes, tuple[bytes, object]] = {}
        self._ids = id_series("evt")
        self._events: list[LedgerEntry] = []
        self._waiting: list[Row] = []
        self._new_keys: list[UsedKey] = []
        self._reservations = Reservations(session)

    async def prepare(
        self,
        items: Sequence[Item],
        companies: Sequence[Standing | Refusal | None],
        members: Sequence[UserFacts | None],
    ) -> None:
        """Hold every company of the batch, and read what is true now that they are held."""
        session = self._session
        known = {one.facts.company_id: one for one in companies if isinstance(one, Standing)}
        told_users = {one.user_id for one in members if one is not None}
        for company, person in zip(companies, members, strict=True):
            if isinstance(company, Standing):
                users = self._users.setdefault(company.facts.company_id, {""})
                users.add("" if person is None else person.user_id)
        for one in known.values():
            told_users |= _users_with_overrides(one)
        found = await hold(
            session,
            known,
            user_ids={"", *told_users},
            key_hashes={one.key_hash for one in items if one.key_hash is not None},
        )
        held, self._keys = found.companies, found.keys
        # What is not held any more was merged: its keys lead to the company it became.
        self._stale |= known.keys() - held.keys()
        unknown = {
            pair
            for item, standing in zip(items, companies, strict=True)
            if standing is None or (isinstance(standing, Standing) and standing.facts.company_id not in held)
            for pair in item.company.items()
        }
        if unknown:
            # A company may get one of these keys just now: then the event belongs to it, otherwise it waits.
            await lock_pairs(session, unknown)
            self._owners = await owners_of_pairs(session, unknown)
            held |= await lock_companies(session, set(self._owners.values()) - held.keys())
        for company_id, (version, windows_opened, revision) in held.items():
            self._windows_opened[company_id] = windows_opened
            standing = known.get(company_id)
            if standing is None or standing.facts.version != version or standing.catalog.revision != revision:
                standing = await self._reread(company_id, standing, revision)
            if standing is not None:
                self._standings[company_id] = standing
        closing = {item.reservation_id for item in items if item.reservation_id is not None}
        self._reservations.known = await reservations_by_id(session, closing)
        held_for = {row.user_id for row in self._reservations.known.values()}
        windows = await self._newest(found.windows, told_users, held_for, known)
        await self._open_usage(windows, items, companies)

    async def settle(self, item: Item, before: Standing | Refusal | None, person: UserFacts | None) -> Outcome:
        """Decide one item with everything counted so far."""
        if isinstance(before, Refusal):
            return before
        if item.reservation_id is not None:
            return await self._close(item, item.reservation_id)
        used = None if item.key_hash is None else self._keys.get(item.key_hash)
        if used is not None:
            return _repeated(item, *used)
        try:
            standing = self._standing_of(item, before)
        except Refusal as refusal:
            return refusal
        if standing is None:
            return self._unknown_company(item)
        if item.user is not None and standing is not before:
            try:
                person = await member_in(self._session, standing.facts.company_id, item.user)
            except Refusal as refusal:
                return refusal
        if item.kind == "reserve":
            return await self._reserve(item, standing, person)
        return await (self._consume if item.kind == "consume" else self._track)(item, standing, person)

    async def save(self) -> None:
        """Write everything the batch decided."""
        counted = {company_id: usage for company_id, usage in self._usage.items() if usage.changed}
        await add_usage(
            self._session,
            self._events,
            waiting=self._waiting,
            keys=self._new_keys,
            counters=[window for usage in counted.values() for window in usage.changed.values()],
        )
        await self._reservations.save()
        if self._events:
            catalog = self._standings[self._events[0].company_id].catalog
            await add_meter_events(self._session, meter_events(self._session, catalog, self._events))
        self._session.counted.update(counted)

    def remember(self) -> None:
        """After the commit: bring counters in memory up to date, and forget what turned out to be stale."""
        held = self._env.standings.held
        if EVERYTHING in self._stale:
            self._env.forget(EVERYTHING)
            return
        for company_id in self._stale - self._usage.keys():
            self._env.forget(company_id)
        for company_id, usage in self._usage.items():
            standing = self._standings[company_id]
            if company_id in self._stale or held(company_id) is not standing:
                # Also makes a load that is under way start again: it may have read what was true before this commit.
                self._env.forget(company_id)
            else:
                _refresh(standing.counters, usage.newest)
                windows = self._windows_opened[company_id] + usage.windows_opened
                standing.windows_known |= dict.fromkeys(self._users.get(company_id, ()), windows)

    def _standing_of(self, item: Item, before: Standing | None) -> Standing | None:
        if before is not None and before.facts.company_id in self._standings:
            return self._standings[before.facts.company_id]
        owners = {pair: self._owners[pair] for pair in item.company.items() if pair in self._owners}
        company_id = one_owner(owners)
        return None if company_id is None else self._standings.get(company_id)

    async def _reread(self, company_id: str, standing: Standing | None, revision: int) -> Standing | None:
        if self._catalog is None:
            is_current = standing is not None and standing.catalog.revision == revision
            known = standing.catalog if standing is not None and is_current else await self._env.catalog()
            if known.revision != revision:
                known = await self._env.catalog_in(self._session)
                self._stale.add(EVERYTHING)
            self._catalog = known
        self._stale.add(company_id)
        facts = await company_facts(self._session, company_id)
        return None if facts is None else Standing(self._catalog, facts, {}, self._session.now)

    async def _newest(
        self,
        read: Mapping[WindowKey, WindowCounter],
        read_users: set[str],
        held_for: set[str],
        known: Mapping[str, Standing],
    ) -> dict[WindowKey, WindowCounter]:
        """The newest windows of every company held: those read with the locks, and those of what was learned since."""
        found = {key: window for key, window in read.items() if key[0] in self._standings}
        learned = [company_id for company_id, one in self._standings.items() if known.get(company_id) is not one]
        users = {"", *read_users, *held_for}
        for company_id in learned:
            users |= _users_with_overrides(self._standings[company_id])
        if learned:
            found |= await newest_windows(self._session, sorted(learned), user_ids=sorted(users))
        if unread := users - read_users - {""}:
            found |= await newest_windows(self._session, sorted(self._standings), user_ids=sorted(unread))
        return found

    async def _open_usage(
        self,
        found: dict[WindowKey, WindowCounter],
        items: Sequence[Item],
        companies: Sequence[Standing | Refusal | None],
    ) -> None:
        # What is held shows in the newest windows; only what lies in the past may also be held in older ones.
        holding = {key[0] for key, window in found.items() if window.reserved}
        holding |= {
            standing.facts.company_id
            for item, standing in zip(items, companies, strict=True)
            if isinstance(standing, Standing) and item.kind != "track" and item.occurred_at is not None
        }
        expired = await expired_reservations(self._session, holding & self._standings.keys())
        if unread := {row.user_id for row in expired} - {""}:
            for key, window in (await newest_windows(self._session, sorted(holding), user_ids=sorted(unread))).items():
                found.setdefault(key, window)
        newest: dict[str, dict[CounterKey, WindowCounter]] = {company_id: {} for company_id in self._standings}
        for (company_id, feature, kind, user_id), window in found.items():
            newest[company_id][feature, kind, user_id] = window
        for company_id, standing in self._standings.items():
            snapshot = standing.snapshot_at(self._session.now)
            self._usage[company_id] = CompanyUsage(
                self._session,
                standing.catalog,
                standing.facts,
                snapshot.cycle,
                newest[company_id],
                counted=standing.counted,
            )
        await self._reservations.expire(expired, self._usage)

    async def _consume(self, item: Item, standing: Standing, person: UserFacts | None) -> Outcome:
        facts, now = standing.facts, self._session.now
        at = now if item.occurred_at is None else min(item.occurred_at, now)
        if item.user is not None and person is None:
            return Consumed(unanswerable(Reason.UNKNOWN_USER, item.name, at=at, company=facts.company_id), False)
        feature = standing.catalog.features.get(item.name)
        snapshot = standing.snapshot_at(now)
        if not snapshot.holds_at(at):
            snapshot = build_snapshot(standing.catalog, facts, at)
        usage = self._usage[facts.company_id]
        user_id = "" if person is None else person.user_id
        counters = await usage.counters_at(item.name, user_id, at)
        decision = decide(
            snapshot, item.name, counters, at=at, quantity=item.quantity, user=person, with_trace=item.has_trace
        )
        if not decision.allowed or feature is None or not is_counted_here(feature):
            return Consumed(decision, False)
        try:
            await usage.count(event_of(feature), user_id, item.quantity, at)
        except Overflow:
            return _overflown()
        decision = decide(snapshot, item.name, counters, at=at, quantity=0, user=person, with_trace=item.has_trace)
        self._append(item, facts.company_id, user_id, event_of(feature), answer=msgspec.to_builtins(decision))
        return Consumed(decision, True)

    async def _reserve(self, item: Item, standing: Standing, person: UserFacts | None) -> Outcome:
        company_id = standing.facts.company_id
        if item.user is not None and person is None:
            unknown = unanswerable(Reason.UNKNOWN_USER, item.name, at=self._session.now, company=company_id)
            return Reserved(id=None, decision=unknown, expires_at=None)
        try:
            return await self._reservations.reserve(item, standing, self._usage[company_id], person)
        except Refusal as refusal:
            return refusal

    async def _close(self, item: Item, reservation_id: str) -> Outcome:
        row = self._reservations.known.get(reservation_id)
        standing = None if row is None else self._standings.get(row.company_id)
        if row is None or standing is None:
            return Refusal(Code.NOT_FOUND, "There is no such reservation.")
        try:
            answer, is_counted = await self._reservations.close(item, row, standing, self._usage[row.company_id])
        except Refusal as refusal:
            return refusal
        if is_counted:
            # Counted in the period of the reservation, whenever it is settled.
            told = msgspec.structs.replace(item, occurred_at=row.reserved_at)
            self._append(told, row.company_id, row.user_id, row.event)
        return answer

    async def _track(self, item: Item, standing: Standing, person: UserFacts | None) -> Outcome:
        company_id, now = standing.facts.company_id, self._session.now
        at = now if item.occurred_at is None else min(item.occurred_at, now)
        user_id = "" if person is None else person.user_id
        try:
            await self._usage[company_id].count(item.name, user_id, item.quantity, at)
        except Overflow:
            return _overflown()
        self._append(item, company_id, user_id, item.name)
        return _ACCEPTED

    def _unknown_company(self, item: Item) -> Outcome:
        if item.kind != "track":
            unknown = unanswerable(Reason.UNKNOWN_COMPANY, item.name, at=self._session.now)
            if item.kind == "reserve":
                return Reserved(id=None, decision=unknown, expires_at=None)
            return Consumed(unknown, False)
        # One key is enough to find the event again; the first by name is as good as any other.
        name, value = min(item.company.items())
        now = self._session.now
        self._waiting.append(
            {
                "event_id": new_id("evt"),
                "environment_id": self._session.environment_id,
                "key_name": name,
                "key_value": value,
                "user_keys": item.user,
                "event": item.name,
                "quantity": item.quantity,
                "occurred_at": now if item.occurred_at is None else min(item.occurred_at, now),
                "recorded_at": now,
            }
        )
        self._use_key(item, None)
        return _UNATTRIBUTED

    def _append(self, item: Item, company_id: str, user_id: str, event: str, *, answer: object = None) -> None:
        now = self._session.now
        at = now if item.occurred_at is None else min(item.occurred_at, now)
        self._events.append(LedgerEntry(next(self._ids), company_id, user_id, event, item.quantity, at))
        self._use_key(item, answer)

    def _use_key(self, item: Item, answer: object) -> None:
        if item.key_hash is None:
            return
        self._keys[item.key_hash] = (item.body_hash, answer)
        self._new_keys.append(UsedKey(item.key_hash, item.body_hash, answer))


def _users_with_overrides(standing: Standing) -> set[str]:
    return {override.user for override in standing.facts.overrides if override.user is not None}


async def _owners_of_reservations(env: Environment, items: Sequence[Item]) -> Mapping[str, str]:
    """The companies of the reservations these items end, by reservation."""
    ids = {item.reservation_id for item in items if item.reservation_id is not None}
    if not ids:
        return {}
    async with env.reading() as session:
        return {row.id: row.company_id for row in (await reservations_by_id(session, ids)).values()}


def _held_standing(env: Environment, item: Item) -> Standing | None:
    if len(item.company) != 1:
        return None
    (pair,) = item.company.items()
    return env.standings.peek(*pair)


async def _standing(env: Environment, item: Item, owners: Mapping[str, str]) -> Standing | Refusal | None:
    if item.reservation_id is not None:
        company_id = owners.get(item.reservation_id)
        return None if company_id is None else await env.standings.of(company_id)
    try:
        return await env.standings.of_keys(item.company)
    except Refusal as refusal:
        return refusal


async def _member(env: Environment, standing: Standing, item: Item) -> UserFacts | None:
    if item.user is None:
        return None
    try:
        return await member(env, standing, item.user)
    except Refusal:
        # Keys of two users name nobody; the company's usage counts all the same.
        return None


def _repeated(item: Item, body_hash: bytes, answer: object) -> Outcome:
    if body_hash != item.body_hash:
        return Refusal(
            Code.IDEMPOTENCY_CONFLICT,
            "This idempotency key was used with another body; the first one counts. Use a new key for a new event.",
        )
    if item.kind == "consume":
        decision = msgspec.convert(answer, Decision)
        return Consumed(decision if item.has_trace else msgspec.structs.replace(decision, trace=None), True)
    return _DUPLICATE


def _overflown() -> Refusal:
    return invalid("/quantity", "The sum of this usage would leave the range of 64-bit integers.")


def _refresh(counters: dict[CounterKey, WindowCounter], newest: Mapping[CounterKey, WindowCounter]) -> None:
    for key, window in newest.items():
        held = counters.get(key)
        if held is not None and held.window_id == window.window_id:
            held.used, held.reserved, held.end_at = window.used, window.reserved, window.end_at
        elif held is None or held.start_at <= window.start_at:
            counters[key] = window
