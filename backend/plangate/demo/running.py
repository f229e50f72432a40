"""Runs the three servers of the demo in one process: one event loop, three ports, nothing left behind when it ends."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, redirect_stderr
from pathlib import Path
from typing import Final, TextIO

import httpx
import msgspec
import uvicorn
from starlette.types import ASGIApp

from plangate.demo.folder import DemoFolder, DemoSecrets, demo_folder
from plangate.demo.seeding import seed
from plangate.deployment import SCOPES, Deployment, KeyKind, create_key
from plangate.environment import Environment
from plangate.errors import StartRefused
from plangate.resources import demo_site
from plangate.sandbox.app import create_app as create_sandbox
from plangate.sandbox.config import SandboxConfig
from plangate.settings import EnvironmentSettings, Settings
from plangate.store.database import Database
from plangate.store.schema import SchemaState, migrate
from plangate.web.app import create_app
from plangate.web.connection import SERVED_WITH
from plangate.web.logs import configure_logging

_HOST: Final = "127.0.0.1"
_PORTS: Final = 3
_START_SECONDS: Final = 60.0
_GRACE_SECONDS: Final = 3
_POLL_SECONDS: Final = 0.05


class DemoAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """What demo.json says: where everything is, and the keys to it."""

    plangate: str
    sandbox: str
    site: str
    secret_key: str
    publishable_key: str
    webhook_secret: str
    stripe_app_secret: str
    stripe_account: str


def run_demo(
    *,
    port: int,
    data: Path | None,
    catalog_text: str,
    step: Callable[[str], None],
    ready: Callable[[DemoAddresses], None],
) -> None:
    """Run until interrupted. `step` is told what is going on, `ready` once everything answers.

    `port` is the first of three consecutive ones: Plangate, the sandbox, the site. `data` is kept between runs; without
    it a temporary folder is used. Raises StartRefused when a port or the folder is taken, or a server ends by itself.
    """
    with _sockets(port) as sockets, demo_folder(data) as folder, folder.log.open("a", buffering=1) as log:
        configure_logging("info", stream=log)
        folder.retract()
        try:
            asyncio.run(_run(sockets, folder, log, catalog_text, step, ready))
        finally:
            folder.retract()


async def _run(
    sockets: Sequence[socket.socket],
    folder: DemoFolder,
    log: TextIO,
    catalog_text: str,
    step: Callable[[str], None],
    ready: Callable[[DemoAddresses], None],
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    work = asyncio.create_task(_demonstrate(sockets, folder, log, catalog_text, step, ready))
    stop = asyncio.create_task(ended.wait())
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        return


async def _demonstrate(
    sockets: Sequence[socket.socket],
    folder: DemoFolder,
    log: TextIO,
    catalog_text: str,
    step: Callable[[str], None],
    ready: Callable[[DemoAddresses], None],
) -> None:
    plangate_url, sandbox_url, site_url = (f"http://{_HOST}:{one.getsockname()[1]}" for one in sockets)
    made = folder.secrets()
    step("Preparing the database")
    settings = _settings(made, folder, plangate_url=plangate_url, sandbox_url=sandbox_url, site_url=site_url)
    await _migrated(settings)
    deployment = await Deployment.open(settings)
    try:
        environment = deployment.named(None)
        made = await _with_keys(environment, folder, made)
        sandbox = create_sandbox(
            SandboxConfig(
                secret_key=made.stripe_secret_key,
                account_id=made.stripe_account,
                public_url=sandbox_url,
                webhook_url=f"{plangate_url}/webhooks/stripe",
                webhook_secret=made.webhook_secret,
                clock_url=f"{plangate_url}/v1/environment/clock",
                clock_key=made.api_keys["clock"],
                state_path=folder.sandbox_state,
            )
        )
        site = demo_site()(
            url=site_url,
            plangate_url=plangate_url,
            secret_key=made.api_keys["site"],
            publishable_key=made.api_keys["publishable"],
        )
        step("Starting the servers")
        # The access log writes to the error stream it finds when it is made; here that is the demo's own log.
        with redirect_stderr(log):
            server = create_app(deployment)
        apps: dict[str, ASGIApp] = {
            "Plangate": server,
            "The Stripe sandbox": sandbox,
            "The demo site": site,
        }
        async with _serving(apps, sockets) as servers:
            await _answering(servers, f"{plangate_url}/readyz", f"{sandbox_url}/", f"{site_url}/")
            if not made.is_seeded:
                step("Filling it: catalogue, four companies, some usage")
                await seed(
                    environment,
                    catalog_text=catalog_text,
                    sandbox_url=sandbox_url,
                    stripe_secret_key=made.stripe_secret_key,
                )
                made = msgspec.structs.replace(made, is_seeded=True)
                folder.save(made)
            addresses = DemoAddresses(
                plangate=plangate_url,
                sandbox=sandbox_url,
                site=site_url,
                secret_key=made.api_keys["admin"],
                publishable_key=made.api_keys["publishable"],
                webhook_secret=made.webhook_secret,
                stripe_app_secret=made.app_secret,
                stripe_account=made.stripe_account,
            )
            folder.announce(addresses)
            ready(addresses)
            await _until_one_ends(servers)
    finally:
        await deployment.close()


def _settings(made: DemoSecrets, folder: DemoFolder, *, plangate_url: str, sandbox_url: str, site_url: str) -> Settings:
    return Settings(
        database_url=f"sqlite:///{folder.database.resolve()}",
        secret_keys=(made.signing_key,),
        public_url=plangate_url,
        environments=(
            EnvironmentSettings(
                name="demo",
                stripe_secret_key=made.stripe_secret_key,
                stripe_account=made.stripe_account,
                stripe_mode="test",
                stripe_api_base=sandbox_url,
                stripe_webhook_secrets=(made.webhook_secret,),
                stripe_app_secrets=(made.app_secret,),
                stripe_app_roles={"usr_admin": "admin", "usr_viewer": "viewer", "*": "agent"},
                allowed_origins=(site_url,),
            ),
        ),
    )


async def _migrated(settings: Settings) -> None:
    database = Database.at(settings.database_url)
    try:
        if await migrate(database) is SchemaState.NEWER:
            raise StartRefused(
                "This demo folder was made by a newer version of Plangate. Delete it, or choose another with --data."
            )
    finally:
        await database.close()


async def _with_keys(environment: Environment, folder: DemoFolder, made: DemoSecrets) -> DemoSecrets:
    """The secrets with every API key of the demo, made now when they are missing."""
    wanted = {
        "admin": SCOPES,
        "site": ("check", "track", "read", "write"),
        "clock": ("admin",),
        "publishable": (),
    }
    keys = dict(made.api_keys)
    for name, scopes in wanted.items():
        if name not in keys:
            kind: KeyKind = "publishable" if name == "publishable" else "secret"
            keys[name], _ = await create_key(environment, kind=kind, name=f"demo {name}", scopes=scopes)
    if keys != made.api_keys:
        made = msgspec.structs.replace(made, api_keys=keys)
        folder.save(made)
    return made


class _Server(uvicorn.Server):
    """A server beside others in one loop: signals are the demo's business."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(
    apps: Mapping[str, ASGIApp], sockets: Sequence[socket.socket]
) -> AsyncIterator[dict[asyncio.Task[None], str]]:
    """All servers, started together because two of them ask each other; stopped together at the end."""
    servers = [_Server(_config(app)) for app in apps.values()]
    tasks = {
        asyncio.create_task(server.serve(sockets=[own])): name
        for server, own, name in zip(servers, sockets, apps, strict=True)
    }
    try:
        yield tasks
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **SERVED_WITH,
    )


