"""Exceptions for one company or one of its users: grant, edit and revoke, each with its author and note, all kept.

Every state of an override is a row of its own, so the past stays answerable; the audit tells who changed what.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from plangate.engine.model import (
    INT64_MAX,
    UNLIMITED,
    Catalog,
    Feature,
    FeatureType,
    Json,
    OverrideMode,
    PeriodKind,
)
from plangate.environment import Environment
from plangate.errors import Code, FieldError, Refusal, invalid
from plangate.ids import new_id
from plangate.keys import is_storable
from plangate.members import member_in
from plangate.shapes import Actor, OverrideState, OverrideView
from plangate.store.audit import append_audit
from plangate.store.companies import company_row, is_company
from plangate.store.database import StoreSession
from plangate.store.overrides import OverrideRow, current_override, current_overrides, replace_override
from plangate.store.races import repeated
from plangate.store.users import user_facts
from plangate.usage_windows import open_missing_windows

NOTE_LENGTH: Final = 2_000
_CONFIG_BYTES: Final = 16_384
_CHANGEABLE: Final = frozenset({"value", "note", "starts_at", "expires_at", "period"})
_COMPANY_OVERRIDES: Final = 1_000  # in force or still to come, for one company


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
    known = _feature(catalog.features, feature)
    wanted_mode = _mode(mode)
    wanted_value = _value(known, wanted_mode, value)
    wanted_period = _period(known, wanted_mode, period)
    wanted_note = _note(note)
    async with env.writing() as session:
        company = await company_row(session, company_id, lock=True)
        if company is None or company.merged_into is not None:
            raise _nothing("company")
        start = _start(starts_at, session.now)
        _check_times(start, expires_at, session.now)
        user_id = await _user_id(session, company_id, user)
        row = OverrideRow(
            id=new_id("ovs"),
            environment_id=session.environment_id,
            override_id=new_id("ovr"),
            company_id=company_id,
            user_id=user_id,
            feature=feature,
            mode=wanted_mode.value,
            value=wanted_value,
            period=None if wanted_period is None else wanted_period.value,
            note=wanted_note,
            author=msgspec.to_builtins(actor),
            starts_at=start,
            expires_at=expires_at,
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
        known = _feature(catalog.features, before.feature)
        mode = OverrideMode(before.mode)
        row = before.model_copy(
            update={"id": new_id("ovs"), "revision": before.revision + 1, "recorded_at": session.now}
        )
        if "value" in changes:
            row.value = _value(known, mode, changes["value"])
        if "note" in changes:
            row.note = _note(changes["note"])
        if "period" in changes:
            period = _period(known, mode, changes["period"])
            row.period = None if period is None else period.value
        if "starts_at" in changes and changes["starts_at"] != before.starts_at:
            if before.starts_at <= session.now:
                raise invalid("/starts_at", "The override has begun; its start can no longer change.")
            row.starts_at = _start(changes["starts_at"], session.now)
        if "expires_at" in changes:
            row.expires_at = changes["expires_at"]
        _check_times(row.starts_at, row.expires_at, session.now)
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
    wanted_note = _note(note)
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


async def get(env: Environment, override_id: str) -> OverrideView:
    """One override as it stands. Raises Refusal (404)."""
    async with env.reading() as session:
        row = await current_override(session, override_id)
        if row is None:
            raise _nothing("override")
        return view(row, session.now)


async def listing(env: Environment, company_id: str) -> list[OverrideView]:
    """All overrides the company ever had, newest first, each with its state now. Raises Refusal (404)."""
    async with env.reading() as session:
        if not await is_company(session, company_id):
            raise _nothing("company")
        return [view(row, session.now) for row in await current_overrides(session, company_id)]


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
        raise _nothing("override")
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


def _feature(features: Mapping[str, Feature], key: str) -> Feature:
    feature = features.get(key)
    if feature is None:
        raise invalid("/feature", "There is no such feature in the catalogue.")
    if feature.is_archived:
        raise invalid("/feature", f"{feature.name} is archived; an override of it would have no effect.")
    return feature


def _mode(mode: str) -> OverrideMode:
    try:
        return OverrideMode(mode)
    except ValueError:
        raise invalid("/mode", "The mode is one of set, add and deny.") from None


def _period(feature: Feature, mode: OverrideMode, period: str | None) -> PeriodKind | None:
    if period is None:
        return None
    if feature.type is not FeatureType.EVENT or mode is OverrideMode.DENY:
        raise invalid("/period", "Only a limit on a metered feature has a period.")
    try:
        return PeriodKind(period)
    except ValueError:
        raise invalid("/period", f"The period is one of {', '.join(kind.value for kind in PeriodKind)}.") from None


def _value(feature: Feature, mode: OverrideMode, value: Json) -> Json:
    if mode is OverrideMode.DENY:
        if value is not None:
            raise invalid("/value", "A denial has no value.")
        return None
    if feature.type in {FeatureType.BOOLEAN, FeatureType.CONFIG} and mode is OverrideMode.ADD:
        raise invalid("/mode", f"{feature.name} has no number to add to; use the mode set.")
    match feature.type:
        case FeatureType.BOOLEAN:
            if not isinstance(value, bool):
                raise invalid("/value", f"{feature.name} is on or off: the value is true or false.")
            return value
        case FeatureType.CONFIG:
            return _config(feature, value)
        case FeatureType.EVENT | FeatureType.TRAIT | FeatureType.SEAT:
            return _limit(feature, mode, value)


def _limit(feature: Feature, mode: OverrideMode, value: Json) -> int | str:
    if mode is OverrideMode.SET and (value is UNLIMITED or value == UNLIMITED.value):
        return UNLIMITED.value
    least = 1 if mode is OverrideMode.ADD else 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= INT64_MAX:
        words = "a whole number from 1" if mode is OverrideMode.ADD else 'a whole number from 0, or "unlimited"'
        raise invalid("/value", f"{feature.name} is a limit: the value is {words}.")
    return value


def _config(feature: Feature, value: Json) -> Json:
    if feature.config_type == "string":
        if not isinstance(value, str):
            raise invalid("/value", f"The value of {feature.name} is a text.")
    elif feature.config_type == "number":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # A float is compared with the bounds as well: infinities and NaN fail every comparison.
        if not is_number or not -INT64_MAX <= value <= INT64_MAX:
            raise invalid("/value", f"The value of {feature.name} is a number.")
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise invalid("/value", "The value is not JSON.") from None
    if value is None or len(encoded) > _CONFIG_BYTES:
        raise invalid("/value", f"The value of {feature.name} is JSON of at most {_CONFIG_BYTES} bytes, and not null.")
    return value


def _note(note: object) -> str:
    if not isinstance(note, str) or not 1 <= len(note.strip()) <= NOTE_LENGTH or not is_storable(note):
        raise invalid("/note", f"A note of 1 to {NOTE_LENGTH} characters says why.")
    return note.strip()


def _start(starts_at: datetime | None, now: datetime) -> datetime:
    if starts_at is not None and starts_at.tzinfo is None:
        raise invalid("/starts_at", "The time needs a time zone, such as 2026-11-20T10:00:00Z.")
    # What was answered before now cannot change any more.
    return now if starts_at is None else max(starts_at, now)


def _check_times(starts_at: datetime, expires_at: datetime | None, now: datetime) -> None:
    if expires_at is None:
        return
    if expires_at.tzinfo is None:
        raise invalid("/expires_at", "The time needs a time zone, such as 2026-11-20T10:00:00Z.")
    if expires_at <= now:
        raise invalid("/expires_at", "The expiry must lie in the future.")
    if expires_at <= starts_at:
        raise invalid("/expires_at", "The expiry must come after the start.")


def _nothing(what: str) -> Refusal:
    return Refusal(Code.NOT_FOUND, f"There is no such {what}.")
