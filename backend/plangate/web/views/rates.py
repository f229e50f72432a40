"""What is paid for a feature beside the plan, in words: rates, packages and tiers, and what usage has cost so far."""

from decimal import Decimal
from fractions import Fraction

from plangate.engine.catalog import Entitlement, Feature, Price, PriceTier
from plangate.engine.pricing import amount_of, months_in, price_among
from plangate.engine.values import PeriodKind, PriceBehaviour
from plangate.web.views.rhythms import Rhythm, rhythm_of_price
from plangate.web.wording import Reader

_USED = frozenset({PriceBehaviour.PAY_AS_YOU_GO, PriceBehaviour.TIERS})


def price_at(granted: Entitlement, *, currency: str, rhythm: Rhythm | None) -> Price | None:
    """The price of an entitlement for a currency, paid this often where it has one; None when it has none."""
    if rhythm is None:
        return price_among(granted.prices, currency=currency)
    return price_among(
        granted.prices, currency=currency, interval=rhythm.interval, interval_count=rhythm.interval_count
    )


def rate_text(reader: Reader, feature: Feature, price: Price, *, is_recurring: bool = False) -> str:
    """What the feature costs: `$0.002 per call`, `$5.00 per 1,000 calls`, `$9.00 per seat a month`, or its tiers."""
    if price.tiers:
        text = (
            _graduated(reader, feature, price) if price.tiers_mode == "graduated" else _volume(reader, feature, price)
        )
    else:
        amount = Decimal(price.amount_minor if price.amount_decimal is None else price.amount_decimal)
        text = _per(reader, feature, price, amount, package=price.package_size)
    return f"{text} {rhythm_of_price(price).say(reader, 'each')}" if is_recurring else text


def priced_text(reader: Reader, feature: Feature, granted: Entitlement, price: Price, included: str) -> str:
    """A granted feature with what it costs; `included` is what is granted without a price, in words."""
    match granted.price_behaviour:
        case PriceBehaviour.OVERAGE:
            return reader.say("feature.then", included=included, rate=rate_text(reader, feature, price))
        case PriceBehaviour.PAY_IN_ADVANCE:
            rate = rate_text(reader, feature, price, is_recurring=True)
            if granted.limit == 0:
                return reader.say("feature.rate", name=feature.name, rate=rate)
            return reader.say("feature.more", included=included, rate=rate)
        case PriceBehaviour.PAY_AS_YOU_GO | PriceBehaviour.TIERS:
            rate = reader.say("feature.rate", name=feature.name, rate=rate_text(reader, feature, price))
            return (
                rate if not isinstance(granted.limit, int) else reader.say("feature.capped", rate=rate, most=included)
            )
        case PriceBehaviour.INCLUDED:
            return included


def cost_so_far(granted: Entitlement, price: Price, used: int) -> int | None:
    """What usage of the running window has cost, in minor units; None where windows and invoices are not the same."""
    is_month = months_in(price.interval, price.interval_count) == 1
    is_billed = granted.period is PeriodKind.BILLING_INTERVAL or (
        granted.period is PeriodKind.BILLING_MONTH and is_month
    )
    if not is_billed:
        return None
    if granted.price_behaviour in _USED:
        return amount_of(price, used)
    if granted.price_behaviour is PriceBehaviour.OVERAGE and granted.soft_limit is not None:
        return amount_of(price, max(0, used - granted.soft_limit))
    return None


def _graduated(reader: Reader, feature: Feature, price: Price) -> str:
    parts: list[str] = []
    for index, tier in enumerate(price.tiers):
        cost = _tier(reader, feature, price, tier)
        if tier.up_to is None:
            parts.append(reader.say("rate.then", cost=cost) if index else cost)
        else:
            key = "rate.first" if index == 0 else "rate.up_to"
            parts.append(reader.say(key, quantity=reader.count(tier.up_to, feature), cost=cost))
    return ", ".join(parts)


def _volume(reader: Reader, feature: Feature, price: Price) -> str:
    parts: list[str] = []
    for index, tier in enumerate(price.tiers):
        cost = _tier(reader, feature, price, tier)
        if tier.up_to is None:
            parts.append(reader.say("rate.beyond", cost=cost, units=feature.units) if index else cost)
        else:
            parts.append(reader.say("rate.volume", quantity=reader.count(tier.up_to, feature), cost=cost))
    return ", ".join(parts)


def _tier(reader: Reader, feature: Feature, price: Price, tier: PriceTier) -> str:
    amount = Decimal(tier.amount)
    flat = reader.short_money(tier.flat_amount_minor, price.currency)
    if not amount:
        return reader.say("rate.flat", amount=flat) if tier.flat_amount_minor else reader.say("rate.included")
    each = _per(reader, feature, price, amount)
    return reader.say("rate.plus", rate=each, amount=flat) if tier.flat_amount_minor else each


def _per(reader: Reader, feature: Feature, price: Price, amount: Decimal, *, package: int = 1) -> str:
    if package > 1:
        words = reader.count(package, feature)
        return reader.say("rate.per", amount=reader.fine_money(amount, price.currency), unit=words)
    # People read amounts for the unit they are shown, which may be many base units.
    shown = Fraction(amount) * feature.display_divisor
    whole = Decimal(shown.numerator) / Decimal(shown.denominator)
    return reader.say("rate.per", amount=reader.fine_money(whole, price.currency), unit=feature.unit)
