"""The Stripe App's way in through real HTTP: exact bytes, our own list of roles, an operation once, CORS."""

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from plangate.billing.signatures import sign
from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.store.app_roles import store_role
from plangate.web.stripe_app_actions import ACTIONS
from tests.conftest import ACCOUNT, APP_SECRET
from tests.web.asked import grant, holdings, problem
from tests.web.conftest import OTHER_ACCOUNT, OTHER_APP_SECRET, Front

GRANT: Mapping[str, Any] = {
    "customer": "cus_acme",
    "operation_id": "op_1",
    "feature": "exports",
    "override_mode": "add",
    "value": 500,
    "note": "Migration week",
}


def call(
    front: Front,
    action: str,
    payload: Mapping[str, Any],
    *,
    user: str = "usr_admin",
    account: str = ACCOUNT,
    secret: str = APP_SECRET,
    at_seconds: int = 0,
) -> httpx.Response:
    """As the extension does it: the signed bytes are the body."""
    message = {**payload, "mode": payload.get("mode", "test"), "user_id": user, "account_id": account}
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    header = sign(body, secret, at=wall_now() + timedelta(seconds=at_seconds))
    with front.server.client() as dashboard:
        return dashboard.post(
            f"/stripe-app/v1/{action}",
            content=body,
            headers={"Stripe-Signature": header, "Content-Type": "application/json", "Origin": "null"},
        )


def test_the_customer_view_in_one_answer(front: Front) -> None:
    granted = grant(front, value=500)
    front.http.post("/v1/consume", json={"company": {"id": "acme"}, "feature": "exports", "idempotency_key": "1"})
    answer = call(front, "customer.get", {"customer": "cus_acme"}, user="usr_somebody")
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert page["role"] == "viewer"
    assert page["company"]["id"] == front.acme
    exports = next(one for one in page["entitlements"] if one["feature"] == "exports")
    assert (exports["name"], exports["limit"], exports["used"]) == ("Exports", 510, 1)
    asked = front.http.post("/v1/check", json={"company": {"id": "acme"}, "feature": "exports"}).json()
    assert {name: exports[name] for name in asked if name != "at"} == {k: v for k, v in asked.items() if k != "at"}
    assert [one["id"] for one in page["overrides"]] == [granted["id"]]
    assert (page["scheduled_change"], page["subscription"], page["notices"]) == (None, None, [])


def test_a_customer_nobody_linked_is_a_page_that_says_so(front: Front) -> None:
    page = call(front, "customer.get", {"customer": "cus_unknown"}).json()
    assert (page["company"], page["entitlements"], page["notices"][0]["kind"]) == (None, [], "not_linked")
    assert problem(call(front, "override.grant", {**GRANT, "customer": "cus_unknown"}))["code"] == "not_found"


def test_an_agent_grants_edits_and_revokes(front: Front) -> None:
    granted = call(front, "override.grant", GRANT, user="usr_agent").json()
    assert (granted["mode"], granted["value"], granted["author"]) == (
        "add",
        500,
        {"kind": "stripe_user", "id": "usr_agent"},
    )
    edit = {"customer": "cus_acme", "operation_id": "op_2", "override": granted["id"], "etag": granted["etag"]}
    edited = call(front, "override.edit", {**edit, "value": 700}, user="usr_agent").json()
    assert edited["value"] == 700
    assert (
        problem(call(front, "override.edit", {**edit, "operation_id": "op_3", "value": 1}))["code"] == "etag_mismatch"
    )
    revoke = {"customer": "cus_acme", "operation_id": "op_4", "override": granted["id"], "note": "done"}
    assert call(front, "override.revoke", revoke, user="usr_agent").json()["state"] == "revoked"
    limit = front.http.post("/v1/check", json={"company": {"id": "acme"}, "feature": "exports"}).json()["limit"]
    assert limit == 10


def test_the_same_operation_again_answers_as_before_and_does_nothing(front: Front) -> None:
    first = call(front, "override.grant", GRANT)
    before = holdings(front)
    for _ in range(3):
        again = call(front, "override.grant", GRANT)
        assert (again.status_code, again.json()) == (200, first.json())
    assert holdings(front) == before
    other = call(front, "override.grant", {**GRANT, "value": 900})
    assert (other.status_code, problem(other)["code"]) == (409, "idempotency_conflict")
    assert holdings(front) == before


