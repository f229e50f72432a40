"""Runs the command line in this process, with its own settings and working directory."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

from plangate.cli import main
from tests.conftest import ACCOUNT, APP_SECRET, SECRET_KEY, WEBHOOK_SECRET


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Plangate = Callable[..., Said]


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the machine, a folder of its own, and the logs as they were afterwards."""
    for name in [name for name in __import__("os").environ if name.startswith("PLANGATE_")]:
        if name != "PLANGATE_TEST_POSTGRESQL_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def plangate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plangate:
    """Run `plangate` with these arguments; answers what it said."""

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["plangate", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0 if code is None else 1, said.out, said.err)

    return run


@pytest.fixture
def on_database(monkeypatch: pytest.MonkeyPatch, database_url: str) -> str:
    """The settings point at a fresh, migrated database of each kind."""
    monkeypatch.setenv("PLANGATE_DATABASE_URL", database_url)
    return database_url


@pytest.fixture
def serving_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every secret a server needs."""
    monkeypatch.setenv("PLANGATE_SECRET_KEYS", SECRET_KEY)
    monkeypatch.setenv("PLANGATE_STRIPE_SECRET_KEY", "sk_test_plangate")
    monkeypatch.setenv("PLANGATE_STRIPE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("PLANGATE_STRIPE_WEBHOOK_SECRETS", WEBHOOK_SECRET)
    monkeypatch.setenv("PLANGATE_STRIPE_APP_SECRETS", APP_SECRET)
