"""What Plangate asks of Stripe about meters: usage reported to them, and what they have counted."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.transport import StripeJson, Transport

_ALREADY_EXISTS: Final = "already exists with identifier"


class MeterCalls:
    """The meters of one environment's Stripe account. Every method raises `StripeFailure`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._v1 = transport.client.v1

    async def send(
        self, *, event_name: str, stripe_customer_id: str, value: str, identifier: str, occurred_at: datetime
    ) -> None:
        """Report usage to a Stripe meter. An `identifier` that Stripe knows already, for at least a day, is delivered.

        `value` is a number with at most 12 decimals; the identifier has at most 100 characters.
        """
        params = {
            "event_name": event_name,
            "payload": {"stripe_customer_id": stripe_customer_id, "value": value},
            "identifier": identifier,
            "timestamp": int(occurred_at.timestamp()),
        }
        try:
            await self._transport.write(
                lambda options: self._v1.billing.meter_events.create_async(_any(params), options),
                idempotency_key=identifier,
            )
        except StripeFailure as refused:
            if refused.kind is FailureKind.REFUSED and _ALREADY_EXISTS in refused.detail:
                return
            raise

    async def meters(self) -> dict[str, str]:
        """The active meters of the account: the event name each counts, and its id."""
        found = await self._transport.all(
            lambda params, options: self._v1.billing.meters.list_async(_any(params), options), {"status": "active"}
        )
        return {meter["event_name"]: meter["id"] for meter in found}

    async def metered(
        self,
        stripe_meter_id: str,
        stripe_customer_id: str,
        *,
        start_at: datetime,
        end_at: datetime,
        by: Literal["hour", "day"] | None = None,
    ) -> dict[datetime, Decimal]:
        """What a meter counted for a customer in `[start_at, end_at)`, by the start of each hour or day, or in one sum.

        Both instants lie on whole minutes, or on whole steps of `by`. Steps without usage are left out.
        """
        params: StripeJson = {
            "customer": stripe_customer_id,
            "start_time": int(start_at.timestamp()),
            "end_time": int(end_at.timestamp()),
        }
        if by is not None:
            params["value_grouping_window"] = by
        summaries = await self._transport.all(
            lambda asked, options: self._v1.billing.meters.event_summaries.list_async(
                stripe_meter_id, _any(asked), options
            ),
            params,
        )
        return {
            datetime.fromtimestamp(one["start_time"], UTC): Decimal(str(one["aggregated_value"])) for one in summaries
        }


def _any(params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the package's TypedDicts cannot be met by built-up params.
    return params
