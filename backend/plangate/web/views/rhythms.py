"""How often something is paid, as the pages choose and say it: every month, every year, every three months."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from plangate.engine.catalog import Price
from plangate.engine.pricing import months_in
from plangate.engine.values import Interval
from plangate.shapes import ScheduledChange, SubscriptionView
from plangate.web.wording import Reader

_KEY: Final = re.compile(r"(?:([1-9][0-9]{0,3})-)?(day|week|month|year)")


@dataclass(frozen=True, slots=True)
class Rhythm:
    """So many intervals from one payment to the next."""

    interval: Interval
    interval_count: int = 1

    @property
    def key(self) -> str:
        """How forms and attributes name it: `month`, or `3-month` for every three of them."""
        return self.interval.value if self.interval_count == 1 else f"{self.interval_count}-{self.interval}"

    @property
    def months(self) -> Fraction:
        """How many months it lasts, by which choices are in order."""
        return months_in(self.interval, self.interval_count)

    def say(self, reader: Reader, text: str, **words: str) -> str:
        """A text that there is for each interval (`per.month`), and for several of one (`per.every`: "/3 months")."""
        if self.interval_count == 1:
            return reader.say(f"{text}.{self.interval}", **words)
        number = reader.number(self.interval_count)
        span = reader.say(f"span.{self.interval}", count=self.interval_count, number=number)
        return reader.say(f"{text}.every", span=span, **words)


MONTHLY: Final = Rhythm(Interval.MONTH)
YEARLY: Final = Rhythm(Interval.YEAR)


def rhythm_of(key: str) -> Rhythm | None:
    """The rhythm that a key names, or None where it names none."""
    match = _KEY.fullmatch(key)
    return None if match is None else Rhythm(Interval(match[2]), int(match[1] or 1))


def rhythm_of_price(price: Price) -> Rhythm:
    """How often a price is paid."""
    return Rhythm(price.interval, price.interval_count)


def rhythm_paid(subscription: SubscriptionView) -> Rhythm:
    """How often a subscription's plan is paid."""
    return Rhythm(Interval(subscription.interval), subscription.interval_count)


def rhythm_scheduled(change: ScheduledChange) -> Rhythm | None:
    """How often the plan is paid from a scheduled change on; None where that stays as it is."""
    return None if change.interval is None else Rhythm(Interval(change.interval), change.interval_count)


def rhythms_of(prices: Iterable[Price]) -> tuple[Rhythm, ...]:
    """Every rhythm among prices, the shortest first."""
    return tuple(sorted({rhythm_of_price(price) for price in prices}, key=lambda one: (one.months, one.key)))
