"""Charges, and the disputes that cardholders open about them."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.clock import DAY
from plangate.sandbox.errors import invalid
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, in_range, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

Obj = dict[str, Any]

OPEN_STATUSES = ("needs_response", "under_review")
CLOSED_STATUSES = ("won", "lost", "warning_closed")


def new_charge(world: World, intent: Obj, method: Obj | None) -> Obj:
    """The charge of a payment intent that succeeded."""
    return world.store.add(
        {
            "id": new_id("ch"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": intent["amount"],
            "amount_refunded": 0,
            "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
            "captured": True,
            "created": world.now(),
            "currency": intent["currency"],
            "customer": intent["customer"],
            "disputed": False,
            "livemode": False,
            "metadata": {},
            "paid": True,
            "payment_intent": intent["id"],
            "payment_method": method["id"] if method else None,
            "refunded": False,
            "status": "succeeded",
        }
    )


def charge_of(world: World, stripe_intent_id: str) -> Obj | None:
    """The charge of a payment intent, if it succeeded."""
    return next((one for one in world.store.all("charge") if one["payment_intent"] == stripe_intent_id), None)


def note_refunded(world: World, intent: Obj, amount: int) -> None:
    """Count a refund on the charge it gives back."""
    charge = charge_of(world, intent["id"])
    if charge is None:
        return
    with world.changing(charge, "charge.refunded"):
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] >= charge["amount"]


def open_dispute(world: World, stripe_charge_id: str, *, reason: str, amount: int | None) -> Obj:
    """What the cardholder's bank does: dispute a charge. Raises ApiError 400 for one that is disputed already."""
    charge = world.require("charge", stripe_charge_id, param="charge")
    if charge["disputed"]:
        raise invalid("This charge is disputed already.", param="charge")
    disputed = charge["amount"] if amount is None else amount
    if not 0 < disputed <= charge["amount"]:
        raise invalid(f"The disputed amount is from 1 to {charge['amount']}.", param="amount")
    dispute = world.store.add(
        {
            "id": new_id("du"),
            "object": "dispute",
            "amount": disputed,
            "balance_transactions": [],
            "charge": charge["id"],
            "created": world.now(),
            "currency": charge["currency"],
            "enhanced_eligibility_types": [],
            "evidence": {"enhanced_evidence": {}},
            "evidence_details": {
                "due_by": world.now() + 7 * DAY,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
                "submission_method": None,
            },
            "is_charge_refundable": False,
            "livemode": False,
            "metadata": {},
            "payment_intent": charge["payment_intent"],
            "reason": reason,
            "status": "needs_response",
        }
    )
    with world.changing(charge, "charge.updated"):
        charge["disputed"] = True
    world.emit("charge.dispute.created", dispute)
    world.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def decide_dispute(world: World, stripe_dispute_id: str, status: str) -> Obj:
    """What the bank decides, or that evidence is under review. Raises ApiError 400 for one that is closed."""
    dispute = world.require("dispute", stripe_dispute_id)
    if dispute["status"] in CLOSED_STATUSES:
        raise invalid(f"This dispute is closed already: it is {dispute['status']}.")
    if status not in (*OPEN_STATUSES, *CLOSED_STATUSES):
        raise invalid("Invalid status", param="status")
    is_closed = status in CLOSED_STATUSES
    with world.changing(dispute, "charge.dispute.closed" if is_closed else "charge.dispute.updated"):
        dispute["status"] = status
    if status == "won":
        world.emit("charge.dispute.funds_reinstated", dispute)
    return dispute


def retrieve_charge(world: World, call: Call) -> Obj:
    """`GET /v1/charges/{id}`."""
    return view(world, world.require("charge", call.ids[0]))


def list_charges(world: World, call: Call) -> Obj:
    """`GET /v1/charges`."""
    p = call.params
    rows = [
        c
        for c in newest_first(world, "charge")
        if p.get("customer") in (None, c["customer"])
        and p.get("payment_intent") in (None, c["payment_intent"])
        and in_range(c["created"], p.get("created"))
    ]
    return page(world, call, rows)


def retrieve_dispute(world: World, call: Call) -> Obj:
    """`GET /v1/disputes/{id}`."""
    return view(world, world.require("dispute", call.ids[0]))


def list_disputes(world: World, call: Call) -> Obj:
    """`GET /v1/disputes`."""
    p = call.params
    rows = [
        d
        for d in newest_first(world, "dispute")
        if p.get("charge") in (None, d["charge"])
        and p.get("payment_intent") in (None, d["payment_intent"])
        and in_range(d["created"], p.get("created"))
    ]
    return page(world, call, rows)


def close_dispute(world: World, call: Call) -> Obj:
    """`POST /v1/disputes/{id}/close`: the dispute is accepted, and lost."""
    return view(world, decide_dispute(world, call.ids[0], "lost"))


ROUTES = [
    Route("GET", "/v1/charges", "ChargeListParams", list_charges, "list:Charge"),
    Route("GET", "/v1/charges/{}", "ChargeRetrieveParams", retrieve_charge, "Charge"),
    Route("GET", "/v1/disputes", "DisputeListParams", list_disputes, "list:Dispute"),
    Route("GET", "/v1/disputes/{}", "DisputeRetrieveParams", retrieve_dispute, "Dispute"),
    Route("POST", "/v1/disputes/{}/close", "DisputeCloseParams", close_dispute, "Dispute"),
]
