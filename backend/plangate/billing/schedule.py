"""Writes the phases of a scheduled downgrade: what holds now, carried over whole, then what follows at the boundary.

Stripe replaces all phases at every update, so whatever of the running phase is left out is lost: discounts, taxes,
metadata, trial, thresholds, payment method. Everything writable is therefore listed here, and a test holds the list
to the official package's own parameter types.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from plangate.billing.gateway import LineItem, reference
from plangate.billing.transport import StripeJson
from plangate.engine.values import Interval

_Carry: TypeAlias = Callable[[Any], Any]


class Boundary(NamedTuple):
    """Where the running phase ends (whole seconds, the exact end of the item's period) and what interval follows."""

    at: int
    interval: Interval
    interval_count: int
    is_interval_changed: bool


def scheduled_phases(
    schedule: StripeJson,
    target: Sequence[LineItem],
    *,
    boundary: Boundary,
    metadata: Mapping[str, str],
    promotion_code: str | None = None,
    subscription: StripeJson | None = None,
    collection: Mapping[str, Any] | None = None,
) -> StripeJson:
    """The parameters that make `schedule` hold two phases: the running one unchanged, then `target` from the boundary.

    No proration at the request or at the boundary; the schedule releases the subscription after the new phase's first
    period. `metadata` marks the schedule as ours, and the subscription once the new phase is entered. A new interval
    restarts the billing cycle at the boundary, or its price would not be collected until the old one ends. A promotion
    code is redeemed at the boundary, in place of the discounts held until then.

    `subscription` is what the schedule manages, as just fetched. Its discounts and tax rates go before those of the
    running phase: a code the phase names may be redeemed and used up, and people edit the subscription beside it.
    `collection` is how the target's invoices are collected, where that changes.
    """
    held = _held_phase(schedule, subscription)
    held["end_date"] = boundary.at
    following = {name: value for name, value in held.items() if name not in _BELONGS_TO_RUNNING}
    held_items = {item["price"]: item for item in held["items"]}
    following["items"] = [_target_item(item, held_items.get(item.stripe_price_id)) for item in target]
    following["start_date"] = boundary.at
    following["duration"] = {"interval": boundary.interval.value, "interval_count": boundary.interval_count}
    following["proration_behavior"] = "none"
    following["metadata"] = {**held.get("metadata", {}), **metadata}
    if promotion_code is not None:
        following["discounts"] = [{"promotion_code": promotion_code}]
    if collection:
        following["collection_method"] = collection["collection_method"]
        if "days_until_due" in collection:
            settings = {**following.get("invoice_settings", {}), "days_until_due": collection["days_until_due"]}
            following["invoice_settings"] = settings
    if boundary.is_interval_changed:
        following["billing_cycle_anchor"] = "phase_start"
    return {
        "end_behavior": "release",
        "proration_behavior": "none",
        "metadata": dict(metadata),
        "phases": [held, following],
    }


def kept_phase(schedule: StripeJson, target: Sequence[LineItem], *, until: int, subscription: StripeJson) -> StripeJson:
    """The running phase with other items and no end before `until`: what goes on when nothing follows."""
    held = _held_phase(schedule, subscription)
    held_items = {item["price"]: item for item in held["items"]}
    return {
        **held,
        "items": [_target_item(item, held_items.get(item.stripe_price_id)) for item in target],
        "end_date": until,
    }


def _held_phase(schedule: StripeJson, subscription: StripeJson | None) -> StripeJson:
    """The running phase as it would be written again, with the discounts and taxes that the subscription has now."""
    held = carried_phase(running_phase(schedule))
    if subscription is not None:
        held |= {"discounts": [], "default_tax_rates": []} | _carried(subscription, _HELD_FIELDS)
        held = {name: value for name, value in held.items() if name not in _HELD_FIELDS or value}
    return held


def running_phase(schedule: StripeJson) -> StripeJson:
    """The phase in force: the one that starts with `current_phase`, or the first of a schedule not started."""
    phases: list[StripeJson] = sorted(schedule["phases"], key=lambda phase: int(phase["start_date"]))
    current = schedule.get("current_phase")
    if current is not None:
        for phase in phases:
            if phase["start_date"] == current["start_date"]:
                return phase
    return phases[0]


def carried_phase(phase: StripeJson) -> StripeJson:
    """A phase as Stripe returned it, turned back into the parameters that would write it again."""
    return _carried(phase, PHASE_FIELDS)


def _kept_discount(value: StripeJson | str) -> StripeJson:
    return {"discount": value if isinstance(value, str) else value["id"]}


# A trial, its end and one-off items belong to the phase that runs; the next one must not repeat them. The boundary's
# own dates and anchor are set explicitly.
_BELONGS_TO_RUNNING: Final = frozenset(
    {"add_invoice_items", "billing_cycle_anchor", "end_date", "items", "start_date", "trial", "trial_end"}
)


def _target_item(item: LineItem, held: StripeJson | None) -> StripeJson:
    """One item of the new phase. A price that is held already keeps its discounts, taxes and metadata."""
    written: StripeJson = {**(held or {}), "price": item.stripe_price_id}
    written.pop("quantity", None)
    if item.quantity is not None:
        written["quantity"] = item.quantity
    return written


def _carried(source: Mapping[str, Any], fields: Mapping[str, _Carry]) -> StripeJson:
    """The listed fields that hold something; absent, null and empty ones keep Stripe's default or inheritance."""
    written: StripeJson = {}
    for name, carry in fields.items():
        value = source.get(name)
        carried = None if value is None else carry(value)
        if carried is not None and carried not in ([], {}, ""):
            written[name] = carried
    return written


def _as_is(value: object) -> object:
    return value


def _nested(fields: Mapping[str, _Carry]) -> _Carry:
    return lambda value: _carried(value, fields)


def _each(carry: _Carry) -> _Carry:
    return lambda values: [carry(value) for value in values]


def _discount(value: StripeJson) -> StripeJson:
    """An existing discount is kept as it is, with what is left of its duration; else its coupon or code."""
    for name in ("discount", "coupon", "promotion_code"):
        found = reference(value.get(name))
        if found is not None:
            return {name: found}
    return {}


_PARTY: Final[Mapping[str, _Carry]] = {"account": reference, "type": _as_is}
_THRESHOLD: Final[Mapping[str, _Carry]] = {"amount_gte": _as_is, "reset_billing_cycle_anchor": _as_is}

ITEM_FIELDS: Final[Mapping[str, _Carry]] = {
    "billing_thresholds": _nested({"usage_gte": _as_is}),
    "discounts": _each(_discount),
    "metadata": dict,
    "price": reference,
    "quantity": _as_is,
    "tax_rates": _each(reference),
}
INVOICE_ITEM_FIELDS: Final[Mapping[str, _Carry]] = {
    "discountable": _as_is,
    "discounts": _each(_discount),
    "metadata": dict,
    "period": _nested(
        {
            "end": _nested({"timestamp": _as_is, "type": _as_is}),
            "start": _nested({"timestamp": _as_is, "type": _as_is}),
        }
    ),
    "price": reference,
    "quantity": _as_is,
    "tax_rates": _each(reference),
}
INVOICE_SETTINGS_FIELDS: Final[Mapping[str, _Carry]] = {
    "account_tax_ids": _each(reference),
    "custom_fields": _each(_nested({"name": _as_is, "value": _as_is})),
    "days_until_due": _as_is,
    "description": _as_is,
    "footer": _as_is,
    "issuer": _nested(_PARTY),
}
_HELD_FIELDS: Final[Mapping[str, _Carry]] = {
    "default_tax_rates": _each(reference),
    "discounts": _each(_kept_discount),
}
PHASE_FIELDS: Final[Mapping[str, _Carry]] = {
    "add_invoice_items": _each(_nested(INVOICE_ITEM_FIELDS)),
    "application_fee_percent": _as_is,
    "automatic_tax": _nested({"enabled": _as_is, "liability": _nested(_PARTY)}),
    "billing_cycle_anchor": _as_is,
    "billing_thresholds": _nested(_THRESHOLD),
    "collection_method": _as_is,
    "currency": _as_is,
    "default_payment_method": reference,
    "default_tax_rates": _each(reference),
    "description": _as_is,
    "discounts": _each(_discount),
    "end_date": _as_is,
    "invoice_settings": _nested(INVOICE_SETTINGS_FIELDS),
    "items": _each(_nested(ITEM_FIELDS)),
    "metadata": dict,
    "on_behalf_of": reference,
    "proration_behavior": _as_is,
    "start_date": _as_is,
    "transfer_data": _nested({"amount_percent": _as_is, "destination": reference}),
    "trial": _as_is,
    "trial_end": _as_is,
}
