"""Subscription schedules: taken from a subscription or written from scratch, rewritten whole, released or cancelled."""

from __future__ import annotations

import copy
from typing import Any

from plangate.sandbox.billing.ending import cancel_waiting, end_subscription
from plangate.sandbox.billing.lines import interval_of
from plangate.sandbox.billing.phases import advance_schedule, carry_out, release_schedule
from plangate.sandbox.billing.starting import check_currency
from plangate.sandbox.errors import ApiError, invalid, only_one, required
from plangate.sandbox.periods import boundary, checked_instant
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .customers import live_customer
from .prices import amounts_in, price_of

Obj = dict[str, Any]

_PHASE_NULLS = (
    "application_fee_percent",
    "automatic_tax",
    "billing_thresholds",
    "invoice_settings",
    "on_behalf_of",
    "transfer_data",
)


def create_schedule(world: World, call: Call) -> Obj:
    """`POST /v1/subscription_schedules`: from a subscription (and nothing else), or from phases."""
    p = call.params
    if p.get("from_subscription"):
        extra = sorted(set(p) - {"from_subscription", "expand"})
        if extra:
            raise invalid(f"You cannot set `{extra[0]}` if `from_subscription` is set.", param=extra[0])
        return view(world, _from_subscription(world, p["from_subscription"]))
    if not p.get("customer"):
        raise required("customer")
    if not p.get("phases"):
        raise required("phases")
    customer = live_customer(world, p["customer"], param="customer")
    start = p.get("start_date", "now")
    start_at = world.now() if start == "now" else start
    mode = (p.get("billing_mode") or {"type": "flexible"})["type"]
    schedule = _blank(world, customer["id"], mode)
    schedule["end_behavior"] = p.get("end_behavior", "release")
    schedule["metadata"] = merged_metadata({}, p.get("metadata"))
    schedule["default_settings"].update(p.get("default_settings") or {})
    given = [{**phase} for phase in p["phases"]]
    given[0].setdefault("start_date", start_at)
    schedule["phases"] = build_phases(world, given)
    check_currency(world, customer, schedule["phases"][0]["currency"])
    world.add(schedule, "subscription_schedule.created")
    if start_at <= world.now():
        advance_schedule(world, schedule)
    return view(world, schedule)


def retrieve_schedule(world: World, call: Call) -> Obj:
    """`GET /v1/subscription_schedules/{id}`."""
    return view(world, world.require("subscription_schedule", call.ids[0]))


def list_schedules(world: World, call: Call) -> Obj:
    """`GET /v1/subscription_schedules`."""
    p = call.params
    rows = [
        s
        for s in newest_first(world, "subscription_schedule")
        if p.get("customer") in (None, s["customer"])
        and (not p.get("scheduled") or s["status"] == "not_started")
        and in_range(s["created"], p.get("created"))
        and in_range(s["canceled_at"], p.get("canceled_at"))
        and in_range(s["completed_at"], p.get("completed_at"))
        and in_range(s["released_at"], p.get("released_at"))
    ]
    return page(world, call, rows)


def update_schedule(world: World, call: Call) -> Obj:
    """`POST /v1/subscription_schedules/{id}`: phases are replaced whole."""
    schedule = world.require("subscription_schedule", call.ids[0])
    change_schedule(world, schedule, call.params)
    return view(world, schedule)


