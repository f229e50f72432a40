"""Invoices: read, paid, finalized, voided, and previewed by acting the change out."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.billing.agenda import Agenda
from plangate.sandbox.billing.collecting import collect, finalize, mark_paid, payment_error, void, write_off
from plangate.sandbox.billing.discounts import discount_ids
from plangate.sandbox.billing.ending import clear_pending_update, end_subscription
from plangate.sandbox.billing.invoicing import Previewed, add_up
from plangate.sandbox.billing.lines import new_line
from plangate.sandbox.billing.standing import subscription_of
from plangate.sandbox.billing.starting import start_subscription
from plangate.sandbox.clock import DAY
from plangate.sandbox.errors import ApiError, invalid, required
from plangate.sandbox.render import expand, view
from plangate.sandbox.routing import Call, Params, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.world import World

from .customers import new_customer
from .payment_methods import usable_method
from .schedules import change_schedule
from .subscriptions import change_subscription, check_updatable

Obj = dict[str, Any]

PREVIEWS_KEPT = 100
PREVIEW_HORIZON_SECONDS = 4 * 366 * DAY


def retrieve_invoice(world: World, call: Call) -> Obj:
    """`GET /v1/invoices/{id}`."""
    return view(world, world.require("invoice", call.ids[0]))


def list_invoices(world: World, call: Call) -> Obj:
    """`GET /v1/invoices`."""
    p = call.params
    rows = [
        i
        for i in newest_first(world, "invoice")
        if p.get("customer") in (None, i["customer"])
        and p.get("status") in (None, i["status"])
        and p.get("collection_method") in (None, i["collection_method"])
        and p.get("subscription") in (None, ((i["parent"] or {}).get("subscription_details") or {}).get("subscription"))
        and in_range(i["created"], p.get("created"))
        and in_range(i["due_date"], p.get("due_date"))
    ]
    return page(world, call, rows)


def list_lines(world: World, call: Call) -> Obj:
    """`GET /v1/invoices/{id}/lines`, of previews too."""
    invoice = world.previews.get(call.ids[0]) or world.require("invoice", call.ids[0])
    return page(world, call, invoice["_lines"])


def list_payments(world: World, call: Call) -> Obj:
    """`GET /v1/invoice_payments`."""
    p = call.params
    rows = [
        r
        for r in newest_first(world, "invoice_payment")
        if p.get("invoice") in (None, r["invoice"])
        and p.get("status") in (None, r["status"])
        and (p.get("payment") or {}).get("payment_intent") in (None, r["payment"]["payment_intent"])
    ]
    return page(world, call, rows)


def update_invoice(world: World, call: Call) -> Obj:
    """`POST /v1/invoices/{id}`: what may change after it was made."""
    invoice = world.require("invoice", call.ids[0])
    p = call.params
    with world.changing(invoice, "invoice.updated"):
        if "metadata" in p:
            invoice["metadata"] = merged_metadata(invoice["metadata"], p["metadata"])
        for name in ("auto_advance", "description", "default_payment_method"):
            if name in p:
                invoice[name] = p[name] if p[name] != "" else None
    return view(world, invoice)


def finalize_invoice(world: World, call: Call) -> Obj:
    """`POST /v1/invoices/{id}/finalize`."""
    invoice = world.require("invoice", call.ids[0])
    if invoice["status"] != "draft":
        raise invalid(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
            code="invoice_not_editable",
        )
    if "auto_advance" in call.params:
        invoice["auto_advance"] = call.params["auto_advance"]
    return view(world, finalize(world, invoice))


def pay_invoice(world: World, call: Call) -> Obj:
    """`POST /v1/invoices/{id}/pay`. Raises 402 when the card refuses or a person must act."""
    p = call.params
    invoice = world.require("invoice", call.ids[0])
    if invoice["status"] == "paid":
        raise invalid("Invoice is already paid", code="invoice_already_paid")
    if invoice["status"] in ("void", "uncollectible") and not p.get("paid_out_of_band"):
        raise invalid(f"This invoice can no longer be paid: it is {invoice['status']}.")
    if invoice["status"] == "draft":
        finalize(world, invoice)
    if invoice["status"] == "paid":
        return view(world, invoice)
    if p.get("paid_out_of_band"):
        mark_paid(world, invoice, is_out_of_band=True)
        return view(world, invoice)
    method = usable_method(world, p["payment_method"], "payment_method") if p.get("payment_method") else None
    collected = collect(world, invoice, method=method)
    if collected != "paid":
        raise payment_error(world, invoice, collected, code="invoice_payment_intent_requires_action")
    return view(world, invoice)


def void_invoice(world: World, call: Call) -> Obj:
    """`POST /v1/invoices/{id}/void`. An update that waits for its payment is given up with it."""
    invoice = world.require("invoice", call.ids[0])
    if invoice["status"] not in ("open", "uncollectible"):
        raise invalid("You can only pass in open invoices. This invoice isn't open.")
    subscription = subscription_of(world, invoice)
    pending = subscription["_pending"] if subscription is not None else None
    if subscription is not None and pending and pending["invoice"] == invoice["id"]:
        clear_pending_update(world, subscription, announces=True)
    if invoice["status"] != "void":
        void(world, invoice)
    return view(world, invoice)


def write_off_invoice(world: World, call: Call) -> Obj:
    """`POST /v1/invoices/{id}/mark_uncollectible`."""
    invoice = world.require("invoice", call.ids[0])
    if invoice["status"] != "open":
        raise invalid("You can only pass in open invoices. This invoice isn't open.")
    write_off(world, invoice)
    return view(world, invoice)


def create_preview(world: World, call: Call) -> Obj:
    """`POST /v1/invoices/create_preview`: the change is acted out in a copy, up to the first invoice it makes.

    So the amounts are those of the charge by construction. Raises 404 `invoice_upcoming_none` when none comes.
    """
    p = call.params
    details = p.get("subscription_details") or {}
    subscription = _previewed_subscription(world, p)
    stripe_customer_id = subscription["customer"] if subscription else p.get("customer")
    is_anybody = stripe_customer_id is None and not p.get("schedule")
    if is_anybody and not details.get("items"):
        raise required("customer")
    if p.get("schedule"):
        stripe_customer_id = world.require("subscription_schedule", p["schedule"], param="schedule")["customer"]
    copy = world.rehearsal(stripe_customer_id)
    if is_anybody:
        stripe_customer_id = new_customer(copy, {})["id"]
    with copy.clock.standing_at(world.now()):
        invoice = _rehearse(
            copy, p, details, subscription["id"] if subscription else None, stripe_customer_id=stripe_customer_id
        )
    if invoice is None:
        raise ApiError(
            404, "No upcoming invoices for customer: " + str(stripe_customer_id), code="invoice_upcoming_none"
        )
    _finish_preview(copy, p, invoice)
    # Its lines can be paged through, for as long as anybody may still be reading them.
    world.previews[invoice["id"]] = invoice
    while len(world.previews) > PREVIEWS_KEPT:
        del world.previews[next(iter(world.previews))]
    # Discounts that only the rehearsal redeemed are unknown outside of it.
    return expand(copy, view(copy, invoice), p.get("expand") or [])


def _previewed_subscription(world: World, p: Params) -> Obj | None:
    if p.get("subscription"):
        subscription = world.require("subscription", p["subscription"], param="subscription")
        if subscription["ended_at"] is not None:
            raise ApiError(
                404, f"No upcoming invoices for customer: {subscription['customer']}", code="invoice_upcoming_none"
            )
        return subscription
    if p.get("schedule"):
        schedule = world.require("subscription_schedule", p["schedule"], param="schedule")
        return world.store.get("subscription", schedule["subscription"])
    if p.get("subscription_details") or p.get("schedule_details"):
        return None
    live = [s for s in world.store.all("subscription") if s["customer"] == p.get("customer") and not s["ended_at"]]
    return live[0] if live else None


def _rehearse(
    copy: World, p: Params, details: Obj, stripe_subscription_id: str | None, *, stripe_customer_id: str | None
) -> Obj | None:
    subscription = copy.store.get("subscription", stripe_subscription_id)
    try:
        if subscription is None:
            if p.get("schedule_details") or not details.get("items"):
                return _first_of_schedule(copy, p)
            started = {
                **_creation(details),
                "customer": stripe_customer_id,
                "currency": p.get("currency"),
                "discounts": p.get("discounts") or None,
            }
            start_subscription(copy, started, pays_now=False)
            return None
        if p.get("schedule_details") or p.get("schedule"):
            _rehearse_schedule(copy, p, subscription)
        elif details.get("cancel_now"):
            end_subscription(
                copy,
                subscription,
                prorates=details.get("proration_behavior", "create_prorations") != "none",
                invoices_now=True,
            )
            return None
        elif details:
            update = Params({k: v for k, v in details.items() if k not in ("cancel_now", "resume_at", "start_date")})
            check_updatable(subscription, update)
            if "discounts" in p:
                held = set(subscription["discounts"])
                subscription["discounts"] = discount_ids(copy, subscription, p["discounts"] or [])
                for stripe_id in set(subscription["discounts"]) - held:
                    # Stripe applies these to the invoice it previews, whenever that comes.
                    copy.require("discount", stripe_id)["_is_previewed"] = True
                copy.require("customer", subscription["customer"])["_discount"] = None
            change_subscription(copy, subscription, {**update, "payment_behavior": "default_incomplete"})
        agenda = Agenda()
        copy.store.touch(subscription)
        schedule = copy.store.get("subscription_schedule", subscription["schedule"])
        if schedule is not None:
            copy.store.touch(schedule)
        agenda.catch_up(copy, copy.now() + PREVIEW_HORIZON_SECONDS)
    except Previewed as ended:
        return ended.invoice
    return None


def _rehearse_schedule(copy: World, p: Params, subscription: Obj) -> None:
    given = p.get("schedule_details")
    if not given:
        return
    schedule = copy.store.get("subscription_schedule", subscription["schedule"])
    if schedule is None:
        from .schedules import _from_subscription  # noqa: PLC0415 - only previews attach one on the way.

        schedule = _from_subscription(copy, subscription["id"])
    change_schedule(copy, schedule, given)


def _first_of_schedule(copy: World, p: Params) -> Obj | None:
    given = p.get("schedule_details")
    if not given or not given.get("phases"):
        return None
    first = given["phases"][0]
    start_subscription(
        copy,
        {"customer": p["customer"], "items": first["items"], "trial_end": first.get("trial_end")},
        pays_now=False,
    )
    return None


def _creation(details: Obj) -> Obj:
    allowed = ("items", "trial_end", "proration_behavior", "default_tax_rates", "billing_mode", "metadata")
    given = {k: details[k] for k in allowed if k in details}
    anchor = details.get("billing_cycle_anchor") or {}
    if anchor.get("timestamp"):
        given["billing_cycle_anchor"] = anchor["timestamp"]
    return {**given, "payment_behavior": "default_incomplete"}


def _finish_preview(copy: World, p: Params, invoice: Obj) -> None:
    is_recurring, extra = p.get("preview_mode") == "recurring", p.get("invoice_items") or []
    if is_recurring:
        invoice["_lines"] = [line for line in invoice["_lines"] if not line["_is_proration"]]
    invoice["_lines"] += [_extra_line(copy, entry, invoice["currency"]) for entry in extra]
    if is_recurring or extra:
        customer = copy.require("customer", invoice["customer"])
        for line in invoice["_lines"]:
            line["discount_amounts"] = []
        discounts = [copy.require("discount", d) for d in invoice["discounts"]]
        details = (invoice["parent"] or {}).get("subscription_details") or {}
        add_up(copy, invoice, customer, discounts, copy.store.get("subscription", details.get("subscription")))
    given = (p.get("subscription_details") or {}).get("proration_date")
    if given and invoice["parent"]:
        invoice["parent"]["subscription_details"]["subscription_proration_date"] = given


def _extra_line(copy: World, entry: Obj, currency: str) -> Obj:
    """An invoice item that only the preview adds, as an amount."""
    if "amount" not in entry:
        raise invalid("Previews add invoice items by their `amount` here.", param="invoice_items[0][amount]")
    line = new_line(
        copy,
        amount=entry["amount"],
        currency=entry.get("currency") or currency,
        description=entry.get("description") or "",
        period=(copy.now(), copy.now()),
        price=None,
        quantity=1,
        subscription=None,
        item=None,
    )
    return {**line, "discountable": entry.get("discountable", True)}


_ID = "/v1/invoices/{}"
ROUTES = [
    Route("POST", "/v1/invoices/create_preview", "InvoiceCreatePreviewParams", create_preview, "Invoice"),
    Route("GET", "/v1/invoices", "InvoiceListParams", list_invoices, "list:Invoice"),
    Route("GET", _ID, "InvoiceRetrieveParams", retrieve_invoice, "Invoice"),
    Route("POST", _ID, "InvoiceUpdateParams", update_invoice, "Invoice"),
    Route("GET", f"{_ID}/lines", "InvoiceLineItemListParams", list_lines, "list:InvoiceLineItem"),
    Route("POST", f"{_ID}/finalize", "InvoiceFinalizeInvoiceParams", finalize_invoice, "Invoice"),
    Route("POST", f"{_ID}/pay", "InvoicePayParams", pay_invoice, "Invoice"),
    Route("POST", f"{_ID}/void", "InvoiceVoidInvoiceParams", void_invoice, "Invoice"),
    Route("POST", f"{_ID}/mark_uncollectible", "InvoiceMarkUncollectibleParams", write_off_invoice, "Invoice"),
    Route("GET", "/v1/invoice_payments", "InvoicePaymentListParams", list_payments, "list:InvoicePayment"),
]
