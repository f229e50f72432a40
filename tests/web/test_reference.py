"""The reference pages say what the code does: codes, reasons, settings, operations and actions, no more and no less."""

import json
import re
from pathlib import Path

import pytest

from plangate.engine.decision import Reason
from plangate.errors import CATALOGUE
from plangate.settings import EnvironmentSettings, Settings
from plangate.web.api import OPERATIONS
from plangate.web.problems import TYPE_BASE
from plangate.web.stripe_app_actions import ACTIONS

FIXTURES = Path(__file__).parents[2] / "fixtures" / "decisions"
REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


def test_every_code_has_its_heading_status_and_title() -> None:
    found = re.findall(r"^### (\w+)\n\n(\d{3}) · (.+)\n\n(.+ \*What to do:\* .+)$", page("errors.md"), re.MULTILINE)
    assert [(code, int(status), title) for code, status, title, _ in found] == [
        (code.value, kind.status, kind.title) for code, kind in CATALOGUE.items()
    ]
    assert TYPE_BASE.endswith("docs/reference/errors.md#")


def test_every_reason_is_explained() -> None:
    found = re.findall(r"^\| `(\w+)` \| (yes|no|either) \| .+ \|$", page("reasons.md"), re.MULTILINE)
    assert [reason for reason, _ in found] == [reason.value for reason in Reason]


def test_the_reasons_of_a_soft_limit_are_those_of_the_vectors() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:yes|no|either) \| (.+) \|$", page("reasons.md"), re.MULTILINE))
    cases = json.loads((FIXTURES / "metered.json").read_text("utf-8"))["cases"]
    over = [case["expect"] for case in cases if case["expect"].get("over_soft_limit") and case["expect"]["allowed"]]
    assert {one["reason"] for one in over} == {reason for reason, told in rows.items() if "over_soft_limit" in told}


@pytest.mark.parametrize("model", [Settings, EnvironmentSettings])
def test_every_setting_is_listed_with_its_default(model: type[Settings] | type[EnvironmentSettings]) -> None:
    found = dict(re.findall(r"^\| `PLANGATE_(\w+)` \| (.+?) \| .+ \|$", page("settings.md"), re.MULTILINE))
    for name, field in model.model_fields.items():
        if name in {"name", "environments"}:
            continue
        told = found[name.upper()]
        if isinstance(field.default, str | int) and field.default:
            assert told == f"`{field.default}`", name
    known = {*Settings.model_fields, *EnvironmentSettings.model_fields} - {"name", "environments"}
    assert {name.lower() for name in found} == known


def test_every_operation_is_listed_with_its_scope_and_headers() -> None:
    found = re.findall(r"^\| `(\w+) (/v1/\S+)` \| (\w+(?: key)?) \| (.+) \|$", page("api.md"), re.MULTILINE)
    assert {(method, path, scope) for method, path, scope, _ in found} == {
        (one.method, one.path, "any key" if one.scope == "public" else one.scope) for one in OPERATIONS
    }
    texts = {(method, path): text for method, path, _, text in found}
    for one in OPERATIONS:
        text = texts[one.method, one.path]
        assert text.startswith(one.summary)
        assert ("`Idempotency-Key`" in text) is one.takes_idempotency_key
        assert ("`If-Match`" in text) is one.takes_if_match
        assert ("`Plangate-Version`" in text) is one.takes_version


def test_every_action_is_listed_with_its_role() -> None:
    found = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (viewer|agent|admin) \|$", page("api.md"), re.MULTILINE)
    assert found == [(action.name, action.role) for action in ACTIONS.values()]
