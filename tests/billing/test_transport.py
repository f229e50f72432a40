"""A call to Stripe ends within its budget, repeats only with its own key, and every answer means one thing."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import respx

from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.gateway import StripeGateway, reference
from plangate.billing.transport import within
from plangate.errors import Code

BASE = "http://stripe.test"
KEY = "chg_1:update"


@pytest.fixture
async def gateway() -> AsyncIterator[StripeGateway]:
    gateway = StripeGateway("sk_test_secret", api_base=BASE, account="acct_1", timeout_seconds=1)
    yield gateway
    await gateway.aclose()


def an_error(status: int, *, headers: dict[str, str] | None = None, **members: object) -> httpx.Response:
    return httpx.Response(
        status, json={"error": {"type": "api_error", "message": "Said so.", **members}}, headers=headers
    )


SUBSCRIPTION = {"id": "sub_1", "object": "subscription", "items": {"object": "list", "data": [], "has_more": False}}


@pytest.mark.parametrize(
    ("answer", "kind", "code", "is_final"),
    [
        (an_error(404, type="invalid_request_error", code="resource_missing"), "absent", Code.STRIPE_REFUSED, True),
        (
            an_error(402, type="card_error", code="card_declined", decline_code="generic_decline"),
            "declined",
            Code.PAYMENT_FAILED,
            True,
        ),
        (
            an_error(402, type="card_error", code="subscription_payment_intent_requires_action"),
            "needs_action",
            Code.ACTION_REQUIRED,
            True,
        ),
        (
            an_error(402, type="card_error", code="card_declined", decline_code="authentication_required"),
            "needs_action",
            Code.ACTION_REQUIRED,
            True,
        ),
        (an_error(400, type="invalid_request_error", code="parameter_unknown"), "refused", Code.STRIPE_REFUSED, True),
        (an_error(400, type="idempotency_error"), "key_reused", Code.STRIPE_REFUSED, True),
        (an_error(404, type="invalid_request_error"), "refused", Code.STRIPE_REFUSED, True),
        (
            an_error(401, type="invalid_request_error", message="Invalid API Key: sk_test_s***t"),
            "unauthorised",
            Code.UNAVAILABLE,
            False,
        ),
        (an_error(403, type="invalid_request_error"), "unauthorised", Code.UNAVAILABLE, False),
        (an_error(429, code="lock_timeout"), "locked", Code.STRIPE_BUSY, False),
        (an_error(409, type="idempotency_error", code="idempotency_key_in_use"), "locked", Code.STRIPE_BUSY, False),
        (an_error(429, code="rate_limit"), "busy", Code.STRIPE_BUSY, False),
        (an_error(500), "uncertain", Code.STRIPE_BUSY, False),
        (an_error(503), "uncertain", Code.STRIPE_BUSY, False),
        (httpx.Response(502, text="<html>bad gateway</html>"), "uncertain", Code.STRIPE_BUSY, False),
        (httpx.Response(200, text="not json"), "uncertain", Code.STRIPE_BUSY, False),
        (httpx.Response(200, text=""), "uncertain", Code.STRIPE_BUSY, False),
        (httpx.Response(200, text="[" * 100_000), "uncertain", Code.STRIPE_BUSY, False),
        (httpx.Response(200, json=[SUBSCRIPTION]), "uncertain", Code.STRIPE_BUSY, False),
        (httpx.Response(200, json={"status": "ok"}), "uncertain", Code.STRIPE_BUSY, False),
        (httpx.Response(418, json={"error": {"type": "teapot"}}), "uncertain", Code.STRIPE_BUSY, False),
    ],
)
async def test_every_answer_means_one_thing(
    gateway: StripeGateway, answer: httpx.Response, kind: str, code: Code, is_final: bool
) -> None:
    with respx.mock:
        respx.post(f"{BASE}/v1/subscriptions/sub_1").mock(return_value=answer)
        with pytest.raises(StripeFailure) as caught:
            await gateway.update_subscription("sub_1", {}, idempotency_key=KEY)
    assert (caught.value.kind, caught.value.code, caught.value.is_final) == (FailureKind(kind), code, is_final)
    assert ("Retry-After" in caught.value.headers) is (code is Code.STRIPE_BUSY)
    assert "sk_test" not in caught.value.detail


async def test_an_object_comes_as_stripe_wrote_it(gateway: StripeGateway) -> None:
    """The package would turn decimals into numbers, and leave out what it does not know."""
    told = {**SUBSCRIPTION, "unit_amount_decimal": "0.10", "from_a_later_version": {"deep": [None, 1.5]}}
    with respx.mock:
        respx.get(url__startswith=f"{BASE}/v1/subscriptions/sub_1").mock(return_value=httpx.Response(200, json=told))
        assert await gateway.fetch_subscription("sub_1") == told


async def test_absent_is_none_only_when_looking(gateway: StripeGateway) -> None:
    with respx.mock:
        respx.get(url__startswith=f"{BASE}/v1/subscriptions/sub_1").mock(
            return_value=an_error(404, type="invalid_request_error", code="resource_missing")
        )
        assert await gateway.fetch_subscription("sub_1") is None


async def test_s30_lock_timeout_is_retried_with_the_same_key(gateway: StripeGateway) -> None:
    with respx.mock:
        route = respx.post(f"{BASE}/v1/subscriptions/sub_1").mock(
            side_effect=[
                an_error(429, code="lock_timeout"),
                httpx.ConnectError("reset"),
                httpx.Response(200, json=SUBSCRIPTION),
            ]
        )
        updated = await gateway.update_subscription("sub_1", {"items": []}, idempotency_key=KEY)
        assert updated["id"] == "sub_1"
        assert [call.request.headers["Idempotency-Key"] for call in route.calls] == [KEY] * 3
        assert {call.request.headers["Stripe-Account"] for call in route.calls} == {"acct_1"}
        assert {call.request.headers["Stripe-Version"] for call in route.calls} == {"2026-10-28.endive"}


async def test_s30_at_most_three_tries(gateway: StripeGateway) -> None:
    with respx.mock:
        route = respx.post(f"{BASE}/v1/subscriptions/sub_1").mock(return_value=an_error(429, code="lock_timeout"))
        with pytest.raises(StripeFailure) as caught:
            await gateway.update_subscription("sub_1", {}, idempotency_key=KEY)
        assert route.call_count == 3
    assert caught.value.status == 503


@pytest.mark.parametrize(
    "answer",
    [
        an_error(400, type="invalid_request_error"),
        an_error(402, type="card_error", code="card_declined"),
        an_error(429, code="rate_limit"),
        an_error(500),
        an_error(502, headers={"Idempotent-Replayed": "true"}),
    ],
)
async def test_what_a_retry_cannot_mend_is_asked_once(gateway: StripeGateway, answer: httpx.Response) -> None:
    with respx.mock:
        route = respx.post(f"{BASE}/v1/subscriptions/sub_1").mock(return_value=answer)
        with pytest.raises(StripeFailure) as caught:
            await gateway.update_subscription("sub_1", {}, idempotency_key=KEY)
        assert route.call_count == 1
    assert caught.value.was_replayed is ("Idempotent-Replayed" in answer.headers)


async def stalled(_request: httpx.Request) -> httpx.Response:
    import anyio

    await anyio.sleep(30)
    return httpx.Response(200, json=SUBSCRIPTION)


async def test_a_call_never_outlasts_its_budget(gateway: StripeGateway) -> None:
    with respx.mock:
        respx.post(f"{BASE}/v1/subscriptions/sub_1").mock(side_effect=stalled)
        began = time.monotonic()
        with pytest.raises(StripeFailure) as caught:
            await gateway.update_subscription("sub_1", {}, idempotency_key=KEY)
    assert caught.value.kind is FailureKind.UNCERTAIN
    assert time.monotonic() - began < 2


async def test_calls_share_a_deadline(gateway: StripeGateway) -> None:
    with respx.mock:
        respx.post(f"{BASE}/v1/subscriptions/sub_1").mock(side_effect=stalled)
        began = time.monotonic()
        with within(0.3):
            for _ in range(3):
                with pytest.raises(StripeFailure):
                    await gateway.update_subscription("sub_1", {}, idempotency_key=KEY)
    assert time.monotonic() - began < 0.8


def a_page(names: list[str], *, has_more: bool) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "event"} for name in names], "has_more": has_more}


async def test_events_come_oldest_first_from_either_start(gateway: StripeGateway) -> None:
    from datetime import UTC, datetime

    newest_first = [f"evt_{number}" for number in range(6, 0, -1)]

    def answered(request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        if "ending_before" in asked:
            # Stripe gives the entries just before the cursor, still newest first.
            earlier = newest_first[: newest_first.index(asked["ending_before"])]
            return httpx.Response(200, json=a_page(earlier[-2:], has_more=len(earlier) > 2))
        rest = (
            newest_first[newest_first.index(asked["starting_after"]) + 1 :]
            if "starting_after" in asked
            else newest_first
        )
        return httpx.Response(200, json=a_page(rest[:2], has_more=len(rest) > 2))

    with respx.mock:
        respx.get(url__startswith=f"{BASE}/v1/events").mock(side_effect=answered)
        start = datetime(2026, 11, 1, tzinfo=UTC)
        everything = await gateway.list_events(created_from=start)
        since = await gateway.list_events(created_from=start, after_event_id="evt_1")
    assert [event["id"] for event in everything] == [f"evt_{number}" for number in range(1, 7)]
    assert [event["id"] for event in since] == [f"evt_{number}" for number in range(2, 7)]


def test_references() -> None:
    assert reference("pm_1") == "pm_1"
    assert reference({"id": "pm_1", "object": "payment_method"}) == "pm_1"
    assert reference(None) is None
