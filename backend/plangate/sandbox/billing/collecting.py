"""From draft to paid: finalizing, charging, failing, retrying and voiding invoices."""

from __future__ import annotations

from typing import Any, Literal

from plangate.sandbox.cards import Outcome, charge_outcome, refusal
from plangate.sandbox.clock import DAY
from plangate.sandbox.errors import ApiError
from plangate.sandbox.resources.charges import new_charge
from plangate.sandbox.resources.customers import add_balance
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .invoicing import balance_used, count_late_usage
from .standing import after_failed, after_paid, subscription_of

Obj = dict[str, Any]
Collected = Literal["paid", "no_method", "declined", "insufficient_funds", "expired", "authenticate"]

NO_METHOD = (
    "This customer has no attached payment source or default payment method. Please consider adding a default payment "
    "method. For more information, visit https://stripe.com/docs/billing/subscriptions/payment-methods-setting"
    "#payment-method-priority."
)


def finalize(world: World, invoice: Obj) -> Obj:
    """Fix a draft: usage, number, balance, payment intent. With nothing due it is paid at once."""
    count_late_usage(world, invoice)
    customer = world.require("customer", invoice["customer"])
    now = world.now()
    if invoice["starting_balance"] != customer["balance"]:
        # The credit may have been spent or granted while this was a draft.
        world.store.touch(invoice)
        invoice["starting_balance"] = customer["balance"]
        due = max(0, invoice["total"] + customer["balance"]) if invoice["total"] > 0 else 0
        invoice["amount_due"] = invoice["amount_remaining"] = due
    used = balance_used(invoice)
    if used:
        add_balance(
            world,
            customer,
            used,
            currency=invoice["currency"],
            kind="applied_to_invoice",
            invoice=invoice["id"],
        )
    world.store.touch(customer)
    sequence = customer["next_invoice_sequence"]
    customer["next_invoice_sequence"] = sequence + 1
    customer["currency"] = customer["currency"] or invoice["currency"]
    with world.changing(invoice, None):
        invoice["ending_balance"] = customer["balance"]
        invoice["status"] = "open"
        invoice["automatically_finalizes_at"] = None
        invoice["number"] = f"{customer['invoice_prefix']}-{sequence:04d}"
        invoice["status_transitions"]["finalized_at"] = now
        invoice["effective_at"] = now
        invoice["hosted_invoice_url"] = f"{world.config.public_url}/i/{invoice['id']}"
        invoice["invoice_pdf"] = f"{world.config.public_url}/i/{invoice['id']}?print=1"
        if invoice["amount_due"] > 0:
            invoice["_payment_intent"] = _new_intent(world, invoice)["id"]
    world.emit("invoice.finalized", invoice)
    if invoice["amount_due"] == 0:
        mark_paid(world, invoice)
    return invoice


def default_method(world: World, invoice: Obj) -> Obj | None:
    """The card an invoice would be charged to: its own, the subscription's, the customer's."""
    subscription = subscription_of(world, invoice)
    customer = world.require("customer", invoice["customer"])
    for stripe_id in (
        invoice["default_payment_method"],
        (subscription or {}).get("default_payment_method"),
        customer["invoice_settings"]["default_payment_method"],
    ):
        if stripe_id:
            return world.store.get("payment_method", stripe_id)
    return None


def collect(
    world: World, invoice: Obj, *, method: Obj | None = None, is_authenticated: bool = False, plans_retry: bool = True
) -> Collected:
    """Try to charge an open invoice; what happened is the answer and is recorded.

    ``is_authenticated`` says that a person has just passed the bank's question.
    """
    method = method or default_method(world, invoice)
    outcome: Outcome | Literal["no_method"] = charge_outcome(method) if method else "no_method"
    if outcome == "authenticate" and is_authenticated:
        outcome = "ok"
    with world.changing(invoice, None):
        invoice["attempt_count"] += 1
        invoice["attempted"] = True
    if outcome == "ok":
        mark_paid(world, invoice, method=method)
        return "paid"
    intent = world.require("payment_intent", invoice["_payment_intent"])
    _fail_intent(world, intent, method, outcome)
    with world.changing(invoice, None):
        invoice["next_payment_attempt"] = _next_attempt(world, invoice) if plans_retry else None
    world.emit("invoice.payment_failed", invoice)
    if outcome == "authenticate":
        world.emit("invoice.payment_action_required", invoice)
    after_failed(world, invoice)
    return outcome


def mark_paid(world: World, invoice: Obj, *, method: Obj | None = None, is_out_of_band: bool = False) -> None:
    """Settle an invoice and let its subscription know."""
    now = world.now()
    due = invoice["amount_due"]
    with world.changing(invoice, None):
        invoice["status"] = "paid"
        invoice["amount_paid"] = due
        invoice["amount_paid_off_stripe"] = due if is_out_of_band else 0
        invoice["amount_remaining"] = 0
        invoice["attempted"] = True
        invoice["next_payment_attempt"] = None
        invoice["status_transitions"]["paid_at"] = now
    intent = world.store.get("payment_intent", invoice["_payment_intent"])
    if intent is not None:
        _succeed_intent(world, intent, method, is_out_of_band=is_out_of_band)
        for payment in world.store.all("invoice_payment"):
            if payment["invoice"] == invoice["id"]:
                with world.changing(payment, None):
                    payment["status"] = "paid"
                    payment["amount_paid"] = due
                    payment["status_transitions"]["paid_at"] = now
                world.emit("invoice_payment.paid", payment)
    world.emit("invoice.paid", invoice)
    world.emit("invoice.payment_succeeded", invoice)
    after_paid(world, invoice)


