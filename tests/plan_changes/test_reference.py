"""The page about plan changes names every state, and draws no move that cannot be."""

import re
from pathlib import Path
from typing import get_args, get_type_hints

from plangate.drift import DriftKind
from plangate.engine.plan_change import Refused
from plangate.errors import CATALOGUE, Code
from plangate.shapes import ChangeState, Quote
from plangate.store.version_migrations import RETRIED, PriceOutcome
from plangate.web.api import OPERATIONS
from plangate.web.schemas import CustomPriceBody

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "plan-changes.md").read_text("utf-8")
_AS_EVERYWHERE = {Code.NOT_FOUND, Code.IDEMPOTENCY_CONFLICT}
_ENDED = {ChangeState.APPLIED, ChangeState.CANCELLED, ChangeState.REFUSED, ChangeState.FAILED}


def test_every_state_is_explained() -> None:
    part = PAGE.split("## What a quote")[0]
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| .+ \|$", part, re.MULTILINE)
    assert [(name, ends == "yes") for name, ends in rows] == [(state.value, state in _ENDED) for state in ChangeState]


def test_the_diagram_enters_every_state_and_leaves_those_that_do_not_end() -> None:
    moves = re.findall(r"^    (\[\*\]|\w+) --> (\[\*\]|\w+)", PAGE, re.MULTILINE)
    drawn = {state.value for state in ChangeState}
    assert {name for move in moves for name in move} == drawn | {"[*]"}
    assert {target for _, target in moves} == drawn | {"[*]"}
    for state in drawn:
        targets = {target for source, target in moves if source == state}
        assert ("[*]" in targets) is (ChangeState(state) in _ENDED), state
        assert targets, state


def test_every_refusal_of_a_change_is_listed_with_its_status_and_way_out() -> None:
    part = PAGE.split("## Refusals")[1].split("## While")[0]
    listed = re.findall(r"^\| `(\w+)` \| (\d{3}) \| .+ \| .+ \|$", part, re.MULTILINE)
    declared = {code for one in OPERATIONS if one.tag == "Plan changes" for code in one.problems} - _AS_EVERYWHERE
    assert {(code, int(status)) for code, status in listed} == {
        (code.value, CATALOGUE[code].status) for code in declared
    }
    ways = set(re.findall(r"\(`(\w+)`\)", part))
    assert ways | {"none"} == set(get_args(get_type_hints(Refused)["way_out"]))


def test_members_of_a_quote_exist() -> None:
    members = re.findall(
        r"^\| `(\w+)` \| [a-z].+ \|$", PAGE.split("## What a quote")[1].split("## Refusals")[0], re.MULTILINE
    )
    assert members
    assert set(members) <= set(Quote.__struct_fields__)


def test_every_member_of_a_custom_price_is_explained() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|(.*?)\| .+ \|$", PAGE.split("## Custom plans")[1].split("## Prices of")[0], re.MULTILINE
    )
    assert [name for name, _ in rows] == list(CustomPriceBody.model_fields)
    for name, told in rows:
        default = CustomPriceBody.model_fields[name].get_default()
        if name != "days_until_due" and isinstance(default, str | int):
            assert told.strip() == f"`{default}`", name


def test_every_outcome_of_moving_a_price_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| .+ \|$", PAGE.split("## Prices of")[1], re.MULTILINE)
    assert [(name, again == "yes") for name, again in rows] == [(one.value, one in RETRIED) for one in PriceOutcome]


def test_the_runbook_names_every_class_of_drift() -> None:
    runbook = (DOCS / "how-to" / "runbook.md").read_text("utf-8")
    table = runbook.split("| Class | Means |")[1].split("\n\n")[0]
    found = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", table, re.MULTILINE)
    assert found == [kind.value for kind in DriftKind if kind is not DriftKind.USAGE]
