"""The numbers and closed lists that the catalogue, the facts about a company and a Decision are all made of.

Quantities are 64-bit integers in the feature's base unit.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Any, Final, TypeAlias

INT64_MAX: Final = 2**63 - 1
# Stripe's currencies whose minor unit is not a hundredth; it is not what ISO 4217 or the CLDR say of some others.
_DECIMALS: Final = {
    **dict.fromkeys(
        ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"], 0
    ),
    **dict.fromkeys(["bhd", "jod", "kwd", "omr", "tnd"], 3),
}


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


INTERVALS_MAX: Final[Mapping[Interval, int]] = {
    Interval.DAY: 1_095,
    Interval.WEEK: 156,
    Interval.MONTH: 36,
    Interval.YEAR: 3,
}
"""How many of an interval Stripe lets pass between two payments: three years at most."""

INTERVAL_COUNT_MAX: Final = max(INTERVALS_MAX.values())


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


def decimals_of(currency: str) -> int:
    """How many decimals amounts in a currency have in Stripe: 1900 minor units are 19.00 dollars, and 1,900 yen."""
    return _DECIMALS.get(currency.lower(), 2)
