"""What Plangate asks of Stripe about a payment: its charge, what was given back, who disputes it, what it paid for."""

from typing import Any, NamedTuple

from plangate.billing.transport import StripeJson, Transport


class Payment(NamedTuple):
    """A charge, its disputes, and the subscription it paid for, None for anything else."""

    charge: StripeJson
    disputes: list[StripeJson]
    stripe_subscription_id: str | None


class PaymentCalls:
    """Charges and disputes of one environment's Stripe account. Every method raises `StripeFailure`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._v1 = transport.client.v1

    async def fetch_charge(self, stripe_charge_id: str) -> StripeJson | None:
        """The charge alone, None when it does not exist."""
        return await self._transport.find(
            lambda options: self._v1.charges.retrieve_async(stripe_charge_id, options=options)
        )

    async def fetch_payment(self, stripe_charge_id: str) -> Payment | None:
        """The charge with all that decides about it, None when it does not exist."""
        charge = await self.fetch_charge(stripe_charge_id)
        if charge is None:
            return None
        disputes: list[StripeJson] = []
        if charge.get("disputed"):
            disputes = await self._transport.all(
                lambda params, options: self._v1.disputes.list_async(_any(params), options),
                {"charge": stripe_charge_id},
            )
        return Payment(charge, disputes, await self._paid_for(charge))

    async def _paid_for(self, charge: StripeJson) -> str | None:
        intent = charge.get("payment_intent")
        if not isinstance(intent, str):
            return None
        payments = await self._transport.all(
            lambda params, options: self._v1.invoice_payments.list_async(_any(params), options),
            {"payment": {"type": "payment_intent", "payment_intent": intent}, "expand": ["data.invoice"]},
        )
        found = (invoice_subscription(one["invoice"]) for one in payments if isinstance(one["invoice"], dict))
        return next((name for name in found if name is not None), None)


def invoice_subscription(invoice: StripeJson) -> str | None:
    """The subscription an invoice bills: under `parent` since Basil, on the invoice before."""
    details = (invoice.get("parent") or {}).get("subscription_details") or {}
    for named in (details.get("subscription"), invoice.get("subscription")):
        stripe_subscription_id = named.get("id") if isinstance(named, dict) else named
        if isinstance(stripe_subscription_id, str):
            return stripe_subscription_id
    return None


def _any(params: StripeJson) -> Any:  # noqa: ANN401 - the package's TypedDicts cannot be met by built-up params.
    return params
