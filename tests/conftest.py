"""What every test may ask for: a fresh migrated database of each kind, a deployment on it, and the sandbox."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plangate import leasing
from plangate.deployment import Deployment
from plangate.environment import Environment
from plangate.settings import EnvironmentSettings, Settings
from plangate.store.database import Database
from plangate.store.schema import migrate
from tests.postgresql import PostgresqlServer

if TYPE_CHECKING:
    from tests.sandbox_server import SandboxServer

SECRET_KEY = "test-secret-0123456789abcdef0123456789abcdef"
WEBHOOK_SECRET = "whsec_test_0123456789abcdef"
APP_SECRET = "absec_test_0123456789abcdef"
ACCOUNT = "acct_test1234567890"
_NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers there


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """All asynchronous tests run on asyncio, as the server does."""
    return "asyncio"


async def _migrated(url: str) -> None:
    database = Database.at(url)
    await migrate(database)
    await database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file that tests copy."""
    file = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    asyncio.run(_migrated(f"sqlite:///{file}"))
    return file


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL server with a migrated database: at PLANGATE_TEST_POSTGRESQL_URL, or one of our own."""
    with tempfile.TemporaryDirectory(prefix="plangate-pg-") as folder:
        server = PostgresqlServer.start(Path(folder) / "data", os.environ.get("PLANGATE_TEST_POSTGRESQL_URL"))
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty, migrated database: once on SQLite, once on PostgreSQL."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        file = tmp_path / "plangate.sqlite3"
        shutil.copyfile(template, file)
        yield f"sqlite:///{file}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    yield server.url
    server.empty()


@pytest.fixture(scope="session")
def sandbox_process() -> "Iterator[SandboxServer]":
    """One sandbox server for the whole run."""
    from tests.sandbox_server import SandboxServer

    with SandboxServer() as server:
        yield server


@pytest.fixture
def sandbox(sandbox_process: "SandboxServer") -> "SandboxServer":
    """The sandbox, emptied: no objects, no faults, its clock at wall time, no webhook address."""
    sandbox_process.control("POST", "/_sandbox/reset")
    sandbox_process.set_webhook(None)
    return sandbox_process


def environment_settings(**changes: object) -> EnvironmentSettings:
    """Settings of a test environment; Stripe is nowhere unless `stripe_api_base` says otherwise."""
    return EnvironmentSettings.model_validate(
        {
            "name": "default",
            "stripe_secret_key": "sk_test_plangate",
            "stripe_account": ACCOUNT,
            "stripe_mode": "test",
            "stripe_api_base": _NOWHERE,
            "stripe_requests_per_second": 1_000,  # Stripe's limits are not the sandbox's
            "stripe_webhook_secrets": (WEBHOOK_SECRET,),
            "stripe_app_secrets": (APP_SECRET,),
            "stripe_app_roles": {"usr_admin": "admin", "usr_agent": "agent", "*": "viewer"},
            "allowed_origins": ("http://shop.test",),
            **changes,
        }
    )


@pytest.fixture
async def deployment(database_url: str) -> AsyncIterator[Deployment]:
    """A deployment with one environment and no Stripe behind it."""
    settings = Settings(database_url=database_url, secret_keys=(SECRET_KEY,), environments=(environment_settings(),))
    opened = await Deployment.open(settings)
    yield opened
    await opened.close()


@pytest.fixture
async def connected(database_url: str, sandbox: "SandboxServer") -> AsyncIterator[Deployment]:
    """A deployment with one environment whose Stripe is the sandbox."""
    own = environment_settings(
        stripe_api_base=sandbox.url,
        stripe_secret_key=sandbox.secret_key,
        stripe_account=sandbox.account_id,
        stripe_webhook_secrets=(sandbox.webhook_secret,),
    )
    settings = Settings(database_url=database_url, secret_keys=(SECRET_KEY,), environments=(own,))
    opened = await Deployment.open(settings)
    yield opened
    await opened.close()


@pytest.fixture
def environment(deployment: Deployment) -> Environment:
    """The only environment of `deployment`."""
    return deployment.named(None)


@pytest.fixture
def connected_environment(connected: Deployment) -> Environment:
    """The only environment of `connected`."""
    return connected.named(None)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are renewed, and fall silent, in tenths of seconds."""
    monkeypatch.setattr(leasing, "RENEWED_EVERY_SECONDS", 0.1)
    monkeypatch.setattr(leasing, "SILENT_SECONDS", 0.6)
