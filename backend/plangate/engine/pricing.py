"""Prices made comparable: what a price comes to each month, exactly, whatever its interval."""

from fractions import Fraction

from plangate.engine.model import Interval, PlanVersion, Price

# A year has 12 months and 365 days, so a month is 365/12 days.
_MONTHS_PER_INTERVAL = {
    Interval.DAY: Fraction(12, 365),
    Interval.WEEK: Fraction(84, 365),
    Interval.MONTH: Fraction(1),
    Interval.YEAR: Fraction(12),
}


def months_in(interval: Interval, interval_count: int = 1) -> Fraction:
    """How many months an interval lasts; days and weeks by a year of 365 days."""
    return _MONTHS_PER_INTERVAL[interval] * interval_count


def monthly_amount(price: Price) -> Fraction:
    """Minor units each month for one unit of a price: a yearly price divided by 12."""
    return Fraction(price.amount_minor) / months_in(price.interval, price.interval_count)


def price_for(version: PlanVersion, *, currency: str | None, interval: Interval | None = None) -> Price | None:
    """The version's price in a currency (None: its first one), preferring the interval asked for.

    Without a price of that interval the one that is cheapest each month is taken; None when there is no price in
    that currency.
    """
    wanted = currency if currency is not None else (version.prices[0].currency if version.prices else None)
    prices = [price for price in version.prices if price.currency == wanted]
    exact = [price for price in prices if price.interval is interval and price.interval_count == 1]
    return min(exact or prices, key=monthly_amount, default=None)
