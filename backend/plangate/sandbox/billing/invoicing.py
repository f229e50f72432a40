"""Drafting invoices: lines, discounts, tax and the customer's balance added up the same way for preview and charge."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.money import percentage, without_tax
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .discounts import amount_off
from .lines import count_usage
from .standing import subscription_of

Obj = dict[str, Any]


class Previewed(Exception):
    """Ends a rehearsal with the invoice that would be made."""

    def __init__(self, invoice: Obj) -> None:
        super().__init__("preview")
        self.invoice = invoice


def draft_invoice(
    world: World,
    *,
    customer: Obj,
    subscription: Obj | None,
    lines: list[Obj],
    reason: str,
    period: tuple[int, int] | None = None,
    takes_pending: bool = True,
    proration_date: int | None = None,
    extra_discounts: list[str] | None = None,
    currency: str | None = None,
) -> Obj:
    """An invoice in draft, its totals done. In a rehearsal this raises Previewed instead.

    ``takes_pending`` also moves the subscription's waiting proration items onto it. ``period`` is the period it was
    made for, in unix seconds.
    """
    now = world.now()
    invoice_id = new_id("upcoming_in" if world.is_rehearsal else "in")
    pending = _take_pending(world, subscription, invoice_id) if subscription and takes_pending else []
    rows = [*pending, *lines]
    for line in rows:
        line["invoice"] = invoice_id
    settings = (subscription or {}).get("invoice_settings") or {}
    method = (subscription or {}).get("collection_method", "charge_automatically")
    invoice: Obj = {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Sandbox",
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_shipping": 0,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": reason,
        "collection_method": method,
        "created": now,
        "currency": (subscription or {}).get("currency") or currency or rows[0]["currency"],
        "custom_fields": settings.get("custom_fields"),
        "customer": customer["id"],
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": customer["shipping"],
        "customer_tax_exempt": customer["tax_exempt"],
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_tax_rates": [],
        "description": settings.get("description"),
        "discounts": [],
        "due_date": None,
        "footer": settings.get("footer"),
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"account": None, "type": "self"},
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "parent": None,
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_start": period[0] if period else now,
        "period_end": period[1] if period else now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "total_pretax_credit_amounts": [],
        "_lines": rows,
        "_payment_intent": None,
        "_checkout_session": None,
    }
    if subscription is not None:
        if method == "send_invoice":
            invoice["due_date"] = now + 86_400 * (subscription["days_until_due"] or 30)
        invoice["parent"] = {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
                "subscription_proration_date": proration_date,
            },
            "type": "subscription_details",
        }
    add_up(world, invoice, customer, _discounts(world, customer, subscription, extra_discounts), subscription)
    if world.is_rehearsal:
        raise Previewed(invoice)
    world.store.add(invoice)
    world.emit("invoice.created", invoice)
    return invoice


def add_up(world: World, invoice: Obj, customer: Obj, discounts: list[Obj], subscription: Obj | None) -> None:
    """Totals of a draft from its lines."""
    rows = invoice["_lines"]
    subtotal = sum(line["amount"] for line in rows)
    off = _apply_discounts(world, rows, discounts, currency=invoice["currency"])
    taxes = _apply_taxes(world, rows, subscription, is_exempt=customer["tax_exempt"] != "none")
    total = subtotal - sum(off.values()) + sum(t["amount"] for t in taxes if t["tax_behavior"] == "exclusive")
    starting = customer["balance"]
    due = max(0, total + starting) if total > 0 else 0
    invoice.update(
        {
            "subtotal": subtotal,
            "subtotal_excluding_tax": subtotal - sum(t["amount"] for t in taxes if t["tax_behavior"] == "inclusive"),
            "total": total,
            "total_excluding_tax": total - sum(t["amount"] for t in taxes),
            "total_discount_amounts": [{"amount": value, "discount": key} for key, value in off.items()],
            "total_taxes": taxes,
            "discounts": [d["id"] for d in discounts],
            "starting_balance": starting,
            "ending_balance": None,
            "amount_due": due,
            "amount_remaining": due,
        }
    )


def count_late_usage(world: World, invoice: Obj) -> None:
    """Bring the usage on a draft up to date, with its totals: until it is finalized, what is reported late counts."""
    used = [line for line in invoice["_lines"] if line.get("_is_usage")]
    if not used:
        return
    world.store.touch(invoice)
    moved = [count_usage(world, line, invoice["customer"]) for line in used]
    if not any(moved):
        return
    for line in invoice["_lines"]:
        line["discount_amounts"] = []
    discounts = [world.require("discount", stripe_id) for stripe_id in invoice["discounts"]]
    customer = world.require("customer", invoice["customer"])
    add_up(world, invoice, customer, discounts, subscription_of(world, invoice))


def balance_used(invoice: Obj) -> int:
    """What finalizing an invoice does to the customer's balance (positive uses credit, negative adds it)."""
    total, starting = invoice["total"], invoice["starting_balance"]
    if total <= 0:
        return int(total)
    return int(total - invoice["amount_due"]) if starting < 0 else int(-starting)


