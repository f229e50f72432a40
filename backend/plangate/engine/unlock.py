"""What would turn a "no" into a "yes": every plan and add-on on sale is tried by the very function that said no."""

from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from typing import TypeAlias

from msgspec.structs import replace

from plangate.engine.catalog import Catalog, Entitlement, PlanVersion, Price
from plangate.engine.decision import Decision, Reason, Unlock
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts
from plangate.engine.grants import whole
from plangate.engine.holding import Holding, holding_of, sold_in_advance, version_held
from plangate.engine.plan_change import fitted
from plangate.engine.pricing import amount_of, months_in, price_among, price_for
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.values import INT64_MAX, Interval, Stacking
from plangate.engine.what_if import as_scheduled, with_holding

# The same question to another snapshot, at the same instant or a later one.
Ask: TypeAlias = Callable[[CompanySnapshot, datetime], Decision]

# Nothing that is bought lifts these: a switch for everybody, an explicit no, or a question that has no answer.
_FINAL = frozenset(
    {
        Reason.FLAG_OFF,
        Reason.OVERRIDE_DENIED,
        Reason.ARCHIVED_FEATURE,
        Reason.UNKNOWN_FEATURE,
        Reason.UNKNOWN_USER,
    }
)

# Stripe sells no more of one thing at once.
_MOST_UNITS = 999_999


def unlocks(
    snapshot: CompanySnapshot, decision: Decision, *, catalog: Catalog, quantity: int, at: datetime, ask: Ask
) -> tuple[Unlock, ...]:
    """Every way to a "yes", cheapest first: waiting costs nothing; then what each adds to the monthly bill.

    A plan sold by hand has no price and comes last. Empty when the answer is yes already, or final.
    """
    if decision.allowed or decision.reason in _FINAL:
        return ()
    current = holding_of(snapshot)
    # Somebody who pays nothing yet is told the monthly price, the smallest step.
    current = replace(current, interval=current.interval or Interval.MONTH)
    found: list[tuple[tuple[int, Fraction, int], Unlock]] = []
    wait = _wait(snapshot, decision, at=at, ask=ask)
    if wait is not None:
        found.append(((0, Fraction(0), 0), wait))
    paid = _monthly(catalog.newest("plan", current.plan or ""), current) or Fraction(0)
    for plan in catalog.plans.values():
        if plan.is_archived or plan.key == current.plan:
            continue
        target, _ = fitted(catalog, replace(current, plan=plan.key, version=plan.version))
        answer = ask(build_snapshot(catalog, with_holding(snapshot.facts, catalog, target, at), at), at)
        cost = _monthly(plan, current)
        # What is not sold in the currency that is paid in is no way out: a subscription keeps its currency.
        if answer.allowed and (cost is not None or plan.is_contact_us):
            rank = (2, Fraction(0), plan.position) if cost is None else (1, cost - paid, plan.position)
            found.append((rank, _unlock(plan, current, answer)))
    found += _more_units(snapshot, current, decision, quantity=quantity, at=at, ask=ask)
    for add_on in catalog.add_ons.values():
        # What has no price is given by hand, so it is no way out for who asks.
        if add_on.is_archived or add_on.is_free or add_on.key in fitted(catalog, _with_more(current, add_on, 1))[1]:
            continue
        answer, more = _with_enough(snapshot, current, add_on, decision, quantity=quantity, at=at, ask=ask)
        cost = _monthly(add_on, current, more)
        if answer.allowed and cost is not None:
            found.append(((1, cost, add_on.position), _unlock(add_on, current, answer, more)))
    return tuple(unlock for _, unlock in sorted(found, key=lambda one: one[0]))


def _wait(snapshot: CompanySnapshot, decision: Decision, *, at: datetime, ask: Ask) -> Unlock | None:
    """The first reset that brings a "yes", of whichever window: by then an override may be over, or a plan may end."""
    compiled = snapshot.features[decision.feature]
    answer = compiled.by_user.get(decision.user or "", compiled).answer
    kinds = {one.kind for one in (*answer.allowances, *answer.personal) if one.kind is not None}
    resets = {snapshot.cycle.window(kind, at)[1] for kind in kinds}
    if decision.period is not None:
        resets.add(decision.period.resets_at)
    for reset_at in sorted(one for one in resets if one is not None):
        facts = as_scheduled(snapshot.facts, snapshot.catalog, reset_at)
        later = ask(build_snapshot(snapshot.catalog, facts, reset_at), reset_at)
        if later.allowed:
            return Unlock(kind="wait", at=reset_at, limit="unlimited" if later.unlimited else later.limit)
    return None