def change_schedule(world: World, schedule: Obj, p: Obj) -> None:
    """What an update does; previews act it out in a rehearsal.

    The running phase keeps its start; when its content differs from the subscription it is carried out at once,
    prorated by the request's `proration_behavior` (which defaults to `create_prorations`).
    """
    if schedule["status"] not in ("active", "not_started"):
        raise invalid(
            f"You cannot update a subscription schedule that is currently in the `{schedule['status']}` status. It "
            "must be in the `not_started` or `active` status."
        )
    with world.changing(schedule, "subscription_schedule.updated"):
        if "end_behavior" in p:
            schedule["end_behavior"] = p["end_behavior"]
        if "metadata" in p:
            schedule["metadata"] = merged_metadata(schedule["metadata"], p["metadata"])
        if p.get("default_settings"):
            schedule["default_settings"].update(p["default_settings"])
        current = schedule["current_phase"]
        if p.get("phases"):
            given = [{**phase} for phase in p["phases"]]
            schedule["phases"] = build_phases(world, given, current=current)
            if current:
                running = _running(world, schedule)
                schedule["current_phase"] = {"start_date": running["start_date"], "end_date": running["end_date"]}
    if p.get("phases") and schedule["current_phase"]:
        carry_out(
            world,
            schedule,
            _running(world, schedule),
            behavior=p.get("proration_behavior") or "create_prorations",
        )


def cancel_schedule(world: World, call: Call) -> Obj:
    """`POST /v1/subscription_schedules/{id}/cancel`: its subscription ends too."""
    p = call.params
    schedule = world.require("subscription_schedule", call.ids[0])
    _must_live(schedule, "cancel")
    subscription = world.store.get("subscription", schedule["subscription"])
    if subscription is not None:
        end_subscription(world, subscription, prorates=p.get("prorate", True), invoices_now=p.get("invoice_now", True))
    else:
        cancel_waiting(world, schedule)
    return view(world, schedule)


def release_route(world: World, call: Call) -> Obj:
    """`POST /v1/subscription_schedules/{id}/release`: the subscription goes on by itself."""
    call.params.get("preserve_cancel_date")
    schedule = world.require("subscription_schedule", call.ids[0])
    _must_live(schedule, "release")
    release_schedule(world, schedule)
    return view(world, schedule)


def build_phases(world: World, given: list[Obj], *, current: Obj | None = None) -> list[Obj]:
    """Phases from parameters: contiguous, each with an end. Raises ApiError 400 in Stripe's words."""
    if len(given) > 10:
        raise invalid("A subscription schedule can have at most 10 current and future phases.", param="phases")
    if "start_date" not in given[0]:
        raise invalid(
            "The subscription schedule update is missing at least one phase with a `start_date` to anchor end dates "
            "to.",
            param="phases",
        )
    phases: list[Obj] = []
    for number, entry in enumerate(given):
        where = f"phases[{number}]"
        given_start = entry.get("start_date", phases[-1]["end_date"] if phases else None)
        start = world.now() if given_start in (None, "now") else int(given_start)
        checked_instant(start, now=world.now(), param=f"{where}[start_date]")
        if phases and start != phases[-1]["end_date"]:
            raise invalid(
                "The phases of a subscription schedule must be contiguous: each must start where the one before ends.",
                param=f"{where}[start_date]",
            )
        phases.append(_phase(world, entry, where, start))
    if current is not None:
        _check_current(phases, current, world.now())
    return phases


def phase_items_of(subscription: Obj) -> list[Obj]:
    """A subscription's rows as items of a phase."""
    return [_phase_item(item) for item in subscription["_items"]]


