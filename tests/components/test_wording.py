"""Money, numbers, dates and texts as one reader sees them, whatever the page says about that reader."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plangate.engine.values import FeatureType
from plangate.web.wording import PriceText, Reader, reader_of
from tests.components import canned


def _reader(locale: str | None = "en-US", zone: str | None = "Europe/Berlin") -> Reader:
    return reader_of(locale=locale, time_zone=zone, now=canned.NOW)


@pytest.mark.parametrize(
    ("amount", "currency", "parts", "full"),
    [
        (4900, "usd", PriceText("$", "49", "", ""), "$49.00"),
        (4950, "eur", PriceText("€", "49", ".50", ""), "€49.50"),
        (1_234_500, "usd", PriceText("$", "12,345", "", ""), "$12,345.00"),
        (500, "jpy", PriceText("¥", "500", "", ""), "¥500"),
        (0, "usd", PriceText("$", "0", "", ""), "$0.00"),
        # Stripe counts hundredths of these, whatever is usual where people pay in them.
        (190_000, "rsd", PriceText("RSD", "1,900", "", ""), "RSD1,900"),
        (190_050, "rsd", PriceText("RSD", "1,900", ".50", ""), "RSD1,900.50"),
        (500, "isk", PriceText("ISK", "5", "", ""), "ISK5"),
        (5_120, "kwd", PriceText("KWD", "5", ".120", ""), "KWD5.120"),
    ],
)
def test_prices_are_cut_for_typesetting(amount: int, currency: str, parts: PriceText, full: str) -> None:
    assert _reader().price(amount, currency) == parts
    assert _reader().money(amount, currency) == full


def test_negative_money_keeps_its_sign() -> None:
    assert _reader().money(-1234, "usd") == "-$12.34"


def test_dates_are_words_in_the_readers_zone_and_order() -> None:
    late = datetime(2026, 12, 2, 23, 30, tzinfo=UTC)
    assert _reader().day(late) == "December 3"
    assert _reader("en-GB").day(late) == "3 December"
    assert _reader(zone="UTC").day(late) == "December 2"
    assert _reader().day(datetime(2027, 1, 5, tzinfo=UTC)) == "January 5, 2027"


def test_counts_use_the_features_units_and_divisor() -> None:
    exports = canned.feature("exports", "Exports", FeatureType.EVENT, unit="export", units="exports")
    assert _reader().count(1, exports) == "1 export"
    assert _reader().count(7202, exports) == "7,202 exports"
    assert _reader().number(5400, divisor=3600) == "1.5"


def test_plural_forms_follow_the_count() -> None:
    assert _reader().say("pricing.all_features", count=1) == "All of it (1 feature)"
    assert _reader().say("pricing.all_features", count=7) == "All of it (7 features)"


def test_a_word_with_braces_is_only_a_word() -> None:
    assert _reader().say("pricing.choose", plan="{amount} {0.__class__}") == "Choose {amount} {0.__class__}"


@given(locale=st.text(max_size=40) | st.none(), zone=st.text(max_size=80) | st.none())
def test_no_locale_and_no_zone_is_an_error(locale: str | None, zone: str | None) -> None:
    reader = reader_of(locale=locale, time_zone=zone, now=canned.NOW)
    assert reader.language == "en"
    assert reader.day(canned.NOW)


@pytest.mark.parametrize("zone", ["../../etc/passwd", "/etc/localtime", "Mars/Olympus", "UTC\x00"])
def test_a_strange_zone_is_utc(zone: str) -> None:
    assert str(_reader(zone=zone).zone) == "UTC"
