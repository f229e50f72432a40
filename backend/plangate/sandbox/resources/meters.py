"""Meters, the events that feed them, and sums of what they counted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from plangate.sandbox.clock import DAY
from plangate.sandbox.errors import ApiError, invalid
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, newest_first, page
from plangate.sandbox.spec import DECIMAL
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

Obj = dict[str, Any]

OLDEST_EVENT_SECONDS = 35 * DAY
NEWEST_EVENT_SECONDS = 300
IDENTIFIER_MEMORY_SECONDS = DAY
MAX_SUMMARIES = 5000


def create_meter(world: World, call: Call) -> Obj:
    """`POST /v1/billing/meters`."""
    p = call.params
    for other in world.store.all("billing.meter"):
        if other["event_name"] == p["event_name"] and other["status"] == "active":
            raise invalid(
                f"An active meter already exists for the event name `{p['event_name']}`: {other['id']}.",
                param="event_name",
            )
    mapping = p.get("customer_mapping") or {"event_payload_key": "stripe_customer_id", "type": "by_id"}
    meter = {
        "id": new_id("mtr", 20),
        "object": "billing.meter",
        "created": world.now(),
        "customer_mapping": mapping,
        "default_aggregation": p["default_aggregation"],
        "display_name": p["display_name"],
        "event_name": p["event_name"],
        "event_time_window": p.get("event_time_window"),
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": world.now(),
        "value_settings": p.get("value_settings") or {"event_payload_key": "value"},
    }
    return view(world, world.add(meter, "billing.meter.created"))


def retrieve_meter(world: World, call: Call) -> Obj:
    """`GET /v1/billing/meters/{id}`."""
    return view(world, world.require("billing.meter", call.ids[0]))


def update_meter(world: World, call: Call) -> Obj:
    """`POST /v1/billing/meters/{id}`: its display name."""
    meter = world.require("billing.meter", call.ids[0])
    with world.changing(meter, "billing.meter.updated"):
        meter["display_name"] = call.params.get("display_name", meter["display_name"])
        meter["updated"] = world.now()
    return view(world, meter)


def deactivate_meter(world: World, call: Call) -> Obj:
    """`POST /v1/billing/meters/{id}/deactivate`."""
    return _switch(world, call.ids[0], is_active=False)


def reactivate_meter(world: World, call: Call) -> Obj:
    """`POST /v1/billing/meters/{id}/reactivate`."""
    return _switch(world, call.ids[0], is_active=True)


def list_meters(world: World, call: Call) -> Obj:
    """`GET /v1/billing/meters`."""
    status = call.params.get("status")
    return page(world, call, [m for m in newest_first(world, "billing.meter") if status in (None, m["status"])])


def create_meter_event(world: World, call: Call) -> Obj:
    """`POST /v1/billing/meter_events`. Raises 400 for a repeated identifier, a bad time or value."""
    p = call.params
    now = world.now()
    meter = next(
        (m for m in world.store.all("billing.meter") if m["event_name"] == p["event_name"] and m["status"] == "active"),
        None,
    )
    if meter is None:
        raise invalid(f"No active meter found for event name `{p['event_name']}`.", param="event_name")
    identifier = p.get("identifier") or new_id("", 32)[1:]
    if len(identifier) > 100:
        raise invalid("Invalid string: must be at most 100 characters", param="identifier")
    seen = world.store.get("billing.meter_event", identifier)
    if seen is not None and now - seen["created"] < IDENTIFIER_MEMORY_SECONDS:
        raise ApiError(
            400,
            f"An event already exists with identifier {identifier}.",
            param="identifier",
            headers={"stripe-should-retry": "false"},
        )
    timestamp = p.get("timestamp", now)
    if timestamp < now - OLDEST_EVENT_SECONDS:
        raise invalid(
            "The event timestamp cannot be more than 35 days in past. Expected a timestamp greater than or equal to "
            f"{now - OLDEST_EVENT_SECONDS}.",
            param="timestamp",
        )
    if timestamp > now + NEWEST_EVENT_SECONDS:
        raise invalid(
            "The event timestamp cannot be more than 5 minutes in the future. Expected a timestamp less than or "
            f"equal to {now + NEWEST_EVENT_SECONDS}.",
            param="timestamp",
        )
    payload = p["payload"]
    customer_key = meter["customer_mapping"]["event_payload_key"]
    stripe_customer_id = payload.get(customer_key)
    if not stripe_customer_id:
        raise invalid(f"The payload is missing the customer mapping key `{customer_key}`.", param="payload")
    value_key = meter["value_settings"]["event_payload_key"]
    if meter["default_aggregation"]["formula"] != "count" and not DECIMAL.match(payload.get(value_key, "")):
        raise invalid(
            f"The payload's `{value_key}` must be a number with at most 12 decimals.", param=f"payload[{value_key}]"
        )
    event = {
        "id": identifier,
        "object": "billing.meter_event",
        "created": now,
        "event_name": p["event_name"],
        "identifier": identifier,
        "livemode": False,
        "payload": payload,
        "timestamp": timestamp,
        "_meter": meter["id"],
        "_customer": stripe_customer_id,
        # Stripe answers at once and finds out later; an event for nobody is accepted and counts for nobody.
        "_counts": world.store.get("customer", stripe_customer_id) is not None,
    }
    if seen is not None:
        # The identifier is free again after a day, yet what it counted then still counts.
        world.store.add({**seen, "id": new_id("old")})
    return {k: v for k, v in world.store.add(event).items() if k != "id" and not k.startswith("_")}


def list_summaries(world: World, call: Call) -> Obj:
    """`GET /v1/billing/meters/{id}/event_summaries`: one row, or one an hour or a day, newest first."""
    p = call.params
    meter = world.require("billing.meter", call.ids[0])
    start, end = p["start_time"], p["end_time"]
    if start % 60 or end % 60 or end <= start:
        raise invalid("start_time and end_time must be aligned with minute boundaries, in order.", param="start_time")
    window = p.get("value_grouping_window")
    step = {"hour": 3600, "day": DAY}.get(window or "", end - start)
    if window and (start % step or end % step):
        raise invalid(f"start_time and end_time must be aligned with {window} boundaries.", param="start_time")
    if (end - start) // step > MAX_SUMMARIES:
        raise invalid(f"The range holds more than {MAX_SUMMARIES} windows.", param="end_time")
    rows = []
    for since in range(start, end, step):
        until = min(since + step, end)
        value = usage(world, meter, p["customer"], since, until)
        if value or not window:
            rows.append(
                {
                    "id": f"mtrusg_{meter['id'][4:14]}{since}",
                    "object": "billing.meter_event_summary",
                    "aggregated_value": float(value),
                    "end_time": until,
                    "livemode": False,
                    "meter": meter["id"],
                    "start_time": since,
                }
            )
    return page(world, call, rows[::-1])


def usage(world: World, meter: Obj, stripe_customer_id: str, start: int, end: int) -> Decimal:
    """What a meter counted for a customer in `[start, end)`; never below zero."""
    rows = [
        event
        for event in world.store.tables.get("billing.meter_event", {}).values()
        if event["_meter"] == meter["id"]
        and event["_customer"] == stripe_customer_id
        and event["_counts"]
        and start <= event["timestamp"] < end
    ]
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return Decimal(len(rows))
    key = meter["value_settings"]["event_payload_key"]
    if formula == "last":
        return Decimal(max(rows, key=lambda e: int(e["timestamp"]))["payload"][key]) if rows else Decimal(0)
    return max(Decimal(0), sum((Decimal(e["payload"][key]) for e in rows), Decimal(0)))


def _switch(world: World, stripe_id: str, *, is_active: bool) -> Obj:
    meter = world.require("billing.meter", stripe_id)
    wanted = "active" if is_active else "inactive"
    if meter["status"] == wanted:
        raise invalid(f"This meter is already {wanted}.")
    with world.changing(meter, None):
        meter["status"] = wanted
        meter["updated"] = world.now()
        meter["status_transitions"] = {"deactivated_at": None if is_active else world.now()}
    world.emit(f"billing.meter.{'reactivated' if is_active else 'deactivated'}", meter)
    return view(world, meter)


ROUTES = [
    Route("POST", "/v1/billing/meters", "billing.MeterCreateParams", create_meter, "billing.Meter"),
    Route("GET", "/v1/billing/meters", "billing.MeterListParams", list_meters, "list:billing.Meter"),
    Route("GET", "/v1/billing/meters/{}", "billing.MeterRetrieveParams", retrieve_meter, "billing.Meter"),
    Route("POST", "/v1/billing/meters/{}", "billing.MeterUpdateParams", update_meter, "billing.Meter"),
    Route(
        "POST", "/v1/billing/meters/{}/deactivate", "billing.MeterDeactivateParams", deactivate_meter, "billing.Meter"
    ),
    Route(
        "POST", "/v1/billing/meters/{}/reactivate", "billing.MeterReactivateParams", reactivate_meter, "billing.Meter"
    ),
    Route(
        "GET",
        "/v1/billing/meters/{}/event_summaries",
        "billing.MeterEventSummaryListParams",
        list_summaries,
        "list:billing.MeterEventSummary",
    ),
    Route(
        "POST", "/v1/billing/meter_events", "billing.MeterEventCreateParams", create_meter_event, "billing.MeterEvent"
    ),
]
