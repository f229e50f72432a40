"""The sandbox as one web application: Stripe's API, its pages, and the controls."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from .api import answer_api
from .control import control_routes
from .pages.routes import page_routes
from .server import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .config import SandboxConfig


def create_app(config: SandboxConfig) -> Starlette:
    """An ASGI application for one sandbox account; serve it with uvicorn, one worker.

    `app.state.sandbox` is the running Sandbox.
    """
    sandbox = Sandbox(config)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with sandbox.running():
            yield

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/{rest:path}", answer_api, methods=["GET", "POST", "DELETE", "PUT", "PATCH"]),
            *control_routes(),
            *page_routes(),
        ],
    )
    app.state.sandbox = sandbox
    return app
