"""Exceptions for one company or one of its users: grant, edit and revoke, each with its author and note, all kept.

Every state of an override is a row of its own, so the past stays answerable; the audit tells who changed what.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from plangate.engine.catalog import Catalog
from plangate.engine.values import Json, OverrideMode, PeriodKind
from plangate.environment import Environment
from plangate.errors import Code, FieldError, Refusal, invalid
from plangate.ids import new_id
from plangate.members import member_in
from plangate.overrides.reading import nothing, view
from plangate.overrides.rules import (
    check_times,
    checked_feature,
    checked_mode,
    checked_note,
    checked_period,
    checked_start,
    checked_value,
)
from plangate.shapes import Actor, OverrideView
from plangate.store.audit import append_audit
from plangate.store.companies import company_row
from plangate.store.database import StoreSession
from plangate.store.overrides import OverrideRow, current_override, current_overrides, replace_override
from plangate.store.races import repeated
from plangate.store.users import user_facts
from plangate.usage_windows import open_missing_windows

_CHANGEABLE: Final = frozenset({"value", "note", "starts_at", "expires_at", "period"})
_COMPANY_OVERRIDES: Final = 1_000  # in force or still to come, for one company


class Granting(msgspec.Struct, frozen=True, kw_only=True):
    """What is granted, checked against the catalogue; whom it is granted to is not said yet."""

    feature: str
    mode: OverrideMode
    value: Json
    period: PeriodKind | None
    note: str
    starts_at: datetime | None
    expires_at: datetime | None


@repeated
async def grant(
    env: Environment,
    company_id: str,
    *,
    feature: str,
    note: str,
    actor: Actor,
    mode: OverrideMode | str = OverrideMode.SET,
    value: Json = None,
    user: Mapping[str, str] | str | None = None,
    period: PeriodKind | str | None = None,
    starts_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> OverrideView:
    """Grant an exception in force in `[starts_at, expires_at)`; a start before now means now.

    `value` fits the feature: true or false; a number from 0 or "unlimited" for limits (`add`: a number from 1); a
    config value; none with `deny`. `user` is a user's keys or id. Raises Refusal: 404 for an unknown company, 422 for
    a field at fault, 409 when another override of this mode is in force for this feature and subject meanwhile.
    """
    catalog = await env.catalog()
    wanted = checked_grant(
        catalog,
        feature=feature,
        mode=mode,
        value=value,
        period=period,
        note=note,
        starts_at=starts_at,
        expires_at=expires_at,
    )
    async with env.writing() as session:
        company = await company_row(session, company_id, lock=True)
        if company is None or company.merged_into is not None:
            raise nothing("company")
        return await grant_in(env, session, catalog, company_id, wanted, user=user, actor=actor)


def checked_grant(
    catalog: Catalog,
    *,
    feature: str,
    mode: str,
    value: Json,
    period: str | None,
    note: object,
    starts_at: datetime | None,
    expires_at: datetime | None,
) -> Granting:
    """What a grant says, when it fits the catalogue. Raises Refusal (422) that points at the field at fault."""
    known = checked_feature(catalog.features, feature)
    wanted_mode = checked_mode(mode)
    return Granting(
        feature=feature,
        mode=wanted_mode,
        value=checked_value(known, wanted_mode, value),
        period=checked_period(known, wanted_mode, period),
        note=checked_note(note),
        starts_at=starts_at,
        expires_at=expires_at,
    )


async def grant_in(
    env: Environment,
    session: StoreSession,
    catalog: Catalog,
    company_id: str,
    wanted: Granting,
    *,
    user: Mapping[str, str] | str | None,
    actor: Actor,
) -> OverrideView:
    """Grant in a transaction that holds the company. Whatever it raises as a Refusal, it raises before it writes."""
    start = checked_start(wanted.starts_at, session.now)
    check_times(start, wanted.expires_at, session.now)
    row = OverrideRow(
        id=new_id("ovs"),
        environment_id=session.environment_id,
        override_id=new_id("ovr"),
        company_id=company_id,
        user_id=await _user_id(session, company_id, user),
        feature=wanted.feature,
        mode=wanted.mode.value,
        value=wanted.value,
        period=None if wanted.period is None else wanted.period.value,
        note=wanted.note,
        author=msgspec.to_builtins(actor),
        starts_at=start,
        expires_at=wanted.expires_at,
        recorded_at=session.now,
    )
    await _refuse_overlap(session, row)
    await replace_override(session, row)
    return await _changed(env, session, catalog, row, actor=actor, action="override.granted", before=None)


@repeated
async def edit(
    env: Environment, override_id: str, *, etag: str | None, changes: Mapping[str, Any], actor: Actor
) -> OverrideView:
    """Change value, note, start, expiry or period of an override that has not ended.

    `changes` holds only what changes; a null `expires_at` or `period` removes it. `etag` is that of the state the
    caller saw ("*": any). Raises Refusal: 404, 412 when it was changed meanwhile, 428 without an etag, 422 and 409 as
    `grant` does.
    """
    if unknown := sorted(set(changes) - _CHANGEABLE):
        raise Refusal(
            Code.UNKNOWN_FIELD,
            f"{unknown[0]} cannot be changed; grant a new override instead.",
            errors=[FieldError(f"/{name}", Code.UNKNOWN_FIELD, "This field cannot be changed.") for name in unknown],
        )
    if not changes:
        raise invalid("", "Nothing is changed: send value, note, starts_at, expires_at or period.")
    catalog = await env.catalog()
    async with env.writing() as session:
        before = await _held(session, override_id, etag)
        known = checked_feature(catalog.features, before.feature)
        mode = OverrideMode(before.mode)
        row = before.model_copy(
            update={"id": new_id("ovs"), "revision": before.revision + 1, "recorded_at": session.now}
        )
        if "value" in changes:
            row.value = checked_value(known, mode, changes["value"])
        if "note" in changes:
            row.note = checked_note(changes["note"])
        if "period" in changes:
            period = checked_period(known, mode, changes["period"])
            row.period = None if period is None else period.value
        if "starts_at" in changes and changes["starts_at"] != before.starts_at:
            if before.starts_at <= session.now:
                raise invalid("/starts_at", "The override has begun; its start can no longer change.")
            row.starts_at = checked_start(changes["starts_at"], session.now)
        if "expires_at" in changes:
            row.expires_at = changes["expires_at"]
        check_times(row.starts_at, row.expires_at, session.now)
        await _refuse_overlap(session, row)
        await replace_override(session, row)
        return await _changed(env, session, catalog, row, actor=actor, action="override.edited", before=before)


@repeated
async def revoke(
    env: Environment, override_id: str, *, note: str, actor: Actor, etag: str | None = "*"
) -> OverrideView:
    """End an override now, for good; the note says why. Revoking one that is revoked already answers as it stands.

    Raises Refusal: 404, 412 when an `etag` is given and lost, 422 for a note that is missing or too long, or an
    override that has expired.
    """
    wanted_note = checked_note(note)
    catalog = await env.catalog()
    async with env.writing() as session:
        before = await current_override(session, override_id)
        if before is not None and before.revoked_at is not None:
            return view(before, session.now)
        before = await _held(session, override_id, etag)
        row = before.model_copy(
            update={
                "id": new_id("ovs"),
                "revision": before.revision + 1,
                "recorded_at": session.now,
                "revoked_at": session.now,
            }
        )
        await replace_override(session, row)
        return await _changed(
            env, session, catalog, row, actor=actor, action="override.revoked", before=before, note=wanted_note
        )


async def _held(session: StoreSession, override_id: str, etag: str | None) -> OverrideRow:
    """The override's newest state, its company held until the end, not ended, and still what the caller saw."""
    row = await current_override(session, override_id)
    held: str | None = None
    while row is not None and row.company_id != held:
        held = row.company_id
        await company_row(session, held, lock=True)
        # Read again: while we waited, somebody may have changed it, or merged its company into another.
        row = await current_override(session, override_id)
    if row is None:
        raise nothing("override")
    if etag is None:
        raise Refusal(Code.ETAG_REQUIRED, "Send the override's etag in If-Match, so that no other change is lost.")
    if etag != "*" and etag.strip().strip('"') != f"r{row.revision}":
        raise Refusal(Code.ETAG_MISMATCH, "The override was changed meanwhile. Read it again, then repeat the change.")
    if row.revoked_at is not None:
        raise invalid("", "The override was revoked. Grant a new one.")
    if row.expires_at is not None and row.expires_at <= session.now:
        raise invalid("", "The override has expired. Grant a new one.")
    return row


