"""Proves conditions one by one: what matches, what never does, and what stays open until somebody asks."""

import msgspec
import pytest

from plangate.engine.catalog import Condition, Rule
from plangate.engine.facts import UserFacts
from plangate.engine.targeting import compare, matches, open_rules
from plangate.engine.values import Json
from tests.engine.factories import facts

COMPANY = facts(keys=frozenset({"id=acme"}), traits={"region": "eu", "size": 50, "limit": 40, "is_partner": True})
NOBODY: frozenset[str] = frozenset()


def opened(*conditions: Condition) -> list[tuple[Condition, ...]] | None:
    """The open groups of a rule with one group of these conditions; None when it can never match."""
    found = open_rules([Rule(key="rule", groups=(conditions,))], COMPANY, plans=frozenset({"pro"}), add_ons=NOBODY)
    return list(found[0][1]) if found else None


@pytest.mark.parametrize(
    ("condition", "is_met"),
    [
        (Condition(kind="company", values=("comp_acme",)), True),
        (Condition(kind="company", values=("id=acme",)), True),
        (Condition(kind="company", values=("id=other",)), False),
        (Condition(kind="company", values=()), False),
        (Condition(kind="company", values=("id=acme",), operator="not_in"), False),
        (Condition(kind="company", values=("id=other",), operator="ne"), True),
        (Condition(kind="plan", values=("free", "pro")), True),
        (Condition(kind="plan", values=("free",)), False),
        (Condition(kind="add_on", values=("pro",)), False),
        (Condition(kind="add_on", values=("pro",), operator="not_in"), True),
        (Condition(kind="trait", trait="region", value="eu"), True),
        (Condition(kind="trait", trait="region", value="us"), False),
        (Condition(kind="trait", trait="absent", value=None), False),
        (Condition(kind="trait", trait="absent", operator="ne", value="eu"), False),
        (Condition(kind="trait", value="eu"), False),
        (Condition(kind="trait", trait="size", operator="gt", other_trait="limit"), True),
        (Condition(kind="trait", trait="limit", operator="gt", other_trait="size"), False),
        (Condition(kind="trait", trait="size", operator="lt", other_trait="absent"), False),
    ],
)
def test_conditions_about_the_company_are_decided_at_once(condition: Condition, *, is_met: bool) -> None:
    assert opened(condition) == ([()] if is_met else None)


def test_conditions_about_the_user_and_usage_stay_open() -> None:
    known = Condition(kind="trait", trait="region", value="eu")
    user = Condition(kind="user", values=("user_ann",))
    usage = Condition(kind="usage", feature="exports", operator="gte", value=5)
    role = Condition(kind="trait", subject="user", trait="role", value="admin")
    assert opened(known, user, usage, role) == [(user, usage, role)]
    assert opened(Condition(kind="plan", values=("free",)), user) is None


def test_a_certain_rule_ends_the_list_and_an_empty_one_never_matches() -> None:
    user = Condition(kind="user", values=("user_ann",))
    rules = [
        Rule(key="last", priority=9, groups=((),)),
        Rule(key="never", priority=1),
        Rule(key="certain", priority=5, groups=((user,), ())),
        Rule(key="open", priority=2, groups=((user,),)),
    ]
    found = open_rules(rules, COMPANY, plans=NOBODY, add_ons=NOBODY)
    assert [(rule.key, groups) for rule, groups in found] == [("open", ((user,),)), ("certain", ((),))]


def test_rules_of_one_priority_are_tried_by_key() -> None:
    user = Condition(kind="user", values=("user_ann",))
    rules = [Rule(key=key, groups=((user,),)) for key in ("b", "a")]
    assert [rule.key for rule, _ in open_rules(rules, COMPANY, plans=NOBODY, add_ons=NOBODY)] == ["a", "b"]


ANN = UserFacts(
    user_id="user_ann", keys=frozenset({"email=ann@northwind.example"}), traits={"role": "admin", "age": 30}
)


@pytest.mark.parametrize(
    ("condition", "is_met"),
    [
        (Condition(kind="user", values=("user_ann",)), True),
        (Condition(kind="user", values=("email=ann@northwind.example",)), True),
        (Condition(kind="user", values=("user_bob",)), False),
        (Condition(kind="user", values=("user_bob",), operator="not_in"), True),
        (Condition(kind="trait", subject="user", trait="role", value="admin"), True),
        (Condition(kind="trait", subject="user", trait="age", operator="lte", value=29), False),
        (Condition(kind="usage", feature="exports", operator="gte", value=5), True),
        (Condition(kind="usage", feature="exports", operator="gt", value=5), False),
        (Condition(kind="usage", feature="nothing", operator="gte", value=0), False),
        (Condition(kind="usage", operator="gte", value=0), False),
    ],
)
def test_open_conditions_are_met_when_somebody_asks(condition: Condition, *, is_met: bool) -> None:
    used = {"exports": 5}
    assert matches([[condition]], ANN, used.get) is is_met
    if condition.kind != "usage":
        assert not matches([[condition]], None, used.get)


