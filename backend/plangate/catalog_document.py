"""The catalogue as a document: what a file or `PUT /v1/catalog` may say, part by part, and compiled for the engine.

catalog_rules holds what only the whole document can tell; catalog_file reads and writes it.
docs/reference/catalog.schema.json is this model's JSON schema, held to it by a test.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from pydantic import (
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

from plangate.engine.model import (
    INT64_MAX,
    UNLIMITED,
    Catalog,
    CatalogSettings,
    Condition,
    Entitlement,
    Feature,
    FeatureType,
    Flag,
    Interval,
    Json,
    Limit,
    PeriodKind,
    PlanVersion,
    Price,
    PriceOwner,
    Rule,
    Stacking,
    version_key,
)
from plangate.store.catalog import CatalogRevisionRow, PlanVersionRow, StripePriceRow

Kind: TypeAlias = Literal["plan", "add_on"]
Weekday: TypeAlias = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

_WEEKDAYS: Final[tuple[Weekday, ...]] = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
_CONFIG_BYTES: Final = 16_384
_MAXIMUM_AMOUNT: Final = 99_999_999  # Stripe's own ceiling: eight digits


# --- the document ----------------------------------------------------------------------------------


def _limit(value: object) -> int | str:
    if value == "unlimited":
        return "unlimited"
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT64_MAX:
        raise ValueError('must be a whole number of at least 0, or "unlimited"')
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


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _form(value: object) -> str | None:
    if isinstance(value, Mapping | EntitlementDocument):
        return "~whole"
    return "~short" if isinstance(value, bool | int | float | str) else None


Key: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Name: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]
Words: TypeAlias = Annotated[str, StringConstraints(max_length=2_000)]
TraitName: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=120)]
Link: TypeAlias = Annotated[str, StringConstraints(max_length=2_000), BeforeValidator(_link)]
DocumentLimit: TypeAlias = Annotated[
    int | str,
    PlainValidator(_limit),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": INT64_MAX}, {"const": "unlimited"}]}),
]
ConfigValue: TypeAlias = Annotated[Any, BeforeValidator(_config)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class SettingsDocument(_Part):
    """How this catalogue is sold. `downgrades` says when a self-service reduction takes effect."""

    downgrades: Literal["period_end", "now"] = "period_end"
    proration: Literal["charge_now", "next_invoice", "none"] = "charge_now"
    block_downgrade_over_limit: bool = True
    self_service_downgrades: bool = True
    self_service_downgrade_label: Annotated[str, Field(max_length=120)] = ""
    self_service_downgrade_url: Link | None = None
    past_due_grace_days: Annotated[int, Field(ge=0, le=365)] = 7
    week_start: Weekday = "monday"


class ConditionDocument(_Part):
    """One condition of a targeting rule; which members count depends on `kind`."""

    kind: Literal["company", "user", "plan", "add_on", "trait", "usage"]
    values: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=1_000)] = Field(
        default_factory=list
    )
    subject: Literal["company", "user"] = "company"
    trait: TraitName | None = None
    operator: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "contains"] = "eq"
    value: ConfigValue = None
    other_trait: TraitName | None = None
    feature: Key | None = None


class RuleDocument(_Part):
    """A targeting rule: it matches when every condition of any one group matches. The lowest priority goes first."""

    key: Key
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    allowed: bool = True
    groups: Annotated[
        list[Annotated[list[ConditionDocument], Field(max_length=50)]], Field(min_length=1, max_length=50)
    ]


class FlagDocument(_Part):
    """The rules behind a feature. `forced` switches it on or off for everybody."""

    forced: bool | None = None
    rules: Annotated[list[RuleDocument], Field(max_length=200)] = Field(default_factory=list)
    default: bool = False


class FeatureDocument(_Part):
    """A capability to gate, meter or track. `event` defaults to the feature's key."""

    name: Name
    type: Literal["boolean", "event", "trait", "seat", "config"]
    description: Words = ""
    event: TraitName | None = None
    trait: TraitName | None = None
    unit: Annotated[str, StringConstraints(min_length=1, max_length=60)] = "unit"
    units: Annotated[str, StringConstraints(min_length=1, max_length=60)] = "units"
    display_divisor: Annotated[int, Field(ge=1, le=INT64_MAX)] = 1
    config_type: Literal["string", "number", "json"] | None = None
    flag: FlagDocument = FlagDocument()
    archived: bool = False


class EntitlementDocument(_Part):
    """What a plan or add-on grants for one feature, in full. `sso: true` and `exports: 10` are its short forms."""

    enabled: bool | None = None
    limit: DocumentLimit | None = None
    limit_trait: TraitName | None = None
    config: ConfigValue = None
    period: Literal["day", "week", "month", "billing_month", "billing_interval", "all_time"] | None = None
    stacking: Literal["max", "sum"] = "max"
    soft_limit: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None


Shorthand: TypeAlias = Annotated[bool | int | float | str, BeforeValidator(_finite)]
Entitled: TypeAlias = Annotated[
    Annotated[Shorthand, Tag("~short")] | Annotated[EntitlementDocument, Tag("~whole")], Discriminator(_form)
]


