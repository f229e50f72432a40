"""Saved cards: made from test tokens, attached to customers, detached again."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.cards import CARDS, TOKENS, card_named, refusal
from plangate.sandbox.errors import invalid, required
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

Obj = dict[str, Any]


def create_method(world: World, call: Call) -> Obj:
    """`POST /v1/payment_methods`: a card by test token or test number."""
    p = call.params
    if p.get("type") != "card":
        raise invalid("The sandbox knows payment methods of type card only.", param="type")
    card = p.get("card") or {}
    name = TOKENS.get(card.get("token", "")) or card_named(card.get("number", ""))
    if name is None:
        if not card:
            raise required("card")
        raise invalid("Your card number is incorrect.", param="card[number]", code="incorrect_number")
    method = new_method(world, name)
    method["metadata"] = merged_metadata({}, p.get("metadata"))
    method["billing_details"].update(p.get("billing_details") or {})
    return view(world, method)


def retrieve_method(world: World, call: Call) -> Obj:
    """`GET /v1/payment_methods/{id}`."""
    return view(world, world.require("payment_method", call.ids[0]))


def update_method(world: World, call: Call) -> Obj:
    """`POST /v1/payment_methods/{id}`."""
    method = world.require("payment_method", call.ids[0])
    with world.changing(method, "payment_method.updated"):
        method["metadata"] = merged_metadata(method["metadata"], call.params.get("metadata"))
        method["billing_details"].update(call.params.get("billing_details") or {})
    return view(world, method)


def attach_method(world: World, call: Call) -> Obj:
    """`POST /v1/payment_methods/{id}/attach`. Raises 402 for a card that is refused when saved."""
    from .customers import live_customer  # noqa: PLC0415 - customers attach methods on creation.

    method = usable_method(world, call.ids[0], None)
    if not call.params.get("customer"):
        raise required("customer")
    customer = live_customer(world, call.params["customer"], param="customer")
    return view(world, attach(world, method, customer))


def detach_method(world: World, call: Call) -> Obj:
    """`POST /v1/payment_methods/{id}/detach`: it is gone as default everywhere."""
    method = world.require("payment_method", call.ids[0])
    if method["customer"] is None:
        raise invalid(
            "The payment method you provided is not attached to a customer so detachment is impossible.",
            param="payment_method",
        )
    customer = world.require("customer", method["customer"])
    with world.changing(customer, "customer.updated"):
        if customer["invoice_settings"]["default_payment_method"] == method["id"]:
            customer["invoice_settings"]["default_payment_method"] = None
    for subscription in world.store.all("subscription"):
        if subscription["default_payment_method"] == method["id"]:
            with world.changing(subscription, "customer.subscription.updated"):
                subscription["default_payment_method"] = None
    with world.changing(method, None):
        method["customer"] = None
    world.emit("payment_method.detached", method)
    return view(world, method)


def list_methods(world: World, call: Call) -> Obj:
    """`GET /v1/payment_methods?customer=`."""
    p = call.params
    if "customer" not in p:
        raise required("customer")
    return _methods_of(world, call, p["customer"])


def list_customer_methods(world: World, call: Call) -> Obj:
    """`GET /v1/customers/{id}/payment_methods`."""
    world.require("customer", call.ids[0])
    return _methods_of(world, call, call.ids[0])


def new_method(world: World, card_name: str) -> Obj:
    """A card nobody owns yet."""
    card = CARDS[card_name]
    return world.store.add(
        {
            "id": new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
            "card": {
                "brand": card.brand,
                "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
                "country": "US",
                "display_brand": card.brand,
                "exp_month": 12,
                "exp_year": 2034,
                "fingerprint": f"sandbox{card.last4}",
                "funding": "credit",
                "generated_from": None,
                "last4": card.last4,
                "networks": {"available": [card.brand], "preferred": None},
                "regulated_status": "unregulated",
                "three_d_secure_usage": {"supported": True},
                "wallet": None,
            },
            "created": world.now(),
            "customer": None,
            "livemode": False,
            "metadata": {},
            "radar_options": {},
            "type": "card",
            "_card": card_name,
            "_authenticated": False,
        }
    )


def usable_method(world: World, stripe_id: str, param: str | None) -> Obj:
    """A payment method by id; a test token becomes a fresh card each time."""
    if stripe_id in TOKENS:
        return new_method(world, TOKENS[stripe_id])
    return world.require("payment_method", stripe_id, param=param)


def attach(world: World, method: Obj, customer: Obj) -> Obj:
    """Save a card for a customer. Raises 402 when the bank refuses it."""
    if method["customer"] not in (None, customer["id"]):
        raise invalid(
            "The payment method you provided has already been attached to a customer.", param="payment_method"
        )
    card = CARDS[method["_card"]]
    if card.on_attach != "ok":
        raise refusal(card.on_attach)
    if method["customer"] is None:
        with world.changing(method, None):
            method["customer"] = customer["id"]
        world.emit("payment_method.attached", method)
    return method


def _methods_of(world: World, call: Call, stripe_customer_id: str) -> Obj:
    wanted = call.params.get("type")
    rows = [
        m
        for m in newest_first(world, "payment_method")
        if m["customer"] == stripe_customer_id and wanted in (None, m["type"])
    ]
    return page(world, call, rows)


ROUTES = [
    Route("POST", "/v1/payment_methods", "PaymentMethodCreateParams", create_method, "PaymentMethod"),
    Route("GET", "/v1/payment_methods", "PaymentMethodListParams", list_methods, "list:PaymentMethod"),
    Route("GET", "/v1/payment_methods/{}", "PaymentMethodRetrieveParams", retrieve_method, "PaymentMethod"),
    Route("POST", "/v1/payment_methods/{}", "PaymentMethodUpdateParams", update_method, "PaymentMethod"),
    Route("POST", "/v1/payment_methods/{}/attach", "PaymentMethodAttachParams", attach_method, "PaymentMethod"),
    Route("POST", "/v1/payment_methods/{}/detach", "PaymentMethodDetachParams", detach_method, "PaymentMethod"),
    Route(
        "GET",
        "/v1/customers/{}/payment_methods",
        "CustomerPaymentMethodListParams",
        list_customer_methods,
        "list:PaymentMethod",
    ),
]
