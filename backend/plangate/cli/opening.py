"""Opens what a command works on: the settings' database and environments, closed again when it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Final, TypeVar

import typer
from sqlalchemy.exc import SQLAlchemyError

from plangate.deployment import Deployment
from plangate.environment import Environment
from plangate.settings import load_settings
from plangate.shapes import Actor
from plangate.web.logs import configure_logging

T = TypeVar("T")
_THREAD_END_SECONDS: Final = 0.1

ACTOR = Actor(kind="cli", id="plangate")
EnvironmentOption = Annotated[
    str | None,
    typer.Option("--environment", "-e", help="Which environment, where plangate.toml has several.", metavar="NAME"),
]


@asynccontextmanager
async def opened(environment: str | None = None) -> AsyncIterator[tuple[Deployment, Environment]]:
    """The deployment of the settings and one of its environments. Raises StartRefused."""
    deployment = await Deployment.open(load_settings())
    try:
        yield deployment, deployment.named(environment)
    finally:
        await deployment.close()


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a command's asynchronous part. Logs below a warning stay silent."""

    async def main() -> T:
        try:
            return await work()
        except SQLAlchemyError:
            # The thread of an SQLite connection that could not be opened still tells this loop that it ended.
            await asyncio.sleep(_THREAD_END_SECONDS)
            raise

    configure_logging("warning")
    return asyncio.run(main())
