"""Proves that a webhook or a Stripe App request really comes from Stripe, before anything in it is believed.

The official verifier accepts any timestamp unless told otherwise, never refuses the future, and raises four kinds of
exception on odd input; here every oddity is the one refusal, and time is bounded in both directions.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from plangate.errors import Code, Refusal

T = TypeVar("T")

TOLERANCE_SECONDS: Final = 300
HEADER_BYTES_MAX: Final = 4096
SIGNATURES_MAX: Final = 10
PAYLOAD_BYTES_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 32
_TIMESTAMP_DIGITS_MAX: Final = 12
_SIGNATURE_HEX_DIGITS: Final = 64
_HEX: Final = frozenset("0123456789abcdef")


def verify_webhook(
    payload: bytes,
    header: str,
    secrets: Sequence[tuple[str, T]],
    *,
    now: datetime,
    tolerance_seconds: int = TOLERANCE_SECONDS,
) -> T:
    """Which owner's secret signed these exact bytes, at most `tolerance_seconds` before or after `now` (wall time).

    `secrets` pairs each secret with whatever it belongs to (an environment); several secrets of one owner may be
    valid at once while they are rotated. Raises `Refusal(SIGNATURE_INVALID)` for anything else.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise _refused("The body is larger than a signed message may be.")
    timestamp, signatures = _parsed(header)
    signed = timestamp.encode("ascii") + b"." + payload
    owner = _matching_owner(signed, signatures, secrets)
    # The time is looked at after the signature, so that a stranger learns nothing about our clock.
    if abs(now.timestamp() - int(timestamp)) > tolerance_seconds:
        raise _refused("The signature is too old or dated in the future; check the clocks of both sides.")
    return owner


def verify_app_message(
    body: bytes,
    header: str,
    secrets: Sequence[tuple[str, T]],
    *,
    now: datetime,
    tolerance_seconds: int = TOLERANCE_SECONDS,
) -> tuple[T, dict[str, Any]]:
    """The owner of the secret and the object that a Stripe App request carries; the body itself is the signed message.

    The object always has the texts `user_id` and `account_id`, which Stripe added; every other member was chosen by
    the client and only proves that this user sent it. Raises `Refusal(SIGNATURE_INVALID)` for anything else.
    """
    owner = verify_webhook(body, header, secrets, now=now, tolerance_seconds=tolerance_seconds)
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _refused("The signed body is not JSON.") from error
    if not isinstance(message, dict) or not _is_shallow(message):
        raise _refused("The signed body is not an object of a reasonable depth.")
    for member in ("user_id", "account_id"):
        value = message.get(member)
        if not isinstance(value, str) or not 1 <= len(value) <= 255:
            raise _refused(f"The signed body lacks Stripe's {member}.")
    return owner, message


def sign(payload: bytes, secret: str, *, at: datetime) -> str:
    """The `Stripe-Signature` header Stripe would send with `payload` at `at`; for tests, demos and stand-ins."""
    timestamp = str(int(at.timestamp()))
    return f"t={timestamp},v1={_signature(timestamp.encode('ascii') + b'.' + payload, secret)}"


def _parsed(header: str) -> tuple[str, list[str]]:
    """The timestamp as it was written and the well-formed `v1` signatures. Other schemes are passed over."""
    if not header:
        raise _refused("The Stripe-Signature header is missing.")
    if len(header) > HEADER_BYTES_MAX or not header.isascii():
        raise _refused("The Stripe-Signature header is not one that Stripe sends.")
    timestamps: list[str] = []
    signatures: list[str] = []
    for part in header.split(","):
        name, separator, value = part.partition("=")
        if not separator:
            raise _refused("The Stripe-Signature header is not one that Stripe sends.")
        name = name.strip(" ")
        if name == "t":
            timestamps.append(value)
        elif name == "v1":
            signatures.append(value)
        if len(signatures) > SIGNATURES_MAX:
            raise _refused("The Stripe-Signature header carries too many signatures.")
    if len(timestamps) != 1 or not timestamps[0].isdigit() or len(timestamps[0]) > _TIMESTAMP_DIGITS_MAX:
        raise _refused("The Stripe-Signature header carries no single timestamp.")
    well_formed = [text for text in signatures if len(text) == _SIGNATURE_HEX_DIGITS and _HEX.issuperset(text)]
    if not well_formed:
        raise _refused("The Stripe-Signature header carries no signature.")
    return timestamps[0], well_formed


def _matching_owner(signed: bytes, signatures: Sequence[str], secrets: Sequence[tuple[str, T]]) -> T:
    """The owner of the first secret that produced any of the signatures. Every pair is compared, found or not."""
    matched: list[T] = []
    for secret, owner in secrets:
        if not secret:
            continue
        expected = _signature(signed, secret)
        found = False
        for candidate in signatures:
            found |= hmac.compare_digest(expected, candidate)
        if found:
            matched.append(owner)
    if not matched:
        raise _refused("The signature does not match the body with any secret listed here.")
    return matched[0]


def _signature(signed: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _is_shallow(value: object) -> bool:
    """Whether no list or object lies deeper than `DEPTH_MAX`; walks level by level, never by recursion."""
    level: list[object] = [value]
    for _ in range(DEPTH_MAX):
        following: list[object] = []
        for entry in level:
            if isinstance(entry, Mapping):
                following.extend(entry.values())
            elif isinstance(entry, list):
                following.extend(entry)
        if not following:
            return True
        level = following
    return not any(isinstance(entry, Mapping | list) for entry in level)


def _refused(detail: str) -> Refusal:
    return Refusal(Code.SIGNATURE_INVALID, detail)
