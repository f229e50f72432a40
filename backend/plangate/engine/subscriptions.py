"""Whether one Stripe subscription grants what it holds, and until when: status, grace days, pauses, scheduled end."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from plangate.engine.catalog import Catalog
from plangate.engine.facts import CompanyFacts, SubscriptionFact, SubscriptionItem

LIVE = frozenset({"active", "trialing"})
NEVER_LIVE = frozenset({"incomplete", "incomplete_expired"})
SUSPENDED = frozenset({"past_due", "unpaid", "paused", "incomplete"})
KNOWN = LIVE | NEVER_LIVE | SUSPENDED | {"canceled"}


def is_live(catalog: Catalog, facts: CompanyFacts, subscription: SubscriptionFact, at: datetime) -> bool:
    """Whether a subscription grants at `at`: trialing, active, or past due within the grace days.

    Only what Stripe said ends access: a scheduled end that has passed does not (the fetched state will).
    """
    if subscription.ended_at is not None and subscription.ended_at <= at:
        return False
    if subscription.stripe_subscription_id in facts.withheld:
        return False
    paused_end_at = pause_end(catalog, subscription)
    if paused_end_at is not None and at >= paused_end_at:
        return False
    if subscription.status == "past_due":
        end_at = grace_end(catalog, facts, subscription)
        return end_at is None or at < end_at
    return subscription.status in LIVE


def is_of_ours(catalog: Catalog, facts: CompanyFacts, subscription: SubscriptionFact) -> bool:
    """Whether a subscription is to our plans, or may be: another product's on the same account says nothing of ours."""
    return facts.last_mapped_plan is not None or any(
        catalog.owner_of(item.stripe_price_id, facts.company_id) is not None for item in subscription.items
    )


def is_held_back(facts: CompanyFacts, subscription: SubscriptionFact) -> bool:
    """Whether a subscription that runs in Stripe grants nothing for a reason of our own."""
    is_withheld = subscription.stripe_subscription_id in facts.withheld or subscription.is_collection_paused
    return is_withheld and subscription.status in LIVE


def grace_end(catalog: Catalog, facts: CompanyFacts, subscription: SubscriptionFact) -> datetime | None:
    """When access of a past-due subscription ends: the grace days after its first failed attempt.

    When that attempt was never seen, the period's start stands in for it, because the renewal is what failed.
    None when the subscription is not past due, or has neither.
    """
    if subscription.status != "past_due":
        return None
    since = subscription.past_due_since or max((item.period_start_at for item in subscription.items), default=None)
    days = facts.past_due_grace_days
    if days is None:
        days = catalog.settings.past_due_grace_days
    return None if since is None else since + timedelta(days=days)


def pause_end(catalog: Catalog, subscription: SubscriptionFact) -> datetime | None:
    """When access of a subscription whose collection is paused ends, None when it goes on (S5).

    Stripe says neither when a pause began nor that anything ends: the period that was paid for is always kept.
    """
    if not subscription.is_collection_paused or catalog.settings.paused_collection == "keep":
        return None
    return subscription.collection_paused_until or max(
        (item.period_end_at for item in subscription.items), default=None
    )


def scheduled_end(
    *, cancel_at: datetime | None, is_cancel_at_period_end: bool, items: Iterable[SubscriptionItem]
) -> datetime | None:
    """When a subscription is set to end: `cancel_at`, or the latest period end when it cancels at period end.

    Flexible billing sets `cancel_at` alone, classic billing sets both (stripe-facts, Shapes that moved).
    """
    if cancel_at is not None:
        return cancel_at
    return max((item.period_end_at for item in items), default=None) if is_cancel_at_period_end else None


def is_trial_what_ended_last(subscriptions: Iterable[SubscriptionFact], at: datetime) -> bool:
    """Whether what a company had last was a trial without a payment method: not what it paid for afterwards.

    A subscription that has not ended, and grants nothing all the same, is what it has last.
    """
    last = max(
        (one for one in subscriptions if one.status not in NEVER_LIVE),
        key=lambda one: _ending(one, at),
        default=None,
    )
    return last is not None and _is_trial_expired(last, at)


def _ending(subscription: SubscriptionFact, at: datetime) -> tuple[bool, datetime, bool]:
    is_expired = _is_trial_expired(subscription, at)
    ended_at = subscription.trial_end_at if is_expired else subscription.ended_at
    return ended_at is None, ended_at or subscription.started_at, is_expired


def _is_trial_expired(subscription: SubscriptionFact, at: datetime) -> bool:
    """Whether this trial ended without a payment method: Stripe then pauses the subscription or cancels it."""
    if subscription.trial_end_at is None or subscription.trial_end_at > at:
        return False
    return subscription.status == "paused" or (
        subscription.status == "canceled" and subscription.ended_at == subscription.trial_end_at
    )
