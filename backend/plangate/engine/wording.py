"""Says in words and values what is granted, the same way for previews, traces and notices."""

from collections.abc import Sequence
from fractions import Fraction

from plangate.engine.catalog import Condition, Feature, Price
from plangate.engine.grants import Amount
from plangate.engine.snapshot import Allowance, Answer
from plangate.engine.values import FeatureType, Json, PeriodKind, decimals_of

_EVERY = {
    PeriodKind.DAY: "per day",
    PeriodKind.WEEK: "per week",
    PeriodKind.MONTH: "per calendar month",
    PeriodKind.BILLING_MONTH: "per month",
    PeriodKind.BILLING_INTERVAL: "per billing period",
    PeriodKind.ALL_TIME: "in total",
}
_SIGNS = {"usd": "$", "eur": "€", "gbp": "£"}
_NAMED = {
    "company": "the company",
    "user": "the user",
    "plan": "the plan",
    "add_on": "an add-on",
    "product": "a Stripe product",
}
_OPERATORS = {
    "eq": "equal to",
    "ne": "other than",
    "lt": "below",
    "lte": "at most",
    "gt": "above",
    "gte": "at least",
    "in": "among",
    "not_in": "not among",
    "contains": "containing",
}


def granted_value(answer: Answer) -> Json:
    """What is granted, as a value: a boolean, a number, `"unlimited"`, a config value, or None for nothing.

    The number is what is included; what may be used beyond it as overage is not.
    """
    amount = best_amount(answer) or best_amount(answer, is_personal=True)
    if amount is not None:
        return "unlimited" if amount.included is None else amount.included
    template = answer.template
    if template.type is FeatureType.BOOLEAN:
        return template.allowed
    if template.unlimited:
        return "unlimited"
    # A limit stands although the value it is read against is missing and every answer is a no.
    return template.value if template.allowed else template.limit


def granted_text(feature: Feature, answer: Answer) -> str:
    """What is granted, in words for a person, such as `1,000 exports per month`."""
    value = granted_value(answer)
    if value is None or value is False:
        return "not included"
    if value is True:
        return "included"
    if feature.type is FeatureType.CONFIG:
        return str(value)
    if answer.personal:
        own = best_amount(answer, is_personal=True)
        most = "unlimited" if own is None or own.included is None else own.included
        each = f"{_limit_text(feature, answer.personal, most)} for each user"
        return f"{_limit_text(feature, answer.allowances, value)}, and {each}" if answer.allowances else each
    return _limit_text(feature, answer.allowances, value)


def _limit_text(feature: Feature, allowances: Sequence[Allowance], limit: Json) -> str:
    """Some allowances in words, with their periods; all they come to where that never ends."""
    if limit == "unlimited":
        return f"unlimited {feature.units}"
    texts = [amount_text(feature, Amount(one.limit, one.soft_limit), one.kind) for one in allowances]
    # A limit read against a missing value has no allowance.
    return " or ".join(texts) or amount_text(feature, Amount(limit), None)


def amount_text(feature: Feature, amount: Amount, kind: PeriodKind | None) -> str:
    """An amount in words: `1,000 exports per month`, `unlimited exports`, or what is included and what lies beyond."""
    if amount.included is None:
        return f"unlimited {feature.units}"
    number = shown_number(feature, amount.included)
    unit = feature.unit if number == "1" else feature.units
    text = " ".join([number, unit, *([_EVERY[kind]] if kind is not None else [])])
    if amount.soft is None:
        return text
    beyond = "unlimited" if amount.hard is None else f"up to {shown_number(feature, amount.hard)}"
    return f"{text} included, {beyond} beyond"


def rate_text(feature: Feature, price: Price) -> str:
    """What a feature costs, in words for staff: `$0.002 per call`, `$5.00 per 1,000 calls`, or its tiers."""
    if not price.tiers:
        amount = Fraction(price.amount_minor if price.amount_decimal is None else price.amount_decimal)
        if price.package_size > 1:
            return f"{_money(amount, price.currency)} per {amount_text(feature, Amount(price.package_size), None)}"
        return _each(feature, amount, price.currency)
    steps = []
    for tier in price.tiers:
        cost = _each(feature, Fraction(tier.amount), price.currency)
        if tier.flat_amount_minor:
            cost += f" plus {_money(Fraction(tier.flat_amount_minor), price.currency)}"
        bound = "beyond" if tier.up_to is None else f"up to {shown_number(feature, tier.up_to)}"
        steps.append(f"{cost} {bound}")
    return f"{price.tiers_mode} tiers: {', '.join(steps)}"


def _each(feature: Feature, amount_minor: Fraction, currency: str) -> str:
    return f"{_money(amount_minor * feature.display_divisor, currency)} per {feature.unit}"


def _money(amount_minor: Fraction, currency: str) -> str:
    """An amount with its currency and as many decimals as it needs, at most twelve beyond the minor unit."""
    digits = decimals_of(currency)
    scaled = round(amount_minor * 10**12)
    whole, rest = divmod(scaled, 10 ** (12 + digits))
    decimals = f"{rest:0{12 + digits}d}".rstrip("0").ljust(digits, "0")
    number = f"{whole:,}{'.' if decimals else ''}{decimals}"
    sign = _SIGNS.get(currency)
    return f"{number} {currency.upper()}" if sign is None else f"{sign}{number}"


def condition_text(condition: Condition) -> str:
    """What a condition asks for, such as `the trait size at least 250`; never what is stored."""
    if condition.kind in _NAMED:
        verb = "other than" if condition.operator in {"ne", "not_in"} else "among"
        return f"{_NAMED[condition.kind]} {verb} {', '.join(condition.values) or 'none'}"
    if condition.kind == "usage":
        subject = f"usage of {condition.feature}"
    else:
        subject = f"the {'user' if condition.subject == 'user' else 'company'}'s trait {condition.trait}"
    if condition.other_trait is not None:
        wanted = f"the trait {condition.other_trait}"
    elif isinstance(condition.value, list | tuple):
        wanted = ", ".join(_plain(one) for one in condition.value)
    else:
        wanted = _plain(condition.value)
    return f"{subject} {_OPERATORS[condition.operator]} {wanted}"


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def shown_number(feature: Feature, base_units: int) -> str:
    """A quantity of base units as people read it: by the display divisor, at most two decimals, never rounded up."""
    whole, rest = divmod(base_units, feature.display_divisor)
    hundredths = rest * 100 // feature.display_divisor
    decimals = f".{hundredths:02d}".rstrip("0") if hundredths else ""
    return f"{whole:,}{decimals}"


def best_amount(answer: Answer, *, is_personal: bool = False) -> Amount | None:
    """The most generous allowance of an answer, of those all share or of each user's own; None when it has none."""
    allowances = answer.personal if is_personal else answer.allowances
    amounts = [Amount(one.limit, one.soft_limit) for one in allowances]
    return max(amounts, key=lambda one: one.rank, default=None)
