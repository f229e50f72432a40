"""The nouns of the engine: catalogue, facts about a company, snapshot, counters and Decision.

All values are immutable (the one exception is `WindowCounter`, which the owner of a cache updates in place).
Instants are aware UTC datetimes; periods are half-open `[start_at, end_at)`; quantities are 64-bit integers
in the feature's base unit; money is an integer of minor units.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec

INT64_MAX: Final = 2**63 - 1


class Unlimited(Enum):
    """The value of a limit that never ends. A named value, never None."""

    UNLIMITED = "unlimited"


UNLIMITED: Final = Unlimited.UNLIMITED
Json: TypeAlias = Any
Limit: TypeAlias = int | Unlimited
TraitValue: TypeAlias = str | int | float | bool | None


class FeatureType(StrEnum):
    BOOLEAN = "boolean"
    EVENT = "event"
    TRAIT = "trait"
    SEAT = "seat"
    CONFIG = "config"


class PeriodKind(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    BILLING_MONTH = "billing_month"
    BILLING_INTERVAL = "billing_interval"
    ALL_TIME = "all_time"


class Stacking(StrEnum):
    MAX = "max"
    SUM = "sum"


class Interval(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


class PriceBehaviour(StrEnum):
    INCLUDED = "included"
    PAY_AS_YOU_GO = "pay_as_you_go"
    PAY_IN_ADVANCE = "pay_in_advance"
    OVERAGE = "overage"
    TIERS = "tiers"


class OverrideMode(StrEnum):
    SET = "set"
    ADD = "add"
    DENY = "deny"


class SourceKind(StrEnum):
    PLAN = "plan"
    ADD_ON = "add_on"
    OVERRIDE = "override"
    FLAG = "flag"
    RULE = "rule"
    DEFAULT = "default"


class PlanSource(StrEnum):
    """Where the base plan comes from, in order of precedence."""

    SUBSCRIPTION = "subscription"
    ASSIGNMENT = "assignment"
    AUDIENCE = "audience"
    INITIAL = "initial"
    TRIAL_EXPIRY = "trial_expiry"
    FALLBACK = "fallback"


class Reason(StrEnum):
    """Why a Decision is what it is: a closed list, stable, documented in docs/reference/reasons.md."""

    GRANTED = "granted"
    WITHIN_LIMIT = "within_limit"
    UNLIMITED = "unlimited"
    LIMIT_REACHED = "limit_reached"
    OVERRIDE = "override"
    OVERRIDE_DENIED = "override_denied"
    FLAG_ON = "flag_on"
    FLAG_OFF = "flag_off"
    RULE_MATCHED = "rule_matched"
    NO_ENTITLEMENT = "no_entitlement"
    DEFAULT = "default"
    UNKNOWN_FEATURE = "unknown_feature"
    ARCHIVED_FEATURE = "archived_feature"
    UNKNOWN_COMPANY = "unknown_company"
    UNKNOWN_USER = "unknown_user"
    TRAIT_MISSING = "trait_missing"
    CREDITS_EXHAUSTED = "credits_exhausted"
    SUBSCRIPTION_INACTIVE = "subscription_inactive"


# --- the catalogue -------------------------------------------------------------------------------


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One condition of a rule. `kind` says what is compared.

    company, user: `values` are ids or `key=value` texts · plan, add_on: `values` are plan keys · product: `values` are
    Stripe product ids that live subscriptions hold · trait: `trait` of `subject` compared by `operator` with `value`
    (or with `other_trait` of the same subject) · usage: used of `feature` compared by `operator` with `value`.

    A missing trait never matches. `value_type` says what a trait must be: one of another type never matches, and a
    `date` is a day or an RFC 3339 instant as text, days and instants without an offset being in UTC. Without it, values
    of one kind are compared as they are.
    """

    kind: Literal["company", "user", "plan", "add_on", "trait", "usage", "product"]
    values: tuple[str, ...] = ()
    subject: Literal["company", "user"] = "company"
    trait: str | None = None
    operator: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "contains"] = "eq"
    value: Json = None
    other_trait: str | None = None
    feature: str | None = None
    value_type: Literal["string", "number", "boolean", "date"] | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A targeting rule: it matches when every condition of any one group matches. Lower priority number first."""

    key: str
    priority: int = 0
    groups: tuple[tuple[Condition, ...], ...] = ()
    allowed: bool = True


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """The rules behind a feature. `forced` is on/off for everyone; None leaves the order of precedence alone."""

    forced: bool | None = None
    rules: tuple[Rule, ...] = ()
    default: bool = False


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """Companies that are on a plan by rule, when neither a live subscription nor an assignment says otherwise.

    It matches when every condition of any one group does. The lower priority number is tried first, then by key.
    Conditions look at the company, its traits, its add-ons and the Stripe products it holds; others never match.
    """

    key: str
    plan: str
    priority: int = 0
    groups: tuple[tuple[Condition, ...], ...] = ()


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """A capability to gate, meter or track.

    `event` is the name of the tracked events an event feature counts (default: its key); `trait` names the
    company trait a trait or seat feature reads as "used". `display_divisor` turns base units into shown ones.
    `config_schema` is what a JSON config value must look like (see `engine.config_values`); None allows anything.
    `stripe_meter` is the event name of the Stripe meter that usage is reported to, or, where `usage_source` says so,
    read from.
    """

    key: str
    name: str
    type: FeatureType
    description: str = ""
    event: str | None = None
    trait: str | None = None
    unit: str = "unit"
    units: str = "units"
    display_divisor: int = 1
    config_type: Literal["string", "number", "json"] | None = None
    config_schema: Json = None
    flag: Flag = Flag()
    stripe_meter: str | None = None
    usage_source: Literal["events", "stripe_meter"] = "events"
    is_archived: bool = False


class PriceTier(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a tiered price: up to and including `up_to` units (None: all that are left).

    `amount` is decimal text of minor units for each unit, such as "0.25"; `flat_amount_minor` is charged on top once.
    """

    up_to: int | None
    amount: str
    flat_amount_minor: int = 0


