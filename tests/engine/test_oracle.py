"""Compares metered decisions with an oracle that reads the rules naively: nothing compiled, infinity as a number."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import inf

from hypothesis import given, settings

from plangate.engine.catalog import Catalog, Entitlement
from plangate.engine.decide import decide
from plangate.engine.decision import Reason
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, WindowCounter
from plangate.engine.values import UNLIMITED, OverrideMode, PeriodKind, Stacking
from tests.engine.factories import counts, near, quantities, worlds

KINDS = list(PeriodKind)
# What is never exceeded, and where overage begins; infinity for neither.
Bounds = tuple[float, float]


def is_granting(company: CompanyFacts, at: datetime) -> bool:
    """Whether the company's one subscription gives it what it pays for."""
    for one in company.subscriptions:
        if one.ended_at is not None and one.ended_at <= at:
            return False
        if one.status == "past_due":
            failed_at = one.past_due_since or one.items[0].period_start_at
            return at < failed_at + timedelta(days=7)
        return one.status in {"active", "trialing"}
    return False


def held(catalog: Catalog, company: CompanyFacts, at: datetime) -> list[Entitlement]:
    """Everything granted at an instant; quantities are all one in the generated worlds."""
    if is_granting(company, at):
        keys = [catalog.price_owners[one.stripe_price_id].key for one in company.subscriptions[0].items]
    else:
        running = [
            one
            for one in company.assignments
            if one.held_from <= at and (one.held_until is None or at < one.held_until)
        ]
        running.sort(key=lambda one: (one.held_from, one.key))
        keys = [running[-1].key if running else "free"]
    versions = [catalog.plans.get(key) or catalog.add_ons[key] for key in keys]
    return [entitlement for version in versions for entitlement in version.entitlements]


def bounds(entitlement: Entitlement) -> Bounds:
    hard = inf if entitlement.limit is UNLIMITED or not isinstance(entitlement.limit, int) else entitlement.limit
    soft = inf if entitlement.soft_limit is None else entitlement.soft_limit
    return (inf if hard <= soft else hard, soft) if soft < inf else (hard, hard)


def added(first: Bounds, second: Bounds) -> Bounds:
    return first[0] + second[0], first[1] + second[1]


def most(amounts: Sequence[Bounds]) -> Bounds:
    return max(hard for hard, _ in amounts), max(soft for _, soft in amounts)


def effective(catalog: Catalog, company: CompanyFacts, at: datetime) -> dict[PeriodKind, Bounds]:
    """What is allowed in each window, by the rules of product.md read one after the other."""
    found: dict[PeriodKind, Bounds] = {}
    granted = held(catalog, company, at)
    for kind in KINDS:
        mine = [one for one in granted if one.period is kind]
        singles = [bounds(one) for one in mine if one.stacking is Stacking.MAX]
        total: Bounds | None = most(singles) if singles else None
        for one in mine:
            if one.stacking is Stacking.SUM:
                total = bounds(one) if total is None else added(total, bounds(one))
        if total is not None:
            found[kind] = total
    everywhere = [
        one.period
        for version in (*catalog.plans.values(), *catalog.add_ons.values())
        for one in version.entitlements
        if one.period is not None
    ]
    longest = max(found or everywhere or [PeriodKind.ALL_TIME], key=KINDS.index)
    running = [
        one for one in company.overrides if one.starts_at <= at and (one.expires_at is None or at < one.expires_at)
    ]
    for mode in (OverrideMode.SET, OverrideMode.ADD):
        for override in running:
            if override.mode is mode:
                kind = override.period or longest
                value = inf if override.value == "unlimited" else float(override.value)
                before = found.get(kind)
                if before is None:
                    found[kind] = (value, value)
                elif mode is OverrideMode.SET:
                    found[kind] = most([before, (value, value)])
                else:
                    found[kind] = added(before, (value, value))
    return found


@settings(max_examples=2000)
@given(worlds(), counts(), near, quantities)
def test_metered_decisions_equal_the_oracle(
    world: tuple[Catalog, CompanyFacts],
    counters: dict[tuple[str, PeriodKind, str], WindowCounter],
    at: datetime,
    quantity: int,
) -> None:
    catalog, company = world
    decision = decide(build_snapshot(catalog, company, at), "exports", counters, at=at, quantity=quantity)
    denied = any(
        one.mode is OverrideMode.DENY and one.starts_at <= at and (one.expires_at is None or at < one.expires_at)
        for one in company.overrides
    )
    if denied:
        assert decision.reason is Reason.OVERRIDE_DENIED
        return
    allowed = effective(catalog, company, at)
    if not allowed:
        assert decision.reason in {Reason.NO_ENTITLEMENT, Reason.SUBSCRIPTION_INACTIVE}
        return
    rooms = {}
    for kind, (hard, _) in allowed.items():
        stored = counters.get(("exports", kind, ""))
        is_running = stored is not None and stored.start_at <= at and (stored.end_at is None or at < stored.end_at)
        taken = max(0, stored.used) + stored.reserved if stored is not None and is_running else 0
        rooms[kind] = hard - taken
    best = max(rooms.values())
    assert decision.allowed is (quantity <= best)
    assert decision.unlimited is (best == inf)
    assert decision.period is not None
    assert rooms[decision.period.kind] == best
    hard, soft = allowed[decision.period.kind]
    assert (decision.limit if decision.limit is not None else inf) == hard
    assert (decision.soft_limit if decision.soft_limit is not None else hard) == soft
    assert decision.remaining == (None if best == inf else max(0, best))
