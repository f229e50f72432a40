"""Stripe's webhooks: verified over their raw bytes, stored, answered; acted on later by the worker."""

from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from plangate import sync
from plangate.billing.signatures import PAYLOAD_BYTES_MAX, verify_webhook
from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.errors import Code, Refusal
from plangate.store.inbox import InboxState
from plangate.web.edge import exchange_of
from plangate.web.exchange import encode_json, refuse_odd_json
from plangate.web.limits import RateLimit
from plangate.web.metrics import RequestMetrics
from plangate.worker import Worker

PATH: Final = "/webhooks/stripe"


class WebhookApp:
    """`POST /webhooks/stripe`. The secret that verifies an event names its environment; its `worker` acts at once."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        metrics: RequestMetrics,
        address_limit: RateLimit,
        worker: Worker | None,
    ) -> None:
        self._secrets = [
            (secret, env) for env in deployment.environments.values() for secret in env.settings.stripe_webhook_secrets
        ]
        self._metrics = metrics
        self._address_limit = address_limit
        self._worker = worker

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Store one event and say so. Raises Refusal (400) for anything unsigned or malformed."""
        exchange = exchange_of(scope)
        exchange.route = PATH
        exchange.body_bytes_max = PAYLOAD_BYTES_MAX
        body = await exchange.body()
        header = b"" if exchange.signature is None else exchange.signature
        try:
            env = verify_webhook(body, header.decode("latin-1"), self._secrets, now=wall_now())
        except Refusal:
            self._metrics.webhook_received("", "refused")
            self._address_limit.spend(exchange.address, exchange.started)
            raise
        worker, claim = self._worker, None
        if worker is not None and worker.has_room:
            row, claim = await sync.receive_to_act(env, _event(body))
        else:
            row = await sync.receive(env, _event(body))
        if worker is not None and claim is not None:
            worker.act_on(env, claim)
        name = env.settings.name
        if row is None:
            outcome = "repeated"
        elif row.state == InboxState.IGNORED.value:
            outcome = "ignored"
        else:
            outcome = "stored"
            if worker is not None and claim is None:
                worker.wake(env.id)
        self._metrics.webhook_received(name, outcome)
        await exchange.answer(200, encode_json({"received": True, "outcome": outcome}))


def _event(body: bytes) -> dict[str, object]:
    refuse_odd_json(body)
    try:
        event = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(Code.MALFORMED, "The signed body is not JSON.") from None
    if not isinstance(event, dict):
        raise Refusal(Code.MALFORMED, "The body is no Stripe event: a JSON object is expected.")
    return event
