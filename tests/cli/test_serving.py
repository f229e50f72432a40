"""The processes of a deployment: a server that answers and stops when told, several of them on PostgreSQL, a worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.test_demo import free_ports
from tests.conftest import ACCOUNT, APP_SECRET, SECRET_KEY, WEBHOOK_SECRET

START_SECONDS = 30


@contextmanager
def running(*arguments: str, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`plangate` with these arguments, told to end by SIGTERM afterwards, which it must do cleanly."""
    process = subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-m", "plangate", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "backend"), **settings},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode in {0, -signal.SIGTERM}, said
    assert "Traceback" not in said, said


def settings_for(database_url: str) -> dict[str, str]:
    return {
        "PLANGATE_DATABASE_URL": database_url,
        "PLANGATE_SECRET_KEYS": SECRET_KEY,
        "PLANGATE_STRIPE_SECRET_KEY": "sk_test_plangate",
        "PLANGATE_STRIPE_API_BASE": "http://127.0.0.1:9",
        "PLANGATE_STRIPE_ACCOUNT": ACCOUNT,
        "PLANGATE_STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "PLANGATE_STRIPE_APP_SECRETS": APP_SECRET,
    }


def wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{address}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.05)


def test_a_server_answers_and_ends_when_told(database_url: str) -> None:
    workers = "2" if database_url.startswith("postgresql") else "1"
    port = free_ports()
    with running("serve", "--port", str(port), "--workers", workers, settings=settings_for(database_url)):
        wait_until_ready(f"http://127.0.0.1:{port}")
        refused = httpx.post(f"http://127.0.0.1:{port}/v1/check", json={}, trust_env=False)
        assert refused.status_code == 401
        assert "server" not in refused.headers
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)


def test_a_worker_runs_until_it_is_told_to_end(database_url: str) -> None:
    with running("worker", settings=settings_for(database_url)) as process:
        assert process.stderr is not None
        assert "The worker runs" in process.stderr.readline()
