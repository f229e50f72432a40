"""What a company is on: the base plan by the order of precedence, the add-ons, and the cycle its windows follow.

The order (product.md, The nouns): a live Stripe subscription, an explicit assignment, an audience by priority, the
initial plan of a company that never had a subscription, the plan for trials that ended without a payment method, the
fallback plan.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import TypeAlias

import msgspec

from plangate.engine.catalog import Catalog, PlanVersion, Price, PriceOwner
from plangate.engine.facts import AssignmentFact, CompanyFacts, PlanSource, SubscriptionFact, SubscriptionItem
from plangate.engine.periods import Cycle
from plangate.engine.pricing import monthly_amount, price_for
from plangate.engine.snapshot import Notice
from plangate.engine.subscriptions import (
    KNOWN,
    LIVE,
    NEVER_LIVE,
    SUSPENDED,
    grace_end,
    is_held_back,
    is_live,
    is_of_ours,
    is_trial_what_ended_last,
    pause_end,
)
from plangate.engine.targeting import is_in_audience
from plangate.engine.values import INT64_MAX, Interval
from plangate.engine.versions import held_version, kept_key

# A version held, and how many of it; None when it is not sold by quantity.
Held: TypeAlias = tuple[PlanVersion, int | None]
# Units paid in advance: feature -> (kind, key) of the plan or add-on whose price was paid -> how many.
Bought: TypeAlias = Mapping[str, Mapping[tuple[str, str], int]]


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """What is held at one instant. `plans` starts with the base plan; more follow when several subscriptions live.

    `suspended` are the versions that a subscription would grant if it were paid or resumed. `audience` is the key of
    the audience the base plan comes from, if it does; `products` are the Stripe products live subscriptions hold.
    `bought` says how much of a feature was paid in advance, by feature and then by (kind, key) of the plan or add-on.
    """

    plans: tuple[Held, ...]
    source: PlanSource | None
    add_ons: tuple[Held, ...]
    subscription: SubscriptionFact | None
    suspended: tuple[PlanVersion, ...]
    notices: tuple[Notice, ...]
    cycle: Cycle
    audience: str | None = None
    products: frozenset[str] = frozenset()
    bought: Bought = {}


class _Mapping(msgspec.Struct, frozen=True):
    """A version that items of one subscription map to, with the dearest price among them and its item."""

    version: PlanVersion
    quantity: int | None
    price: Price | None
    item: SubscriptionItem


class _Mapped(msgspec.Struct, frozen=True):
    """One subscription read through the catalogue."""

    subscription: SubscriptionFact
    plans: tuple[_Mapping, ...]
    add_ons: tuple[Held, ...]
    unmapped: tuple[str, ...]
    advances: tuple[tuple[PriceOwner, int], ...] = ()
    paid_for: frozenset[tuple[str, str]] = frozenset()


class _Candidate(msgspec.Struct, frozen=True):
    """A plan that a live subscription gives, with what it costs each month."""

    monthly: Fraction
    subscription: SubscriptionFact
    held: Held
    item: SubscriptionItem


class _Base(msgspec.Struct, frozen=True):
    """The base plan of a company without a live subscription. `held_from` is when it was assigned (None: never)."""

    held: Held
    source: PlanSource
    held_from: datetime | None = None
    audience: str | None = None


def resolve_holdings(catalog: Catalog, facts: CompanyFacts, at: datetime) -> Holdings:
    """What the company holds at `at`: pure resolution of product.md's order, with notices for people."""
    notices: list[Notice] = []
    mapped = [_read(catalog, facts, subscription) for subscription in facts.subscriptions]
    live = [one for one in mapped if is_live(catalog, facts, one.subscription, at)]
    for one in mapped:
        notices.extend(_notices(catalog, facts, one, at, is_granting=one in live))
    assigned_plans, assigned_add_ons = _assigned(catalog, facts, at)
    add_ons = _merged([*(held for one in live for held in one.add_ons), *assigned_add_ons])
    suspended = tuple(
        version
        for one in mapped
        if one not in live and (one.subscription.status in SUSPENDED or is_held_back(facts, one.subscription))
        for version in (*(mapping.version for mapping in one.plans), *(version for version, _ in one.add_ons))
    )

    candidates = _subscribed(catalog, facts, live)
    names = sorted({one.subscription.stripe_subscription_id for one in candidates})
    if len(names) > 1:
        detail = (
            f"Several subscriptions are live ({', '.join(names)}); the dearest plan is the base plan, all grants count."
        )
        notices.append(Notice(code="several_subscriptions", detail=detail))
    # A subscription that holds add-ons alone gives no plan, but still gives the company its billing period.
    carriers = [one.subscription for one in candidates] or [
        one.subscription for one in live if is_of_ours(catalog, facts, one.subscription)
    ]
    carrier = carriers[0] if carriers else None
    products = frozenset(item.stripe_product_id for one in live for item in one.subscription.items)
    base: _Base | None = None
    if not candidates:
        names_held = frozenset(version.key for version, _ in add_ons)
        subscribed = [
            one for one in facts.subscriptions if one.status not in NEVER_LIVE and is_of_ours(catalog, facts, one)
        ]
        base = _unsubscribed(
            catalog, facts, assigned_plans, at, subscribed=subscribed, products=products, add_ons=names_held
        )
    if carrier is not None:
        item = candidates[0].item if candidates else next(iter(carrier.items), None)
        cycle = _cycle(catalog, carrier, item)
    else:
        settings = catalog.settings
        anchor_at = (base.held_from if base is not None else None) or facts.created_at
        cycle = Cycle(anchor_at=anchor_at, time_zone=settings.time_zone, week_start=settings.week_start)
    plans = _merged(one.held for one in candidates) if base is None else (base.held,)
    notices.extend(_parts_alone(catalog, live, {(version.kind, version.key) for version, _ in (*plans, *add_ons)}))
    return Holdings(
        plans=plans,
        source=base.source if base is not None else PlanSource.SUBSCRIPTION if candidates else None,
        add_ons=add_ons,
        subscription=carrier,
        suspended=suspended,
        notices=tuple(notices),
        cycle=cycle,
        audience=base.audience if base is not None else None,
        products=products,
        bought=_paid_in_advance(live),
    )


