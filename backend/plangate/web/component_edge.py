"""The outer skin of the component routes: origins, preflights, tokens, bounded forms, and problems as fragments."""

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from plangate.deployment import Deployment
from plangate.errors import Code, Refusal, invalid
from plangate.web.fragments import Fragment, Frame, ProblemView, render
from plangate.web.tokens import Scope
from plangate.web.wording import reader_of

BASE = "/components/v1"
ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, HX-Request, HX-Source, HX-Target, HX-Request-Type, HX-Boosted, "
    "Last-Event-ID"
)
EXPOSED_HEADERS = "HX-Trigger, HX-Redirect, HX-Retarget, HX-Reswap, HX-Reselect, Plangate-Code, Retry-After"
RETURN_MARK = "plangate_return"
_FORM_LIMIT_BYTES = 64 * 1024
_FIELD_LIMIT = 64
_FIELD_LIMIT_CHARACTERS = 16 * 1024
_URL_LIMIT_CHARACTERS = 2048
_LIST_LIMIT = 200
_WORD = re.compile(r"[\w.:-]{1,128}")
_PREFLIGHT_SECONDS = "600"


def cors_headers(origin: str | None, allowed: Iterable[str]) -> dict[str, str]:
    """The CORS headers of an answer: none but `Vary` for an origin that is not on the exact list."""
    headers = {"Vary": "Origin"}
    if origin is not None and origin in allowed:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    return headers


def preflight(request: Request, allowed: Iterable[str]) -> Response:
    """The answer to an OPTIONS request. A foreign origin gets no permission, and no hint about the list."""
    headers = cors_headers(request.headers.get("origin"), allowed)
    if "Access-Control-Allow-Origin" in headers:
        headers["Access-Control-Allow-Methods"] = "GET, POST"
        headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
        headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
    headers["Vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    return Response(status_code=204, headers=headers)


def require_origin(request: Request, allowed: Iterable[str], narrowed: Iterable[str] = (), *, is_needed: bool) -> None:
    """Refuse a request from a page that may not use the components.

    `narrowed` is the token's own list, which can only take away. A read without an Origin header comes from no
    foreign page and passes; a mutation (`is_needed`) must always name one.
    """
    origin = request.headers.get("origin")
    if origin is None and not is_needed:
        return
    mine = tuple(narrowed)
    if origin is None or origin not in allowed or (mine and origin not in mine):
        raise Refusal(
            Code.ORIGIN_NOT_ALLOWED, "This site may not use the component: add its origin to PLANGATE_ALLOWED_ORIGINS."
        )


def bearer(request: Request) -> str | None:
    """The component token of a request, or None for a visitor. Raises Refusal for any other kind of credentials."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    kind, _, text = header.partition(" ")
    if kind.lower() != "bearer" or not text.strip():
        raise Refusal(Code.UNAUTHENTICATED, "Send the component token as: Authorization: Bearer <token>.")
    return text.strip()


def require_scope(scopes: frozenset[Scope], scope: Scope) -> None:
    """Refuse what the token was not minted for."""
    if scope not in scopes:
        words = {"view": "show this", "manage": "change plans", "pay": "pay or see invoices"}[scope]
        raise Refusal(Code.FORBIDDEN, f"You may not {words} here. Ask somebody in your company who may.")


async def form_of(request: Request, *, known: Collection[str] | None = None) -> dict[str, str]:
    """The fields of a posted form; of a repeated field the last one counts.

    Raises Refusal: 415 for another content type, 413 for more than 64 KiB, 400 for broken text or more than 64 fields,
    422 for a field that is not among those `known` (None: all are).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(Code.UNSUPPORTED_MEDIA_TYPE, "Send the form as application/x-www-form-urlencoded.")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _FORM_LIMIT_BYTES:
                raise Refusal(Code.TOO_LARGE, "The form is larger than 64 KiB.")
    except ClientDisconnect as error:
        raise Refusal(Code.MALFORMED, "The form ended early.") from error
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELD_LIMIT, errors="strict")
    except ValueError as error:
        raise Refusal(Code.MALFORMED, "The form could not be read.") from error
    fields = _bounded(dict(pairs))
    for name in fields:
        if known is not None and name not in known:
            raise invalid(f"/{name[:64]}", f"The field {name[:64]!r} is not known here.", code=Code.UNKNOWN_FIELD)
    return fields