async def _answering(servers: Mapping[asyncio.Task[None], str], *addresses: str) -> None:
    """Wait until every address answers. Raises StartRefused when a server ends instead, or none of it helps."""
    try:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client, asyncio.timeout(_START_SECONDS):
            for address in addresses:
                while not await _answers(client, address):
                    for task, name in servers.items():
                        if task.done():
                            raise StartRefused(
                                f"{name} did not start. Keep its log with --data DIR, and read DIR/demo.log."
                            )
                    await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise StartRefused(
            "The demo did not start in a minute. Keep its log with --data DIR, and read DIR/demo.log."
        ) from None


async def _answers(client: httpx.AsyncClient, address: str) -> bool:
    try:
        return (await client.get(address)).is_success
    except httpx.HTTPError:
        return False


async def _until_one_ends(servers: Mapping[asyncio.Task[None], str]) -> None:
    """Wait for ever; a server that ends by itself ends the demo."""
    done, _ = await asyncio.wait(servers, return_when=asyncio.FIRST_COMPLETED)
    raise StartRefused(f"{servers[done.pop()]} ended by itself, and the demo with it. Start it again.")


@contextmanager
def _sockets(port: int) -> Iterator[list[socket.socket]]:
    """Three listening sockets on consecutive ports, held from now on. Raises StartRefused naming the one taken."""
    taken: list[socket.socket] = []
    try:
        for number in range(port, port + _PORTS):
            # With the protocol named, the event loop switches Nagle's delay off.
            own = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            taken.append(own)
            if os.name == "posix":
                own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                own.bind((_HOST, number))
                own.listen(128)
            except OSError:
                other = port + 10 if port + 10 + _PORTS <= 65_536 else 8800
                raise StartRefused(
                    f"Port {number} is taken: another demo or program listens there. "
                    f'Choose other ports with: plangate demo --port {other}   (or make demo ARGS="--port {other}")'
                ) from None
        yield taken
    finally:
        for own in taken:
            own.close()
