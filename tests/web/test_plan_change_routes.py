"""Plan changes through the API alone, with the sandbox for Stripe and real webhooks back: from free to a downgrade."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from plangate.billing.signatures import sign
from plangate.clock import wall_now
from plangate.settings import Settings
from tests.conftest import APP_SECRET, SECRET_KEY, environment_settings
from tests.plangate_server import PlangateServer
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT
from tests.web.asked import problem

BACK = "http://shop.test/billing"


@dataclass(frozen=True, slots=True)
class Story:
    """The server, a client with every scope, the sandbox, and a company on the free plan with its customer."""

    http: httpx.Client
    sandbox: SandboxServer
    server: PlangateServer
    company: str

    @property
    def path(self) -> str:
        return f"/v1/companies/{self.company}/plan-changes"

    def preview(self, **asked: object) -> dict[str, Any]:
        answer = self.http.post(f"{self.path}/preview", json=asked)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def confirm(self, quote: dict[str, Any], **headers: str) -> httpx.Response:
        return self.http.post(self.path, json={"quote": quote["quote"], "return_url": BACK}, headers=headers)

    def in_app(self, action: str, *, user: str = "usr_agent", **payload: object) -> httpx.Response:
        """An action of the Stripe App, signed as Stripe signs it."""
        ids = {"mode": "test", "user_id": user, "account_id": self.sandbox.account_id}
        body = json.dumps({**payload, **ids}, separators=(",", ":")).encode()
        signature = {"Stripe-Signature": sign(body, APP_SECRET, at=wall_now())}
        return self.http.post(f"/stripe-app/v1/{action}", content=body, headers=signature)

    def customer(self) -> str:
        """The company's Stripe customer, once it has one."""
        (found,) = self.http.get(f"/v1/companies/{self.company}").json()["stripe_customer_ids"]
        return str(found)

    def plan(self) -> str:
        return str(self.http.get(f"/v1/companies/{self.company}").json()["plan"]["key"])

    def wait(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.05)

    def limit(self) -> object:
        body = {"company": {"id": "acme"}, "feature": "exports"}
        return self.http.post("/v1/check", json=body).json()["limit"]

    def advance(self, duration: str) -> None:
        self.sandbox.advance(duration)
        offset = self.sandbox.control("GET", "clock")["offset_seconds"]
        assert self.http.put("/v1/environment/clock", json={"offset_seconds": offset}).status_code == 200


@pytest.fixture
def story(database_url: str, sandbox: SandboxServer) -> Iterator[Story]:
    own = environment_settings(
        stripe_api_base=sandbox.url,
        stripe_secret_key=sandbox.secret_key,
        stripe_account=sandbox.account_id,
        stripe_webhook_secrets=(sandbox.webhook_secret,),
    )
    settings = Settings(database_url=database_url, secret_keys=(SECRET_KEY,), environments=(own,))
    with PlangateServer(settings, has_worker=True) as server, server.client(server.key()) as http:
        sandbox.set_webhook(f"{server.url}/webhooks/stripe")
        assert http.put("/v1/catalog", json=DOCUMENT).status_code == 200
        company = http.put("/v1/companies", json={"keys": {"id": "acme"}, "name": "Acme"}).json()["id"]
        yield Story(http, sandbox, server, company)
        sandbox.set_webhook(None)


