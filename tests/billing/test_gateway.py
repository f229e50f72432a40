"""The gateway against the sandbox: what it ensures exists once, what it lists whole, what it finds absent."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from plangate.billing.catalog_calls import counts_otherwise
from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.gateway import LineItem, StripeGateway
from tests.sandbox_server import SandboxServer

MONTHLY = {"currency": "usd", "unit_amount": 4900, "recurring": {"interval": "month"}}


@pytest.fixture
async def gateway(sandbox: SandboxServer) -> AsyncIterator[StripeGateway]:
    opened = StripeGateway(sandbox.secret_key, api_base=sandbox.url)
    yield opened
    await opened.aclose()


async def a_price(gateway: StripeGateway) -> str:
    await gateway.catalog.create_product(
        "plangate_plan_pro", name="Pro", description="", metadata={}, idempotency_key="product"
    )
    made = await gateway.catalog.create_price(
        "pro", {"product": "plangate_plan_pro", **MONTHLY}, idempotency_key="price"
    )
    return str(made["id"])


async def a_customer(gateway: StripeGateway, key: str = "customer") -> str:
    made = await gateway.create_customer(name="Acme", email=None, metadata={"a": "b"}, idempotency_key=key)
    return str(made["id"])


async def test_the_account_is_the_one_behind_the_key(gateway: StripeGateway, sandbox: SandboxServer) -> None:
    assert (await gateway.fetch_account())["id"] == sandbox.account_id


async def test_a_wrong_key_is_an_operators_matter(sandbox: SandboxServer) -> None:
    other = StripeGateway("sk_test_wrong", api_base=sandbox.url)
    with pytest.raises(StripeFailure) as caught:
        await other.fetch_account()
    await other.aclose()
    assert caught.value.kind is FailureKind.UNAUTHORISED
    assert caught.value.status == 503
    assert "sk_test" not in caught.value.detail


async def test_products_and_prices_are_found_again(gateway: StripeGateway, sandbox: SandboxServer) -> None:
    calls = gateway.catalog
    first = await a_price(gateway)
    again = await calls.find_price("pro")
    assert again is not None
    assert again["id"] == first
    assert await calls.find_price("starter") is None
    archived = await calls.set_price_active(first, is_active=False, idempotency_key="archive")
    assert not archived["active"]
    back = await calls.set_price_active(first, is_active=True, idempotency_key="back")
    assert (back["id"], back["active"]) == (first, True)
    product = await calls.fetch_product("plangate_plan_pro")
    assert product is not None
    shown: dict[str, Any] = {"name": "Pro+", "description": "For teams", "metadata": {"k": "v"}}
    renamed = await calls.update_product(product, **shown, idempotency_key="rename")
    assert (renamed["name"], renamed["description"], renamed["metadata"]) == ("Pro+", "For teams", {"k": "v"})
    asked = len(sandbox.control("GET", "requests")["data"])
    assert await calls.update_product(renamed, **shown, idempotency_key="no") == renamed
    assert len(sandbox.control("GET", "requests")["data"]) == asked
    objects = sandbox.control("GET", "state")["objects"]
    assert (len(objects["product"]), len(objects["price"])) == (1, 1)


async def test_a_meter_adds_up_by_customer(gateway: StripeGateway) -> None:
    made = await gateway.catalog.create_meter("calls", display_name="Calls", idempotency_key="meter")
    assert counts_otherwise(made) is None
    renamed = await gateway.catalog.rename_meter(made["id"], display_name="API calls", idempotency_key="rename")
    assert [one["display_name"] for one in await gateway.catalog.active_meters()] == ["API calls"]
    assert renamed["event_name"] == "calls"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"default_aggregation": {"formula": "count"}}, "aggregation is count"),
        ({"customer_mapping": {"type": "by_id", "event_payload_key": "account"}}, "customers by account"),
        ({"value_settings": {"event_payload_key": "tokens"}}, "adds up tokens"),
    ],
)
def test_a_meter_that_counts_otherwise_is_told_from_ours(part: dict[str, Any], said: str) -> None:
    ours = {
        "default_aggregation": {"formula": "sum"},
        "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
        "value_settings": {"event_payload_key": "value"},
    }
    assert counts_otherwise(ours) is None
    assert said in (counts_otherwise({**ours, **part}) or "")


async def test_the_same_key_is_answered_alike_and_other_parameters_are_refused(gateway: StripeGateway) -> None:
    assert await a_customer(gateway) == await a_customer(gateway)
    with pytest.raises(StripeFailure) as caught:
        await gateway.create_customer(name="Globex", email=None, metadata={}, idempotency_key="customer")
    assert caught.value.kind is FailureKind.KEY_REUSED


async def test_absent_things(gateway: StripeGateway) -> None:
    assert await gateway.fetch_customer_state("cus_never") is None
    assert await gateway.fetch_subscription("sub_never") is None
    assert await gateway.schedules.fetch("sub_sched_never") is None
    assert await gateway.fetch_checkout_session("cs_test_never") is None
    assert await gateway.default_payment_method("cus_never") is None
    with pytest.raises(StripeFailure) as caught:
        await gateway.schedules.release("sub_sched_never", idempotency_key="release")
    assert caught.value.kind is FailureKind.ABSENT


async def test_a_customers_whole_state(gateway: StripeGateway) -> None:
    stripe_customer_id = await a_customer(gateway)
    price = await a_price(gateway)
    state = await gateway.fetch_customer_state(stripe_customer_id)
    assert state is not None
    assert (state.subscriptions, state.schedules, state.unpaid_invoices) == ((), (), ())
    with pytest.raises(StripeFailure):
        await gateway.create_subscription(
            {"customer": stripe_customer_id, "items": [{"price": price}], "payment_behavior": "error_if_incomplete"},
            idempotency_key="without-a-card",
        )
    await gateway.create_subscription(
        {"customer": stripe_customer_id, "items": [{"price": price}], "payment_behavior": "default_incomplete"},
        idempotency_key="incomplete",
    )
    state = await gateway.fetch_customer_state(stripe_customer_id)
    assert state is not None
    assert [one["status"] for one in state.subscriptions] == ["incomplete"]
    (invoice,) = await gateway.list_invoices(stripe_customer_id)
    voided = await gateway.void_invoice(invoice["id"], idempotency_key="void")
    assert voided["status"] == "void"


async def test_checkout_and_portal(gateway: StripeGateway) -> None:
    stripe_customer_id = await a_customer(gateway)
    price = await a_price(gateway)
    session = await gateway.create_checkout_session(
        stripe_customer_id=stripe_customer_id,
        items=[LineItem(price, 2)],
        success_url="http://shop.test/done",
        cancel_url="http://shop.test/back",
        subscription_metadata={"plangate_company": "comp_1"},
        asking={},
        trial={},
        client_reference_id="chg_1",
        idempotency_key="checkout",
    )
    assert (session["status"], session["amount_total"]) == ("open", 9800)
    assert (await gateway.expire_checkout_session(session["id"], idempotency_key="expire"))["status"] == "expired"
    portal = await gateway.create_portal_session(
        stripe_customer_id, return_url="http://shop.test/", idempotency_key="portal"
    )
    assert portal["url"].startswith("http")


async def test_events_since(gateway: StripeGateway) -> None:
    start = datetime.now(UTC) - timedelta(minutes=1)
    await a_customer(gateway, "one")
    (first,) = await gateway.list_events(created_from=start)
    assert first["type"] == "customer.created"
    await a_customer(gateway, "two")
    await a_customer(gateway, "three")
    everything = await gateway.list_events(created_from=start)
    since = await gateway.list_events(created_from=start, after_event_id=first["id"], types=["customer.created"])
    assert [event["id"] for event in everything] == [first["id"], *(event["id"] for event in since)]
    assert await gateway.list_events(created_from=start + timedelta(days=1)) == []


async def test_customers_come_in_pages(gateway: StripeGateway) -> None:
    for number in range(3):
        await a_customer(gateway, str(number))
    pages = [page async for page in gateway.iterate_customers()]
    assert [len(page) for page in pages] == [3]


async def test_usage_is_reported_under_its_identifier(gateway: StripeGateway, sandbox: SandboxServer) -> None:
    stripe_customer_id = await a_customer(gateway)
    with pytest.raises(StripeFailure) as caught:
        await gateway.metering.send(
            event_name="calls",
            stripe_customer_id=stripe_customer_id,
            value="3",
            identifier="usage_1",
            occurred_at=datetime.now(UTC),
        )
    assert caught.value.is_final
    assert sandbox.control("GET", "requests")["data"][-1]["idempotency_key"] == "usage_1"
