"""The two servers that are measured, each a process of its own on the same uvicorn: a bare route, and Plangate.

Run as `python -m benchmarks.servers bare|plangate FOLDER`; prints one line of JSON once it answers.
"""

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from plangate import catalog, companies, metering
from plangate.collecting import settle
from plangate.deployment import Deployment, create_key
from plangate.engine.facts import PlanSource
from plangate.settings import EnvironmentSettings, Settings
from plangate.shapes import Actor
from plangate.store.companies import assign
from plangate.store.database import Database
from plangate.store.schema import migrate
from plangate.web.app import create_app
from plangate.web.connection import SERVED_WITH
from plangate.web.logs import configure_logging

COMPANIES = 200
ACTOR = Actor(kind="cli", id="benchmark")
CATALOGUE: dict[str, Any] = {
    "version": 1,
    "initial_plan": "pro",
    "features": {
        **{f"feature-{number}": {"name": f"Feature {number}", "type": "event"} for number in range(10)},
        **{f"switch-{number}": {"name": f"Switch {number}", "type": "boolean"} for number in range(10)},
    },
    "plans": {
        "pro": {
            "name": "Pro",
            "entitlements": {
                **{f"feature-{number}": {"limit": 10**15, "period": "billing_month"} for number in range(10)},
                **{f"switch-{number}": True for number in range(10)},
            },
        },
    },
}


class _TellingServer(uvicorn.Server):
    """Says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, key: str) -> None:
        super().__init__(config)
        self._key = key

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # As `plangate serve` does; the floor gains as well.
        settle()
        port = self.servers[0].sockets[0].getsockname()[1]
        sys.stdout.write(json.dumps({"port": port, "key": self._key}) + "\n")
        sys.stdout.flush()


async def bare() -> ASGIApp:
    """The floor: one Starlette route that reads its body and answers a constant."""

    async def answer(request: Request) -> JSONResponse:
        await request.body()
        return JSONResponse({"feature": "feature-1", "allowed": True})

    return Starlette(routes=[Route("/bare", answer, methods=["POST"])])


async def plangate(folder: Path, *, url: str | None = None) -> tuple[ASGIApp, Deployment, str]:
    """Plangate with a catalogue, companies and a key; limits on rates are lifted. Without a `url`, on SQLite."""
    url = url or f"sqlite:///{folder / 'benchmark.sqlite3'}"
    database = Database.at(url)
    await migrate(database)
    await database.close()
    settings = Settings(
        database_url=url,
        secret_keys=("benchmark-0123456789abcdef0123456789abcdef",),
        rate_limit_per_second=10_000_000,
        address_rate_limit_per_second=10_000_000,
        environments=(EnvironmentSettings(),),
    )
    deployment = await Deployment.open(settings)
    env = deployment.named(None)
    await catalog.apply(env, CATALOGUE, actor=ACTOR)
    for number in range(COMPANIES):
        company, _ = await companies.upsert(env, keys={"id": f"company-{number}"}, actor=ACTOR)
        async with env.writing() as session:
            await assign(session, company.id, key="pro", source=PlanSource.ASSIGNMENT)
            await env.touch(session, company.id)
        # The first usage of a window opens it, which is not what is measured.
        await metering.record(env, [metering.TrackEvent(event="feature-1", company={"id": f"company-{number}"})])
    raw, _ = await create_key(env, kind="secret", name="benchmark")
    return create_app(deployment, has_worker=False), deployment, raw


async def main(kind: str, folder: Path) -> None:
    """Serve until stopped."""
    deployment: Deployment | None = None
    key = "pgt_sk_none"
    if kind == "bare":
        app = await bare()
    else:
        configure_logging("info")
        app, deployment, key = await plangate(folder)
    # Both as `plangate serve` is served.
    config = uvicorn.Config(app, port=0, lifespan="on", **SERVED_WITH)
    await _TellingServer(config, key).serve()
    if deployment is not None:
        await deployment.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvicorn.Config("none", loop="uvloop").get_loop_factory()) as runner:
        runner.run(main(sys.argv[1], Path(sys.argv[2])))