def test_one_group_is_enough_and_all_of_it_is_needed() -> None:
    yes = Condition(kind="user", values=("user_ann",))
    no = Condition(kind="user", values=("user_bob",))
    used: dict[str, int] = {}
    assert matches([[no], [yes]], ANN, used.get)
    assert not matches([[yes, no]], ANN, used.get)
    assert not matches([], ANN, used.get)


@pytest.mark.parametrize(
    ("actual", "operator", "expected", "is_met"),
    [
        (5, "eq", 5, True),
        (5, "eq", 5.0, True),
        (5, "eq", "5", False),
        (5, "ne", "5", False),
        (5, "ne", 6, True),
        (5, "ne", 5, False),
        (1, "eq", True, False),
        (True, "eq", True, True),
        (True, "ne", False, True),
        (True, "gte", False, False),
        (None, "eq", None, False),
        (4, "lt", 5, True),
        (5, "lt", 5, False),
        (5, "lte", 5, True),
        (6, "lte", 5, False),
        (6, "gt", 5, True),
        (5, "gt", 5, False),
        (5, "gte", 5, True),
        (4, "gte", 5, False),
        ("2026-01-31", "lt", "2026-02-01", True),
        ("northwind", "contains", "wind", True),
        ("northwind", "contains", "south", False),
        (123, "contains", 2, False),
        ("eu", "in", ["eu", "us"], True),
        ("eu", "in", ["us"], False),
        ("eu", "not_in", ["us"], True),
        ("eu", "not_in", ["eu"], False),
        (1, "in", [True, "1"], False),
        (None, "in", [None], False),
        (None, "not_in", ["eu"], False),
        ("e", "in", "eu", False),
        ("e", "not_in", "us", False),
        ("eu", "in", None, False),
        (5, "somehow", 5, False),
    ],
)
def test_comparisons(actual: Json, operator: str, expected: Json, *, is_met: bool) -> None:
    assert compare(actual, operator, expected) is is_met


@pytest.mark.parametrize(
    ("actual", "operator", "expected", "value_type", "is_met"),
    [
        ("2026-11-20", "eq", "2026-11-20T00:00:00Z", "date", True),
        ("2026-11-20", "lt", "2026-11-20T00:00:01Z", "date", True),
        ("2026-11-20T01:30:00+02:00", "eq", "2026-11-19T23:30:00z", "date", True),
        ("2026-11-20T01:30:00+02:00", "gte", "2026-11-20", "date", False),
        ("2026-11-20t00:00:00", "lte", "2026-11-20", "date", True),
        ("2026-11-20T00:00:00.5Z", "gt", "2026-11-20", "date", True),
        ("2026-11-20", "ne", "2026-11-21", "date", True),
        ("2026-11-20", "in", ["2026-11-19", "2026-11-20T00:00Z"], "date", True),
        ("2026-11-20", "not_in", ["2026-11-20"], "date", False),
        ("20 November 2026", "ne", "2026-11-20", "date", False),
        ("2026-02-30", "gt", "2026-01-01", "date", False),
        ("0001-01-01T00:00:00+23:00", "lt", "2026-01-01", "date", False),
        ("2026-W47", "gt", "2026-01-01", "date", False),
        ("20261120", "eq", "2026-11-20", "date", False),
        (20261120, "gt", "2026-01-01", "date", False),
        (None, "ne", "2026-01-01", "date", False),
        ("2026-11-20", "contains", "2026", "date", False),
        (5, "lt", 6, "number", True),
        ("5", "eq", "5", "number", False),
        (True, "eq", True, "number", False),
        ("5", "eq", "5", "string", True),
        (5, "eq", 5, "string", False),
        (5, "in", [5], "string", False),
        (5, "not_in", [6], "string", False),
        (True, "eq", True, "boolean", True),
        (1, "eq", 1, "boolean", False),
    ],
)
def test_comparisons_of_a_type_that_is_asked_for(
    actual: Json, operator: str, expected: Json, value_type: str, *, is_met: bool
) -> None:
    assert compare(actual, operator, expected, value_type=value_type) is is_met


def test_a_date_trait_is_compared_as_a_date() -> None:
    since = Condition(kind="trait", trait="since", operator="lt", value="2026-01-01", value_type="date")
    company = facts(traits={"since": "2025-12-31T20:00:00-05:00"})
    for value_type, is_met in (("date", False), (None, True)):
        condition = msgspec.structs.replace(since, value_type=value_type)
        found = open_rules([Rule(key="rule", groups=((condition,),))], company, plans=NOBODY, add_ons=NOBODY)
        assert bool(found) is is_met


def test_rules_may_ask_for_products() -> None:
    condition = Condition(kind="product", values=("prod_legacy",))
    rules = [Rule(key="rule", groups=((condition,),))]
    held = frozenset({"prod_legacy", "prod_other"})
    assert open_rules(rules, COMPANY, plans=NOBODY, add_ons=NOBODY, products=held)
    assert not open_rules(rules, COMPANY, plans=NOBODY, add_ons=NOBODY)
