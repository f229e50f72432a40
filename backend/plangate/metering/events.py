"""What may be counted: one event or one consume, checked against every bound before it joins a batch."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Literal, Protocol

import msgspec

from plangate.counted_events import PULLED
from plangate.engine.values import INT64_MAX
from plangate.errors import Code, Refusal, invalid
from plangate.keys import checked_keys
from plangate.store.used_keys import BODY_HASH_BYTES, used_key_hash

EVENTS_PER_BATCH: Final = 1_000
LATEST: Final = timedelta(days=35)
AHEAD: Final = timedelta(minutes=5)
SHORTEST_RESERVATION: Final = timedelta(seconds=1)
LONGEST_RESERVATION: Final = timedelta(days=1)
NAME_LENGTH: Final = 200
KEY_LENGTH: Final = 255
_encode: Final = msgspec.json.Encoder().encode


class TrackEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event as a product reports it. `company` and `user` are keys; `occurred_at` defaults to now."""

    event: str
    company: Mapping[str, str]
    user: Mapping[str, str] | None = None
    quantity: int = 1
    occurred_at: datetime | None = None
    idempotency_key: str | None = None


class Told(Protocol):
    """Whatever says what a TrackEvent says."""

    @property
    def event(self) -> str: ...
    @property
    def company(self) -> Mapping[str, str]: ...
    @property
    def user(self) -> Mapping[str, str] | None: ...
    @property
    def quantity(self) -> int: ...
    @property
    def occurred_at(self) -> datetime | None: ...
    @property
    def idempotency_key(self) -> str | None: ...