def void(world: World, invoice: Obj) -> None:
    """Void an open invoice; the balance it used comes back."""
    customer = world.require("customer", invoice["customer"])
    used = balance_used(invoice)
    if used > 0:
        add_balance(
            world,
            customer,
            -used,
            currency=invoice["currency"],
            kind="unapplied_from_invoice",
            invoice=invoice["id"],
        )
    with world.changing(invoice, None):
        invoice["status"] = "void"
        invoice["next_payment_attempt"] = None
        invoice["auto_advance"] = False
        invoice["status_transitions"]["voided_at"] = world.now()
    intent = world.store.get("payment_intent", invoice["_payment_intent"])
    if intent is not None:
        with world.changing(intent, "payment_intent.canceled"):
            intent["status"] = "canceled"
            intent["canceled_at"] = world.now()
            intent["cancellation_reason"] = "void_invoice"
    world.emit("invoice.voided", invoice)


def write_off(world: World, invoice: Obj) -> None:
    """Mark an open invoice uncollectible."""
    with world.changing(invoice, None):
        invoice["status"] = "uncollectible"
        invoice["next_payment_attempt"] = None
        invoice["status_transitions"]["marked_uncollectible_at"] = world.now()
    world.emit("invoice.marked_uncollectible", invoice)


def pay_now(world: World, invoice: Obj, *, method: Obj | None = None) -> None:
    """Finalize and charge. Raises nothing: how it went is in the invoice and in the subscription's status."""
    finalize(world, invoice)
    if invoice["status"] == "open" and invoice["collection_method"] == "charge_automatically":
        collect(world, invoice, method=method)


def payment_error(world: World, invoice: Obj, collected: Collected, *, code: str) -> ApiError:
    """The refusal that a call answers with when a payment did not go through."""
    intent = world.store.get("payment_intent", invoice["_payment_intent"])
    if collected == "no_method":
        return ApiError(400, NO_METHOD, code="resource_missing", keeps_changes=True)
    if collected == "authenticate":
        noun = "this subscription" if code.startswith("subscription") else "this invoice"
        return ApiError(
            402,
            f"Payment for {noun} requires additional user action before it can be completed successfully. Payment can "
            "be completed using the PaymentIntent associated with the invoice.",
            type="card_error",
            code=code,
            extra={"payment_intent": _shown_intent(intent)},
            keeps_changes=True,
        )
    if collected == "paid":
        raise ValueError("a paid invoice is no error")
    return refusal(collected, {"payment_intent": _shown_intent(intent)})


def _new_intent(world: World, invoice: Obj) -> Obj:
    stripe_id = new_id("pi")
    intent = world.store.add(
        {
            "id": stripe_id,
            "object": "payment_intent",
            "amount": invoice["amount_due"],
            "amount_capturable": 0,
            "amount_received": 0,
            "capture_method": "automatic",
            "client_secret": f"{stripe_id}_secret_{new_id('', 24)[1:]}",
            "confirmation_method": "automatic",
            "created": world.now(),
            "currency": invoice["currency"],
            "customer": invoice["customer"],
            "description": "Subscription update" if invoice["parent"] else None,
            "last_payment_error": None,
            "livemode": False,
            "metadata": {},
            "next_action": None,
            "payment_method": None,
            "payment_method_types": ["card"],
            "setup_future_usage": "off_session",
            "status": "requires_payment_method",
            "_invoice": invoice["id"],
        }
    )
    world.store.add(
        {
            "id": new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": invoice["amount_due"],
            "created": world.now(),
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"charge": None, "payment_intent": stripe_id, "payment_record": None, "type": "payment_intent"},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        }
    )
    world.emit("payment_intent.created", intent)
    return intent


def _succeed_intent(world: World, intent: Obj, method: Obj | None, *, is_out_of_band: bool) -> None:
    with world.changing(intent, None):
        intent["next_action"] = None
        intent["last_payment_error"] = None
        if is_out_of_band:
            intent["status"] = "canceled"
            intent["canceled_at"] = world.now()
        else:
            intent["status"] = "succeeded"
            intent["amount_received"] = intent["amount"]
            intent["payment_method"] = method["id"] if method else None
            if not world.is_rehearsal:
                intent["latest_charge"] = new_charge(world, intent, method)["id"]
    world.emit("payment_intent.canceled" if is_out_of_band else "payment_intent.succeeded", intent)


def _fail_intent(world: World, intent: Obj, method: Obj | None, outcome: Outcome | Literal["no_method"]) -> None:
    with world.changing(intent, None):
        if outcome == "authenticate" and method:
            intent["status"] = "requires_action"
            intent["payment_method"] = method["id"]
            intent["next_action"] = {
                "type": "redirect_to_url",
                "redirect_to_url": {"return_url": None, "url": f"{world.config.public_url}/i/{intent['_invoice']}"},
            }
        else:
            intent["status"] = "requires_payment_method"
            intent["payment_method"] = None
        if outcome != "no_method":
            intent["last_payment_error"] = refusal(outcome).body["error"]
    if outcome == "authenticate":
        world.emit("payment_intent.requires_action", intent)
    elif outcome != "no_method":
        world.emit("payment_intent.payment_failed", intent)


def _next_attempt(world: World, invoice: Obj) -> int | None:
    if invoice["billing_reason"] not in ("subscription_cycle", "subscription_threshold", "subscription_update"):
        return None
    days = world.config.retry_days
    number = invoice["attempt_count"] - 1
    return world.now() + days[number] * DAY if number < len(days) else None


def _shown_intent(intent: Obj | None) -> Obj | None:
    return {k: v for k, v in intent.items() if not k.startswith("_")} if intent else None
