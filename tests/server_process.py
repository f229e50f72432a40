"""`plangate serve` as a process of its own, for tests that kill it or run several beside each other."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.conftest import ACCOUNT, APP_SECRET, SECRET_KEY, WEBHOOK_SECRET
from tests.nursery import Nursery

_CHECKOUT = Path(__file__).parents[1]
_START_SECONDS = 60


def server_environment(database_url: str) -> dict[str, str]:
    """The settings of such a server."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": "backend:.",
        "PLANGATE_DATABASE_URL": database_url,
        "PLANGATE_SECRET_KEYS": SECRET_KEY,
        "PLANGATE_STRIPE_SECRET_KEY": "sk_test_plangate",
        "PLANGATE_STRIPE_ACCOUNT": ACCOUNT,
        "PLANGATE_STRIPE_MODE": "test",
        "PLANGATE_STRIPE_API_BASE": "http://127.0.0.1:9",
        "PLANGATE_STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "PLANGATE_STRIPE_APP_SECRETS": APP_SECRET,
        "PLANGATE_RATE_LIMIT_PER_SECOND": "100000",
    }


class ServerProcess:
    """`plangate serve` without its loops, as a process of its own; `start_seconds` is how long it took to be ready."""

    def __init__(self, database_url: str, nursery: Nursery | None, settings: Mapping[str, str] | None = None) -> None:
        self.start_seconds = 0.0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        if nursery is not None:
            self._process, self._id = None, nursery.start(port)
            return
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "plangate", "serve", "--no-worker", "--port", str(port)],
            cwd=_CHECKOUT,
            env={**server_environment(database_url), **(settings or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._id = self._process.pid

    @classmethod
    async def start(
        cls, url: str, nursery: Nursery | None = None, settings: Mapping[str, str] | None = None
    ) -> "ServerProcess":
        """Start, and wait until it is ready. One from the nursery need not import anything, and takes no `settings`."""
        began = time.monotonic()
        server = cls(url, nursery, settings)
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
        server.start_seconds = time.monotonic() - began
        return server

    def client(self, key: str | None) -> httpx.AsyncClient:
        """A client; the caller closes it."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        # The server closes what rested for five seconds, maybe just when the next request is on its way.
        limits = httpx.Limits(keepalive_expiry=2)
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, trust_env=False, limits=limits)

    def kill(self) -> None:
        """As when the power fails: no shutdown, no last commit."""
        os.kill(self._id, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