def _parts_alone(catalog: Catalog, live: Iterable[_Mapped], held: Collection[tuple[str, str]]) -> Iterable[Notice]:
    """What is paid for features of a plan or add-on that is not held, which grants nothing."""
    for one in live:
        for kind, key in sorted(one.paid_for - set(held)):
            version = catalog.newest("plan" if kind == "plan" else "add_on", key)
            yield Notice(
                code="part_without_plan",
                detail=(
                    f"Subscription {one.subscription.stripe_subscription_id} pays for features of "
                    f"{key if version is None else version.name}, which is not held; they grant nothing."
                ),
            )


def boundaries(catalog: Catalog, facts: CompanyFacts) -> set[datetime]:
    """Every instant at which holdings or overrides change by the passing of time alone."""
    found: set[datetime | None] = set()
    for assignment in facts.assignments:
        found |= {assignment.held_from, assignment.held_until}
    for override in facts.overrides:
        found |= {override.starts_at, override.expires_at}
    for subscription in facts.subscriptions:
        found |= {subscription.ended_at, subscription.trial_end_at, grace_end(catalog, facts, subscription)}
        found.add(pause_end(catalog, subscription))
    return {instant for instant in found if instant is not None}


def _read(catalog: Catalog, facts: CompanyFacts, subscription: SubscriptionFact) -> _Mapped:
    # Every item is mapped by its price; the order of items means nothing, and metered ones may come first.
    found: dict[tuple[str, str, int], _Mapping] = {}
    parts: dict[tuple[str, str, int], _Mapping] = {}
    unmapped: list[str] = []
    advances: list[tuple[PriceOwner, int]] = []
    paid_for: set[tuple[str, str]] = set()
    for item in subscription.items:
        owner = catalog.owner_of(item.stripe_price_id, facts.company_id)
        version = None
        if owner is not None:
            version = _bought(catalog, facts, subscription, item, owner)
        if owner is None or version is None:
            unmapped.append(item.stripe_price_id)
            continue
        # Only licensed items say how many; a metered item holds the plan without a quantity.
        quantity = None if item.is_metered else item.quantity
        key = (version.kind, version.key, version.version)
        if owner.feature is not None:
            # What is paid for one feature is a part of its plan or add-on: it says nothing of how many are held.
            paid_for.add((version.kind, version.key))
            if quantity:
                advances.append((owner, quantity))
            if not version.prices:
                parts.setdefault(key, _Mapping(version, None, None, item))
            continue
        new = _Mapping(version, quantity, owner.price, item)
        old = found.get(key)
        if old is not None:
            quantity = new.quantity if old.quantity is None else old.quantity + (new.quantity or 0)
            dearer = old if _monthly(old, owner.price.currency) >= monthly_amount(owner.price) else new
            new = _Mapping(version, quantity, dearer.price, dearer.item)
        found[key] = new
    # What costs nothing but what is used is held by such a part alone; a plan so only where no other one is paid for,
    # nor may be: a price that is unknown stands for the last known plan.
    has_plan = bool(unmapped) or any(one.version.kind == "plan" for one in found.values())
    held = found | {
        key: part for key, part in parts.items() if key not in found and not (has_plan and part.version.kind == "plan")
    }
    return _Mapped(
        subscription,
        tuple(one for one in held.values() if one.version.kind == "plan"),
        tuple((one.version, one.quantity) for one in held.values() if one.version.kind == "add_on"),
        tuple(unmapped),
        tuple(advances),
        frozenset(paid_for),
    )


