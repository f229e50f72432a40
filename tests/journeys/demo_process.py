"""Runs `plangate demo` as a person would: a process of its own, three addresses, ended by a signal."""

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_READY_SECONDS = 60


@dataclass(frozen=True)
class Demo:
    """A running demo: where it is, and its keys, as `demo.json` says."""

    process: subprocess.Popen[bytes]
    plangate: str
    sandbox: str
    site: str
    secret_key: str
    publishable_key: str
    webhook_secret: str
    stripe_app_secret: str
    stripe_account: str

    def api(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """One call of the HTTP API with the demo's secret key."""
        return httpx.request(
            method,
            self.plangate + path,
            json=body,
            headers={"Authorization": f"Bearer {self.secret_key}", **headers},
            timeout=20,
        )

    def company(self, key: str = "acme") -> str:
        """The id of one of the seeded companies."""
        answer = self.api("GET", f"/v1/companies?search={key}")
        return str(next(one["id"] for one in answer.json()["data"] if one["keys"].get("id") == key))

    def check(self, feature: str, key: str = "acme") -> dict[str, Any]:
        """The Decision about one feature of a seeded company."""
        answer = self.api("POST", "/v1/check", {"company": {"id": key}, "feature": feature})
        assert answer.status_code == 200, answer.text
        decision: dict[str, Any] = answer.json()
        return decision

    def stripe_app(self, action: str, payload: dict[str, Any], *, user: str = "usr_demo") -> httpx.Response:
        """One message of the Stripe App, signed as Stripe signs it: the body is the signed text."""
        message = {**payload, "user_id": user, "account_id": self.stripe_account}
        body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
        signed_at = int(time.time())
        digest = hmac.new(self.stripe_app_secret.encode(), f"{signed_at}.".encode() + body, hashlib.sha256).hexdigest()
        return httpx.post(
            f"{self.plangate}/stripe-app/v1/{action}",
            content=body,
            headers={"Content-Type": "application/json", "Stripe-Signature": f"t={signed_at},v1={digest}"},
            timeout=20,
        )

    def advance(self, duration: str) -> None:
        """Move both clocks through the sandbox's control."""
        self.control("POST", "/_sandbox/clock", {"advance": duration})

    def control(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON value
        """One call of the sandbox's control."""
        answer = httpx.request(method, self.sandbox + path, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def running_demo(folder: Path) -> Iterator[Demo]:
    """A demo on three free ports that keeps its files in `folder`; it is ended politely and must end cleanly."""
    process = start_demo(folder, port=three_free_ports())
    try:
        yield ready(process, folder)
    finally:
        stop(process)


def start_demo(folder: Path, *, port: int) -> subprocess.Popen[bytes]:
    """Start the process; it is not ready yet."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.log").open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - our own command, with our own arguments.
            [sys.executable, "-m", "plangate", "demo", "--port", str(port), "--data", str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "backend")},
        )


def ready(process: subprocess.Popen[bytes], folder: Path) -> Demo:
    """Wait until `demo.json` is written."""
    file = folder / "demo.json"
    give_up_at = time.monotonic() + _READY_SECONDS
    while not file.exists():
        assert process.poll() is None, (folder / "output.log").read_text()
        assert time.monotonic() < give_up_at, "the demo was not ready in time"
        time.sleep(0.1)
    return Demo(process=process, **json.loads(file.read_text()))


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ctrl-C, and wait; a demo that does not end is killed and fails the test."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def three_free_ports() -> int:
    """The first of three consecutive ports that nobody listens on."""
    for first in range(18_700, 28_000, 3):
        if all(_is_free(port) for port in range(first, first + 3)):
            return first
    raise RuntimeError("no three free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
