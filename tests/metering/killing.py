"""A server that is killed under load, again and again, and the accounts that must balance afterwards."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import httpx
import msgspec

from tests.conftest import ACCOUNT, APP_SECRET, SECRET_KEY, WEBHOOK_SECRET

_CHECKOUT = Path(__file__).parents[2]
_CALLERS = 8
_START_SECONDS = 60


class Kept(msgspec.Struct):
    """What became of the events of all rounds, and how long the restarted server took until it was ready."""

    acknowledged: int = 0
    lost: int = 0
    unsure: int = 0
    counted: int = 0
    slowest_start_seconds: float = 0.0


async def kill_under_load(url: str, key: str, *, rounds: int, seed: int) -> Kept:
    """Start, load and kill a server `rounds` times; then send every event again and compare.

    An event that was acknowledged must be a duplicate when it is sent again. `counted` is what the company has used in
    the end: every event once, whether it had been acknowledged or not, because all were sent again.
    """
    dice = random.Random(seed)  # noqa: S311 - repeatable moments, not secrets
    kept, numbers = Kept(), count()
    acknowledged: set[str] = set()
    sent: set[str] = set()
    for _ in range(rounds):
        server = await _Server.start(url, kept)
        load = asyncio.gather(*(_report(server, key, numbers, sent, acknowledged) for _ in range(_CALLERS)))
        # However slow the machine is, some were acknowledged and others are under way.
        enough = len(acknowledged) + dice.randint(5, 100)
        while len(acknowledged) < enough and not load.done():
            await asyncio.sleep(0.003)
        server.kill()
        await load
    server = await _Server.start(url, kept)
    async with server.client(key) as client:
        for name in sorted(sent):
            status = await _send(client, name)
            if name in acknowledged and status != "duplicate":
                kept.lost += 1
        answer = await client.post("/v1/check", json={"company": {"id": "acme"}, "feature": "exports"})
        kept.counted = answer.json()["used"]
    server.kill()
    kept.acknowledged, kept.unsure = len(acknowledged), len(sent) - len(acknowledged)
    return kept


class _Server:
    """`plangate serve` as a process of its own."""

    def __init__(self, url: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": "backend:.",
            "PLANGATE_DATABASE_URL": url,
            "PLANGATE_SECRET_KEYS": SECRET_KEY,
            "PLANGATE_STRIPE_SECRET_KEY": "sk_test_plangate",
            "PLANGATE_STRIPE_ACCOUNT": ACCOUNT,
            "PLANGATE_STRIPE_MODE": "test",
            "PLANGATE_STRIPE_API_BASE": "http://127.0.0.1:9",
            "PLANGATE_STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "PLANGATE_STRIPE_APP_SECRETS": APP_SECRET,
        }
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "plangate", "serve", "--no-worker", "--port", str(port)],
            cwd=_CHECKOUT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @classmethod
    async def start(cls, url: str, kept: Kept) -> "_Server":
        """Start, and wait until it is ready."""
        began = time.monotonic()
        server = cls(url)
        async with server.client(None) as client:
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                if time.monotonic() - began > _START_SECONDS:
                    server.kill()
                    raise RuntimeError("the server did not become ready")
                await asyncio.sleep(0.02)
        kept.slowest_start_seconds = max(kept.slowest_start_seconds, time.monotonic() - began)
        return server

    def client(self, key: str | None) -> httpx.AsyncClient:
        """A client; the caller closes it."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def kill(self) -> None:
        """As when the power fails: no shutdown, no last commit."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


async def _report(server: _Server, key: str, numbers: "count[int]", sent: set[str], acknowledged: set[str]) -> None:
    async with server.client(key) as client:
        while True:
            name = f"kill-{next(numbers)}"
            sent.add(name)
            try:
                status = await _send(client, name)
            except httpx.TransportError:
                return
            if status == "accepted":
                acknowledged.add(name)


async def _send(client: httpx.AsyncClient, name: str) -> str:
    answer = await client.post(
        "/v1/events", json={"type": "track", "event": "export", "company": {"id": "acme"}, "idempotency_key": name}
    )
    answer.raise_for_status()
    return str(answer.json()["results"][0]["status"])