def _paid_in_advance(live: Iterable[_Mapped]) -> Bought:
    """What live subscriptions paid for in advance; several items of one feature add up."""
    bought: dict[str, dict[tuple[str, str], int]] = {}
    for one in live:
        for owner, quantity in one.advances:
            of_feature = bought.setdefault(owner.feature or "", {})
            key = (owner.kind, owner.key)
            of_feature[key] = min(of_feature.get(key, 0) + quantity, INT64_MAX)
    return bought


def _bought(
    catalog: Catalog, facts: CompanyFacts, subscription: SubscriptionFact, item: SubscriptionItem, owner: PriceOwner
) -> PlanVersion | None:
    """The version that an item holds. A price sells its owner's version, unless holders were left on older ones."""
    if kept_key(owner.kind, owner.key) not in catalog.kept:
        return catalog.version_of(owner.kind, owner.key, owner.version) or catalog.newest(owner.kind, owner.key)
    return held_version(
        catalog,
        owner.kind,
        owner.key,
        since=item.held_since or subscription.started_at,
        stripe_price_id=item.stripe_price_id,
        pins=facts.pins,
    )


def _subscribed(catalog: Catalog, facts: CompanyFacts, live: list[_Mapped]) -> list[_Candidate]:
    """The plans of live subscriptions, the dearest first; the last known one stands in for unknown prices.

    Where a price says that plan there is nothing to stand in for: what is unknown beside it may be another product's.
    """
    found = [(one, mapping) for one in live for mapping in one.plans]
    said = {mapping.version.key for _, mapping in found}
    last = facts.last_mapped_plan
    for one in live:
        if one.plans or not one.unmapped or last is None or last.key in said:
            continue
        version = catalog.version_of("plan", last.key, last.version) or catalog.newest("plan", last.key)
        if version is not None:
            price = price_for(version, currency=one.subscription.currency)
            item = next(item for item in one.subscription.items if item.stripe_price_id in one.unmapped)
            found.append((one, _Mapping(version, None, price, item)))
    currency = found[0][0].subscription.currency if found else None
    candidates = [
        _Candidate(_monthly(mapping, currency), one.subscription, (mapping.version, mapping.quantity), mapping.item)
        for one, mapping in found
    ]
    # Equal prices are told apart by the subscription's id, so that the answer never depends on the order of rows.
    return sorted(candidates, key=lambda one: (-one.monthly, one.subscription.stripe_subscription_id, one.held[0].key))


def _monthly(mapping: _Mapping, currency: str | None) -> Fraction:
    """What the plan costs each month, in one currency where the catalogue has a price in it."""
    if mapping.price is None:
        return Fraction(0)
    if mapping.price.currency == currency:
        return monthly_amount(mapping.price)
    return monthly_amount(
        price_for(mapping.version, currency=currency, interval=mapping.price.interval) or mapping.price
    )


def _unsubscribed(
    catalog: Catalog,
    facts: CompanyFacts,
    assigned: list[tuple[AssignmentFact, PlanVersion]],
    at: datetime,
    *,
    subscribed: Sequence[SubscriptionFact],
    products: frozenset[str],
    add_ons: frozenset[str],
) -> _Base | None:
    """The base plan without a live subscription to a known plan; None when no rule gives one.

    `subscribed` are the subscriptions, ended ones too, after which the initial plan is no longer due.
    """

    def assigned_as(source: PlanSource) -> _Base | None:
        for assignment, version in assigned:
            if assignment.source is source:
                return _Base((version, assignment.quantity), source, assignment.held_from)
        return None

    def role(key: str | None, source: PlanSource, since: datetime | None = None) -> _Base | None:
        version = held_version(catalog, "plan", key, since=since, pins=facts.pins) if key is not None else None
        return None if version is None else _Base((version, None), source)

    if catalog.audiences:
        by_audience = _by_audience(catalog, facts, assigned, products=products, add_ons=add_ons)
    else:
        by_audience = assigned_as(PlanSource.AUDIENCE)
    found = assigned_as(PlanSource.ASSIGNMENT) or by_audience
    # Who fell back keeps the version of then; while a subscription is only suspended, nobody took any.
    ends = [one.ended_at for one in subscribed]
    fell_at = max((at for at in ends if at is not None), default=None) if None not in ends else None
    since = fell_at if ends else facts.created_at
    fallback = role(catalog.fallback_plan, PlanSource.FALLBACK, since)
    if subscribed:
        is_trial_over = is_trial_what_ended_last(subscribed, at)
        expired = role(catalog.trial_expiry_plan, PlanSource.TRIAL_EXPIRY, since) if is_trial_over else None
        return found or expired or fallback
    return (
        found
        or assigned_as(PlanSource.INITIAL)
        or role(catalog.initial_plan, PlanSource.INITIAL, facts.created_at)
        or fallback
    )


