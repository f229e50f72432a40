"""The catalogue as a document: what a file or `PUT /v1/catalog` may say, part by part.

catalog_rules holds what only the whole document can tell, catalog_compiled makes the engine's catalogue of it,
catalog_file reads and writes it.
docs/reference/catalog.schema.json is this model's JSON schema, held to it by a test.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from babel.core import get_global
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    StringConstraints,
    Tag,
    WithJsonSchema,
)

from plangate.engine.values import INT64_MAX, INTERVAL_COUNT_MAX

Kind: TypeAlias = Literal["plan", "add_on"]
Weekday: TypeAlias = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

WEEKDAYS: Final[tuple[Weekday, ...]] = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
_CONFIG_BYTES: Final = 16_384
# Money that is tender somewhere today, and two codes that Stripe goes on using after their successors came.
_CURRENCIES: Final = frozenset({"ang", "std"}).union(
    code.lower()
    for tenders in get_global("territory_currencies").values()
    for code, _, ended_at, is_tender in tenders
    if ended_at is None and is_tender
)
_MAXIMUM_AMOUNT: Final = 99_999_999  # Stripe's own ceiling: eight digits
# How many of each a catalogue holds, what stays as archived included.
PARTS_MAX: Final = {"features": 1_000, "plans": 200, "add_ons": 200}
_DECIMAL: Final = re.compile(r"[0-9]{1,8}(\.[0-9]{1,12})?")


# --- the document ----------------------------------------------------------------------------------


def _limit(value: object) -> int | str:
    if value == "unlimited":
        return "unlimited"
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT64_MAX:
        raise ValueError('must be a whole number of at least 0, or "unlimited"')
    return value


def _currency(value: str) -> str:
    if value not in _CURRENCIES:
        raise ValueError("must be the ISO 4217 code of a currency in use, such as usd")
    return value


def _link(value: object) -> object:
    if isinstance(value, str) and not value.startswith(("https://", "http://", "mailto:")):
        raise ValueError("must start with https://, http:// or mailto:")
    return value


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _config(value: object) -> object:
    # Bounded, finite and plain JSON all the way down, whatever the feature's type turns out to be.
    try:
        text = json.dumps(value, allow_nan=False)
        is_plain = json.loads(text) == value
    except (TypeError, ValueError, RecursionError):
        is_plain, text = False, ""
    if not is_plain:
        raise ValueError("must be a JSON value")
    if len(text) > _CONFIG_BYTES:
        raise ValueError(f"must be at most {_CONFIG_BYTES} characters as JSON")
    return value


def _decimal(value: object) -> str:
    # Text, so that no amount ever passes through a binary fraction; without trailing zeros, so that it is always alike.
    if not isinstance(value, str) or _DECIMAL.fullmatch(value) is None:
        raise ValueError('must be decimal text of minor units with at most 12 places, such as "0.25"')
    whole, _, fraction = value.partition(".")
    fraction = fraction.rstrip("0")
    return f"{int(whole)}{fraction and '.'}{fraction}"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _form(value: object) -> str | None:
    if isinstance(value, Mapping | EntitlementDocument):
        return "~whole"
    return "~short" if isinstance(value, bool | int | float | str) else None


Key: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Name: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Words: TypeAlias = Annotated[str, StringConstraints(max_length=2_000)]
StripeId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,255}$")]
TraitName: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=120)]
Link: TypeAlias = Annotated[str, StringConstraints(max_length=2_000), BeforeValidator(_link)]
DocumentLimit: TypeAlias = Annotated[
    int | str,
    PlainValidator(_limit),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": INT64_MAX}, {"const": "unlimited"}]}),
]
ConfigValue: TypeAlias = Annotated[Any, BeforeValidator(_config)]
Amount: TypeAlias = Annotated[int, Field(ge=0, le=_MAXIMUM_AMOUNT)]
DecimalAmount: TypeAlias = Annotated[
    str, PlainValidator(_decimal), WithJsonSchema({"type": "string", "pattern": f"^{_DECIMAL.pattern}$"})
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class SettingsDocument(_Part):
    """How this catalogue is sold. `downgrades` says when a self-service reduction takes effect, `migrate` who gets a
    new version of what they hold, `checkout_…` what Stripe's page asks a customer for beside what is bought.
    """

    downgrades: Literal["period_end", "now"] = "period_end"
    proration: Literal["charge_now", "next_invoice", "none"] = "charge_now"
    block_downgrade_over_limit: bool = True
    migrate: Literal["all", "none"] = "all"
    self_service_downgrades: bool = True
    self_service_downgrade_label: Annotated[str, Field(max_length=120)] = ""
    self_service_downgrade_url: Link | None = None
    past_due_grace_days: Annotated[int, Field(ge=0, le=365)] = 7
    paused_collection: Literal["keep", "fallback"] = "keep"
    on_refund: Literal["review", "revoke", "ignore"] = "review"
    on_dispute: Literal["review", "revoke", "ignore"] = "review"
    checkout_trial_card: bool = True
    checkout_billing_address: bool = False
    checkout_phone: bool = False
    checkout_tax_id: bool = False
    week_start: Weekday = "monday"


class ConditionDocument(_Part):
    """One condition of a targeting rule; which members count depends on `kind`."""

    kind: Literal["company", "user", "plan", "add_on", "trait", "usage", "product"]
    values: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=1_000)] = Field(
        default_factory=list
    )
    subject: Literal["company", "user"] = "company"
    trait: TraitName | None = None
    operator: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "contains"] = "eq"
    value: ConfigValue = None
    value_type: Literal["string", "number", "boolean", "date"] | None = None
    other_trait: TraitName | None = None
    feature: Key | None = None


Groups: TypeAlias = Annotated[
    list[Annotated[list[ConditionDocument], Field(min_length=1, max_length=50)]], Field(max_length=50)
]


class RuleDocument(_Part):
    """A targeting rule: it matches when every condition of any one group matches. The lowest priority goes first."""

    key: Key
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    allowed: bool = True
    groups: Annotated[
        list[Annotated[list[ConditionDocument], Field(max_length=50)]], Field(min_length=1, max_length=50)
    ]


class AudienceDocument(_Part):
    """Companies on a plan by rule, when neither a subscription nor an assignment says otherwise; lowest priority first.

    It matches when every condition of any one group does. Conditions may be about the company, its traits, its add-ons
    and the Stripe products it holds.
    """

    plan: Key
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    groups: Annotated[Groups, Field(min_length=1)]


class MigrationDocument(_Part):
    """Some holders of a plan or add-on: those named by id or `key=value`, and those that any one group matches."""

    companies: Annotated[list[Annotated[str, Field(min_length=1, max_length=500)]], Field(max_length=10_000)] = Field(
        default_factory=list
    )
    groups: Groups = Field(default_factory=list)


Migrate: TypeAlias = Literal["all", "none"] | MigrationDocument


class FlagDocument(_Part):
    """The rules behind a feature. `forced` switches it on or off for everybody."""

    forced: bool | None = None
    rules: Annotated[list[RuleDocument], Field(max_length=200)] = Field(default_factory=list)
    default: bool = False


class FeatureDocument(_Part):
    """A capability to gate, meter or track. `event` defaults to the feature's key.

    `stripe_meter` is the event name of the Stripe meter its usage is reported to, or read from.
    """

    name: Name
    type: Literal["boolean", "event", "trait", "seat", "config"]
    description: Words = ""
    event: TraitName | None = None
    trait: TraitName | None = None
    unit: Annotated[str, StringConstraints(min_length=1, max_length=60)] = "unit"
    units: Annotated[str, StringConstraints(min_length=1, max_length=60)] = "units"
    display_divisor: Annotated[int, Field(ge=1, le=INT64_MAX)] = 1
    config_type: Literal["string", "number", "json"] | None = None
    config_schema: ConfigValue = None
    stripe_meter: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")] | None = None
    usage_source: Literal["events", "stripe_meter"] = "events"
    flag: FlagDocument = FlagDocument()
    archived: bool = False


class PackageDocument(_Part):
    """Units sold in packages of `size`: the amount is for a whole package; a package begun is charged, or is free."""

    size: Annotated[int, Field(ge=2, le=INT64_MAX)]
    round: Literal["up", "down"] = "up"


class TierDocument(_Part):
    """One step of a tiered price, up to and including `up_to` units; null in the last one, which goes on for ever.

    `amount_minor` (or `amount_decimal`) is for each unit, `flat_amount_minor` once on top.
    """

    up_to: Annotated[int, Field(ge=1, le=INT64_MAX)] | None
    amount_minor: Amount | None = None
    amount_decimal: DecimalAmount | None = None
    flat_amount_minor: Amount = 0


class PriceDocument(_Part):
    """What it costs each interval per unit of quantity; the amount is in the currency's minor unit (1900 = $19.00).

    `amount_decimal` is for amounts below a minor unit, as text; `tiers` for amounts that depend on the quantity.
    `stripe_price` adopts a price that somebody else made in Stripe, as `stripe_product` of a plan or add-on does a
    product; without it a price is made.
    """

    currency: Annotated[
        str, StringConstraints(pattern=r"^[a-z]{3}$"), BeforeValidator(_lower), AfterValidator(_currency)
    ]
    interval: Literal["day", "week", "month", "year"]
    amount_minor: Amount | None = None
    amount_decimal: DecimalAmount | None = None
    tiers_mode: Literal["graduated", "volume"] | None = None
    tiers: Annotated[list[TierDocument], Field(max_length=100)] = Field(default_factory=list)
    package: PackageDocument | None = None
    interval_count: Annotated[int, Field(ge=1, le=INTERVAL_COUNT_MAX)] = 1
    stripe_price: StripeId | None = None


class EntitlementDocument(_Part):
    """What a plan or add-on grants for one feature, in full. `sso: true` and `exports: 10` are its short forms.

    `prices` are paid for this feature beside the plan's own, in the way that `price_behaviour` says.
    """

    enabled: bool | None = None
    limit: DocumentLimit | None = None
    limit_trait: TraitName | None = None
    config: ConfigValue = None
    period: Literal["day", "week", "month", "billing_month", "billing_interval", "all_time"] | None = None
    stacking: Literal["max", "sum"] = "max"
    soft_limit: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    overage: Literal["free"] | None = None
    per: Literal["company", "user"] = "company"
    price_behaviour: Literal["included", "pay_as_you_go", "pay_in_advance", "overage", "tiers"] = "included"
    prices: Annotated[list[PriceDocument], Field(max_length=100)] = Field(default_factory=list)


Shorthand: TypeAlias = Annotated[bool | int | float | str, BeforeValidator(_finite)]
Entitled: TypeAlias = Annotated[
    Annotated[Shorthand, Tag("~short")] | Annotated[EntitlementDocument, Tag("~whole")], Discriminator(_form)
]


class _Sold(_Part):
    name: Name
    description: Words = ""
    archived: bool = False
    stripe_product: StripeId | None = None
    migrate: Migrate | None = None
    entitlements: Annotated[dict[Key, Entitled], Field(max_length=500)] = Field(default_factory=dict)
    prices: Annotated[list[PriceDocument], Field(max_length=100)] = Field(default_factory=list)


class PlanDocument(_Sold):
    """A plan: what a company is on. Without prices it is free, unless it is sold by hand (`contact_us`)."""

    recommended: bool = False
    contact_us: bool = False
    contact_url: Link | None = None
    trial_days: Annotated[int, Field(ge=0, le=730)] = 0


class AddOnDocument(_Sold):
    """An add-on: it stacks beside a plan. `fits` names the plans it may stand beside (none named: any).

    Without prices it is not sold: companies get it by hand.
    """

    fits: Annotated[list[Key], Field(max_length=100)] = Field(default_factory=list)


class CatalogDocument(_Part):
    """Everything that is on offer. The order of features, plans and add-ons is the order in which they are shown."""

    version: Literal[1] = 1
    initial_plan: Key | None = None
    fallback_plan: Key | None = None
    trial_expiry_plan: Key | None = None
    settings: SettingsDocument = SettingsDocument()
    features: Annotated[dict[Key, FeatureDocument], Field(max_length=PARTS_MAX["features"])]
    plans: Annotated[dict[Key, PlanDocument], Field(max_length=PARTS_MAX["plans"])]
    add_ons: Annotated[dict[Key, AddOnDocument], Field(max_length=PARTS_MAX["add_ons"])] = Field(default_factory=dict)
    audiences: Annotated[dict[Key, AudienceDocument], Field(max_length=200)] = Field(default_factory=dict)

    def sold(self) -> Iterable[tuple[Kind, str, PlanDocument | AddOnDocument]]:
        """Plans, then add-ons, with their kind and key, in the order in which they are shown."""
        for key, plan in self.plans.items():
            yield "plan", key, plan
        for key, add_on in self.add_ons.items():
            yield "add_on", key, add_on


# --- the canonical form ------------------------------------------------------------------------


def document_value(document: CatalogDocument) -> dict[str, Any]:
    """The document as plain JSON values in its canonical form: defaults left out, the shortest form of entitlements."""
    value: dict[str, Any] = {"version": 1, **document.model_dump(mode="json", exclude_defaults=True)}
    for section in ("plans", "add_ons"):
        for sold in value.get(section, {}).values():
            if "entitlements" in sold:
                sold["entitlements"] = {key: _shortest(one) for key, one in sold["entitlements"].items()}
    return value


def _shortest(entitlement: Any) -> Any:  # noqa: ANN401 - a JSON value either way
    if isinstance(entitlement, dict) and len(entitlement) == 1:
        (name, value) = next(iter(entitlement.items()))
        if name in {"enabled", "limit"} or (name == "config" and isinstance(value, str | int | float)):
            return value
    return entitlement
