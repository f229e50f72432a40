"""How components speak to one reader: texts from the message catalogues, money, numbers and dates in their locale."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache, cached_property
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton, format_time
from babel.numbers import format_currency, format_decimal, get_currency_precision

from plangate.engine.catalog import Feature
from plangate.engine.values import decimals_of
from plangate.resources import component_text, components_folder

Message = str | Mapping[str, str]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_MONEY = re.compile(r"^(?P<before>\D*)(?P<whole>\d(?:[\d.,'\u2019\s\u066c]*\d)?)(?P<after>\D*)$")
_START_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"


@dataclass(frozen=True, slots=True)
class PriceText:
    """A price cut for typesetting: currency before or after, a large whole part, a small fraction ("" when zero)."""

    before: str
    whole: str
    fraction: str
    after: str


@dataclass(frozen=True)
class Reader:
    """One person looking: language of the texts, locale of numbers and dates, time zone, and the present instant."""

    language: str
    locale: Locale
    zone: ZoneInfo
    now: datetime

    @property
    def lang(self) -> str:
        """The `lang` attribute of what we render: the language the texts are really in."""
        return self.language

    @property
    def direction(self) -> str:
        """`ltr` or `rtl`, for the `dir` attribute."""
        return str(self.locale.text_direction)

    @cached_property
    def _messages(self) -> Mapping[str, Message]:
        return _catalogue(self.language)

    def say(self, key: str, **words: object) -> str:
        """The text of `key` with its placeholders filled in. `count`, `days` choose the plural form."""
        message = self._messages.get(key) or _catalogue("en")[key]
        if not isinstance(message, str):
            amount = words.get("days", words.get("count"))
            form = self.locale.plural_form(amount if isinstance(amount, int) else 0)
            message = message.get(form, message["other"])
        is_isolated = self.direction == "rtl"

        def fill(match: re.Match[str]) -> str:
            word = str(words[match[1]])
            return f"{_START_ISOLATE}{word}{_END_ISOLATE}" if is_isolated else word

        return _PLACEHOLDER.sub(fill, message)

    def knows(self, key: str) -> bool:
        """Whether there is a text for `key`."""
        return key in self._messages

    def number(self, quantity: int, *, divisor: int = 1) -> str:
        """A quantity in base units, shown in the feature's display units with at most one decimal."""
        return str(format_decimal(Decimal(quantity) / divisor, format="#,##0.#", locale=self.locale))

    def count(self, quantity: int, feature: Feature) -> str:
        """A quantity with its unit: "1,000 exports", "1 export"."""
        unit = feature.unit if quantity == feature.display_divisor else feature.units
        return f"{self.number(quantity, divisor=feature.display_divisor)} {unit}"

    def money(self, amount_minor: int, currency: str) -> str:
        """An amount with its currency, in full: "$49.00"."""
        amount = major_units(amount_minor, currency)
        if amount != round(amount, get_currency_precision(currency.upper())):
            # Stripe's minor unit is a smaller one than people usually write.
            return self.fine_money(Decimal(amount_minor), currency)
        return str(format_currency(amount, currency.upper(), locale=self.locale))

    def short_money(self, amount_minor: int, currency: str) -> str:
        """An amount without a zero fraction: "$49", but "$49.50"."""
        parts = self.price(amount_minor, currency)
        return f"{parts.before}{parts.whole}{parts.fraction}{parts.after}"

    def fine_money(self, amount_minor: Decimal, currency: str) -> str:
        """An amount that may be a fraction of a minor unit, with as many decimals as it needs: "$0.002"."""
        major = amount_minor.scaleb(-decimals_of(currency)).normalize()
        digits = max(decimals_of(currency), -int(major.as_tuple().exponent))
        pattern = re.sub(r"[.]0+", "", str(self.locale.currency_formats["standard"].pattern))
        if digits:
            pattern = re.sub(r"0(?=[^0#]*(;|$))", "0." + "0" * digits, pattern)
        return str(format_currency(major, currency.upper(), format=pattern, locale=self.locale, currency_digits=False))

    def price(self, amount_minor: int, currency: str) -> PriceText:
        """An amount of minor units cut into its typographic parts."""
        amount = major_units(amount_minor, currency)
        whole = int(amount)
        bare = str(
            format_currency(
                Decimal(whole),
                currency.upper(),
                format=re.sub(r"[.]0+", "", str(self.locale.currency_formats["standard"].pattern)),
                locale=self.locale,
                currency_digits=False,
            )
        )
        match = _MONEY.match(bare)
        if match is None:
            return PriceText(before="", whole=self.money(amount_minor, currency), fraction="", after="")
        fraction = ""
        if amount != whole:
            digits = decimals_of(currency)
            cents = abs(amount - whole)
            fraction = str(format_decimal(cents, format="0." + "0" * digits, locale=self.locale))[1:]
        return PriceText(before=match["before"], whole=match["whole"], fraction=fraction, after=match["after"])

    def day(self, at: datetime) -> str:
        """A date in words, in the reader's zone; the year only when it is not this one."""
        local = at.astimezone(self.zone)
        is_this_year = local.year == self.now.astimezone(self.zone).year
        if is_this_year:
            return str(format_skeleton("MMMMd", local, locale=self.locale))
        return str(format_date(local.date(), format="long", locale=self.locale))

    def time(self, at: datetime) -> str:
        """A time of day in the reader's zone: "2:32 PM"."""
        return str(format_time(at.astimezone(self.zone), format="short", locale=self.locale))

    def is_today(self, at: datetime) -> bool:
        """Whether the instant falls on the reader's present day."""
        return at.astimezone(self.zone).date() == self.now.astimezone(self.zone).date()


def reader_of(*, locale: str | None, time_zone: str | None, now: datetime) -> Reader:
    """The reader behind a request. Unknown locales read English, unknown zones UTC: never an error.

    `locale` is a BCP 47 tag such as `de-AT`; without texts in that language the numbers stay English too, so that
    one screen never mixes two languages.
    """
    wanted = locale if locale and _LOCALE.fullmatch(locale) else "en"
    language = wanted.split("-", maxsplit=1)[0].lower()
    if language not in _languages():
        wanted = language = "en"
    try:
        parsed = Locale.parse(wanted, sep="-")
    except (UnknownLocaleError, ValueError):
        parsed = Locale.parse(language)
    return Reader(language=language, locale=parsed, zone=_zone(time_zone), now=now)


def major_units(amount_minor: int, currency: str) -> Decimal:
    """Minor units as a decimal of the currency's own unit, by Stripe's table of decimals."""
    return Decimal(amount_minor).scaleb(-decimals_of(currency))


def _zone(name: str | None) -> ZoneInfo:
    if name and len(name) <= 64 and _ZONE.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (KeyError, OSError, ValueError):
            return ZoneInfo("UTC")
    return ZoneInfo("UTC")


@cache
def _languages() -> frozenset[str]:
    return frozenset(path.stem for path in (components_folder() / "messages").glob("*.json"))


@cache
def _catalogue(language: str) -> Mapping[str, Message]:
    texts: dict[str, Any] = json.loads(component_text(f"messages/{language}.json"))
    texts.pop("script")
    return texts
