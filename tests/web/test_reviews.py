"""Refunds and disputes, and failed webhooks, over HTTP: listed, decided, tried again, each environment its own."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from plangate.deployment import Deployment
from plangate.ids import new_id
from plangate.store.inbox import InboxState, inbox
from plangate.store.reviews import ReviewRow
from plangate.sync import receive
from tests.web.conftest import Front


def opened(front: Front, *, environment: str = "default", subscription: str | None = "sub_1", number: int = 0) -> str:
    """A review of a refund, as the worker would have made it; its id."""

    async def made(deployment: Deployment) -> str:
        env = deployment.named(environment)
        row = ReviewRow(
            id=new_id("rev"),
            environment_id=env.id,
            company_id=front.acme if environment == "default" else front.rival,
            kind="refund",
            stripe_object_id=f"ch_{environment}_{number}",
            stripe_charge_id=f"ch_{environment}_{number}",
            stripe_subscription_id=subscription,
            stripe_status="refunded",
            amount_minor=4_900,
            currency="usd",
            is_whole=True,
            opened_at=datetime(2026, 11, 20, tzinfo=UTC),
        )
        async with env.writing() as session:
            await session.add(row)
        return row.id

    return front.server.run(made)


def test_reviews_are_listed_page_by_page_and_decided(front: Front) -> None:
    names = [opened(front, number=number) for number in range(3)]
    first = front.http.get("/v1/reviews", params={"limit": 2}).json()
    assert [one["id"] for one in first["data"]] == names[:0:-1]
    rest = front.http.get("/v1/reviews", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([one["id"] for one in rest["data"]], rest["next_cursor"]) == (names[:1], None)
    assert front.http.get("/v1/reviews", params={"company": "comp_none"}).json()["data"] == []
    decided = front.http.post(f"/v1/reviews/{names[0]}/resolve", json={"access": "revoke", "note": "Fraud"})
    assert decided.status_code == 200
    shown = decided.json()
    assert (shown["state"], shown["outcome"], shown["access"], shown["note"]) == (
        "resolved",
        "revoke",
        "withheld",
        "Fraud",
    )
    assert shown["resolved_by"]["kind"] == "api_key"
    assert "Plangate-Version" in decided.headers
    assert len(front.http.get("/v1/reviews", params={"state": "open"}).json()["data"]) == 2
    assert [one["id"] for one in front.http.get("/v1/reviews", params={"state": "resolved"}).json()["data"]] == names[
        :1
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"access": "keep"},
        {"access": "keep", "note": ""},
        {"access": "perhaps", "note": "x"},
        {"access": "keep", "note": "x", "more": 1},
    ],
)
def test_a_decision_that_says_too_little_or_too_much_is_refused(front: Front, body: dict[str, Any]) -> None:
    assert front.http.post(f"/v1/reviews/{opened(front)}/resolve", json=body).status_code == 422


def test_what_is_no_subscription_cannot_be_revoked(front: Front) -> None:
    name = opened(front, subscription=None)
    refused = front.http.post(f"/v1/reviews/{name}/resolve", json={"access": "revoke", "note": "Fraud"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/access")
    assert front.http.post(f"/v1/reviews/{name}/resolve", json={"access": "keep", "note": "Fine"}).status_code == 200


def test_another_environments_review_looks_like_none(front: Front) -> None:
    name = opened(front, environment="other")
    body = {"access": "keep", "note": "Mine?"}
    theirs = front.http.post(f"/v1/reviews/{name}/resolve", json=body)
    none = front.http.post("/v1/reviews/rev_00000000000000000000000000/resolve", json=body)
    assert (theirs.status_code, theirs.json()["detail"]) == (none.status_code, none.json()["detail"])
    assert front.http.get("/v1/reviews").json()["data"] == []


def test_failed_webhooks_are_listed_with_their_reason_and_tried_again(front: Front) -> None:
    async def fail(deployment: Deployment) -> None:
        env = deployment.named("default")
        for name in ("evt_1", "evt_2"):
            subject = {"id": "sub_1", "object": "subscription", "customer": "cus_acme"}
            told = {"id": name, "type": "customer.subscription.updated", "created": 1, "livemode": False}
            await receive(env, {**told, "data": {"object": subject}})
        failed = {"state": InboxState.FAILED.value, "attempts": 15, "last_error": "stripe_busy: No answer."}
        async with env.writing() as session:
            await session.run(update(inbox).where(inbox.c.stripe_event_id.startswith("evt_")).values(failed))

    front.server.run(fail)
    listed = front.http.get("/v1/inbox/failed").json()
    assert {one["event"]: one["reason"] for one in listed["data"]} == dict.fromkeys(
        ("evt_1", "evt_2"), "stripe_busy: No answer."
    )
    assert listed["counts"]["failed"] == 2
    assert front.other.get("/v1/inbox/failed").json()["data"] == []
    assert front.other.post("/v1/inbox/retry", json={}).json() == {"retried": 0}
    assert front.http.post("/v1/inbox/retry", json={"events": ["evt_1", "evt_none"]}).json() == {"retried": 1}
    assert front.http.post("/v1/inbox/retry", json={}).json() == {"retried": 1}
    assert front.http.get("/v1/inbox/failed").json()["data"] == []
    assert front.http.post("/v1/inbox/retry", json={"events": [""]}).status_code == 422
