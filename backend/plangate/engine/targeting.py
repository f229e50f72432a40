"""Targeting rules: which of them match a company outright, and which wait for the user or for usage.

What is known of the company when a snapshot is built decides a condition for good; the rest stays open.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec

from plangate.engine.catalog import Audience, Condition, Rule
from plangate.engine.facts import CompanyFacts, UserFacts
from plangate.engine.values import Json, TraitValue

Groups: TypeAlias = tuple[tuple[Condition, ...], ...]
# How much of a feature is used; None when that is not known, and then no condition about it matches.
UsageReader: TypeAlias = Callable[[str], int | None]

_NEGATED = frozenset({"ne", "not_in"})
# A day, or a day and a time of day with an offset or in UTC: what RFC 3339 and HTML's date fields write.
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})?)?", re.ASCII)


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the company when its snapshot is built. `plans` is None while the base plan is being found."""

    facts: CompanyFacts
    plans: frozenset[str] | None
    add_ons: frozenset[str]
    products: frozenset[str]


def open_rules(
    rules: Iterable[Rule],
    facts: CompanyFacts,
    *,
    plans: frozenset[str],
    add_ons: frozenset[str],
    products: frozenset[str] = frozenset(),
) -> list[tuple[Rule, Groups]]:
    """The rules that may still match, by priority, with the conditions that are still open.

    A rule with an empty group of open conditions matches for certain; it is the last one in the list.
    """
    company = _Known(facts=facts, plans=plans, add_ons=add_ons, products=products)
    found: list[tuple[Rule, Groups]] = []
    for rule in sorted(rules, key=lambda rule: (rule.priority, rule.key)):
        groups = []
        for group in rule.groups:
            known = [_decided(condition, company) for condition in group]
            if False in known:
                continue
            groups.append(tuple(condition for condition, is_met in zip(group, known, strict=True) if is_met is None))
        if not groups:
            continue
        if () in groups:
            found.append((rule, ((),)))
            break
        found.append((rule, tuple(groups)))
    return found


def is_in_audience(
    audience: Audience, facts: CompanyFacts, *, add_ons: frozenset[str], products: frozenset[str]
) -> bool:
    """Whether a company is in an audience: every condition of any one group is met by what is known of the company.

    What an audience cannot know (the plan it is there to find, the user, usage) never matches.
    """
    company = _Known(facts=facts, plans=None, add_ons=add_ons, products=products)
    return any(all(_decided(condition, company) for condition in group) for group in audience.groups)


def matches(groups: Sequence[Sequence[Condition]], user: UserFacts | None, used: UsageReader) -> bool:
    """Whether every open condition of any one group is met."""
    return any(all(_met(condition, user, used) for condition in group) for group in groups)


def first_unmet(
    rule: Rule,
    facts: CompanyFacts,
    *,
    plans: frozenset[str],
    add_ons: frozenset[str],
    products: frozenset[str],
    user: UserFacts | None,
    used: UsageReader,
) -> Condition | None:
    """The condition that keeps a rule from matching: the first one that is not met in the group that comes closest.

    None when the rule matches, or has no groups and never can.
    """
    company = _Known(facts=facts, plans=plans, add_ons=add_ons, products=products)
    closest: list[Condition] = []
    for group in rule.groups:
        unmet = []
        for condition in group:
            is_met = _decided(condition, company)
            if not (_met(condition, user, used) if is_met is None else is_met):
                unmet.append(condition)
        if not unmet:
            return None
        if not closest or len(unmet) < len(closest):
            closest = unmet
    return closest[0] if closest else None


def compare(actual: Json, operator: str, expected: Json, *, value_type: str | None = None) -> bool:
    """Compare a stored value with a wanted one. Values of different kinds never match, whatever the operator.

    Numbers compare with numbers, text with text, booleans with booleans: `"10"` is not `10`, and `true` is not `1`.
    `value_type` (string, number, boolean, date) asks for one kind; dates are compared as instants.
    """
    if operator in {"in", "not_in"}:
        if not isinstance(expected, Sequence) or isinstance(expected, str):
            return False
        kind, value = _typed(actual, value_type)
        if kind is None:
            return False
        return ((kind, value) in [_typed(one, value_type) for one in expected]) is (operator == "in")
    kind, value = _typed(actual, value_type)
    other_kind, other = _typed(expected, value_type)
    if kind is None or kind != other_kind:
        return False
    match operator:
        case "eq":
            return bool(value == other)
        case "ne":
            return bool(value != other)
        case "contains":
            return kind == "string" and other in value
        case _ if kind == "boolean":
            return False
        case "lt":
            return bool(value < other)
        case "lte":
            return bool(value <= other)
        case "gt":
            return bool(value > other)
        case "gte":
            return bool(value >= other)
        case _:
            return False


def _typed(value: Json, wanted: str | None) -> tuple[str | None, Json]:
    """The kind of a value and the value to compare; no kind when it is missing or not of the kind that is wanted."""
    if wanted == "date":
        instant = _instant(value)
        return (None if instant is None else "date"), instant
    kind: str | None = None
    if isinstance(value, bool):
        kind = "boolean"
    elif isinstance(value, int | float):
        kind = "number"
    elif isinstance(value, str):
        kind = "string"
    return (kind if wanted is None or kind == wanted else None), value


def _instant(value: Json) -> datetime | None:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        instant = datetime.fromisoformat(value.upper())
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _decided(condition: Condition, company: _Known) -> bool | None:
    """Whether a condition is met, as far as the company alone decides it; None when it is still open."""
    match condition.kind:
        case "company":
            return _named(condition, company.facts.keys | {company.facts.company_id})
        case "plan":
            return None if company.plans is None else _named(condition, company.plans)
        case "add_on":
            return _named(condition, company.add_ons)
        case "product":
            return _named(condition, company.products)
        case "trait" if condition.subject == "company":
            return _trait_met(condition, company.facts.traits)
        case _:
            return None


def _met(condition: Condition, user: UserFacts | None, used: UsageReader) -> bool:
    if condition.kind == "usage":
        amount = used(condition.feature) if condition.feature is not None else None
        return amount is not None and compare(amount, condition.operator, condition.value)
    if user is None:
        return False
    if condition.kind == "user":
        return _named(condition, user.keys | {user.user_id})
    return _trait_met(condition, user.traits)


def _named(condition: Condition, names: frozenset[str]) -> bool:
    return (not names.isdisjoint(condition.values)) is (condition.operator not in _NEGATED)


def _trait_met(condition: Condition, traits: Mapping[str, TraitValue]) -> bool:
    actual = traits.get(condition.trait) if condition.trait is not None else None
    expected = traits.get(condition.other_trait) if condition.other_trait is not None else condition.value
    return compare(actual, condition.operator, expected, value_type=condition.value_type)
