"""What Plangate asks of Stripe, in Plangate's words; every write takes the idempotency key its intent was saved with.

Objects come back as plain values (`StripeJson`), because a `StripeObject` is no dict. Every method raises
`StripeFailure`, which is a `Refusal`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from plangate.billing.catalog_calls import CatalogCalls
from plangate.billing.meter_calls import MeterCalls
from plangate.billing.pacing import Pace, paced
from plangate.billing.payment_calls import PaymentCalls, invoice_subscription
from plangate.billing.schedule_calls import ScheduleCalls
from plangate.billing.transport import StripeJson, Transport

LIVE_SCHEDULE_STATUSES: Final = frozenset({"active", "not_started"})
_UNPAID_STATUSES: Final = frozenset({"past_due", "unpaid"})
_OWED: Final = frozenset({"open", "uncollectible"})
_INVOICE_EXPANSION: Final = "latest_invoice.payments.data.payment.payment_intent"


class CustomerState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one Stripe customer that decides, as fetched just now.

    `subscriptions` have all their items, of any status; `schedules` are those still in force; `unpaid_invoices` are
    those of subscriptions that are unpaid, since each was last paid. A deleted customer has `is_deleted` and nothing
    else.
    """

    stripe_customer_id: str
    customer: StripeJson
    is_deleted: bool = False
    subscriptions: tuple[StripeJson, ...] = ()
    schedules: tuple[StripeJson, ...] = ()
    unpaid_invoices: tuple[StripeJson, ...] = ()


class LineItem(NamedTuple):
    """A Stripe price and how many; None for metered prices."""

    stripe_price_id: str
    quantity: int | None


