"""Who is asking: a bearer key resolves to one environment and its scopes, or the request goes no further."""

from typing import Final, Literal

from plangate.deployment import ApiKey, Deployment
from plangate.errors import Code, Refusal
from plangate.shapes import Actor
from plangate.web.exchange import Exchange

Scope = Literal["check", "track", "read", "write", "admin", "public"]

_KEY_BYTES_MAX: Final = 200
_BEARER: Final = b"Bearer "


def shown_key(authorization: bytes | None) -> str | None:
    """The key in an Authorization header, or None when the header shows none of ours."""
    if authorization is None or len(authorization) > _KEY_BYTES_MAX:
        return None
    if not authorization.startswith(_BEARER) and authorization[:7].lower() != b"bearer ":
        return None
    return authorization[7:].decode("latin-1")


async def live_key(deployment: Deployment, authorization: bytes | None) -> ApiKey | None:
    """The live key a request shows, or None."""
    raw = shown_key(authorization)
    if raw is None or not raw.startswith("pgt_"):
        return None
    return deployment.held_key(raw) or await deployment.key(raw)


def require(exchange: Exchange, scope: Scope) -> ApiKey:
    """The request's key, which may do what `scope` names.

    `public` is open to publishable and secret keys. Raises Refusal: 401 without a live key, 403 without the scope.
    """
    key = exchange.key
    if key is None:
        raise Refusal(
            Code.UNAUTHENTICATED,
            "Send a live key of this environment as `Authorization: Bearer pgt_sk_…`. "
            "Keys are made with `plangate keys create`.",
        )
    if scope == "public":
        return key
    if key.kind != "secret":
        raise Refusal(
            Code.FORBIDDEN, "A publishable key only lists what is on sale. Use a secret key, from your backend."
        )
    if not key.may(scope):
        raise Refusal(
            Code.FORBIDDEN, f"This key lacks the scope {scope}. Make one that has it with `plangate keys create`."
        )
    return key


def actor_of(key: ApiKey) -> Actor:
    """Who did it, for the audit."""
    return Actor(kind="api_key", id=key.id)
