"""Invoices and the way to the billing portal: thin on purpose, since Stripe's own pages show the rest."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from plangate.web.fragments import Action, Frame, InvoiceLine, InvoicesView, PortalView, Tone, web_address

_TONES: Mapping[str, Tone] = {"paid": "good", "open": "warn", "uncollectible": "bad"}


def invoices_view(frame: Frame, invoices: Sequence[Mapping[str, Any]]) -> InvoicesView:
    """A list of Stripe's invoice objects, newest first; drafts are left out."""
    reader = frame.reader
    lines = []
    for invoice in invoices:
        status = str(invoice.get("status") or "open")
        if status == "draft":
            continue
        date = reader.day(datetime.fromtimestamp(int(invoice["created"]), UTC))
        key = f"invoices.status.{status}"
        url = web_address(invoice.get("hosted_invoice_url"))
        link = None
        if url:
            spoken = reader.say("invoices.view_named", date=date)
            link = Action(label=reader.say("invoices.view"), url=url, style="plain", spoken=spoken)
        lines.append(
            InvoiceLine(
                date=date,
                amount=reader.money(int(invoice.get("total") or 0), str(invoice["currency"])),
                status=reader.say(key) if reader.knows(key) else status,
                tone=_TONES.get(status, ""),
                link=link,
            )
        )
    return InvoicesView(frame=frame, lines=tuple(lines))


def portal_view(frame: Frame, *, can_open: bool) -> PortalView:
    """The button to the billing portal, or why there is none yet."""
    say = frame.reader.say
    if not can_open:
        return PortalView(frame=frame, text=say("portal.none"), action=None)
    action = Action(label=say("portal.button"), post="portal", element_id="open-portal")
    return PortalView(frame=frame, text=say("portal.text"), action=action)
