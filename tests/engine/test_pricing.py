"""Proves what a quantity costs, and that prices of any interval are compared by what they come to each month."""

from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plangate.engine.catalog import Price, PriceTier
from plangate.engine.pricing import amount_of, monthly_amount, months_in, price_for
from plangate.engine.values import Interval
from plangate.sandbox.money import charge_for
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
    assert price_for(version, currency="usd", interval=Interval.MONTH, interval_count=3) is quarterly
    assert price_for(version, currency="usd", interval=Interval.MONTH, interval_count=6) is monthly
    assert price_for(version, currency="usd", interval=Interval.YEAR) is yearly
    assert price_for(version, currency="usd", interval=Interval.WEEK) is quarterly
    by_the_quarter = plan("pro", prices=(price("pro", Interval.YEAR, 1), quarterly))
    assert price_for(by_the_quarter, currency="usd", interval=Interval.MONTH) is quarterly
    assert price_for(version, currency=None) is quarterly
    assert price_for(version, currency="jpy") is None
    assert price_for(plan("free"), currency=None) is None


def tiered(mode: Literal["graduated", "volume"], *tiers: tuple[int | None, str, int]) -> Price:
    return Price(
        currency="usd",
        interval=Interval.MONTH,
        tiers_mode=mode,
        tiers=tuple(PriceTier(up_to=up_to, amount=amount, flat_amount_minor=flat) for up_to, amount, flat in tiers),
    )


STEPS: tuple[tuple[int | None, str, int], ...] = ((10, "500", 1000), (20, "400", 0), (None, "0.5", 300))


@pytest.mark.parametrize(
    ("mode", "quantity", "amount"),
    [
        ("volume", 0, 1000),
        ("volume", 10, 6000),
        ("volume", 11, 4400),
        ("volume", 21, 311),  # 10.5 + 300, and a half is rounded up
        ("graduated", 0, 1000),
        ("graduated", 1, 1500),
        ("graduated", 10, 6000),
        ("graduated", 11, 6400),
        ("graduated", 20, 10000),
        ("graduated", 21, 10301),
    ],
)
def test_what_tiers_cost(mode: Literal["graduated", "volume"], quantity: int, amount: int) -> None:
    assert amount_of(tiered(mode, *STEPS), quantity) == amount


@pytest.mark.parametrize(
    ("rounding", "quantity", "amount"),
    [("up", 0, 0), ("up", 1, 250), ("up", 1000, 250), ("up", 1001, 500), ("down", 999, 0), ("down", 2999, 500)],
)
def test_packages_are_whole(rounding: Literal["up", "down"], quantity: int, amount: int) -> None:
    packages = Price(
        currency="usd", interval=Interval.MONTH, amount_minor=250, package_size=1000, package_rounding=rounding
    )
    assert amount_of(packages, quantity) == amount


def test_fractions_of_a_minor_unit_are_rounded_once() -> None:
    calls = Price(currency="usd", interval=Interval.MONTH, amount_decimal="0.004")
    assert [amount_of(calls, quantity) for quantity in (0, 124, 125, 1000)] == [0, 0, 1, 4]
    assert monthly_amount(calls) == Fraction(4, 1000)


QUANTITIES = st.integers(0, 10**7)
AMOUNTS = st.integers(0, 10**6) | st.decimals(0, 1000, places=4)
ROUNDINGS: st.SearchStrategy[Literal["up", "down"]] = st.sampled_from(["up", "down"])


@st.composite
def steps(draw: st.DrawFn) -> tuple[tuple[int | None, str, int], ...]:
    ends = sorted(draw(st.sets(st.integers(1, 10**6), max_size=5)))
    return tuple((end, str(draw(AMOUNTS)), draw(st.integers(0, 10**5))) for end in (*ends, None))


@given(steps(), QUANTITIES, ROUNDINGS, st.integers(1, 5000))
def test_amounts_are_the_stand_ins(
    rows: tuple[tuple[int | None, str, int], ...], quantity: int, rounding: Literal["up", "down"], size: int
) -> None:
    """Two independent reckonings of the same price: ours in fractions, the stand-in's in decimals."""
    tiers = [
        {"up_to": up_to, "unit_amount_decimal": amount, "flat_amount_decimal": flat} for up_to, amount, flat in rows
    ]
    for mode in ("graduated", "volume"):
        theirs = {"billing_scheme": "tiered", "tiers_mode": mode, "tiers": tiers, "transform_quantity": None}
        assert amount_of(tiered(mode, *rows), quantity) == charge_for(theirs, quantity)
    amount = rows[0][1]
    packages = Price(
        currency="usd",
        interval=Interval.MONTH,
        amount_decimal=amount,
        package_size=size,
        package_rounding=rounding,
    )
    transform = None if size == 1 else {"divide_by": size, "round": rounding}
    plain = {"billing_scheme": "per_unit", "unit_amount_decimal": amount, "transform_quantity": transform}
    assert amount_of(packages, quantity) == charge_for(plain, quantity)


@given(steps(), st.integers(1, 10**6), st.integers(0, 1000))
def test_more_of_a_graduated_price_never_costs_less(
    rows: tuple[tuple[int | None, str, int], ...], quantity: int, more: int
) -> None:
    price_of_steps = tiered("graduated", *rows)
    assert amount_of(price_of_steps, quantity) <= amount_of(price_of_steps, quantity + more)
    exact = monthly_amount(price_of_steps, quantity) * quantity
    assert abs(amount_of(price_of_steps, quantity) - exact) <= Fraction(1, 2)


@given(st.integers(0, 10**8), st.integers(0, 10**6))
def test_a_flat_price_is_the_amount_times_the_quantity(amount_minor: int, quantity: int) -> None:
    flat = price("pro", Interval.MONTH, amount_minor)
    assert amount_of(flat, quantity) == amount_minor * quantity
    assert monthly_amount(flat, quantity) == amount_minor
