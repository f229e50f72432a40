"""Shows what a catalogue changes: each part with its fields, the calls in Stripe, and who is affected."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from babel.numbers import format_currency, get_currency_precision

from plangate.catalog import CatalogDiff, Change, Detail, Effect, Impact, PlanImpact, Repriced, StripeCall
from plangate.cli.terminal import out, say
from plangate.engine.values import Json, decimals_of

_SIGNS: Final = {
    "added": ("+", "green"),
    "changed": ("~", "yellow"),
    "archived": ("-", "red"),
    "restored": ("+", "green"),
    "removed": ("-", "red"),
}
_MIGRATES: Final = {
    "all": "its holders get it at once",
    "some": "some of its holders get it",
    "none": "its holders keep theirs",
}
_PERIODS: Final = {
    "day": "per day",
    "week": "per week",
    "month": "per calendar month",
    "billing_month": "per billing month",
    "billing_interval": "per billing period",
    "all_time": "in total",
}
_CALL_SIGNS: Final = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "restore": ("+", "green"),
    "adopt": ("=", "green"),
    "archive": ("~", "yellow"),
}
_CALL_WORDS: Final = {"update": "update", "restore": "put on sale again", "adopt": "adopt", "archive": "archive"}
_BEHAVIOURS: Final = {
    "pay_in_advance": "paid in advance",
    "pay_as_you_go": "paid as it is used",
    "tiers": "paid by tiers",
    "overage": "overage is paid",
}


def show_diff(diff: CatalogDiff, *, verbose: bool = False) -> None:
    """Print a difference for people: one line for each part, its fields below, then who is affected."""
    if diff.is_empty:
        say(f"No difference: revision {diff.revision} says the same.")
        _show_stripe(diff.stripe)
        return
    width = max(len(change.key) for change in diff.changes)
    for change in diff.changes:
        _show_change(change, width, verbose=verbose)
    _show_stripe(diff.stripe)
    if diff.impact is not None:
        say()
        show_impact(diff.impact, verbose=verbose)
    show_repriced(diff.repriced)


def show_repriced(repriced: Repriced | None) -> None:
    """Print how many will pay another price, where prices move along."""
    if repriced is None:
        return
    said = f"{repriced.companies:,} {'company' if repriced.companies == 1 else 'companies'} will pay another price."
    say(f"\n{said}" if repriced.is_complete else f"\nAt least {said}")


def show_impact(impact: Impact, *, verbose: bool = False) -> None:
    """Print who is affected, and how."""
    examined = f"{impact.examined:,} {'company' if impact.examined == 1 else 'companies'}"
    if impact.affected == 0:
        say(f"None of {examined} would notice.")
    else:
        say(f"{impact.affected:,} of {examined} {'is' if impact.affected == 1 else 'are'} affected:")
    for one in impact.plans:
        _show_plan(one, verbose=verbose)
    if not impact.is_complete:
        say("More companies were not looked at.")


def _show_change(change: Change, width: int, *, verbose: bool) -> None:
    sign, style = _SIGNS[change.action]
    kind = change.kind.replace("_", "-")
    if change.kind in {"catalog", "setting"}:
        (detail,) = change.details
        out.print(f"{sign} {kind:8} {change.key:{width}}  {_change_text('', detail)}", style=style, markup=False)
        return
    said = [change.name]
    if change.version is not None:
        said.append("version 1" if change.version == 1 else f"version {change.version - 1} → {change.version}")
    if change.migrate is not None:
        said.append(_MIGRATES[change.migrate])
    if change.action in {"archived", "restored", "removed"}:
        said.append(change.action)
    out.print(f"{sign} {kind:8} {change.key:{width}}  {', '.join(said)}", style=style, markup=False)
    if change.action == "added" and not verbose:
        return
    fields = max((len(_field(detail.field)) for detail in change.details), default=0)
    for detail in change.details:
        say(f"    {_field(detail.field):{fields}}  {_change_text(detail.field, detail)}")


def _show_stripe(calls: Sequence[StripeCall]) -> None:
    if not calls:
        return
    say("\nIn Stripe:")
    for call in calls:
        sign, style = _CALL_SIGNS[call.action]
        said = "" if call.action == "create" else f"{_CALL_WORDS[call.action]} "
        out.print(f"{sign} {said}{call.kind} {call.key}  {call.name}", style=style, markup=False)


def _show_plan(impact: PlanImpact, *, verbose: bool) -> None:
    plan = impact.plan or "no plan"
    say(f"  {plan}: {impact.companies:,} {'company' if impact.companies == 1 else 'companies'}")
    for verbs, style, effects in (
        (("gains", "gain"), "green", impact.gained),
        (("loses", "lose"), "red", impact.lost),
        (("is over the limit of", "are over the limit of"), "red", impact.over_limit),
    ):
        for effect in effects:
            _show_effect(verbs[effect.count != 1], style, effect, verbose=verbose)


def _show_effect(verb: str, style: str, effect: Effect, *, verbose: bool) -> None:
    change = f"{effect.before} → {effect.after}" if effect.before else f"limit {effect.after}"
    out.print(f"    {effect.count:>7,} {verb} {effect.feature}  ({change})", style=style, markup=False)
    if verbose:
        more = effect.count - len(effect.companies)
        say(f"            {', '.join(effect.companies)}{f' and {more:,} more' if more else ''}")


def _field(field: str) -> str:
    section, _, rest = field.partition(".")
    return {"entitlements": rest, "prices": f"price {rest}"}.get(section, field.replace("_", " "))


def _change_text(field: str, detail: Detail) -> str:
    before, after = _value(field, detail.before), _value(field, detail.after)
    return after if detail.before is None else f"{before} → {after}"


def _value(field: str, value: Json) -> str:
    if value is None:
        return "none"
    if field.startswith("prices."):
        return _price(value, field.removeprefix("prices.").partition("/")[0])
    if field.startswith("entitlements.") and isinstance(value, dict):
        return _entitlement(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _entitlement(value: dict[str, Any]) -> str:
    words: list[str] = []
    if "enabled" in value:
        words.append("on" if value["enabled"] else "off")
    if "config" in value:
        words.append(_value("", value["config"]))
    if "limit_trait" in value:
        words.append(f"as many as the trait {value['limit_trait']} says")
    if "limit" in value:
        words.append(_value("", value["limit"]))
    if "period" in value:
        words.append(_PERIODS[value["period"]])
    if "soft_limit" in value:
        words.append(f"(soft limit {value['soft_limit']:,})")
    if value.get("stacking") == "sum":
        words.append("on top")
    if value.get("scope") == "user":
        words.append("for each user")
    if "price_behaviour" in value:
        words.append(f"{_BEHAVIOURS[value['price_behaviour']]}:")
    words += (f"{_price(one, name.partition('/')[0])} ({name})" for name, one in value.get("prices", {}).items())
    return " ".join(words)


def _price(value: Json, currency: str) -> str:
    """A whole amount, or an amount below a minor unit, of packages or of tiers."""
    if isinstance(value, int | str):
        return _money(value, currency)
    if not isinstance(value, dict):
        return "none"
    if "tiers" in value:
        tiers = (_tier(tier, currency) for tier in value["tiers"])
        return f"{value['tiers_mode']}: {', '.join(tiers)}"
    decimal = value.get("amount_decimal")
    amount = _money(decimal if isinstance(decimal, str) else int(value.get("amount_minor") or 0), currency)
    if "package_size" not in value:
        return amount
    begun = ", a package begun is free" if value.get("package_rounding") == "down" else ""
    return f"{amount} per {value['package_size']:,}{begun}"


def _tier(tier: dict[str, Any], currency: str) -> str:
    until = "beyond" if tier["up_to"] is None else f"to {tier['up_to']:,}"
    flat = f" + {_money(tier['flat_amount_minor'], currency)}" if tier.get("flat_amount_minor") else ""
    return f"{until} {_money(tier['amount'], currency)}{flat}"


def _money(amount_minor: int | str, currency: str) -> str:
    """An amount of minor units, whole or as decimal text, in the currency's own way."""
    code = currency.upper()
    amount = Decimal(amount_minor).scaleb(-decimals_of(currency))
    is_usual = amount == round(amount, get_currency_precision(code))
    return format_currency(amount, code, locale="en_US", currency_digits=is_usual, decimal_quantization=is_usual)
