"""The sandbox in this process, without sockets: for proofs that make hundreds of thousands of calls.

Requests are still built, encoded, routed, checked and answered as over HTTP; only the wire between is left out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from plangate.sandbox.api import _run
from plangate.sandbox.config import SandboxConfig
from plangate.sandbox.errors import ApiError
from plangate.sandbox.forms import parse_form
from plangate.sandbox.render import view
from plangate.sandbox.routes import find_route
from plangate.sandbox.routing import Call, Params
from plangate.sandbox.server import Sandbox
from plangate.sandbox.state import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plangate.environment import Environment

Obj = dict[str, Any]


class InsideSandbox:
    """One account. `attach` points an environment's gateway at it."""

    def __init__(self) -> None:
        self.secret_key = "sk_test_sandbox_0123456789"
        self.account_id = "acct_1Sandbox"
        self.sandbox = Sandbox(
            SandboxConfig(secret_key=self.secret_key, account_id=self.account_id, public_url="http://sandbox.test")
        )
        self.world = self.sandbox.world
        self._told = 0

    def attach(self, env: Environment) -> None:
        """Let what the environment asks of Stripe end here instead of on a socket."""
        http: Any = env.gateway._transport._http  # noqa: SLF001 - the one place below everything we wrote
        http.carry = self._request

    def call(self, method: str, path: str, **params: object) -> Obj:
        """One call as Stripe answers it. Raises ApiError."""
        status, body = self._answer(method, path, urlencode(_flat(params)))
        if status != 200:
            error = body["error"]
            raise ApiError(status, error["message"], code=error.get("code"))
        return body

    def fresh_events(self) -> list[Obj]:
        """The events since the last call, as a webhook carries them."""
        events = list(self.world.store.all("event"))
        fresh, self._told = events[self._told :], len(events)
        return [view(self.world, event) for event in fresh]

    def forget_everybody(self) -> None:
        """Forget all customers and what happened, and keep what is sold."""
        kept = ("product", "price", "billing.meter")
        for kind in [kind for kind in self.world.store.tables if kind not in kept]:
            self.world.store.tables[kind].clear()
        self.sandbox.requests.clear()
        self._told = 0

    def advance(self, seconds: int) -> int:
        """Move the clock; everything due happens. Answers how far it is ahead of the wall."""
        world = self.world
        self.sandbox.catch_up()
        target = world.now() + seconds
        self.sandbox.agenda.catch_up(world, target)
        world.clock.offset_seconds += seconds
        world.release_events()
        return world.clock.offset_seconds

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], post_data: object = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        assert headers
        path, _, query = url.removeprefix("http://").partition("/")[2].partition("?")
        form = str(post_data) if method.upper() == "POST" and post_data else query
        status, body = self._answer(method.upper(), f"/{path}", form)
        return json.dumps(body).encode(), status, {"request-id": new_id("req", 14)}

    def _answer(self, method: str, path: str, form: str) -> tuple[int, Obj]:
        found = find_route(method, path)
        assert found is not None, (method, path)
        route, ids = found
        self.sandbox.catch_up()
        entry: Obj = {"request_id": new_id("req", 14)}
        status, body, _ = _run(self.sandbox, route, parse_form(form), Call(path, ids, Params({})), entry, {})
        return status, body


def _flat(value: object, name: str = "") -> list[tuple[str, str]]:
    """Stripe's bracket nesting."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{name}[{key}]" if name else key)]
    if isinstance(value, list):
        return [pair for number, inner in enumerate(value) for pair in _flat(inner, f"{name}[{number}]")]
    if isinstance(value, bool):
        return [(name, "true" if value else "false")]
    return [(name, "" if value is None else str(value))]
