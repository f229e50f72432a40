"""Puts the server together: everything that is wired to anything else is wired on this screen."""

import msgspec
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from plangate.deployment import Deployment
from plangate.web.api import OPERATIONS
from plangate.web.api.service import Service
from plangate.web.api.service import operations as service_operations
from plangate.web.components import component_routes
from plangate.web.edge import Edge
from plangate.web.limits import RateLimit
from plangate.web.logs import AccessLog
from plangate.web.metrics import RequestMetrics
from plangate.web.openapi import openapi_document
from plangate.web.operations import router_of
from plangate.web.stripe_app import PATH as STRIPE_APP_PATH
from plangate.web.stripe_app import StripeAppApp
from plangate.web.webhooks import PATH as WEBHOOK_PATH
from plangate.web.webhooks import WebhookApp
from plangate.worker import Worker


def create_app(deployment: Deployment, *, has_worker: bool = True) -> ASGIApp:
    """The server of one open deployment, as an ASGI application. Its lifespan follows other processes' changes and,
    with `has_worker`, runs the background loops; the caller opens and closes the deployment.
    """
    metrics, access_log = RequestMetrics(), AccessLog(deployment.settings.log_level)
    address_limit = RateLimit(deployment.settings.address_rate_limit_per_second)
    described: list[bytes] = []

    def describe() -> bytes:
        if not described:
            described.append(msgspec.json.encode(openapi_document(operations)))
        return described[0]

    operations = (*OPERATIONS, *service_operations(Service(deployment, metrics, describe)))
    worker = Worker(deployment.environments.values()) if has_worker else None
    webhooks = WebhookApp(deployment, metrics=metrics, address_limit=address_limit, worker=worker)
    others = [
        Route(WEBHOOK_PATH, endpoint=webhooks, methods=["POST"]),
        Route(STRIPE_APP_PATH, endpoint=StripeAppApp(deployment, address_limit=address_limit)),
        *component_routes(deployment),
    ]
    edge = Edge(
        deployment,
        hot={one.path: (one.scope, one.hot) for one in operations if one.hot is not None and one.scope is not None},
        cold=router_of(operations, deployment, others),
        metrics=metrics,
        access_log=access_log,
        address_limit=address_limit,
    )
    return Application(edge, deployment, worker, access_log)


class Application:
    """The edge, and a lifespan around it."""

    def __init__(self, edge: Edge, deployment: Deployment, worker: Worker | None, access_log: AccessLog) -> None:
        self._edge = edge
        self._worker = worker
        self._deployment = deployment
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Requests go to the edge; the lifespan protocol starts and stops what runs beside them."""
        if scope["type"] == "http":
            await self._edge(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._deployment.start_following()
        for environment in self._deployment.environments.values():
            await environment.remember_time_zone()
        if self._worker is not None:
            await self._worker.start()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            if self._worker is not None:
                await self._worker.stop()
            self._access_log.flush()
        await send({"type": "lifespan.shutdown.complete"})
