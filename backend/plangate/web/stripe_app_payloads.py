"""What the Stripe App's messages say: one payload for each kind of question and change, strict and closed."""

from typing import Annotated, Final, Literal

from pydantic import Field

from plangate.engine.values import INT64_MAX, INTERVAL_COUNT_MAX
from plangate.web.schemas import QUOTE_MAX, Body, BodyFeature, BodyInstant, CatalogKey, CurrencyCode, Note

Id = Annotated[str, Field(min_length=1, max_length=255)]
# `seats=5,extra=2`: keys of the catalogue with whole numbers, at most 50 of them.
QUANTITIES: Final = r"^[a-z0-9_/-]{1,129}=[0-9]{1,7}(,[a-z0-9_/-]{1,129}=[0-9]{1,7}){0,49}$"


class Payload(Body):
    """What every message carries; `user_id` and `account_id` were added by Stripe."""

    user_id: Id
    account_id: Id
    mode: Literal["live", "test"]


class CustomerPayload(Payload):
    """About one Stripe customer."""

    customer: Id


class FeaturePayload(CustomerPayload):
    """About one feature of a customer."""

    feature: BodyFeature


class TracePayload(FeaturePayload):
    """Why, now or as known at a past instant; `quantity` more, if it is asked for."""

    at: BodyInstant | None = None
    quantity: Annotated[int, Field(ge=0, le=INT64_MAX)] = 1


class UsagePayload(FeaturePayload):
    """Usage in steps of `by`, from `since` to `until`."""

    by: Literal["hour", "day", "month"] = "day"
    since: BodyInstant | None = None
    until: BodyInstant | None = None


class ChangePayload(CustomerPayload):
    """A change: its id works once."""

    operation_id: Id


class GrantPayload(ChangePayload):
    """A new override. `override_mode` is the override's, as `mode` is Stripe's."""

    feature: BodyFeature
    override_mode: Literal["set", "add", "deny"]
    value: bool | int | str | None = None
    expires_at: BodyInstant | None = None
    note: Note


class EditPayload(ChangePayload):
    """An edit of an override that nobody else edited since `etag`."""

    override: Id
    etag: Id
    value: bool | int | str | None = None
    expires_at: BodyInstant | None = None
    note: Note | None = None


class RevokePayload(ChangePayload):
    """The end of an override."""

    override: Id
    note: Note


class PreviewPayload(CustomerPayload):
    """A plan change to preview. `force_reason` goes on in spite of the limits; `trial_end` may be `now`.

    `quantities` are absolute numbers as `seats=5,extra=2`, where `plan` is the plan itself; `resume` takes back what
    is scheduled. `promotion_code` is what a customer types, or the id Stripe gave the code.
    `custom_…` are what was agreed on with the customer for the plan, flat, because a signed message holds plain values.
    """

    plan: CatalogKey | None = None
    interval: Literal["day", "week", "month", "year"] | None = None
    interval_count: Annotated[int, Field(ge=1, le=INTERVAL_COUNT_MAX)] | None = None
    currency: CurrencyCode | None = None
    quantities: Annotated[str, Field(max_length=7_000, pattern=QUANTITIES)] | None = None
    cancel: Literal["now", "period_end"] | None = None
    resume: bool = False
    when: Literal["auto", "now", "period_end"] = "auto"
    trial_end: BodyInstant | Literal["now"] | None = None
    promotion_code: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    force_reason: Note | None = None
    custom_amount_minor: Annotated[int, Field(ge=0, le=99_999_999)] | None = None
    custom_currency: CurrencyCode | None = None
    custom_interval: Literal["day", "week", "month", "year"] | None = None
    custom_interval_count: Annotated[int, Field(ge=1, le=INTERVAL_COUNT_MAX)] = 1
    custom_name: Annotated[str, Field(min_length=1, max_length=250)] | None = None
    custom_collection_method: Literal["charge", "send_invoice"] = "charge"
    custom_days_until_due: Annotated[int, Field(ge=0, le=365)] | None = None
    custom_starts_at: BodyInstant | None = None


class ConfirmPayload(ChangePayload):
    """The signed quote to confirm."""

    quote: Annotated[str, Field(min_length=1, max_length=QUOTE_MAX)]


class CancelPayload(ChangePayload):
    """The scheduled change to take back, as it was shown."""

    change: Id | None = None


class TrialPayload(ChangePayload):
    """A longer trial: so many `days` more, or until `trial_end`."""

    days: Annotated[int, Field(ge=1, le=730)] | None = None
    trial_end: BodyInstant | None = None


class SearchPayload(Payload):
    """Companies whose name, key or id contains `search`."""

    search: Annotated[str, Field(min_length=1, max_length=200)]


class LinkPayload(ChangePayload):
    """The company a Stripe customer belongs to from now on."""

    company: Id


class ProductPayload(Payload):
    """About one Stripe product. With a `kind` and `key`, also what mapping it, or one `price` of it, there would do."""

    product: Id
    kind: Literal["plan", "add_on"] | None = None
    key: CatalogKey | None = None
    feature: BodyFeature | None = None
    price: Id | None = None


class MapPayload(Payload):
    """What a product's prices stand for from now on: all that stand for nothing yet, or one. `mapping` is as shown."""

    operation_id: Id
    product: Id
    kind: Literal["plan", "add_on"]
    key: CatalogKey
    feature: BodyFeature | None = None
    price: Id | None = None
    mapping: Id
