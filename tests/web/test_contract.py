"""What clients are promised beside the answers: etags, lists, events one by one, request ids, clocks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.web.tokens import read_component_token
from tests.conftest import SECRET_KEY
from tests.web.asked import grant, holdings, problem
from tests.web.conftest import Front

ACME = {"company": {"id": "acme"}}


def test_an_edit_needs_the_etag_that_was_read(front: Front) -> None:
    granted = grant(front)
    path = f"/v1/overrides/{granted['id']}"
    assert problem(front.http.patch(path, json={"value": 6}))["code"] == "etag_required"
    edited = front.http.patch(path, json={"value": 6}, headers={"If-Match": f'"{granted["etag"]}"'})
    assert (edited.status_code, edited.json()["value"]) == (200, 6)
    for stale in (f'"{granted["etag"]}"', granted["etag"], '"nonsense"', '"', "x y", "x" * 300):
        answer = front.http.patch(path, json={"value": 7}, headers={"If-Match": stale})
        assert (answer.status_code, problem(answer)["code"]) == (412, "etag_mismatch"), stale
    weak = front.http.patch(path, json={"value": 8}, headers={"If-Match": f"W/{edited.headers['etag']}"})
    assert weak.json()["value"] == 8
    assert front.http.request("DELETE", path, json={"note": "gone"}).json()["state"] == "revoked"


def test_lists_of_a_company_are_paged(front: Front) -> None:
    path = f"/v1/companies/{front.acme}/overrides"
    for mode, value in (("set", 7), ("add", 1), ("deny", None)):
        grant(front, mode=mode, value=value)
    whole = front.http.get(path).json()
    assert ([one["mode"] for one in whole["data"]], whole["next_cursor"]) == (["deny", "add", "set"], None)
    first = front.http.get(path, params={"limit": 2}).json()
    second = front.http.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert (first["data"] + second["data"], second["next_cursor"]) == (whole["data"], None)
    changes = f"/v1/companies/{front.acme}/plan-changes"
    assert front.http.get(changes, params={"limit": 1}).json() == {"data": [], "next_cursor": None}
    for address in (path, changes):
        for query in ({"cursor": "nonsense"}, {"limit": 0}, {"limit": 101}, {"before": "x"}):
            found = problem(front.http.get(address, params=query))
            assert (found["status"], found["errors"][0]["pointer"]) == (422, "?" + next(iter(query)))


def test_events_are_answered_one_by_one_in_order(front: Front) -> None:
    late = (wall_now() - timedelta(days=36)).isoformat()
    ahead = (wall_now() + timedelta(minutes=6)).isoformat()
    told: list[dict[str, Any]] = [
        {"type": "track", "event": "export", **ACME, "idempotency_key": "a"},
        {"type": "track", "event": "export", **ACME, "idempotency_key": "a"},
        {"type": "track", "event": "export", **ACME, "idempotency_key": "a", "quantity": 2},
        {"type": "track", "event": "export", **ACME, "occurred_at": late},
        {"type": "track", "event": "export", **ACME, "occurred_at": ahead},
        {"type": "track", "event": "export", "company": {"id": "later"}, "quantity": 4},
        {"type": "identify", "company": {"id": "later"}, "name": "Later"},
        {"type": "identify", "company": {"id": "later"}, "user": {"id": "ada"}, "name": "Ada"},
        {"type": "identify"},
        {"type": "track", "event": "export", **ACME, "quantity": -1, "traits": {"seats": 2}},
    ]
    answer = front.http.post("/v1/events", json=told)
    results = answer.json()["results"]
    assert [(one["status"], one.get("code")) for one in results] == [
        ("accepted", None),
        ("duplicate", None),
        ("refused", "idempotency_conflict"),
        ("refused", "timestamp_too_old"),
        ("refused", "timestamp_in_future"),
        ("unattributed", None),
        ("accepted", None),
        ("accepted", None),
        ("refused", "invalid"),
        ("accepted", None),
    ]
    used = front.http.post("/v1/check", json={"company": {"id": "later"}, "feature": "exports"}).json()["used"]
    assert used == 4
    assert front.http.get(f"/v1/companies/{front.acme}").json()["traits"] == {"seats": 2}


def test_malformed_events_of_a_list_are_refused_alone_with_a_pointer_and_the_others_count(front: Front) -> None:
    good = {"type": "track", "event": "export", **ACME}
    bad = [{**good, "quantity": "1"}, {**good, "bogus": 1}, {"type": "other"}, 5, {**good, "quantity": 2**63}]
    answer = front.http.post("/v1/events", json=[good, *bad, good])
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [one["status"] for one in results] == ["accepted", *["refused"] * 5, "accepted"]
    assert [one["code"] for one in results[1:-1]] == ["invalid", "unknown_field", "invalid", "invalid", "invalid"]
    assert [one["detail"].partition(":")[0] for one in results[1:-1]] == [
        "/1/quantity",
        "/2/bogus",
        "/3/type",
        "/4",
        "/5/quantity",
    ]
    assert front.http.post("/v1/check", json={**ACME, "feature": "exports"}).json()["used"] == 2
    before = holdings(front)
    assert problem(front.http.post("/v1/events", json=bad[0]))["errors"][0]["pointer"] == "/quantity"
    for too_many in ([*bad, *[good] * 1_000], [good] * 1_001):
        refused = front.http.post("/v1/events", json=too_many)
        assert (refused.status_code, problem(refused)["code"]) == (413, "too_large")
    cut = front.http.post("/v1/events", content=b'[{"type": "track"}, 5', headers={"Content-Type": "application/json"})
    assert (cut.status_code, problem(cut)["code"]) == (400, "malformed")
    assert front.http.post("/v1/events", json=[]).json() == {"results": []}
    assert holdings(front) == before


def test_consume_counts_once_and_never_beyond_the_limit(front: Front) -> None:
    body = {**ACME, "feature": "exports"}

    def send(number: int) -> httpx.Response:
        return front.http.post("/v1/consume", json={**body, "idempotency_key": f"k{number % 20}"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(40)))
    assert {answer.status_code for answer in answers} == {200}
    counted = {answer.request.content for answer in answers if answer.json()["counted"]}
    assert len(counted) == 10
    asked = front.http.post("/v1/check", json=body).json()
    assert (asked["used"], asked["allowed"], asked["reason"]) == (10, False, "limit_reached")


def test_the_past_is_answered_and_the_future_is_refused(front: Front) -> None:
    before = wall_now()
    grant(front, feature="sso", mode="set", value=True)
    then = {**ACME, "feature": "sso", "at": before.isoformat()}
    assert front.http.post("/v1/check", json=then).json()["allowed"] is False
    assert front.http.post("/v1/check", json={**ACME, "feature": "sso"}).json()["allowed"] is True
    ahead = {**then, "at": (wall_now() + timedelta(hours=1)).isoformat()}
    assert problem(front.http.post("/v1/check", json=ahead))["code"] == "timestamp_in_future"
    for at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-20T00:00:00"):
        assert front.http.post("/v1/check", json={**then, "at": at}).status_code == 422
    path = f"/v1/companies/{front.acme}/entitlements"
    answers = front.http.get(path, params={"at": before.isoformat(), "trace": "true"}).json()["data"]
    sso = next(one for one in answers if one["feature"] == "sso")
    assert sso["allowed"] is False
    assert sso["trace"]["steps"]


def test_consume_takes_the_whole_body_of_check(front: Front) -> None:
    at = (wall_now() - timedelta(minutes=1)).isoformat()
    body = {**ACME, "feature": "exports", "quantity": 2, "at": at, "trace": True, "idempotency_key": "t"}
    first = front.http.post("/v1/consume", json=body)
    assert first.status_code == 200, first.text
    assert (first.json()["counted"], first.json()["used"], first.json()["reason"]) == (True, 2, "within_limit")
    assert datetime.fromisoformat(first.json()["at"]) == datetime.fromisoformat(at)
    assert first.json()["trace"]["steps"]
    assert front.http.post("/v1/consume", json=body).json() == first.json()
    same = {**body, "occurred_at": at, "trace": False}
    assert front.http.post("/v1/consume", json=same).json() == {**first.json(), "trace": None}
    refused = front.http.post("/v1/consume", json={**body, "quantity": 99, "idempotency_key": "u"}).json()
    assert (refused["counted"], refused["reason"]) == (False, "limit_reached")
    assert refused["trace"]["steps"]
    other = {**body, "occurred_at": wall_now().isoformat()}
    assert problem(front.http.post("/v1/consume", json=other))["errors"][0]["pointer"] == "/at"


def test_checks_without_names_answer_every_feature_also_for_nobody(front: Front) -> None:
    known = set(front.http.post("/v1/checks", json=ACME).json()["decisions"])
    asked: list[tuple[str, dict[str, Any]]] = [
        ("unknown_company", {"company": {"id": "nobody"}}),
        ("unknown_user", {**ACME, "user": {"id": "nobody"}}),
    ]
    for reason, body in asked:
        for when in ({}, {"at": wall_now().isoformat()}):
            decisions = front.http.post("/v1/checks", json={**body, **when}).json()["decisions"]
            assert set(decisions) == known
            assert {(one["reason"], one["allowed"]) for one in decisions.values()} == {(reason, False)}
    empty = problem(front.http.post("/v1/checks", json={**ACME, "features": []}))
    assert (empty["status"], empty["errors"][0]["pointer"]) == (422, "/features")


def test_what_is_unknown_is_a_reason_and_never_grants(front: Front) -> None:
    reasons = {
        "unknown_feature": {**ACME, "feature": "nope"},
        "unknown_company": {"company": {"id": "nobody"}, "feature": "exports"},
        "unknown_user": {**ACME, "feature": "exports", "user": {"id": "nobody"}},
    }
    for reason, body in reasons.items():
        decision = front.http.post("/v1/check", json=body).json()
        assert (decision["allowed"], decision["reason"]) == (False, reason)


def test_keys_of_two_companies_are_a_409_naming_both(front: Front) -> None:
    other = front.http.put("/v1/companies", json={"keys": {"id": "two", "crm": "2"}}).json()["id"]
    for answer in (
        front.http.put("/v1/companies", json={"keys": {"id": "acme", "crm": "2"}}),
        front.http.post("/v1/check", json={"company": {"id": "acme", "crm": "2"}, "feature": "exports"}),
    ):
        found = problem(answer)
        assert (found["status"], found["code"], found["companies"]) == (
            409,
            "key_conflict",
            sorted([front.acme, other]),
        )


def test_lists_go_page_by_page(front: Front) -> None:
    for number in range(5):
        assert front.http.put("/v1/companies", json={"keys": {"id": f"c{number}"}}).status_code == 201
    assert front.http.put("/v1/companies", json={"keys": {"id": "c1"}, "name": "One"}).status_code == 200
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        page = front.http.get("/v1/companies", params=params).json()
        assert len(page["data"]) <= 2
        seen += [one["keys"]["id"] for one in page["data"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert sorted(seen) == ["acme", "c0", "c1", "c2", "c3", "c4"]


def test_a_component_token_speaks_for_the_company(front: Front) -> None:
    front.http.put("/v1/users", json={"keys": {"id": "ada"}, "companies": [{"id": "acme"}]})
    body = {**ACME, "user": {"id": "ada"}, "scopes": ["view", "pay"], "origins": ["https://a.test"], "ttl_seconds": 60}
    answer = front.http.post("/v1/component-tokens", json=body)
    assert answer.status_code == 201
    token = read_component_token([SECRET_KEY], answer.json()["token"], now=wall_now())
    assert (token.company, token.origins) == (front.acme, ("https://a.test",))
    assert sorted(token.scopes) == ["pay", "view"]
    assert token.user is not None
    assert token.expires_at - wall_now() <= timedelta(seconds=60)
    wrong: list[dict[str, Any]] = [
        {"ttl_seconds": 901},
        {"ttl_seconds": 0},
        {"scopes": []},
        {"scopes": ["admin"]},
        {"origins": ["*"]},
    ]
    for change in wrong:
        assert front.http.post("/v1/component-tokens", json={**body, **change}).status_code == 422, change
    assert front.http.post("/v1/component-tokens", json={**body, "user": {"id": "eve"}}).status_code == 404


def test_the_test_clock_moves_business_time(front: Front) -> None:
    for number in range(10):
        front.http.post("/v1/consume", json={**ACME, "feature": "exports", "idempotency_key": f"k{number}"})
    answer = front.http.put("/v1/environment/clock", json={"offset_seconds": 32 * 86_400})
    assert answer.status_code == 200
    moved = datetime.fromisoformat(answer.json()["now"])
    assert abs(moved - datetime.now(UTC) - timedelta(days=32)) < timedelta(seconds=5)
    assert front.http.post("/v1/check", json={**ACME, "feature": "exports"}).json()["used"] == 0
    theirs = front.other.post("/v1/check", json={"company": {"id": "rival"}, "feature": "exports"}).json()["at"]
    assert abs(datetime.fromisoformat(theirs) - datetime.now(UTC)) < timedelta(seconds=5)
    for wrong in (True, 1.5, "5", 10**12, None):
        assert front.http.put("/v1/environment/clock", json={"offset_seconds": wrong}).status_code == 422


def test_request_ids_and_headers_are_on_every_answer(front: Front) -> None:
    calls: list[Callable[[dict[str, str]], httpx.Response]] = [
        lambda headers: front.http.post("/v1/check", json={**ACME, "feature": "sso"}, headers=headers),
        lambda headers: front.http.get("/v1/catalog", headers=headers),
        lambda headers: front.http.get("/nope", headers=headers),
        lambda headers: front.http.get("/embed.js", headers=headers),
    ]
    for call in calls:
        assert call({"X-Request-Id": "my-id.1"}).headers["x-request-id"] == "my-id.1"
        for odd in ("a b", "x" * 129, "<script>"):
            given = call({"X-Request-Id": odd}).headers["x-request-id"]
            assert given.startswith("req_")
        answer = call({})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
    assert front.http.get("/v1/catalog").headers["cache-control"] == "no-store"


def test_the_service_describes_itself(front: Front) -> None:
    with front.server.client() as anybody:
        assert anybody.get("/healthz").json()["status"] == "ok"
        ready = anybody.get("/readyz").json()
        assert (ready["status"], ready["warnings"]) == ("ready", [])
        assert anybody.head("/healthz").status_code == 200
        text = anybody.get("/metrics").text
    assert 'plangate_requests_total{method="GET",route="/readyz",status="200"} 1.0' in text
    assert 'plangate_inbox_events{environment="default",state="pending"} ' in text
    assert "acme" not in text


def test_a_database_that_is_gone_is_a_503_not_a_500(front: Front) -> None:
    front.http.get("/readyz")

    async def gone(deployment: Deployment) -> None:
        await asyncio.sleep(1.1)  # what was known of readiness is forgotten
        for env in deployment.environments.values():
            env.reading = _broken  # type: ignore[method-assign, assignment]

    front.server.run(gone)
    answer = front.http.get("/readyz")
    assert (answer.status_code, problem(answer)["code"]) == (503, "unavailable")


def _broken() -> object:
    raise OSError("the disk went away")


def test_companies_are_merged_and_the_former_id_points_on(front: Front) -> None:
    made = front.http.put("/v1/companies", json={"keys": {"id": "twin"}, "traits": {"region": "eu"}}).json()
    headers = {"Idempotency-Key": "merge-1"}
    body = {"from": {"id": "twin"}}
    merged = front.http.post(f"/v1/companies/{front.acme}/merge", json=body, headers=headers)
    assert (merged.status_code, merged.json()["traits"]) == (200, {"region": "eu"})
    assert int(merged.headers["plangate-version"]) > 1
    again = front.http.post(f"/v1/companies/{front.acme}/merge", json=body, headers=headers)
    assert (again.json(), again.headers["idempotent-replayed"]) == (merged.json(), "true")
    for path in ("", "/entitlements", "/history", "/overrides", "/usage?feature=exports"):
        gone = problem(front.http.get(f"/v1/companies/{made['id']}{path}"))
        assert (gone["status"], gone["code"], gone["merged_into"]) == (404, "not_found", front.acme)
        elsewhere = problem(front.other.get(f"/v1/companies/{made['id']}{path}"))
        assert (elsewhere["detail"], "merged_into" in elsewhere) == (gone["detail"], False)
    decision = front.http.post("/v1/check", json={"company": {"id": "twin"}, "feature": "exports"}).json()
    assert decision["company"] == front.acme
    repeated = front.http.post(f"/v1/companies/{front.acme}/merge", json={"from": made["id"]})
    assert repeated.status_code == 200
    unknown = problem(front.http.post(f"/v1/companies/{front.acme}/merge", json={"from": front.rival}))
    assert (unknown["status"], unknown["errors"][0]["pointer"]) == (404, "/from")


def test_a_plan_is_assigned_and_the_history_is_paged(front: Front) -> None:
    for plan in ("pro", None, "pro"):
        put = front.http.put("/v1/companies", json={"keys": {"id": "acme"}, "plan": plan})
        assert put.json()["plan"]["source"] == ("initial" if plan is None else "assignment")
    pages, cursor = [], None
    while True:
        query = "?limit=1" + ("" if cursor is None else f"&cursor={cursor}")
        page = front.http.get(f"/v1/companies/{front.acme}/history{query}").json()
        pages += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [one["action"] for one in pages] == ["company.updated"] * 3 + ["company.created"]
    assert [one["after"]["assigned"]["plan"] for one in pages[:3]] == ["pro", None, "pro"]
    wrong = problem(front.http.get(f"/v1/companies/{front.acme}/history?cursor=x"))
    assert (wrong["status"], wrong["errors"][0]["pointer"]) == (422, "?cursor")


def test_overrides_are_granted_in_bulk_and_found_again(front: Front) -> None:
    body = {"feature": "exports", "mode": "add", "value": 5, "note": "Outage"}
    by_key = front.http.post("/v1/overrides/bulk", json={**body, "companies": [{"id": "acme"}, "comp_none"]}).json()
    assert [one["status"] for one in by_key["results"]] == ["granted", "refused"]
    granted = by_key["results"][0]["override"]
    by_plan = front.http.post("/v1/overrides/bulk", json={**body, "plan": "free", "feature": "api-calls"}).json()
    assert ([one["company"] for one in by_plan["results"]], by_plan["next_cursor"]) == ([front.acme], None)
    for wrong in ({}, {"companies": [{"id": "acme"}], "plan": "free"}, {"companies": ["x"], "cursor": "comp_1"}):
        assert problem(front.http.post("/v1/overrides/bulk", json={**body, **wrong}))["status"] == 422
    listed = front.http.get("/v1/overrides?feature=exports&state=active").json()["data"]
    assert [one["id"] for one in listed] == [granted["id"]]
    one = front.http.get(f"/v1/overrides/{granted['id']}")
    assert (one.json(), one.headers["etag"]) == (granted, f'"{granted["etag"]}"')
    states = front.http.get(f"/v1/overrides/{granted['id']}/history").json()["data"]
    assert [state["action"] for state in states] == ["override.granted"]
    assert problem(front.other.get(f"/v1/overrides/{granted['id']}/history"))["code"] == "not_found"
    assert front.other.get("/v1/overrides").json()["data"] == []
