"""Proves that an idempotency key works once: the same answer again, a conflict, one effect of many tries."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from plangate.deployment import Deployment
from plangate.store.idempotency import IdempotencyRow, begin_request
from tests.web.asked import problem
from tests.web.conftest import Front


def test_the_same_idempotency_key_and_body_answer_as_before(front: Front) -> None:
    path, key = f"/v1/companies/{front.acme}/overrides", {"Idempotency-Key": "grant 1"}
    body = {"feature": "exports", "mode": "add", "value": 5, "note": "n"}
    first = front.http.post(path, json=body, headers=key)
    again = front.http.post(path, json=body, headers=key)
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert (again.headers["etag"], again.headers["idempotent-replayed"]) == (first.headers["etag"], "true")
    assert "idempotent-replayed" not in first.headers
    other = front.http.post(path, json={**body, "value": 6}, headers=key)
    assert (other.status_code, problem(other)["code"]) == (409, "idempotency_conflict")
    elsewhere = front.other.post(f"/v1/companies/{front.rival}/overrides", json=body, headers=key)
    assert elsewhere.status_code == 201
    assert len(front.http.get(path).json()["data"]) == 1


def test_a_refused_request_does_not_use_up_its_key(front: Front) -> None:
    path, key = f"/v1/companies/{front.acme}/overrides", {"Idempotency-Key": "k"}
    body = {"feature": "nope", "mode": "add", "value": 5, "note": "n"}
    assert front.http.post(path, json=body, headers=key).status_code == 422
    assert front.http.post(path, json={**body, "feature": "exports"}, headers=key).status_code == 201


@pytest.mark.parametrize("text", ["x" * 256, "caf\u00e9".encode()])
def test_a_key_that_is_none_is_a_400(front: Front, text: str | bytes) -> None:
    path = f"/v1/companies/{front.acme}/overrides"
    body = {"feature": "exports", "mode": "add", "value": 5, "note": "n"}
    answer = front.http.post(
        path, json=body, headers=[(b"Idempotency-Key", text if isinstance(text, bytes) else text.encode())]
    )
    assert (answer.status_code, problem(answer)["code"]) == (400, "malformed")


def test_a_first_try_still_under_way_is_a_409_and_an_abandoned_one_is_taken_over(front: Front) -> None:
    import hashlib

    path = f"/v1/companies/{front.acme}/overrides"
    template = "/v1/companies/{company_id}/overrides"
    body = b'{"feature": "exports", "mode": "add", "value": 5, "note": "n"}'

    async def begun(deployment: Deployment, key: str, age: timedelta) -> None:
        env = deployment.named("default")
        async with env.writing() as session:
            row = IdempotencyRow(
                environment_id=env.id,
                scope=f"POST {template}",
                key_hash=hashlib.sha256(key.encode()).hexdigest(),
                body_hash=hashlib.sha256(f"{template}/{front.acme}".encode() + b"\n" + body).hexdigest(),
                created_at=session.now - age,
            )
            assert await begin_request(session, row) is None

    front.server.run(lambda deployment: begun(deployment, "young", timedelta(0)))
    front.server.run(lambda deployment: begun(deployment, "old", timedelta(minutes=5)))
    headers = {"Content-Type": "application/json"}
    waiting = front.http.post(path, content=body, headers={**headers, "Idempotency-Key": "young"})
    assert (waiting.status_code, waiting.headers["retry-after"]) == (409, "1")
    assert problem(waiting)["code"] == "request_in_progress"
    other = front.http.post(path, content=body + b" ", headers={**headers, "Idempotency-Key": "young"})
    assert problem(other)["code"] == "idempotency_conflict"
    assert front.http.post(path, content=body, headers={**headers, "Idempotency-Key": "old"}).status_code == 201


def test_one_of_many_simultaneous_requests_with_one_key_takes_effect(front: Front) -> None:
    path = f"/v1/companies/{front.acme}/overrides"
    body = {"feature": "exports", "mode": "add", "value": 5, "note": "n"}

    def send(_number: int) -> int:
        return front.http.post(path, json=body, headers={"Idempotency-Key": "once"}).status_code

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(send, range(16)))
    assert set(found) <= {201, 409}
    assert 201 in found
    assert len(front.http.get(path).json()["data"]) == 1
