"""Extreme values for every parameter of every route: an answer or a refusal, never a failure of the sandbox."""

import asyncio
from typing import Any

import httpx

from plangate.sandbox import spec
from plangate.sandbox.routes import ROUTES
from tests.sandbox.shop import open_shop, subscribe
from tests.sandbox_server import SandboxServer

_HUGE = "9223372036854775807"


def _values(rules: tuple[spec.Rule, ...], name: str, depth: int = 0) -> list[dict[str, str]]:
    """Forms that set one parameter to something extreme yet well typed."""
    found: list[dict[str, str]] = []
    for rule in rules:
        if rule.kind == "integer":
            found += [{name: value} for value in (_HUGE, f"-{_HUGE}")]
        elif rule.kind in ("decimal", "number"):
            found += [{name: value} for value in ("9" * 15, "-1.5")]
        elif rule.kind == "choice":
            found += [{name: choice} for choice in rule.choices[:2]]
        elif rule.kind == "boolean":
            found += [{name: "true"}, {name: "false"}]
        elif rule.kind == "text":
            found += [{name: "\u202e<script>" + "x" * 300}]
        elif rule.kind == "list" and depth < 3:
            found += _values(rule.inner, f"{name}[0]", depth + 1)
        elif rule.kind == "map":
            found += [{f"{name}[key]": "v" * 400}, {f"{name}[{'k' * 60}]": "v"}]
        elif rule.kind == "object" and depth < 2:
            for child, known in rule.fields.items():
                found += _values(known.rules, f"{name}[{child}]", depth + 1)[:2]
    return found


async def test_no_value_breaks_the_sandbox(sandbox: SandboxServer) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro, shop.metered)
    schedule = await shop.client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    other = await subscribe(shop, shop.starter)
    now = int(sandbox.app_state.sandbox.world.now())
    ids = {
        "/v1/customers": shop.customer,
        "/v1/prices": shop.pro,
        "/v1/subscriptions": other.id,
        "/v1/subscription_schedules": schedule.id,
        "/v1/invoices": str(subscription.latest_invoice),
        "/v1/payment_methods": shop.card,
        "/v1/billing/meters": shop.meter,
    }
    base: dict[str, dict[str, str]] = {
        "/v1/subscriptions": {"customer": shop.customer, "items[0][price]": shop.seats},
        "/v1/subscription_schedules": {"customer": shop.customer, "phases[0][items][0][price]": shop.seats},
        "/v1/prices": {"currency": "usd", "unit_amount": "5", "product_data[name]": "X"},
        "/v1/coupons": {"percent_off": "5"},
        "/v1/invoices/create_preview": {"subscription": other.id},
        "/v1/checkout/sessions": {
            "mode": "subscription",
            "success_url": "http://shop.test/",
            "line_items[0][price]": shop.seats,
            "line_items[0][quantity]": "1",
        },
        "/v1/billing/meter_events": {
            "event_name": "exports",
            "payload[stripe_customer_id]": shop.customer,
            "payload[value]": "1",
        },
        "/v1/billing/meters/{}/event_summaries": {
            "customer": shop.customer,
            "start_time": str(now - now % 3600),
            "end_time": str(now - now % 3600 + 3600),
        },
        "/v1/tax_rates": {"display_name": "VAT", "percentage": "20", "inclusive": "false"},
        "/v1/customers/{}/balance_transactions": {"amount": "5", "currency": "usd"},
    }
    broken: list[Any] = []
    asked = 0
    limit = asyncio.Semaphore(8)
    headers = {"Authorization": f"Bearer {sandbox.secret_key}"}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers, trust_env=False, timeout=30) as http:

        async def ask(method: str, path: str, form: dict[str, str]) -> None:
            async with limit:
                where = {"data": form} if method == "POST" else {"params": form}
                answer = await http.request(method, path, **where)  # type: ignore[arg-type]  # Either of two keywords.
                if answer.status_code >= 500:
                    broken.append((method, path, form, answer.text[:200]))

        for route in ROUTES:
            if route.method == "DELETE" or route.pattern.endswith(("/cancel", "/release", "/detach", "/void")):
                continue
            prefix = route.pattern.partition("/{}")[0]
            path = route.pattern.replace("{}", ids.get(prefix, "none"))
            forms = [
                {**base.get(route.pattern, {}), **form}
                for name, known in spec.params_fields(route.params).items()
                if not name.startswith("payment_method_")
                for form in _values(known.rules, name)
            ]
            asked += len(forms)
            await asyncio.gather(*(ask(route.method, path, form) for form in forms))
        sandbox.advance("P40D")
        await ask("GET", f"/v1/subscriptions/{other.id}", {})
    assert broken == []
    assert asked > 1000
