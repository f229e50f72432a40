"""Customers, and the credit they hold."""

from __future__ import annotations

import re
from typing import Any

from plangate.sandbox.errors import invalid
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .payment_methods import attach, usable_method

Obj = dict[str, Any]

_PLAIN = ("description", "email", "name", "phone", "business_name", "individual_name", "address", "shipping")
_CLAUSE = re.compile(
    r"\s*(?P<field>[a-z_]+)(?:\[['\"](?P<key>[^'\"]+)['\"]\])?\s*(?P<op>[:~<>]=?)\s*['\"](?P<value>[^'\"]*)['\"]\s*"
)


def create_customer(world: World, call: Call) -> Obj:
    """`POST /v1/customers`."""
    return view(world, new_customer(world, call.params))


def new_customer(world: World, p: Obj) -> Obj:
    """A customer made from create parameters."""
    customer = world.store.add(
        {
            "id": new_id("cus", 14),
            "object": "customer",
            "created": world.now(),
            "balance": p.get("balance", 0),
            "currency": None,
            "delinquent": False,
            "discount": None,
            "invoice_prefix": (p.get("invoice_prefix") or new_id("", 8)[1:]).upper(),
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": False,
            "metadata": merged_metadata({}, p.get("metadata")),
            "next_invoice_sequence": p.get("next_invoice_sequence", 1),
            "preferred_locales": p.get("preferred_locales", []),
            "tax_exempt": p.get("tax_exempt") or "none",
            **{name: p.get(name) or None for name in _PLAIN},
        }
    )
    settings = p.get("invoice_settings")
    if "payment_method" in p:
        method = attach(world, usable_method(world, p["payment_method"], "payment_method"), customer)
        if settings and settings.get("default_payment_method") == p["payment_method"]:
            # A test token names a fresh card each time: here it is the one just attached.
            settings = {**settings, "default_payment_method": method["id"]}
    _set_default(world, customer, settings)
    world.emit("customer.created", customer)
    return customer


def retrieve_customer(world: World, call: Call) -> Obj:
    """`GET /v1/customers/{id}`: a deleted one answers with its stub."""
    return view(world, world.require("customer", call.ids[0]))


def update_customer(world: World, call: Call) -> Obj:
    """`POST /v1/customers/{id}`."""
    p = call.params
    customer = live_customer(world, call.ids[0])
    with world.changing(customer, "customer.updated"):
        for name in _PLAIN:
            if name in p:
                customer[name] = p[name] or None
        for name in ("preferred_locales", "invoice_prefix", "next_invoice_sequence"):
            if name in p:
                customer[name] = p[name]
        if "tax_exempt" in p:
            customer["tax_exempt"] = p["tax_exempt"] or "none"
        if "metadata" in p:
            customer["metadata"] = merged_metadata(customer["metadata"], p["metadata"])
        if "balance" in p and p["balance"] != customer["balance"]:
            add_balance(world, customer, p["balance"] - customer["balance"], currency=customer["currency"] or "usd")
        _set_default(world, customer, p.get("invoice_settings"))
    return view(world, customer)


def delete_customer(world: World, call: Call) -> Obj:
    """`DELETE /v1/customers/{id}`: its subscriptions end at once."""
    from plangate.sandbox.billing import ending  # noqa: PLC0415 - ending looks customers up.

    customer = live_customer(world, call.ids[0])
    for subscription in world.store.all("subscription"):
        if subscription["customer"] == customer["id"] and subscription["ended_at"] is None:
            ending.end_subscription(world, subscription)
    for schedule in world.store.all("subscription_schedule"):
        if schedule["customer"] == customer["id"] and schedule["status"] == "not_started":
            ending.cancel_waiting(world, schedule)
    world.emit("customer.deleted", customer)
    world.store.touch(customer)
    for method in world.store.all("payment_method"):
        if method["customer"] == customer["id"]:
            world.store.touch(method)
            method["customer"] = None
    stub = {"id": customer["id"], "object": "customer", "deleted": True}
    customer.clear()
    customer.update(stub)
    return dict(stub)


def list_customers(world: World, call: Call) -> Obj:
    """`GET /v1/customers`."""
    p = call.params
    rows = [
        c
        for c in newest_first(world, "customer")
        if not c.get("deleted")
        and ("email" not in p or c["email"] == p["email"])
        and in_range(c["created"], p.get("created"))
    ]
    return page(world, call, rows)


def search_customers(world: World, call: Call) -> Obj:
    """`GET /v1/customers/search`: clauses joined by AND, on email, name, phone and metadata."""
    p = call.params
    tests = _clauses(p["query"])
    rows = [
        c for c in newest_first(world, "customer") if not c.get("deleted") and all(_fits(c, clause) for clause in tests)
    ]
    limit = p.get("limit", 10)
    first = int(p["page"]) if str(p.get("page") or "").isdecimal() else 0
    more = len(rows) > first + limit
    return {
        "object": "search_result",
        "data": [view(world, row) for row in rows[first : first + limit]],
        "has_more": more,
        "next_page": str(first + limit) if more else None,
        "url": call.path,
    }


