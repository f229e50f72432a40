"""Reservations inside a batch: hold an estimate, settle it with the real number, give it back, let it expire.

What is held counts against the limit like what is used, in the period that ran when it was reserved. A settlement is
always counted, because it says what happened: what the limit has no room for is the overrun, a debt that is kept.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

import msgspec

from plangate.counted_events import event_of, is_counted_here
from plangate.engine.decide import decide
from plangate.engine.decision import Decision
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import UserFacts, WindowCounter
from plangate.engine.snapshot import CounterKey
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.ids import new_id
from plangate.metering.events import LATEST, Item
from plangate.standing import Standing
from plangate.store.database import StoreSession
from plangate.store.ledger import lock_companies
from plangate.store.reservations import (
    EXPIRED,
    HELD,
    RELEASED,
    SETTLED,
    ReservationRow,
    add_reservations,
    close_reservations,
    companies_with_expired,
    expired_reservations,
)
from plangate.store.snapshot import company_facts
from plangate.store.usage import newest_windows, set_counters
from plangate.store.users import user_facts
from plangate.usage_windows import CompanyUsage, Overflow, company_usage

_PAGE: Final = 200

State: TypeAlias = Literal["held", "expired", "settled", "released"]


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a reservation. `id` and `expires_at` are null when nothing is held: a "no", or nothing metered."""

    id: str | None
    decision: Decision
    expires_at: datetime | None


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """How a reservation ended. `reserved` was held; `quantity` was counted, null when it was given back.

    `overrun` is the part of it that the limit had no room for: counted all the same, as a debt.
    """

    id: str
    state: State
    reserved: int
    quantity: int | None
    overrun: int
    decision: Decision


class Reservations:
    """The reservations of one batch. Nothing is written before `save`, but for those that expire."""

    def __init__(self, session: StoreSession) -> None:
        self.known: dict[str, ReservationRow] = {}
        self._session = session
        self._new: list[dict[str, object]] = []
        self._closed: dict[str, ReservationRow] = {}

    async def reserve(self, item: Item, standing: Standing, usage: CompanyUsage, person: UserFacts | None) -> Reserved:
        """Hold the quantity if the limit has room for it. Raises Refusal (422) when a sum would leave 64 bits."""
        now = self._session.now
        feature = standing.catalog.features.get(item.name)
        snapshot = standing.snapshot_at(now)
        user_id = "" if person is None else person.user_id
        counters = await usage.counters_at(item.name, user_id, now)
        decision = decide(
            snapshot, item.name, counters, at=now, quantity=item.quantity, user=person, with_trace=item.has_trace
        )
        if not decision.allowed or feature is None or not is_counted_here(feature):
            return Reserved(id=None, decision=decision, expires_at=None)
        try:
            await usage.count(event_of(feature), user_id, 0, now, reserved=item.quantity)
        except Overflow:
            raise invalid("/quantity", "The sum of what is held would leave the range of 64-bit integers.") from None
        row = ReservationRow(
            id=new_id("resv"),
            environment_id=self._session.environment_id,
            company_id=standing.facts.company_id,
            user_id=user_id,
            feature=feature.key,
            event=event_of(feature),
            quantity=item.quantity,
            reserved_at=now,
            expires_at=now + (item.time_to_live or timedelta()),
            recorded_at=now,
        )
        self._new.append(row.model_dump())
        self.known[row.id] = row
        decision = decide(snapshot, item.name, counters, at=now, quantity=0, user=person, with_trace=item.has_trace)
        return Reserved(id=row.id, decision=decision, expires_at=row.expires_at)

    async def close(
        self, item: Item, row: ReservationRow, standing: Standing, usage: CompanyUsage
    ) -> tuple[Closed, bool]:
        """Settle or release; also whether a quantity was counted just now, for the ledger.

        The same again answers as the first time. Raises Refusal: 409 when it ended otherwise before, 422 when the
        period it belongs to lies more than 35 days back or a sum would leave 64 bits.
        """
        wanted = SETTLED if item.kind == "settle" else RELEASED
        if row.state in {SETTLED, RELEASED}:
            if row.state == wanted and (wanted == RELEASED or row.settled == item.quantity):
                return msgspec.convert(row.answer, Closed), False
            raise Refusal(
                Code.RESERVATION_CLOSED,
                f"The reservation was {row.state} before"
                + (f", with the quantity {row.settled}." if row.state == SETTLED else "."),
            )
        if wanted == SETTLED and row.reserved_at < self._session.now - LATEST:
            raise invalid(
                "/quantity",
                "The reservation is more than 35 days old, and its period can no longer be counted.",
                code=Code.TIMESTAMP_TOO_OLD,
            )
        quantity = item.quantity if wanted == SETTLED else 0
        overrun = await self._count(row, quantity, standing, usage)
        decision = await self._decision(row, 0, standing, usage)
        answer = Closed(
            id=row.id,
            state="settled" if wanted == SETTLED else "released",
            reserved=row.quantity,
            quantity=quantity if wanted == SETTLED else None,
            overrun=overrun,
            decision=decision,
        )
        row.state, row.settled, row.overrun = wanted, answer.quantity, overrun
        row.answer, row.closed_at = msgspec.to_builtins(answer), self._session.now
        self._closed[row.id] = row
        return answer, quantity != 0

    async def expire(self, rows: Sequence[ReservationRow], usage: Mapping[str, CompanyUsage]) -> None:
        """Give back the room of reservations whose time is over, before anything else is decided."""
        ended = []
        for row in rows:
            windows = usage.get(row.company_id)
            if windows is None:
                continue
            await windows.count(row.event, row.user_id, 0, row.reserved_at, reserved=-row.quantity)
            known = self.known.setdefault(row.id, row)
            known.state = EXPIRED
            ended.append(known)
        await close_reservations(self._session, ended)

    async def save(self) -> None:
        """Write everything the batch decided."""
        await add_reservations(self._session, self._new)
        await close_reservations(self._session, list(self._closed.values()))

    async def _count(self, row: ReservationRow, quantity: int, standing: Standing, usage: CompanyUsage) -> int:
        """Move what was held to what is used; answers the part the limit had no room for."""
        held = row.quantity if row.state == HELD else 0
        await usage.count(row.event, row.user_id, 0, row.reserved_at, reserved=-held)
        overrun = 0
        if quantity:
            asked = await self._decision(row, quantity, standing, usage)
            overrun = 0 if asked.allowed else quantity - min(quantity, asked.remaining or 0)
        try:
            await usage.count(row.event, row.user_id, quantity, row.reserved_at)
        except Overflow:
            await usage.count(row.event, row.user_id, 0, row.reserved_at, reserved=held)
            raise invalid("/quantity", "The sum of this usage would leave the range of 64-bit integers.") from None
        return overrun

    async def _decision(self, row: ReservationRow, quantity: int, standing: Standing, usage: CompanyUsage) -> Decision:
        """What the company may do in the period of the reservation, with what is granted now."""
        at = row.reserved_at
        snapshot = standing.snapshot_at(self._session.now)
        if not snapshot.holds_at(at):
            snapshot = build_snapshot(standing.catalog, standing.facts, at)
        person = await user_facts(self._session, row.company_id, row.user_id) if row.user_id else None
        counters = await usage.counters_at(row.feature, row.user_id, at)
        return decide(snapshot, row.feature, counters, at=at, quantity=quantity, user=person)