class EventStatus(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    UNATTRIBUTED = "unattributed"
    REFUSED = "refused"


class EventResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What became of one event. `code` and `detail` say why it was refused."""

    status: EventStatus
    code: Code | None = None
    detail: str | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing to count, within all bounds. `name` is an event's name, or the feature a consume or reserve asks for.

    `key_hash` and `body_hash` tell repeats: the same key counts once, the same key with another body is refused. A
    reserve has a `time_to_live`; settle and release name their reservation instead of company and feature.
    """

    kind: Literal["track", "consume", "reserve", "settle", "release"]
    name: str
    company: Mapping[str, str]
    user: Mapping[str, str] | None
    quantity: int
    occurred_at: datetime | None
    key_hash: bytes | None
    body_hash: bytes
    time_to_live: timedelta | None = None
    reservation_id: str | None = None
    has_trace: bool = False


def tracked(event: Told, *, environment_id: str, now: datetime, may_correct: bool) -> Item:
    """An event ready to count. `now` is business time; only a secret key `may_correct` with negative quantities.

    Raises Refusal: 422 for anything out of bounds, 403 for a correction without the right.
    """
    if not -INT64_MAX <= event.quantity <= INT64_MAX:
        raise invalid("/quantity", "The quantity must fit a signed 64-bit integer.")
    if event.event.startswith(PULLED):
        raise invalid("/event", f"Names that begin with {PULLED} are kept for usage that is read from Stripe meters.")
    if event.quantity < 0 and not may_correct:
        raise Refusal(Code.FORBIDDEN, "A negative quantity is a correction, and corrections need a secret key.")
    return _item(
        "track",
        event.event,
        pointer="/event",
        company=event.company,
        user=event.user,
        quantity=event.quantity,
        occurred_at=event.occurred_at,
        key=event.idempotency_key,
        environment_id=environment_id,
        now=now,
    )


def consumed(
    *,
    feature: str,
    company: Mapping[str, str],
    user: Mapping[str, str] | None,
    quantity: int,
    occurred_at: datetime | None,
    idempotency_key: str,
    environment_id: str,
    now: datetime,
    trace: bool = False,
) -> Item:
    """A consume ready to decide. Raises Refusal (422) for anything out of bounds."""
    if not 1 <= quantity <= INT64_MAX:
        raise invalid("/quantity", "The quantity must be a whole number between 1 and 9223372036854775807.")
    item = _item(
        "consume",
        feature,
        pointer="/feature",
        company=company,
        user=user,
        quantity=quantity,
        occurred_at=occurred_at,
        key=idempotency_key,
        environment_id=environment_id,
        now=now,
    )
    return msgspec.structs.replace(item, has_trace=True) if trace else item


def reserved(
    *,
    feature: str,
    company: Mapping[str, str],
    user: Mapping[str, str] | None,
    quantity: int,
    time_to_live: timedelta,
    now: datetime,
    trace: bool = False,
) -> Item:
    """A reservation ready to decide. Raises Refusal (422) for anything out of bounds."""
    if not 1 <= quantity <= INT64_MAX:
        raise invalid("/quantity", "The quantity must be a whole number between 1 and 9223372036854775807.")
    if not SHORTEST_RESERVATION <= time_to_live <= LONGEST_RESERVATION:
        raise invalid("/ttl_seconds", "A reservation lasts from 1 second to a day (86400 seconds).")
    item = _item(
        "reserve",
        feature,
        pointer="/feature",
        company=company,
        user=user,
        quantity=quantity,
        occurred_at=None,
        key=None,
        environment_id="",
        now=now,
    )
    return msgspec.structs.replace(item, time_to_live=time_to_live, has_trace=trace)


def closing(kind: Literal["settle", "release"], reservation_id: str, *, quantity: int = 0) -> Item:
    """The end of a reservation, ready to decide. Raises Refusal (422) for a quantity out of bounds."""
    if not 0 <= quantity <= INT64_MAX:
        raise invalid("/quantity", "The quantity must be a whole number between 0 and 9223372036854775807.")
    return Item(
        kind=kind,
        name="",
        company={},
        user=None,
        quantity=quantity,
        occurred_at=None,
        key_hash=None,
        body_hash=b"",
        reservation_id=reservation_id,
    )


def _item(
    kind: Literal["track", "consume", "reserve"],
    name: str,
    *,
    pointer: str,
    company: Mapping[str, str],
    user: Mapping[str, str] | None,
    quantity: int,
    occurred_at: datetime | None,
    key: str | None,
    environment_id: str,
    now: datetime,
) -> Item:
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
        raise invalid(pointer, f"A name has 1 to {NAME_LENGTH} printable characters.")
    if key is not None and (not 1 <= len(key) <= KEY_LENGTH or not key.isprintable()):
        raise invalid("/idempotency_key", f"An idempotency key has 1 to {KEY_LENGTH} printable characters.")
    company = checked_keys(company, pointer="/company")
    user = None if user is None else checked_keys(user, pointer="/user")
    if occurred_at is not None:
        if occurred_at.tzinfo is None:
            raise invalid("/occurred_at", "The time needs a time zone, such as 2026-11-20T10:00:00Z.")
        if occurred_at > now + AHEAD:
            raise invalid(
                "/occurred_at",
                "The event lies more than 5 minutes in the future; check the sender's clock.",
                code=Code.TIMESTAMP_IN_FUTURE,
            )
        if occurred_at < now - LATEST:
            raise invalid(
                "/occurred_at",
                "The event is more than 35 days old and can no longer be counted.",
                code=Code.TIMESTAMP_TOO_OLD,
            )
    key_hash, body_hash = None, b""
    if key is not None:
        key_hash = used_key_hash(environment_id, key)
        body = (kind, name, _in_order(company), user and _in_order(user), quantity, occurred_at)
        body_hash = sha256(_encode(body)).digest()[:BODY_HASH_BYTES]
    return Item(
        kind=kind,
        name=name,
        company=company,
        user=user,
        quantity=quantity,
        occurred_at=occurred_at,
        key_hash=key_hash,
        body_hash=body_hash,
    )


def _in_order(keys: Mapping[str, str]) -> Mapping[str, str]:
    return keys if len(keys) == 1 else dict(sorted(keys.items()))
