"""Holds the engine to the language-neutral vectors, and the vectors to their schema."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from plangate.engine.decide import decide
from plangate.engine.decision import Reason
from plangate.engine.entitlements import build_snapshot
from tests.engine.vectors import FOLDER, Case, VectorFile, differences, load, paths

FILES = {path.stem: load(path) for path in paths()}
CASES = [pytest.param(file, case, id=f"{file.theme}/{case.name}") for file in FILES.values() for case in file.cases]


@pytest.mark.parametrize(("file", "case"), CASES)
def test_vector(file: VectorFile, case: Case) -> None:
    question = case.question
    snapshot = build_snapshot(file.catalogs[case.catalog], case.facts, question.at)
    decision = decide(
        snapshot,
        question.feature,
        case.counted(),
        at=question.at,
        quantity=question.quantity,
        user=question.user,
        with_trace=question.with_trace,
    )
    actual: dict[str, Any] = json.loads(msgspec.json.encode(decision))
    assert differences(case.expect, actual) == [], case.rule


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_files_follow_the_schema(path: Path) -> None:
    schema = json.loads((FOLDER / "schema.json").read_text())
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(path.read_text())), key=str)
    assert [f"{list(error.path)}: {error.message}" for error in errors] == []


def test_there_are_enough_vectors_and_each_has_its_own_name() -> None:
    names = [f"{theme}/{case.name}" for theme, file in FILES.items() for case in file.cases]
    assert len(names) >= 200
    assert len(names) == len(set(names))
    assert all(theme == file.theme for theme, file in FILES.items())


def test_every_reason_the_engine_gives_is_covered() -> None:
    expected = {case.expect.get("reason") for file in FILES.values() for case in file.cases}
    # Companies are looked up by the caller, and credits do not exist yet.
    assert set(Reason) - expected == {Reason.UNKNOWN_COMPANY, Reason.CREDITS_EXHAUSTED}


def test_every_hard_case_that_a_decision_settles_bears_its_number() -> None:
    numbers = {case.name.split("-")[0] for case in FILES["hard-cases"].cases}
    times, usage = {"T1", "T3", "T4", "T5", "T10"}, {"U10", "U11", "U12", "U14", "U15"}
    assert numbers == times | usage | {"O1", "O2", "O4", "O8", "O11", "O14"}


def test_the_schema_knows_every_field() -> None:
    schema = json.loads((FOLDER / "schema.json").read_text())["$defs"]
    for name, definition in msgspec.json.schema(VectorFile)["$defs"].items():
        assert set(definition.get("properties", {})) == set(schema[name].get("properties", {})), name
        assert set(definition.get("enum", [])) == set(schema[name].get("enum", [])), name


def test_differences_tell_true_from_one() -> None:
    assert differences({"a": {"b": 1}}, {"a": {"b": True}}) == ["/a/b: expected 1, got True"]
    assert differences({"a": 1}, {}) == ["/a is absent"]
