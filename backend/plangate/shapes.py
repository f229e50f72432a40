"""The JSON shapes of the contract that more than one surface answers with: Company, Override, Quote, PlanChange.

API, Stripe App and components encode the same values, so they cannot differ. Decision lives in engine/decision.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from plangate.engine.catalog import Price
from plangate.engine.facts import PlanSource
from plangate.engine.values import Json, TraitValue


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """An amount in integer minor units (cents, or yen) of a lower-case ISO currency."""

    amount_minor: int
    currency: str


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who did it: an API key, a Stripe dashboard user, an end customer, the command line or Plangate itself."""

    kind: Literal["api_key", "stripe_user", "customer", "cli", "system", "stripe"]
    id: str


class HeldPlan(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    version: int
    source: PlanSource


class HeldAddOn(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    version: int
    quantity: int = 1


class SubscriptionPeriod(msgspec.Struct, frozen=True, kw_only=True):
    start: datetime
    end: datetime


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """The subscription the base plan comes from, paid every `interval_count` intervals (`month` and 3: quarterly).

    `cancel_at` is the scheduled end, however Stripe expresses it.
    """

    status: str
    interval: str
    interval_count: int = 1
    currency: str
    period: SubscriptionPeriod
    cancel_at: datetime | None = None
    trial_end: datetime | None = None


class ScheduledChange(msgspec.Struct, frozen=True, kw_only=True):
    """The change that waits for its date. `id` is the PlanChange's, or None when it was made in Stripe."""

    id: str | None
    kind: str
    plan: str | None
    effective_at: datetime
    interval: str | None = None
    interval_count: int = 1
    quantity: int = 1
    add_ons: Mapping[str, int] = {}
    units: Mapping[str, int] = {}


class Company(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    keys: Mapping[str, str]
    stripe_customer_ids: tuple[str, ...] = ()
    name: str | None = None
    traits: Mapping[str, TraitValue] = {}
    plan: HeldPlan | None = None
    add_ons: tuple[HeldAddOn, ...] = ()
    units: Mapping[str, int] = {}
    subscription: SubscriptionView | None = None
    scheduled_change: ScheduledChange | None = None
    past_due_grace_days: int | None = None
    created_at: datetime
    updated_at: datetime


class OverrideState(StrEnum):
    SCHEDULED = "scheduled"
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class OverrideView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    company: str
    feature: str
    mode: str
    value: Json
    note: str
    author: Actor
    state: OverrideState
    starts_at: datetime
    etag: str
    user: str | None = None
    period: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class ChangeState(StrEnum):
    REQUESTED = "requested"
    AWAITING_PAYMENT = "awaiting_payment"
    REQUIRES_ACTION = "requires_action"
    SCHEDULED = "scheduled"
    APPLYING = "applying"
    APPLIED = "applied"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    FAILED = "failed"


class ChangeKind(StrEnum):
    SUBSCRIBE = "subscribe"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    CANCEL = "cancel"
    RESUME = "resume"


class NextAction(msgspec.Struct, frozen=True, kw_only=True):
    """What a person must still do, and where: `checkout`, `authenticate` or `pay_invoice`."""

    kind: Literal["checkout", "authenticate", "pay_invoice"]
    url: str


class QuoteLine(msgspec.Struct, frozen=True, kw_only=True):
    description: str
    amount_minor: int
    proration: bool = False


class UsagePrice(msgspec.Struct, frozen=True, kw_only=True):
    """What usage of a feature costs beside the invoice quoted: billed at the end of each period, as it was used."""

    feature: str
    name: str
    price: Price


class NextInvoice(msgspec.Struct, frozen=True, kw_only=True):
    amount_minor: int
    currency: str
    at: datetime


class EntitlementEffect(msgspec.Struct, frozen=True, kw_only=True):
    """One feature that a change gains or loses. `before`/`after`: bool, number, "unlimited", config value or null."""

    feature: str
    name: str
    before: Json = None
    after: Json = None


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """Usage that would exceed the limit after the change."""

    feature: str
    used: int
    limit: int
    name: str = ""


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """A signed preview, valid 15 minutes. `quote` is the signed text a confirmation sends back."""

    quote: str
    kind: ChangeKind
    when: datetime
    due_today: Money
    lines: tuple[QuoteLine, ...] = ()
    credit: Money | None = None
    tax: Money | None = None
    next_invoice: NextInvoice | None = None
    plus_usage: tuple[UsagePrice, ...] = ()
    gained: tuple[EntitlementEffect, ...] = ()
    lost: tuple[EntitlementEffect, ...] = ()
    violations: tuple[Violation, ...] = ()
    ends: tuple[str, ...] = ()
    expires_at: datetime
    is_scheduled: bool = False
    needs_checkout: bool = False


class AgreedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What was agreed on with one company for its plan: so much for each, every `interval_count` intervals."""

    amount_minor: int
    currency: str
    interval: str
    interval_count: int = 1


class ChangeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a PlanChange: what was, or will be, held. `units` are those paid in advance, by feature."""

    plan: str | None
    version: int | None = None
    interval: str | None = None
    interval_count: int = 1
    currency: str | None = None
    quantity: int = 1
    add_ons: Mapping[str, int] = {}
    units: Mapping[str, int] = {}
    custom_price: AgreedPrice | None = None


class RefusalView(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    detail: str


class PlanChange(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    id: str
    state: ChangeState
    kind: ChangeKind
    from_: ChangeTarget
    to: ChangeTarget
    effective_at: datetime
    next_action: NextAction | None = None
    requested_by: Actor
    refusal: RefusalView | None = None
    company: str = ""
    created_at: datetime