def _more_units(
    snapshot: CompanySnapshot, current: Holding, decision: Decision, *, quantity: int, at: datetime, ask: Ask
) -> list[tuple[tuple[int, Fraction, int], Unlock]]:
    """As many units more, paid in advance, as the question needs, of what the plan held sells so."""
    plan = version_held(snapshot.catalog, current)
    if plan is None or current.currency is None or decision.limit is None:
        return []
    found: list[tuple[tuple[int, Fraction, int], Unlock]] = []
    wanted = (decision.used or 0) + (decision.reserved or 0) + quantity
    for key, granted in sold_in_advance(plan).items():
        price = price_among(
            granted.prices,
            currency=current.currency,
            interval=current.interval,
            interval_count=current.interval_count,
        )
        held = current.units.get(key, 0)
        # What else is granted beside it stays: only what is missing is bought.
        units = wanted - decision.limit + (held or _included(granted, snapshot.facts))
        if granted.feature != decision.feature or price is None or not held < units <= INT64_MAX:
            continue
        target = replace(current, units={**current.units, key: units})
        facts = with_holding(snapshot.facts, snapshot.catalog, target, at)
        answer = ask(build_snapshot(snapshot.catalog, facts, at), at)
        cost = amount_of(price, units) - amount_of(price, held)
        if answer.allowed:
            unlock = Unlock(
                kind="units",
                key=granted.feature,
                name=snapshot.catalog.features[granted.feature].name,
                amount_minor=cost,
                currency=price.currency,
                interval=price.interval,
                interval_count=price.interval_count,
                limit="unlimited" if answer.unlimited else answer.limit,
                quantity=units,
            )
            found.append(((1, cost / months_in(price.interval, price.interval_count), plan.position), unlock))
    return found


def _with_enough(
    snapshot: CompanySnapshot,
    current: Holding,
    add_on: PlanVersion,
    decision: Decision,
    *,
    quantity: int,
    at: datetime,
    ask: Ask,
) -> tuple[Decision, int]:
    """The answer with one more of an add-on; where its allowances add up, with as many more as the question needs."""

    def asked(more: int) -> Decision:
        target = _with_more(current, add_on, more)
        return ask(build_snapshot(snapshot.catalog, with_holding(snapshot.facts, snapshot.catalog, target, at), at), at)

    answer = asked(1)
    granted = next((one for one in add_on.entitlements if one.feature == decision.feature), None)
    if answer.allowed or answer.limit is None or granted is None or granted.stacking is not Stacking.SUM:
        return answer, 1
    missing = (answer.used or 0) + (answer.reserved or 0) + quantity - answer.limit
    if not isinstance(granted.limit, int) or granted.limit <= 0 or missing <= 0:
        return answer, 1
    more = 1 - (-missing // granted.limit)
    return (asked(more), more) if more <= _MOST_UNITS else (answer, 1)


def _included(granted: Entitlement, facts: CompanyFacts) -> int:
    """What is granted while nothing of it is paid in advance."""
    if granted.limit_trait is not None:
        return max(0, whole(facts.traits.get(granted.limit_trait), is_limit=True) or 0)
    return granted.limit if isinstance(granted.limit, int) else 0


def _with_more(current: Holding, add_on: PlanVersion, more: int) -> Holding:
    return replace(current, add_ons={**current.add_ons, add_on.key: current.add_ons.get(add_on.key, 0) + more})


def _amount(version: PlanVersion, price: Price, current: Holding, more: int) -> int:
    """What a plan costs for the quantity held, or so many more of an add-on beside those held, each interval."""
    if not version.prices:
        # Nothing until what it grants is used.
        return 0
    if version.kind == "plan":
        return amount_of(price, current.quantity)
    held = current.add_ons.get(version.key, 0)
    return amount_of(price, held + more) - amount_of(price, held)


def _monthly(version: PlanVersion | None, current: Holding, more: int = 1) -> Fraction | None:
    """What a version adds to the bill each month; nothing when it is free, None when it is sold by hand."""
    if version is None or version.is_free:
        return Fraction(0)
    price = _price(version, current)
    if price is None or version.is_contact_us:
        return None
    return _amount(version, price, current, more) / months_in(price.interval, price.interval_count)


def _price(version: PlanVersion, current: Holding) -> Price | None:
    """What a version is sold for to who pays in this currency, billed as often as they are where it is sold so."""
    return price_for(
        version, currency=current.currency, interval=current.interval, interval_count=current.interval_count
    )


def _unlock(version: PlanVersion, current: Holding, answer: Decision, more: int = 1) -> Unlock:
    price = _price(version, current)
    is_by_hand = version.is_contact_us
    return Unlock(
        kind="contact_us" if is_by_hand else version.kind,
        key=version.key,
        name=version.name,
        amount_minor=None if is_by_hand else 0 if price is None else _amount(version, price, current, more),
        currency=None if is_by_hand or price is None else price.currency,
        interval=None if is_by_hand or price is None else price.interval,
        interval_count=1 if is_by_hand or price is None else price.interval_count,
        limit="unlimited" if answer.unlimited else answer.limit,
        quantity=current.add_ons.get(version.key, 0) + more if more > 1 else None,
    )
