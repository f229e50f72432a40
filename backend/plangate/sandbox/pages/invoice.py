"""The hosted invoice page: what is owed, and paying or authenticating it."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from plangate.sandbox.billing.collecting import collect, default_method
from plangate.sandbox.cards import CARDS, charge_outcome, refusal
from plangate.sandbox.errors import ApiError
from plangate.sandbox.resources.payment_methods import attach, new_method
from plangate.sandbox.server import Sandbox

from .render import html

Obj = dict[str, Any]

OFFERED = ("visa", "declined", "authenticate_once")
_WORDS = {"draft": "Draft", "open": "Open", "paid": "Paid", "void": "Void", "uncollectible": "Uncollectible"}


def show(sandbox: Sandbox, stripe_id: str, _form: dict[str, str], *, error: str | None = None) -> Response:
    """The invoice as its customer sees it."""
    found = sandbox.world.require("invoice", stripe_id)
    method = default_method(sandbox.world, found)
    return html(
        "invoice.html",
        invoice=found,
        words=_WORDS[found["status"]],
        saved=method["card"]["last4"] if method else None,
        cards=[(name, CARDS[name]) for name in OFFERED],
        error=error,
    )


def pay(sandbox: Sandbox, stripe_id: str, form: dict[str, str]) -> Response:
    """Charge the saved card or another one; a card that asks is asked about first."""
    world = sandbox.world
    found = world.require("invoice", stripe_id)
    if found["status"] != "open":
        return RedirectResponse(f"/i/{stripe_id}", status_code=303)
    step, card = form.get("authentication"), form.get("card", "saved")
    if step == "fail":
        return show(sandbox, stripe_id, form, error="The bank did not confirm that this was you. Try again.")
    method = default_method(world, found) if card == "saved" else None
    if card != "saved" and card in CARDS:
        kind = CARDS[card]
        if kind.on_attach != "ok":
            return show(sandbox, stripe_id, form, error=refusal(kind.on_attach).body["error"]["message"])
        if kind.authentication != "never" and step != "complete":
            return _ask(stripe_id, card)
        method = new_method(world, card)
    if method is None:
        return show(sandbox, stripe_id, form, error="Choose a card first.")
    if charge_outcome(method) == "authenticate" and step != "complete":
        return _ask(stripe_id, card)
    try:
        if card != "saved":
            attach(world, method, world.require("customer", found["customer"]))
    except ApiError as error:
        return show(sandbox, stripe_id, form, error=error.body["error"]["message"])
    if step == "complete":
        with world.changing(method, None):
            method["_authenticated"] = True
    collected = collect(world, found, method=method, is_authenticated=step == "complete")
    if collected != "paid" and collected != "no_method":
        return show(sandbox, stripe_id, form, error=refusal(collected).body["error"]["message"])
    return RedirectResponse(f"/i/{stripe_id}", status_code=303)


def _ask(stripe_id: str, card: str) -> Response:
    return html(
        "authenticate.html",
        sentence="Your bank asks you to confirm this payment.",
        action=f"/i/{stripe_id}",
        card=card,
        kept={},
    )
