"""Targeting rules: which of them match a company outright, and which wait for the user or for usage.

What is known of the company when a snapshot is built decides a condition for good; the rest stays open.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from plangate.engine.model import CompanyFacts, Condition, Json, Rule, TraitValue, UserFacts

Groups: TypeAlias = tuple[tuple[Condition, ...], ...]
# How much of a feature is used; None when that is not known, and then no condition about it matches.
UsageReader: TypeAlias = Callable[[str], int | None]

_NEGATED = frozenset({"ne", "not_in"})


def open_rules(
    rules: Iterable[Rule], facts: CompanyFacts, *, plans: frozenset[str], add_ons: frozenset[str]
) -> list[tuple[Rule, Groups]]:
    """The rules that may still match, by priority, with the conditions that are still open.

    A rule with an empty group of open conditions matches for certain; it is the last one in the list.
    """
    found: list[tuple[Rule, Groups]] = []
    for rule in sorted(rules, key=lambda rule: (rule.priority, rule.key)):
        groups = []
        for group in rule.groups:
            known = [_decided(condition, facts, plans, add_ons) for condition in group]
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


def matches(groups: Sequence[Sequence[Condition]], user: UserFacts | None, used: UsageReader) -> bool:
    """Whether every open condition of any one group is met."""
    return any(all(_met(condition, user, used) for condition in group) for group in groups)


def compare(actual: Json, operator: str, expected: Json) -> bool:
    """Compare a stored value with a wanted one. Values of different kinds never match, whatever the operator.

    Numbers compare with numbers, text with text, booleans with booleans: `"10"` is not `10`, and `true` is not `1`.
    """
    if operator in {"in", "not_in"}:
        if not isinstance(expected, Sequence) or isinstance(expected, str) or actual is None:
            return False
        alike = [value for value in expected if _kind(value) == _kind(actual)]
        return (actual in alike) is (operator == "in")
    if _kind(actual) is None or _kind(actual) != _kind(expected):
        return False
    match operator:
        case "eq":
            return bool(actual == expected)
        case "ne":
            return bool(actual != expected)
        case "contains":
            return isinstance(actual, str) and expected in actual
        case _ if isinstance(actual, bool):
            return False
        case "lt":
            return bool(actual < expected)
        case "lte":
            return bool(actual <= expected)
        case "gt":
            return bool(actual > expected)
        case "gte":
            return bool(actual >= expected)
        case _:
            return False


def _kind(value: Json) -> str | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def _decided(condition: Condition, facts: CompanyFacts, plans: frozenset[str], add_ons: frozenset[str]) -> bool | None:
    """Whether a condition is met, as far as the company alone decides it; None when it is still open."""
    match condition.kind:
        case "company":
            return _named(condition, facts.keys | {facts.company_id})
        case "plan":
            return _named(condition, plans)
        case "add_on":
            return _named(condition, add_ons)
        case "trait" if condition.subject == "company":
            return _trait_met(condition, facts.traits)
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
    return compare(actual, condition.operator, expected)
