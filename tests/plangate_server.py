"""Plangate as a real HTTP server in a background thread, for tests that come in through the front door."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

import httpx
import uvicorn

from plangate.deployment import SCOPES, Deployment, KeyKind, create_key
from plangate.settings import Settings
from plangate.web.app import create_app
from plangate.web.connection import SERVED_WITH

T = TypeVar("T")
_START_SECONDS = 15


class PlangateServer:
    """Use as a context manager. `run` carries a coroutine into the server's own loop, where its deployment lives."""

    deployment: Deployment

    def __init__(self, settings: Settings, *, has_worker: bool = False) -> None:
        self._settings = settings
        self._has_worker = has_worker
        # Named as TCP, so that asyncio turns Nagle's algorithm off: each answer would wait 40 ms otherwise.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_START_SECONDS) or self._failure is not None:
            raise RuntimeError("the server did not start") from self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=15)
        self._socket.close()

    def run(self, work: Callable[[Deployment], Awaitable[T]]) -> T:
        """Do something with the deployment, in the server's loop."""

        async def carried() -> T:
            return await work(self.deployment)

        return asyncio.run_coroutine_threadsafe(carried(), self._loop).result(30)

    def key(
        self, *, scopes: Iterable[str] = SCOPES, is_publishable: bool = False, environment: str | None = None
    ) -> str:
        """A new key's text."""

        async def made(deployment: Deployment) -> str:
            kind: KeyKind = "publishable" if is_publishable else "secret"
            raw, _ = await create_key(deployment.named(environment), kind=kind, name="test", scopes=scopes)
            deployment.forget_keys()
            return raw

        return self.run(made)

    def client(self, key: str | None = None) -> httpx.Client:
        """A client for this server; the caller closes it."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._served())
        except BaseException as error:  # noqa: BLE001 - carried to the test that waits for the start
            self._failure = error
            self._ready.set()
        finally:
            self._loop.close()

    async def _served(self) -> None:
        self.deployment = await Deployment.open(self._settings)
        try:
            app = create_app(self.deployment, has_worker=self._has_worker)
            self._server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    lifespan="on",
                    timeout_graceful_shutdown=2,
                    **SERVED_WITH,
                )
            )
            serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.005)
            self._ready.set()
            await serving
        finally:
            await self.deployment.close()
