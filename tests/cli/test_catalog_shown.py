"""What `plangate catalog plan` and `apply` print about prices, and the calls they make in Stripe."""

import json
from pathlib import Path
from typing import Any

import pytest

from plangate.catalog_file import catalog_text, parse_catalog
from tests.catalog.pricing import monthly, priced
from tests.cli.conftest import Plangate
from tests.sandbox_server import SandboxServer

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def file(on_database: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The catalogue that charges in every way, as a file."""
    assert on_database
    monkeypatch.setenv("PLANGATE_STRIPE_SECRET_KEY", sandbox.secret_key)
    monkeypatch.setenv("PLANGATE_STRIPE_API_BASE", sandbox.url)
    written = tmp_path / "catalog.yaml"
    written.write_text(catalog_text(parse_catalog(priced())), "utf-8")
    return written


def test_the_calls_in_stripe_are_shown_before_they_are_made(
    plangate: Plangate, file: Path, sandbox: SandboxServer
) -> None:
    planned = plangate("catalog", "plan", str(file))
    assert planned.code == 2
    lines = planned.out.splitlines()
    shown = lines[lines.index("In Stripe:") + 1 :]
    assert shown[0] == "+ product plangate_plan_pro  Pro"
    assert "+ meter plangate_overage_calls  API calls: overage" in shown
    assert "+ price plangate_plan_pro_usd_1_month_4900  Pro, 4900 usd every month" in shown
    assert any(line.endswith("  Pro: Exports, 0.5 usd of plangate_exports every month") for line in shown)
    assert any(line.endswith("200 usd per 1,000 of plangate_overage_calls every month") for line in shown)
    assert sandbox.control("GET", "requests")["data"] == []
    machine = json.loads(plangate("catalog", "plan", str(file), "--json").out)
    assert {"action": "create", "kind": "meter", "key": "plangate_exports", "name": "Exports"} in machine["stripe"]
    applied = plangate("catalog", "apply", str(file))
    assert "In Stripe:" in applied.out
    assert "In Stripe:" not in plangate("catalog", "plan", str(file)).out

    document = priced()
    document["plans"]["pro"]["name"] = "Professional"
    document["plans"]["pro"]["prices"] = [monthly(amount_minor=5900)]
    file.write_text(catalog_text(parse_catalog(document)), "utf-8")
    changed = plangate("catalog", "plan", str(file)).out.splitlines()
    assert "~ update product plangate_plan_pro  Professional" in changed
    assert "+ price plangate_plan_pro_usd_1_month_5900  Professional, 5900 usd every month" in changed
    archived = [line for line in changed if line.startswith("~ archive price price_")]
    assert [line.partition("  ")[2] for line in archived] == ["pro, 4900 usd every month"]


def test_what_stripe_or_the_catalogue_in_force_refuse_is_told_with_its_line(plangate: Plangate, file: Path) -> None:
    assert plangate("catalog", "apply", str(file)).code == 0
    written = file.read_text("utf-8")
    adopting = written.replace("    name: Team\n", "    name: Team\n    stripe_product: prod_nowhere\n")
    line = adopting.splitlines().index("    stripe_product: prod_nowhere") + 1
    file.write_text(adopting, "utf-8")
    refused = plangate("catalog", "apply", str(file))
    assert refused.code == 1
    assert f"/plans/team/stripe_product (line {line}): Stripe has no active product prod_nowhere." in refused.err
    counting = written.replace("    name: Exports\n", "    name: Exports\n    event: export\n")
    line = counting.splitlines().index("    event: export") + 1
    file.write_text(counting, "utf-8")
    for command in ("plan", "apply"):
        assert f"/features/exports/event (line {line}) was published" in plangate("catalog", command, str(file)).err
    file.write_text(written, "utf-8")
    elsewhere = plangate("catalog", "apply", str(file), "--migrate", "nowhere=all")
    assert "There is no plan or add-on 'nowhere' to migrate." in elsewhere.err
    assert "(line" not in elsewhere.err


def test_what_is_charged_is_told_in_words(plangate: Plangate, file: Path) -> None:
    said = plangate("catalog", "plan", str(file), "-v").out
    for words in (
        "5 paid in advance: $9.00 (usd/month)",
        "unlimited per billing month paid as it is used: $0.005 (usd/month)",
        "paid by tiers: graduated: to 1,000 $0.00 + $5.00, beyond $0.0025 (usd/month)",
        "unlimited per billing month (soft limit 10,000) overage is paid: $2.00 per 1,000 (usd/month)",
        "volume: to 10 $10.00, beyond $8.00",
        "$1.00 per 10, a package begun is free",
    ):
        assert words in said, words
    assert plangate("catalog", "apply", str(file)).code == 0
    document = priced()
    document["plans"]["pro"]["entitlements"]["exports"]["prices"] = [monthly(amount_decimal="0.75")]
    file.write_text(catalog_text(parse_catalog(document)), "utf-8")
    changed = plangate("catalog", "plan", str(file)).out
    assert "paid as it is used: $0.005 (usd/month) → unlimited per billing month paid as it is used: $0.0075" in changed


def test_it_is_said_how_many_will_pay_another_price(plangate: Plangate, file: Path, sandbox: SandboxServer) -> None:
    document: dict[str, Any] = {
        "version": 1,
        "initial_plan": "free",
        "features": {"exports": {"name": "Exports", "type": "event"}},
        "plans": {
            "free": {"name": "Free", "entitlements": {"exports": 10}},
            "pro": {"name": "Pro", "entitlements": {"exports": 20}, "prices": [monthly(amount_minor=4900)]},
        },
    }
    file.write_text(json.dumps(document), "utf-8")
    assert plangate("catalog", "apply", str(file)).code == 0
    stripe = sandbox.client().v1
    (price,) = stripe.prices.list({"active": True}).data
    for name in ("Acme", "Globex"):
        customer = stripe.customers.create({"name": name})
        method = stripe.payment_methods.attach("pm_card_visa", {"customer": customer.id})
        stripe.subscriptions.create(
            {"customer": customer.id, "items": [{"price": price.id}], "default_payment_method": method.id}
        )
    assert plangate("sync").code == 0
    document["plans"]["pro"]["prices"] = [monthly(amount_minor=5900)]
    file.write_text(json.dumps(document), "utf-8")
    assert "another price" not in plangate("catalog", "plan", str(file)).out
    planned = plangate("catalog", "plan", str(file), "--proration", "next_invoice")
    assert "\n2 companies will pay another price.\n" in planned.out
    assert "--revision 1 --proration next_invoice" in planned.err
    machine = json.loads(plangate("catalog", "plan", str(file), "--proration", "none", "--json").out)
    assert machine["repriced"] == {"companies": 2, "is_complete": True}
    assert plangate("catalog", "draft", str(file)).code == 0
    assert "another price" not in plangate("catalog", "diff").out
    drafted = plangate("catalog", "diff", "--proration", "none")
    assert "\n2 companies will pay another price.\n" in drafted.out
    assert "catalog publish --proration none" in drafted.err
    assert plangate("catalog", "discard").code == 0
    applied = plangate("catalog", "apply", str(file), "--proration", "next_invoice")
    assert "\n2 companies will pay another price.\n" in applied.out
