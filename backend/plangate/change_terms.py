"""What a plan change promised to do in Stripe, and what became of it as far as fetched facts can tell.

Pure: the journey that makes changes and the mirror that only watches Stripe both decide with it, so a change made
whole by a webhook after a crash ends in the same state as one that was watched to its end.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from plangate.billing.mirror import CHANGE_METADATA
from plangate.billing.transport import StripeJson
from plangate.engine.facts import SubscriptionFact
from plangate.engine.values import Interval
from plangate.shapes import ChangeState

# Stands for the price agreed on with the company until it is made in Stripe, which previews never do.
OWN_PRICE = "plangate:own_price"
LIVE_STATUSES = frozenset({"trialing", "active", "past_due"})
OVER_STATUSES = frozenset({"canceled", "incomplete_expired"})


class Action(StrEnum):
    """How a change is made in Stripe."""

    CHECKOUT = "checkout"  # The customer pays on Stripe's hosted page, which starts the subscription.
    CREATE = "create"  # A subscription is started with the card on file.
    UPDATE = "update"  # The items of the running subscription change now.
    SCHEDULE = "schedule"  # A subscription schedule changes the items at the period's end.
    START_LATER = "start_later"  # A subscription schedule starts the subscription on its day.
    CANCEL_AT_PERIOD_END = "cancel_at_period_end"
    CANCEL_NOW = "cancel_now"
    KEEP = "keep"  # A scheduled change or end is taken back.


class Line(msgspec.Struct, frozen=True):
    """One item the subscription is to hold: a Stripe price, and how many (None for metered prices)."""

    stripe_price_id: str
    quantity: int | None = None


class OwnPrice(msgspec.Struct, frozen=True, kw_only=True):
    """The price agreed on with one company for a plan, made in Stripe before the change; amounts in minor units.

    Until it is made, `change_terms.OWN_PRICE` stands for its id in the terms.
    """

    plan: str
    version: int
    stripe_product_id: str
    currency: str
    interval: Interval
    interval_count: int
    amount_minor: int
    name: str | None = None


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Everything needed to carry a change out, saved with it, so that a resumed change does what was promised.

    `lines` are all items held afterwards, `plan_price_id` is the base plan's among them. `params` go to Stripe
    unchanged. `boundary` is when a schedule takes effect, in whole seconds; `held` are the items and
    `held_plan_price_id` the plan's price until then, and `revision` counts how often an edit of them was followed.
    `stripe_schedule_id` is our schedule already attached, to be rewritten or released first; `is_end_undone` takes
    back a scheduled end first. `trial_end` is where a trial is to end, `is_trial_over` ends it at once.
    `is_unattended` says that nobody is there to confirm a payment with the bank. `own` is a price to be made first,
    `collection` how its invoices are collected, as Stripe's parameters.
    """

    action: Action
    lines: tuple[Line, ...] = ()
    plan_price_id: str | None = None
    held: tuple[Line, ...] = ()
    held_plan_price_id: str | None = None
    revision: int = 0
    params: Mapping[str, Any] = {}
    boundary: int | None = None
    interval: Interval = Interval.MONTH
    interval_count: int = 1
    is_interval_changed: bool = False
    stripe_schedule_id: str | None = None
    is_end_undone: bool = False
    trial_days: int = 0
    trial_end: int | None = None
    is_trial_over: bool = False
    promotion_code: str | None = None
    is_unattended: bool = False
    own: OwnPrice | None = None
    collection: Mapping[str, Any] = {}