def live_customer(world: World, stripe_id: str | None, *, param: str | None = None) -> Obj:
    """A customer that was not deleted. Raises as for one that never existed."""
    customer = world.require("customer", stripe_id, param=param)
    if customer.get("deleted"):
        raise invalid(f"No such customer: '{stripe_id}'", param=param or "id", code="resource_missing")
    return customer


def add_balance(
    world: World,
    customer: Obj,
    amount: int,
    *,
    currency: str,
    kind: str = "adjustment",
    invoice: str | None = None,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Obj:
    """Move the customer's balance (negative is credit) and keep the transaction."""
    world.store.touch(customer)
    customer["balance"] += amount
    customer["currency"] = customer["currency"] or currency
    return world.store.add(
        {
            "id": new_id("cbtxn"),
            "object": "customer_balance_transaction",
            "amount": amount,
            "checkout_session": None,
            "created": world.now(),
            "credit_note": None,
            "currency": currency,
            "customer": customer["id"],
            "description": description,
            "ending_balance": customer["balance"],
            "invoice": invoice,
            "livemode": False,
            "metadata": metadata or {},
            "type": kind,
        }
    )


def create_balance_transaction(world: World, call: Call) -> Obj:
    """`POST /v1/customers/{id}/balance_transactions`."""
    p = call.params
    customer = live_customer(world, call.ids[0])
    if customer["currency"] not in (None, p["currency"]):
        raise invalid(
            f"The currency of the customer's balance is {customer['currency']}; you gave {p['currency']}.",
            param="currency",
        )
    with world.changing(customer, "customer.updated"):
        row = add_balance(
            world,
            customer,
            p["amount"],
            currency=p["currency"].lower(),
            description=p.get("description"),
            metadata=merged_metadata({}, p.get("metadata")),
        )
    return view(world, row)


def list_balance_transactions(world: World, call: Call) -> Obj:
    """`GET /v1/customers/{id}/balance_transactions`."""
    customer = world.require("customer", call.ids[0])
    rows = [t for t in newest_first(world, "customer_balance_transaction") if t["customer"] == customer["id"]]
    return page(world, call, rows)


def _set_default(world: World, customer: Obj, settings: Obj | None) -> None:
    if not settings:
        return
    if "default_payment_method" in settings:
        stripe_id = settings["default_payment_method"] or None
        if stripe_id:
            method = world.require("payment_method", stripe_id, param="invoice_settings[default_payment_method]")
            if method["customer"] != customer["id"]:
                raise invalid(
                    f"The customer does not have a payment method with the ID {stripe_id}. "
                    "The payment method must be attached to the customer.",
                    param="invoice_settings[default_payment_method]",
                    code="resource_missing",
                )
        customer["invoice_settings"]["default_payment_method"] = stripe_id
    for name in ("custom_fields", "footer", "rendering_options"):
        if name in settings:
            customer["invoice_settings"][name] = settings[name] or None


def _clauses(query: str) -> list[re.Match[str]]:
    found = []
    for text in re.split(r"\s+AND\s+", query):
        match = _CLAUSE.fullmatch(text)
        if match is None or match["field"] not in ("email", "name", "phone", "metadata"):
            raise invalid(f"Invalid search query: {query[:200]}", param="query")
        found.append(match)
    return found


def _fits(customer: Obj, clause: re.Match[str]) -> bool:
    if clause["field"] == "metadata":
        return bool(customer["metadata"].get(clause["key"] or "") == clause["value"])
    held = customer[clause["field"]] or ""
    if clause["op"] == "~":
        return clause["value"].lower() in held.lower()
    return bool(held.lower() == clause["value"].lower())


ROUTES = [
    Route("POST", "/v1/customers", "CustomerCreateParams", create_customer, "Customer"),
    Route("GET", "/v1/customers", "CustomerListParams", list_customers, "list:Customer"),
    Route("GET", "/v1/customers/search", "CustomerSearchParams", search_customers, "list:Customer"),
    Route("GET", "/v1/customers/{}", "CustomerRetrieveParams", retrieve_customer, "Customer"),
    Route("POST", "/v1/customers/{}", "CustomerUpdateParams", update_customer, "Customer"),
    Route("DELETE", "/v1/customers/{}", "CustomerDeleteParams", delete_customer, "Customer"),
    Route(
        "POST",
        "/v1/customers/{}/balance_transactions",
        "CustomerBalanceTransactionCreateParams",
        create_balance_transaction,
        "CustomerBalanceTransaction",
    ),
    Route(
        "GET",
        "/v1/customers/{}/balance_transactions",
        "CustomerBalanceTransactionListParams",
        list_balance_transactions,
        "list:CustomerBalanceTransaction",
    ),
]