def test_a_refused_operation_may_be_tried_again(front: Front) -> None:
    refused = call(front, "override.grant", {**GRANT, "feature": "nope"})
    assert refused.status_code == 422
    assert call(front, "override.grant", GRANT).status_code == 200


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_every_role_may_do_its_own_and_no_more(front: Front, action: str) -> None:
    ranks = ["viewer", "agent", "admin"]
    users = {"viewer": "usr_stranger", "agent": "usr_agent", "admin": "usr_admin"}
    needed = ranks.index(ACTIONS[action].role)
    for rank, role in enumerate(ranks):
        before = holdings(front)
        answer = call(front, action, {"customer": "cus_nobody", "role": "admin"}, user=users[role])
        found = problem(answer)
        if rank < needed:
            assert (found["status"], found["code"], found["role"]) == (403, "role_too_low", role)
        else:
            assert found["code"] == "unknown_field" or "/role" in [error["pointer"] for error in found["errors"]]
        assert holdings(front) == before


def test_account_and_mode_choose_the_environment_and_the_secret_must_be_its_own(front: Front) -> None:
    ask = {"customer": "cus_rival"}
    page = call(front, "customer.get", ask, account=OTHER_ACCOUNT, secret=OTHER_APP_SECRET).json()
    assert page["company"]["id"] == front.rival
    assert call(front, "customer.get", ask).json()["company"] is None
    for account, secret in ((OTHER_ACCOUNT, APP_SECRET), (ACCOUNT, OTHER_APP_SECRET), ("acct_none", APP_SECRET)):
        found = problem(call(front, "customer.get", ask, account=account, secret=secret))
        assert (found["status"], found["code"]) == (403, "forbidden")
    for mode in ("live", "", "TEST", 5):
        assert problem(call(front, "customer.get", {**ask, "mode": mode}))["code"] == "forbidden"


def test_forged_replayed_and_misdated_messages_are_refused(front: Front) -> None:
    before = holdings(front)
    for at_seconds in (-301, 360, 86_400):
        assert problem(call(front, "override.grant", GRANT, at_seconds=at_seconds))["code"] == "signature_invalid"
    assert problem(call(front, "override.grant", GRANT, secret="absec_wrong"))["code"] == "signature_invalid"
    body = json.dumps({**GRANT, "mode": "test", "user_id": "usr_admin", "account_id": ACCOUNT}).encode()
    header = sign(body, APP_SECRET, at=wall_now())
    with front.server.client() as dashboard:
        for sent, signature in ((body.replace(b"500", b"900"), header), (body + b" ", header), (body, "")):
            answer = dashboard.post(
                "/stripe-app/v1/override.grant", content=sent, headers={"Stripe-Signature": signature}
            )
            assert (answer.status_code, problem(answer)["code"]) == (400, "signature_invalid")
            assert answer.headers["access-control-allow-origin"] == "*"
    assert holdings(front) == before


def test_odd_payloads_are_422_and_change_nothing(front: Front) -> None:
    granted = grant(front, mode="set", value=20)
    before = holdings(front)
    for field in GRANT:
        odd: list[Any] = [None, [], {}, -1, 2**70, "x" * 3_000, True, ""]
        for value in odd:
            answer = call(front, "override.grant", {**GRANT, field: value})
            if answer.status_code == 200:
                assert field in {"operation_id", "note"}, (field, value)
                continue
            assert answer.status_code in {404, 409, 422}, (field, value, answer.text)
    missing = {name: value for name, value in GRANT.items() if name != "operation_id"}
    assert problem(call(front, "override.grant", missing))["errors"][0]["pointer"] == "/operation_id"
    theirs = {"customer": "cus_other", "operation_id": "op_9", "override": granted["id"], "note": "x"}
    assert problem(call(front, "override.revoke", theirs))["code"] == "not_found"
    assert problem(call(front, "no.such", {"customer": "cus_acme"}))["code"] == "not_found"
    assert holdings(front) == before


def test_reads_for_the_drawer_and_the_search(front: Front) -> None:
    traced = call(front, "decision.trace", {"customer": "cus_acme", "feature": "sso"}).json()
    assert (traced["allowed"], traced["name"]) == (False, "Single sign-on")
    assert traced["trace"]["steps"]
    assert problem(call(front, "decision.trace", {"customer": "cus_acme", "feature": "no"}))["status"] == 422
    series = call(front, "usage.history", {"customer": "cus_acme", "feature": "exports", "by": "hour"}).json()
    assert (series["feature"], series["by"]) == ("exports", "hour")
    assert [one["id"] for one in call(front, "company.search", {"search": "acm"}).json()["data"]] == [front.acme]
    overview = call(front, "overview.get", {}).json()
    assert (overview["environment"], overview["plans"], overview["role"]) == ("default", 2, "admin")
    assert overview["expiring"] == []
    now = wall_now()
    ends = [
        grant(front, feature=feature, expires_at=(now + timedelta(days=days)).isoformat())["id"]
        for feature, days in (("exports", 9), ("api-calls", 3), ("seats", 40))
    ]
    assert [one["id"] for one in call(front, "overview.get", {}).json()["expiring"]] == [ends[1], ends[0]]


