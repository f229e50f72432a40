"""The Stripe stand-in as a real HTTP server in a background thread, for every test that talks to Stripe."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import stripe
import uvicorn

from plangate.sandbox.app import create_app
from plangate.sandbox.config import SandboxConfig
from plangate.sandbox.render import view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

Obj = dict[str, Any]


class SandboxServer:
    """Use as a context manager: `with SandboxServer() as sandbox: …`. Settings of SandboxConfig may be overridden."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - whatever SandboxConfig takes.
        # With the protocol named, the event loop switches Nagle's delay off; without, each call costs 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.secret_key = "sk_test_sandbox_0123456789"
        self.webhook_secret = "whsec_sandbox_0123456789"
        self.account_id = "acct_1Sandbox"
        config = SandboxConfig(
            secret_key=self.secret_key,
            account_id=self.account_id,
            public_url=self.url,
            webhook_secret=self.webhook_secret,
        )
        self.config = dataclasses.replace(config, **settings)
        self._app = create_app(self.config)
        self._server = uvicorn.Server(
            uvicorn.Config(self._app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> SandboxServer:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.005)
        self._http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._server.should_exit = True
        self._thread.join(timeout=15)
        self._socket.close()

    @property
    def app_state(self) -> Any:  # noqa: ANN401 - Starlette's own untyped state.
        """`app.state` of the running application; `.sandbox` is the Sandbox. Read it, do not write it."""
        return self._app.state

    def control(self, method: str, path: str, json: Obj | None = None) -> Obj:
        """Call `/_sandbox/…` (the prefix may be left out). Raises httpx.HTTPStatusError on a refusal."""
        where = path if path.startswith("/_sandbox") else f"/_sandbox/{path.lstrip('/')}"
        answer = self._http.request(method, where, json=json)
        answer.raise_for_status()
        body: Obj = answer.json()
        return body

    def objects(self, kind: str) -> list[Obj]:
        """All objects of one kind, as `/_sandbox/state` shows them, which would encode all of every kind."""
        world = self.app_state.sandbox.world
        return [view(world, obj) for obj in world.store.all(kind)]

    def advance(self, duration: str) -> str:
        """Move the clock by an ISO duration; the new present comes back."""
        return str(self.control("POST", "clock", {"advance": duration})["now"])

    def set_webhook(self, url: str | None, secret: str | None = None) -> None:
        """Deliver events there from now on, signed with the sandbox's secret unless another is given."""
        self.control("POST", "webhook", {"url": url, "secret": secret})

    def client(self, **options: Any) -> stripe.StripeClient:  # noqa: ANN401 - whatever StripeClient takes.
        """An official client, async and sync, pointed here."""
        options.setdefault("max_network_retries", 0)
        return stripe.StripeClient(
            self.secret_key,
            base_addresses={"api": self.url, "meter_events": self.url},
            http_client=options.pop("http_client", None) or _Http(timeout=30, allow_sync_methods=True),
            **options,
        )

    @contextlib.contextmanager
    def synchronous(self) -> Iterator[stripe.V1Services]:
        """An official client for code that does not await."""
        http = _Http(timeout=30, allow_sync_methods=True)
        yield self.client(http_client=http).v1
        http.close()  # type: ignore[no-untyped-call]  # the package leaves it untyped

    def _serve(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._server.serve(sockets=[self._socket]))


class _Http(stripe.HTTPXClient):
    """The package's client, sending its encoded body as `content`: as `data` httpx warns at every call."""

    def _get_request_args_kwargs(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any,  # noqa: ANN401 - as inherited
    ) -> Any:  # noqa: ANN401 - as inherited
        arguments, options = super()._get_request_args_kwargs(method, url, headers, post_data)
        options["content"] = options.pop("data") or None
        options["headers"] = {**headers, "Connection": "close"}  # Clients come and go with their event loops.
        return arguments, options


@contextlib.contextmanager
def running_sandbox(**settings: Any) -> Iterator[SandboxServer]:  # noqa: ANN401 - whatever SandboxConfig takes.
    """The same as a function, for fixtures."""
    with SandboxServer(**settings) as server:
        yield server
