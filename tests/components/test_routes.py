"""The component routes over HTTP, with real journeys and the sandbox behind them, asked as the script asks."""

import gzip
import hashlib
import html
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from plangate import access, catalog, companies, metering
from plangate.clock import wall_now
from plangate.deployment import Deployment, create_key
from plangate.shapes import Actor
from plangate.web.app import create_app
from plangate.web.embed import EMBED_LIMIT_BYTES
from plangate.web.tokens import mint_component_token
from tests.conftest import SECRET_KEY
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop, new_company

ORIGIN = "http://shop.test"
BASE = "/components/v1"


@dataclass
class Front:
    """The server, a client of it, a shop behind it, and ways to ask as somebody."""

    shop: Shop
    http: httpx.AsyncClient
    publishable: str
    secret: str

    def headers(
        self, *scopes: str, company: str | None = None, origin: str | None = ORIGIN, **claims: str
    ) -> dict[str, str]:
        """The headers of a request by the script, for a token with these scopes."""
        token, _ = mint_component_token(
            (SECRET_KEY,),
            environment_id=claims.get("environment_id", self.shop.env.id),
            company=company or self.shop.company_id,
            scopes=scopes or ("view", "manage", "pay"),
            origins=[claims["origins"]] if "origins" in claims else [],
            now=wall_now(),
        )
        return {"Authorization": f"Bearer {token}", **({"Origin": origin} if origin else {})}

    async def get(self, name: str, *scopes: str, **query: str) -> httpx.Response:
        return await self.http.get(f"{BASE}/{name}", params=query, headers=self.headers(*scopes))

    async def post(self, name: str, *scopes: str, **form: str) -> httpx.Response:
        form = {"component": "plan-manager", "locale": "en", **form}
        return await self.http.post(f"{BASE}/{name}", data=form, headers=self.headers(*scopes))


