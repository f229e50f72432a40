"""The commands as a person runs them: what they print, what they refuse, and their exit codes."""

import asyncio
import json
import re
import socket
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.main import get_command

from plangate import companies, metering
from plangate.cli import app
from plangate.deployment import Deployment
from plangate.metering import TrackEvent
from plangate.settings import load_settings
from plangate.shapes import Actor
from plangate.store.database import Database
from tests.cli.conftest import Plangate
from tests.sandbox_server import SandboxServer

DEMO = Path(__file__).parents[2] / "fixtures" / "catalogs" / "demo.yaml"
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
FREE = "version: 1\nplans:\n  free: {name: Free}\n"


def is_live(key: str) -> bool:
    """Whether a server with the same settings would accept the key."""

    async def ask() -> bool:
        deployment = await Deployment.open(load_settings())
        try:
            return await deployment.key(key) is not None
        finally:
            await deployment.close()

    return asyncio.run(ask())


def _commands() -> list[str]:
    found: list[str] = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]  # a group has commands
        nested = getattr(command, "commands", None)
        found.extend([f"{name} {inner}" for inner in nested] if nested else [name])
    return found


@pytest.mark.parametrize("command", [*_commands(), *sorted({name.split()[0] for name in _commands() if " " in name})])
def test_every_command_has_help_with_an_example(plangate: Plangate, command: str) -> None:
    said = plangate(*command.split(), "--help")
    assert said.code == 0
    assert re.search(rf"Example: plangate {command}\b", re.sub(r"\s+", " ", said.out))


def test_the_reference_lists_every_command_and_option() -> None:
    rows = re.findall(r"^\| `plangate ([a-z -]+)` \|([^|]*)\|", REFERENCE.read_text("utf-8"), re.MULTILINE)
    written = {name: set(re.findall(r"`(--[a-z-]+)`", options)) for name, options in rows}
    assert written == {name: _options(name) for name in _commands()}


def _options(name: str) -> set[str]:
    command = get_command(app)
    for part in name.split():
        command = command.commands[part]  # type: ignore[attr-defined]  # a group has commands
    found = {max(parameter.opts, key=len) for parameter in command.params if parameter.opts[0].startswith("-")}
    return found - {"--help", "--environment"}


def test_the_contracts_commands_exist() -> None:
    assert {
        "demo",
        "serve",
        "worker",
        "migrate",
        "sandbox",
        "catalog plan",
        "catalog apply",
        "catalog pull",
        "sync",
        "verify",
        "keys create",
        "keys list",
        "keys revoke",
        "app-roles set",
        "app-roles list",
        "audit verify",
        "stripe-app manifest",
    } <= set(_commands())


def test_a_fresh_database_is_migrated_and_gets_its_first_key(plangate: Plangate) -> None:
    refused = plangate("keys", "create", "--name", "backend")
    assert (refused.code, refused.out) == (1, "")
    assert "plangate migrate" in refused.err
    assert plangate("migrate").code == 0
    assert "already" in plangate("migrate").out
    made = plangate("keys", "create", "--name", "backend", "--scope", "check", "--scope", "track")
    assert made.code == 0
    key = made.out.strip()
    assert key.startswith("pgt_sk_")
    assert key not in made.err
    assert is_live(key)
    assert key not in Path("plangate.sqlite3").read_bytes().decode("latin-1")


def test_keys_are_listed_without_their_text_and_revoked_for_good(plangate: Plangate, on_database: str) -> None:
    assert "no keys yet" in plangate("keys", "list").out
    made = json.loads(plangate("keys", "create", "--name", "site", "--publishable", "--json").out)
    assert made["key"].startswith("pgt_pk_")
    listed = plangate("keys", "list")
    assert made["id"] in listed.out
    assert made["key"] not in listed.out
    assert is_live(made["key"])
    assert plangate("keys", "revoke", made["id"]).code == 0
    assert not is_live(made["key"])
    again = plangate("keys", "revoke", made["id"])
    assert again.code == 1
    assert "plangate keys list" in again.err
    assert "is not a scope" in plangate("keys", "create", "--name", "x", "--scope", "everything").err
    assert on_database.startswith(("sqlite", "postgresql"))


