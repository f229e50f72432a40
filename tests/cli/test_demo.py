"""The demo as a person starts it: a process of its own, three addresses, four companies, and nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

START_SECONDS = 60


def free_ports() -> int:
    """The first of three consecutive ports that nobody uses."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        try:
            for port in range(first, first + 3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "plangate", "demo", *(str(one) for one in arguments)]


def surroundings() -> dict[str, str]:
    """This process's variables, with the sources on the path."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "backend"), "COLUMNS": "200"}


def refused(*arguments: object) -> str:
    """Run a demo that must not start; answers its sentence."""
    ended = subprocess.run(  # noqa: S603 - our own command line
        command(*arguments), env=surroundings(), capture_output=True, text=True, timeout=START_SECONDS, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


@contextmanager
def running_demo(folder: Path, port: int) -> Iterator[dict[str, Any]]:
    """A demo that answers; ended by Ctrl-C, which must end it cleanly."""
    process = subprocess.Popen(  # noqa: S603 - our own command line
        command("--port", port, "--data", folder),
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    announcement = folder / "demo.json"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not announcement.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"the demo did not start: {process.communicate()[0]}")
            time.sleep(0.05)
        yield json.loads(announcement.read_text("utf-8"))
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=15)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert f"http://127.0.0.1:{port}" in said
    assert not announcement.exists()


def companies(addresses: dict[str, Any]) -> dict[str, Any]:
    """The companies by their key `id`."""
    answer = httpx.get(
        f"{addresses['plangate']}/v1/companies",
        headers={"Authorization": f"Bearer {addresses['secret_key']}"},
        trust_env=False,
    )
    return {company["keys"]["id"]: company for company in answer.raise_for_status().json()["data"]}


def test_the_demo_answers_is_alone_and_comes_back(tmp_path: Path) -> None:
    port, folder = free_ports(), tmp_path / "demo"
    with running_demo(folder, port) as addresses:
        assert set(addresses) == {
            "plangate",
            "sandbox",
            "site",
            "secret_key",
            "publishable_key",
            "webhook_secret",
            "stripe_app_secret",
            "stripe_account",
        }
        assert [addresses[name] for name in ("plangate", "sandbox", "site")] == [
            f"http://127.0.0.1:{number}" for number in range(port, port + 3)
        ]
        for address in (f"{addresses['plangate']}/healthz", addresses["sandbox"], addresses["site"]):
            assert httpx.get(address, trust_env=False).status_code == 200
        assert oct((folder / "demo.json").stat().st_mode & 0o777) == "0o600"

        found = companies(addresses)
        assert {key: company["plan"]["key"] for key, company in found.items()} == {
            "acme": "free",
            "globex": "pro",
            "initech": "starter",
            "umbrella": "pro",
        }
        assert found["acme"]["subscription"] is None
        assert found["globex"]["subscription"]["interval"] == "year"
        assert found["initech"]["subscription"]["status"] == "past_due"
        assert found["umbrella"]["scheduled_change"]["plan"] == "starter"

        assert f"Port {port} is taken" in refused("--port", port)
        assert "another demo" in refused("--port", port + 2).lower()
        assert "Another demo is running" in refused("--port", free_ports(), "--data", folder)

    again = free_ports()
    with running_demo(folder, again) as addresses:
        assert companies(addresses).keys() == found.keys()
        moved = httpx.post(
            f"{addresses['sandbox']}/_sandbox/clock", json={"advance": "P1M1D"}, timeout=60, trust_env=False
        )
        assert moved.status_code == 200
        deadline = time.monotonic() + 20
        while companies(addresses)["umbrella"]["plan"]["key"] != "starter":
            assert time.monotonic() < deadline, "the scheduled downgrade did not arrive"
            time.sleep(0.1)
        assert companies(addresses)["umbrella"]["scheduled_change"] is None


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", "utf-8")
    assert f"{file} cannot be used" in refused("--port", free_ports(), "--data", file)
