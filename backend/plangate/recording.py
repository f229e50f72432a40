"""What is written beside fetched subscriptions: the plan they mean together, and what the audit says of each."""

from collections.abc import Iterable, Sequence

from plangate.engine.facts import PlanRef, PlanSource, SubscriptionFact
from plangate.engine.snapshot import CompanySnapshot
from plangate.settling import STRIPE
from plangate.store.audit import AuditRow, audit_entry
from plangate.store.database import StoreSession


def plan_meant(snapshot: CompanySnapshot) -> PlanRef | None:
    """The plan the subscriptions mean, None when a price among them is unknown or none of them grants."""
    is_known = all(notice.code != "unmapped_price" for notice in snapshot.notices)
    plan = snapshot.plan
    if plan is None or plan.source is not PlanSource.SUBSCRIPTION or not is_known:
        return None
    return PlanRef(plan.key, plan.version)


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