def _from_subscription(world: World, stripe_id: str) -> Obj:
    subscription = world.require("subscription", stripe_id, param="from_subscription")
    if subscription["schedule"]:
        raise invalid(
            f"You cannot migrate a subscription that is already attached to a schedule: `{subscription['id']}`.",
            param="from_subscription",
        )
    if subscription["status"] in ("canceled", "incomplete", "incomplete_expired"):
        raise invalid(
            f"You cannot migrate a subscription with the status `{subscription['status']}` to a schedule.",
            param="from_subscription",
        )
    starts = min(item["current_period_start"] for item in subscription["_items"])
    ends = min(item["current_period_end"] for item in subscription["_items"])
    schedule = _blank(world, subscription["customer"], subscription["billing_mode"]["type"])
    schedule["subscription"] = subscription["id"]
    schedule["status"] = "active"
    schedule["end_behavior"] = "cancel" if subscription["cancel_at"] else "release"
    schedule["default_settings"]["default_payment_method"] = subscription["default_payment_method"]
    schedule["default_settings"]["collection_method"] = subscription["collection_method"]
    schedule["current_phase"] = {"start_date": starts, "end_date": ends}
    schedule["phases"] = [
        {
            **dict.fromkeys(_PHASE_NULLS),
            "add_invoice_items": [],
            "billing_cycle_anchor": None,
            "collection_method": subscription["collection_method"],
            "currency": subscription["currency"],
            "default_payment_method": subscription["default_payment_method"],
            "default_tax_rates": copy.deepcopy(subscription["default_tax_rates"]),
            "description": subscription["description"],
            "discounts": [
                {"coupon": None, "discount": stripe_id, "promotion_code": None}
                for stripe_id in subscription["discounts"]
            ],
            "end_date": ends,
            "items": phase_items_of(subscription),
            "metadata": dict(subscription["metadata"]),
            "proration_behavior": "create_prorations",
            "start_date": starts,
            "trial": subscription["status"] == "trialing",
            "trial_end": subscription["trial_end"] if subscription["status"] == "trialing" else None,
        }
    ]
    world.add(schedule, "subscription_schedule.created")
    with world.changing(subscription, "customer.subscription.updated"):
        subscription["schedule"] = schedule["id"]
        subscription["cancel_at"] = None
        subscription["cancel_at_period_end"] = False
    return schedule


def _blank(world: World, stripe_customer_id: str, mode: str) -> Obj:
    return {
        "id": new_id("sub_sched"),
        "object": "subscription_schedule",
        "billing_mode": {
            "flexible": {"proration_discounts": "included"} if mode == "flexible" else None,
            "type": mode,
            "updated_at": None,
        },
        "canceled_at": None,
        "completed_at": None,
        "created": world.now(),
        "current_phase": None,
        "customer": stripe_customer_id,
        "default_settings": {
            "application_fee_percent": None,
            "automatic_tax": None,
            "billing_cycle_anchor": "automatic",
            "billing_thresholds": None,
            "collection_method": "charge_automatically",
            "default_payment_method": None,
            "description": None,
            "invoice_settings": {
                "account_tax_ids": None,
                "custom_fields": None,
                "days_until_due": None,
                "description": None,
                "footer": None,
                "issuer": {"account": None, "type": "self"},
            },
            "on_behalf_of": None,
            "transfer_data": None,
        },
        "end_behavior": "release",
        "livemode": False,
        "metadata": {},
        "pause_schedules": [],
        "phases": [],
        "released_at": None,
        "released_subscription": None,
        "status": "not_started",
        "subscription": None,
    }


def _phase(world: World, entry: Obj, where: str, start: int) -> Obj:
    if "end_date" in entry and "duration" in entry:
        raise only_one("duration", "end_date")
    if not entry["items"]:
        raise invalid("A phase must have at least one item.", param=f"{where}[items]")
    prices = [price_of(world, row, f"{where}[items][{n}]") for n, row in enumerate(entry["items"])]
    seen: set[str] = set()
    for price in prices:
        if price["id"] in seen:
            raise invalid(f"Cannot add multiple subscription items with the same plan: {price['id']}", param=where)
        seen.add(price["id"])
        if price["type"] != "recurring":
            raise invalid(
                "The price specified is set to `type=one_time` but this field only accepts prices with "
                "`type=recurring`.",
                param=f"{where}[items]",
            )
    currency = entry.get("currency") or prices[0]["currency"]
    for price in prices:
        amounts_in(price, currency)
    end = checked_instant(
        _phase_end(world, entry, start, prices[0]), now=world.now(), param=f"{where}[end_date]", years=20
    )
    if end <= start:
        raise invalid(f"`{where}[end_date]` must be after its `start_date`.", param=f"{where}[end_date]")
    trial_end = world.now() if entry.get("trial_end") == "now" else entry.get("trial_end")
    if trial_end is not None:
        checked_instant(trial_end, now=world.now(), param=f"{where}[trial_end]", years=2)
    return {
        **{name: entry.get(name) or None for name in _PHASE_NULLS},
        "add_invoice_items": entry.get("add_invoice_items") or [],
        "billing_cycle_anchor": entry.get("billing_cycle_anchor"),
        "collection_method": entry.get("collection_method"),
        "currency": currency,
        "default_payment_method": entry.get("default_payment_method"),
        "default_tax_rates": [
            view(world, world.require("tax_rate", rate, param=f"{where}[default_tax_rates]"))
            for rate in entry.get("default_tax_rates") or []
        ],
        "description": entry.get("description") or None,
        "discounts": [
            {"coupon": d.get("coupon"), "discount": d.get("discount"), "promotion_code": d.get("promotion_code")}
            for d in entry.get("discounts") or []
        ],
        "end_date": end,
        "items": [
            _phase_item({**row, "price": price["id"]}) for row, price in zip(entry["items"], prices, strict=True)
        ],
        "metadata": merged_metadata({}, entry.get("metadata")),
        "proration_behavior": entry.get("proration_behavior", "create_prorations"),
        "start_date": start,
        "trial": entry.get("trial", False),
        "trial_end": end if entry.get("trial") and trial_end is None else trial_end,
    }