def test_a_catalogue_is_planned_applied_and_pulled(
    plangate: Plangate, on_database: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLANGATE_STRIPE_SECRET_KEY", sandbox.secret_key)
    monkeypatch.setenv("PLANGATE_STRIPE_API_BASE", sandbox.url)
    planned = plangate("catalog", "plan", str(DEMO))
    assert planned.code == 2
    assert re.search(r"^\+ plan +pro +Pro, version 1$", planned.out, re.MULTILINE)
    assert "plangate catalog apply" in planned.err
    applied = plangate("catalog", "apply", str(DEMO))
    assert applied.code == 0
    assert "Revision 1 is in force." in applied.out
    assert plangate("catalog", "plan", str(DEMO)).code == 0
    assert "No difference" in plangate("catalog", "apply", str(DEMO)).out

    pulled = tmp_path / "pulled.yaml"
    assert plangate("catalog", "pull", str(pulled)).code == 0
    assert pulled.read_bytes() == DEMO.read_bytes()
    assert plangate("catalog", "pull", "-").out.encode() == DEMO.read_bytes()

    text = (
        DEMO.read_text("utf-8")
        .replace("amount_minor: 4900", "amount_minor: 5900")
        .replace("limit: 1000,", "limit: 2000,", 2)
    )
    pulled.write_text(text, "utf-8")
    changed = plangate("catalog", "plan", str(pulled))
    assert changed.code == 2
    assert re.search(r"^~ plan +pro +Pro, version 1 → 2, its holders get it at once$", changed.out, re.MULTILINE)
    assert re.search(r"^    price usd/month +\$49\.00 → \$59\.00$", changed.out, re.MULTILINE)
    assert re.search(r"^    exports +1,000 per billing month → 2,000 per billing month$", changed.out, re.MULTILINE)
    machine = json.loads(plangate("catalog", "plan", str(pulled), "--json").out)
    assert [change["key"] for change in machine["changes"]] == ["starter", "pro"]
    stale = plangate("catalog", "apply", str(pulled), "--revision", "0")
    assert stale.code == 1
    assert "Plan again" in stale.err
    assert on_database


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nplanz: {}\n", "/planz (line 2) is not a known field here"),
        ("version: [", "not valid YAML at line"),
        ("", "The catalogue is empty"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(plangate: Plangate, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(text, "utf-8")
    refused = plangate("catalog", "plan", str(file))
    assert refused.code == 1
    assert said in refused.err
    assert "Traceback" not in refused.err


def test_every_further_fault_is_listed(plangate: Plangate, tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(f"{FREE}a: 1\nb: 2\n", "utf-8")
    assert "  /b is not a known field here" in plangate("catalog", "apply", str(file)).err


@pytest.mark.parametrize("arguments", [("plan", "missing.yaml"), ("apply", "."), ("pull", "no/such/folder.yaml")])
def test_files_that_cannot_be_used_are_named(plangate: Plangate, on_database: str, arguments: tuple[str, str]) -> None:
    refused = plangate("catalog", *arguments)
    assert refused.code == 1
    assert f"{arguments[1]} cannot be" in refused.err
    assert on_database


def test_prices_without_a_stripe_key_are_refused(plangate: Plangate, on_database: str) -> None:
    refused = plangate("catalog", "apply", str(DEMO))
    assert refused.code == 1
    assert "PLANGATE_STRIPE_SECRET_KEY" in refused.err
    assert on_database


def test_a_database_that_is_not_there_is_one_sentence(plangate: Plangate, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("postgresql://nobody@127.0.0.1:9/none", "mysql://x@y/z", "sqlite:///no/such/folder/x.sqlite3"):
        monkeypatch.setenv("PLANGATE_DATABASE_URL", url)
        for command in (("migrate",), ("keys", "list")):
            refused = plangate(*command)
            assert refused.code == 1
            assert "PLANGATE_DATABASE_URL" in refused.err
            assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    "missing",
    [
        "PLANGATE_SECRET_KEYS",
        "PLANGATE_STRIPE_SECRET_KEY",
        "PLANGATE_STRIPE_ACCOUNT",
        "PLANGATE_STRIPE_WEBHOOK_SECRETS",
        "PLANGATE_STRIPE_APP_SECRETS",
    ],
)
@pytest.mark.usefixtures("serving_settings")
def test_a_server_names_the_secret_it_misses(plangate: Plangate, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)
    for command in ("serve", "worker"):
        refused = plangate(command)
        assert refused.code == 1
        assert missing in refused.err


@pytest.mark.usefixtures("serving_settings")
def test_a_server_names_what_else_stops_it(plangate: Plangate) -> None:
    assert "plangate migrate" in plangate("serve").err
    plangate("migrate")
    assert "need PostgreSQL" in plangate("serve", "--workers", "2").err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in (("serve", "--port", port), ("sandbox", "--port", port)):
            refused = plangate(*command)
            assert refused.code == 1
            assert f"Port {port} is taken" in refused.err
            assert "--port" in refused.err


def test_the_manifest_points_at_the_deployment(plangate: Plangate) -> None:
    manifest = json.loads(plangate("stripe-app", "manifest", "--url", "https://plangate.example.com/").out)
    policy = manifest["ui_extension"]["content_security_policy"]
    assert policy["connect-src"] == ["https://plangate.example.com/stripe-app/v1/"]
    assert manifest["constants"]["API_BASE"] == "https://plangate.example.com/stripe-app/v1/"
    for url in ("http://plangate.example.com", "plangate.example.com", "https://"):
        assert plangate("stripe-app", "manifest", "--url", url).code == 1


def test_roles_are_listed_as_the_settings_say(plangate: Plangate, monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(plangate("app-roles", "list", "--json").out)[0] == {
        "environment": "default",
        "user": "*",
        "role": "viewer",
        "from": "default",
    }
    monkeypatch.setenv("PLANGATE_STRIPE_APP_ROLES", "usr_1=admin,*=agent")
    listed = plangate("app-roles", "list")
    assert re.search(r"usr_1 +admin +settings", listed.out)
    assert re.search(r"\* +agent +settings", listed.out)
    assert "plangate migrate" in listed.err


def test_roles_set_here_come_before_the_settings(
    plangate: Plangate, on_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANGATE_STRIPE_APP_ROLES", "usr_1=admin,*=agent")
    assert plangate("app-roles", "set", "usr_1", "viewer").code == 0
    assert plangate("app-roles", "set", "usr_2", "admin").code == 0

    def listed() -> dict[str, tuple[str, str]]:
        return {
            one["user"]: (one["role"], one["from"]) for one in json.loads(plangate("app-roles", "list", "--json").out)
        }

    assert listed() == {
        "usr_1": ("viewer", "app-roles"),
        "usr_2": ("admin", "app-roles"),
        "*": ("agent", "settings"),
    }
    assert plangate("app-roles", "set", "usr_1", "settings").code == 0
    assert listed()["usr_1"] == ("admin", "settings")
    assert "is not a role" in plangate("app-roles", "set", "usr_1", "owner").err
    assert "usr_" in plangate("app-roles", "set", "ada", "agent").err
    assert on_database.startswith(("sqlite", "postgresql"))


def test_counters_are_compared_and_counted_anew(
    plangate: Plangate, on_database: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANGATE_STRIPE_SECRET_KEY", sandbox.secret_key)
    monkeypatch.setenv("PLANGATE_STRIPE_API_BASE", sandbox.url)
    plangate("catalog", "apply", str(DEMO))

    async def use() -> None:
        deployment = await Deployment.open(load_settings())
        env = deployment.named(None)
        feature = next(one for one in (await env.catalog()).features.values() if one.type == "event")
        await companies.upsert(env, keys={"id": "acme"}, actor=Actor(kind="cli", id="tests"))
        event = TrackEvent(event=feature.event or feature.key, company={"id": "acme"}, quantity=4)
        await metering.record(env, [event])
        await deployment.close()

    asyncio.run(use())
    assert plangate("verify", "--usage").code == 0
    _run_sql(on_database, "UPDATE usage_windows SET used = 7")
    drifted = plangate("verify", "--usage", "--json")
    assert drifted.code == 1
    assert all("says 7, the ledger 4" in one["detail"] for one in json.loads(drifted.out))
    assert "verify --usage --repair" in "".join(map(str, plangate("verify", "--usage")))
    assert plangate("verify", "--usage", "--repair").code == 0
    assert plangate("verify", "--usage").code == 0
    assert plangate("verify", "--usage", "--stripe").code == 0
    refused = plangate("verify", "--stripe")
    assert (refused.code, "--stripe goes with --usage" in refused.err) == (1, True)


def test_the_audit_is_verified(plangate: Plangate, on_database: str) -> None:
    verified = plangate("audit", "verify")
    assert (verified.code, verified.out) == (0, "0 entries, unbroken.\n")
    for role in ("viewer", "agent", "admin"):
        plangate("app-roles", "set", "usr_1", role)
    verified = plangate("audit", "verify")
    assert (verified.code, verified.out) == (0, "3 entries, unbroken.\n")
    _run_sql(on_database, "UPDATE audit SET note = 'x' WHERE sequence = 2")
    broken = plangate("audit", "verify", "--json")
    assert (broken.code, json.loads(broken.out)["broken"]) == (1, {"sequence": 2, "detail": "was changed"})
    _run_sql(on_database, "DELETE FROM audit WHERE sequence = 2")
    broken = plangate("audit", "verify")
    assert (broken.code, broken.out) == (1, "Entry 2 is missing.\n")
    _run_sql(on_database, "DELETE FROM audit WHERE sequence = 3")
    assert "is missing" in plangate("audit", "verify").out
    _run_sql(on_database, "DELETE FROM audit_heads")
    assert plangate("audit", "verify").code == 1


def _run_sql(address: str, statement: str) -> None:
    async def work() -> None:
        database = Database.at(address)
        async with database.connecting() as connection:
            await connection.execute(text(statement))
            await connection.commit()
        await database.close()

    asyncio.run(work())


def test_several_environments_have_to_be_named(plangate: Plangate) -> None:
    Path("plangate.toml").write_text("[environments.one]\n[environments.two]\n", "utf-8")
    plangate("migrate")
    refused = plangate("keys", "list")
    assert refused.code == 1
    assert "--environment: one, two" in refused.err
    assert plangate("keys", "create", "--name", "backend", "-e", "two").code == 0
    assert json.loads(plangate("keys", "list", "-e", "one", "--json").out) == []
    assert len(json.loads(plangate("keys", "list", "-e", "two", "--json").out)) == 1


def test_import_and_comparison_end_in_agreement(
    plangate: Plangate, on_database: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANGATE_STRIPE_SECRET_KEY", sandbox.secret_key)
    monkeypatch.setenv("PLANGATE_STRIPE_API_BASE", sandbox.url)
    plangate("catalog", "apply", str(DEMO))
    client = sandbox.client()
    prices = {price.lookup_key: price.id for price in client.v1.prices.list({"limit": 100}).data}
    customer = client.v1.customers.create({"name": "Acme"})
    client.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    subscription = client.v1.subscriptions.create(
        {
            "customer": customer.id,
            "items": [{"price": prices["plangate_plan_pro_usd_1_month_4900"]}],
            "default_payment_method": client.v1.customers.payment_methods.list(customer.id).data[0].id,
        }
    )
    assert "1 are ours" in plangate("sync").out
    assert (plangate("verify").code, plangate("verify", "--usage").code) == (0, 0)

    client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    drifted = plangate("verify")
    assert drifted.code == 1
    assert subscription.id in drifted.out
    assert "scheduled end at" in drifted.out
    repaired = plangate("verify", "--repair", "--json")
    assert repaired.code == 0
    assert [one["is_repaired"] for one in json.loads(repaired.out)] == [True]
    assert plangate("verify").code == 0

    by_hand = client.v1.prices.create(
        {
            "product": client.v1.products.create({"name": "Made by hand"}).id,
            "currency": "usd",
            "unit_amount": 700,
            "recurring": {"interval": "month"},
        }
    )
    client.v1.subscriptions.update(
        subscription.id, {"items": [{"id": subscription["items"].data[0].id, "price": by_hand.id}]}
    )
    assert plangate("verify", "--repair").code == 1
    unnamed = plangate("verify")
    assert unnamed.code == 1
    assert "unmapped_price" in unnamed.out
    # No repair mends what the catalogue has to say.
    assert "--repair" not in unnamed.err
    assert "runbook" in unnamed.err
    assert on_database
