"""The billing portal: cancel, change your mind, another card, past invoices."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from plangate.sandbox.cards import CARDS
from plangate.sandbox.errors import ApiError, invalid
from plangate.sandbox.money import written
from plangate.sandbox.periods import written_day, written_every
from plangate.sandbox.resources.payment_methods import attach, new_method
from plangate.sandbox.resources.prices import amount_of
from plangate.sandbox.resources.subscriptions import change_subscription
from plangate.sandbox.server import Sandbox
from plangate.sandbox.world import World

from .render import html

Obj = dict[str, Any]

OFFERED = ("visa", "mastercard", "declined", "fails_later")


def show(sandbox: Sandbox, stripe_id: str, _form: dict[str, str], *, error: str | None = None) -> Response:
    """What the customer has and owes."""
    world = sandbox.world
    session = world.require("billing_portal.session", stripe_id)
    customer = world.require("customer", session["customer"])
    live = [s for s in world.store.all("subscription") if s["customer"] == customer["id"] and not s["ended_at"]]
    invoices = [i for i in world.store.all("invoice") if i["customer"] == customer["id"] and i["status"] != "draft"]
    return html(
        "portal.html",
        session=session,
        customer=customer,
        subscriptions=[_row(world, s) for s in live],
        invoices=invoices[::-1][:20],
        card=_card(world, customer, live),
        cards=[(name, CARDS[name]) for name in OFFERED],
        error=error,
    )


def act(sandbox: Sandbox, stripe_id: str, form: dict[str, str]) -> Response:
    """One button of the portal."""
    world = sandbox.world
    session = world.require("billing_portal.session", stripe_id)
    world.store.begin()
    try:
        _act(world, session, form)
    except ApiError as error:
        world.store.rollback()
        world.drop_events()
        return show(sandbox, stripe_id, form, error=error.body["error"]["message"])
    world.store.commit()
    return RedirectResponse(f"/p/session/{stripe_id}", status_code=303)


def _act(world: World, session: Obj, form: dict[str, str]) -> None:
    if form.get("action") == "card":
        if form.get("card") not in CARDS:
            raise invalid("Choose a test card first.")
        customer = world.require("customer", session["customer"])
        method = attach(world, new_method(world, form["card"]), customer)
        with world.changing(customer, "customer.updated"):
            customer["invoice_settings"]["default_payment_method"] = method["id"]
        for subscription in world.store.all("subscription"):
            if subscription["customer"] == customer["id"] and not subscription["ended_at"]:
                with world.changing(subscription, "customer.subscription.updated"):
                    subscription["default_payment_method"] = method["id"]
        return
    subscription = world.require("subscription", form.get("subscription"))
    if subscription["customer"] != session["customer"] or subscription["ended_at"]:
        raise invalid("This subscription cannot be changed here.")
    if subscription["schedule"]:
        raise invalid("A change of this plan is scheduled. Take it back where you made it, then cancel.")
    is_flexible = subscription["billing_mode"]["type"] == "flexible"
    if form.get("action") == "cancel":
        # The portal of flexible billing sets `cancel_at` alone; the classic one sets both.
        change_subscription(
            world, subscription, {"cancel_at": "min_period_end"} if is_flexible else {"cancel_at_period_end": True}
        )
    elif form.get("action") == "resume":
        change_subscription(world, subscription, {"cancel_at": ""} if is_flexible else {"cancel_at_period_end": False})


def _row(world: World, subscription: Obj) -> Obj:
    prices = [(world.require("price", i["price"]), i) for i in subscription["_items"]]
    names = [world.require("product", price["product"])["name"] for price, _ in prices]
    whole = sum(
        amount_of(price, subscription["currency"], item["quantity"] or 0)
        for price, item in prices
        if price["recurring"]["usage_type"] == "licensed"
    )
    end = max(item["current_period_end"] for item in subscription["_items"])
    ending = subscription["cancel_at"]
    return {
        "id": subscription["id"],
        "name": " + ".join(names),
        "price": f"{written(whole, subscription['currency'])} {written_every(prices[0][0]['recurring'])}",
        "status": subscription["status"],
        "words": subscription["status"].replace("_", " ").capitalize(),
        "sentence": f"Ends on {written_day(ending)}." if ending else f"Renews on {written_day(end)}.",
        "error": "A change of this plan is scheduled." if subscription["schedule"] else None,
        "can_cancel": not ending and not subscription["schedule"],
        "can_resume": bool(ending),
    }


def _card(world: World, customer: Obj, live: list[Obj]) -> str | None:
    for stripe_id in (
        *(s["default_payment_method"] for s in live),
        customer["invoice_settings"]["default_payment_method"],
    ):
        method = world.store.get("payment_method", stripe_id)
        if method is not None:
            return str(method["card"]["last4"])
    return None
