"""The answer to one check: a Decision with its reason, period and source, and, on request, the trace.

All values are immutable; instants are aware UTC datetimes; money is an integer of minor units.
"""

from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from plangate.engine.values import FeatureType, Interval, Json, PeriodKind


class SourceKind(StrEnum):
    PLAN = "plan"
    ADD_ON = "add_on"
    OVERRIDE = "override"
    FLAG = "flag"
    RULE = "rule"
    DEFAULT = "default"


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
    an add-on of which one more would not be enough. The amount is what is to be paid for all of it, every
    `interval_count` intervals.
    """

    kind: Literal["plan", "add_on", "units", "wait", "contact_us"]
    key: str | None = None
    name: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    interval: Interval | None = None
    interval_count: int = 1
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
