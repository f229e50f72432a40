"""How soon a change decides: a webhook received, and a catalogue published, until the next decision shows it."""

import copy
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import msgspec

from benchmarks.servers import ACTOR, CATALOGUE, COMPANIES, plangate
from benchmarks.table import Line
from plangate import access, catalog, sync
from plangate.billing.gateway import CustomerState
from plangate.billing.signatures import sign, verify_webhook
from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.environment import Environment
from plangate.settings import EnvironmentSettings, Settings
from plangate.store.database import Database
from plangate.store.schema import migrate
from tests.sandbox_server import SandboxServer
from tests.shop import Shop

_TARGET_MS: Final = 5.0
_FEATURE: Final = "feature-1"


async def webhook(folder: Path, *, times: int) -> Line:
    """From the signed bytes of an event to a decision by what Stripe says now, without the time Stripe takes."""
    url = f"sqlite:///{folder / 'webhook.sqlite3'}"
    database = Database.at(url)
    await migrate(database)
    await database.close()
    with SandboxServer() as sandbox:
        own = EnvironmentSettings(
            stripe_secret_key=sandbox.secret_key,
            stripe_account=sandbox.account_id,
            stripe_mode="test",
            stripe_api_base=sandbox.url,
            stripe_webhook_secrets=(sandbox.webhook_secret,),
            allowed_origins=("http://shop.test",),
        )
        deployment = await Deployment.open(
            Settings(database_url=url, secret_keys=("benchmark-0123456789abcdef0123456789abcdef",), environments=(own,))
        )
        try:
            shop = await Shop.open(deployment.named(None), sandbox)
            found = await _webhooks(shop, times)
            await shop.close()
        finally:
            await deployment.close()
    return _line("webhook received → decision, p99", found)


async def _webhooks(shop: Shop, times: int) -> list[float]:
    env = shop.env
    subscription_id = await shop.subscribed()
    plans = (await env.catalog()).plans
    prices = {name: plans[name].prices[0].stripe_price_id or "" for name in ("starter", "pro")}
    limits = {"starter": 100, "pro": 1000}
    at_stripe = _Fetching(env)
    found = []
    for number in range(times):
        plan = ("starter", "pro")[number % 2]
        subscription = shop.stripe.subscriptions.retrieve(subscription_id)
        item = subscription["items"]["data"][0]["id"]
        shop.stripe.subscriptions.update(
            subscription_id, {"items": [{"id": item, "price": prices[plan]}], "proration_behavior": "none"}
        )
        event = shop.stripe.events.list({"limit": 1}).data[0].to_dict(for_json=True)
        body = msgspec.json.encode(event)
        signature = sign(body, shop.sandbox.webhook_secret, at=wall_now())
        at_stripe.seconds = 0.0
        began = perf_counter()
        verify_webhook(body, signature, [(shop.sandbox.webhook_secret, "default")], now=wall_now())
        await sync.receive(env, msgspec.json.decode(body))
        await sync.work_inbox(env)
        standing = await env.standings.of(shop.company_id)
        if standing is None or access.check_now(env, standing, "exports").limit != limits[plan]:
            raise RuntimeError("the decision does not show what the webhook was about")
        found.append((perf_counter() - began - at_stripe.seconds) * 1000)
    return found


class _Fetching:
    """Counts the seconds that fetching from Stripe takes."""

    def __init__(self, env: Environment) -> None:
        self.seconds = 0.0
        self._fetch = env.gateway.fetch_customer_state
        env.gateway.fetch_customer_state = self._fetched  # type: ignore[method-assign]  # the one way to time it alone

    async def _fetched(self, stripe_customer_id: str) -> CustomerState | None:
        began = perf_counter()
        try:
            return await self._fetch(stripe_customer_id)
        finally:
            self.seconds += perf_counter() - began


async def publishing(folder: Path, *, times: int) -> Line:
    """From a published catalogue to the first decision by it, for any subscriber."""
    _, deployment, _ = await plangate(folder, url=f"sqlite:///{folder / 'publishing.sqlite3'}")
    env = deployment.named(None)
    found = []
    try:
        for number in range(times):
            document: dict[str, Any] = copy.deepcopy(CATALOGUE)
            limit = 10**9 + number
            document["plans"]["pro"]["entitlements"][_FEATURE]["limit"] = limit
            await catalog.apply(env, document, actor=ACTOR)
            for company in (number, number + COMPANIES // 3, number + COMPANIES // 2):
                asked = {"id": f"company-{company % COMPANIES}"}
                began = perf_counter()
                decision = await access.check(env, company=asked, feature=_FEATURE)
                found.append((perf_counter() - began) * 1000)
                if decision.limit != limit:
                    raise RuntimeError("the decision does not show the published catalogue")
    finally:
        await deployment.close()
    return _line("catalogue published → decision, p99", found)


def _line(work: str, found: Sequence[float]) -> Line:
    slowest = sorted(found)[len(found) * 99 // 100]
    return Line(
        work,
        f"median {median(found):.2f} ms",
        f"{slowest:.2f} ms",
        None,
        f"≤ {_TARGET_MS:.0f} ms",
        slowest <= _TARGET_MS,
    )
