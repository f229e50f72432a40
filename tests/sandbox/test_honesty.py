"""The stand-in against the official package: no parameter it invents, no field it leaves out, no word of its own."""

from __future__ import annotations

import inspect
from typing import Any

import httpx
import pytest
import stripe

from plangate.sandbox import spec
from plangate.sandbox.render import RESOURCES
from plangate.sandbox.routes import ROUTES
from plangate.sandbox.routing import Route
from tests.sandbox.shop import first_item, open_shop, subscribe
from tests.sandbox_server import SandboxServer

Obj = dict[str, Any]

_IDS = [f"{route.method} {route.pattern}" for route in ROUTES]


def _send(sandbox: SandboxServer, route: Route, form: Obj, ids: str = "none") -> httpx.Response:
    path = route.pattern.replace("{}", ids)
    headers = {"Authorization": f"Bearer {sandbox.secret_key}"}
    with httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False) as client:
        if route.method == "POST":
            return client.post(path, data=form)
        return client.request(route.method, path, params=form)


@pytest.mark.parametrize("route", ROUTES, ids=_IDS)
def test_every_route_takes_only_stripes_own_parameters(sandbox_process: SandboxServer, route: Route) -> None:
    fields = spec.params_fields(route.params)
    answer = _send(sandbox_process, route, {"made_up": "1"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "parameter_unknown", "made_up")
    assert error["type"] == "invalid_request_error"
    for name, known in fields.items():
        kinds = {rule.kind for rule in known.rules}
        if kinds <= {"integer"}:
            error = _send(sandbox_process, route, {name: "many"}).json()["error"]
            assert error["param"] == name
            assert error["message"] == "Invalid integer: many"
        if kinds == {"boolean"}:
            assert _send(sandbox_process, route, {name: "perhaps"}).json()["error"]["param"] == name
        if kinds == {"choice"}:
            error = _send(sandbox_process, route, {name: "no-such-choice"}).json()["error"]
            assert "must be one of" in error["message"]
        if kinds == {"object"}:
            error = _send(sandbox_process, route, {f"{name}[made_up]": "1"}).json()["error"]
            assert (error["code"], error["param"]) == ("parameter_unknown", f"{name}[made_up]")


@pytest.mark.parametrize("route", ROUTES, ids=_IDS)
def test_every_route_misses_what_stripe_requires(sandbox_process: SandboxServer, route: Route) -> None:
    wanted = [name for name, known in spec.params_fields(route.params).items() if known.is_required]
    answer = _send(sandbox_process, route, {})
    if wanted:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "parameter_missing"
        assert answer.json()["error"]["param"] in wanted
    else:
        assert answer.json().get("error", {}).get("code") != "parameter_unknown"


def test_routes_name_parameter_types_of_the_service_they_stand_for() -> None:
    known = set(spec.every_params_type())
    assert {route.params.rpartition(".")[2] for route in ROUTES} <= known


def test_parameters_that_were_removed_are_refused(sandbox_process: SandboxServer) -> None:
    create = next(r for r in ROUTES if (r.method, r.pattern) == ("POST", "/v1/checkout/sessions"))
    error = _send(sandbox_process, create, {"mode": "setup", "payment_method_types[]": "card"}).json()["error"]
    assert (error["code"], error["param"]) == ("parameter_unknown", "payment_method_types")
    update = next(r for r in ROUTES if (r.method, r.pattern) == ("POST", "/v1/subscriptions/{}"))
    error = _send(sandbox_process, update, {"billing_cycle_anchor": "now"}).json()["error"]
    assert error["param"] == "billing_cycle_anchor"


async def test_every_object_carries_what_the_official_types_require(sandbox: SandboxServer) -> None:
    await _live_a_little(sandbox)
    state = sandbox.control("GET", "state")
    seen: set[str] = set()
    faults: list[str] = []
    for kind, rows in state["objects"].items():
        for row in rows:
            _compare(row, kind, faults, seen)
    events = sandbox.app_state.sandbox.world.store.all("event")
    for event in events:
        _compare({k: v for k, v in event.items() if not k.startswith("_")}, "event", faults, seen)
        about = event["data"]["object"]
        _compare(about, about["object"], faults, seen)
    assert sorted(set(faults)) == []
    rare = {"account", "billing_portal.configuration", "item", "plan", "test_helpers.test_clock"}
    computed = {"billing.meter_event_summary", "entitlements.active_entitlement"}
    assert set(RESOURCES) - seen - rare - computed == set()


async def test_single_answers_parse_as_the_types_they_claim(sandbox: SandboxServer) -> None:
    await _live_a_little(sandbox)
    objects = sandbox.control("GET", "state")["objects"]
    faults: list[str] = []
    asked = 0
    for route in ROUTES:
        if route.method != "GET" or route.pattern.count("{}") != 1 or not route.pattern.endswith("{}"):
            continue
        kind = next(k for k, resource in RESOURCES.items() if resource == route.returns)
        rows = objects.get(kind) or []
        if not rows:
            continue
        answer = _send(sandbox, route, {}, rows[0]["id"])
        assert answer.status_code == 200, (route.pattern, answer.text)
        _compare(answer.json(), kind, faults, set())
        asked += 1
    assert faults == []
    assert asked >= 15
    client = sandbox.client()
    account = await client.v1.accounts.retrieve_current_async()
    assert account.id == sandbox.account_id


def _compare(row: Obj, kind: str, faults: list[str], seen: set[str]) -> None:
    if row.get("deleted"):
        return
    resource = RESOURCES[kind]
    seen.add(kind)
    have = set(row)
    if kind == "billing.meter_event":
        have.discard("id")
    faults += [f"{kind}: lacks {name}" for name in spec.required_fields(resource) - have]
    faults += [f"{kind}: invents {name}" for name in have - spec.known_fields(resource)]
    faults += [
        f"{kind}: {name} is null" for name in spec.required_fields(resource) if name in row and row[name] is None
    ]
    for name, value in row.items():
        _compare_nested(value, f"{kind}.{name}", spec.inner_classes(resource, name), faults, seen)


def _compare_nested(value: object, where: str, cls: type | None, faults: list[str], seen: set[str]) -> None:
    if isinstance(value, list):
        for child in value:
            _compare_nested(child, where, cls, faults, seen)
        return
    if not isinstance(value, dict):
        return
    named = value.get("object")
    if named == "list":
        _compare_nested(value["data"], where, cls, faults, seen)
    elif isinstance(named, str) and named in RESOURCES:
        _compare(value, named, faults, seen)
    elif cls is not None:
        known = set(inspect.get_annotations(cls))
        faults += [f"{where}: lacks {name}" for name in spec.class_required_fields(cls) - set(value)]
        faults += [f"{where}: invents {name}" for name in set(value) - known]
        inner = getattr(cls, "_inner_class_types", {})
        for name, child in value.items():
            found = inner.get(name)
            _compare_nested(child, f"{where}.{name}", found if isinstance(found, type) else None, faults, seen)


async def _live_a_little(sandbox: SandboxServer) -> None:
    """Make at least one object of every kind, in as many states as a short life has."""
    shop = await open_shop(sandbox)
    client = shop.client
    rate = await client.v1.tax_rates.create_async({"display_name": "VAT", "percentage": 20, "inclusive": False})
    coupon = await client.v1.coupons.create_async({"percent_off": 10, "duration": "forever"})
    code = await client.v1.promotion_codes.create_async({"promotion": {"type": "coupon", "coupon": coupon.id}})
    await client.v1.billing.meter_events.create_async(
        {"event_name": "exports", "payload": {"stripe_customer_id": shop.customer, "value": "25"}}
    )
    tiered = await client.v1.prices.create_async(
        {
            "currency": "usd",
            "product_data": {"name": "Calls"},
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": [{"up_to": 10, "unit_amount": 5}, {"up_to": "inf", "unit_amount": 3, "flat_amount": 10}],
            "recurring": {"interval": "month"},
        }
    )
    subscription = await subscribe(
        shop,
        shop.pro,
        shop.metered,
        tiered.id,
        discounts=[{"promotion_code": code.id}],
        default_tax_rates=[rate.id],
    )
    sandbox.advance("P3D")
    await client.v1.subscriptions.update_async(
        subscription.id, {"items": [{"id": first_item(subscription).id, "price": shop.starter}]}
    )
    schedule = await client.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    feature = await client.v1.entitlements.features.create_async({"name": "SSO", "lookup_key": "sso"})
    product = (await client.v1.prices.retrieve_async(shop.pro)).product
    await client.v1.products.features.create_async(str(product), {"entitlement_feature": feature.id})
    await client.v1.webhook_endpoints.create_async(
        {"url": "http://127.0.0.1:9/none", "enabled_events": ["price.created"]}
    )
    await client.v1.billing_portal.sessions.create_async({"customer": shop.customer})
    for mode in ("setup", "subscription"):
        await client.v1.checkout.sessions.create_async(
            {
                "mode": mode,
                "customer": shop.customer,
                "success_url": "http://shop.test/ok",
                **({} if mode == "setup" else {"line_items": [{"price": shop.pro, "quantity": 1}]}),
            }
        )
    intents = await client.v1.payment_intents.list_async({"customer": shop.customer})
    await client.v1.refunds.create_async({"payment_intent": intents.data[0].id, "amount": 100})
    charges = await client.v1.charges.list_async({"payment_intent": intents.data[0].id})
    sandbox.control("POST", "disputes", {"charge": charges.data[0].id})
    await client.v1.customers.balance_transactions.create_async(shop.customer, {"amount": -500, "currency": "usd"})
    bad = await client.v1.payment_methods.attach_async("pm_card_chargeCustomerFail", {"customer": shop.customer})
    await client.v1.subscriptions.update_async(subscription.id, {"default_payment_method": bad.id})
    with pytest.raises(stripe.CardError):
        await client.v1.subscriptions.update_async(
            subscription.id,
            {
                "items": [{"price": shop.seats, "quantity": 20}],
                "proration_behavior": "always_invoice",
                "payment_behavior": "error_if_incomplete",
            },
        )
    await client.v1.subscriptions.update_async(
        subscription.id,
        {
            "items": [{"price": shop.seats, "quantity": 20}],
            "proration_behavior": "always_invoice",
            "payment_behavior": "pending_if_incomplete",
        },
    )
    await client.v1.subscription_schedules.release_async(schedule.id)
    sandbox.advance("P30D")
