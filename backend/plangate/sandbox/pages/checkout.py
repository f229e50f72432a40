"""The hosted Checkout page: what is bought, a test card, the bank's question, and back to the shop."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from plangate.sandbox.cards import CARDS
from plangate.sandbox.errors import ApiError
from plangate.sandbox.money import written
from plangate.sandbox.periods import written_every
from plangate.sandbox.resources.checkout import apply_code, complete_session, needs_card
from plangate.sandbox.resources.checkout_details import fields_of, typed_details
from plangate.sandbox.resources.prices import amount_of
from plangate.sandbox.server import Sandbox

from .render import html

Obj = dict[str, Any]

OFFERED = ("visa", "declined", "authenticate_once", "authenticate_always", "insufficient", "fails_later")


def show(
    sandbox: Sandbox,
    stripe_id: str,
    form: dict[str, str],
    *,
    error: str | None = None,
    code_error: str | None = None,
    chosen: str | None = "visa",
) -> Response:
    """The page of an open session; a closed one says what became of it."""
    session = _session(sandbox, stripe_id)
    if session["status"] != "open":
        return _closed(session)
    every, after_trial, trial_days = _rhythm(sandbox, session)
    heading = {"subscription": "Subscribe", "payment": "Pay", "setup": "Save a card"}[session["mode"]]
    amount = written(session["amount_total"] or 0, session["currency"] or "usd")
    return html(
        "checkout.html",
        session=session,
        heading=heading,
        total=amount if session["mode"] != "setup" else "Save a card for later",
        every=every if not trial_days else "",
        trial_days=trial_days,
        after_trial=after_trial,
        lines=[_line(sandbox, session, row, is_trial=bool(trial_days)) for row in session["_line_items"]],
        asks_email=session["customer"] is None,
        email=form.get("email") or session["customer_email"] or "",
        fields=[(name, label, is_needed, form.get(name, "")) for name, label, is_needed in fields_of(session)],
        needs_card=needs_card(session),
        cards=[(name, CARDS[name]) for name in OFFERED],
        chosen=chosen,
        button=_button(session, amount, trial_days),
        terms=_terms(session, every, after_trial, trial_days),
        error=error,
        code_error=code_error,
    )


def pay(sandbox: Sandbox, stripe_id: str, form: dict[str, str]) -> Response:
    """The button: pay, ask the bank first, or say why not."""
    session = _session(sandbox, stripe_id)
    if session["status"] != "open":
        return _closed(session)
    card = form.get("card") if needs_card(session) else None
    if needs_card(session) and card not in CARDS:
        return show(sandbox, stripe_id, form, error="Choose a test card first.")
    step = form.get("authentication")
    if step == "fail":
        return show(
            sandbox,
            stripe_id,
            form,
            error="We are unable to authenticate your payment method. Please choose a different one and try again.",
            chosen=card,
        )
    world = sandbox.world
    world.store.begin()
    typed: dict[str, str] = {}
    try:
        typed = typed_details(session, form)
        complete_session(
            world, session, card=card, email=form.get("email"), typed=typed, is_authenticated=step == "complete"
        )
    except ApiError as error:
        world.store.rollback()
        world.drop_events()
        details = error.body["error"]
        if details.get("code") == "authentication_required":
            amount = written(session["amount_total"] or 0, session["currency"] or "usd")
            asked = f"confirm a payment of {amount}" if session["amount_total"] else "let this card be charged later"
            return html(
                "authenticate.html",
                sentence=f"Your bank asks you to {asked}.",
                action=f"/c/pay/{stripe_id}",
                card=card,
                kept={"email": form.get("email", ""), **typed},
            )
        return show(sandbox, stripe_id, form, error=details["message"], chosen=card)
    world.store.commit()
    return RedirectResponse(_success(session), status_code=303)


def redeem(sandbox: Sandbox, stripe_id: str, form: dict[str, str]) -> Response:
    """A promotion code typed by hand."""
    session = _session(sandbox, stripe_id)
    world = sandbox.world
    world.store.begin()
    try:
        apply_code(world, session, form.get("code", ""))
    except ApiError as error:
        world.store.rollback()
        return show(sandbox, stripe_id, form, code_error=error.body["error"]["message"])
    world.store.commit()
    return RedirectResponse(f"/c/pay/{stripe_id}", status_code=303)


def _session(sandbox: Sandbox, stripe_id: str) -> Obj:
    return sandbox.world.require("checkout.session", stripe_id)


def _success(session: Obj) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def _closed(session: Obj) -> Response:
    if session["status"] == "complete":
        return html(
            "message.html",
            heading="You're all done here",
            sentence="This checkout has been completed.",
            link=_success(session),
            link_text="Go on",
        )
    return html(
        "message.html",
        status=410,
        heading="This link has expired",
        sentence="Checkout links work for 24 hours. Go back and start again.",
        link=session["cancel_url"],
        link_text="Back",
    )


def _line(sandbox: Sandbox, session: Obj, row: Obj, *, is_trial: bool) -> Obj:
    price = sandbox.world.require("price", row["price"]["id"])
    recurring = price["recurring"] or {}
    if recurring.get("usage_type") == "metered":
        return {"name": row["description"], "detail": "Billed by usage at the end of each period", "amount": "As used"}
    detail = f"Quantity {row['quantity']}" if row["quantity"] != 1 else ""
    if recurring:
        detail = f"{detail}{', billed' if detail else 'Billed'} {_adverb(recurring)}"
    amount = written(row["amount_total"], session["currency"])
    if is_trial and recurring:
        return {"name": row["description"], "detail": f"{detail} at {amount} after the trial", "amount": "Free trial"}
    return {"name": row["description"], "detail": detail, "amount": amount}


def _rhythm(sandbox: Sandbox, session: Obj) -> tuple[str, str, int]:
    if session["mode"] != "subscription":
        return "", "", 0
    first = next((r for r in session["_line_items"] if r["price"]["type"] == "recurring"), None)
    if first is None:
        return "", "", 0
    every = written_every(first["price"]["recurring"])
    whole = sum(
        amount_of(sandbox.world.require("price", r["price"]["id"]), session["currency"], r["quantity"] or 0)
        for r in session["_line_items"]
        if (r["price"]["recurring"] or {}).get("usage_type") == "licensed"
    )
    days = session["_subscription_data"].get("trial_period_days") or 0
    end = session["_subscription_data"].get("trial_end")
    if end:
        days = max(1, round((end - sandbox.world.now()) / 86_400))
    return every, f"{written(whole, session['currency'])} {every}", days


def _adverb(recurring: Obj) -> str:
    if recurring["interval_count"] != 1:
        return written_every(recurring)
    return {"day": "daily", "week": "weekly", "month": "monthly", "year": "yearly"}[recurring["interval"]]


def _button(session: Obj, amount: str, trial_days: int) -> str:
    if session["mode"] == "setup":
        return "Save card"
    if trial_days:
        return "Start trial"
    if session["mode"] == "subscription" and not session["amount_total"]:
        return "Subscribe"
    return f"Pay {amount}"


def _terms(session: Obj, every: str, after_trial: str, trial_days: int) -> str:
    if session["mode"] != "subscription":
        return ""
    when = (
        f"After the trial you pay {after_trial}"
        if trial_days
        else f"You pay this amount {every.replace('per', 'each')}"
    )
    return f"{when} until you cancel."