class PriceDocument(_Part):
    """What it costs each interval per unit of quantity; the amount is in the currency's minor unit (1900 = $19.00)."""

    currency: Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$"), BeforeValidator(_lower)]
    interval: Literal["day", "week", "month", "year"]
    amount_minor: Annotated[int, Field(ge=0, le=_MAXIMUM_AMOUNT)]
    interval_count: Annotated[int, Field(ge=1, le=36)] = 1


class _Sold(_Part):
    name: Name
    description: Words = ""
    archived: bool = False
    entitlements: Annotated[dict[Key, Entitled], Field(max_length=500)] = Field(default_factory=dict)
    prices: Annotated[list[PriceDocument], Field(max_length=100)] = Field(default_factory=list)


class PlanDocument(_Sold):
    """A plan: what a company is on. Without prices it is free, unless it is sold by hand (`contact_us`)."""

    recommended: bool = False
    contact_us: bool = False
    contact_url: Link | None = None
    trial_days: Annotated[int, Field(ge=0, le=730)] = 0


class AddOnDocument(_Sold):
    """An add-on: it stacks beside a plan. `fits` names the plans it may stand beside (none named: any)."""

    fits: Annotated[list[Key], Field(max_length=100)] = Field(default_factory=list)


class CatalogDocument(_Part):
    """Everything that is on offer. The order of features, plans and add-ons is the order in which they are shown."""

    version: Literal[1] = 1
    initial_plan: Key | None = None
    fallback_plan: Key | None = None
    trial_expiry_plan: Key | None = None
    settings: SettingsDocument = SettingsDocument()
    features: Annotated[dict[Key, FeatureDocument], Field(max_length=1_000)] = Field(default_factory=dict)
    plans: Annotated[dict[Key, PlanDocument], Field(max_length=200)] = Field(default_factory=dict)
    add_ons: Annotated[dict[Key, AddOnDocument], Field(max_length=200)] = Field(default_factory=dict)

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


# --- compiling -------------------------------------------------------------------------------------


def compile_catalog(
    revision: CatalogRevisionRow | None,
    plan_versions: Sequence[PlanVersionRow],
    stripe_prices: Sequence[StripePriceRow],
    plan_products: Mapping[str, str],
    add_on_products: Mapping[str, str],
    *,
    time_zone: str = "UTC",
) -> Catalog:
    """The engine's catalogue at one revision (None: before the first, when nothing is on offer).

    `plan_versions` and `stripe_prices` are all there ever were; versions newer than the revision are left out.
    """
    if revision is None:
        return Catalog(revision=0, settings=CatalogSettings(time_zone=time_zone))
    document = CatalogDocument.model_validate(revision.document)
    newest_of: Mapping[str, int] = revision.versions
    products: Mapping[Kind, Mapping[str, str]] = {"plan": plan_products, "add_on": add_on_products}
    stored = {(row.kind, row.key, row.version): row for row in plan_versions}
    plans: dict[str, PlanVersion] = {}
    add_ons: dict[str, PlanVersion] = {}
    older: dict[str, PlanVersion] = {}
    for position, (kind, key, sold) in enumerate(document.sold()):
        newest = newest_of[f"{kind}:{key}"]
        shown = offered_version(document, kind, key, version=newest, position=position)
        for version in range(1, newest + 1):
            row = stored.get((kind, key, version))
            if row is None:
                continue
            terms = msgspec.convert(row.document, PlanVersion)
            whole = msgspec.structs.replace(
                terms,
                stripe_product_id=products[kind].get(key),
                prices=_with_stripe_ids(terms, stripe_prices),
                is_archived=sold.archived,
            )
            if version < newest:
                older[version_key(kind, key, version)] = whole
                continue
            # How it is shown follows the document at once; what it grants and costs is what was published.
            (plans if kind == "plan" else add_ons)[key] = msgspec.structs.replace(
                whole,
                name=shown.name,
                description=shown.description,
                is_recommended=shown.is_recommended,
                contact_url=shown.contact_url,
                position=position,
            )
    return Catalog(
        revision=revision.revision,
        features={key: _feature(key, one) for key, one in document.features.items()},
        plans=plans,
        add_ons=add_ons,
        older_versions=older,
        price_owners={row.stripe_price_id: _owner(row, newest_of) for row in stripe_prices},
        initial_plan=document.initial_plan,
        fallback_plan=document.fallback_plan,
        trial_expiry_plan=document.trial_expiry_plan,
        settings=_settings(document.settings, time_zone),
    )


