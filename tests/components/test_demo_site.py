"""The demo site as a browser and Plangate see it: strict policy, own tokens, the metered button, the switcher."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import httpx
import pytest
import respx
from starlette.applications import Starlette

from plangate.resources import demo_site

SITE, PLANGATE = "http://site.test", "http://plangate.test"


@pytest.fixture
async def site() -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running site."""
    app = demo_site()(url=SITE, plangate_url=PLANGATE, secret_key="pgt_sk_secret", publishable_key="pgt_pk_1")
    assert isinstance(app, Starlette)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        yield await stack.enter_async_context(httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=SITE))


@pytest.mark.parametrize("path", ["/", "/pricing", "/billing", "/app"])
async def test_every_page_is_strict_and_loads_one_script_of_ours(site: httpx.AsyncClient, path: str) -> None:
    page = await site.get(path)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"script-src 'self' {PLANGATE};" in policy
    assert "unsafe" not in policy
    assert page.text.count("/embed.js") == 1
    assert "pgt_sk" not in page.text
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script>", page.text)


async def test_the_token_route_asks_with_the_secret_key_for_the_chosen_company(
    site: httpx.AsyncClient, respx_mock: respx.MockRouter
) -> None:
    granted = {"token": "t", "expires_at": "2026-11-20T12:15:00Z", "more": "not passed on"}
    route = respx_mock.post(f"{PLANGATE}/v1/component-tokens").respond(json=granted)
    site.cookies.set("northwind_company", "globex")
    answer = await site.post("/billing/plangate-token", headers={"Origin": SITE})
    assert answer.json() == {"token": "t", "expires_at": "2026-11-20T12:15:00Z"}
    assert answer.headers["cache-control"] == "no-store"
    sent = route.calls.last.request
    assert sent.headers["authorization"] == "Bearer pgt_sk_secret"
    assert json.loads(sent.content) == {
        "company": {"id": "globex"},
        "scopes": ["view", "manage", "pay"],
        "origins": [SITE],
    }


async def test_strangers_get_no_token_and_press_no_buttons(site: httpx.AsyncClient) -> None:
    for path in ("/billing/plangate-token", "/app/export", "/switch"):
        for headers in ({}, {"Origin": "https://evil.test"}):
            assert (await site.post(path, headers=headers)).status_code == 403


async def test_trouble_upstream_is_a_502_or_a_sentence(site: httpx.AsyncClient, respx_mock: respx.MockRouter) -> None:
    respx_mock.post(f"{PLANGATE}/v1/component-tokens").mock(side_effect=httpx.ConnectError("down"))
    respx_mock.post(f"{PLANGATE}/v1/consume").respond(503)
    assert (await site.post("/billing/plangate-token", headers={"Origin": SITE})).status_code == 502
    export = await site.post("/app/export", headers={"Origin": SITE, "Accept": "application/json"})
    assert "couldn't reach billing" in export.json()["text"]


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        ({"allowed": True, "remaining": 3}, "You have 3 left."),
        ({"allowed": True, "remaining": None}, "Exported"),
        (
            {
                "allowed": False,
                "reason": "limit_reached",
                "limit": 10,
                "period": {"resets_at": "2026-12-03T00:00:00Z"},
                "trace": {"options": [{"kind": "wait"}, {"kind": "plan", "name": "Pro", "limit": 1000}]},
            },
            "You've used all 10 exports. They reset on December 3, or move to Pro for 1,000 a month.",
        ),
        ({"allowed": False, "reason": "no_entitlement", "limit": None}, "Your plan does not include exports."),
    ],
)
async def test_the_export_button_counts_first_and_says_what_came_of_it(
    site: httpx.AsyncClient, respx_mock: respx.MockRouter, decision: Mapping[str, object], text: str
) -> None:
    route = respx_mock.post(f"{PLANGATE}/v1/consume").respond(json={**decision, "trace": None})
    if not decision["allowed"]:
        respx_mock.post(f"{PLANGATE}/v1/check", json__trace=True).respond(json=dict(decision))
    answer = await site.post("/app/export", headers={"Origin": SITE, "Accept": "application/json"})
    assert text in answer.json()["text"]
    question = json.loads(route.calls.last.request.content)
    assert question["company"] == {"id": "acme"}
    assert question["feature"] == "exports"
    page = await site.post("/app/export", headers={"Origin": SITE})
    assert 'role="status"' in page.text


async def test_the_switcher_remembers_known_companies_only(site: httpx.AsyncClient) -> None:
    form = {"company": "umbrella", "back": "/billing"}
    answer = await site.post("/switch", data=form, headers={"Origin": SITE})
    assert answer.headers["location"] == "/billing"
    assert "Billing for Umbrella" in (await site.get("/billing")).text
    away = await site.post("/switch", data={"company": "evil", "back": "//evil.test"}, headers={"Origin": SITE})
    assert away.headers["location"] == "/"
    assert "set-cookie" not in away.headers
    huge = await site.post("/switch", data={"company": "x" * 9000}, headers={"Origin": SITE})
    assert huge.status_code == 303


async def test_assets_are_only_those_we_have(site: httpx.AsyncClient) -> None:
    assert (await site.get("/assets/site.css")).headers["content-type"].startswith("text/css")
    assert (await site.get("/assets/app.py")).status_code == 404
