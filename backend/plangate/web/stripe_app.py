"""The Stripe App's way in: the body is the signed message, roles come from our own list, an operation works once."""

import hashlib
from typing import Any, Final

import msgspec
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from plangate.billing.signatures import PAYLOAD_BYTES_MAX, verify_app_message
from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.environment import Environment
from plangate.errors import Code, FieldError, Refusal
from plangate.settings import Role
from plangate.shapes import Actor
from plangate.store.app_roles import stored_roles
from plangate.web.edge import exchange_of
from plangate.web.exchange import Exchange, encode_json, refuse_odd_json
from plangate.web.idempotency import once
from plangate.web.limits import RateLimit
from plangate.web.problems import refusal_of_validation
from plangate.web.stripe_app_actions import ACTIONS, Action, Asked

PATH: Final = "/stripe-app/v1/{action}"
_RANK: Final[dict[Role, int]] = {"viewer": 0, "agent": 1, "admin": 2}
_OPERATIONS: Final = "stripe_app"
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"content-type, stripe-signature"),
    (b"access-control-max-age", b"86400"),
)


class StripeAppApp:
    """`POST /stripe-app/v1/{action}` and its preflight."""

    def __init__(self, deployment: Deployment, *, address_limit: RateLimit) -> None:
        self._deployment = deployment
        self._address_limit = address_limit
        # One app may be installed in several accounts and modes with the same secret: what the secret proves is who
        # speaks; the signed account and mode then choose among the environments that list it.
        self._secrets = [
            (secret, secret) for env in deployment.environments.values() for secret in env.settings.stripe_app_secrets
        ]

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Answer one action. Raises Refusal for the edge to send."""
        exchange = exchange_of(scope)
        exchange.route = PATH
        if scope["method"] == "OPTIONS":
            await exchange.answer(204, b"", _PREFLIGHT)
            return
        if scope["method"] != "POST":
            raise Refusal(Code.METHOD_NOT_ALLOWED, "This address answers to POST.", headers={"Allow": "OPTIONS, POST"})
        exchange.body_bytes_max = PAYLOAD_BYTES_MAX
        body = await exchange.body()
        env, message = self._verified(exchange, body)
        action = ACTIONS.get(scope["path_params"]["action"])
        if action is None:
            raise Refusal(Code.NOT_FOUND, "This version of Plangate does not know that action. Update the app or it.")
        await exchange.answer(200, await self._answered(env, action, message, body))

    def _verified(self, exchange: Exchange, body: bytes) -> tuple[Environment, dict[str, Any]]:
        header = b"" if exchange.signature is None else exchange.signature
        try:
            secret, message = verify_app_message(body, header.decode("latin-1"), self._secrets, now=wall_now())
            refuse_odd_json(body)
        except Refusal:
            self._address_limit.spend(exchange.address, exchange.started)
            raise
        env = self._deployment.environment_for(message["account_id"], str(message.get("mode")))
        if env is None or secret not in env.settings.stripe_app_secrets:
            raise Refusal(
                Code.FORBIDDEN,
                "This Plangate server is not set up for that Stripe account and mode. "
                "Set PLANGATE_STRIPE_ACCOUNT and PLANGATE_STRIPE_MODE, and check the dashboard's test switch.",
            )
        return env, message

    async def _answered(self, env: Environment, action: Action, message: dict[str, Any], body: bytes) -> bytes:
        role = await role_of(env, message["user_id"])
        require_role(role, action.role)
        if message.pop("action", action.name) != action.name:
            raise Refusal(Code.SIGNATURE_INVALID, "The signed message asks for another action than the address does.")
        try:
            payload = action.payload.model_validate_json(encode_json(message))
        except ValidationError as error:
            raise refusal_of_validation(error, message) from None
        asked = Asked(env, role, Actor(kind="stripe_user", id=message["user_id"]), payload)
        if not action.is_change:
            return encode_json(await action.answer(asked))

        async def first() -> tuple[int, Any, dict[str, str]]:
            return 200, msgspec.to_builtins(await action.answer(asked)), {}

        operation_id = message.get("operation_id")
        if not isinstance(operation_id, str) or not operation_id.isascii() or not operation_id.isprintable():
            fault = FieldError("/operation_id", Code.INVALID, "An operation id is printable ASCII.")
            raise Refusal(Code.INVALID, "operation_id: An operation id is printable ASCII.", errors=[fault])
        _, answer, _ = await once(
            env,
            scope=_OPERATIONS,
            key=operation_id.strip().encode(),
            body_hash=hashlib.sha256(action.name.encode() + b"\n" + body).hexdigest(),
            answer=first,
        )
        return encode_json(answer)


async def role_of(env: Environment, stripe_user_id: str) -> Role:
    """The role the server's own list gives a dashboard user; `*` is everybody else's, and without it they only read.

    What `plangate app-roles set` stored comes before the settings. It is read each time, so that it counts at once.
    """
    async with env.reading() as session:
        roles = {**env.settings.stripe_app_roles, **await stored_roles(session)}
    given = roles.get(stripe_user_id) or roles.get("*")
    return next((role for role in _RANK if role == given), "viewer")


def require_role(role: Role, needed: Role) -> None:
    """Raises Refusal (403) when the role may not do that."""
    if _RANK[role] < _RANK[needed]:
        raise Refusal(
            Code.ROLE_TOO_LOW,
            f"Your role is {role}; this needs {needed}. Ask whoever runs Plangate for it: plangate app-roles set.",
            extra={"role": role},
        )