async def release_expired(env: Environment) -> int:
    """Give back what expired reservations hold, one short transaction per company; answers how many there were.

    Transactions that need the room do so themselves; this keeps checks right where nobody consumes.
    """
    async with env.reading() as session:
        company_ids = await companies_with_expired(session, limit=_PAGE)
    return sum([await _release_expired_of(env, company_id) for company_id in company_ids])


async def _release_expired_of(env: Environment, company_id: str) -> int:
    catalog = await env.catalog()
    async with env.writing() as session:
        held = await lock_companies(session, [company_id])
        facts = await company_facts(session, company_id) if held else None
        rows = await expired_reservations(session, [company_id])
        if not rows:
            return 0
        if facts is None or held[company_id].catalog_revision != catalog.revision:
            catalog = await env.catalog_in(session)
        reservations = Reservations(session)
        if facts is None:
            # The company was merged away; what it held is nobody's.
            for row in rows:
                row.state = EXPIRED
            await close_reservations(session, rows)
            return len(rows)
        newest = await windows_with_users(session, company_id, {row.user_id for row in rows})
        usage = await company_usage(session, catalog, facts, newest=newest)
        await reservations.expire(rows, {company_id: usage})
        await set_counters(session, list(usage.changed.values()))
        session.counted.add(company_id)
    env.forget(company_id)
    return len(rows)


async def windows_with_users(
    session: StoreSession, company_id: str, user_ids: Collection[str]
) -> dict[CounterKey, WindowCounter]:
    """The newest windows of a held company and of these users of it."""
    found = await newest_windows(session, [company_id], user_ids=sorted({"", *user_ids}), lock=True)
    return {(feature, kind, user_id): window for (_, feature, kind, user_id), window in found.items()}