async def _changed(
    env: Environment,
    session: StoreSession,
    catalog: Catalog,
    row: OverrideRow,
    *,
    actor: Actor,
    action: str,
    before: OverrideRow | None,
    note: str | None = None,
) -> OverrideView:
    after = view(row, session.now)
    await append_audit(
        session,
        actor=actor,
        action=action,
        subject=row.override_id,
        company_id=row.company_id,
        before=None if before is None else view(before, session.now),
        after=after,
        note=row.note if note is None else note,
    )
    if row.revoked_at is None and row.mode != OverrideMode.DENY.value:
        # A period or a user not counted before needs its window now, so that checks see what was already used.
        await open_missing_windows(session, catalog, row.company_id, [row.feature])
    await env.touch(session, row.company_id)
    return after


async def _refuse_overlap(session: StoreSession, row: OverrideRow) -> None:
    others = await current_overrides(session, row.company_id)
    open_ended = [
        one for one in others if one.revoked_at is None and (one.expires_at is None or one.expires_at > session.now)
    ]
    if len(open_ended) >= _COMPANY_OVERRIDES:
        raise invalid("", f"A company may have {_COMPANY_OVERRIDES} overrides in force; revoke some first.")
    for one in open_ended:
        is_alike = (one.feature, one.mode, one.user_id) == (row.feature, row.mode, row.user_id)
        begins_before = one.expires_at is None or row.starts_at < one.expires_at
        ends_after = row.expires_at is None or one.starts_at < row.expires_at
        if one.override_id != row.override_id and is_alike and begins_before and ends_after:
            raise Refusal(
                Code.OVERRIDE_OVERLAP,
                f"Override {one.override_id} already has the mode {one.mode} for {one.feature} in that time. "
                "Edit or revoke it, or choose other dates.",
                extra={"override": one.override_id},
            )


async def _user_id(session: StoreSession, company_id: str, user: Mapping[str, str] | str | None) -> str | None:
    if user is None:
        return None
    if isinstance(user, str):
        found = await user_facts(session, company_id, user)
    else:
        found = await member_in(session, company_id, user)
    if found is None:
        raise invalid("/user", "There is no such user in this company.")
    return found.user_id
