"""Proves that prices of any interval are compared by what they come to each month, exactly."""

from fractions import Fraction

import pytest

from plangate.engine.model import Interval
from plangate.engine.pricing import monthly_amount, months_in, price_for
from tests.engine.factories import plan, price


@pytest.mark.parametrize(
    ("interval", "count", "amount_minor", "monthly"),
    [
        (Interval.MONTH, 1, 4900, Fraction(4900)),
        (Interval.MONTH, 3, 4900, Fraction(4900, 3)),
        (Interval.YEAR, 1, 49000, Fraction(49000, 12)),
        (Interval.YEAR, 2, 49000, Fraction(49000, 24)),
        # A year has 365 days: 365 days at 100 are 36,500 a year.
        (Interval.DAY, 1, 100, Fraction(36500, 12)),
        (Interval.WEEK, 1, 700, Fraction(36500, 12)),
        (Interval.WEEK, 2, 1400, Fraction(36500, 12)),
    ],
)
def test_what_a_price_comes_to_each_month(interval: Interval, count: int, amount_minor: int, monthly: Fraction) -> None:
    assert monthly_amount(price("pro", interval, amount_minor, count=count)) == monthly


def test_how_long_intervals_are() -> None:
    assert [months_in(one) for one in (Interval.MONTH, Interval.YEAR)] == [1, 12]
    assert months_in(Interval.WEEK, 365) == 7 * months_in(Interval.DAY, 365) == 84


def test_the_price_of_an_interval_is_preferred_and_then_the_cheapest() -> None:
    quarterly = price("pro", Interval.MONTH, 9000, count=3)
    monthly, yearly = price("pro", Interval.MONTH, 4900), price("pro", Interval.YEAR, 49000)
    version = plan("pro", prices=(quarterly, monthly, yearly, price("pro", Interval.MONTH, 1, currency="eur")))
    assert price_for(version, currency="usd", interval=Interval.MONTH) is monthly
    assert price_for(version, currency="usd", interval=Interval.YEAR) is yearly
    assert price_for(version, currency="usd", interval=Interval.WEEK) is quarterly
    assert price_for(version, currency=None) is quarterly
    assert price_for(version, currency="jpy") is None
    assert price_for(plan("free"), currency=None) is None