def outcome(
    terms: Terms,
    state: ChangeState,
    change_id: str,
    *,
    fact: SubscriptionFact | None,
    subscriptions: Sequence[StripeJson],
    schedules: Sequence[StripeJson] | None = None,
) -> ChangeState | None:
    """The state a recorded change is in now, or None when the facts do not say.

    `fact` is the subscription the change is about, as just fetched; `subscriptions` are all fetched ones, among which
    one started by this change is found by its metadata, and `schedules` those that have not begun (None: not known).
    """
    if terms.action is Action.START_LATER:
        return _outcome_of_later_start(state, change_id, subscriptions, schedules)
    if terms.action in {Action.CHECKOUT, Action.CREATE}:
        return _outcome_of_start(change_id, subscriptions)
    if fact is None:
        return None
    if state is ChangeState.CANCELLING:
        return ChangeState.CANCELLED if not fact.phases and fact.scheduled_end_at is None else None
    if terms.action is Action.UPDATE:
        return _outcome_of_update(terms, state, fact, subscriptions)
    if terms.action is Action.SCHEDULE:
        return _outcome_of_schedule(terms, state, fact)
    if fact.status in OVER_STATUSES:
        return ChangeState.CANCELLED if terms.action is Action.KEEP else ChangeState.APPLIED
    if terms.action is Action.CANCEL_AT_PERIOD_END:
        if fact.scheduled_end_at is not None:
            return ChangeState.SCHEDULED
        return ChangeState.CANCELLED if state is ChangeState.SCHEDULED else None
    if terms.action is Action.KEEP and not fact.phases and fact.scheduled_end_at is None:
        return ChangeState.APPLIED
    return None


def holds_lines(fact: SubscriptionFact, lines: Sequence[Line]) -> bool:
    """Whether the subscription holds exactly these items."""
    held = Counter((item.stripe_price_id, item.quantity) for item in fact.items)
    return held == Counter((line.stripe_price_id, line.quantity) for line in lines)


def followed(terms: Terms, fact: SubscriptionFact) -> Terms | None:
    """The terms of a scheduled change after quantities were edited in the dashboard; None when they were not.

    An edit reaches the later phase where that was to keep the quantity; one the change itself sets stays set. An item
    that was removed is removed there too, an item that was added is added.
    """
    before = {line.stripe_price_id: line.quantity for line in terms.held}
    now = {item.stripe_price_id: item.quantity for item in fact.items}
    if before == now or terms.held_plan_price_id not in now:
        return None
    lines: list[Line] = []
    for line in terms.lines:
        source = line.stripe_price_id if line.stripe_price_id in before else None
        if line.stripe_price_id == terms.plan_price_id:
            source = terms.held_plan_price_id
        if source is None or before.get(source) != line.quantity:
            lines.append(line)
        elif source in now:
            lines.append(Line(line.stripe_price_id, now[source]))
    lines.extend(Line(price, quantity) for price, quantity in now.items() if price not in before)
    held = tuple(Line(price, quantity) for price, quantity in now.items())
    return msgspec.structs.replace(terms, lines=tuple(lines), held=held, revision=terms.revision + 1)


def restored(terms: Terms, fact: SubscriptionFact, *, at: datetime) -> Terms:
    """The terms of a scheduled change whose upgrade came to nothing, to be written again.

    One whose date passed meanwhile waits for the end of the period that runs now.
    """
    boundary = terms.boundary
    if boundary is not None and boundary <= at.timestamp():
        boundary = int(max(item.period_end_at for item in fact.items).timestamp())
    held = tuple(Line(item.stripe_price_id, item.quantity) for item in fact.items)
    return msgspec.structs.replace(
        terms, boundary=boundary, held=held, revision=terms.revision + 1, stripe_schedule_id=None
    )


def _outcome_of_start(change_id: str, subscriptions: Sequence[StripeJson]) -> ChangeState | None:
    started = started_by(change_id, subscriptions)
    if started is None:
        return None
    if started["status"] in {"active", "trialing"}:
        return ChangeState.APPLIED
    return ChangeState.FAILED if started["status"] == "incomplete_expired" else None


def _outcome_of_later_start(
    state: ChangeState, change_id: str, subscriptions: Sequence[StripeJson], schedules: Sequence[StripeJson] | None
) -> ChangeState | None:
    started = _outcome_of_start(change_id, subscriptions)
    if started is not None or started_by(change_id, subscriptions) is not None:
        return started
    if schedules is None:
        return None
    is_waiting = scheduled_by(change_id, schedules) is not None
    if state is ChangeState.CANCELLING:
        return None if is_waiting else ChangeState.CANCELLED
    if is_waiting:
        return ChangeState.SCHEDULED
    return ChangeState.CANCELLED if state is ChangeState.SCHEDULED else None


