"""The edge of Stripe's API: keys, forms, idempotency, faults, expansion and the request log around each route."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from .config import API_VERSION
from .errors import ApiError, invalid
from .faults import Fault, failure_of
from .forms import Tree, parse_form
from .render import expand
from .routes import find_route
from .routing import Call, Params, Route
from .spec import parse_params
from .state import new_id

if TYPE_CHECKING:
    from starlette.requests import Request

    from .server import Sandbox

Obj = dict[str, Any]

log = logging.getLogger(__name__)

MAX_BODY = 1024 * 1024


async def answer_api(request: Request) -> Response:
    """Answer one request to `/v1/…` as Stripe would."""
    sandbox: Sandbox = request.app.state.sandbox
    request_id = new_id("req", 14)
    entry: Obj = {
        "request_id": request_id,
        "method": request.method,
        "path": request.url.path,
        "params": {},
        "idempotency_key": request.headers.get("idempotency-key"),
        "status": 0,
        "at": sandbox.world.now(),
        "ignored": [],
        "is_replay": False,
        "fault": None,
    }
    headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
    try:
        form = await _form_text(request)
        _authenticate(request, sandbox.config.secret_key)
        status, body = await _act(sandbox, request, form, entry, headers)
    except ApiError as error:
        status, body = error.status, error.body
        headers.update(error.headers)
    except ClientDisconnect:
        status, body = 499, {"error": {"type": "api_error", "message": "The client went away."}}
    except Exception:
        # A fault of ours, told in the shape clients know; the log has the rest.
        log.exception("%s %s failed", request.method, request.url.path)
        status, body = 500, {"error": {"type": "api_error", "message": "The sandbox itself failed; see its log."}}
    entry["status"] = status
    sandbox.requests.append(entry)
    if status >= 400 and "error" in body:
        body["error"].setdefault("request_log_url", f"{sandbox.config.public_url}/#{request_id}")
    if request.method != "GET":
        sandbox.is_dirty = True
        sandbox.save_soon()
    return JSONResponse(body, status_code=status, headers=headers)


async def _act(sandbox: Sandbox, request: Request, form: str, entry: Obj, headers: dict[str, str]) -> tuple[int, Obj]:
    method, path = request.method, request.url.path
    tree = parse_form(form)
    entry["params"] = tree
    rule = sandbox.faults.for_call(method, path)
    entry["fault"] = rule.fault if rule else None
    if rule is not None and rule.when == "before":
        await _linger(rule)
        if rule.fault != "timeout":
            raise failure_of(rule)
    found = find_route(method, path)
    if found is None:
        raise ApiError(
            404,
            f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at "
            "https://support.stripe.com/.",
        )
    route, ids = found
    sandbox.catch_up()
    key = request.headers.get("idempotency-key") if method == "POST" else None
    if key:
        headers["Idempotency-Key"] = key
        replay = sandbox.keys.find(key, method, path, form)
        if replay is not None:
            entry["is_replay"] = True
            headers["Idempotent-Replayed"] = "true"
            headers["Original-Request"] = replay.request_id
            return replay.status, dict(replay.body)
        sandbox.keys.start(key)
        headers["Original-Request"] = headers["Request-Id"]
    try:
        status, body, is_kept = _run(sandbox, route, tree, Call(path, ids, Params({})), entry, headers)
        if rule is not None and rule.when == "after" and rule.fault != "timeout":
            failure = failure_of(rule)
            headers.update(failure.headers)
            status, body, is_kept = failure.status, failure.body, failure.is_replayable
        if key and is_kept:
            sandbox.keys.keep(key, method, path, form, status=status, body=body, request_id=headers["Request-Id"])
        if rule is not None and rule.when == "after":
            await _linger(rule)
    finally:
        if key:
            sandbox.keys.finish(key)
    return status, body


def _run(
    sandbox: Sandbox, route: Route, tree: Tree, call: Call, entry: Obj, headers: dict[str, str]
) -> tuple[int, Obj, bool]:
    world = sandbox.world
    try:
        call.params = Params(parse_params(route.params, tree))
    except ApiError as error:
        return error.status, error.body, error.is_replayable
    world.request = {"id": entry["request_id"], "idempotency_key": headers.get("Idempotency-Key")}
    world.store.begin()
    try:
        body = expand(world, route.answer(world, call), call.params.get("expand") or [])
    except ApiError as error:
        headers.update(error.headers)
        if error.keeps_changes:
            world.store.commit()
            world.release_events()
        else:
            world.store.rollback()
            world.drop_events()
        return error.status, error.body, error.is_replayable
    except BaseException:
        world.store.rollback()
        world.drop_events()
        raise
    finally:
        world.request = {"id": None, "idempotency_key": None}
        entry["ignored"] = call.params.ignored()
    world.store.commit()
    world.release_events()
    return 200, body, True


async def _form_text(request: Request) -> str:
    if request.method in ("GET", "DELETE") and request.url.query:
        return request.url.query
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ApiError(413, "The request body is too large.")
    if not body:
        return request.url.query
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ApiError(
            400,
            "Invalid request (check that your POST content type is application/x-www-form-urlencoded). If you have any "
            "questions, we can help at https://support.stripe.com/.",
        )
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise invalid("Invalid request body: it is not UTF-8.") from error


def _authenticate(request: Request, secret_key: str) -> None:
    given = request.headers.get("authorization", "")
    scheme, _, value = given.partition(" ")
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            value = ""
    elif scheme.lower() != "bearer":
        value = ""
    if not value:
        raise ApiError(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization header, using "
            "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See "
            "https://stripe.com/docs/api#authentication for details, or we can help at https://support.stripe.com/.",
        )
    if not hmac.compare_digest(value.encode(), secret_key.encode()):
        shown = f"{value[:8]}{'*' * 8}{value[-4:]}" if len(value) > 16 else "****"
        raise ApiError(401, f"Invalid API Key provided: {shown}")


async def _linger(rule: Fault) -> None:
    if rule.fault == "timeout" or rule.seconds:
        await asyncio.sleep(rule.seconds or 30.0)
