"""Component tokens: short-lived, signed, for one company on named origins; minted by a customer's own backend."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast, get_args

import jwt

from plangate.errors import Code, Refusal, invalid

Scope = Literal["view", "manage", "pay"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
TTL_LIMIT_SECONDS: Final = 900
_AUDIENCE: Final = "plangate-component"
_ALGORITHM: Final = "HS256"
_TOKEN_LIMIT_CHARACTERS: Final = 4096
_REQUIRED: Final = ("aud", "exp", "iat", "jti", "env", "company", "scopes")


@dataclass(frozen=True, slots=True)
class ComponentToken:
    """What a valid token says. `company` and `user` are our ids; no `origins`: the environment's list."""

    environment_id: str
    company: str
    user: str | None
    scopes: frozenset[Scope]
    origins: tuple[str, ...]
    expires_at: datetime
    jti: str


def mint_component_token(
    secret_keys: Sequence[str],
    *,
    environment_id: str,
    company: str,
    user: str | None = None,
    scopes: Sequence[str] = ("view",),
    origins: Sequence[str] = (),
    ttl_seconds: int = TTL_LIMIT_SECONDS,
    now: datetime,
) -> tuple[str, datetime]:
    """A new token, signed with the first key, and the instant it ends. `now` is wall time.

    Raises a 422 Refusal for an unknown scope, a lifetime outside 1 to 900 seconds or something that is no origin.
    """
    if not 1 <= ttl_seconds <= TTL_LIMIT_SECONDS:
        raise invalid("/ttl_seconds", f"A component token lives between 1 and {TTL_LIMIT_SECONDS} seconds.")
    for index, scope in enumerate(scopes):
        if scope not in SCOPES:
            raise invalid(f"/scopes/{index}", "A scope is one of view, manage and pay.")
    for index, origin in enumerate(origins):
        if not is_origin(origin):
            raise invalid(f"/origins/{index}", "An origin looks like https://app.example.com, without a path.")
    issued_at = now.replace(microsecond=0)
    expires_at = issued_at + timedelta(seconds=ttl_seconds)
    claims = {
        "aud": _AUDIENCE,
        "env": environment_id,
        "company": company,
        "user": user,
        "scopes": sorted(set(scopes) | {"view"}),
        "origins": list(origins),
        "iat": int(issued_at.timestamp()),
        "exp": int(expires_at.timestamp()),
        "jti": secrets.token_urlsafe(12),
    }
    signing = secret_keys[0]
    return jwt.encode(claims, signing, algorithm=_ALGORITHM, headers={"kid": key_id(signing)}), expires_at


def read_component_token(secret_keys: Sequence[str], token: str, *, now: datetime) -> ComponentToken:
    """The claims of a token signed with any of the keys. `now` is wall time.

    Raises Refusal `token_expired` for one past its end, `unauthenticated` for anything else that is not ours.
    """
    if len(token) > _TOKEN_LIMIT_CHARACTERS:
        raise _rejected()
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        key = next((key for key in secret_keys if secrets.compare_digest(key_id(key), str(kid))), None)
        if key is None:
            raise _rejected()
        # PyJWT would ask the machine's clock; the lifetime is checked below, against the instant we were given.
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            options={"require": list(_REQUIRED), "verify_exp": False, "verify_iat": False},
        )
        expires_at = datetime.fromtimestamp(int(claims["exp"]), tz=now.tzinfo)
        issued_at = datetime.fromtimestamp(int(claims["iat"]), tz=now.tzinfo)
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, OSError) as error:
        raise _rejected() from error
    if now >= expires_at:
        raise Refusal(Code.TOKEN_EXPIRED, "The component token has ended: ask your backend for a new one.")
    scopes = claims["scopes"]
    origins = claims.get("origins") or []
    if expires_at - issued_at > timedelta(seconds=TTL_LIMIT_SECONDS) or not set(scopes) <= set(SCOPES):
        raise _rejected()
    return ComponentToken(
        environment_id=str(claims["env"]),
        company=str(claims["company"]),
        user=None if claims.get("user") is None else str(claims["user"]),
        scopes=frozenset(cast(list[Scope], scopes)),
        origins=tuple(str(origin) for origin in origins),
        expires_at=expires_at,
        jti=str(claims["jti"]),
    )


def key_id(secret_key: str) -> str:
    """The `kid` of a signing key: the start of its SHA-256, which says which key without saying the key."""
    return hashlib.sha256(secret_key.encode()).hexdigest()[:16]


def is_origin(text: str) -> bool:
    """Whether the text is a serialised web origin: scheme, host and perhaps a port, nothing else."""
    scheme, separator, rest = text.partition("://")
    return (
        scheme in {"http", "https"}
        and bool(separator)
        and 0 < len(rest) <= 253
        and all(character.isascii() and (character.isalnum() or character in ".-:[]") for character in rest)
    )


def _rejected() -> Refusal:
    return Refusal(Code.UNAUTHENTICATED, "The component token is not valid: ask your backend for a new one.")
