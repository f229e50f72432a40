"""What is known of one company: subscriptions, assignments, overrides, traits, users and its counters.

All values are immutable (the one exception is `WindowCounter`, which the owner of a cache updates in place).
Instants are aware UTC datetimes; periods are half-open `[start_at, end_at)`.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

from plangate.engine.values import Interval, Json, OverrideMode, PeriodKind, TraitValue


class PlanSource(StrEnum):
    """Where the base plan comes from, in order of precedence."""

    SUBSCRIPTION = "subscription"
    ASSIGNMENT = "assignment"
    AUDIENCE = "audience"
    INITIAL = "initial"
    TRIAL_EXPIRY = "trial_expiry"
    FALLBACK = "fallback"


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

    `last_mapped_plan` is the base plan that a price of the company's subscriptions said last: it stays in force when
    that price becomes unknown. `past_due_grace_days` replaces the catalogue's setting. `withheld`
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