def test_from_free_to_a_downgrade_that_arrives(story: Story) -> None:
    assert (story.plan(), story.limit()) == ("free", 10)
    quote = story.preview(plan="pro", interval="month", currency="usd")
    assert (quote["kind"], quote["due_today"], quote["needs_checkout"]) == (
        "subscribe",
        {"amount_minor": 4900, "currency": "usd"},
        True,
    )
    started = story.confirm(quote)
    assert started.status_code == 201, started.text
    change = started.json()
    assert (change["state"], change["next_action"]["kind"]) == ("awaiting_payment", "checkout")
    assert httpx.post(change["next_action"]["url"], data={"card": "visa"}, trust_env=False).status_code in {200, 303}
    story.wait(lambda: story.plan() == "pro")
    assert story.limit() == 1000
    assert story.http.get(f"{story.path}/{change['id']}").json()["state"] == "applied"

    down = story.preview(plan="starter")
    assert (down["kind"], down["due_today"]["amount_minor"], down["is_scheduled"]) == ("downgrade", 0, True)
    assert [lost["feature"] for lost in down["lost"]]
    first = story.confirm(down, **{"Idempotency-Key": "down-1"})
    again = story.confirm(down, **{"Idempotency-Key": "down-1"})
    anew = story.confirm(down)
    assert (first.status_code, first.json()["state"]) == (201, "scheduled"), first.text
    assert again.json() == first.json()
    assert anew.json()["id"] == first.json()["id"]
    assert story.http.get(f"/v1/companies/{story.company}").json()["scheduled_change"]["plan"] == "starter"

    refused = story.http.post(f"{story.path}/preview", json={"add_ons": {"extra-exports": 1}})
    assert (refused.status_code, problem(refused)["code"]) == (409, "downgrade_scheduled")
    kept = story.http.delete(f"{story.path}/scheduled")
    assert (kept.status_code, kept.json()["state"]) == (200, "cancelled"), kept.text
    assert problem(story.http.delete(f"{story.path}/scheduled"))["code"] == "nothing_scheduled"

    assert story.confirm(story.preview(plan="starter")).json()["state"] == "scheduled"
    story.advance("P32D")
    story.wait(lambda: story.plan() == "starter")
    assert story.limit() == 100
    states = [one["state"] for one in story.http.get(story.path).json()["data"]]
    page = story.http.get(story.path, params={"limit": 2}).json()
    rest = story.http.get(story.path, params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert ([one["state"] for one in page["data"] + rest["data"]], rest["next_cursor"]) == (states, None)
    assert sorted(states) == ["applied", "applied", "cancelled"]
    warnings = story.http.get("/readyz").json()["warnings"]
    assert not any("failed" in one for one in warnings), warnings


def test_s21_a_payment_the_bank_must_agree_to_is_a_402_until_it_is_done(story: Story) -> None:
    checkout = story.confirm(story.preview(plan="starter")).json()["next_action"]["url"]
    httpx.post(checkout, data={"card": "visa"}, trust_env=False)
    story.wait(lambda: story.plan() == "starter")
    customer = story.customer()
    stripe = story.sandbox.client().v1
    method = stripe.payment_methods.attach("pm_card_authenticationRequired", {"customer": customer})
    (subscription,) = stripe.subscriptions.list({"customer": customer}).data
    stripe.subscriptions.update(subscription.id, {"default_payment_method": method.id})

    key = {"Idempotency-Key": "up-1"}
    quotes: list[dict[str, Any]] = []

    def is_fresh() -> bool:
        # The webhook about the new card may arrive between a preview and its confirmation.
        quotes.append(story.in_app("plan.preview", customer=customer, plan="pro").json())
        return story.confirm(quotes[-1], **key).status_code != 409

    story.wait(is_fresh)
    quote = quotes[-1]
    first, again = story.confirm(quote, **key), story.confirm(quote, **key)
    staff = story.in_app("plan.change", customer=customer, operation_id="op_1", quote=quote["quote"])
    for found in map(problem, (first, again, staff)):
        assert (found["status"], found["code"]) == (402, "action_required")
        assert found["next_action"]["kind"] == "authenticate"
        assert (found["change"]["state"], found["change"]["to"]["plan"]) == ("requires_action", "pro")
    assert first.headers["plangate-version"]
    assert story.plan() == "starter"
    url = problem(first)["next_action"]["url"]
    paid = httpx.post(url, data={"card": "visa", "authentication": "complete"}, trust_env=False)
    assert paid.status_code in {200, 303}
    done = story.confirm(quote, **key)
    assert (done.status_code, done.json()["state"]) == (201, "applied"), done.text
    assert story.plan() == "pro"


def test_staff_extend_a_trial_from_the_dashboard(story: Story) -> None:
    pro = {**DOCUMENT["plans"]["pro"], "trial_days": 14}
    document = {**DOCUMENT, "plans": {**DOCUMENT["plans"], "pro": pro}}
    assert story.http.put("/v1/catalog", json=document).status_code == 200
    checkout = story.confirm(story.preview(plan="pro")).json()["next_action"]["url"]
    httpx.post(checkout, data={"card": "visa"}, trust_env=False)
    story.wait(lambda: story.plan() == "pro")

    def company() -> dict[str, Any]:
        found: dict[str, Any] = story.http.get(f"/v1/companies/{story.company}").json()
        return found

    def extend(operation_id: str, *, user: str = "usr_agent", **asked: object) -> httpx.Response:
        (customer,) = company()["stripe_customer_ids"]
        message = {"customer": customer, "operation_id": operation_id, "mode": "test", **asked}
        message |= {"user_id": user, "account_id": story.sandbox.account_id}
        body = json.dumps(message, separators=(",", ":")).encode()
        signature = {"Stripe-Signature": sign(body, APP_SECRET, at=wall_now())}
        return story.http.post("/stripe-app/v1/trial.extend", content=body, headers=signature)

    def until() -> datetime:
        return datetime.fromisoformat(company()["subscription"]["trial_end"])

    before = until()
    first, again = extend("op_1", days=7), extend("op_1", days=7)
    assert (first.status_code, first.json()["state"]) == (200, "applied"), first.text
    assert again.json() == first.json()
    assert until() == before + timedelta(days=7)
    exact = before + timedelta(days=30)
    assert extend("op_2", trial_end=exact.isoformat()).json()["state"] == "applied"
    assert until() == exact
    odd: list[dict[str, Any]] = [
        {},
        {"days": 0},
        {"days": 1, "trial_end": exact.isoformat()},
        {"trial_end": before.isoformat()},
    ]
    for number, asked in enumerate(odd):
        assert problem(extend(f"op_odd{number}", **asked))["status"] == 422, asked
    assert problem(extend("op_3", user="usr_somebody", days=7))["code"] == "role_too_low"
    assert until() == exact
    story.advance("P60D")
    story.wait(lambda: company()["subscription"]["status"] == "active")
    assert problem(extend("op_4", days=7))["code"] == "subscription_inactive"


def test_what_cannot_be_confirmed_is_a_documented_refusal(story: Story) -> None:
    for body in ({}, {"plan": "nope"}, {"plan": "pro", "cancel": "now"}, {"interval": "week"}, {"currency": "USD"}):
        answer = story.http.post(f"{story.path}/preview", json=body)
        assert answer.status_code in {404, 409, 422}, (body, answer.text)
        problem(answer)
    quote = story.preview(plan="pro")
    other = story.http.put("/v1/companies", json={"keys": {"id": "globex"}}).json()["id"]
    foreign = story.http.post(f"/v1/companies/{other}/plan-changes", json={"quote": quote["quote"]})
    assert foreign.status_code == 422, foreign.text
    tampered = quote["quote"][:-3] + ("abc" if not quote["quote"].endswith("abc") else "xyz")
    assert story.confirm({"quote": tampered}).status_code == 422
    story.advance("PT16M")
    late = story.confirm(quote)
    assert late.status_code in {201, 409}, late.text
    key = story.server.key(scopes=["write"])
    with story.server.client(key) as writer:
        forced = writer.post(f"{story.path}/preview", json={"plan": "pro", "force": {"reason": "they asked"}})
        assert (forced.status_code, problem(forced)["code"]) == (403, "forbidden")


def test_staff_schedules_and_cancels_from_the_dashboard(story: Story) -> None:
    call = story.in_app
    checkout = story.confirm(story.preview(plan="pro")).json()["next_action"]["url"]
    httpx.post(checkout, data={"card": "visa"}, trust_env=False)
    story.wait(lambda: story.plan() == "pro")
    customer = story.customer()
    quote = call("plan.preview", customer=customer, plan="starter").json()
    sent = {"customer": customer, "operation_id": "op_1", "quote": quote["quote"]}
    changed = call("plan.change", **sent)
    assert (changed.status_code, changed.json()["state"]) == (200, "scheduled"), changed.text
    assert call("plan.change", **sent).json() == changed.json()
    page = call("customer.get", customer=customer).json()
    assert (page["scheduled_change"]["id"], page["subscription"]["status"]) == (changed.json()["id"], "active")
    assert page["scheduled_change"]["to"]["plan"] == "starter"
    cancel = {"customer": customer, "operation_id": "op_2", "change": changed.json()["id"]}
    assert call("plan.cancel_scheduled", **cancel).json()["state"] == "cancelled"
    assert problem(call("plan.cancel_scheduled", **{**cancel, "operation_id": "op_3"}))["code"] == "nothing_scheduled"
    assert call("customer.get", customer=customer).json()["scheduled_change"] is None


def test_staff_end_a_trial_at_once_through_the_api(story: Story) -> None:
    plans = {**DOCUMENT["plans"], "pro": {**DOCUMENT["plans"]["pro"], "trial_days": 14}}
    assert story.http.put("/v1/catalog", json={**DOCUMENT, "plans": plans}).status_code == 200
    checkout = story.confirm(story.preview(plan="pro")).json()["next_action"]["url"]
    httpx.post(checkout, data={"card": "visa"}, trust_env=False)
    story.wait(lambda: story.plan() == "pro")
    assert story.http.get(f"/v1/companies/{story.company}").json()["subscription"]["status"] == "trialing"
    for said in ("never", "", 0):
        refused = story.http.post(f"{story.path}/preview", json={"trial_end": said})
        assert refused.status_code == 422, refused.text
    in_app = story.in_app("plan.preview", customer=story.customer(), trial_end="now")
    assert in_app.status_code == 200, in_app.text
    quote = story.preview(trial_end="now")
    assert quote["due_today"] == in_app.json()["due_today"] == {"amount_minor": 4900, "currency": "usd"}
    ended = story.confirm(quote)
    assert (ended.status_code, ended.json()["state"]) == (201, "applied"), ended.text
    assert story.http.get(f"/v1/companies/{story.company}").json()["subscription"]["status"] == "active"


def test_a_deal_is_made_through_the_api_by_an_admin_alone(story: Story) -> None:
    deal = {"amount_minor": 3900, "currency": "usd", "interval": "month", "name": "Acme 2027"}
    invoiced = {**deal, "collection_method": "send_invoice", "days_until_due": 14}
    with story.server.client(story.server.key(scopes=["write"])) as writer:
        refused = writer.post(f"{story.path}/preview", json={"plan": "pro", "custom_price": deal})
        assert (refused.status_code, problem(refused)["code"]) == (403, "forbidden")
    unknown = story.http.post(f"{story.path}/preview", json={"plan": "pro", "custom_price": {**deal, "discount": 5}})
    assert (unknown.status_code, problem(unknown)["errors"][0]["pointer"]) == (422, "/custom_price/discount")
    early = {**deal, "starts_at": "2020-01-01T00:00:00Z"}
    refused = story.http.post(f"{story.path}/preview", json={"plan": "pro", "custom_price": early})
    assert (refused.status_code, problem(refused)["errors"][0]["pointer"]) == (422, "/custom_price/starts_at")

    quote = story.preview(plan="pro", custom_price=invoiced, quantities={"plan": 2})
    assert (quote["kind"], quote["due_today"]["amount_minor"]) == ("subscribe", 7800)
    change = story.confirm(quote).json()
    assert (change["state"], change["to"]["quantity"]) == ("applied", 2)
    assert change["to"]["custom_price"] == {
        "amount_minor": 3900,
        "currency": "usd",
        "interval": "month",
        "interval_count": 1,
    }
    assert (story.plan(), story.limit()) == ("pro", 1000)
    on_sale = story.http.get("/v1/public/plans").text
    assert ("4900" in on_sale, "3900" in on_sale) == (True, False)


def test_a_deal_is_made_from_the_dashboard_by_an_admin_alone(story: Story) -> None:
    checkout = story.confirm(story.preview(plan="starter")).json()["next_action"]["url"]
    httpx.post(checkout, data={"card": "visa"}, trust_env=False)
    story.wait(lambda: story.plan() == "starter")
    price = {"custom_amount_minor": 3900, "custom_currency": "usd"}
    deal: dict[str, Any] = {"customer": story.customer(), "plan": "pro", **price}
    refused = story.in_app("plan.preview", **deal, custom_interval="month")
    assert (refused.status_code, problem(refused)["code"]) == (403, "role_too_low")
    lacking = story.in_app("plan.preview", user="usr_admin", **deal)
    assert (lacking.status_code, problem(lacking)["errors"][0]["pointer"]) == (422, "/custom_interval")
    quote = story.in_app("plan.preview", user="usr_admin", **deal, custom_interval="month")
    assert (quote.status_code, quote.json()["kind"]) == (200, "upgrade"), quote.text


def test_an_agent_puts_a_change_together_in_the_dashboard(story: Story) -> None:
    checkout = story.confirm(story.preview(plan="starter")).json()["next_action"]["url"]
    call = partial(story.in_app, customer=story.customer())
    waiting = call("customer.get").json()["pending_change"]
    assert (waiting["state"], waiting["next_action"]) == ("awaiting_payment", {"kind": "checkout", "url": checkout})
    httpx.post(checkout, data={"card": "visa"}, trust_env=False)
    story.wait(lambda: story.plan() == "starter")
    assert call("customer.get").json()["pending_change"] is None

    found = call("plan.offers").json()
    assert found["offers"] == story.http.get("/v1/public/plans").json()["data"]
    held = {"plan": "starter", "interval": "month", "interval_count": 1, "currency": "usd", "quantity": 1}
    assert found["held"] == {**held, "version": 1, "add_ons": {}, "units": {}, "is_custom": False}

    asked = {"plan": "pro", "interval": "month", "quantities": "plan=2,extra-exports=3"}
    quote = call("plan.preview", **asked)
    same = story.preview(plan="pro", interval="month", quantities={"plan": 2, "extra-exports": 3})
    assert quote.json()["due_today"] == same["due_today"], quote.text
    assert call("plan.change", operation_id="op_1", quote=quote.json()["quote"]).json()["state"] == "applied"
    held = call("plan.offers").json()["held"]
    assert (held["plan"], held["quantity"], held["add_ons"]) == ("pro", 2, {"extra-exports": 3})

    for quantities in ("plan", "plan=-1", "plan=1,", "=1", "plan=1;extra-exports=1", "Plan=1", "plan=12345678", ""):
        assert problem(call("plan.preview", quantities=quantities))["errors"][0]["pointer"] == "/quantities"
    assert problem(call("plan.preview", quantities="plan=1,plan=2"))["errors"][0]["pointer"] == "/quantities"
    assert problem(call("plan.preview", quantities="gold=1"))["errors"][0]["pointer"] == "/quantities/gold"
    unknown = problem(call("plan.preview", quantities="plan=3", promotion_code="NOPE"))
    assert unknown["errors"][0]["pointer"] == "/promotion_code"

    cancelled = call("plan.preview", cancel="period_end").json()["quote"]
    assert call("plan.change", operation_id="op_2", quote=cancelled).json()["state"] == "scheduled"
    assert call("customer.get").json()["scheduled_change"]["kind"] == "cancel"
    resumed = call("plan.preview", resume=True).json()
    assert (resumed["kind"], resumed["due_today"]["amount_minor"]) == ("resume", 0)
    assert call("plan.change", operation_id="op_3", quote=resumed["quote"]).json()["state"] == "applied"
    assert call("customer.get").json()["scheduled_change"] is None


def test_every_few_months_is_asked_for_in_the_api_and_in_the_dashboard(story: Story) -> None:
    """As seldom as a price can be paid: 1,095 days are well formed, and refused only because nothing is sold so."""
    quarter = {"currency": "usd", "interval": "month", "interval_count": 3, "amount_minor": 12_000}
    pro = {**DOCUMENT["plans"]["pro"], "prices": [*DOCUMENT["plans"]["pro"]["prices"], quarter]}
    document = {**DOCUMENT, "plans": {**DOCUMENT["plans"], "pro": pro}}
    assert story.http.put("/v1/catalog", json=document).status_code == 200
    checkout = story.confirm(story.preview(plan="starter")).json()["next_action"]["url"]
    httpx.post(checkout, data={"card": "visa"}, trust_env=False)
    story.wait(lambda: story.plan() == "starter")
    call = partial(story.in_app, customer=story.customer())
    asked: dict[str, Any] = {"plan": "pro", "interval": "month", "interval_count": 3}
    assert call("plan.preview", **asked).json()["due_today"] == story.preview(**asked)["due_today"]
    quote = call("plan.preview", **asked).json()["quote"]
    change = call("plan.change", operation_id="op_1", quote=quote).json()
    assert (change["to"]["interval"], change["to"]["interval_count"]) == ("month", 3)
    story.wait(lambda: story.plan() == "pro")
    held = story.http.get(f"/v1/companies/{story.company}").json()["subscription"]
    assert (held["interval"], held["interval_count"]) == ("month", 3)
    assert call("customer.get").json()["subscription"]["interval_count"] == 3

    seldom: dict[str, Any] = {"plan": "pro", "interval": "day"}
    for count, says in ((1_095, "not sold in that currency and interval"), (1_096, "")):
        there = story.http.post(f"{story.path}/preview", json={**seldom, "interval_count": count})
        for refused in (there, call("plan.preview", **seldom, interval_count=count)):
            assert refused.status_code == 422
            assert says in problem(refused)["detail"]
            assert ("/interval_count" in refused.text) is (count == 1_096)


def test_an_agent_chooses_the_currency_until_the_company_pays_in_one(story: Story) -> None:
    euros = [{"currency": "eur", "interval": "month", "amount_minor": 4500}]
    pro = {**DOCUMENT["plans"]["pro"], "prices": [*DOCUMENT["plans"]["pro"]["prices"], *euros]}
    assert (
        story.http.put("/v1/catalog", json={**DOCUMENT, "plans": {**DOCUMENT["plans"], "pro": pro}}).status_code == 200
    )
    story.confirm(story.preview(plan="pro"))  # Makes the customer, who never pays there.
    wanted = partial(story.in_app, "plan.preview", customer=story.customer(), plan="pro", interval="month")
    assert wanted(currency="eur").json()["due_today"] == {"amount_minor": 4500, "currency": "eur"}
    assert problem(wanted(currency="EUR"))["errors"][0]["pointer"] == "/currency"
    assert problem(wanted(currency="gbp"))["code"] == "invalid"
    change = story.in_app(
        "plan.change", customer=story.customer(), operation_id="op_1", quote=wanted(currency="eur").json()["quote"]
    )
    httpx.post(change.json()["next_action"]["url"], data={"card": "visa"}, trust_env=False)
    story.wait(lambda: story.plan() == "pro")
    assert story.in_app("plan.offers", customer=story.customer()).json()["held"]["currency"] == "eur"
    assert problem(wanted(currency="usd"))["code"] == "currency_pinned"
