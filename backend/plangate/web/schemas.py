"""What callers may send as bodies, strict and closed, so that no stored field can be slipped in.

Bodies of the hot routes are msgspec structs; all others are pydantic models, which name every field at fault at once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from plangate.catalog_document import MigrationDocument
from plangate.engine.values import INT64_MAX, INTERVAL_COUNT_MAX
from plangate.errors import invalid
from plangate.web.tokens import TTL_LIMIT_SECONDS

M = msgspec.Meta

KEYS_MAX = 20
TRAITS_MAX = 100
EVENTS_MAX = 1_000
FEATURES_MAX = 500
TEXT_MAX = 4_000
NOTE_MAX = 2_000
QUOTE_MAX = 20_000
_OFFSET_SECONDS_MAX = 20 * 366 * 86_400
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)

# --- hot bodies (msgspec) ---------------------------------------------------------------------------

Name = Annotated[str, M(min_length=1, max_length=64)]
KeyValue = Annotated[str, M(min_length=1, max_length=255)]
Keys = Annotated[
    dict[Name, KeyValue],
    M(min_length=1, max_length=KEYS_MAX, description='Keys another system knows it by, such as `{"id": "acme"}`.'),
]
FeatureKey = Annotated[str, M(min_length=1, max_length=200, description="A feature of the catalogue.")]
Instant = Annotated[datetime, M(tz=True, description="RFC 3339, with an offset.")]
IdempotencyText = Annotated[
    str, M(min_length=1, max_length=255, description="Counts once for ever in this environment.")
]
Trait = (
    Annotated[str, M(max_length=TEXT_MAX)] | Annotated[int, M(ge=-INT64_MAX - 1, le=INT64_MAX)] | float | bool | None
)
Traits = Annotated[dict[Name, Trait], M(max_length=TRAITS_MAX)]


class CheckBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """May this company (and user) use so much of a feature? `quantity` makes it a preflight and is never counted."""

    company: Keys
    feature: FeatureKey
    user: Keys | None = None
    quantity: Annotated[int, M(ge=0, le=INT64_MAX)] = 1
    at: Instant | None = None
    trace: bool = False


class ChecksBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The same question about several features, or about all of them when none are named."""

    company: Keys
    user: Keys | None = None
    features: Annotated[list[FeatureKey], M(min_length=1, max_length=FEATURES_MAX)] | None = None
    at: Instant | None = None


class ConsumeBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Check and count in one step: yes and counted, or no and not counted. `at` is another name of `occurred_at`."""

    company: Keys
    feature: FeatureKey
    idempotency_key: IdempotencyText
    user: Keys | None = None
    quantity: Annotated[int, M(ge=1, le=INT64_MAX)] = 1
    occurred_at: Instant | None = None
    at: Instant | None = None
    trace: bool = False

    def when(self) -> datetime | None:
        """When it happened, in UTC. Raises Refusal (422) when `at` and `occurred_at` name different instants."""
        occurred_at = bounded_instant("/occurred_at", self.occurred_at)
        at = bounded_instant("/at", self.at)
        if at is not None and occurred_at is not None and at != occurred_at:
            raise invalid("/at", "`at` and `occurred_at` mean the same instant here: send one of them.")
        return occurred_at if at is None else at


class TrackEvent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False, tag_field="type", tag="track"):
    """Something was used. A negative quantity is a correction. `traits` are set on the company, if it is known."""

    event: Annotated[str, M(min_length=1, max_length=200)]
    company: Keys
    user: Keys | None = None
    quantity: Annotated[int, M(ge=-INT64_MAX, le=INT64_MAX)] = 1
    occurred_at: Instant | None = None
    idempotency_key: IdempotencyText | None = None
    traits: Traits | None = None


class IdentifyEvent(
    msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False, tag_field="type", tag="identify"
):
    """A company or a user as it is now, made or updated by its keys.

    With `user`, name and traits are the user's, who then belongs to `company`; without, they are the company's.
    """

    company: Keys | None = None
    user: Keys | None = None
    name: Annotated[str, M(min_length=1, max_length=200)] | None = None
    traits: Traits | None = None


def bounded_instant(pointer: str, value: datetime | None) -> datetime | None:
    """The instant in UTC. Raises Refusal (422) for one that no period arithmetic can hold."""
    if value is None:
        return None
    try:
        instant = value.astimezone(UTC)
    except OverflowError:
        raise invalid(pointer, "This instant is out of range.") from None
    if not _EARLIEST <= instant <= _LATEST:
        raise invalid(pointer, "This instant is out of range: from 1970 to 9000.")
    return instant


# --- cold bodies (pydantic) ---------------------------------------------------------------------------


def _bounded(value: datetime) -> datetime:
    try:
        instant = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("this instant is out of range") from None
    if not _EARLIEST <= instant <= _LATEST:
        raise ValueError("this instant is out of range: from 1970 to 9000")
    return instant


class Body(BaseModel):
    """A closed, strict body."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


