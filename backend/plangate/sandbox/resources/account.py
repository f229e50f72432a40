"""The account itself and the small nouns around payments: intents, refunds, tax rates, test clocks."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.errors import invalid, required
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .charges import charge_of, note_refunded

Obj = dict[str, Any]


def retrieve_account(world: World, call: Call) -> Obj:
    """`GET /v1/account`."""
    del call
    return {
        "id": world.config.account_id,
        "object": "account",
        "business_type": "company",
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": "owner@example.com",
        "metadata": {},
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "Sandbox", "timezone": "Etc/UTC"}},
        "type": "standard",
    }


def retrieve_payment_intent(world: World, call: Call) -> Obj:
    """`GET /v1/payment_intents/{id}`."""
    call.params.get("client_secret")
    return view(world, world.require("payment_intent", call.ids[0]))


def list_payment_intents(world: World, call: Call) -> Obj:
    """`GET /v1/payment_intents`."""
    wanted = call.params.get("customer")
    return page(world, call, [i for i in newest_first(world, "payment_intent") if wanted in (None, i["customer"])])


def retrieve_setup_intent(world: World, call: Call) -> Obj:
    """`GET /v1/setup_intents/{id}`."""
    call.params.get("client_secret")
    return view(world, world.require("setup_intent", call.ids[0]))


def create_refund(world: World, call: Call) -> Obj:
    """`POST /v1/refunds`: of a payment intent, whole or in part."""
    p = call.params
    if not p.get("payment_intent"):
        raise required("payment_intent")
    intent = world.require("payment_intent", p["payment_intent"], param="payment_intent")
    done = sum(r["amount"] for r in world.store.all("refund") if r["payment_intent"] == intent["id"])
    left = intent["amount_received"] - done
    amount = p.get("amount", left)
    if amount > left or left <= 0:
        raise invalid(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).", param="amount")
    charge = charge_of(world, intent["id"])
    refund = {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": charge["id"] if charge else None,
        "created": world.now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "metadata": merged_metadata({}, p.get("metadata")),
        "payment_intent": intent["id"],
        "reason": p.get("reason"),
        "status": "succeeded",
    }
    world.add(refund, "refund.created")
    note_refunded(world, intent, amount)
    return view(world, refund)


def retrieve_refund(world: World, call: Call) -> Obj:
    """`GET /v1/refunds/{id}`."""
    return view(world, world.require("refund", call.ids[0]))


def list_refunds(world: World, call: Call) -> Obj:
    """`GET /v1/refunds`."""
    wanted = call.params.get("payment_intent")
    return page(world, call, [r for r in newest_first(world, "refund") if wanted in (None, r["payment_intent"])])


def create_tax_rate(world: World, call: Call) -> Obj:
    """`POST /v1/tax_rates`."""
    p = call.params
    rate = {
        "id": new_id("txr"),
        "object": "tax_rate",
        "active": p.get("active", True),
        "country": p.get("country"),
        "created": world.now(),
        "description": p.get("description"),
        "display_name": p["display_name"],
        "effective_percentage": p["percentage"],
        "inclusive": p["inclusive"],
        "jurisdiction": p.get("jurisdiction"),
        "livemode": False,
        "metadata": merged_metadata({}, p.get("metadata")),
        "percentage": p["percentage"],
        "rate_type": "percentage",
        "state": p.get("state"),
        "tax_type": p.get("tax_type"),
    }
    return view(world, world.add(rate, "tax_rate.created"))


def retrieve_tax_rate(world: World, call: Call) -> Obj:
    """`GET /v1/tax_rates/{id}`."""
    return view(world, world.require("tax_rate", call.ids[0]))


def list_tax_rates(world: World, call: Call) -> Obj:
    """`GET /v1/tax_rates`."""
    p = call.params
    rows = [
        r
        for r in newest_first(world, "tax_rate")
        if p.get("active") in (None, r["active"])
        and p.get("inclusive") in (None, r["inclusive"])
        and in_range(r["created"], p.get("created"))
    ]
    return page(world, call, rows)


ROUTES = [
    Route("GET", "/v1/account", "AccountRetrieveCurrentParams", retrieve_account, "Account"),
    Route("GET", "/v1/payment_intents/{}", "PaymentIntentRetrieveParams", retrieve_payment_intent, "PaymentIntent"),
    Route("GET", "/v1/payment_intents", "PaymentIntentListParams", list_payment_intents, "list:PaymentIntent"),
    Route("GET", "/v1/setup_intents/{}", "SetupIntentRetrieveParams", retrieve_setup_intent, "SetupIntent"),
    Route("POST", "/v1/refunds", "RefundCreateParams", create_refund, "Refund"),
    Route("GET", "/v1/refunds", "RefundListParams", list_refunds, "list:Refund"),
    Route("GET", "/v1/refunds/{}", "RefundRetrieveParams", retrieve_refund, "Refund"),
    Route("POST", "/v1/tax_rates", "TaxRateCreateParams", create_tax_rate, "TaxRate"),
    Route("GET", "/v1/tax_rates", "TaxRateListParams", list_tax_rates, "list:TaxRate"),
    Route("GET", "/v1/tax_rates/{}", "TaxRateRetrieveParams", retrieve_tax_rate, "TaxRate"),
]
