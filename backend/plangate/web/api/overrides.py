"""Overrides over HTTP: list, grant, edit with If-Match, revoke with a note."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from plangate import overrides
from plangate.companies.paging import after_id, cursor_of
from plangate.errors import Code, Refusal, invalid
from plangate.shapes import OverrideState, OverrideView
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.queries import NoQuery, OverridesQuery, PageQuery, RevokeQuery
from plangate.web.schemas import BulkOverrideBody, OverrideBody, OverrideEdit, RevokeBody
from plangate.web.versions import HEADER as VERSION_HEADER

_TAG: Final = "Overrides"
_ETAG: Final = re.compile(rb'(?:W/)?"([^"\x00-\x1f]{1,100})"|([A-Za-z0-9_.-]{1,100})')


class OverrideList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a company's overrides, newest first, those that ended included; `next_cursor` null on the last."""

    data: list[OverrideView]
    next_cursor: str | None


class OverridePage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of all companies' overrides; `next_cursor` null on the last."""

    data: list[OverrideView]
    next_cursor: str | None


class OverrideHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Every state an override had, newest first."""

    data: list[overrides.OverrideChange]
    next_cursor: None = None


class BulkAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One result for each company. `next_cursor` is null when there are no more companies to look through."""

    results: list[overrides.Granted]
    next_cursor: str | None


async def all_overrides(call: Call[None, OverridesQuery]) -> Answer:
    """One page of all overrides."""
    query = call.query
    found, cursor = await overrides.search(
        call.environment,
        state=None if query.state is None else OverrideState(query.state),
        expires_before=query.expires_before,
        feature=query.feature,
        cursor=query.cursor,
        limit=query.limit,
    )
    return Answer(OverridePage(data=found, next_cursor=cursor))


async def get_override(call: Call[None, None]) -> Answer:
    """One override."""
    found = await overrides.get(call.environment, call.path["override_id"])
    return Answer(found, headers={"ETag": f'"{found.etag}"'})


async def override_history(call: Call[None, None]) -> Answer:
    """Every state of one override."""
    return Answer(OverrideHistory(data=await overrides.changes(call.environment, call.path["override_id"])))


async def grant_bulk(call: Call[BulkOverrideBody, None]) -> Answer:
    """The same override for many companies."""
    body = call.body
    if (body.companies is None) is (body.plan is None):
        raise invalid("/companies", "Name the companies, or the plan whose companies are meant.")
    if body.cursor is not None and body.plan is None:
        raise invalid("/cursor", "The cursor goes with a plan.")
    chosen: Sequence[Mapping[str, str] | str] = body.companies or ()
    cursor: str | None = None
    if body.plan is not None:
        chosen, cursor = await overrides.companies_on_plan(call.environment, body.plan, after=body.cursor)
    results: list[overrides.Granted] = []
    if chosen:
        results = await overrides.grant_to_many(
            call.environment,
            chosen,
            feature=body.feature,
            mode=body.mode,
            value=body.value,
            note=body.note,
            period=body.period,
            starts_at=body.starts_at,
            expires_at=body.expires_at,
            actor=call.actor,
        )
    return Answer(BulkAnswer(results=results, next_cursor=cursor))


async def list_overrides(call: Call[None, PageQuery]) -> Answer:
    """One page of a company's overrides."""
    company_id = call.path["company_id"]
    before, limit = after_id(call.query.cursor, prefix="ovr_"), call.query.limit
    await call.catch_up(company_id)
    found = await overrides.listing(call.environment, company_id, before=before, limit=limit + 1)
    following = cursor_of(found[limit - 1].id) if len(found) > limit else None
    return Answer(OverrideList(data=found[:limit], next_cursor=following))


async def grant_override(call: Call[OverrideBody, None]) -> Answer:
    """Grant an override."""
    body = call.body
    granted = await overrides.grant(
        call.environment,
        call.path["company_id"],
        feature=body.feature,
        mode=body.mode,
        value=body.value,
        note=body.note,
        actor=call.actor,
        user=body.user,
        period=body.period,
        starts_at=body.starts_at,
        expires_at=body.expires_at,
    )
    return Answer(granted, 201, await _headers(call, granted))


async def edit_override(call: Call[OverrideEdit, None]) -> Answer:
    """Change an override that nobody changed meanwhile."""
    edited = await overrides.edit(
        call.environment,
        call.path["override_id"],
        etag=_etag(call.exchange.if_match),
        changes=call.body.changes(),
        actor=call.actor,
    )
    return Answer(edited, headers=await _headers(call, edited))


async def revoke_override(call: Call[RevokeBody | None, RevokeQuery]) -> Answer:
    """End an override now."""
    notes = {note for note in (call.query.note, call.body.note if call.body is not None else None) if note}
    if len(notes) != 1:
        raise invalid("/note", "Say in `note` why the override ends, in the query or in the body.")
    revoked = await overrides.revoke(
        call.environment,
        call.path["override_id"],
        note=notes.pop(),
        actor=call.actor,
        etag=_etag(call.exchange.if_match) or "*",
    )
    return Answer(revoked, headers=await _headers(call, revoked))


