"""A small catalogue sold through the sandbox, and a company that buys from it: what tests of billing start from."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
from stripe import HTTPXClient

from plangate import catalog, plan_changes
from plangate.engine.entitlements import CompanySnapshot
from plangate.environment import Environment
from plangate.ids import new_id
from plangate.plan_changes import ChangeRequest
from plangate.shapes import Actor, PlanChange, Quote
from plangate.store.companies import STRIPE_CUSTOMER_KEY, CompanyRow, add_keys
from plangate.store.database import StoreSession
from plangate.store.plan_changes import PlanChangeRow, changes_of
from plangate.sync import work_inbox
from tests.sandbox_server import SandboxServer

CUSTOMER = Actor(kind="customer", id="acme")
STAFF = Actor(kind="stripe_user", id="usr_agent")
RETURN_URL = "http://shop.test/billing"

DOCUMENT: dict[str, Any] = {
    "version": 1,
    "initial_plan": "free",
    "fallback_plan": "free",
    "features": {
        "exports": {"name": "Exports", "type": "event", "unit": "export", "units": "exports"},
        "sso": {"name": "Single sign-on", "type": "boolean"},
    },
    "plans": {
        "free": {"name": "Free", "entitlements": {"exports": {"limit": 10, "period": "billing_month"}}},
        "starter": {
            "name": "Starter",
            "entitlements": {"exports": {"limit": 100, "period": "billing_month"}},
            "prices": [
                {"currency": "usd", "interval": "month", "amount_minor": 1900},
                {"currency": "usd", "interval": "year", "amount_minor": 18200},
            ],
        },
        "pro": {
            "name": "Pro",
            "entitlements": {"exports": {"limit": 1000, "period": "billing_month"}, "sso": True},
            "prices": [
                {"currency": "usd", "interval": "month", "amount_minor": 4900},
                {"currency": "usd", "interval": "year", "amount_minor": 47000},
            ],
        },
    },
    "add_ons": {
        "extra-exports": {
            "name": "Extra exports",
            "entitlements": {"exports": {"limit": 500, "period": "billing_month", "stacking": "sum"}},
            "prices": [
                {"currency": "usd", "interval": "month", "amount_minor": 500},
                {"currency": "usd", "interval": "year", "amount_minor": 4800},
            ],
            "fits": ["starter", "pro"],
        }
    },
}


class _Client(HTTPXClient):
    """The package's client without httpx's warning about bodies sent as `data`."""

    def _get_request_args_kwargs(self, method: str, url: str, headers: Any, post_data: Any) -> Any:  # noqa: ANN401 - as inherited
        arguments, options = super()._get_request_args_kwargs(method, url, headers, post_data)
        options["content"] = options.pop("data") or None
        return arguments, options


class Shop:
    """One environment with its catalogue applied in the sandbox, and one company on the free plan."""

    def __init__(self, env: Environment, sandbox: SandboxServer, company_id: str) -> None:
        self.env = env
        self.sandbox = sandbox
        self.company_id = company_id
        self.hours_subscribed = 0  # how long ago a company subscribed when it asks for a change, in scenarios
        self._http = _Client(timeout=30, allow_sync_methods=True)
        self.stripe = sandbox.client(http_client=self._http).v1

    @classmethod
    async def open(cls, env: Environment, sandbox: SandboxServer, document: dict[str, Any] | None = None) -> "Shop":
        """Apply the catalogue, create the company."""
        await catalog.apply(env, document or DOCUMENT, actor=Actor(kind="cli", id="tests"))
        return cls(env, sandbox, await new_company(env, "acme"))

    async def close(self) -> None:
        """Close the official client's connections."""
        self._http.close()  # type: ignore[no-untyped-call]  # the package leaves it untyped
        await self._http.close_async()  # type: ignore[no-untyped-call]  # same

    async def snapshot(self) -> CompanySnapshot:
        """The company as it is now."""
        standing = await self.env.standings.of(self.company_id)
        assert standing is not None
        return standing.snapshot_at(self.env.clock.now())

    async def plan(self) -> str | None:
        """The key of the base plan."""
        held = (await self.snapshot()).plan
        return None if held is None else held.key

    async def customer(self, card: str | None = "pm_card_visa") -> str:
        """Give the company a Stripe customer, with a card on file unless None."""
        made = self.stripe.customers.create({"name": "Acme", "metadata": {"plangate_company": self.company_id}})
        async with self.env.writing() as session:
            await add_keys(session, self.company_id, [(STRIPE_CUSTOMER_KEY, made.id)])
            await self.env.touch(session, self.company_id)
        if card is not None:
            self.new_card(made.id, card)
        return made.id

    def new_card(self, stripe_customer_id: str, card: str) -> str:
        """Make this the card that is charged."""
        method = self.stripe.payment_methods.attach(card, {"customer": stripe_customer_id})
        self.stripe.customers.update(stripe_customer_id, {"invoice_settings": {"default_payment_method": method.id}})
        return method.id

    async def preview(self, *, actor: Actor = CUSTOMER, **asked: Any) -> Quote:  # noqa: ANN401 - fields of ChangeRequest
        """A quote, held to what every quote promises: its lines come to what is due."""
        wish = msgspec.convert(asked, ChangeRequest)
        quote = await plan_changes.preview(self.env, self.company_id, wish, actor=actor)
        assert_adds_up(quote)
        return quote

    async def confirm(self, quote: Quote, *, actor: Actor = CUSTOMER) -> PlanChange:
        return await plan_changes.confirm(self.env, self.company_id, quote.quote, actor=actor, return_url=RETURN_URL)

    async def change(self, *, actor: Actor = CUSTOMER, **asked: Any) -> PlanChange:  # noqa: ANN401 - fields of ChangeRequest
        return await self.confirm(await self.preview(actor=actor, **asked), actor=actor)

    async def subscribed(self, card: str = "pm_card_visa", **asked: Any) -> str:  # noqa: ANN401 - fields of ChangeRequest
        """Put the company on a paid plan with a card on file; answers the subscription's id."""
        await self.customer(card)
        change = await self.change(**{"plan": "pro", **asked})
        assert change.state == "applied", change
        subscription = (await self.snapshot()).subscription
        assert subscription is not None
        return subscription.stripe_subscription_id

    def pay(self, url: str, card: str = "visa", **form: str) -> int:
        """What a person does on the hosted Checkout page."""
        answer = httpx.post(url, data={"card": card, **form}, trust_env=False)
        return answer.status_code

    def advance(self, duration: str) -> None:
        """Move the clocks of both sides."""
        self.sandbox.advance(duration)
        offset = self.sandbox.control("GET", "clock")["offset_seconds"]
        self.env.clock.offset = timedelta(seconds=offset)

    async def sync(self) -> None:
        """Fetch what happened: events listed, stored, acted on."""
        from plangate.sync import sweep

        await sweep(self.env)
        while await work_inbox(self.env):
            pass

    def requests(self, method: str = "POST", path: str = "") -> list[dict[str, Any]]:
        """What the sandbox was asked."""
        logged = self.sandbox.control("GET", "requests")["data"]
        return [one for one in logged if one["method"] == method and path in one["path"]]

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """All objects of one kind in the sandbox."""
        return self.sandbox.objects(kind)

    async def rows(self) -> list[PlanChangeRow]:
        async with self.env.reading() as session:
            return await changes_of(session, self.company_id)

    def now(self) -> datetime:
        return self.env.clock.now()


def assert_adds_up(quote: Quote) -> None:
    """The lines come to what is due or given back; tax is in them, or on top of them, or some of it each."""
    credit = 0 if quote.credit is None else quote.credit.amount_minor
    tax = 0 if quote.tax is None else quote.tax.amount_minor
    on_top = quote.due_today.amount_minor - credit - sum(line.amount_minor for line in quote.lines)
    assert min(0, tax) <= on_top <= max(0, tax), f"{on_top} of tax {tax} on top of {quote.lines}: {quote.due_today}"


async def new_company(env: Environment, key: str) -> str:
    """A company known by `id=key`, on the initial plan."""
    company_id = new_id("comp")
    async with env.writing() as session:
        await insert_company(session, company_id, key)
        await env.touch(session, company_id)
    return company_id


async def insert_company(session: StoreSession, company_id: str, key: str) -> None:
    await session.add(
        CompanyRow(
            id=company_id,
            environment_id=session.environment_id,
            name=key.title(),
            created_at=session.now,
            updated_at=session.now,
        )
    )
    await add_keys(session, company_id, [("id", key)])


def plain(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """As it would be sent."""
    return msgspec.to_builtins(value)
