"""The edge of the stand-in: keys, forms, idempotency, pagination, expansion, faults and the request log."""

from typing import Any

import anyio
import httpx
import pytest
import stripe

from tests.sandbox.shop import Inbox, open_shop, subscribe
from tests.sandbox_server import SandboxServer, running_sandbox


def _http(sandbox: SandboxServer, key: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {sandbox.secret_key if key is None else key}"}
    return httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False)


def test_only_the_configured_key_opens(sandbox: SandboxServer) -> None:
    with _http(sandbox, "sk_test_wrong_0123456789abcdef") as http:
        answer = http.get("/v1/account")
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "invalid_request_error")
    assert "sk_test_wrong_0123456789abcdef" not in answer.text
    with httpx.Client(base_url=sandbox.url, trust_env=False) as http:
        assert http.get("/v1/account").status_code == 401
        assert http.get("/v1/account", auth=(sandbox.secret_key, "")).json()["id"] == sandbox.account_id


def test_malformed_requests_are_refused_and_change_nothing(sandbox: SandboxServer) -> None:
    with _http(sandbox) as http:
        for body, status in (
            (b"name=%ff", 400),
            (b"a" * (1024 * 1024 + 1), 413),
            (b"metadata" + b"[a]" * 40 + b"=1", 400),
            (b"name[=1", 400),
            (b"metadata[a]=1&metadata[a][b]=2", 400),
        ):
            answer = http.post(
                "/v1/customers", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
            )
            assert answer.status_code == status, (body[:20], answer.text)
        assert http.post("/v1/customers", json={"name": "x"}).status_code == 400
        assert http.get("/v1/nothing").status_code == 404
        assert "Unrecognized request URL" in http.get("/v1/nothing").json()["error"]["message"]
        assert http.get("/v1/customers").json()["data"] == []


async def test_idempotency_keys_replay_the_first_answer(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    first = await client.v1.customers.create_async({"name": "Acme"}, {"idempotency_key": "k1"})
    second = await client.v1.customers.create_async({"name": "Acme"}, {"idempotency_key": "k1"})
    assert first.id == second.id
    assert second.last_response is not None
    headers = second.last_response.headers
    assert headers is not None
    assert headers["idempotent-replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError) as other:
        await client.v1.customers.create_async({"name": "Globex"}, {"idempotency_key": "k1"})
    assert other.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.products.create_async({"name": "Acme"}, {"idempotency_key": "k1"})
    assert len((await client.v1.customers.list_async()).data) == 1
    sandbox.advance("P1D")
    third = await client.v1.customers.create_async({"name": "Acme"}, {"idempotency_key": "k1"})
    assert third.id != first.id


async def test_refusals_of_parameters_do_not_use_up_a_key(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    misspelt: Any = {"nmae": "x"}
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.customers.create_async(misspelt, {"idempotency_key": "k2"})
    assert (await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k2"})).id


async def test_lists_page_both_ways_and_auto_pagination_sees_everything(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    made = [(await client.v1.customers.create_async({"name": f"c{n}"})).id for n in range(25)]
    listed = [c.id async for c in (await client.v1.customers.list_async({"limit": 10})).auto_paging_iter()]
    assert listed == made[::-1]
    assert [c.id for c in client.v1.customers.list({"limit": 7}).auto_paging_iter()] == made[::-1]
    page = await client.v1.customers.list_async({"limit": 5, "ending_before": made[5]})
    assert [c.id for c in page.data] == made[10:5:-1]
    assert page.has_more
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.customers.list_async({"limit": 101})
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.customers.list_async({"starting_after": "cus_nope"})


async def test_embedded_lists_stop_at_ten(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    product = await shop.client.v1.products.create_async({"name": "Add-on"})
    prices = [
        (
            await shop.client.v1.prices.create_async(
                {
                    "product": product.id,
                    "currency": "usd",
                    "unit_amount": 100 + n,
                    "recurring": {"interval": "month"},
                }
            )
        ).id
        for n in range(12)
    ]
    subscription = await subscribe(shop, *prices)
    items = subscription["items"]
    assert (len(items.data), items.has_more) == (10, True)
    everything = await shop.client.v1.subscription_items.list_async({"subscription": subscription.id, "limit": 100})
    assert len(everything.data) == 12


async def test_expansion_follows_paths_and_refuses_the_rest(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(
        shop, shop.pro, expand=["customer", "latest_invoice.confirmation_secret", "items.data.price.product"]
    )
    assert isinstance(subscription.customer, stripe.Customer)
    assert isinstance(subscription["items"].data[0].price.product, stripe.Product)
    listed = await shop.client.v1.subscriptions.list_async({"expand": ["data.latest_invoice"]})
    assert isinstance(listed.data[0].latest_invoice, stripe.Invoice)
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        await shop.client.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["status_nope"]})
    price = await shop.client.v1.prices.retrieve_async(shop.pro, {"expand": ["currency_options"]})
    assert price.currency_options is not None
    assert price.currency_options["eur"].unit_amount == 4800
    assert not hasattr(await shop.client.v1.prices.retrieve_async(shop.pro), "currency_options")


async def test_search_by_metadata_and_email(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    wanted = await client.v1.customers.create_async({"email": "a@b.test", "metadata": {"company": "comp_1"}})
    await client.v1.customers.create_async({"email": "c@d.test", "metadata": {"company": "comp_2"}})
    for query in ("metadata['company']:'comp_1'", "email:'a@b.test' AND metadata['company']:'comp_1'"):
        found = await client.v1.customers.search_async({"query": query})
        assert [c.id for c in found.data] == [wanted.id]


async def test_a_call_fails_before_it_applied(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    sandbox.control("POST", "faults", {"fault": "fail_call", "method": "POST", "path": "/v1/customers"})
    with pytest.raises(stripe.APIError):
        await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "f1"})
    assert (await client.v1.customers.list_async()).data == []
    assert (await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "f1"})).id


async def test_a_call_fails_after_it_applied_and_the_failure_replays(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    sandbox.control("POST", "faults", {"fault": "fail_call", "when": "after", "path": "/v1/customers"})
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failed:
            await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "f2"})
        assert failed.value.http_status == 500
    assert len((await client.v1.customers.list_async()).data) == 1


async def test_lock_timeouts_and_lost_answers(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    sandbox.control("POST", "faults", {"fault": "rate_limit", "count": 2, "path": "/v1/customers*"})
    for _ in range(2):
        with pytest.raises(stripe.RateLimitError) as busy:
            await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "f3"})
        assert busy.value.http_status == 429
        assert '"lock_timeout"' in str(busy.value.http_body)
    sandbox.control("POST", "faults", {"fault": "timeout", "when": "after", "seconds": 1, "path": "/v1/customers"})
    with _http(sandbox) as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/customers", data={"name": "x"}, headers={"Idempotency-Key": "f3"}, timeout=0.2)
    await anyio.sleep(1.2)
    made = await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "f3"})
    assert [c.id for c in (await client.v1.customers.list_async()).data] == [made.id]


