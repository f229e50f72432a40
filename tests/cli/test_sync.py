"""`plangate sync` and `plangate reviews` on the command line, against the sandbox as a server."""

import json
from pathlib import Path

import pytest

from plangate import importing
from plangate.cli import stripe_account
from tests.cli.conftest import Plangate
from tests.sandbox_server import SandboxServer
from tests.sync.crowds import grow_in

_CATALOGUE = """
version: 1
features:
  sso: {name: Single sign-on, type: boolean}
plans:
  free: {name: Free}
  pro:
    name: Pro
    entitlements: {sso: true}
    prices: [{currency: usd, interval: month, amount_minor: 4900}]
"""


@pytest.fixture
def connected_settings(serving_settings: None, monkeypatch: pytest.MonkeyPatch, sandbox: SandboxServer) -> None:
    """The settings point at the sandbox."""
    assert serving_settings is None
    monkeypatch.setenv("PLANGATE_STRIPE_API_BASE", sandbox.url)
    monkeypatch.setenv("PLANGATE_STRIPE_SECRET_KEY", sandbox.secret_key)
    monkeypatch.setenv("PLANGATE_STRIPE_ACCOUNT", sandbox.account_id)
    monkeypatch.setenv("PLANGATE_STRIPE_REQUESTS_PER_SECOND", "1000")


@pytest.fixture
def ours(plangate: Plangate, on_database: str, connected_settings: None, sandbox: SandboxServer) -> str:
    """The price of Pro, which is applied to the database and the sandbox."""
    assert on_database
    assert connected_settings is None
    Path("catalog.yaml").write_text(_CATALOGUE, "utf-8")
    assert plangate("catalog", "apply", "catalog.yaml").code == 0
    price: str = sandbox.control("GET", "state")["objects"]["price"][0]["id"]
    return price


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_account_is_imported_and_what_has_no_plan_is_named(
    plangate: Plangate, ours: str, sandbox: SandboxServer
) -> None:
    with sandbox.synchronous() as stripe:
        product = stripe.products.create({"name": "Made by hand"}).id
        price = stripe.prices.create(
            {
                "product": product,
                "currency": "eur",
                "unit_amount": 900,
                "recurring": {"interval": "month", "interval_count": 3},
            }
        ).id
        grow_in(stripe, sandbox, 3, price=ours)
        grow_in(stripe, sandbox, 2, price=price)
    said = plangate("sync")
    assert (said.code, said.err.count("plangate verify")) == (0, 1)
    assert "5 customers seen, 3 are ours, 3 changed." in said.out
    assert price in said.out
    assert "900 minor units eur / 3 months" in said.out
    report = json.loads(plangate("sync", "--json", "--restart").out)
    assert (report["companies"], report["changed"], report["failed"], report["is_resumed"]) == (3, 0, [], False)
    assert [(one["stripe_product_id"], one["customers"]) for one in report["unmapped"]] == [(product, 2)]
    assert plangate("verify").code == 0
    # Nothing was refunded yet.
    assert plangate("reviews", "list").out == "Nothing to review.\n"
    assert "--keep or --revoke" in plangate("reviews", "resolve", "rev_1", "--note", "why").err
    assert plangate("reviews", "resolve", "rev_1", "--keep", "--note", "why").code == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_customer_that_cannot_be_read_is_named_and_the_exit_code_says_so(
    plangate: Plangate, ours: str, sandbox: SandboxServer
) -> None:
    with sandbox.synchronous() as stripe:
        (name,) = grow_in(stripe, sandbox, 1, price=ours)
        assert plangate("sync").code == 0
        stripe.customers.delete(name)
    sandbox.control("POST", "faults", {"fault": "fail_call", "path": "/v1/customers/*", "count": None, "status": 500})
    said = plangate("sync")
    assert (said.code, name in said.out) == (1, True)
    sandbox.control("DELETE", "faults")
    assert plangate("sync").code == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_import_that_ends_early_says_how_to_go_on_and_many_prices_stay_readable(
    plangate: Plangate,
    on_database: str,
    connected_settings: None,
    sandbox: SandboxServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert on_database
    assert connected_settings is None
    Path("catalog.yaml").write_text(_CATALOGUE, "utf-8")
    assert plangate("catalog", "apply", "catalog.yaml").code == 0
    with sandbox.synchronous() as stripe:
        product = stripe.products.create({"name": "Made by hand"}).id
        for amount in range(1, 5):
            price = stripe.prices.create(
                {"product": product, "currency": "usd", "unit_amount": amount, "recurring": {"interval": "month"}}
            ).id
            grow_in(stripe, sandbox, amount, price=price)
    sandbox.control("POST", "faults", {"fault": "fail_call", "path": "/v1/subscriptions", "count": None, "status": 500})
    stopped = plangate("sync")
    assert (stopped.code, "Go on from there with: plangate sync" in stopped.err) == (1, True)
    sandbox.control("DELETE", "faults")
    monkeypatch.setattr(importing, "_UNMAPPED_MAX", 2)
    monkeypatch.setattr(stripe_account, "_UNMAPPED_SHOWN", 1)
    said = plangate("sync")
    # Newest first: four customers and three; those of the other two prices are only counted.
    assert "\n2 prices that customers pay belong to no plan or add-on:" in said.out
    assert said.out.count("price_") == 1
    assert "customers hold 3 of them" in said.out
    assert "plangate sync --json" in said.err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_differences_are_summed_up_by_class(plangate: Plangate, ours: str, sandbox: SandboxServer) -> None:
    with sandbox.synchronous() as stripe:
        grow_in(stripe, sandbox, 3, price=ours)
        assert plangate("sync").code == 0
        held = stripe.subscriptions.list().data
        for one in held[:2]:
            stripe.subscriptions.update(one.id, {"pause_collection": {"behavior": "void"}})
        stripe.subscriptions.cancel(held[2].id)
    said = plangate("verify")
    assert (said.code, said.out.splitlines()[-1]) == (1, "3 differences (2 details, 1 status), 0 repaired.")
    said = plangate("verify", "--repair")
    assert (said.code, said.out.splitlines()[-1]) == (0, "3 differences (2 details, 1 status), 3 repaired.")
    assert plangate("verify").out == "No drift.\n"
