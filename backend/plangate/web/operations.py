"""One table entry for each API operation: how it is reached, parsed, authorised, documented and answered.

The router, the OpenAPI document and the tests all read the same entries, so they cannot disagree.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from pydantic import BaseModel, ValidationError
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from plangate import companies
from plangate.deployment import ApiKey, Deployment
from plangate.environment import Environment
from plangate.errors import Code, FieldError, Refusal
from plangate.shapes import Actor
from plangate.web.auth import Scope, actor_of, require
from plangate.web.edge import HotAnswer, exchange_of, nothing_there
from plangate.web.exchange import Exchange, encode_json
from plangate.web.idempotency import once
from plangate.web.problems import of_fields, refusal_of_decoding, refusal_of_validation
from plangate.web.versions import HEADER as VERSION_HEADER
from plangate.web.versions import catch_up

B = TypeVar("B")
Q = TypeVar("Q")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

_ID: Final = re.compile(r"[a-z]{2,8}_[0-9a-z]{1,64}")
_QUERY_FIELDS_MAX: Final = 50
_NOUNS: Final[Mapping[str, str]] = {
    "company_id": "company",
    "user_id": "user",
    "override_id": "override",
    "change_id": "plan change",
    "migration_id": "migration",
    "reservation_id": "reservation",
    "review_id": "review",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers with. `body` is encoded as JSON unless `kind` names the type of its bytes.

    Bytes that come as an `AsyncIterator` are sent as they come.
    """

    body: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Call(Generic[B, Q]):
    """One authorised and parsed call of an operation."""

    deployment: Deployment
    exchange: Exchange
    key: ApiKey | None
    path: Mapping[str, str]
    query: Q
    body: B

    @property
    def environment(self) -> Environment:
        """The environment of the caller's key; only open operations have none."""
        if self.key is None:
            raise LookupError("an open operation has no environment")
        return self.key.environment

    @property
    def actor(self) -> Actor:
        """The caller, for the audit."""
        if self.key is None:
            raise LookupError("an open operation has no actor")
        return actor_of(self.key)

    async def catch_up(self, company_id: str) -> None:
        """See to it that this read is not older than the write whose `Plangate-Version` the client sends back."""
        await catch_up(self.environment, self.exchange, company_id)

    async def version_of(self, *company_ids: str) -> dict[str, str]:
        """The `Plangate-Version` header for an answer to a write about a company.

        Of several companies it is the highest version: a read of any of them that sends it back looks into the store.
        """
        found = [await self.environment.standings.of(company_id) for company_id in company_ids]
        versions = [standing.facts.version for standing in found if standing is not None]
        return {VERSION_HEADER: str(max(versions))} if versions else {}


@dataclass(frozen=True, slots=True)
class Documented:
    """One documented answer: what it means, its type (msgspec or pydantic), and its content type.

    `other_kinds` are content types the same may be asked for in.
    """

    text: str
    type: Any = None
    kind: str = "application/json"
    headers: tuple[str, ...] = ()
    other_kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. Exactly one of `answer` (cold) and `hot` says how it is answered.

    `scope` None is open to everyone. `body` and `query` are types; a query is always a pydantic model. A body that the
    journey itself parses is `dict`, and `body_schema` its type in the documentation.
    """

    method: Method
    path: str
    name: str
    tag: str
    summary: str
    text: str
    responses: Mapping[int, Documented]
    scope: Scope | None = None
    answer: Callable[[Call[Any, Any]], Awaitable[Answer]] | None = None
    hot: HotAnswer | None = None
    body: Any = None
    body_schema: Any = None
    is_body_optional: bool = False
    query: type[BaseModel] | None = None
    problems: Sequence[Code] = ()
    example: object = None
    takes_idempotency_key: bool = False
    takes_if_match: bool = False
    takes_version: bool = False


class OperationApp:
    """Answers one cold operation as an ASGI application."""

    def __init__(self, operation: Operation, deployment: Deployment) -> None:
        self._operation = operation
        self._deployment = deployment

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Authorise, parse, answer. Raises Refusal for the edge to send."""
        operation = self._operation
        exchange = exchange_of(scope)
        exchange.route = operation.path
        key = None if operation.scope is None else require(exchange, operation.scope)
        path: dict[str, str] = scope.get("path_params", {})
        noun = _noun_of(path)
        if noun is not None and not all(_ID.fullmatch(value) for value in path.values()):
            raise missing(noun)
        query = None if operation.query is None else parse_query(operation.query, scope["query_string"])
        raw, body = await self._body(exchange)
        call = Call(self._deployment, exchange, key, path, query, body)
        try:
            answer = await self._answered(call, raw)
            # What a stream refuses, it refuses before its first chunk: that is still answered as a problem.
            first = await anext(answer.body, b"") if isinstance(answer.body, AsyncIterator) else b""
        except Refusal as refusal:
            if refusal.code is Code.NOT_FOUND and noun is not None and not await _is_company_here(call):
                raise await _missing_here(call, noun) from refusal
            if operation.body is None and refusal.errors:
                raise in_query(refusal) from refusal
            raise
        headers = [(name.lower().encode("ascii"), text.encode("latin-1")) for name, text in answer.headers.items()]
        if isinstance(answer.body, AsyncIterator):
            await _stream(exchange, first, answer.body, answer.kind or "application/octet-stream", headers)
            return
        payload = answer.body if isinstance(answer.body, bytes) else encode_json(answer.body)
        kind = None if answer.kind is None else answer.kind.encode("ascii")
        await exchange.answer(answer.status, payload, headers, kind=kind)

    async def _body(self, exchange: Exchange) -> tuple[bytes, Any]:
        operation = self._operation
        if operation.body is None:
            return b"", None
        if operation.is_body_optional and exchange.content_length in {None, b"0"} and not exchange.content_type:
            return b"", None
        raw = await exchange.json_body()
        return raw, parse_body(operation.body, raw)

    async def _answered(self, call: Call[Any, Any], raw: bytes) -> Answer:
        answer = self._operation.answer
        if answer is None:
            raise LookupError("a hot operation is answered by the edge")
        if not self._operation.takes_idempotency_key or call.exchange.idempotency_key is None:
            return await answer(call)
        addressed = "/".join([self._operation.path, *call.path.values()])

        async def first() -> tuple[int, object, Mapping[str, str]]:
            given = await answer(call)
            return given.status, msgspec.to_builtins(given.body), given.headers

        status, body, headers = await once(
            call.environment,
            scope=f"{self._operation.method} {self._operation.path}",
            key=call.exchange.idempotency_key,
            body_hash=hashlib.sha256(addressed.encode() + b"\n" + raw).hexdigest(),
            answer=first,
        )
        return Answer(body, status, headers)