def _by_audience(
    catalog: Catalog,
    facts: CompanyFacts,
    assigned: list[tuple[AssignmentFact, PlanVersion]],
    *,
    products: frozenset[str],
    add_ons: frozenset[str],
) -> _Base | None:
    """The plan of the first audience that matches. An assignment of that source keeps its version and since when."""
    for audience in sorted(catalog.audiences, key=lambda one: (one.priority, one.key)):
        newest = catalog.newest("plan", audience.plan)
        if newest is None or not is_in_audience(audience, facts, add_ons=add_ons, products=products):
            continue
        for assignment, version in assigned:
            if assignment.source is PlanSource.AUDIENCE and version.key == audience.plan:
                return _Base((version, assignment.quantity), PlanSource.AUDIENCE, assignment.held_from, audience.key)
        return _Base((newest, None), PlanSource.AUDIENCE, None, audience.key)
    return None


def _assigned(
    catalog: Catalog, facts: CompanyFacts, at: datetime
) -> tuple[list[tuple[AssignmentFact, PlanVersion]], list[Held]]:
    """Assignments in force: plans with the newest assignment first, and add-ons with their quantities."""
    plans: list[tuple[AssignmentFact, PlanVersion]] = []
    add_ons: list[Held] = []
    for assignment in sorted(facts.assignments, key=lambda one: (one.held_from, one.key), reverse=True):
        if assignment.held_from > at or (assignment.held_until is not None and assignment.held_until <= at):
            continue
        pinned = assignment.version
        version = catalog.version_of(assignment.kind, assignment.key, pinned) if pinned is not None else None
        version = version or held_version(
            catalog, assignment.kind, assignment.key, since=assignment.held_from, pins=facts.pins
        )
        if version is None:
            continue
        if assignment.kind == "plan":
            plans.append((assignment, version))
        else:
            add_ons.append((version, assignment.quantity))
    return plans, add_ons


def _merged(held: Iterable[Held]) -> tuple[Held, ...]:
    """One entry per version, quantities added; the first mention decides the order."""
    merged: dict[tuple[str, int], Held] = {}
    for version, quantity in held:
        key = (version.key, version.version)
        before = merged.get(key)
        if before is not None and before[1] is not None:
            merged[key] = (version, before[1] + (quantity or 0))
        else:
            merged[key] = (version, quantity)
    return tuple(merged.values())


def _cycle(catalog: Catalog, subscription: SubscriptionFact, item: SubscriptionItem | None) -> Cycle:
    settings = catalog.settings
    return Cycle(
        anchor_at=subscription.anchor_at,
        interval=item.interval if item is not None else Interval.MONTH,
        interval_count=item.interval_count if item is not None else 1,
        time_zone=settings.time_zone,
        week_start=settings.week_start,
        period_start_at=item.period_start_at if item is not None else None,
        period_end_at=item.period_end_at if item is not None else None,
    )


def _notices(
    catalog: Catalog, facts: CompanyFacts, one: _Mapped, at: datetime, *, is_granting: bool
) -> Iterable[Notice]:
    """What people should look at in one subscription."""
    subscription = one.subscription
    name = subscription.stripe_subscription_id
    if is_granting and one.unmapped:
        prices = ", ".join(one.unmapped)
        yield Notice(
            code="unmapped_price",
            detail=f"Subscription {name} has prices the catalogue does not know ({prices}); the last known plan stays.",
        )
    if subscription.status not in KNOWN:
        yield Notice(
            code="unknown_status", detail=f"Subscription {name} has a status we do not know; it grants nothing."
        )
    end_at = grace_end(catalog, facts, subscription)
    if end_at is not None and subscription.ended_at is None:
        if at < end_at:
            yield Notice(
                code="past_due", detail=f"Subscription {name} is past due; access ends at {end_at.isoformat()}."
            )
        else:
            yield Notice(code="grace_ended", detail=f"Subscription {name} is past due and its grace days are over.")
    if subscription.is_collection_paused and subscription.status in LIVE:
        paused_end_at = pause_end(catalog, subscription)
        goes_on = "access goes on" if paused_end_at is None else f"access ends at {paused_end_at.isoformat()}"
        yield Notice(code="collection_paused", detail=f"Collection is paused on subscription {name}; {goes_on}.")
    if name in facts.withheld and subscription.ended_at is None:
        detail = f"Subscription {name} grants nothing until the review of its refund or dispute is resolved."
        yield Notice(code="access_withheld", detail=detail)