def keep_for_later(world: World, subscription: Obj, lines: list[Obj]) -> None:
    """Prorations wait on the subscription for its next invoice."""
    for line in lines:
        details = line["parent"]["subscription_item_details"]
        row = {
            "id": new_id("ii"),
            "object": "invoiceitem",
            "amount": line["amount"],
            "currency": line["currency"],
            "customer": subscription["customer"],
            "date": world.now(),
            "description": line["description"],
            "discountable": line["discountable"],
            "discounts": [],
            "invoice": None,
            "livemode": False,
            "metadata": {},
            "net_amount": line["amount"],
            "parent": {
                "subscription_details": {
                    "subscription": subscription["id"],
                    "subscription_item": details["subscription_item"],
                },
                "type": "subscription_details",
            },
            "period": dict(line["period"]),
            "pricing": line["pricing"],
            "proration": True,
            "quantity": line["quantity"],
            "quantity_decimal": line["quantity_decimal"],
            "tax_rates": [],
            "_line": line,
            "_subscription": subscription["id"],
        }
        details["invoice_item"] = row["id"]
        world.add(row, "invoiceitem.created")


def pending_lines(world: World, subscription: Obj) -> list[Obj]:
    """Lines of the items that wait for the next invoice."""
    return [
        row["_line"]
        for row in world.store.all("invoiceitem")
        if row["_subscription"] == subscription["id"] and row["invoice"] is None
    ]


def _take_pending(world: World, subscription: Obj, invoice_id: str) -> list[Obj]:
    lines = []
    for row in world.store.all("invoiceitem"):
        if row["_subscription"] == subscription["id"] and row["invoice"] is None:
            world.store.touch(row)
            row["invoice"] = invoice_id
            lines.append(row["_line"])
    return lines


def _discounts(world: World, customer: Obj, subscription: Obj | None, extra: list[str] | None) -> list[Obj]:
    ids = list(extra or (subscription or {}).get("discounts") or [])
    if not ids and customer.get("_discount"):
        ids = [customer["_discount"]]
    found = [world.store.get("discount", stripe_id) for stripe_id in ids]
    return [
        d for d in found if d is not None and (d["end"] is None or d["end"] > world.now() or d.get("_is_previewed"))
    ]


def _apply_discounts(world: World, rows: list[Obj], discounts: list[Obj], *, currency: str) -> dict[str, int]:
    off: dict[str, int] = {}
    left = {line["id"]: line["amount"] for line in rows}
    for discount in discounts:
        coupon = world.require("coupon", discount["source"]["coupon"])
        chosen = [line for line in rows if _covers(coupon, line)]
        if coupon["percent_off"] is not None:
            parts = {line["id"]: percentage(left[line["id"]], coupon["percent_off"]) for line in chosen}
        else:
            room = max(0, sum(left[line["id"]] for line in chosen))
            rest = min(amount_off(coupon, currency), room)
            parts = {}
            for line in chosen:
                parts[line["id"]] = min(rest, max(0, left[line["id"]]))
                rest -= parts[line["id"]]
        for line in chosen:
            part = parts[line["id"]]
            left[line["id"]] -= part
            if part:
                line["discount_amounts"].append({"amount": part, "discount": discount["id"]})
        off[discount["id"]] = sum(parts.values())
    return off


def _covers(coupon: Obj, line: Obj) -> bool:
    products = (coupon["_applies_to"] or {}).get("products")
    return not products or (line["pricing"] or {}).get("price_details", {}).get("product") in products


def _apply_taxes(world: World, rows: list[Obj], subscription: Obj | None, *, is_exempt: bool) -> list[Obj]:
    ids = [rate["id"] for rate in (subscription or {}).get("default_tax_rates") or []]
    if is_exempt:
        return []
    sums: list[Obj] = []
    for stripe_id in ids:
        rate = world.require("tax_rate", stripe_id)
        base = sum(line["amount"] - sum(d["amount"] for d in line["discount_amounts"]) for line in rows)
        amount = percentage(base, rate["percentage"])
        if rate["inclusive"]:
            amount = base - without_tax(base, rate["percentage"])
        sums.append(
            {
                "amount": amount,
                "tax_behavior": "inclusive" if rate["inclusive"] else "exclusive",
                "tax_rate_details": {"tax_rate": stripe_id},
                "taxability_reason": "standard_rated",
                "taxable_amount": base,
                "type": "tax_rate_details",
            }
        )
    return sums
