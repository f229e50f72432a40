"""What is sold, as the engine reads it: features with their flags, plan and add-on versions, prices, audiences.

All values are immutable. Money is an integer of minor units; quantities are 64-bit integers in the feature's base unit.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from plangate.engine.values import (
    FeatureType,
    Interval,
    Json,
    PeriodKind,
    PriceBehaviour,
    Stacking,
    Unlimited,
)


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


class CheckoutFields(msgspec.Struct, frozen=True, kw_only=True):
    """What Stripe's page asks a customer for; `asks_trial_card` also where a trial costs nothing yet."""

    asks_trial_card: bool = True
    asks_billing_address: bool = False
    asks_phone: bool = False
    asks_tax_id: bool = False


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
    checkout: CheckoutFields = CheckoutFields()
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