def offered_version(
    document: CatalogDocument, kind: Kind, key: str, *, version: int = 1, position: int = 0
) -> PlanVersion:
    """A plan or add-on of the document as the engine's version, without anything of Stripe's.

    Raises KeyError when the document has none of that key.
    """
    sold: PlanDocument | AddOnDocument = document.plans[key] if kind == "plan" else document.add_ons[key]
    plan = sold if isinstance(sold, PlanDocument) else None
    return PlanVersion(
        key=key,
        version=version,
        kind=kind,
        name=sold.name,
        description=sold.description,
        # In the order of the features, so that two documents that grant the same compare equal.
        entitlements=tuple(
            resolved_entitlement(feature, document.features[feature], sold.entitlements[feature])
            for feature in document.features
            if feature in sold.entitlements
        ),
        prices=tuple(
            Price(
                currency=price.currency,
                interval=Interval(price.interval),
                amount_minor=price.amount_minor,
                interval_count=price.interval_count,
            )
            for price in sold.prices
        ),
        trial_days=plan.trial_days if plan else 0,
        is_recommended=plan.recommended if plan else False,
        is_contact_us=plan.contact_us if plan else False,
        contact_url=plan.contact_url if plan else None,
        is_archived=sold.archived,
        fits=tuple(sold.fits) if isinstance(sold, AddOnDocument) else (),
        position=position,
    )


def resolved_entitlement(key: str, feature: FeatureDocument, entitled: Entitled) -> Entitlement:
    """The entitlement in full. Usage without a period is counted per billing month; a soft limit alone never ends."""
    if not isinstance(entitled, EntitlementDocument):
        entitled = spelled_out(feature, entitled)
    is_counted = feature.type == "event"
    limit: Limit | None = UNLIMITED if entitled.limit == "unlimited" else entitled.limit  # type: ignore[assignment]
    if limit is None and entitled.limit_trait is None and entitled.soft_limit is not None:
        limit = UNLIMITED
    default_period = PeriodKind.BILLING_MONTH if is_counted else None
    return Entitlement(
        feature=key,
        enabled=entitled.enabled,
        limit=limit,
        limit_trait=entitled.limit_trait,
        config=entitled.config,
        period=PeriodKind(entitled.period) if entitled.period is not None else default_period,
        stacking=Stacking(entitled.stacking),
        soft_limit=entitled.soft_limit,
    )


def spelled_out(feature: FeatureDocument, value: Json) -> EntitlementDocument:
    """What a short form means for a feature of this type. Raises ValidationError when it means nothing."""
    match feature.type:
        case "boolean":
            return EntitlementDocument.model_validate({"enabled": value})
        case "config":
            return EntitlementDocument.model_validate({"config": value})
        case "event" | "trait" | "seat":
            return EntitlementDocument.model_validate({"limit": value})


def _feature(key: str, feature: FeatureDocument) -> Feature:
    return Feature(
        key=key,
        name=feature.name,
        type=FeatureType(feature.type),
        description=feature.description,
        event=feature.event,
        trait=feature.trait,
        unit=feature.unit,
        units=feature.units,
        display_divisor=feature.display_divisor,
        config_type=feature.config_type,
        flag=Flag(
            forced=feature.flag.forced,
            default=feature.flag.default,
            rules=tuple(
                Rule(
                    key=rule.key,
                    priority=rule.priority,
                    allowed=rule.allowed,
                    groups=tuple(
                        tuple(msgspec.convert(condition.model_dump(), Condition) for condition in group)
                        for group in rule.groups
                    ),
                )
                for rule in feature.flag.rules
            ),
        ),
        is_archived=feature.archived,
    )


def _settings(settings: SettingsDocument, time_zone: str) -> CatalogSettings:
    return CatalogSettings(
        downgrades=settings.downgrades,
        proration=settings.proration,
        is_downgrade_blocked_over_limit=settings.block_downgrade_over_limit,
        is_self_service_downgrade_allowed=settings.self_service_downgrades,
        self_service_downgrade_label=settings.self_service_downgrade_label,
        self_service_downgrade_url=settings.self_service_downgrade_url,
        past_due_grace_days=settings.past_due_grace_days,
        time_zone=time_zone,
        week_start=_WEEKDAYS.index(settings.week_start),
    )


def _with_stripe_ids(version: PlanVersion, rows: Sequence[StripePriceRow]) -> tuple[Price, ...]:
    """The version's prices with their Stripe ids: a price on sale is preferred, then the newest."""
    known: dict[tuple[str, str, int, int], tuple[bool, str]] = {}
    for row in rows:
        if (row.owner_kind, row.owner_key) == (version.kind, version.key):
            terms = (row.currency, row.interval, row.interval_count, row.amount_minor)
            if row.is_active or not known.get(terms, (False, ""))[0]:
                known[terms] = (row.is_active, row.stripe_price_id)
    return tuple(
        msgspec.structs.replace(
            price,
            stripe_price_id=known.get(
                (price.currency, price.interval.value, price.interval_count, price.amount_minor), (False, None)
            )[1],
        )
        for price in version.prices
    )


def _owner(row: StripePriceRow, newest_of: Mapping[str, int]) -> PriceOwner:
    # A price may sell a version published after this revision; as known then, it sold the newest of then.
    newest = newest_of.get(f"{row.owner_kind}:{row.owner_key}", row.owner_version)
    return PriceOwner(
        kind="plan" if row.owner_kind == "plan" else "add_on",
        key=row.owner_key,
        version=min(row.owner_version, newest),
        price=Price(
            currency=row.currency,
            interval=Interval(row.interval),
            amount_minor=row.amount_minor,
            interval_count=row.interval_count,
            stripe_price_id=row.stripe_price_id,
        ),
    )
