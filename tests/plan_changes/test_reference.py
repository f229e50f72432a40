"""The page about plan changes names every state, and draws no move that cannot be."""

import re
from pathlib import Path

from plangate.drift import DriftKind
from plangate.errors import CATALOGUE
from plangate.shapes import ChangeState, Quote
from plangate.store.version_migrations import RETRIED, PriceOutcome
from plangate.web.schemas import CustomPriceBody

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "plan-changes.md").read_text("utf-8")
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


def test_refusals_and_members_exist() -> None:
    part = PAGE.split("## Refusals")[1].split("## While")[0]
    codes = re.findall(r"^\| `(\w+)` \| .+ \|$", part, re.MULTILINE)
    assert len(codes) > 15
    assert set(codes) <= {code.value for code in CATALOGUE}
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
    found = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", runbook, re.MULTILINE)
    assert found == [kind.value for kind in DriftKind if kind is not DriftKind.USAGE]
