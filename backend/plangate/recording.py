"""What is written beside fetched subscriptions: the plan they mean together, what the audit says of each, alarms."""

from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from plangate.engine.facts import PlanRef, PlanSource, SubscriptionFact
from plangate.engine.snapshot import CompanySnapshot
from plangate.settling import STRIPE
from plangate.store.audit import AuditRow, audit_entry
from plangate.store.database import StoreSession

_ALARMING: Final = frozenset({"unmapped_price", "several_subscriptions", "part_without_plan", "unknown_status"})
_log = structlog.get_logger(__name__)


def plan_meant(snapshot: CompanySnapshot) -> PlanRef | None:
    """The base plan that a price says; None without a subscription, and where the last one stands in for a price."""
    plan, subscription = snapshot.plan, snapshot.subscription
    if plan is None or plan.source is not PlanSource.SUBSCRIPTION or subscription is None:
        return None
    owners = [snapshot.catalog.owner_of(item.stripe_price_id, snapshot.company_id) for item in subscription.items]
    is_said = any(owner is not None and (owner.kind, owner.key) == ("plan", plan.key) for owner in owners)
    return PlanRef(plan.key, plan.version) if is_said else None


def warn_of(after: CompanySnapshot, *, before: CompanySnapshot) -> None:
    """Log what people should look at since just now; the Stripe App says it for as long as it is so."""
    for notice in after.notices:
        if notice.code in _ALARMING and notice not in before.notices:
            _log.warning("look_at_subscription", company=after.company_id, code=notice.code, detail=notice.detail)


def subscription_entries(
    session: StoreSession, company_id: str, known: Iterable[SubscriptionFact], found: Sequence[SubscriptionFact]
) -> list[AuditRow]:
    """One audit entry for each subscription that changed: its status and prices before and after."""
    entries = []
    before = {fact.stripe_subscription_id: fact for fact in known}
    for fact in found:
        earlier = before.get(fact.stripe_subscription_id)
        # What is not told of an entry, such as the next period, is in the mirror's own history.
        if earlier is not None and _summary(earlier) == _summary(fact):
            continue
        entries.append(
            audit_entry(
                session,
                actor=STRIPE,
                action="subscription.changed",
                subject=fact.stripe_subscription_id,
                company_id=company_id,
                before=None if earlier is None else _summary(earlier),
                after=_summary(fact),
            )
        )
    return entries


def _summary(fact: SubscriptionFact) -> dict[str, object]:
    return {
        "status": fact.status,
        "prices": {item.stripe_price_id: item.quantity for item in fact.items},
        "scheduled_end_at": fact.scheduled_end_at,
        "phases": len(fact.phases),
    }
