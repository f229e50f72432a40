"""A small shop in the sandbox: one customer with a card, and plans to sell, made through the official async client."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import stripe

from tests.sandbox_server import SandboxServer

if TYPE_CHECKING:
    from types import TracebackType

Obj = dict[str, Any]

DAY = 86_400


@dataclass
class Shop:
    """Ids of what is for sale, and the client that made it."""

    client: stripe.StripeClient
    customer: str
    card: str
    starter: str
    pro: str
    pro_yearly: str
    seats: str
    metered: str
    meter: str


async def open_shop(sandbox: SandboxServer, *, card: str = "pm_card_visa") -> Shop:
    """Starter $19, Pro $49 and $490 a year, seats $7, exports by meter at 2 cents; Acme has a card on file."""
    client = sandbox.client()
    customer = await client.v1.customers.create_async({"name": "Acme", "email": "ada@acme.test"})
    method = await client.v1.payment_methods.attach_async(card, {"customer": customer.id})
    await client.v1.customers.update_async(customer.id, {"invoice_settings": {"default_payment_method": method.id}})
    meter = await client.v1.billing.meters.create_async(
        {
            "display_name": "Exports",
            "event_name": "exports",
            "default_aggregation": {"formula": "sum"},
        }
    )
    products = {
        name: (await client.v1.products.create_async({"name": name})).id
        for name in ("Starter", "Pro", "Seat", "Export")
    }
    prices = {}
    for key, product, amount, interval in (
        ("starter", "Starter", 1900, "month"),
        ("pro", "Pro", 4900, "month"),
        ("pro_yearly", "Pro", 49000, "year"),
        ("seats", "Seat", 700, "month"),
    ):
        price = await client.v1.prices.create_async(
            {
                "product": products[product],
                "currency": "usd",
                "unit_amount": amount,
                "recurring": {"interval": interval},
                "currency_options": {"eur": {"unit_amount": amount - 100}},
            }
        )
        prices[key] = price.id
    metered = await client.v1.prices.create_async(
        {
            "product": products["Export"],
            "currency": "usd",
            "unit_amount": 2,
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
        }
    )
    return Shop(client, customer.id, method.id, metered=metered.id, meter=meter.id, **prices)


async def subscribe(shop: Shop, *prices: str, **options: Any) -> stripe.Subscription:  # noqa: ANN401 - create's own.
    """Subscribe Acme to prices."""
    params: Any = {"customer": shop.customer, "items": [{"price": p} for p in prices], **options}
    return await shop.client.v1.subscriptions.create_async(params)


def first_item(subscription: stripe.Subscription) -> stripe.SubscriptionItem:
    """The first item; `subscription.items` would be the mapping's method."""
    item: stripe.SubscriptionItem = subscription["items"].data[0]
    return item


def amounts(invoice: stripe.Invoice) -> list[tuple[str, int]]:
    """What an invoice says, line by line."""
    return [(line.description or "", line.amount) for line in invoice.lines.data]


class Inbox:
    """The other side on a thread: keeps webhooks and clock moves, and whether they were signed right."""

    def __init__(self, secret: str, *, failures: int = 0) -> None:
        self.events: list[Obj] = []
        self.failures = failures
        self.forged = 0
        self.moves: list[tuple[str, Obj]] = []
        inbox = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                parts = dict(p.split("=", 1) for p in self.headers["Stripe-Signature"].split(","))
                wanted = hmac.new(secret.encode(), parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
                if not hmac.compare_digest(wanted, parts["v1"]):
                    inbox.forged += 1
                status = 200
                if inbox.failures > 0:
                    inbox.failures -= 1
                    status = 500
                else:
                    inbox.events.append(json.loads(body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                inbox.moves.append((self.headers["Authorization"], body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name.
                """Tests need no access log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hooks"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def types(self) -> list[str]:
        """Types in order of arrival."""
        return [event["type"] for event in self.events]

    def __enter__(self) -> Inbox:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