def _phase_end(world: World, entry: Obj, start: int, price: Obj) -> int:
    end = entry.get("end_date")
    if end == "now":
        return world.now()
    if end is not None:
        return int(end)
    duration = entry.get("duration")
    if duration:
        count = duration.get("interval_count", 1)
        if not 1 <= count <= 3660:
            raise invalid("Invalid interval_count", param="phases[0][duration][interval_count]")
        return boundary(start, duration["interval"], count, 1)
    interval, count = interval_of(world, {"price": price["id"]})
    return boundary(start, interval, count, 1)


def _phase_item(row: Obj) -> Obj:
    return {
        "billing_thresholds": None,
        "discounts": [],
        "metadata": {k: v for k, v in (row.get("metadata") or {}).items() if v},
        "plan": row["price"],
        "price": row["price"],
        "quantity": row.get("quantity"),
        "tax_rates": row.get("tax_rates") or [],
    }


def _check_current(phases: list[Obj], current: Obj, now: int) -> None:
    running = next((p for p in phases if p["start_date"] <= now < p["end_date"]), None)
    if running is None or (
        running["start_date"] != current["start_date"]
        and not any(p["start_date"] == current["start_date"] for p in phases)
    ):
        raise ApiError(400, "You can not modify the start date of the current phase.", param="phases")


def _running(world: World, schedule: Obj) -> Obj:
    now = world.now()
    found: Obj = next(p for p in schedule["phases"] if p["start_date"] <= now < p["end_date"])
    return found


def _must_live(schedule: Obj, verb: str) -> None:
    if schedule["status"] not in ("active", "not_started"):
        raise invalid(
            f"You cannot {verb} a subscription schedule that is currently in the `{schedule['status']}` status. It "
            "must be in the `not_started` or `active` status."
        )


_PATH = "/v1/subscription_schedules"
ROUTES = [
    Route("POST", _PATH, "SubscriptionScheduleCreateParams", create_schedule, "SubscriptionSchedule"),
    Route("GET", _PATH, "SubscriptionScheduleListParams", list_schedules, "list:SubscriptionSchedule"),
    Route("GET", f"{_PATH}/{{}}", "SubscriptionScheduleRetrieveParams", retrieve_schedule, "SubscriptionSchedule"),
    Route("POST", f"{_PATH}/{{}}", "SubscriptionScheduleUpdateParams", update_schedule, "SubscriptionSchedule"),
    Route("POST", f"{_PATH}/{{}}/cancel", "SubscriptionScheduleCancelParams", cancel_schedule, "SubscriptionSchedule"),
    Route("POST", f"{_PATH}/{{}}/release", "SubscriptionScheduleReleaseParams", release_route, "SubscriptionSchedule"),
]
