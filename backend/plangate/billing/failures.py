"""One closed table that decides what an answer of Stripe's means: absent, declined, busy, refused, or perhaps applied.

Nothing else in Plangate looks at Stripe's error types, so that "was it absent or did it really fail?" has one answer.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import stripe

from plangate.errors import Code, Refusal

_DETAIL_LENGTH_MAX: Final = 300
_RETRY_AFTER_SECONDS: Final = 2


class FailureKind(StrEnum):
    """What a failed call means for whoever made it."""

    ABSENT = "absent"  # The object does not exist (any more).
    DECLINED = "declined"  # The payment failed; nothing was changed.
    NEEDS_ACTION = "needs_action"  # The payment needs the customer, as with 3-D Secure; nothing was changed.
    REFUSED = "refused"  # Stripe will not do this, however often it is asked; nothing was changed.
    KEY_REUSED = "key_reused"  # The idempotency key was used with other parameters; nothing was changed by this call.
    UNAUTHORISED = "unauthorised"  # Our own key is wrong or lacks a permission: an operator must act.
    LOCKED = "locked"  # Another request holds the object, or the same key is still running: ask again at once.
    BUSY = "busy"  # Too many requests; nothing was changed: ask again later.
    UNCERTAIN = "uncertain"  # It may or may not have been applied: read before writing again.


class StripeFailure(Refusal):
    """A call to Stripe that did not succeed; as a `Refusal` it is ready to be shown.

    `kind` is what it means. `was_replayed` says that the answer is the stored one of an earlier call with the same
    idempotency key, so that asking again with that key can bring nothing new.
    """

    def __init__(
        self,
        kind: FailureKind,
        code: Code,
        detail: str,
        *,
        stripe_code: str | None = None,
        stripe_request_id: str | None = None,
        was_replayed: bool = False,
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail, extra=extra, headers=headers)
        self.kind = kind
        self.stripe_code = stripe_code
        self.stripe_request_id = stripe_request_id
        self.was_replayed = was_replayed

    @property
    def is_final(self) -> bool:
        """Whether Stripe surely changed nothing and the same request would surely fail again."""
        return self.kind in _FINAL


_FINAL: Final = frozenset(
    {
        FailureKind.ABSENT,
        FailureKind.DECLINED,
        FailureKind.NEEDS_ACTION,
        FailureKind.REFUSED,
        FailureKind.KEY_REUSED,
    }
)


class _Row(NamedTuple):
    """A line of the table; None matches anything."""

    status: int | None
    error_type: str | None
    error_code: str | None
    kind: FailureKind


# First match wins. Statuses not listed are UNCERTAIN: 5xx, and no answer at all.
_TABLE: Final = (
    _Row(404, None, "resource_missing", FailureKind.ABSENT),
    _Row(404, None, "invoice_upcoming_none", FailureKind.ABSENT),
    _Row(None, None, "subscription_payment_intent_requires_action", FailureKind.NEEDS_ACTION),
    _Row(None, None, "invoice_payment_intent_requires_action", FailureKind.NEEDS_ACTION),
    _Row(None, None, "authentication_required", FailureKind.NEEDS_ACTION),
    _Row(402, None, None, FailureKind.DECLINED),
    _Row(429, None, "lock_timeout", FailureKind.LOCKED),
    _Row(429, None, None, FailureKind.BUSY),
    _Row(400, None, "rate_limit", FailureKind.BUSY),
    _Row(409, None, None, FailureKind.LOCKED),
    _Row(400, "idempotency_error", None, FailureKind.KEY_REUSED),
    _Row(401, None, None, FailureKind.UNAUTHORISED),
    _Row(403, None, None, FailureKind.UNAUTHORISED),
    _Row(400, None, None, FailureKind.REFUSED),
    _Row(404, None, None, FailureKind.REFUSED),
)


def understood(error: stripe.StripeError) -> StripeFailure:
    """The failure that an exception of the official package stands for."""
    members = _error_members(error)
    error_type, error_code = _text(members, "type"), _text(members, "code")
    decline_code = _text(members, "decline_code")
    kind = FailureKind.UNCERTAIN
    for row in _TABLE:
        if (
            (row.status is None or row.status == error.http_status)
            and (row.error_type is None or row.error_type == error_type)
            and (row.error_code is None or row.error_code in (error_code, decline_code))
        ):
            kind = row.kind
            break
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return failure(
        kind,
        said=_text(members, "message") or "",
        stripe_code=error_code,
        decline_code=decline_code,
        stripe_request_id=headers.get("request-id"),
        was_replayed=headers.get("idempotent-replayed") == "true",
    )


def failure(
    kind: FailureKind,
    *,
    said: str = "",
    stripe_code: str | None = None,
    decline_code: str | None = None,
    stripe_request_id: str | None = None,
    was_replayed: bool = False,
) -> StripeFailure:
    """The refusal for one kind of failure; `said` is Stripe's own sentence, shown where it is meant for people."""
    code, detail = _SENTENCES[kind]
    if kind in _QUOTED and said:
        detail = f"{detail} Stripe says: {said[:_DETAIL_LENGTH_MAX]}"
    extra: dict[str, object] = {}
    if decline_code is not None:
        extra["decline_code"] = decline_code
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if code is Code.STRIPE_BUSY else {}
    return StripeFailure(
        kind,
        code,
        detail,
        stripe_code=stripe_code,
        stripe_request_id=stripe_request_id,
        was_replayed=was_replayed,
        extra=extra,
        headers=headers,
    )


# The sentence about our own key never quotes Stripe, whose sentence names a part of the key.
_QUOTED: Final = frozenset({FailureKind.DECLINED, FailureKind.REFUSED, FailureKind.ABSENT})
_SENTENCES: Final[Mapping[FailureKind, tuple[Code, str]]] = {
    FailureKind.ABSENT: (Code.STRIPE_REFUSED, "Something this change needs no longer exists in Stripe."),
    FailureKind.DECLINED: (
        Code.PAYMENT_FAILED,
        "The payment was declined and nothing was changed; use another card and try again.",
    ),
    FailureKind.NEEDS_ACTION: (
        Code.ACTION_REQUIRED,
        "The bank asks the customer to confirm this payment; nothing was changed yet.",
    ),
    FailureKind.REFUSED: (Code.STRIPE_REFUSED, "Stripe refused the change and nothing was changed."),
    FailureKind.KEY_REUSED: (
        Code.STRIPE_REFUSED,
        "Stripe saw this operation before with other details; start the change again.",
    ),
    FailureKind.UNAUTHORISED: (
        Code.UNAVAILABLE,
        "Stripe does not accept this environment's own key; an operator must check PLANGATE_STRIPE_SECRET_KEY.",
    ),
    FailureKind.LOCKED: (Code.STRIPE_BUSY, "Stripe is working on the same subscription; try again in a moment."),
    FailureKind.BUSY: (Code.STRIPE_BUSY, "Stripe asks us to slow down; try again in a moment."),
    FailureKind.UNCERTAIN: (Code.STRIPE_BUSY, "Stripe did not answer in time; try again in a moment."),
}


def _error_members(error: stripe.StripeError) -> Mapping[str, object]:
    """The `error` object of the answer. Some exception types drop its code, so the body is read instead."""
    body = error.json_body
    members = body.get("error") if isinstance(body, dict) else None
    return members if isinstance(members, dict) else {}


def _text(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) else None
