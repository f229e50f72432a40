"""Turns what Stripe answered into the facts the engine decides on; pure, so that any history ends in the same facts.

Both generations of shapes are read (periods on the subscription, and on its items), because a webhook endpoint or a
stand-in may still speak the older one; nothing is ever taken from the position of an item.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from plangate.billing.gateway import CustomerState, reference
from plangate.billing.payment_calls import invoice_subscription
from plangate.billing.transport import StripeJson
from plangate.engine.facts import ScheduledPhase, SubscriptionFact, SubscriptionItem
from plangate.engine.subscriptions import scheduled_end
from plangate.engine.values import Interval

COMPANY_METADATA: Final = "plangate_company"
CHANGE_METADATA: Final = "plangate_change"
ENVIRONMENT_METADATA: Final = "plangate_environment"
_LIVE_SCHEDULES: Final = frozenset({"active", "not_started"})


def mirrored(state: CustomerState) -> tuple[SubscriptionFact, ...]:
    """The facts about all subscriptions of a fetched customer, in the order of their ids.

    A deleted customer has none: its subscriptions ended with it.
    """
    schedules = {
        attached: schedule
        for schedule in state.schedules
        if schedule["status"] in _LIVE_SCHEDULES and (attached := reference(schedule.get("subscription"))) is not None
    }
    facts = (
        subscription_fact(
            subscription,
            schedule=schedules.get(subscription["id"]),
            unpaid_invoices=state.unpaid_invoices,
        )
        for subscription in state.subscriptions
    )
    return tuple(sorted(facts, key=lambda fact: fact.stripe_subscription_id))


def subscription_fact(
    subscription: StripeJson, *, schedule: StripeJson | None = None, unpaid_invoices: Sequence[StripeJson] = ()
) -> SubscriptionFact:
    """One subscription with all its items, its status verbatim, and the later phases of its schedule."""
    items = tuple(_item(entry, subscription) for entry in subscription["items"]["data"])
    metadata = (schedule or {}).get("metadata") or {}
    return SubscriptionFact(
        stripe_subscription_id=subscription["id"],
        stripe_customer_id=reference(subscription["customer"]) or "",
        status=subscription["status"],
        items=tuple(sorted(items, key=lambda item: item.stripe_item_id)),
        currency=subscription["currency"],
        anchor_at=_at(subscription["billing_cycle_anchor"]),
        started_at=_at(subscription["start_date"]),
        scheduled_end_at=scheduled_end(
            cancel_at=_instant(subscription.get("cancel_at")),
            is_cancel_at_period_end=bool(subscription.get("cancel_at_period_end")),
            items=items,
        ),
        ended_at=_instant(subscription.get("ended_at")),
        trial_end_at=_instant(subscription.get("trial_end")),
        past_due_since=_past_due_since(subscription, unpaid_invoices),
        is_collection_paused=subscription.get("pause_collection") is not None,
        stripe_schedule_id=schedule["id"] if schedule is not None else reference(subscription.get("schedule")),
        is_schedule_ours=CHANGE_METADATA in metadata or COMPANY_METADATA in metadata,
        phases=_later_phases(schedule) if schedule is not None else (),
        default_payment_method=reference(subscription.get("default_payment_method")),
    )


def state_hash(facts: Iterable[SubscriptionFact]) -> str:
    """The same text for the same facts, whatever order or history they came in; to tell whether anything changed."""
    ordered = sorted(map(without_holding_times, facts), key=lambda fact: fact.stripe_subscription_id)
    return hashlib.sha256(msgspec.json.encode(ordered, order="deterministic")).hexdigest()


def without_holding_times(fact: SubscriptionFact) -> SubscriptionFact:
    """The fact as Stripe alone tells it, for comparing it with what Stripe says now."""
    items = tuple(msgspec.structs.replace(item, held_since=None) for item in fact.items)
    phases = tuple(msgspec.structs.replace(phase, known_since=None) for phase in fact.phases)
    return msgspec.structs.replace(fact, items=items, phases=phases, collection_paused_until=None)


def with_holding_times(
    found: Iterable[SubscriptionFact], known: Iterable[SubscriptionFact], *, at: datetime
) -> tuple[SubscriptionFact, ...]:
    """The fetched facts with `held_since` of every item: a price held already keeps its instant, a new one begins now.

    Stripe does not say when a price was taken. On a subscription never seen before it was when that started, which
    Stripe rounds down to the second. A changed quantity leaves the price held, and a price that a phase of the schedule
    promised is held as of that promise.
    """
    earlier = {fact.stripe_subscription_id: fact for fact in known}
    return tuple(_with_times(fact, earlier.get(fact.stripe_subscription_id), at) for fact in found)


def _with_times(fact: SubscriptionFact, known: SubscriptionFact | None, at: datetime) -> SubscriptionFact:
    started_at = min(at, fact.started_at + timedelta(seconds=1))
    first = started_at if known is None else at
    since: dict[str, datetime] = {}
    promised: dict[frozenset[str], datetime] = {}
    for phase in known.phases if known is not None else ():
        promised[_prices_of(phase)] = phase.known_since or started_at
        since.update(dict.fromkeys(_prices_of(phase), phase.known_since or started_at))
    for item in known.items if known is not None else ():
        since[item.stripe_price_id] = item.held_since or started_at
    return msgspec.structs.replace(
        fact,
        items=tuple(
            msgspec.structs.replace(item, held_since=since.get(item.stripe_price_id, first)) for item in fact.items
        ),
        phases=tuple(
            msgspec.structs.replace(phase, known_since=promised.get(_prices_of(phase), at)) for phase in fact.phases
        ),
        collection_paused_until=_paused_until(fact, known),
    )


def _paused_until(fact: SubscriptionFact, known: SubscriptionFact | None) -> datetime | None:
    """The end of the period in which collection was paused: later periods of the same pause do not move it."""
    if not fact.is_collection_paused:
        return None
    if known is not None and known.is_collection_paused and known.collection_paused_until is not None:
        return known.collection_paused_until
    return max((item.period_end_at for item in fact.items), default=None)


def _prices_of(phase: ScheduledPhase) -> frozenset[str]:
    return frozenset(stripe_price_id for stripe_price_id, _ in phase.prices)


def owning_company(metadata: Mapping[str, Any] | None) -> str | None:
    """The company id that we wrote into a Stripe object's metadata, if we did."""
    value = (metadata or {}).get(COMPANY_METADATA)
    return value if isinstance(value, str) and value else None