async def test_faults_are_checked(sandbox: SandboxServer) -> None:
    for body in ({}, {"fault": "nope"}, {"fault": "timeout", "seconds": -1}, {"fault": "fail_call", "x": 1}):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            sandbox.control("POST", "faults", body)
        assert refused.value.response.status_code == 400


async def test_the_request_log_names_what_had_no_effect(sandbox: SandboxServer) -> None:
    client = sandbox.client()
    await client.v1.customers.create_async(
        {"name": "x", "tax": {"validate_location": "deferred"}}, {"idempotency_key": "log"}
    )
    entry = sandbox.control("GET", "requests")["data"][-1]
    assert (entry["method"], entry["path"], entry["idempotency_key"]) == ("POST", "/v1/customers", "log")
    assert (entry["status"], entry["params"]["name"], entry["ignored"]) == (200, "x", ["tax"])


async def test_the_clock_takes_durations_and_instants_only_forward(sandbox: SandboxServer) -> None:
    before = sandbox.control("GET", "clock")["now"]
    assert sandbox.advance("P1DT2H") > before
    for body in ({"advance": "soon"}, {"to": "2020-01-01T00:00:00Z"}, {"to": "2027-01-01"}, {}, {"advance": "P99Y"}):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            sandbox.control("POST", "clock", body)
        assert refused.value.response.status_code == 400


def test_controls_refuse_what_a_foreign_page_could_send(sandbox: SandboxServer) -> None:
    with httpx.Client(base_url=sandbox.url, trust_env=False) as http:
        assert http.post("/_sandbox/clock", content='{"advance": "P1D"}').status_code == 415
        assert http.post("/_sandbox/reset", content="x=1", headers={"Content-Type": "text/plain"}).status_code == 415


def test_an_unreachable_clock_moves_nothing() -> None:
    with running_sandbox(clock_url="http://127.0.0.1:9/v1/environment/clock", clock_key="k") as sandbox:
        before = sandbox.control("GET", "clock")["offset_seconds"]
        with pytest.raises(httpx.HTTPStatusError) as refused:
            sandbox.advance("P1M")
        assert refused.value.response.status_code == 502
        assert sandbox.control("GET", "clock")["offset_seconds"] == before


async def test_the_other_sides_clock_moves_first_and_is_told_again_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("sandbox") / "state.json"
    with Inbox("unused") as other:
        settings = {"clock_url": other.url, "clock_key": "key-of-the-clock", "state_path": path}
        with running_sandbox(**settings) as sandbox:
            sandbox.advance("P1D")
            assert other.moves[0][0] == "Bearer key-of-the-clock"
            assert abs(other.moves[0][1]["offset_seconds"] - 86_400) <= 1
            sandbox.advance("P1D")
            assert abs(other.moves[1][1]["offset_seconds"] - 2 * 86_400) <= 1
        with running_sandbox(**settings):
            for _ in range(100):
                if len(other.moves) == 3:
                    break
                await anyio.sleep(0.02)
            assert abs(other.moves[2][1]["offset_seconds"] - 2 * 86_400) <= 1


async def test_state_survives_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("sandbox") / "state.json"
    with running_sandbox(state_path=path) as sandbox:
        shop = await open_shop(sandbox)
        subscription = await subscribe(shop, shop.pro)
        sandbox.advance("P10D")
        moved = sandbox.control("GET", "clock")["offset_seconds"]
    with running_sandbox(state_path=path) as again:
        assert again.control("GET", "clock")["offset_seconds"] == moved
        client = again.client()
        assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"
        again.advance("P30D")
        invoices = await client.v1.invoices.list_async({"subscription": subscription.id})
        assert len(invoices.data) == 2


async def test_filters_by_an_instant_leave_out_what_has_none(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    await shop.client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    later = subscription.created + 10**9
    assert (await shop.client.v1.invoices.list_async({"due_date": {"lt": later}})).data == []
    assert (await shop.client.v1.subscription_schedules.list_async({"canceled_at": {"lt": later}})).data == []
    assert len((await shop.client.v1.subscription_schedules.list_async({"created": {"lt": later}})).data) == 1


async def test_a_search_counts_nothing_unless_asked(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    found = await shop.client.v1.customers.search_async({"query": "name:'Acme'"})
    assert [one.id for one in found.data] == [shop.customer]
    assert "total_count" not in found.to_dict()
