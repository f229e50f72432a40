"""Every refusal Plangate can answer with: one closed list of codes, each with its status and title.

A refusal is an exception with a stable code; the web layer turns it into `application/problem+json`
(RFC 9457) and the components into a rendered fragment. Anything else that is raised is a bug.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """The closed list of problem codes. docs/reference/errors.md repeats it, held to this list by a test."""

    MALFORMED = "malformed"
    UNAUTHENTICATED = "unauthenticated"
    SIGNATURE_INVALID = "signature_invalid"
    TOKEN_EXPIRED = "token_expired"
    PAYMENT_FAILED = "payment_failed"
    ACTION_REQUIRED = "action_required"
    FORBIDDEN = "forbidden"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    ROLE_TOO_LOW = "role_too_low"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    KEY_CONFLICT = "key_conflict"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    REQUEST_IN_PROGRESS = "request_in_progress"
    RESERVATION_CLOSED = "reservation_closed"
    OVERRIDE_OVERLAP = "override_overlap"
    OPERATION_REPEATED = "operation_repeated"
    CATALOG_STALE = "catalog_stale"
    QUOTE_STALE = "quote_stale"
    QUOTE_EXPIRED = "quote_expired"
    CHANGE_IN_PROGRESS = "change_in_progress"
    DOWNGRADE_SCHEDULED = "downgrade_scheduled"
    NOTHING_SCHEDULED = "nothing_scheduled"
    NO_CHANGE = "no_change"
    OVER_LIMIT = "over_limit"
    PAST_DUE = "past_due"
    SELF_SERVICE_DISABLED = "self_service_disabled"
    FOREIGN_SCHEDULE = "foreign_schedule"
    SUBSCRIPTION_INACTIVE = "subscription_inactive"
    ADD_ON_UNFIT = "add_on_unfit"
    CURRENCY_PINNED = "currency_pinned"
    CONTACT_US = "contact_us"
    ETAG_MISMATCH = "etag_mismatch"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID = "invalid"
    UNKNOWN_FIELD = "unknown_field"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    ETAG_REQUIRED = "etag_required"
    RATE_LIMITED = "rate_limited"
    STRIPE_REFUSED = "stripe_refused"
    STRIPE_BUSY = "stripe_busy"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """What is the same for every problem of one code. `status` is the HTTP status."""

    status: int
    title: str


CATALOGUE: Mapping[Code, ErrorKind] = {
    Code.MALFORMED: ErrorKind(400, "The request could not be read"),
    Code.UNAUTHENTICATED: ErrorKind(401, "A valid API key is needed"),
    Code.SIGNATURE_INVALID: ErrorKind(400, "The signature does not match"),
    Code.TOKEN_EXPIRED: ErrorKind(401, "The component token has ended"),
    Code.PAYMENT_FAILED: ErrorKind(402, "The payment was declined"),
    Code.ACTION_REQUIRED: ErrorKind(402, "The payment needs a step by the customer"),
    Code.FORBIDDEN: ErrorKind(403, "This key may not do that"),
    Code.ORIGIN_NOT_ALLOWED: ErrorKind(403, "This site may not use the component"),
    Code.ROLE_TOO_LOW: ErrorKind(403, "Your role does not allow that"),
    Code.NOT_FOUND: ErrorKind(404, "Nothing was found there"),
    Code.METHOD_NOT_ALLOWED: ErrorKind(405, "The method is not allowed here"),
    Code.KEY_CONFLICT: ErrorKind(409, "The keys belong to different companies"),
    Code.IDEMPOTENCY_CONFLICT: ErrorKind(409, "The idempotency key was used with another body"),
    Code.REQUEST_IN_PROGRESS: ErrorKind(409, "The first request with this key is still under way"),
    Code.RESERVATION_CLOSED: ErrorKind(409, "The reservation has ended otherwise"),
    Code.OVERRIDE_OVERLAP: ErrorKind(409, "Another override is in force then"),
    Code.OPERATION_REPEATED: ErrorKind(409, "The operation was already carried out"),
    Code.CATALOG_STALE: ErrorKind(409, "The catalogue changed meanwhile"),
    Code.QUOTE_STALE: ErrorKind(409, "The quote no longer holds"),
    Code.QUOTE_EXPIRED: ErrorKind(409, "The quote has expired"),
    Code.CHANGE_IN_PROGRESS: ErrorKind(409, "Another change is under way"),
    Code.DOWNGRADE_SCHEDULED: ErrorKind(409, "A downgrade is scheduled"),
    Code.NOTHING_SCHEDULED: ErrorKind(409, "Nothing is scheduled"),
    Code.NO_CHANGE: ErrorKind(409, "Nothing would change"),
    Code.OVER_LIMIT: ErrorKind(409, "Usage is over the new limit"),
    Code.PAST_DUE: ErrorKind(409, "A payment is overdue"),
    Code.SELF_SERVICE_DISABLED: ErrorKind(409, "This change is made by our team"),
    Code.FOREIGN_SCHEDULE: ErrorKind(409, "Another system schedules this subscription"),
    Code.SUBSCRIPTION_INACTIVE: ErrorKind(409, "The subscription is not active"),
    Code.ADD_ON_UNFIT: ErrorKind(409, "The add-on does not fit the plan"),
    Code.CURRENCY_PINNED: ErrorKind(409, "The customer is billed in another currency"),
    Code.CONTACT_US: ErrorKind(409, "This plan is sold by our team"),
    Code.ETAG_MISMATCH: ErrorKind(412, "It was changed meanwhile"),
    Code.TOO_LARGE: ErrorKind(413, "The request is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: ErrorKind(415, "The body must be JSON"),
    Code.INVALID: ErrorKind(422, "A field is not valid"),
    Code.UNKNOWN_FIELD: ErrorKind(422, "A field is not known"),
    Code.TIMESTAMP_IN_FUTURE: ErrorKind(422, "The time lies in the future"),
    Code.TIMESTAMP_TOO_OLD: ErrorKind(422, "The time lies too far back"),
    Code.ETAG_REQUIRED: ErrorKind(428, "If-Match is missing"),
    Code.RATE_LIMITED: ErrorKind(429, "Too many requests"),
    Code.STRIPE_REFUSED: ErrorKind(422, "Stripe refused the change"),
    Code.STRIPE_BUSY: ErrorKind(503, "Stripe did not answer in time"),
    Code.UNAVAILABLE: ErrorKind(503, "Try again shortly"),
    Code.INTERNAL: ErrorKind(500, "Something went wrong on our side"),
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field at fault. `pointer` is a JSON pointer into the request's body, such as `/company/id`."""

    pointer: str
    code: Code
    detail: str


class Refusal(Exception):
    """A documented "no". `detail` is one sentence for a person that says what happened and the way out.

    `extra` carries members of the problem beyond RFC 9457's own, such as `next_action` or a new `quote`;
    `headers` are sent with the answer, such as `Retry-After`.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.extra: Mapping[str, object] = extra or {}
        self.headers: Mapping[str, str] = headers or {}

    @property
    def status(self) -> int:
        """The HTTP status of this refusal."""
        return CATALOGUE[self.code].status

    @property
    def title(self) -> str:
        """The title all problems of this code share."""
        return CATALOGUE[self.code].title


def invalid(pointer: str, detail: str, *, code: Code = Code.INVALID) -> Refusal:
    """A 422 about one field; `pointer` is a JSON pointer such as `/quantity`."""
    return Refusal(code, detail, errors=[FieldError(pointer, code, detail)])


class StartRefused(Exception):
    """A command cannot start; the message is one sentence that names what is missing and how to go on."""