def test_why_may_be_asked_of_the_past_and_of_more(front: Front) -> None:
    before = wall_now()
    grant(front, feature="exports", value=90)
    ask = {"customer": "cus_acme", "feature": "exports", "quantity": 50}
    now = call(front, "decision.trace", ask, user="usr_stranger").json()
    assert (now["allowed"], now["limit"]) == (True, 100)
    then = call(front, "decision.trace", {**ask, "at": before.isoformat()}, user="usr_stranger").json()
    assert (then["allowed"], then["limit"], then["reason"]) == (False, 10, "limit_reached")
    assert then["trace"]["unlock"]["kind"] in {"plan", "add_on", "wait"}
    ahead = call(front, "decision.trace", {**ask, "at": (before + timedelta(days=1)).isoformat()})
    assert problem(ahead)["code"] == "timestamp_in_future"
    front.http.post("/v1/consume", json={"company": {"id": "acme"}, "feature": "exports", "idempotency_key": "1"})
    hours = {"since": (before - timedelta(hours=2)).isoformat(), "until": wall_now().isoformat(), "by": "hour"}
    series = call(front, "usage.history", {"customer": "cus_acme", "feature": "exports", **hours}).json()
    assert len(series["points"]) in {3, 4}
    assert sum(point["quantity"] for point in series["points"]) == 1


def test_a_role_set_from_the_command_line_counts_at_once(front: Front) -> None:
    async def give(deployment: Deployment, role: str | None) -> None:
        async with deployment.named("default").writing() as session:
            await store_role(session, "usr_stranger", role)

    for role, status in (("agent", 200), ("viewer", 403), ("admin", 200), (None, 403)):
        front.server.run(partial(give, role=role))
        operation = {"operation_id": f"op_{role}", "feature": "exports", "note": f"as {role}"}
        if status == 200:
            for one in front.http.get(f"/v1/companies/{front.acme}/overrides").json()["data"]:
                front.http.delete(f"/v1/overrides/{one['id']}?note=x")
        answer = call(front, "override.grant", {**GRANT, **operation}, user="usr_stranger")
        assert answer.status_code == status, (role, answer.text)
    front.server.run(partial(give, role="admin"))
    overview = call(front, "overview.get", {}, user="usr_stranger", account=OTHER_ACCOUNT, secret=OTHER_APP_SECRET)
    assert overview.json()["role"] == "viewer"


def test_an_admin_links_a_customer(front: Front) -> None:
    link = {"customer": "cus_second", "operation_id": "op_1", "company": front.acme}
    assert call(front, "company.link", link).json()["stripe_customer_ids"] == ["cus_acme", "cus_second"]
    assert call(front, "customer.get", {"customer": "cus_second"}).json()["company"]["id"] == front.acme
    foreign = {**link, "operation_id": "op_2", "company": front.rival}
    assert problem(call(front, "company.link", foreign))["code"] == "not_found"
    other = front.http.put("/v1/companies", json={"keys": {"stripe_customer_id": "cus_only"}}).json()
    taken = problem(call(front, "company.link", {**link, "operation_id": "op_3", "company": other["id"]}))
    assert (taken["code"], set(taken["companies"])) == ("key_conflict", {front.acme, other["id"]})
    more = {**link, "operation_id": "op_4", "company": other["id"], "customer": "cus_third"}
    assert call(front, "company.link", more).json()["id"] == other["id"]


def test_cors_is_open_here_and_nowhere_else(front: Front) -> None:
    ask = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}
    with front.server.client() as browser:
        allowed = browser.options("/stripe-app/v1/customer.get", headers=ask)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == "*"
        assert allowed.headers["access-control-allow-headers"] == "content-type, stripe-signature"
        assert "access-control-allow-credentials" not in allowed.headers
        assert problem(browser.get("/stripe-app/v1/customer.get"))["code"] == "method_not_allowed"
        for path in ("/v1/check", "/v1/companies", "/webhooks/stripe", "/openapi.json", "/healthz"):
            answer = browser.options(path, headers=ask)
            assert answer.status_code == 405, path
            assert "access-control-allow-origin" not in answer.headers
            assert "access-control-allow-origin" not in browser.get(path, headers=ask).headers
