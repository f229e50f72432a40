"""Overrides as people see them: one, a company's, those of everybody that end soon, and every state one ever had."""

import base64
import binascii
from datetime import datetime
from typing import Final

import msgspec

from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.shapes import Actor, OverrideState, OverrideView
from plangate.store.audit import AuditRow, audit_between
from plangate.store.columns import from_microseconds, to_microseconds
from plangate.store.companies import is_company
from plangate.store.overrides import (
    OverrideRow,
    current_override,
    current_overrides,
    page_of_overrides,
    states_of_override,
)

_LARGEST_PAGE: Final = 100


class OverrideChange(msgspec.Struct, frozen=True, kw_only=True):
    """One state of an override: what it said in `[recorded_at, superseded_at)`, who made it so, and why."""

    override: OverrideView
    recorded_at: datetime
    superseded_at: datetime | None
    action: str
    actor: Actor
    note: str


async def get(env: Environment, override_id: str) -> OverrideView:
    """One override as it stands. Raises Refusal (404)."""
    async with env.reading() as session:
        row = await current_override(session, override_id)
        if row is None:
            raise nothing("override")
        return view(row, session.now)


async def listing(
    env: Environment, company_id: str, *, before: str | None = None, limit: int | None = None
) -> list[OverrideView]:
    """The overrides the company ever had, newest first, each with its state now. Raises Refusal (404).

    All of them, or at most `limit` of those made before the override `before`.
    """
    async with env.reading() as session:
        if not await is_company(session, company_id):
            raise nothing("company")
        rows = await current_overrides(session, company_id, before=before, limit=limit)
        return [view(row, session.now) for row in rows]


def view(row: OverrideRow, at: datetime) -> OverrideView:
    """A stored override as the contract shows it, with its state at an instant."""
    if row.revoked_at is not None:
        state = OverrideState.REVOKED
    elif row.expires_at is not None and row.expires_at <= at:
        state = OverrideState.EXPIRED
    else:
        state = OverrideState.ACTIVE if row.starts_at <= at else OverrideState.SCHEDULED
    return OverrideView(
        id=row.override_id,
        company=row.company_id,
        user=row.user_id,
        feature=row.feature,
        mode=row.mode,
        value=row.value,
        period=row.period,
        note=row.note,
        author=msgspec.convert(row.author, Actor),
        state=state,
        starts_at=row.starts_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        etag=f"r{row.revision}",
    )


async def search(
    env: Environment,
    *,
    state: OverrideState | None = None,
    expires_before: datetime | None = None,
    feature: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[OverrideView], str | None]:
    """A page of all companies' overrides, and the cursor of the next page (None: this was the last).

    Newest first; with `expires_before` only those that end before it, the soonest first, and unless `state` says
    otherwise only those still to end. Raises Refusal (422) for a cursor that is not ours or a limit outside 1 to 100.
    """
    if not 1 <= limit <= _LARGEST_PAGE:
        raise invalid("/limit", f"The limit is a number from 1 to {_LARGEST_PAGE}.")
    after = None if cursor is None else _after(cursor, is_soonest_first=expires_before is not None)
    async with env.reading() as session:
        rows = await page_of_overrides(
            session,
            state=None if state is None else state.value,
            expires_before=expires_before,
            feature=feature,
            after=after,
            limit=limit + 1,
        )
        found = [view(row, session.now) for row in rows[:limit]]
    return found, _cursor(rows[limit - 1], is_soonest_first=expires_before is not None) if len(rows) > limit else None


async def changes(env: Environment, override_id: str) -> list[OverrideChange]:
    """Every state the override had, newest first, as it looked when it was recorded. Raises Refusal (404)."""
    async with env.reading() as session:
        rows = await states_of_override(session, override_id)
        if not rows:
            raise nothing("override")
        entries = await audit_between(
            session, {row.company_id for row in rows}, rows[-1].recorded_at, rows[0].recorded_at
        )
    return [_change(row, entries) for row in rows]


def nothing(what: str) -> Refusal:
    """The refusal of an id that is unknown here."""
    return Refusal(Code.NOT_FOUND, f"There is no such {what}.")


def _change(row: OverrideRow, entries: list[AuditRow]) -> OverrideChange:
    # A state is recorded in the transaction of its audit entry; a merge has one entry for all it moved.
    made = [entry for entry in entries if entry.at == row.recorded_at and entry.company_id == row.company_id]
    entry = next((one for one in made if one.subject == row.override_id), made[0])
    return OverrideChange(
        override=view(row, row.recorded_at),
        recorded_at=row.recorded_at,
        superseded_at=row.superseded_at,
        action=entry.action,
        actor=msgspec.convert(entry.actor, Actor),
        note=entry.note,
    )


def _cursor(row: OverrideRow, *, is_soonest_first: bool) -> str:
    text = row.override_id
    if is_soonest_first and row.expires_at is not None:
        text = f"{to_microseconds(row.expires_at)}:{text}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _after(cursor: str, *, is_soonest_first: bool) -> tuple[datetime | None, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    instant, _, override_id = text.rpartition(":")
    is_instant = instant.isdecimal() and len(instant) <= 17
    if not override_id.startswith("ovr_") or not 4 < len(override_id) <= 64 or is_instant is not is_soonest_first:
        raise invalid("/cursor", "That is not a cursor of this list; take it from `next_cursor`.")
    return from_microseconds(int(instant)) if is_instant else None, override_id