async def _headers(call: Call[Any, Any], view: OverrideView) -> dict[str, str]:
    return {"ETag": f'"{view.etag}"', **await call.version_of(view.company)}


def _etag(if_match: bytes | None) -> str | None:
    """The etag in If-Match, `*` for any, None without one. Raises Refusal (412) for what cannot be one of ours."""
    if if_match is None:
        return None
    if if_match.strip() == b"*":
        return "*"
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise Refusal(Code.ETAG_MISMATCH, "If-Match does not hold an etag of this override. Read it again.")
    return (found[1] or found[2]).decode("latin-1")


_HEADERS: Final = ("ETag", VERSION_HEADER)

OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/companies/{company_id}/overrides",
        name="listOverrides",
        tag=_TAG,
        summary="A company's overrides",
        text="Newest first, with those that ended, `limit` at a time.",
        scope="read",
        answer=list_overrides,
        query=PageQuery,
        responses={200: Documented("The overrides.", OverrideList)},
        problems=(Code.NOT_FOUND,),
        takes_version=True,
    ),
    Operation(
        method="POST",
        path="/v1/companies/{company_id}/overrides",
        name="grantOverride",
        tag=_TAG,
        summary="Grant an override",
        text="`set` gives a value (the more generous of it and the plan's applies), `add` so many on top, `deny` an "
        "explicit no. It starts counting at `starts_at` (default, and for an instant that is over: now) and stops "
        "at `expires_at`, to the instant.",
        scope="write",
        answer=grant_override,
        body=OverrideBody,
        example={
            "feature": "exports",
            "mode": "add",
            "value": 500,
            "expires_at": "2026-12-01T00:00:00Z",
            "note": "Migration week, ticket 4711",
        },
        responses={201: Documented("Granted.", OverrideView, headers=_HEADERS)},
        problems=(Code.NOT_FOUND, Code.OVERRIDE_OVERLAP, Code.IDEMPOTENCY_CONFLICT),
        takes_idempotency_key=True,
    ),
    Operation(
        method="GET",
        path="/v1/overrides",
        name="allOverrides",
        tag=_TAG,
        summary="All companies' overrides",
        text="Newest first, by `state` and `feature`. With `expires_before` those that end before it, the soonest "
        "first, and without a `state` only those still to end.",
        scope="read",
        answer=all_overrides,
        query=OverridesQuery,
        responses={200: Documented("One page.", OverridePage)},
    ),
    Operation(
        method="POST",
        path="/v1/overrides/bulk",
        name="grantOverrides",
        tag=_TAG,
        summary="Grant an override to many companies",
        text="To up to 1,000 companies, or to those on a `plan`, 1,000 companies looked through at a time. Each has "
        "its own result; one that is refused, such as for an overlap, does not touch the others.",
        scope="write",
        answer=grant_bulk,
        body=BulkOverrideBody,
        example={
            "companies": [{"id": "acme"}],
            "feature": "api-calls",
            "mode": "add",
            "value": 100,
            "expires_at": "2027-01-01T00:00:00Z",
            "note": "Making up for the outage of 19 November",
        },
        responses={200: Documented("One result for each company.", BulkAnswer)},
        problems=(Code.IDEMPOTENCY_CONFLICT,),
        takes_idempotency_key=True,
    ),
    Operation(
        method="GET",
        path="/v1/overrides/{override_id}",
        name="getOverride",
        tag=_TAG,
        summary="One override",
        text="With its etag, for an edit.",
        scope="read",
        answer=get_override,
        query=NoQuery,
        responses={200: Documented("The override.", OverrideView, headers=("ETag",))},
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/overrides/{override_id}/history",
        name="getOverrideHistory",
        tag=_TAG,
        summary="Every state an override had",
        text="Newest first: what it said, who made it so, when and why.",
        scope="read",
        answer=override_history,
        query=NoQuery,
        responses={200: Documented("The states.", OverrideHistory)},
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        method="PATCH",
        path="/v1/overrides/{override_id}",
        name="editOverride",
        tag=_TAG,
        summary="Edit an override",
        text="Send the etag you read in `If-Match`; fields left out stay as they are.",
        scope="write",
        answer=edit_override,
        body=OverrideEdit,
        example={"value": 800, "note": "One more week"},
        responses={200: Documented("Edited.", OverrideView, headers=_HEADERS)},
        problems=(Code.NOT_FOUND, Code.ETAG_REQUIRED, Code.ETAG_MISMATCH, Code.OVERRIDE_OVERLAP),
        takes_if_match=True,
    ),
    Operation(
        method="DELETE",
        path="/v1/overrides/{override_id}",
        name="revokeOverride",
        tag=_TAG,
        summary="Revoke an override",
        text="It stops counting at once; its history stays. The note may come in the query or in the body.",
        scope="write",
        answer=revoke_override,
        body=RevokeBody,
        is_body_optional=True,
        query=RevokeQuery,
        example={"note": "Granted by mistake"},
        responses={200: Documented("Revoked.", OverrideView, headers=_HEADERS)},
        problems=(Code.NOT_FOUND,),
    ),
)
