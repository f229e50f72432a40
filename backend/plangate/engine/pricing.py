"""What a quantity costs, and prices made comparable: what one comes to each month, exactly, whatever its interval."""

import math
from collections.abc import Sequence
from fractions import Fraction

from plangate.engine.catalog import PlanVersion, Price
from plangate.engine.values import Interval

# A year has 12 months and 365 days, so a month is 365/12 days.
_MONTHS_PER_INTERVAL = {
    Interval.DAY: Fraction(12, 365),
    Interval.WEEK: Fraction(84, 365),
    Interval.MONTH: Fraction(1),
    Interval.YEAR: Fraction(12),
}


_HALF = Fraction(1, 2)


def amount_of(price: Price, quantity: int) -> int:
    """What `quantity` units cost each interval, in minor units: one whole amount, a half rounded up as Stripe does.

    Packages come first, then tiers. Every unit of a volume price costs what the tier of the last one says; a graduated
    price fills one tier after the other, and its first flat amount is due for no units too.
    """
    return math.floor(_exact(price, quantity) + _HALF)


def months_in(interval: Interval, interval_count: int = 1) -> Fraction:
    """How many months an interval lasts; days and weeks by a year of 365 days."""
    return _MONTHS_PER_INTERVAL[interval] * interval_count


def monthly_amount(price: Price, quantity: int | None = None) -> Fraction:
    """Minor units each month for one unit of a price: a yearly price divided by 12.

    One of tiers or packages is what a unit costs on average when `quantity` are held (None or 0: one).
    """
    units = max(quantity or 1, 1)
    return _exact(price, units) / units / months_in(price.interval, price.interval_count)


def price_for(
    version: PlanVersion, *, currency: str | None, interval: Interval | None = None, interval_count: int = 1
) -> Price | None:
    """The version's price in a currency (None: its first one), preferring what is billed as often as asked for.

    Without it the price of each such interval is taken, then one of another number of them (a quarterly price where a
    monthly one is asked for), then any other; of several the one that is cheapest each month. None when there is no
    price in that currency. Of a version that costs nothing but what it grants it is a price of that.
    """
    return price_among(prices_of(version), currency=currency, interval=interval, interval_count=interval_count)


def prices_of(version: PlanVersion) -> Sequence[Price]:
    """What the version is sold for; where it has no price of its own, those of what it grants."""
    return version.prices or tuple(price for one in version.entitlements for price in one.prices)


def price_among(
    prices: Sequence[Price], *, currency: str | None, interval: Interval | None = None, interval_count: int = 1
) -> Price | None:
    """The price in a currency (None: that of the first), preferring what is billed as often, as `price_for`."""
    wanted = currency if currency is not None else (prices[0].currency if prices else None)
    found = [price for price in prices if price.currency == wanted]
    alike = [price for price in found if price.interval is interval]
    exact = [price for price in alike if price.interval_count == interval_count]
    single = [price for price in alike if price.interval_count == 1]
    return min(exact or single or alike or found, key=monthly_amount, default=None)


def _exact(price: Price, quantity: int) -> Fraction:
    """The amount before it is rounded. The quantity is at least 0."""
    units = quantity
    if price.package_size > 1:
        # Whole packages: the one begun last is charged, or is free.
        units = -(-quantity // price.package_size) if price.package_rounding == "up" else quantity // price.package_size
    if not price.tiers:
        return units * (
            Fraction(price.amount_minor) if price.amount_decimal is None else Fraction(price.amount_decimal)
        )
    if price.tiers_mode == "volume":
        tier = next(one for one in price.tiers if one.up_to is None or units <= one.up_to)
        return units * Fraction(tier.amount) + tier.flat_amount_minor
    total, floor = Fraction(0), 0
    for tier in price.tiers:
        ceiling = units if tier.up_to is None else min(units, tier.up_to)
        total += (ceiling - floor) * Fraction(tier.amount) + tier.flat_amount_minor
        if ceiling == units:
            break
        floor = ceiling
    return total