BodyName = Annotated[str, Field(min_length=1, max_length=64)]
BodyKeyValue = Annotated[str, Field(min_length=1, max_length=255)]
BodyKeys = Annotated[dict[BodyName, BodyKeyValue], Field(min_length=1, max_length=KEYS_MAX)]
BodyFeature = Annotated[str, Field(min_length=1, max_length=200)]
BodyInstant = Annotated[AwareDatetime, AfterValidator(_bounded)]
BodyTrait = (
    StrictBool
    | Annotated[StrictInt, Field(ge=-INT64_MAX - 1, le=INT64_MAX)]
    | Annotated[StrictFloat, Field(allow_inf_nan=False)]
    | Annotated[StrictStr, Field(max_length=TEXT_MAX)]
    | None
)
BodyTraits = Annotated[dict[BodyName, BodyTrait], Field(max_length=TRAITS_MAX)]
CatalogKey = Annotated[str, Field(min_length=1, max_length=200)]
CurrencyCode = Annotated[str, Field(pattern=r"^[a-z]{3}$")]
BodyQuantities = Annotated[dict[CatalogKey, Annotated[int, Field(ge=0, le=1_000_000)]], Field(max_length=50)]
PeriodName = Literal["day", "week", "month", "billing_month", "billing_interval", "all_time"]
Note = Annotated[str, Field(min_length=1, max_length=NOTE_MAX)]


class ReviewBody(Body):
    """A decision on a refund or dispute, and why."""

    access: Literal["keep", "revoke"]
    note: Note


class RetryBody(Body):
    """Which failed webhooks to act on once more: these events, or all of them."""

    events: Annotated[list[Annotated[str, Field(min_length=1, max_length=255)]], Field(max_length=1_000)] | None = None


class ReservationBody(Body):
    """How much of a feature to hold for a company (and user), and for how many seconds."""

    company: BodyKeys
    feature: BodyFeature
    user: BodyKeys | None = None
    quantity: Annotated[int, Field(ge=1, le=INT64_MAX)] = 1
    ttl_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    trace: bool = False


class SettleBody(Body):
    """How much was really used."""

    quantity: Annotated[int, Field(ge=0, le=INT64_MAX)]


class CompanyBody(Body):
    """A company to make or update, known by any of its keys.

    `plan` and `add_ons` (absolute quantities, 0 ends one) are given by hand, for companies that do not pay through
    Stripe; a null `plan` takes the assigned one away. `past_due_grace_days` are the company's own; null lets it follow
    the catalogue's again.
    """

    keys: BodyKeys
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    traits: BodyTraits | None = None
    stripe_customer_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=255)]], Field(max_length=KEYS_MAX)
    ] = []
    plan: CatalogKey | None = None
    add_ons: BodyQuantities = {}
    past_due_grace_days: Annotated[int, Field(ge=0, le=365)] | None = None


class MergeBody(Body):
    """The company that turned out to be the same: its id, or keys it is known by."""

    former: Annotated[str, Field(min_length=1, max_length=100)] | BodyKeys = Field(alias="from")


class UserBody(Body):
    """A user to make or update, the companies they belong to, and those they left."""

    keys: BodyKeys
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    traits: BodyTraits | None = None
    companies: Annotated[list[BodyKeys], Field(max_length=100)] = []
    left: Annotated[list[BodyKeys], Field(max_length=100)] = []


class OverrideBody(Body):
    """An exception for a company on one feature. `value` is a boolean, a number, `"unlimited"` or a config value."""

    feature: BodyFeature
    mode: Literal["set", "add", "deny"] = "set"
    value: Any = None
    user: BodyKeys | Annotated[str, Field(min_length=1, max_length=100)] | None = None
    period: PeriodName | None = None
    starts_at: BodyInstant | None = None
    expires_at: BodyInstant | None = None
    note: Note