def query_of(request: Request) -> dict[str, str]:
    """The query's fields, bounded; of a repeated field the last one counts."""
    return _bounded(dict(request.query_params))


def _bounded(fields: dict[str, str]) -> dict[str, str]:
    for name, value in fields.items():
        if len(value) > _FIELD_LIMIT_CHARACTERS or "\x00" in value or len(name) > _URL_LIMIT_CHARACTERS:
            raise invalid(f"/{name[:64]}", "This field is too long or holds characters it may not.")
    return fields


def frame_of(fields: Mapping[str, str], now: datetime) -> Frame:
    """Whom to speak to, from a request's fields. What cannot be read falls back to English, UTC and level 2."""
    level = fields.get("heading_level", "")
    return Frame(
        reader=reader_of(locale=fields.get("locale"), time_zone=fields.get("tz"), now=now),
        level=min(max(int(level), 2), 4) if level.isascii() and level.isdigit() and len(level) == 1 else 2,
    )


def words_of(text: str) -> list[str]:
    """A comma-separated attribute such as `features` or `plans`: plain words only, at most 200."""
    return [word for part in text.split(",")[:_LIST_LIMIT] if _WORD.fullmatch(word := part.strip())]


def return_address(url: str | None, origin: str | None, *, is_marked: bool = True) -> str | None:
    """Where the browser comes back to: the host's page, marked after a payment, so that the script tells of the change.

    Only a page of the origin that asks can be returned to. Raises a 422 Refusal for anything else.
    """
    if not url:
        return None
    parts = urlsplit(url) if len(url) <= _URL_LIMIT_CHARACTERS else None
    if parts is None or parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != origin:
        raise invalid("/return_url", "The page to return to must be on the site that shows the component.")
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != RETURN_MARK]
    mark = [(RETURN_MARK, "1")] if is_marked else []
    return urlunsplit(parts._replace(query=urlencode([*query, *mark])))


def fragment_response(
    view: Fragment, *, status: int = 200, headers: Mapping[str, str] | None = None, is_public: bool = False
) -> Response:
    """A rendered fragment. Only the visitor's table may be cached, for a minute."""
    return Response(
        render(view),
        status_code=status,
        media_type="text/html",
        headers={
            "Cache-Control": "public, max-age=60" if is_public else "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            **(headers or {}),
        },
    )


def all_origins(deployment: Deployment) -> set[str]:
    """Every origin any environment allows: a preflight shows no token, so it cannot be asked about one."""
    return {origin for env in deployment.environments.values() for origin in env.settings.allowed_origins}


def refused_at_the_edge(request: Request, refusal: Refusal, deployment: Deployment) -> Response:
    """The fragment for a request that was refused before any component route saw it, as a 413 or a 429 is.

    With CORS headers, or the page's script would not be told what happened.
    """
    fields: dict[str, str] = {}
    with suppress(Refusal):
        fields = query_of(request)
    headers = cors_headers(request.headers.get("origin"), all_origins(deployment))
    return problem_response(frame_of(fields, datetime.now(UTC)), refusal, headers=headers)


def problem_response(frame: Frame, refusal: Refusal, *, headers: Mapping[str, str]) -> Response:
    """A refused fragment as one a person can read, with the refusal's status and code."""
    say = frame.reader.say
    if refusal.status == 401:
        view = ProblemView(frame=frame, text=say("problem.session"), hint=say("problem.session_hint"), can_retry=True)
    else:
        text = refusal.detail if refusal.status < 500 else say("problem.unavailable")
        can_retry = refusal.status >= 500 or refusal.status == 429
        hint = refusal.detail if refusal.status >= 500 and refusal.code is not Code.INTERNAL else ""
        view = ProblemView(frame=frame, text=text, hint=hint, can_retry=can_retry)
    return fragment_response(
        view, status=refusal.status, headers={**refusal.headers, **headers, "Plangate-Code": refusal.code}
    )
