"""Checkout sessions: opened through the API, finished by a person on the hosted page."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.billing.discounts import amount_off, new_discount
from plangate.sandbox.billing.invoicing import Previewed
from plangate.sandbox.billing.starting import start_subscription
from plangate.sandbox.cards import CARDS, refusal
from plangate.sandbox.clock import DAY
from plangate.sandbox.errors import invalid, required
from plangate.sandbox.money import percentage
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Params, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .checkout_details import asked_members, keep_details
from .customers import create_customer, live_customer
from .payment_methods import attach, new_method
from .prices import amount_of, inline_price

Obj = dict[str, Any]


def create_session(world: World, call: Call) -> Obj:
    """`POST /v1/checkout/sessions`: mode subscription, payment or setup, hosted page only."""
    p = call.params
    now = world.now()
    mode = p.get("mode") or ("payment" if p.get("line_items") else None)
    if mode is None:
        raise required("mode")
    if p.get("ui_mode", "hosted_page") != "hosted_page":
        raise invalid("The sandbox has hosted pages only: use `ui_mode=hosted_page`.", param="ui_mode")
    if not p.get("success_url"):
        raise required("success_url")
    customer = live_customer(world, p["customer"], param="customer") if p.get("customer") else None
    if customer and p.get("customer_email"):
        raise invalid("You may only specify one of these parameters: customer, customer_email.", param="customer_email")
    if p.get("discounts") and p.get("allow_promotion_codes"):
        raise invalid("You may only specify one of these parameters: allow_promotion_codes, discounts.")
    rows = _line_items(world, p, mode)
    currency = _currency(p, rows, customer)
    expires = p.get("expires_at", now + DAY)
    if not now + 1800 - 60 <= expires <= now + DAY + 60:
        raise invalid(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.",
            param="expires_at",
        )
    session_id = new_id("cs_test", 58)
    session: Obj = {
        "id": session_id,
        "object": "checkout.session",
        **asked_members(p),
        "allow_promotion_codes": p.get("allow_promotion_codes"),
        "amount_subtotal": None,
        "amount_total": None,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "cancel_url": p.get("cancel_url"),
        "client_reference_id": p.get("client_reference_id"),
        "consent": None,
        "created": now,
        "currency": currency,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": customer["id"] if customer else None,
        "customer_creation": None if customer else ("always" if mode != "payment" else "if_required"),
        "customer_details": None,
        "customer_email": p.get("customer_email"),
        "discounts": [
            {"coupon": d.get("coupon"), "promotion_code": d.get("promotion_code")} for d in p.get("discounts") or []
        ],
        "expires_at": expires,
        "invoice": None,
        "livemode": False,
        "locale": p.get("locale"),
        "metadata": merged_metadata({}, p.get("metadata")),
        "mode": mode,
        "payment_intent": None,
        "payment_method_collection": p.get("payment_method_collection", "always"),
        "payment_method_types": ["card"],
        "payment_status": "no_payment_required" if mode == "setup" else "unpaid",
        "setup_intent": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": p.get("submit_type"),
        "subscription": None,
        "success_url": p["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"{world.config.public_url}/c/pay/{session_id}",
        "_line_items": rows,
        "_subscription_data": p.get("subscription_data") or {},
        "_payment_intent_data": p.get("payment_intent_data") or {},
        "_setup_intent_data": p.get("setup_intent_data") or {},
    }
    if mode == "setup":
        session["setup_intent"] = _setup_intent(world, session)["id"]
    if mode != "setup":
        _total(world, session)
    return view(world, world.add(session))


def retrieve_session(world: World, call: Call) -> Obj:
    """`GET /v1/checkout/sessions/{id}`."""
    return view(world, world.require("checkout.session", call.ids[0]))


def update_session(world: World, call: Call) -> Obj:
    """`POST /v1/checkout/sessions/{id}`: its metadata."""
    session = world.require("checkout.session", call.ids[0])
    with world.changing(session, None):
        session["metadata"] = merged_metadata(session["metadata"], call.params.get("metadata"))
    return view(world, session)


def expire_session(world: World, call: Call) -> Obj:
    """`POST /v1/checkout/sessions/{id}/expire`."""
    session = world.require("checkout.session", call.ids[0])
    if session["status"] != "open":
        raise invalid(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of '
            f"`{session['status']}`."
        )
    with world.changing(session, None):
        session["status"] = "expired"
        session["url"] = None
    world.emit("checkout.session.expired", session)
    return view(world, session)


def list_sessions(world: World, call: Call) -> Obj:
    """`GET /v1/checkout/sessions`."""
    p = call.params
    rows = [
        s
        for s in newest_first(world, "checkout.session")
        if p.get("customer") in (None, s["customer"])
        and p.get("subscription") in (None, s["subscription"])
        and p.get("status") in (None, s["status"])
        and p.get("payment_intent") in (None, s["payment_intent"])
        and in_range(s["created"], p.get("created"))
    ]
    return page(world, call, rows)


def list_line_items(world: World, call: Call) -> Obj:
    """`GET /v1/checkout/sessions/{id}/line_items`."""
    return page(world, call, world.require("checkout.session", call.ids[0])["_line_items"])


def complete_session(
    world: World,
    session: Obj,
    *,
    card: str | None,
    email: str | None = None,
    typed: dict[str, str] | None = None,
    is_authenticated: bool = False,
) -> None:
    """A person pays on the hosted page: customer, card, subscription and invoice come about.

    ``card`` names one of the test cards, or nothing when no card is asked for. Raises ApiError 402 when the card is
    refused, code `authentication_required` when the bank wants to ask first; nothing is kept then.
    """
    if session["status"] != "open":
        raise invalid("This Checkout Session is no longer open.")
    if card is not None:
        kind = CARDS[card]
        if kind.on_attach != "ok":
            raise refusal(kind.on_attach)
        if kind.authentication != "never" and not is_authenticated:
            raise refusal("authenticate")
        if kind.on_charge != "ok" and (session["amount_total"] or 0) > 0:
            raise refusal(kind.on_charge)
    customer = _customer_of(world, session, email)
    method = None
    if card is not None:
        method = new_method(world, card)
        method["billing_details"].update({"email": customer["email"], "name": customer["name"]})
        method["_authenticated"] = is_authenticated
        attach(world, method, customer)
    if session["mode"] == "subscription":
        _subscribe(world, session, customer, method, is_authenticated=is_authenticated)
    elif session["mode"] == "payment":
        _pay_once(world, session, customer, method)
    else:
        _set_up(world, session, customer, method)
    with world.changing(session, None):
        session["status"] = "complete"
        session["url"] = None
        session["customer"] = customer["id"]
        session["customer_details"] = keep_details(world, session, customer, typed or {})
    world.emit("checkout.session.completed", session)


def needs_card(session: Obj) -> bool:
    """Whether the hosted page asks for a card."""
    if session["mode"] == "setup":
        return True
    return bool((session["amount_total"] or 0) > 0 or session["payment_method_collection"] == "always")


def apply_code(world: World, session: Obj, code: str) -> None:
    """A promotion code typed on the hosted page. Raises ApiError 400 for one that does not work."""
    row = next((c for c in world.store.all("promotion_code") if c["code"].upper() == code.strip().upper()), None)
    if not session["allow_promotion_codes"] or row is None or not row["active"]:
        raise invalid("This code is invalid.", param="promotion_code")
    with world.changing(session, None):
        session["discounts"] = [{"coupon": None, "promotion_code": row["id"]}]
        _total(world, session)


def subscription_params(session: Obj, stripe_customer_id: str) -> Obj:
    """Create parameters of the subscription a session stands for."""
    extra = session["_subscription_data"]
    allowed = (
        "billing_cycle_anchor",
        "billing_mode",
        "default_tax_rates",
        "description",
        "metadata",
        "proration_behavior",
        "trial_end",
        "trial_period_days",
        "trial_settings",
    )
    return {
        **{k: extra[k] for k in allowed if k in extra},
        "customer": stripe_customer_id,
        "currency": session["currency"],
        "items": [_as_item(row) for row in session["_line_items"] if row["price"]["type"] == "recurring"],
        "discounts": session["discounts"] or None,
    }


def _as_item(row: Obj) -> Obj:
    item = {"price": row["price"]["id"], "quantity": row["quantity"]}
    return {k: v for k, v in item.items() if v is not None}


def _subscribe(world: World, session: Obj, customer: Obj, method: Obj | None, *, is_authenticated: bool) -> None:
    params = subscription_params(session, customer["id"])
    if method is None:
        params["payment_behavior"] = "default_incomplete"
    subscription = start_subscription(
        world, params, pays_now=method is not None, method=method, is_authenticated=is_authenticated
    )
    invoice = world.require("invoice", subscription["latest_invoice"])
    with world.changing(invoice, None):
        invoice["_checkout_session"] = session["id"]
    with world.changing(session, None):
        session["subscription"] = subscription["id"]
        session["invoice"] = invoice["id"]
        session["payment_status"] = (
            "paid" if invoice["amount_due"] or not subscription["trial_end"] else "no_payment_required"
        )


def _pay_once(world: World, session: Obj, customer: Obj, method: Obj | None) -> None:
    stripe_id = new_id("pi")
    intent = world.store.add(
        {
            "id": stripe_id,
            "object": "payment_intent",
            "amount": session["amount_total"],
            "amount_capturable": 0,
            "amount_received": session["amount_total"],
            "capture_method": "automatic",
            "client_secret": f"{stripe_id}_secret_{new_id('', 24)[1:]}",
            "confirmation_method": "automatic",
            "created": world.now(),
            "currency": session["currency"],
            "customer": customer["id"],
            "livemode": False,
            "metadata": session["_payment_intent_data"].get("metadata") or {},
            "payment_method": method["id"] if method else None,
            "payment_method_types": ["card"],
            "status": "succeeded",
            "_invoice": None,
        }
    )
    world.emit("payment_intent.created", intent)
    world.emit("payment_intent.succeeded", intent)
    with world.changing(session, None):
        session["payment_intent"] = intent["id"]
        session["payment_status"] = "paid"


def _set_up(world: World, session: Obj, customer: Obj, method: Obj | None) -> None:
    intent = world.require("setup_intent", session["setup_intent"])
    with world.changing(intent, None):
        intent["status"] = "succeeded"
        intent["customer"] = customer["id"]
        intent["payment_method"] = method["id"] if method else None
    world.emit("setup_intent.succeeded", intent)


def _setup_intent(world: World, session: Obj) -> Obj:
    stripe_id = new_id("seti")
    intent = {
        "id": stripe_id,
        "object": "setup_intent",
        "client_secret": f"{stripe_id}_secret_{new_id('', 24)[1:]}",
        "created": world.now(),
        "customer": session["customer"],
        "livemode": False,
        "metadata": session["_setup_intent_data"].get("metadata") or {},
        "payment_method": None,
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
        "usage": "off_session",
    }
    return world.add(intent, "setup_intent.created")


def _customer_of(world: World, session: Obj, email: str | None) -> Obj:
    if session["customer"]:
        return live_customer(world, session["customer"], param="customer")
    made = create_customer(
        world, Call("/v1/customers", (), Params({"email": session["customer_email"] or email or "person@example.com"}))
    )
    return world.require("customer", made["id"])


def _line_items(world: World, p: Obj, mode: str) -> list[Obj]:
    given = p.get("line_items") or []
    if mode == "setup":
        if given:
            raise invalid("You can not pass `line_items` in `setup` mode.", param="line_items")
        return []
    if not given:
        raise required("line_items")
    rows = []
    for number, entry in enumerate(given):
        where = f"line_items[{number}]"
        if entry.get("price_data"):
            price = inline_price(world, _with_product(entry["price_data"]))
            world.store.touch(price)
            price["active"] = True
        else:
            price = world.require("price", entry.get("price"), param=f"{where}[price]")
            if not price["active"]:
                raise invalid(
                    "The price specified is inactive. This field only accepts active prices.", param=f"{where}[price]"
                )
        metered = (price["recurring"] or {}).get("usage_type") == "metered"
        quantity = entry.get("quantity")
        if metered and quantity is not None:
            raise invalid("Quantity should not be specified where usage_type is metered.", param=f"{where}[quantity]")
        if not metered and quantity is None:
            raise required(f"{where}[quantity]")
        if mode == "payment" and price["type"] == "recurring":
            raise invalid(
                "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or "
                "use only one-time prices."
            )
        product = world.require("product", price["product"])
        rows.append(
            {
                "id": new_id("li"),
                "object": "item",
                "amount_discount": 0,
                "amount_subtotal": 0,
                "amount_tax": 0,
                "amount_total": 0,
                "currency": price["currency"],
                "description": product["name"],
                "discounts": [],
                "metadata": merged_metadata({}, entry.get("metadata")),
                "price": view(world, price),
                "quantity": quantity,
                "taxes": [],
            }
        )
    if mode == "subscription" and all(row["price"]["type"] != "recurring" for row in rows):
        raise invalid(
            "You must provide at least one recurring price in `subscription` mode when using prices.",
            param="line_items",
        )
    return rows


def _with_product(given: Obj) -> Obj:
    described = dict(given)
    if described.get("product_data"):
        described["product_data"] = {k: v for k, v in described["product_data"].items() if k in ("name", "metadata")}
    return described


def _currency(p: Obj, rows: list[Obj], customer: Obj | None) -> str | None:
    if p.get("currency"):
        return str(p["currency"]).lower()
    if not rows:
        return None
    if customer and customer["currency"]:
        return str(customer["currency"])
    return str(rows[0]["currency"])


def _total(world: World, session: Obj) -> None:
    """What the person would pay now, from the same rehearsal that previews use."""
    for row in session["_line_items"]:
        price = world.require("price", row["price"]["id"])
        metered = (price["recurring"] or {}).get("usage_type") == "metered"
        amount = 0 if metered else amount_of(price, session["currency"], row["quantity"])
        row["currency"] = session["currency"]
        row["amount_subtotal"] = row["amount_total"] = amount
    subtotal = sum(row["amount_subtotal"] for row in session["_line_items"])
    session["amount_subtotal"] = session["amount_total"] = subtotal
    if session["mode"] == "payment":
        discount = _one_time_discount(world, session, subtotal)
        session["amount_total"] = subtotal - discount
        session["total_details"]["amount_discount"] = discount
        return
    copy = world.rehearsal(session["customer"])
    stripe_customer_id = session["customer"] or "cus_rehearsal"
    if session["customer"] is None:
        copy.store.add(_nobody(stripe_customer_id))
    try:
        with copy.clock.standing_at(world.now()):
            start_subscription(
                copy,
                {**subscription_params(session, stripe_customer_id), "payment_behavior": "default_incomplete"},
                pays_now=False,
            )
    except Previewed as ended:
        invoice = ended.invoice
        session["amount_subtotal"] = invoice["subtotal"]
        session["amount_total"] = max(0, invoice["amount_due"])
        session["total_details"] = {
            "amount_discount": sum(d["amount"] for d in invoice["total_discount_amounts"]),
            "amount_shipping": 0,
            "amount_tax": sum(t["amount"] for t in invoice["total_taxes"]),
        }


def _one_time_discount(world: World, session: Obj, subtotal: int) -> int:
    if not session["discounts"]:
        return 0
    copy = world.rehearsal(session["customer"])
    with copy.clock.standing_at(world.now()):
        discount = new_discount(
            copy,
            session["discounts"][0],
            customer=session["customer"] or "",
            subscription=None,
            currency=session["currency"],
        )
    coupon = copy.require("coupon", discount["source"]["coupon"])
    if coupon["percent_off"] is not None:
        return percentage(subtotal, coupon["percent_off"])
    return min(subtotal, amount_off(coupon, session["currency"]))


def _nobody(stripe_customer_id: str) -> Obj:
    return {
        "id": stripe_customer_id,
        "object": "customer",
        "address": None,
        "balance": 0,
        "currency": None,
        "email": None,
        "invoice_settings": {"default_payment_method": None},
        "metadata": {},
        "name": None,
        "phone": None,
        "shipping": None,
        "tax_exempt": "none",
    }


_PATH = "/v1/checkout/sessions"
ROUTES = [
    Route("POST", _PATH, "checkout.SessionCreateParams", create_session, "checkout.Session"),
    Route("GET", _PATH, "checkout.SessionListParams", list_sessions, "list:checkout.Session"),
    Route("GET", f"{_PATH}/{{}}", "checkout.SessionRetrieveParams", retrieve_session, "checkout.Session"),
    Route("POST", f"{_PATH}/{{}}", "checkout.SessionUpdateParams", update_session, "checkout.Session"),
    Route("POST", f"{_PATH}/{{}}/expire", "checkout.SessionExpireParams", expire_session, "checkout.Session"),
    Route("GET", f"{_PATH}/{{}}/line_items", "checkout.SessionLineItemListParams", list_line_items, "list:LineItem"),
]