class StripeGateway:
    """One environment's Stripe account. Create it inside the running event loop; close it with `aclose`."""

    def __init__(
        self,
        secret_key: str,
        *,
        api_base: str | None = None,
        account: str | None = None,
        timeout_seconds: float = 8,
        long_work_per_second: int = 20,
    ) -> None:
        self._transport = Transport(secret_key, api_base=api_base, account=account, timeout_seconds=timeout_seconds)
        self._pace = Pace(long_work_per_second)
        self._v1 = self._transport.client.v1

    async def aclose(self) -> None:
        await self._transport.aclose()

    @property
    def catalog(self) -> CatalogCalls:
        """Products, prices and meters: what is sold, and what counts it."""
        return CatalogCalls(self._transport)

    @property
    def payments(self) -> PaymentCalls:
        """Charges and disputes: what went wrong with a payment after it was made."""
        return PaymentCalls(self._transport)

    @property
    def schedules(self) -> ScheduleCalls:
        """Subscription schedules: what is to change later, or to start."""
        return ScheduleCalls(self._transport)

    @property
    def metering(self) -> MeterCalls:
        """Meters: what was used, reported to Stripe or counted there."""
        return MeterCalls(self._transport)

    def long_work(self) -> AbstractContextManager[None]:
        """Calls inside this block, and in tasks started there, stay below the environment's rate."""
        return paced(self._pace)

    async def fetch_account(self) -> StripeJson:
        """The account behind the key; its id must be the one the environment names."""
        return await self._transport.read(lambda options: self._v1.accounts.retrieve_current_async(options=options))

    # --- customers ---------------------------------------------------------------------------------

    async def fetch_customer_state(self, stripe_customer_id: str) -> CustomerState | None:
        """The customer, its subscriptions with all items and the schedules in force; None if it never existed."""
        customer = await self.fetch_customer(stripe_customer_id)
        if customer is None:
            return None
        if customer.get("deleted"):
            return CustomerState(stripe_customer_id=stripe_customer_id, customer=customer, is_deleted=True)
        subscriptions = await self._transport.all(
            lambda params, options: self._v1.subscriptions.list_async(_any(params), options),
            {"customer": stripe_customer_id, "status": "all", "expand": ["data.schedule"]},
        )
        return await self.completed_state(customer, subscriptions)

    async def completed_state(self, customer: StripeJson, subscriptions: Sequence[StripeJson]) -> CustomerState:
        """The state of a customer listed with all its subscriptions, which carry their schedules expanded.

        What a list leaves out is fetched: items beyond the tenth, and open invoices where one is unpaid.
        """
        stripe_customer_id: str = customer["id"]
        schedules: list[StripeJson] = []
        for subscription in subscriptions:
            await self._complete_items(subscription)
            schedule = subscription.get("schedule")
            if isinstance(schedule, dict):
                subscription["schedule"] = schedule["id"]
                if schedule["status"] in LIVE_SCHEDULE_STATUSES:
                    schedules.append(schedule)
        unpaid = {subscription["id"] for subscription in subscriptions if subscription["status"] in _UNPAID_STATUSES}
        return CustomerState(
            stripe_customer_id=stripe_customer_id,
            customer=customer,
            subscriptions=tuple(subscriptions),
            schedules=tuple(schedules),
            unpaid_invoices=tuple(await self._unpaid_invoices(stripe_customer_id, unpaid)),
        )

    async def fetch_customer(self, stripe_customer_id: str) -> StripeJson | None:
        """The customer (with `deleted: true` when it was deleted), or None when it never existed."""
        return await self._transport.find(
            lambda options: self._v1.customers.retrieve_async(stripe_customer_id, options=options)
        )

    async def create_customer(
        self, *, name: str | None, email: str | None, metadata: Mapping[str, str], idempotency_key: str
    ) -> StripeJson:
        """A new customer. The metadata lets finance find the company, and lets us find the customer again."""
        params: StripeJson = {"metadata": dict(metadata)}
        if name:
            params["name"] = name
        if email:
            params["email"] = email
        return await self._transport.write(
            lambda options: self._v1.customers.create_async(_any(params), options), idempotency_key=idempotency_key
        )

    async def update_customer(self, stripe_customer_id: str, params: StripeJson, *, idempotency_key: str) -> StripeJson:
        return await self._transport.write(
            lambda options: self._v1.customers.update_async(stripe_customer_id, _any(params), options),
            idempotency_key=idempotency_key,
        )

    def iterate_customers(self, *, after: str | None = None) -> AsyncIterator[Sequence[StripeJson]]:
        """Every customer of the account, a page at a time, newest first; those after one of them, to go on there."""
        return self._transport.pages(
            lambda params, options: self._v1.customers.list_async(_any(params), options),
            {} if after is None else {"starting_after": after},
        )

    def iterate_subscriptions(
        self, *, after: str | None = None, is_whole: bool = False
    ) -> AsyncIterator[Sequence[StripeJson]]:
        """Every subscription of the account in any status, a page at a time, newest first.

        `is_whole` brings each with its customer and its schedule, as `completed_state` takes them.
        """
        params: StripeJson = {"status": "all"}
        if is_whole:
            params["expand"] = ["data.customer", "data.schedule"]
        if after is not None:
            params["starting_after"] = after
        return self._transport.pages(
            lambda asked, options: self._v1.subscriptions.list_async(_any(asked), options), params
        )

    async def default_payment_method(self, stripe_customer_id: str) -> str | None:
        """The payment method that a charge without the customer present would use, or None when there is none."""
        customer = await self.fetch_customer(stripe_customer_id)
        if customer is None or customer.get("deleted"):
            return None
        chosen = reference((customer.get("invoice_settings") or {}).get("default_payment_method"))
        if chosen is not None:
            return chosen
        attached = await self._transport.read(
            lambda options: self._v1.customers.payment_methods.list_async(
                stripe_customer_id, _any({"limit": 1}), options
            )
        )
        return attached["data"][0]["id"] if attached["data"] else None

    async def fetch_promotion_code(self, text: str) -> StripeJson | None:
        """An active promotion code with its coupon, by Stripe's id or by what customers type; None when none is."""
        if text.startswith("promo_"):
            found = await self._transport.find(
                lambda options: self._v1.promotion_codes.retrieve_async(text, options=options)
            )
        else:
            listed = await self._transport.all(
                lambda params, options: self._v1.promotion_codes.list_async(_any(params), options),
                {"code": text, "active": True},
            )
            found = listed[0] if listed else None
        if found is None or not found["active"]:
            return None
        stripe_coupon_id = reference(found["promotion"]["coupon"])
        if stripe_coupon_id is None:
            return None
        coupon = await self._transport.find(
            lambda options: self._v1.coupons.retrieve_async(
                stripe_coupon_id, _any({"expand": ["applies_to", "currency_options"]}), options
            )
        )
        return None if coupon is None else {**found, "coupon": coupon}

    # --- checkout and portal -----------------------------------------------------------------------

    async def create_checkout_session(
        self,
        *,
        stripe_customer_id: str,
        items: Sequence[LineItem],
        success_url: str,
        cancel_url: str,
        subscription_metadata: Mapping[str, str],
        idempotency_key: str,
        client_reference_id: str | None = None,
        asking: StripeJson,
        trial: StripeJson,
        promotion_code: str | None = None,
    ) -> StripeJson:
        """A hosted Checkout page that starts a subscription. Its metadata names our company and change.

        In Stripe's parameters, `asking` is what the page asks for beside that, `trial` that it begins with one.
        """
        line_items = [
            {"price": item.stripe_price_id} | ({"quantity": item.quantity} if item.quantity is not None else {})
            for item in items
        ]
        subscription: StripeJson = {"metadata": dict(subscription_metadata), **trial}
        params: StripeJson = {
            "mode": "subscription",
            "ui_mode": "hosted_page",
            "customer": stripe_customer_id,
            "line_items": line_items,
            "success_url": success_url,
            "cancel_url": cancel_url,
            "subscription_data": subscription,
            "metadata": dict(subscription_metadata),
            **asking,
        }
        if client_reference_id is not None:
            params["client_reference_id"] = client_reference_id
        if promotion_code is not None:
            params["discounts"] = [{"promotion_code": promotion_code}]
        return await self._transport.write(
            lambda options: self._v1.checkout.sessions.create_async(_any(params), options),
            idempotency_key=idempotency_key,
        )

    async def fetch_checkout_session(self, stripe_session_id: str) -> StripeJson | None:
        return await self._transport.find(
            lambda options: self._v1.checkout.sessions.retrieve_async(stripe_session_id, options=options)
        )

    async def expire_checkout_session(self, stripe_session_id: str, *, idempotency_key: str) -> StripeJson:
        """Close an open session, so that it can no longer be paid."""
        return await self._transport.write(
            lambda options: self._v1.checkout.sessions.expire_async(stripe_session_id, options=options),
            idempotency_key=idempotency_key,
        )

    async def create_portal_session(
        self, stripe_customer_id: str, *, return_url: str, idempotency_key: str
    ) -> StripeJson:
        """Stripe's own billing portal for this customer; `url` is good for a few minutes."""
        params = {"customer": stripe_customer_id, "return_url": return_url}
        return await self._transport.write(
            lambda options: self._v1.billing_portal.sessions.create_async(_any(params), options),
            idempotency_key=idempotency_key,
        )

    # --- invoices ----------------------------------------------------------------------------------

    async def preview_invoice(self, params: StripeJson) -> StripeJson | None:
        """What Stripe would charge, or None when there would be no invoice; writes nothing. All lines are present."""
        invoice = await self._transport.find(
            lambda options: self._v1.invoices.create_preview_async(_any(params), options)
        )
        if invoice is not None and invoice["lines"].get("has_more"):
            stripe_invoice_id: str = invoice["id"]
            invoice["lines"]["data"] = await self._transport.all(
                lambda asked, options: self._v1.invoices.line_items.list_async(stripe_invoice_id, _any(asked), options),
                {},
            )
            invoice["lines"]["has_more"] = False
        return invoice

    async def list_invoices(self, stripe_customer_id: str) -> list[StripeJson]:
        """The customer's invoices, newest first."""
        return [invoice async for page in self._invoice_pages(stripe_customer_id) for invoice in page]

    async def has_paid(self, stripe_customer_id: str) -> bool:
        """Whether any invoice of the customer was ever paid."""
        async for page in self._invoice_pages(stripe_customer_id):
            if any(invoice["status"] == "paid" for invoice in page):
                return True
        return False

    def _invoice_pages(self, stripe_customer_id: str) -> AsyncIterator[Sequence[StripeJson]]:
        return self._transport.pages(
            lambda asked, options: self._v1.invoices.list_async(_any(asked), options), {"customer": stripe_customer_id}
        )

    async def _unpaid_invoices(self, stripe_customer_id: str, subscriptions: Set[str]) -> list[StripeJson]:
        """What each of these subscriptions was billed and did not pay since it last paid, newest first.

        What was written off was not paid either; a voided invoice was never owed.
        """
        found: list[StripeJson] = []
        if not subscriptions:
            return found
        waiting = set(subscriptions)
        async for page in self._invoice_pages(stripe_customer_id):
            for invoice in page:
                name = invoice_subscription(invoice)
                if name in waiting and invoice["status"] == "paid":
                    waiting.discard(name)
                elif name in waiting and invoice["status"] in _OWED:
                    found.append(invoice)
            if not waiting:
                break
        return found

    async def void_invoice(self, stripe_invoice_id: str, *, idempotency_key: str) -> StripeJson:
        """Give up an open invoice; the pending update that waits for it is dropped with it."""
        return await self._transport.write(
            lambda options: self._v1.invoices.void_invoice_async(stripe_invoice_id, options=options),
            idempotency_key=idempotency_key,
        )

    # --- subscriptions -----------------------------------------------------------------------------

    async def fetch_subscription(self, stripe_subscription_id: str) -> StripeJson | None:
        """The subscription with all items, its latest invoice and that invoice's payments."""
        subscription = await self._transport.find(
            lambda options: self._v1.subscriptions.retrieve_async(
                stripe_subscription_id, _any({"expand": [_INVOICE_EXPANSION]}), options
            )
        )
        if subscription is not None:
            await self._complete_items(subscription)
        return subscription

    async def create_subscription(self, params: StripeJson, *, idempotency_key: str) -> StripeJson:
        """A subscription paid with a card on file; `params` as Stripe's. The latest invoice comes expanded."""
        wanted = {"expand": [_INVOICE_EXPANSION], **params}
        return await self._transport.write(
            lambda options: self._v1.subscriptions.create_async(_any(wanted), options),
            idempotency_key=idempotency_key,
        )

    async def update_subscription(
        self, stripe_subscription_id: str, params: StripeJson, *, idempotency_key: str
    ) -> StripeJson:
        """Change a subscription; `params` as Stripe's. The latest invoice comes expanded."""
        wanted = {"expand": [_INVOICE_EXPANSION], **params}
        return await self._transport.write(
            lambda options: self._v1.subscriptions.update_async(stripe_subscription_id, _any(wanted), options),
            idempotency_key=idempotency_key,
        )

    async def cancel_subscription(
        self, stripe_subscription_id: str, *, is_prorated: bool, is_invoiced: bool, idempotency_key: str
    ) -> StripeJson:
        """End a subscription now: prorated, unused time is credited; invoiced, what is not billed yet is billed."""
        params = {"prorate": is_prorated, "invoice_now": is_invoiced}
        return await self._transport.write(
            lambda options: self._v1.subscriptions.cancel_async(stripe_subscription_id, _any(params), options),
            idempotency_key=idempotency_key,
        )

    async def cancel_at_period_end(
        self, stripe_subscription_id: str, *, metadata: Mapping[str, str], idempotency_key: str
    ) -> StripeJson:
        params = {"cancel_at_period_end": True, "metadata": dict(metadata)}
        return await self.update_subscription(stripe_subscription_id, params, idempotency_key=idempotency_key)

    async def undo_cancel(self, subscription: StripeJson, *, idempotency_key: str) -> StripeJson:
        """Keep a subscription that was to end, in whichever of its two ways Stripe was told to end it."""
        params: StripeJson = {"metadata": {"plangate_change": ""}}
        if subscription.get("cancel_at_period_end"):
            params["cancel_at_period_end"] = False
        else:
            params["cancel_at"] = ""
        return await self.update_subscription(subscription["id"], params, idempotency_key=idempotency_key)

    async def _complete_items(self, subscription: StripeJson) -> None:
        """Fetch the items beyond those that came embedded, which stop at ten."""
        items = subscription["items"]
        if not items.get("has_more"):
            return
        items["data"] = await self._transport.all(
            lambda params, options: self._v1.subscription_items.list_async(_any(params), options),
            {"subscription": subscription["id"]},
        )
        items["has_more"] = False

    # --- events ------------------------------------------------------------------------------------

    def event_pages(self, *, created_from: datetime) -> AsyncIterator[Sequence[StripeJson]]:
        """Events since an instant, a page at a time, newest first. Stripe keeps them for 30 days."""
        return self._transport.pages(
            lambda asked, options: self._v1.events.list_async(_any(asked), options),
            {"created": {"gte": int(created_from.timestamp())}},
        )

    async def list_events(
        self, *, created_from: datetime, after_event_id: str | None = None, types: Sequence[str] = ()
    ) -> list[StripeJson]:
        """Events since an instant, or since (not including) one event, oldest first. Stripe keeps them for 30 days."""
        params: StripeJson = {"types": list(types)} if types else {}
        if after_event_id is None:
            params["created"] = {"gte": int(created_from.timestamp())}
        else:
            params["ending_before"] = after_event_id
        found: list[StripeJson] = []
        async for page in self._transport.pages(
            lambda asked, options: self._v1.events.list_async(_any(asked), options),
            params,
            is_oldest_first=after_event_id is not None,
        ):
            found.extend(page)
        return found if after_event_id is not None else found[::-1]


def reference(value: object) -> str | None:
    """The id behind an expandable field, expanded or not; None when it is empty."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return value if isinstance(value, str) else None


def _any(params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the package's TypedDicts cannot be met by built-up params.
    return params
