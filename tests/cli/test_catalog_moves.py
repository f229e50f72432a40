"""`plangate catalog` where holders are concerned: who migrates, how far that is, and drafting from an account."""

import json
import re
from pathlib import Path

import pytest

from plangate.catalog_file import read_catalog
from tests.cli.conftest import Plangate
from tests.sandbox_server import SandboxServer

FREE = """\
version: 1
initial_plan: free
features:
  exports: {name: Exports, type: event}
plans:
  free: {name: Free, entitlements: {exports: 10}}
  basic: {name: Basic, entitlements: {exports: 20}}
"""


def test_who_migrates_is_shown_before_and_after(plangate: Plangate, on_database: str, tmp_path: Path) -> None:
    assert on_database
    file = tmp_path / "catalog.yaml"
    file.write_text(FREE, "utf-8")
    assert plangate("catalog", "apply", str(file)).code == 0
    assert "No version was published yet" in plangate("catalog", "migrations").out
    file.write_text(FREE.replace("10", "15").replace("20", "25"), "utf-8")
    arguments = ("--migrate", "none", "--migrate", "basic=id=acme")
    planned = plangate("catalog", "plan", str(file), *arguments)
    assert planned.code == 2
    assert re.search(r"^~ plan +free +Free, version 1 → 2, its holders keep theirs$", planned.out, re.MULTILINE)
    assert re.search(r"^~ plan +basic +Basic, version 1 → 2, some of its holders get it$", planned.out, re.MULTILINE)
    assert f"catalog apply {file} --revision 1 --migrate none --migrate basic=id=acme" in planned.err
    machine = json.loads(plangate("catalog", "plan", str(file), *arguments, "--json").out)
    assert [(one["key"], one["version"], one["migrate"]) for one in machine["changes"]] == [
        ("free", 2, "none"),
        ("basic", 2, "some"),
    ]
    applied = plangate("catalog", "apply", str(file), "--revision", "1", *arguments)
    assert applied.code == 0
    assert "plangate catalog migrations" in applied.err
    listed = json.loads(plangate("catalog", "migrations", "--json").out)
    assert {(one["key"], one["mode"], one["state"]) for one in listed} == {
        ("free", "none", "finished"),
        ("basic", "some", "running"),
    }
    shown = plangate("catalog", "migrations")
    assert re.search(r"free 2.*nobody.*finished", shown.out)
    running = next(one["id"] for one in listed if one["state"] == "running")
    assert running in plangate("catalog", "migrations", "--retry", running).out
    unknown = plangate("catalog", "migrations", "--retry", "mig_1")
    assert unknown.code == 1
    assert "no such migration" in unknown.err


@pytest.mark.parametrize("said", ["some", "basic=", "gold=none"])
def test_who_migrates_is_refused_when_it_says_nothing(
    plangate: Plangate, on_database: str, tmp_path: Path, said: str
) -> None:
    assert on_database
    file = tmp_path / "catalog.yaml"
    file.write_text(FREE, "utf-8")
    refused = plangate("catalog", "plan", str(file), "--migrate", said)
    assert refused.code == 1
    assert "migrate" in refused.err


def test_a_catalogue_is_drafted_from_the_account(
    plangate: Plangate, on_database: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert on_database
    monkeypatch.setenv("PLANGATE_STRIPE_SECRET_KEY", sandbox.secret_key)
    monkeypatch.setenv("PLANGATE_STRIPE_API_BASE", sandbox.url)
    assert "--stripe" in plangate("catalog", "import").err
    stripe = sandbox.client().v1
    product = stripe.products.create({"name": "Gold"})
    price = stripe.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": 3000, "recurring": {"interval": "month"}}
    )
    mug = stripe.products.create({"name": "A mug"})
    file = tmp_path / "catalog.yaml"
    imported = plangate("catalog", "import", "--stripe", str(file))
    assert imported.code == 0
    assert mug.id in imported.err
    plan = read_catalog(file.read_text("utf-8")).plans["gold"]
    assert (plan.stripe_product, [one.stripe_price for one in plan.prices]) == (product.id, [price.id])
    assert plangate("catalog", "import", "--stripe").out == file.read_text("utf-8")
    assert plangate("catalog", "plan", str(file)).code == 2
    assert plangate("catalog", "apply", str(file)).code == 0
    assert plangate("catalog", "plan", str(file)).code == 0


def test_a_draft_is_saved_diffed_published_and_the_rest_is_migrated_later(
    plangate: Plangate, on_database: str, tmp_path: Path
) -> None:
    assert on_database
    file = tmp_path / "catalog.yaml"
    file.write_text(FREE, "utf-8")
    assert plangate("catalog", "apply", str(file)).code == 0
    absent = plangate("catalog", "diff")
    assert absent.code == 1
    assert "plangate catalog draft FILE" in absent.err
    assert "based on revision 1" in plangate("catalog", "draft", str(file)).out
    assert plangate("catalog", "diff").code == 0
    assert plangate("catalog", "discard").code == 0
    file.write_text(FREE.replace("10", "15"), "utf-8")
    assert plangate("catalog", "draft", str(file), "--revision", "7").code == 1
    assert plangate("catalog", "draft", str(file)).code == 0
    diff = plangate("catalog", "diff", "--migrate", "none")
    assert diff.code == 2
    assert re.search(r"^~ plan +free +Free, version 1 → 2, its holders keep theirs$", diff.out, re.MULTILINE)
    assert "plangate catalog publish --migrate none" in diff.err
    assert json.loads(plangate("catalog", "diff", "--json").out)["changes"][0]["migrate"] == "all"
    assert "Revision 2 is in force." in plangate("catalog", "publish", "--migrate", "none").out
    assert plangate("catalog", "publish").code == 1

    assert "Say who" in plangate("catalog", "migrate", "free").err
    assert "Name companies" in plangate("catalog", "migrate", "free", "--companies", "all").err
    assert "None of 0 companies" in plangate("catalog", "migrate", "free", "--all", "--dry-run").out
    some = plangate("catalog", "migrate", "free", "--companies", "id=acme", "--json")
    assert json.loads(some.out)["migration"]["state"] == "running"
    assert "gets version 2" in plangate("catalog", "migrate", "free", "--all").out
    assert "Nobody was left" in plangate("catalog", "migrate", "free", "--all").err
