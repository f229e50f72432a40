"""The pages' routes: a person pays, authenticates, looks after a subscription, or watches and moves the sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from plangate.sandbox.errors import ApiError
from plangate.sandbox.server import Sandbox

from . import checkout, invoice, portal
from .render import asset, html

Obj = dict[str, Any]
Page = Callable[[Sandbox, str, dict[str, str]], Response]

MAX_FORM = 16 * 1024


def page_routes() -> list[Route]:
    """Routes of everything a browser opens."""
    return [
        Route("/", _control, methods=["GET"]),
        Route("/_assets/{name}", _asset, methods=["GET"]),
        Route("/c/pay/{id}", _page(checkout.show), methods=["GET"]),
        Route("/c/pay/{id}", _page(checkout.pay), methods=["POST"]),
        Route("/c/pay/{id}/code", _page(checkout.redeem), methods=["POST"]),
        Route("/i/{id}", _page(invoice.show), methods=["GET"]),
        Route("/i/{id}", _page(invoice.pay), methods=["POST"]),
        Route("/p/session/{id}", _page(portal.show), methods=["GET"]),
        Route("/p/session/{id}", _page(portal.act), methods=["POST"]),
    ]


def _page(answer: Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        sandbox: Sandbox = request.app.state.sandbox
        sandbox.catch_up()
        try:
            response = answer(sandbox, request.path_params["id"], await _form(request))
        except ApiError as error:
            return html(
                "message.html",
                status=error.status,
                heading="That did not work",
                sentence=error.body["error"]["message"],
                link=None,
                link_text="",
            )
        sandbox.world.release_events()
        if request.method == "POST":
            sandbox.is_dirty = True
            sandbox.save_soon()
        return response

    return endpoint


async def _control(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.sandbox
    if request.url.query:
        return RedirectResponse("/", status_code=303)
    return html("control.html", account=sandbox.config.account_id, url=sandbox.config.public_url)


async def _asset(request: Request) -> Response:
    return asset(request.path_params["name"])


async def _form(request: Request) -> dict[str, str]:
    if request.method != "POST":
        return {}
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise ApiError(413, "The form is too large.")
    return {name: values[0] for name, values in parse_qs(body.decode(errors="replace"), max_num_fields=50).items()}
