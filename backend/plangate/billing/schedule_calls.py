"""What Plangate asks of Stripe about subscription schedules: what a subscription changes to later, or starts with."""

from collections.abc import Mapping
from typing import Any

from plangate.billing.transport import StripeJson, Transport


class ScheduleCalls:
    """The subscription schedules of one environment's Stripe account. Every method raises `StripeFailure`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._v1 = transport.client.v1

    async def create(self, stripe_subscription_id: str, *, idempotency_key: str) -> StripeJson:
        """A schedule that mirrors the subscription; Stripe accepts nothing else in the same call."""
        params = {"from_subscription": stripe_subscription_id}
        return await self._transport.write(
            lambda options: self._v1.subscription_schedules.create_async(_any(params), options),
            idempotency_key=idempotency_key,
        )

    async def waiting(self, stripe_customer_id: str) -> list[StripeJson]:
        """The customer's schedules that are to start a subscription and have not done so."""
        return await self._transport.all(
            lambda params, options: self._v1.subscription_schedules.list_async(_any(params), options),
            {"customer": stripe_customer_id, "scheduled": True},
        )

    async def start(self, params: StripeJson, *, idempotency_key: str) -> StripeJson:
        """A schedule that starts a subscription on its day; `params` as Stripe's."""
        return await self._transport.write(
            lambda options: self._v1.subscription_schedules.create_async(_any(params), options),
            idempotency_key=idempotency_key,
        )

    async def update(self, stripe_schedule_id: str, params: StripeJson, *, idempotency_key: str) -> StripeJson:
        """Replace all phases of a schedule (see `billing.schedule` for the parameters)."""
        return await self._transport.write(
            lambda options: self._v1.subscription_schedules.update_async(stripe_schedule_id, _any(params), options),
            idempotency_key=idempotency_key,
        )

    async def release(self, stripe_schedule_id: str, *, idempotency_key: str) -> StripeJson:
        """Detach a schedule; the subscription goes on as it is, without the later phases."""
        return await self._transport.write(
            lambda options: self._v1.subscription_schedules.release_async(stripe_schedule_id, options=options),
            idempotency_key=idempotency_key,
        )

    async def fetch(self, stripe_schedule_id: str) -> StripeJson | None:
        return await self._transport.find(
            lambda options: self._v1.subscription_schedules.retrieve_async(stripe_schedule_id, options=options)
        )


def _any(params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the package's TypedDicts cannot be met by built-up params.
    return params
