"""The facts as they would be on another plan: what previews, limits after a change and unlocks are computed from."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from plangate.engine.holdings import resolve_holdings
from plangate.engine.model import (
    AssignmentFact,
    Catalog,
    CompanyFacts,
    Interval,
    PeriodKind,
    PlanSource,
    PlanVersion,
    SubscriptionFact,
    SubscriptionItem,
)
from plangate.engine.periods import window_at
from plangate.engine.plan_change import Holding
from plangate.engine.pricing import price_for


def with_holding(facts: CompanyFacts, catalog: Catalog, holding: Holding, at: datetime) -> CompanyFacts:
    """The company's facts if it were on `holding` from `at`; overrides, traits and other subscriptions stay.

    A paid plan replaces the items of the base subscription, or begins one; a free one ends it. What Stripe has no
    price for (a free plan, one sold by hand, a catalogue not yet applied) is held by assignment.
    """
    before = resolve_holdings(catalog, facts, at)
    base = before.subscription
    others = tuple(one for one in facts.subscriptions if one is not base)
    plan = _version(catalog, "plan", holding.plan, holding.version)
    add_ons = [
        (version, quantity)
        for key, quantity in holding.add_ons.items()
        if (version := _version(catalog, "add_on", key, None)) is not None
    ]
    wanted = [*([(plan, holding.quantity)] if plan is not None else []), *add_ons]
    items = [_item(catalog, version, quantity, holding, base, at) for version, quantity in wanted]
    sold = tuple(item for item in items if item is not None)
    assigned = [held for held, item in zip(wanted, items, strict=True) if item is None]

    kept = tuple(one for one in facts.assignments if one.kind == "plan" or one.held_from > at)
    if sold:
        subscription = _subscription(base, sold, holding, at)
        facts = replace(facts, subscriptions=(*others, subscription), assignments=kept)
    else:
        ended = () if base is None else (replace(base, status="canceled", ended_at=at),)
        facts = replace(facts, subscriptions=(*others, *ended), assignments=kept)
    assigned_add_ons = [held for held in assigned if held[0].kind == "add_on"]
    facts = replace(facts, assignments=(*facts.assignments, *_assignments(assigned_add_ons, at)))
    after = resolve_holdings(catalog, facts, at)
    held = after.plans[0][0] if after.plans else None
    if plan is not None and all(version is not plan for version, _ in after.plans):
        # An assignment that the order of precedence does not already arrive at (the fallback plan needs none).
        return replace(facts, assignments=(*facts.assignments, *_assignments([(plan, holding.quantity)], at)))
    if plan is None and held is not None and after.source is PlanSource.ASSIGNMENT:
        explicit = [one for one in facts.assignments if one.kind == "plan" and one.source is PlanSource.ASSIGNMENT]
        return replace(facts, assignments=tuple(one for one in facts.assignments if one not in explicit))
    return facts


def _version(
    catalog: Catalog, kind: Literal["plan", "add_on"], key: str | None, version: int | None
) -> PlanVersion | None:
    if key is None:
        return None
    pinned = catalog.version_of(kind, key, version) if version is not None else None
    return pinned or catalog.newest(kind, key)


def _assignments(held: Iterable[tuple[PlanVersion, int]], at: datetime) -> list[AssignmentFact]:
    return [
        AssignmentFact(
            kind=version.kind,
            key=version.key,
            version=version.version,
            source=PlanSource.ASSIGNMENT,
            held_from=at,
            quantity=quantity,
        )
        for version, quantity in held
    ]


def _item(
    catalog: Catalog,
    version: PlanVersion,
    quantity: int,
    holding: Holding,
    base: SubscriptionFact | None,
    at: datetime,
) -> SubscriptionItem | None:
    """The subscription item that holds this version, by a price the catalogue knows; None when there is none."""
    currency = holding.currency or (base.currency if base is not None else None)
    price = price_for(version, currency=currency, interval=holding.interval or Interval.MONTH)
    if price is None:
        return None
    stripe_price_id = next(
        (
            stripe_id
            for stripe_id, owner in catalog.price_owners.items()
            if (owner.kind, owner.key, owner.version) == (version.kind, version.key, version.version)
            and (owner.price.currency, owner.price.interval) == (price.currency, price.interval)
        ),
        None,
    )
    if stripe_price_id is None:
        return None
    running = next((one for one in base.items if one.interval is price.interval), None) if base is not None else None
    if running is not None and running.period_start_at <= at < running.period_end_at:
        period = running.period_start_at, running.period_end_at
    else:
        start, end = window_at(
            PeriodKind.BILLING_INTERVAL,
            at,
            anchor_at=at,
            interval=price.interval,
            interval_count=price.interval_count,
        )
        period = start or at, end or at
    return SubscriptionItem(
        stripe_item_id=f"{version.kind}/{version.key}",
        stripe_price_id=stripe_price_id,
        stripe_product_id=version.stripe_product_id or "",
        quantity=quantity,
        is_metered=False,
        currency=price.currency,
        interval=price.interval,
        interval_count=price.interval_count,
        unit_amount_minor=price.amount_minor,
        period_start_at=period[0],
        period_end_at=period[1],
    )


def _subscription(
    base: SubscriptionFact | None, items: tuple[SubscriptionItem, ...], holding: Holding, at: datetime
) -> SubscriptionFact:
    if base is None:
        return SubscriptionFact(
            stripe_subscription_id="",
            stripe_customer_id="",
            status="active",
            items=items,
            currency=items[0].currency,
            anchor_at=at,
            started_at=at,
        )
    is_same_interval = any(one.interval is (holding.interval or Interval.MONTH) for one in base.items)
    return replace(base, items=items, anchor_at=base.anchor_at if is_same_interval else at)