def scheduled_by(change_id: str, schedules: Sequence[StripeJson]) -> StripeJson | None:
    """The fetched schedule, in force, that is to start a subscription for this change."""
    for schedule in schedules:
        if (schedule.get("metadata") or {}).get(CHANGE_METADATA) == change_id:
            return schedule
    return None


def priced(terms: Terms, stripe_price_id: str) -> Terms:
    """The terms with the price that was made, wherever they spoke of the one to be made."""

    def named(text: str | None) -> str | None:
        return stripe_price_id if text == OWN_PRICE else text

    items = terms.params.get("items")
    params = dict(terms.params)
    if items is not None:
        params["items"] = [{**item, "price": named(item["price"])} if "price" in item else item for item in items]
    return msgspec.structs.replace(
        terms,
        lines=tuple(msgspec.structs.replace(line, stripe_price_id=named(line.stripe_price_id)) for line in terms.lines),
        plan_price_id=named(terms.plan_price_id),
        params=params,
    )


def started_by(change_id: str, subscriptions: Sequence[StripeJson]) -> StripeJson | None:
    """The fetched subscription that this change started."""
    for subscription in subscriptions:
        if (subscription.get("metadata") or {}).get(CHANGE_METADATA) == change_id:
            return subscription
    return None


def _outcome_of_update(
    terms: Terms, state: ChangeState, fact: SubscriptionFact, subscriptions: Sequence[StripeJson]
) -> ChangeState | None:
    if holds_lines(fact, terms.lines) and _has_trial_end(terms, fact):
        return ChangeState.APPLIED
    if state is not ChangeState.REQUIRES_ACTION:
        return None
    # The customer never confirmed the payment: Stripe dropped the pending update, and the items stayed as they were.
    raw = next((one for one in subscriptions if one["id"] == fact.stripe_subscription_id), None)
    return ChangeState.FAILED if raw is not None and raw.get("pending_update") is None else None


def _has_trial_end(terms: Terms, fact: SubscriptionFact) -> bool:
    """Whether the trial ends where the change lets it end, if it is about that."""
    if terms.is_trial_over:
        return fact.status != "trialing"
    ends_at = fact.trial_end_at
    return terms.trial_end is None or (ends_at is not None and int(ends_at.timestamp()) == terms.trial_end)


def _outcome_of_schedule(terms: Terms, state: ChangeState, fact: SubscriptionFact) -> ChangeState | None:
    if fact.status in OVER_STATUSES:
        return ChangeState.CANCELLED
    ahead = [phase for phase in fact.phases if any(price == terms.plan_price_id for price, _ in phase.prices)]
    if ahead and fact.is_schedule_ours:
        wanted = Counter((line.stripe_price_id, line.quantity) for line in terms.lines)
        is_written = any(Counter(phase.prices) == wanted for phase in ahead)
        # One that was scheduled stays so while somebody rewrites it; one under way must be written as promised.
        return ChangeState.SCHEDULED if is_written or state is ChangeState.SCHEDULED else None
    if fact.phases:
        # Somebody rewrote the schedule to something else.
        return ChangeState.CANCELLED if state is ChangeState.SCHEDULED else None
    if _is_entered(terms, fact):
        return ChangeState.APPLIED
    return ChangeState.CANCELLED if state is ChangeState.SCHEDULED else None


def _is_entered(terms: Terms, fact: SubscriptionFact) -> bool:
    """Whether the phase this change scheduled is what the subscription holds now.

    Looks at the period too: removing seats keeps the plan's price, and must not count as applied before its date.
    """
    has_begun = terms.boundary is not None and any(
        item.period_start_at.timestamp() >= terms.boundary for item in fact.items
    )
    return has_begun and any(item.stripe_price_id == terms.plan_price_id for item in fact.items)
