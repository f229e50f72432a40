"""Says which regular invoice comes first: items of different intervals are invoiced on days of their own."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias

import msgspec

from plangate.change_terms import Terms
from plangate.engine.facts import SubscriptionFact
from plangate.engine.periods import window_at
from plangate.engine.values import Interval, PeriodKind
from plangate.plan_changes.lines import TargetLine
from plangate.plan_changes.terms import Drafted

_Every: TypeAlias = tuple[Interval, int]


def first_renewal(drafted: Drafted, subscription: SubscriptionFact, at: datetime) -> tuple[datetime, Drafted]:
    """When the first regular invoice after a change at that instant comes, and the change with only the lines on it.

    The billing periods of the subscription go on with the change.
    """
    ends = {every: _running_until(every, subscription, at) for every in intervals_held(drafted)}
    return _soonest(drafted, ends) if ends else (max(item.period_end_at for item in subscription.items), drafted)


def first_renewal_from(drafted: Drafted, begins_at: datetime) -> tuple[datetime, Drafted]:
    """The same where all billing periods begin at that instant."""
    ends = {every: _period_end(every, begins_at, anchor_at=begins_at) for every in intervals_held(drafted)}
    return _soonest(drafted, ends) if ends else (begins_at, drafted)


def intervals_held(drafted: Drafted) -> frozenset[_Every]:
    """How often the items are billed that are held after a change."""
    return frozenset(_every(line, drafted.terms) for line in drafted.lines)


def is_cycle_restarted(drafted: Drafted, subscription: SubscriptionFact) -> bool:
    """Whether a change made now begins the billing periods anew.

    A new interval does, unless an item that stays is billed as before: then Stripe keeps the cycle.
    """
    terms = drafted.terms
    if terms.is_trial_over:
        return True
    if subscription.status == "trialing":
        return False
    if "billing_cycle_anchor" in terms.params:
        return True
    before = {(item.interval, item.interval_count) for item in subscription.items}
    return terms.is_interval_changed and before.isdisjoint(intervals_held(drafted))


def _soonest(drafted: Drafted, ends: Mapping[_Every, datetime]) -> tuple[datetime, Drafted]:
    first = min(ends.values())
    lines = tuple(line for line in drafted.lines if ends[_every(line, drafted.terms)] == first)
    return first, msgspec.structs.replace(drafted, lines=lines)


def _every(line: TargetLine, terms: Terms) -> _Every:
    """How often a line is billed: an add-on may be sold otherwise than the plan beside it."""
    item = line.item
    if item is not None and item.stripe_price_id == line.stripe_price_id:
        return item.interval, item.interval_count
    if line.price is not None:
        return line.price.interval, line.price.interval_count
    return terms.interval, terms.interval_count


def _running_until(every: _Every, subscription: SubscriptionFact, at: datetime) -> datetime:
    """The end of the period of that length that runs at an instant; one not held yet is on the same anchor."""
    for item in subscription.items:
        if (item.interval, item.interval_count) == every:
            return item.period_end_at
    return _period_end(every, at, anchor_at=subscription.anchor_at)


def _period_end(every: _Every, at: datetime, *, anchor_at: datetime) -> datetime:
    interval, count = every
    _, ends_at = window_at(
        PeriodKind.BILLING_INTERVAL, at, anchor_at=anchor_at, interval=interval, interval_count=count
    )
    return ends_at or at