def _item(entry: StripeJson, subscription: StripeJson) -> SubscriptionItem:
    price = entry["price"]
    recurring = price.get("recurring") or {}
    is_metered = recurring.get("usage_type") == "metered"
    # A price in several currencies shows the amount of its own default one, which need not be the subscriber's.
    is_same_currency = price["currency"] == subscription["currency"]
    return SubscriptionItem(
        stripe_item_id=entry["id"],
        stripe_price_id=price["id"],
        stripe_product_id=reference(price["product"]) or "",
        quantity=None if is_metered else entry.get("quantity"),
        is_metered=is_metered,
        currency=subscription["currency"],
        interval=Interval(recurring.get("interval", "month")),
        interval_count=recurring.get("interval_count", 1),
        unit_amount_minor=price.get("unit_amount") if is_same_currency else None,
        period_start_at=_period_bound("current_period_start", entry, subscription),
        period_end_at=_period_bound("current_period_end", entry, subscription),
    )


def _period_bound(member: str, entry: StripeJson, subscription: StripeJson) -> datetime:
    """The item's period since Basil, the subscription's before."""
    own = entry.get(member)
    return _at(own if own is not None else subscription[member])


def _past_due_since(subscription: StripeJson, unpaid_invoices: Sequence[StripeJson]) -> datetime | None:
    """When the oldest unpaid invoice failed first: at its finalisation, which is when Stripe charges, or its due date.

    One that was written off without being tried, as in a pause, never failed. Without an invoice in hand, a
    subscription that says `past_due` is so since its period began.
    """
    if subscription["status"] not in {"past_due", "unpaid"}:
        return None
    tried = [
        _failed_at(invoice)
        for invoice in unpaid_invoices
        if invoice_subscription(invoice) == subscription["id"]
        and (invoice["status"] == "open" or invoice.get("due_date") or invoice.get("attempted"))
    ]
    if tried:
        return min(tried)
    starts = [_period_bound("current_period_start", entry, subscription) for entry in subscription["items"]["data"]]
    return max(starts, default=_at(subscription["start_date"]))


def _failed_at(invoice: StripeJson) -> datetime:
    finalized_at = (invoice.get("status_transitions") or {}).get("finalized_at")
    return _at(invoice.get("due_date") or finalized_at or invoice["created"])


def _later_phases(schedule: StripeJson) -> tuple[ScheduledPhase, ...]:
    """The phases that have not begun, in order."""
    current = schedule.get("current_phase") or {}
    begun_at = current.get("start_date")
    return tuple(
        ScheduledPhase(
            starts_at=_at(phase["start_date"]),
            ends_at=_instant(phase.get("end_date")),
            prices=tuple((reference(item["price"]) or "", item.get("quantity")) for item in phase["items"]),
        )
        for phase in sorted(schedule["phases"], key=lambda phase: int(phase["start_date"]))
        if begun_at is None or phase["start_date"] > begun_at
    )


def _instant(seconds: int | None) -> datetime | None:
    return None if seconds is None else _at(seconds)


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
