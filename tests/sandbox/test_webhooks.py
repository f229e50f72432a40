"""Deliveries: signed on wall time, retried, found again in the event list, and disturbed when told to."""

import time

import stripe

from tests.sandbox.shop import Inbox, open_shop, subscribe
from tests.sandbox_server import SandboxServer, running_sandbox


def _wait_for(inbox: Inbox, count: int, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while len(inbox.events) < count and time.monotonic() < deadline:
        time.sleep(0.02)


async def test_events_arrive_signed_and_in_order(sandbox: SandboxServer) -> None:
    with Inbox(sandbox.webhook_secret) as inbox:
        sandbox.set_webhook(inbox.url)
        shop = await open_shop(sandbox)
        await subscribe(shop, shop.pro)
        sandbox.advance("P32D")
        assert inbox.forged == 0
        types = inbox.types()
        for wanted in ("customer.created", "customer.subscription.created", "invoice.paid", "price.created"):
            assert wanted in types
        created = inbox.events[types.index("customer.subscription.created")]
        assert created["api_version"] == "2026-10-28.endive"
        assert created["data"]["object"]["status"] == "incomplete"
        updated = [e for e in inbox.events if e["type"] == "customer.subscription.updated"]
        assert updated[0]["data"]["previous_attributes"]["status"] == "incomplete"
        listed = await shop.client.v1.events.list_async({"delivery_success": False})
        assert listed.data == []


async def test_the_official_package_accepts_a_delivery(sandbox: SandboxServer) -> None:
    from plangate.sandbox.webhooks import signature

    body = b'{"id": "evt_1", "object": "event"}'
    header = signature(body, "whsec_x", int(time.time()))
    assert stripe.WebhookSignature.verify_header(body.decode(), header, "whsec_x", tolerance=300)


async def test_a_failed_delivery_is_tried_again() -> None:
    with (
        running_sandbox(webhook_retry_seconds=(0.2, 0.2)) as sandbox,
        Inbox(sandbox.webhook_secret, failures=1) as inbox,
    ):
        sandbox.set_webhook(inbox.url)
        client = sandbox.client()
        await client.v1.customers.create_async({"name": "x"})
        _wait_for(inbox, 1)
        assert inbox.types() == ["customer.created"]


async def test_what_was_never_delivered_is_in_the_list(sandbox: SandboxServer) -> None:
    with Inbox(sandbox.webhook_secret) as inbox:
        sandbox.set_webhook(inbox.url)
        client = sandbox.client()
        sandbox.control("POST", "faults", {"fault": "drop_webhooks", "count": 1})
        lost = await client.v1.customers.create_async({"name": "lost"})
        await client.v1.customers.create_async({"name": "kept"})
        _wait_for(inbox, 1)
        assert [e["data"]["object"]["name"] for e in inbox.events] == ["kept"]
        missed = await client.v1.events.list_async({"delivery_success": False, "types": ["customer.created"]})
        assert [e.data.object["id"] for e in missed.data] == [lost.id]


async def test_duplicates_reordering_and_delay(sandbox: SandboxServer) -> None:
    with Inbox(sandbox.webhook_secret) as inbox:
        sandbox.set_webhook(inbox.url)
        client = sandbox.client()
        sandbox.control("POST", "faults", {"fault": "duplicate_webhooks"})
        await client.v1.customers.create_async({"name": "twice"})
        _wait_for(inbox, 2)
        assert len({e["id"] for e in inbox.events}) == 1
        assert len(inbox.events) == 2
        sandbox.control("POST", "faults", {"fault": "reorder_webhooks"})
        await client.v1.customers.create_async({"name": "first"})
        await client.v1.customers.create_async({"name": "second"})
        _wait_for(inbox, 4)
        assert [e["data"]["object"]["name"] for e in inbox.events[2:]] == ["second", "first"]
        sandbox.control("POST", "faults", {"fault": "delay_webhooks", "seconds": 0.5})
        await client.v1.customers.create_async({"name": "late"})
        assert len(inbox.events) == 4
        _wait_for(inbox, 5)
        assert inbox.events[4]["data"]["object"]["name"] == "late"


async def test_a_slow_endpoint_never_blocks_the_api(sandbox: SandboxServer) -> None:
    sandbox.set_webhook("http://127.0.0.1:9/nobody")
    client = sandbox.client()
    started = time.monotonic()
    await client.v1.customers.create_async({"name": "x"})
    assert time.monotonic() - started < 2
    sandbox.set_webhook(None)


async def test_endpoints_can_be_made_through_the_api(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    with Inbox("unused") as nobody:
        made = await client.v1.webhook_endpoints.create_async(
            {"url": nobody.url, "enabled_events": ["product.created"]}
        )
        assert made.secret is not None
        assert made.secret.startswith("whsec_")
        assert not hasattr(await client.v1.webhook_endpoints.retrieve_async(made.id), "secret")
        await client.v1.customers.create_async({"name": "x"})
        await client.v1.products.create_async({"name": "y"})
        _wait_for(nobody, 1)
        assert nobody.types() == ["product.created"]
        await client.v1.webhook_endpoints.delete_async(made.id)
        assert (await client.v1.webhook_endpoints.list_async()).data == []
