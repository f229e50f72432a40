"""The signed text of a quote: what was promised, to whom, until when; pinned to one algorithm and one audience."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
import msgspec

from plangate.errors import Code, Refusal, invalid
from plangate.plan_changes.request import ChangeRequest

AUDIENCE: Final = "plangate-quote"
VALID_FOR: Final = timedelta(minutes=15)
_ALGORITHM: Final = "HS256"
_LENGTH_MAX: Final = 8_192


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What a quote binds. `proration_at` is in whole seconds, as the charge will state it; amounts are minor units.

    `fingerprint` stands for the subscription and the catalogue the quote was worked out from.
    """

    quote_id: str
    environment_id: str
    company_id: str
    request: ChangeRequest
    proration_at: int
    fingerprint: str
    kind: str
    effective_at: int
    due_minor: int
    credit_minor: int
    currency: str


def signed(promise: Promise, *, secrets: Sequence[str], wall_now: datetime) -> tuple[str, datetime]:
    """The quote's text and the instant it ends (wall time). The first secret signs."""
    expires_at = (wall_now + VALID_FOR).replace(microsecond=0)
    claims = {
        "aud": AUDIENCE,
        "sub": promise.company_id,
        "jti": promise.quote_id,
        "iat": int(wall_now.timestamp()),
        "exp": int(expires_at.timestamp()),
        "promise": msgspec.to_builtins(promise),
    }
    return jwt.encode(claims, secrets[0], algorithm=_ALGORITHM), expires_at


def read(text: str, *, secrets: Sequence[str], environment_id: str, company_id: str) -> tuple[Promise, datetime]:
    """What the text promised and when it ends; any of the secrets may have signed it.

    Raises Refusal (422) for a text we never signed, or signed for another company: they look alike.
    """
    refused = invalid("/quote", "This is no quote of ours for this company; ask for a preview first.")
    if not text or len(text) > _LENGTH_MAX or not text.isascii():
        raise refused
    claims = _claims(text, secrets)
    if claims is None:
        raise refused
    try:
        promise = msgspec.convert(claims["promise"], Promise)
        expires = int(claims["exp"])
    except (msgspec.ValidationError, KeyError, TypeError, ValueError):
        raise refused from None
    if (promise.environment_id, promise.company_id) != (environment_id, company_id):
        raise refused
    return promise, datetime.fromtimestamp(expires, tz=UTC)


def refuse_if_over(expires_at: datetime, *, wall_now: datetime) -> None:
    """Raise Refusal (quote_expired) when the quote's time is over."""
    if wall_now >= expires_at:
        raise Refusal(Code.QUOTE_EXPIRED, "The quote is older than 15 minutes; look at a new one and confirm that.")


def _claims(text: str, secrets: Sequence[str]) -> dict[str, Any] | None:
    for secret in secrets:
        try:
            # The end is compared with our own clock afterwards, so that only the edge reads the time.
            claims: dict[str, Any] = jwt.decode(
                text,
                secret,
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["aud", "exp", "jti", "sub"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, RecursionError, UnicodeError):
            continue
        return claims
    return None
