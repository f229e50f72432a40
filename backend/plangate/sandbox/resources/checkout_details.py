"""What a hosted page asks a person for beside the card: a billing address, a phone number, a tax id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plangate.sandbox.errors import invalid
from plangate.sandbox.world import World

Obj = dict[str, Any]

_ADDRESS = (("line1", "Address"), ("city", "City"), ("postal_code", "Postal code"), ("country", "Country"))
_LENGTH_MAX = 200


def asked_members(p: Mapping[str, Any]) -> Obj:
    """The members of a session that say what its page asks for. Raises ApiError 400 for what cannot be kept."""
    update = p.get("customer_update") or {}
    asks_tax_id = bool((p.get("tax_id_collection") or {}).get("enabled"))
    if update and not p.get("customer"):
        raise invalid("`customer_update` can only be used with `customer`.", param="customer_update")
    if asks_tax_id and p.get("customer") and update.get("name") != "auto":
        raise invalid(
            "Tax ID collection requires updating business name on the customer. To enable tax ID collection for an "
            "existing customer, please set `customer_update[name]` to `auto`.",
            param="customer_update",
        )
    return {
        "billing_address_collection": p.get("billing_address_collection"),
        "phone_number_collection": {"enabled": bool((p.get("phone_number_collection") or {}).get("enabled"))},
        "tax_id_collection": {"enabled": asks_tax_id, "required": "never"},
        "_customer_update": dict(update),
    }


def fields_of(session: Obj) -> list[tuple[str, str, bool]]:
    """The fields of the page: `(name, label, is_required)`."""
    fields: list[tuple[str, str, bool]] = []
    if session["billing_address_collection"] == "required":
        fields += [(name, label, True) for name, label in _ADDRESS]
    if session["phone_number_collection"]["enabled"]:
        fields.append(("phone", "Phone number", True))
    if session["tax_id_collection"]["enabled"]:
        fields += [("business_name", "Business name (optional)", False), ("tax_id", "Tax ID (optional)", False)]
    return fields


def typed_details(session: Obj, form: Mapping[str, str]) -> dict[str, str]:
    """What the person typed into these fields. Raises ApiError 400 when a required one is empty."""
    typed = {name: form.get(name, "").strip()[:_LENGTH_MAX] for name, _, _ in fields_of(session)}
    missing = [label for name, label, is_required in fields_of(session) if is_required and not typed[name]]
    if missing:
        raise invalid(f"Fill in: {', '.join(missing)}.")
    return typed


def keep_details(world: World, session: Obj, customer: Obj, typed: Mapping[str, str]) -> Obj:
    """`customer_details` of the completed session; what the session says is kept on the customer is kept there."""
    address = None
    if "line1" in typed:
        address = {**{name: typed[name] for name, _ in _ADDRESS}, "line2": None, "state": None}
    kept: Obj = {}
    if address is not None and session["_customer_update"].get("address") == "auto":
        kept["address"] = address
    if typed.get("business_name") and session["_customer_update"].get("name") == "auto":
        kept["name"] = typed["business_name"]
    if typed.get("phone"):
        kept["phone"] = typed["phone"]
    if kept:
        with world.changing(customer, "customer.updated"):
            customer.update(kept)
    tax_ids = [{"type": "unknown", "value": typed["tax_id"]}] if typed.get("tax_id") else []
    return {
        "address": address,
        "business_name": typed.get("business_name") or None,
        "email": customer["email"],
        "individual_name": None,
        "name": customer["name"],
        "phone": customer["phone"],
        "tax_exempt": "none",
        "tax_ids": tax_ids,
    }
