"""The one thin edge every request passes: request id, key, rate limit, bounded body, problem, access log, metrics.

The hot routes are answered right here, from a dictionary, before any router: a stack of middlewares and Starlette's
request objects would cost more than the decision itself. Everything else goes on to the cold application.
"""

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from plangate.clock import wall_now
from plangate.deployment import ApiKey, Deployment
from plangate.errors import Code, Refusal
from plangate.web.auth import Scope as KeyScope
from plangate.web.auth import live_key, require
from plangate.web.component_edge import BASE, refused_at_the_edge
from plangate.web.exchange import ClientGone, Exchange
from plangate.web.limits import ProxyList, RateLimit
from plangate.web.logs import AccessLine, AccessLog, redacted_text
from plangate.web.metrics import RequestMetrics

_log = structlog.get_logger(__name__)
_PATH_CHARACTERS_LOGGED = 200
_COMPONENTS = f"{BASE}/"
STRIPE_APP_PREFIX = "/stripe-app/"
_SIGNED = ("/webhooks/stripe", "/stripe-app/v1/")
# The dashboard runs the extension in a frame whose origin is opaque, so any origin may ask; nothing is given to a
# browser's cookies, and what is not signed is refused. No other route carries these.
STRIPE_APP_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"retry-after, x-request-id"),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STATUS_CODES = {400: Code.MALFORMED, 401: Code.UNAUTHENTICATED, 403: Code.FORBIDDEN, 404: Code.NOT_FOUND}

# A hot route: what the body says and what is answered, as bytes, with further headers.
HotAnswer = Callable[[Exchange, ApiKey, bytes], Awaitable[tuple[bytes, tuple[tuple[bytes, bytes], ...]]]]


class Edge:
    """The ASGI application uvicorn serves. `hot` maps a path to the scope its POST needs and how it is answered."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        hot: Mapping[str, tuple[KeyScope, HotAnswer]],
        cold: ASGIApp,
        metrics: RequestMetrics,
        access_log: AccessLog,
        address_limit: RateLimit,
    ) -> None:
        self._deployment = deployment
        self._hot = hot
        self._cold = cold
        self._metrics = metrics
        self._access_log = access_log
        self._key_limit = RateLimit(deployment.settings.rate_limit_per_second)
        self._address_limit = address_limit
        self._proxies = ProxyList(deployment.settings.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; every outcome but a lost connection is an answer."""
        exchange = Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except Refusal as refusal:
            await self._refuse(exchange, refusal)
        except HTTPException as error:
            await self._refuse(exchange, _refusal_of_http(error), error.headers)
        except ClientGone:
            exchange.status = 499  # as nginx notes it; nothing is sent
        except Exception:  # noqa: BLE001 - the last line of defence: a bug is logged and answered as a 500 problem
            _log.exception("request_failed", request_id=exchange.request_id, route=exchange.route)
            await self._refuse(
                exchange,
                Refusal(
                    Code.INTERNAL,
                    "Something went wrong on our side; it was logged under this request id. Try again shortly.",
                ),
            )
        finally:
            self._note(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        scope = exchange.scope
        peer = scope.get("client")
        exchange.address = peer[0] if peer else ""
        if self._proxies and exchange.forwarded:
            exchange.address = self._proxies.client(exchange.address, exchange.forwarded)
        path: str = scope["path"]
        if path.startswith(STRIPE_APP_PREFIX):
            exchange.more_headers = STRIPE_APP_CORS
        exchange.key = key = await live_key(self._deployment, exchange.authorization)
        if key is not None and key.kind == "secret":
            self._key_limit.spend(key.id, exchange.started)
        elif not path.startswith(_SIGNED):
            # Signed messages are charged by their own routes, and only when the signature is not good.
            self._address_limit.spend(exchange.address, exchange.started)
        hot = self._hot.get(path)
        if hot is not None and scope["method"] == "POST":
            exchange.route = path
            needed, answer = hot
            key = require(exchange, needed)
            payload, headers = await answer(exchange, key, await exchange.json_body())
            await exchange.answer_hot(payload, headers)
            return
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope["query_string"]:
            raise Refusal(Code.MALFORMED, "The address holds the character U+0000.")
        scope["plangate.exchange"] = exchange
        scope["app"] = self  # makes Starlette's router raise for a wrong method instead of answering in plain text
        exchange.refuse_announced_size()
        await self._cold(scope, exchange.receive, exchange.send)

    async def _refuse(self, exchange: Exchange, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        """A problem, or for a component's element a fragment it can show."""
        if exchange.status or not exchange.scope["path"].startswith(_COMPONENTS):
            await exchange.refuse(refusal, headers)
            return
        response = refused_at_the_edge(Request(exchange.scope), refusal, self._deployment)
        kept = [
            (name, value) for name, value in response.raw_headers if name not in {b"content-length", b"content-type"}
        ]
        sent = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        kind = response.headers["content-type"].encode("ascii")
        await exchange.answer(response.status_code, bytes(response.body), [*kept, *sent], kind=kind)

    def _note(self, exchange: Exchange) -> None:
        seconds = perf_counter() - exchange.started
        scope = exchange.scope
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.answered(method, exchange.route, exchange.status, seconds)
        path = scope["path"]
        key = exchange.key
        self._access_log.note(
            AccessLine(
                method,
                path if path is exchange.route else redacted_text(path[:_PATH_CHARACTERS_LOGGED]),
                exchange.status,
                round(seconds * 1000, 2),
                exchange.request_id,
                exchange.address,
                None if key is None else key.id,
                None if key is None else key.environment.settings.name,
                wall_now(),
            )
        )


def exchange_of(scope: Scope) -> Exchange:
    """The exchange the edge put into the scope."""
    exchange: Exchange = scope["plangate.exchange"]
    return exchange


def _refusal_of_http(error: HTTPException) -> Refusal:
    if error.status_code == 405:
        return Refusal(Code.METHOD_NOT_ALLOWED, "This address does not answer to that method.")
    code = _STATUS_CODES.get(error.status_code, Code.MALFORMED)
    return Refusal(code, nothing_there() if code is Code.NOT_FOUND else "The request could not be read.")


def nothing_there() -> str:
    """The sentence of every unknown address."""
    return "There is nothing at this address. GET /openapi.json lists what there is."