class BulkOverrideBody(Body):
    """One exception for the companies named, by id or keys, or for those on a `plan`.

    By plan, one call looks through 1,000 companies; go on with the `next_cursor` it answers, until that is null.
    """

    companies: (
        Annotated[
            list[BodyKeys | Annotated[str, Field(min_length=1, max_length=100)]], Field(min_length=1, max_length=1_000)
        ]
        | None
    ) = None
    plan: CatalogKey | None = None
    cursor: Annotated[str, Field(pattern=r"^comp_[0-9a-z]{1,64}$")] | None = None
    feature: BodyFeature
    mode: Literal["set", "add", "deny"] = "set"
    value: Any = None
    period: PeriodName | None = None
    starts_at: BodyInstant | None = None
    expires_at: BodyInstant | None = None
    note: Note


class OverrideEdit(Body):
    """The fields of an override to change; those left out stay. `expires_at: null` removes the expiry."""

    value: Any = None
    period: PeriodName | None = None
    starts_at: BodyInstant | None = None
    expires_at: BodyInstant | None = None
    note: Note | None = None

    def changes(self) -> Mapping[str, Any]:
        """Only what was sent."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class RevokeBody(Body):
    """Why the override ends."""

    note: Note


class ForceBody(Body):
    """Staff's reason to go on although usage would exceed the limits afterwards."""

    reason: Note


class CustomPriceBody(Body):
    """What was agreed on with the company for the plan: so much for each, every `interval_count` intervals.

    An invoice that is sent is due after `days_until_due` days, 30 unless said. `starts_at` is the day the subscription
    starts; without it, it starts when the quote is confirmed.
    """

    amount_minor: Annotated[int, Field(ge=0, le=99_999_999)]
    currency: CurrencyCode
    interval: Literal["day", "week", "month", "year"]
    interval_count: Annotated[int, Field(ge=1, le=INTERVAL_COUNT_MAX)] = 1
    name: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    collection_method: Literal["charge", "send_invoice"] = "charge"
    days_until_due: Annotated[int, Field(ge=0, le=365)] | None = None
    starts_at: BodyInstant | None = None


class ChangeBody(Body):
    """What to change about a company's plan; at least one field. See docs/reference/api.md for how they combine.

    `interval_count` is every how many intervals is paid: `{"interval": "month", "interval_count": 3}` is quarterly.
    `promotion_code` is what a customer types, or the id Stripe gave the code. `trial_end` moves the end of a running
    trial; `now`, or an instant that is over, ends it at once.
    """

    plan: CatalogKey | None = None
    interval: Literal["day", "week", "month", "year"] | None = None
    interval_count: Annotated[int, Field(ge=1, le=INTERVAL_COUNT_MAX)] | None = None
    currency: CurrencyCode | None = None
    quantities: BodyQuantities = {}
    add_ons: BodyQuantities = {}
    cancel: Literal["now", "period_end"] | None = None
    resume: bool = False
    trial_end: BodyInstant | Literal["now"] | None = None
    custom_price: CustomPriceBody | None = None
    when: Literal["auto", "now", "period_end"] = "auto"
    promotion_code: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    force: ForceBody | None = None


class ConfirmBody(Body):
    """The signed text of a quote. `return_url` is where a hosted payment page sends the customer back to."""

    quote: Annotated[str, Field(min_length=1, max_length=QUOTE_MAX)]
    return_url: Annotated[str, Field(min_length=1, max_length=2_000, pattern=r"^https?://")] | None = None


class MigrateBody(Body):
    """Who of those left on older versions of a plan or add-on gets the newest one; `key` may be `plan:KEY`.

    With `proration` the prices they pay in Stripe move along, prorated so; without it they stay.
    """

    key: Annotated[str, Field(min_length=1, max_length=100)]
    migrate: Literal["all"] | MigrationDocument
    proration: Literal["none", "next_invoice", "charge_now"] | None = None


class TokenBody(Body):
    """Whom a component token speaks for, what it allows, and on which sites."""

    company: BodyKeys
    user: BodyKeys | None = None
    scopes: Annotated[list[Literal["view", "manage", "pay"]], Field(min_length=1, max_length=3)]
    origins: Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=50)] = []
    ttl_seconds: Annotated[int, Field(ge=1, le=TTL_LIMIT_SECONDS)] = TTL_LIMIT_SECONDS


class ClockBody(Body):
    """How far the environment's business time runs ahead of wall time (test mode only)."""

    offset_seconds: Annotated[int, Field(ge=-_OFFSET_SECONDS_MAX, le=_OFFSET_SECONDS_MAX)]
