"""`plangate serve`, `worker` and `migrate`: the processes of a deployment, and the schema they need."""

import asyncio
import os
import signal
from collections.abc import Awaitable
from typing import Annotated, Final

import typer
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plangate.cli.opening import run
from plangate.cli.ports import refuse_taken_port
from plangate.cli.terminal import hint, say
from plangate.collecting import settle
from plangate.deployment import Deployment
from plangate.errors import StartRefused
from plangate.settings import load_settings, require_for_serving
from plangate.store.database import Database
from plangate.store.schema import SchemaState, migrate, schema_state
from plangate.web.app import create_app
from plangate.web.connection import SERVED_WITH
from plangate.web.logs import configure_logging
from plangate.worker import Worker

# Tells the processes that `--workers` starts whether the background loops run inside them.
_WORKER_VARIABLE: Final = "PLANGATE_SERVE_WITHOUT_WORKER"
_GRACE_SECONDS: Final = 10


def register(app: typer.Typer) -> None:
    """Add `serve`, `worker` and `migrate` to the command line."""
    app.command("serve")(serve_command)
    app.command("worker")(worker_command)
    app.command("migrate")(migrate_command)


def serve_command(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8787,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes; several need PostgreSQL.")] = 1,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Leave the loops to `plangate worker`.")] = False,
) -> None:
    """Run the server: API, Stripe App, components, webhooks, with the background loops inside.

    Example: plangate serve --host 0.0.0.0 --port 8787 --workers 4
    """
    settings = load_settings()
    require_for_serving(settings)

    async def check() -> bool:
        deployment = await Deployment.open(settings)
        is_postgresql = deployment.database.is_postgresql
        await deployment.close()
        return is_postgresql

    is_postgresql = run(check)
    if workers > 1 and not is_postgresql:
        raise StartRefused("Several processes need PostgreSQL: set PLANGATE_DATABASE_URL, or leave --workers out.")
    refuse_taken_port(host, port)
    os.environ[_WORKER_VARIABLE] = "1" if no_worker else ""
    hint(f"Plangate on http://{host}:{port}   (Ctrl-C ends it)")
    uvicorn.run(
        "plangate.cli.serving:application",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        **SERVED_WITH,
    )


def worker_command() -> None:
    """Run the background loops alone: inbox, unfinished plan changes, sweeps.

    Example: plangate worker
    """
    settings = load_settings()
    require_for_serving(settings)
    configure_logging(settings.log_level)

    async def work() -> None:
        deployment = await Deployment.open(settings)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        try:
            deployment.start_following()
            worker = Worker(deployment.environments.values())
            await worker.start()
            settle()
            hint("The worker runs. Ctrl-C ends it.")
            await ended.wait()
            await worker.stop()
        finally:
            await deployment.close()

    asyncio.run(work())


def migrate_command() -> None:
    """Bring the database to this version's schema; does nothing when it is there already.

    Example: plangate migrate
    """
    settings = load_settings()

    async def work() -> SchemaState:
        try:
            database = Database.at(settings.database_url)
        except ValueError as error:
            raise StartRefused(f"PLANGATE_DATABASE_URL is not usable: {error}.") from None
        try:
            before = await schema_state(database)
            return before if before in {SchemaState.CURRENT, SchemaState.NEWER} else await migrate(database)
        except OSError as error:
            raise StartRefused(f"The database cannot be reached: {error}. Check PLANGATE_DATABASE_URL.") from None
        finally:
            await database.close()

    match run(work):
        case SchemaState.NEWER:
            raise StartRefused(
                "The database was made by a newer version of Plangate. Install that version, or restore a backup."
            )
        case SchemaState.CURRENT:
            say("The schema is current already.")
        case SchemaState.OLDER:
            say("The schema is current now.")
        case SchemaState.EMPTY:
            say("The schema is made.")
            hint("Make the first key with: plangate keys create --name backend")


def application() -> ASGIApp:
    """The application of one server process; its lifespan opens the deployment and closes it."""
    settings = load_settings()
    configure_logging(settings.log_level)
    return _Process(has_worker=not os.environ.get(_WORKER_VARIABLE))


class _Process:
    """One server process: nothing is opened before its event loop runs."""

    def __init__(self, *, has_worker: bool) -> None:
        self._has_worker = has_worker
        self._app: ASGIApp = _not_started

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Not a coroutine itself: a request is awaited once less.
        if scope["type"] == "lifespan":
            return self._live(scope, receive, send)
        return self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        deployment = await Deployment.open(load_settings())
        try:
            self._app = create_app(deployment, has_worker=self._has_worker)
            settle()
            await self._app(scope, receive, send)
        finally:
            await deployment.close()


async def _not_started(scope: Scope, receive: Receive, send: Send) -> None:
    start: Message = {"type": "http.response.start", "status": 503, "headers": []}
    await send(start)
    await send({"type": "http.response.body", "body": b""})