@pytest.fixture
async def front(connected: Deployment, sandbox: SandboxServer) -> AsyncIterator[Front]:
    env = connected.named(None)
    shop = await Shop.open(env, sandbox)
    publishable, _ = await create_key(env, kind="publishable", name="site")
    secret, _ = await create_key(env, kind="secret", name="backend")
    transport = httpx.ASGITransport(app=create_app(connected, has_worker=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://plangate.test") as http:
        yield Front(shop, http, publishable, secret)
    await shop.close()


def _fields(fragment: str) -> dict[str, str]:
    """The hidden fields of a receipt's form."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', fragment)
    return {name: html.unescape(value) for name, value in found}


async def test_the_script_is_served_small_pinned_and_for_ever(front: Front) -> None:
    plain = await front.http.get("/embed.js")
    facts = (await front.http.get("/embed.json")).json()
    assert plain.headers["access-control-allow-origin"] == "*"
    assert "max-age=300" in plain.headers["cache-control"]
    assert facts["bytes_gzipped"] <= EMBED_LIMIT_BYTES
    assert len(gzip.compress(plain.content, 9, mtime=0)) == facts["bytes_gzipped"]
    digest = b64encode(hashlib.sha384(plain.content).digest()).decode()
    assert facts["integrity"] == f"sha384-{digest}"
    lasting = await front.http.get(facts["path"])
    assert lasting.content == plain.content
    assert "immutable" in lasting.headers["cache-control"]
    again = await front.http.get("/embed.js", headers={"If-None-Match": plain.headers["etag"]})
    assert again.status_code == 304
    assert (await front.http.get("/embed.0123456789abcdef.js")).status_code == 404


async def test_a_visitor_reads_the_table_with_the_publishable_key_alone(front: Front) -> None:
    origin = {"Origin": ORIGIN}
    table = await front.http.get(f"{BASE}/pricing-table", params={"key": front.publishable}, headers=origin)
    assert table.status_code == 200
    assert "Choose Pro" in table.text
    assert table.headers["access-control-allow-origin"] == ORIGIN
    assert "Origin" in table.headers["vary"]
    assert table.headers["cache-control"] == "public, max-age=60"
    for key in ("", "pgt_pk_wrong", front.secret):
        refused = await front.http.get(f"{BASE}/pricing-table", params={"key": key}, headers=origin)
        assert refused.status_code == 401
        assert front.secret not in refused.text
    for name in ("plan-manager", "usage", "invoices", "portal"):
        refused = await front.http.get(f"{BASE}/{name}", params={"key": front.publishable}, headers=origin)
        assert refused.status_code == 401
        assert "Sign in to see your plan." in refused.text


async def test_strangers_get_no_cors_and_no_fragment(front: Front) -> None:
    evil = "https://evil.test"
    read = await front.http.get(f"{BASE}/usage", headers=front.headers(origin=evil))
    assert read.status_code == 403
    assert "access-control-allow-origin" not in read.headers
    for origin in (evil, None):
        written = await front.http.post(f"{BASE}/preview", data={"plan": "pro"}, headers=front.headers(origin=origin))
        assert written.status_code == 403
    narrowed = front.headers(origins="https://other.test")
    assert (await front.http.get(f"{BASE}/usage", headers=narrowed)).status_code == 403
    allowed = await front.http.options(f"{BASE}/preview", headers={"Origin": ORIGIN})
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    foreign = await front.http.options(f"{BASE}/preview", headers={"Origin": evil})
    assert "access-control-allow-origin" not in foreign.headers
    assert front.shop.requests(path="checkout") == []


async def test_fields_nobody_knows_are_refused_in_a_fragment(front: Front) -> None:
    for name in ("preview", "confirm", "cancel-scheduled", "portal"):
        refused = await front.post(name, price="1", plan="pro")
        assert (refused.status_code, refused.headers["plangate-code"]) == (422, "unknown_field"), name
        assert refused.headers["content-type"] == "text/html; charset=utf-8"
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        assert "price" in refused.text
    known = await front.post("preview", plan="pro", tz="UTC", heading_level="3", plans="pro", features="", returned="1")
    assert known.status_code == 200


async def test_what_the_edge_refuses_is_a_fragment_that_the_page_may_read(front: Front, connected: Deployment) -> None:
    large = await front.post("preview", plan="x" * (1024 * 1024))
    connected.settings = connected.settings.model_copy(update={"address_rate_limit_per_second": 1})
    transport = httpx.ASGITransport(app=create_app(connected, has_worker=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://plangate.test") as http:
        answers = [await http.get(f"{BASE}/plan-manager", headers=front.headers()) for _ in range(3)]
        foreign = await http.get(f"{BASE}/plan-manager", headers={"Origin": "https://evil.test"})
    absent = await front.get("nothing-here")
    for answer, status, code in (
        (large, 413, "too_large"),
        (answers[-1], 429, "rate_limited"),
        (absent, 405, "method_not_allowed"),
    ):
        assert (answer.status_code, answer.headers["plangate-code"]) == (status, code)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert 'role="alert"' in answer.text
    assert answers[-1].headers["retry-after"] == "1"
    assert "Retry-After" in answers[-1].headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in foreign.headers


async def test_tokens_of_elsewhere_see_nothing(front: Front) -> None:
    rival = await new_company(front.shop.env, "rival")
    quote = _fields((await front.post("preview", plan="pro")).text)["quote"]
    stolen = await front.http.post(f"{BASE}/confirm", data={"quote": quote}, headers=front.headers(company=rival))
    assert stolen.status_code == 422
    unknown = await front.http.get(f"{BASE}/plan-manager", headers=front.headers(company="comp_nobody"))
    assert unknown.status_code == 404
    elsewhere = await front.http.get(f"{BASE}/usage", headers=front.headers(environment_id="env_nowhere"))
    assert elsewhere.status_code == 401
    garbled = {**front.headers(), "Authorization": "Bearer x.y.z"}
    assert (await front.http.get(f"{BASE}/usage", headers=garbled)).status_code == 401
    basic = {**front.headers(), "Authorization": "Basic eA=="}
    assert (await front.http.get(f"{BASE}/usage", headers=basic)).status_code == 401
    assert await front.shop.rows() == []


async def test_scopes_decide_what_is_offered_and_what_is_done(front: Front) -> None:
    viewed = await front.get("plan-manager", "view")
    assert viewed.status_code == 200
    assert "<button" not in viewed.text
    assert (await front.post("preview", "view", plan="pro")).status_code == 403
    assert (await front.post("preview", "manage", plan="pro")).status_code == 403
    quote = _fields((await front.post("preview", plan="pro")).text)["quote"]
    assert (await front.post("confirm", "manage", quote=quote)).status_code == 403
    assert (await front.get("invoices", "manage")).status_code == 403
    assert (await front.post("portal", "manage")).status_code == 403
    assert await front.shop.rows() == []


async def test_a_visit_to_checkout_and_back_before_any_webhook(front: Front) -> None:
    receipt = await front.post("preview", plan="pro", interval="month", currency="usd", component="pricing-table")
    assert "Continue to payment" in receipt.text
    page = f"{ORIGIN}/pricing?tab=1"
    leaving = await front.post("confirm", **_fields(receipt.text), return_url=page)
    url = leaving.headers["hx-redirect"]
    assert url.startswith(front.shop.sandbox.url)
    assert "HX-Redirect" in leaving.headers["access-control-expose-headers"]
    waiting = await front.get("plan-manager")
    assert "Your move to Pro waits for payment." in waiting.text
    front.shop.pay(url)
    back = await front.get("pricing-table", returned="1")
    assert "on Pro now." in html.unescape(back.text)
    assert "Your plan" in back.text
    assert "0 of 1,000 exports" in (await front.get("usage")).text
    invoices = await front.get("invoices")
    assert "$49.00" in invoices.text
    session = front.shop.objects("checkout.session")[0]
    assert session["success_url"].startswith(f"{page}&plangate_return=1")
    portal = await front.post("portal", return_url=f"{page}&plangate_return=1")
    assert portal.headers["hx-redirect"].startswith(front.shop.sandbox.url)
    assert front.shop.objects("billing_portal.session")[0]["return_url"] == page


async def test_who_was_deleted_at_stripe_is_told_when_there_is_a_billing_page_again(front: Front) -> None:
    await front.shop.subscribed()
    front.shop.stripe.customers.delete(front.shop.objects("customer")[0]["id"])
    await front.shop.sync()
    refused = await front.post("portal", return_url=f"{ORIGIN}/billing")
    assert refused.status_code == 404
    assert "There is no billing page now: there is one after the next payment." in refused.text


async def test_nobody_is_sent_elsewhere_after_paying(front: Front) -> None:
    fields = _fields((await front.post("preview", plan="pro")).text)
    refused = await front.post("confirm", **fields, return_url="https://evil.test/")
    assert refused.status_code == 422
    assert await front.shop.rows() == []


async def test_a_downgrade_is_confirmed_refused_a_purchase_and_taken_back(front: Front) -> None:
    await front.shop.subscribed()
    receipt = await front.post("preview", "manage", plan="starter", component="plan-manager")
    assert "Switch on" in receipt.text
    done = await front.post("confirm", "manage", **_fields(receipt.text), component="plan-manager")
    told = json.loads(done.headers["hx-trigger"])["plangate-plan-changed"]
    assert told["state"] == "scheduled"
    assert told["plan"] == "starter"
    assert "You move to Starter" in done.text
    twice = await front.post("confirm", "manage", **_fields(receipt.text), component="plan-manager")
    assert twice.status_code == 200
    assert len([row for row in await front.shop.rows() if row.state == "scheduled"]) == 1
    refused = await front.post("preview", add_on="extra-exports", quantity="1")
    assert refused.status_code == 409
    assert refused.headers["plangate-code"] == "downgrade_scheduled"
    assert refused.text.startswith("<dialog")
    assert "Keep Pro" in refused.text
    kept = await front.post("cancel-scheduled", "manage", component="plan-manager")
    assert "Nothing changes: you keep Pro." in kept.text
    nothing = await front.post("cancel-scheduled", "manage")
    assert nothing.status_code == 409


async def test_add_ons_and_cancelling_from_the_manager(front: Front) -> None:
    await front.shop.subscribed()
    receipt = await front.post("preview", add_on="extra-exports", quantity="2")
    assert "1,500" not in receipt.text
    assert "2,000 exports" in receipt.text
    await front.post("confirm", **_fields(receipt.text))
    assert "You have 2" in (await front.get("plan-manager")).text
    leaving = await front.post("preview", cancel="period_end")
    assert "No further payments." in leaving.text
    done = await front.post("confirm", **_fields(leaving.text))
    assert "Your subscription ends on" in done.text


async def test_a_stale_quote_becomes_a_new_receipt(front: Front) -> None:
    await front.shop.subscribed(plan="starter")
    receipt = await front.post("preview", plan="pro")
    await front.shop.change(add_ons={"extra-exports": 1})
    stale = await front.post("confirm", **_fields(receipt.text))
    assert stale.status_code == 409
    assert "Nothing has been charged." in stale.text
    assert await front.shop.plan() == "starter"
    done = await front.post("confirm", **_fields(stale.text))
    assert done.status_code == 200
    assert await front.shop.plan() == "pro"


ODD_FORMS: list[tuple[dict[str, str], int]] = [
    ({}, 422),
    ({"plan": "nonsense"}, 404),
    ({"plan": "pro", "interval": "decade"}, 422),
    ({"cancel": "yesterday"}, 422),
    ({"add_on": "extra-exports", "quantity": "-1"}, 422),
    ({"add_on": "extra-exports", "quantity": "9" * 30}, 422),
    ({"plan": "x" * 20_000}, 422),
    ({"resume": "1"}, 409),
]


async def test_a_change_the_bank_asks_about_is_not_called_on_its_way(front: Front) -> None:
    subscription = await front.shop.subscribed(plan="starter")
    method = front.shop.new_card(front.shop.objects("customer")[0]["id"], "pm_card_authenticationRequired")
    front.shop.stripe.subscriptions.update(subscription, {"default_payment_method": method})
    await front.shop.sync()
    receipt = await front.post("preview", plan="pro")
    asked = await front.post("confirm", **_fields(receipt.text))
    assert "One more step: nothing changes until the payment is confirmed." in asked.text
    assert "on its way" not in asked.text
    assert "Confirm payment" in asked.text


async def test_odd_forms_are_refused_in_words_and_change_nothing(front: Front) -> None:
    for form, status in ODD_FORMS:
        refused = await front.post("preview", **form)
        assert refused.status_code == status, form
        assert refused.headers["content-type"].startswith("text/html")
    for body in (b"\xff\xfe", b"a" * 70_000):
        headers = {**front.headers(), "Content-Type": "application/x-www-form-urlencoded"}
        refused = await front.http.post(f"{BASE}/preview", content=body, headers=headers)
        assert refused.status_code in {400, 413}
    assert await front.shop.rows() == []


def _priced() -> dict[str, Any]:
    """Pro with seats that are paid in advance, and exports beyond 1,000 at a price."""
    document = deepcopy(DOCUMENT)
    document["features"]["seats"] = {
        "name": "Seats",
        "type": "seat",
        "trait": "seats",
        "unit": "seat",
        "units": "seats",
    }
    each = [("month", 900), ("year", 9000)]
    document["plans"]["pro"]["entitlements"] |= {
        "seats": {
            "limit": 1,
            "price_behaviour": "pay_in_advance",
            "prices": [{"currency": "usd", "interval": interval, "amount_minor": amount} for interval, amount in each],
        },
        "exports": {
            "soft_limit": 1000,
            "period": "billing_month",
            "price_behaviour": "overage",
            "prices": [{"currency": "usd", "interval": interval, "amount_decimal": "0.2"} for interval, _ in each],
        },
    }
    return document


async def test_seats_in_advance_are_bought_and_overage_is_told(front: Front) -> None:
    shop = front.shop
    await catalog.apply(shop.env, _priced(), actor=Actor(kind="cli", id="tests"))
    table = await front.get("pricing-table")
    assert "1 seat, more at $9.00 per seat a month" in table.text
    assert "1,000 exports a month, then $0.002 per export" in table.text
    await shop.subscribed(plan="pro")
    await shop.sync()
    manager = (await front.get("plan-manager")).text
    assert "Paid in advance" in manager
    assert "$49.00 a month" in manager
    receipt = await front.post("preview", unit="seats", quantity="4")
    assert receipt.status_code == 200, receipt.text
    done = await front.post("confirm", **_fields(receipt.text))
    assert done.status_code == 200, done.text
    await shop.sync()
    manager = (await front.get("plan-manager")).text
    assert "Done: your subscription is updated." in done.text
    assert "You have 4" in manager
    assert "$85.00 a month" in manager
    await _fewer_seats_wait_for_the_next_payment(front)
    decision = await access.check(shop.env, company={"id": "acme"}, feature="exports", quantity=0)
    assert (decision.unlimited, decision.soft_limit) == (True, 1000)
    event = metering.TrackEvent(event="exports", company={"id": "acme"}, quantity=1_500)
    await metering.record(shop.env, [event])
    usage = (await front.get("usage")).text
    assert "500 over the 1,000 exports included: $1.00 so far, $0.002 per export." in usage


async def _fewer_seats_wait_for_the_next_payment(front: Front) -> None:
    """Four seats become three on the day of the next payment, and the way to leave stays open until then."""
    receipt = await front.post("preview", unit="seats", quantity="3")
    assert "Next payment: $76.00 on" in receipt.text
    done = await front.post("confirm", **_fields(receipt.text))
    assert "Done: your subscription changes on" in done.text
    assert "you move to" not in done.text
    assert "$76.00 on" in done.text
    await front.shop.sync()
    manager = (await front.get("plan-manager")).text
    assert "$85.00 a month" in manager
    assert "$76.00 on" in manager
    assert "Cancel subscription" in manager
    kept = await front.post("cancel-scheduled")
    assert "$85.00 on" in kept.text


async def test_a_trial_is_offered_once(front: Front) -> None:
    shop = front.shop
    document = deepcopy(DOCUMENT)
    document["plans"]["pro"]["trial_days"] = 14
    await catalog.apply(shop.env, document, actor=Actor(kind="cli", id="tests"))
    assert "14-day trial" in (await front.get("pricing-table")).text
    await shop.subscribed()
    await shop.change(cancel="now")
    assert "14-day trial" not in (await front.get("pricing-table")).text
    assert "14-day trial" not in (await front.get("plan-manager", view="choices")).text


async def test_an_add_on_given_by_hand_is_shown_and_not_priced(front: Front) -> None:
    shop = front.shop
    await shop.subscribed(plan="pro")
    given = companies.Assigned(add_ons={"extra-exports": 2})
    await companies.upsert(shop.env, keys={"id": "acme"}, assigned=given, actor=Actor(kind="cli", id="tests"))
    manager = (await front.get("plan-manager")).text
    assert "$49.00 a month" in manager
    assert "You have 2" in manager
    assert 'id="add-extra-exports"' in manager
    assert 'id="remove-extra-exports"' not in manager


async def test_a_plan_is_bought_by_the_quarter_and_moved_to_the_month(front: Front) -> None:
    shop = front.shop
    document = deepcopy(DOCUMENT)
    quarter = {"currency": "usd", "interval": "month", "interval_count": 3, "amount_minor": 12_000}
    document["plans"]["pro"]["prices"].append(quarter)
    await catalog.apply(shop.env, document, actor=Actor(kind="cli", id="tests"))
    assert "/ 3 months</span>" in (await front.get("pricing-table", interval="3-month")).text
    await shop.subscribed(plan="starter", interval="month")
    receipt = await front.post("preview", plan="pro", interval="3-month")
    assert "$120.00" in receipt.text
    done = await front.post("confirm", **_fields(receipt.text))
    assert "on Pro now." in html.unescape(done.text)
    await shop.sync()
    assert "$120.00 every 3 months" in (await front.get("plan-manager")).text
    receipt = await front.post("preview", plan="pro", interval="month")
    assert ">Pay for Pro by the month</h2>" in receipt.text
    done = await front.post("confirm", **_fields(receipt.text))
    assert done.status_code == 200, done.text
    await shop.sync()
    company = await companies.get(shop.env, shop.company_id)
    assert company.subscription is not None
    assert (company.subscription.interval, company.subscription.interval_count) == ("month", 3)
    assert company.scheduled_change is not None
    assert (company.scheduled_change.interval, company.scheduled_change.interval_count) == ("month", 1)
    assert "$49.00 on" in (await front.get("plan-manager")).text
    table = (await front.get("pricing-table")).text
    assert 'value="3-month" id="interval-3-month" data-keep checked' in table
    assert table.count("Starts ") == 1
