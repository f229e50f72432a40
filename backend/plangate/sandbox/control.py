"""`/_sandbox`: the clock, faults, the request log, reset and the whole state, for tests and for the control page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .errors import ApiError, invalid, required
from .periods import add_duration, read_instant, written_instant
from .render import view
from .resources.charges import decide_dispute, open_dispute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from .server import Sandbox

Obj = dict[str, Any]

MAX_BODY = 64 * 1024
PAGE_EVENTS = 100


def control_routes() -> list[Route]:
    """Routes under `/_sandbox`."""
    return [
        Route("/_sandbox/clock", _guarded(_read_clock), methods=["GET"]),
        Route("/_sandbox/clock", _guarded(_move_clock), methods=["POST"]),
        Route("/_sandbox/faults", _guarded(_list_faults), methods=["GET"]),
        Route("/_sandbox/faults", _guarded(_add_fault), methods=["POST"]),
        Route("/_sandbox/faults", _guarded(_clear_faults), methods=["DELETE"]),
        Route("/_sandbox/requests", _guarded(_list_requests), methods=["GET"]),
        Route("/_sandbox/events", _guarded(_list_events), methods=["GET"]),
        Route("/_sandbox/events/{event}/resend", _guarded(_resend), methods=["POST"]),
        Route("/_sandbox/disputes", _guarded(_open_dispute), methods=["POST"]),
        Route("/_sandbox/disputes/{dispute}", _guarded(_decide_dispute), methods=["POST"]),
        Route("/_sandbox/webhook", _guarded(_set_webhook), methods=["POST"]),
        Route("/_sandbox/reset", _guarded(_reset), methods=["POST"]),
        Route("/_sandbox/state", _guarded(_state), methods=["GET"]),
    ]


def _guarded(
    answer: Callable[[Sandbox, Request], Awaitable[Obj]],
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        sandbox: Sandbox = request.app.state.sandbox
        try:
            return JSONResponse(await answer(sandbox, request))
        except ApiError as error:
            return JSONResponse(error.body, status_code=error.status)

    return endpoint


async def _body(request: Request) -> Obj:
    # A page of another origin cannot send JSON without asking first, and nobody answers that question here.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    text = bytearray()
    async for chunk in request.stream():
        text += chunk
        if len(text) > MAX_BODY:
            raise ApiError(413, "The request body is too large.")
    if kind != "application/json":
        raise ApiError(415, "Send JSON with Content-Type: application/json.")
    try:
        body = json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise invalid("Invalid JSON.") from error
    if not isinstance(body, dict):
        raise invalid("Send a JSON object.")
    return body


async def _read_clock(sandbox: Sandbox, _request: Request) -> Obj:
    return _clock(sandbox)


async def _move_clock(sandbox: Sandbox, request: Request) -> Obj:
    body = await _body(request)
    now = sandbox.world.now()
    if set(body) == {"advance"} and isinstance(body["advance"], str):
        target = add_duration(now, body["advance"])
    elif set(body) == {"to"} and isinstance(body["to"], str):
        target = read_instant(body["to"])
    else:
        raise invalid('Send {"advance": "P1M"} or {"to": "2027-01-01T00:00:00Z"}.', param="advance")
    await sandbox.move_clock(target)
    return _clock(sandbox)


async def _list_faults(sandbox: Sandbox, _request: Request) -> Obj:
    return {"data": sandbox.faults.all()}


async def _add_fault(sandbox: Sandbox, request: Request) -> Obj:
    return sandbox.faults.add(await _body(request))


async def _clear_faults(sandbox: Sandbox, _request: Request) -> Obj:
    sandbox.faults.clear()
    return {"data": []}


async def _list_requests(sandbox: Sandbox, _request: Request) -> Obj:
    return {"data": list(sandbox.requests)}


async def _list_events(sandbox: Sandbox, _request: Request) -> Obj:
    events = list(sandbox.world.store.all("event"))[-PAGE_EVENTS:]
    return {
        "data": [
            {
                "id": e["id"],
                "type": e["type"],
                "created": e["created"],
                "object": e["data"]["object"].get("id"),
                "deliveries": e["_deliveries"],
            }
            for e in events
        ],
        "attempts": list(sandbox.deliverer.attempts)[-PAGE_EVENTS:],
    }


async def _resend(sandbox: Sandbox, request: Request) -> Obj:
    await _body(request)
    await sandbox.deliverer.resend(request.path_params["event"])
    return {"resent": request.path_params["event"]}


async def _open_dispute(sandbox: Sandbox, request: Request) -> Obj:
    """`{charge, reason?, amount?}`: the cardholder's bank disputes a charge."""
    body = await _body(request)
    charge, reason, amount = body.get("charge"), body.get("reason", "fraudulent"), body.get("amount")
    if not isinstance(charge, str):
        raise required("charge")
    if not isinstance(reason, str) or not (amount is None or type(amount) is int):
        raise invalid("Send a reason as text, and an amount in minor units.", param="reason")
    dispute = open_dispute(sandbox.world, charge, reason=reason, amount=amount)
    return _done(sandbox, dispute)


async def _decide_dispute(sandbox: Sandbox, request: Request) -> Obj:
    """`{status}`: `under_review`, or what the bank decided: `won`, `lost` or `warning_closed`."""
    body = await _body(request)
    if not isinstance(body.get("status"), str):
        raise required("status")
    return _done(sandbox, decide_dispute(sandbox.world, request.path_params["dispute"], body["status"]))


def _done(sandbox: Sandbox, obj: Obj) -> Obj:
    sandbox.world.release_events()
    sandbox.is_dirty = True
    return _shown(sandbox, obj)


async def _set_webhook(sandbox: Sandbox, request: Request) -> Obj:
    body = await _body(request)
    if "url" not in body:
        raise required("url")
    url, secret = body["url"], body.get("secret")
    if not (url is None or isinstance(url, str)) or not (secret is None or isinstance(secret, str)):
        raise invalid("Invalid url", param="url")
    sandbox.set_webhook(url, secret)
    return {"url": url}


async def _reset(sandbox: Sandbox, request: Request) -> Obj:
    if request.headers.get("content-type") is not None:
        await _body(request)
    await sandbox.reset()
    return _clock(sandbox)


async def _state(sandbox: Sandbox, _request: Request) -> Obj:
    sandbox.catch_up()
    world = sandbox.world
    objects = {
        kind: [_shown(sandbox, obj) for obj in table.values()]
        for kind, table in world.store.tables.items()
        if kind != "event"
    }
    return {"clock": _clock(sandbox), "account": sandbox.config.account_id, "objects": objects}


def _shown(sandbox: Sandbox, obj: Obj) -> Obj:
    return view(sandbox.world, obj)


def _clock(sandbox: Sandbox) -> Obj:
    due = sandbox.agenda.next_due(sandbox.world)
    return {
        "now": written_instant(sandbox.world.now()),
        "offset_seconds": sandbox.world.clock.offset_seconds,
        "next_due": written_instant(due) if due is not None else None,
    }