class Price(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is paid each interval in one currency: for a plan version or add-on, or for one feature it grants.

    `amount_minor` is for each unit; it is 0 where `amount_decimal` (decimal text, at most 12 places) or `tiers` say it
    instead. With a `package_size`, the amount is for each package of so many units, the last one rounded up or away
    (Stripe's `transform_quantity`). A metered price bills what the meter with the event name `meter` counted.
    `engine.pricing.amount_of` says what a quantity costs.
    """

    currency: str
    interval: Interval
    amount_minor: int = 0
    interval_count: int = 1
    stripe_price_id: str | None = None
    amount_decimal: str | None = None
    tiers_mode: Literal["graduated", "volume"] | None = None
    tiers: tuple[PriceTier, ...] = ()
    package_size: int = 1
    package_rounding: Literal["up", "down"] = "up"
    is_metered: bool = False
    meter: str | None = None


class Entitlement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one plan version or add-on grants for one feature. Exactly one of the five value fields is set.

    `enabled` (boolean) · `limit` (a number or UNLIMITED) · `limit_trait` (the company trait holding the limit) ·
    `config` (a config value). `soft_limit` marks where overage begins; with it the answer stays "yes".

    `scope` says whose usage an event feature's limit is for: all of the company's together, or each user's own
    ("each user gets 50 exports"). It means nothing for the other types.

    `prices` are paid for this feature beside the plan's own, as `price_behaviour` says: for the units bought, which
    are then the limit (pay in advance); for all that is used (pay as you go, tiers); for what is used beyond the soft
    limit (overage).
    """

    feature: str
    enabled: bool | None = None
    limit: int | Unlimited | None = None
    limit_trait: str | None = None
    config: Json = None
    period: PeriodKind | None = None
    stacking: Stacking = Stacking.MAX
    soft_limit: int | None = None
    price_behaviour: PriceBehaviour = PriceBehaviour.INCLUDED
    scope: Literal["company", "user"] = "company"
    prices: tuple[Price, ...] = ()


class PlanVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One published version of a plan or an add-on; it never changes.

    `fits` are the plan keys an add-on may stand beside (empty: any). A free plan has no prices.
    """

    key: str
    version: int
    kind: Literal["plan", "add_on"]
    name: str
    description: str = ""
    entitlements: tuple[Entitlement, ...] = ()
    prices: tuple[Price, ...] = ()
    trial_days: int = 0
    is_recommended: bool = False
    is_contact_us: bool = False
    contact_url: str | None = None
    is_archived: bool = False
    fits: tuple[str, ...] = ()
    position: int = 0
    stripe_product_id: str | None = None

    @property
    def is_free(self) -> bool:
        """No price at all, its own or for what it grants, and not sold by hand: the plan costs nothing."""
        return not self.prices and not self.is_contact_us and not any(one.prices for one in self.entitlements)


class PriceOwner(msgspec.Struct, frozen=True):
    """Which plan version or add-on version a Stripe price belongs to.

    `feature` is the entitlement that the price pays for; None: the plan or add-on itself. `company_id` is the only
    company a price agreed on with it is for; None: anybody.
    """

    kind: Literal["plan", "add_on"]
    key: str
    version: int
    price: Price
    feature: str | None = None
    company_id: str | None = None


class KeptVersions(msgspec.Struct, frozen=True):
    """The versions of one plan or add-on that companies may hold, each with the instant it was published, oldest first.

    Whoever held an older one than the first was migrated to it. The last one is the newest, which alone is sold.
    """

    versions: tuple[tuple[int, datetime], ...]


class CatalogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The catalogue's own settings. `downgrades` says when a self-service reduction takes effect."""

    downgrades: Literal["period_end", "now"] = "period_end"
    proration: Literal["charge_now", "next_invoice", "none"] = "charge_now"
    is_downgrade_blocked_over_limit: bool = True
    is_self_service_downgrade_allowed: bool = True
    self_service_downgrade_label: str = ""
    self_service_downgrade_url: str | None = None
    past_due_grace_days: int = 7
    paused_collection: Literal["keep", "fallback"] = "keep"
    on_refund: Literal["review", "revoke", "ignore"] = "review"
    on_dispute: Literal["review", "revoke", "ignore"] = "review"
    time_zone: str = "UTC"
    week_start: int = 0


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """What was on offer at one revision: features, newest published versions and every older one.

    `price_owners` maps every Stripe price id ever used to its owner, archived ones included. `older_versions` holds
    the published versions that are no longer sold but may still be held, keyed by `version_key`. `kept` says which of
    them are held still, by `plan/pro`; of a plan or add-on that is not in it, everybody holds the newest version.
    """

    revision: int
    features: Mapping[str, Feature] = {}
    plans: Mapping[str, PlanVersion] = {}
    add_ons: Mapping[str, PlanVersion] = {}
    older_versions: Mapping[str, PlanVersion] = {}
    price_owners: Mapping[str, PriceOwner] = {}
    initial_plan: str | None = None
    fallback_plan: str | None = None
    trial_expiry_plan: str | None = None
    settings: CatalogSettings = CatalogSettings()
    audiences: tuple[Audience, ...] = ()
    kept: Mapping[str, KeptVersions] = {}

    def newest(self, kind: Literal["plan", "add_on"], key: str) -> PlanVersion | None:
        """The newest published version of a plan or add-on, archived or not; None when the key is unknown."""
        return (self.plans if kind == "plan" else self.add_ons).get(key)

    def owner_of(self, stripe_price_id: str, company_id: str) -> PriceOwner | None:
        """What a Stripe price means on a subscription of this company; None when it is unknown, or another's own."""
        owner = self.price_owners.get(stripe_price_id)
        return owner if owner is None or owner.company_id in {None, company_id} else None

    def version_of(self, kind: Literal["plan", "add_on"], key: str, version: int) -> PlanVersion | None:
        """One published version, old or newest; None when the catalogue never had it."""
        newest = self.newest(kind, key)
        if newest is not None and newest.version == version:
            return newest
        return self.older_versions.get(version_key(kind, key, version))


def version_key(kind: Literal["plan", "add_on"], key: str, version: int) -> str:
    """The key of `Catalog.older_versions`, such as `plan/pro@2`."""
    return f"{kind}/{key}@{version}"


# --- facts about one company, as the store holds them ----------------------------------------------


class SubscriptionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a Stripe subscription. `quantity` is None for metered prices.

    `held_since` is when the subscription took this price, as far as we know; None stands for when it started.
    """

    stripe_item_id: str
    stripe_price_id: str
    stripe_product_id: str
    quantity: int | None
    is_metered: bool
    currency: str
    interval: Interval
    interval_count: int
    unit_amount_minor: int | None
    period_start_at: datetime
    period_end_at: datetime
    held_since: datetime | None = None


class ScheduledPhase(msgspec.Struct, frozen=True, kw_only=True):
    """A later phase of the subscription's schedule: when it starts and which prices (with quantities) it holds.

    `known_since` is when we first saw it with these prices: what it leads to are the versions sold then.
    """

    starts_at: datetime
    ends_at: datetime | None
    prices: tuple[tuple[str, int | None], ...]
    known_since: datetime | None = None


class SubscriptionFact(msgspec.Struct, frozen=True, kw_only=True):
    """What we know of one Stripe subscription after fetching it; `status` is Stripe's word, unknown ones grant nothing.

    `scheduled_end_at` is `cancel_at`, or the end of the period with `cancel_at_period_end`.
    `past_due_since` is when we first saw the first failed attempt of the unpaid invoice; `collection_paused_until` is
    the end of the period in which collection was paused, as long as it is.
    """

    stripe_subscription_id: str
    stripe_customer_id: str
    status: str
    items: tuple[SubscriptionItem, ...]
    currency: str
    anchor_at: datetime
    started_at: datetime
    scheduled_end_at: datetime | None = None
    ended_at: datetime | None = None
    trial_end_at: datetime | None = None
    past_due_since: datetime | None = None
    is_collection_paused: bool = False
    stripe_schedule_id: str | None = None
    is_schedule_ours: bool = False
    phases: tuple[ScheduledPhase, ...] = ()
    default_payment_method: str | None = None
    collection_paused_until: datetime | None = None


class AssignmentFact(msgspec.Struct, frozen=True, kw_only=True):
    """An explicit or initial assignment of a plan (or add-on), not through Stripe.

    `version` pins one published version; None follows the newest.
    """

    kind: Literal["plan", "add_on"]
    key: str
    source: PlanSource
    held_from: datetime
    held_until: datetime | None = None
    quantity: int = 1
    version: int | None = None


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """An exception for one company (or one user of it) on one feature, in force in `[starts_at, expires_at)`.

    `value`: bool for boolean features, a number or UNLIMITED for limits, anything for config; None with `deny`.
    """

    id: str
    feature: str
    mode: OverrideMode
    value: Json
    starts_at: datetime
    user: str | None = None
    period: PeriodKind | None = None
    expires_at: datetime | None = None


class UserFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What decides about one user of the company. `keys` are `name=value` texts."""

    user_id: str
    keys: frozenset[str] = frozenset()
    traits: Mapping[str, TraitValue] = {}


class PlanRef(msgspec.Struct, frozen=True):
    """One published version of a plan or add-on, by name."""

    key: str
    version: int


class VersionPin(msgspec.Struct, frozen=True):
    """The version of a plan or add-on that a migration moved one company to: it holds no older one."""

    kind: Literal["plan", "add_on"]
    key: str
    version: int


class CompanyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything stored that decides about one company, as known at one instant. `version` counts its changes.

    `last_mapped_plan` is the plan the company's subscriptions last mapped to while all their prices were known:
    it stays in force when a price becomes unknown. `past_due_grace_days` replaces the catalogue's setting. `withheld`
    are Stripe subscriptions that grant nothing, because a refund or dispute of them took their access away.
    """

    company_id: str
    version: int
    created_at: datetime
    keys: frozenset[str] = frozenset()
    traits: Mapping[str, TraitValue] = {}
    assignments: tuple[AssignmentFact, ...] = ()
    subscriptions: tuple[SubscriptionFact, ...] = ()
    overrides: tuple[Override, ...] = ()
    last_mapped_plan: PlanRef | None = None
    past_due_grace_days: int | None = None
    pins: tuple[VersionPin, ...] = ()
    withheld: frozenset[str] = frozenset()


class WindowCounter(msgspec.Struct, kw_only=True):
    """Usage of one feature in one stored window `[start_at, end_at)`; `end_at` is None for all time.

    Mutable on purpose: the process that counts updates `used` and `reserved` in place after its commit.
    """

    window_id: str
    start_at: datetime
    end_at: datetime | None
    used: int = 0
    reserved: int = 0


# Counters of one company: (feature key, period kind, user id or "") -> newest stored window.
Counters: TypeAlias = Mapping[tuple[str, PeriodKind, str], WindowCounter]


# --- answers ---------------------------------------------------------------------------------------


class Period(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    kind: PeriodKind
    start: datetime | None
    resets_at: datetime | None


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a Decision comes from. `key` is a plan, add-on or rule key, or an override's id."""

    kind: SourceKind
    key: str | None = None
    version: int | None = None


class TraceStep(msgspec.Struct, frozen=True, kw_only=True):
    """One source considered, in order of precedence, and what came of it in a sentence."""

    source: Source
    outcome: Literal["won", "lost", "not_matched", "exhausted", "combined"]
    detail: str


class Unlock(msgspec.Struct, frozen=True, kw_only=True):
    """The cheapest thing that would turn this "no" into a "yes".

    `units` are more of what is paid in advance: `key` is the feature, `quantity` how many are then held. So it is for
    an add-on of which one more would not be enough. The amount is what is to be paid for all of it.
    """

    kind: Literal["plan", "add_on", "units", "wait", "contact_us"]
    key: str | None = None
    name: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    interval: Interval | None = None
    at: datetime | None = None
    limit: int | str | None = None
    quantity: int | None = None


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Why: the sources in order of precedence, the cheapest way to a "yes", and every other way, cheapest first."""

    steps: tuple[TraceStep, ...]
    unlock: Unlock | None = None
    options: tuple[Unlock, ...] = ()


# Periods and Decisions hold no cycles and are made by the hundred thousand: the garbage collector need not know them.
class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to one check. Field order is the JSON order of the contract.

    `limit` is a number or null and `unlimited` says the rest; `value` carries a boolean or config value;
    `remaining` is null when there is no limit.
    """

    feature: str
    allowed: bool
    reason: Reason
    type: FeatureType | None = None
    value: Json = None
    limit: int | None = None
    unlimited: bool = False
    used: int | None = None
    reserved: int | None = None
    remaining: int | None = None
    soft_limit: int | None = None
    over_soft_limit: bool = False
    period: Period | None = None
    source: Source | None = None
    company: str | None = None
    user: str | None = None
    at: datetime | None = None
    stale: bool = False
    trace: Trace | None = None