async def _stream(
    exchange: Exchange, first: bytes, chunks: AsyncIterator[bytes], kind: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """Send chunks as they come; one that fails cuts the answer off, so that it cannot pass for a whole one."""
    start = [(b"content-type", kind.encode("ascii")), *headers]
    await exchange.send({"type": "http.response.start", "status": 200, "headers": start})
    await exchange.send({"type": "http.response.body", "body": first, "more_body": True})
    if exchange.scope["method"] != "HEAD":
        async for chunk in chunks:
            await exchange.send({"type": "http.response.body", "body": chunk, "more_body": True})
    await exchange.send({"type": "http.response.body", "body": b""})


def router_of(operations: Sequence[Operation], deployment: Deployment, others: Sequence[Route]) -> ASGIApp:
    """The cold application: the operations' paths, then other routes; anything else raises a 404 Refusal."""
    by_path: dict[str, dict[str, ASGIApp]] = {}
    for operation in operations:
        app = not_here if operation.hot is not None else OperationApp(operation, deployment)
        by_path.setdefault(operation.path, {})[operation.method] = app
    routes = [Route(path, endpoint=ByMethod(methods)) for path, methods in by_path.items()]
    return Router([*routes, *others], redirect_slashes=False, default=not_here)


class ByMethod:
    """One path's methods. Raises Refusal (405) naming the allowed ones for any other."""

    def __init__(self, methods: Mapping[str, ASGIApp]) -> None:
        self._methods = dict(methods)
        if "GET" in methods:
            self._methods["HEAD"] = methods["GET"]

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on to its method."""
        app = self._methods.get(scope["method"])
        if app is None:
            allowed = ", ".join(sorted(self._methods))
            raise Refusal(Code.METHOD_NOT_ALLOWED, f"This address answers to {allowed}.", headers={"Allow": allowed})
        await app(scope, receive, send)


async def not_here(_scope: AsgiScope, _receive: Receive, _send: Send) -> None:
    """The application of every unknown address."""
    raise Refusal(Code.NOT_FOUND, nothing_there())


def missing(noun: str) -> Refusal:
    """The 404 for an id that is unknown here, malformed, or another environment's: all the same to the caller."""
    return Refusal(Code.NOT_FOUND, f"There is no such {noun} in this environment.")


def parse_body(kind: Any, raw: bytes) -> Any:  # noqa: ANN401 - the body's type is a value here
    """The body as its type says. Raises Refusal: 400 when it is no JSON, 422 with every field at fault."""
    try:
        decoded = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of_decoding(error) from None
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return decoded
    if not isinstance(decoded, dict):
        raise Refusal(Code.INVALID, "The body must be a JSON object.", errors=[_NO_OBJECT])
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise refusal_of_validation(error, decoded) from None


_NO_OBJECT: Final = FieldError("", Code.INVALID, "The body must be a JSON object.")


def parse_query(kind: type[BaseModel], query_string: bytes) -> BaseModel:
    """The query as its model says. Raises Refusal (400 or 422) with pointers such as `?limit`."""
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX)
    except (ValueError, UnicodeDecodeError):
        raise Refusal(Code.MALFORMED, "The address's query could not be read.") from None
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise of_fields([FieldError(f"?{twice[:100]}", Code.INVALID, "Send each query parameter once.")])
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        refusal = in_query(refusal_of_validation(error, values))
        raise of_fields(refusal.errors) from None


def in_query(refusal: Refusal) -> Refusal:
    """The same refusal with pointers such as `?limit`, for a request whose fields stand in the address."""
    errors = [FieldError("?" + one.pointer.lstrip("/?"), one.code, one.detail) for one in refusal.errors]
    return Refusal(refusal.code, refusal.detail, errors=errors, extra=refusal.extra, headers=refusal.headers)


async def _missing_here(call: Call[Any, Any], noun: str) -> Refusal:
    """One sentence for all, so that another environment's ids look exactly like unknown ones.

    Only for a company that was merged it says which one it became.
    """
    refusal = missing(noun)
    former_id = call.path.get("company_id")
    into = None if former_id is None else await companies.became(call.environment, former_id)
    return refusal if into is None else Refusal(refusal.code, refusal.detail, extra={"merged_into": into})


async def _is_company_here(call: Call[Any, Any]) -> bool:
    """Whether the address names just a company, and it exists: then something in the body was not found."""
    if list(call.path) != ["company_id"]:
        return False
    return await call.environment.standings.of(call.path["company_id"]) is not None


def _noun_of(path: Mapping[str, str]) -> str | None:
    """What the last id in the address names, or None when there is none."""
    return _NOUNS.get(list(path)[-1]) if path else None
