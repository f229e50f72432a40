"""The facts as they would be on another plan: what previews, limits after a change and unlocks are computed from."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from plangate.engine.catalog import Catalog, PlanVersion, Price
from plangate.engine.facts import AssignmentFact, CompanyFacts, PlanSource, SubscriptionFact, SubscriptionItem
from plangate.engine.holding import Holding, sold_in_advance, unit_key
from plangate.engine.holdings import resolve_holdings
from plangate.engine.periods import window_at
from plangate.engine.pricing import price_among
from plangate.engine.values import Interval, PeriodKind


def with_holding(facts: CompanyFacts, catalog: Catalog, holding: Holding, at: datetime) -> CompanyFacts:
    """The company's facts if it were on `holding` from `at`; overrides, traits, other subscriptions and add-ons
    given by hand stay.

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
    sold: list[SubscriptionItem] = []
    assigned: list[tuple[PlanVersion, int]] = []
    for version, quantity in wanted:
        items = _items(catalog, facts.company_id, version, quantity, holding, base, at)
        sold.extend(items)
        if not items:
            assigned.append((version, quantity))

    if sold:
        subscription = _subscription(base, tuple(sold), at)
        facts = replace(facts, subscriptions=(*others, subscription))
    else:
        ended = () if base is None else (replace(base, status="canceled", ended_at=at),)
        facts = replace(facts, subscriptions=(*others, *ended))
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


def as_scheduled(facts: CompanyFacts, catalog: Catalog, at: datetime) -> CompanyFacts:
    """The company's facts at a later instant, if what is scheduled in Stripe by then happens and nothing else does."""
    return replace(
        facts, subscriptions=tuple(_run_on(one, catalog, facts.company_id, at) for one in facts.subscriptions)
    )


def _run_on(subscription: SubscriptionFact, catalog: Catalog, company_id: str, at: datetime) -> SubscriptionFact:
    end_at = subscription.scheduled_end_at
    if end_at is not None and end_at <= at and subscription.ended_at is None:
        return replace(subscription, status="canceled", ended_at=end_at)
    begun = [phase for phase in subscription.phases if phase.starts_at <= at]
    if not begun or not subscription.items:
        return subscription
    # The periods of what runs now go on; where the phase is paid by another interval, they are measured anew.
    model = subscription.items[0]
    items: list[SubscriptionItem] = []
    phase = max(begun, key=lambda phase: phase.starts_at)
    for stripe_price_id, quantity in phase.prices:
        owner = catalog.owner_of(stripe_price_id, company_id)
        item = replace(
            model,
            stripe_price_id=stripe_price_id,
            quantity=quantity,
            is_metered=quantity is None,
            held_since=phase.known_since or model.held_since,
        )
        if owner is not None:
            item = replace(item, interval=owner.price.interval, interval_count=owner.price.interval_count)
        items.append(item)
    return replace(subscription, items=tuple(items))


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


def _items(
    catalog: Catalog,
    company_id: str,
    version: PlanVersion,
    quantity: int,
    holding: Holding,
    base: SubscriptionFact | None,
    at: datetime,
) -> list[SubscriptionItem]:
    """The subscription items that hold this version, by prices the catalogue knows; nothing when it knows none.

    They are the price of the version itself, and those of what it grants: all that is billed as it is used, and what
    is paid in advance as far as any was bought.
    """
    own = holding.own_price if version.kind == "plan" else None
    parts: list[tuple[str | None, Sequence[Price], int | None]] = []
    if own is not None or version.prices:
        parts.append((None, (own,) if own is not None else version.prices, quantity))
    advances = sold_in_advance(version)
    for entitlement in version.entitlements:
        if not entitlement.prices:
            continue
        key = unit_key(version.kind, version.key, entitlement.feature)
        if key not in advances:
            parts.append((entitlement.feature, entitlement.prices, None))
        elif holding.units.get(key):
            parts.append((entitlement.feature, entitlement.prices, holding.units[key]))
    currency = holding.currency or (base.currency if base is not None else None)
    found: list[SubscriptionItem] = []
    for feature, prices, number in parts:
        interval, count = holding.interval or Interval.MONTH, holding.interval_count
        price = price_among(prices, currency=currency, interval=interval, interval_count=count)
        stripe_price_id = None if price is None else _known_as(catalog, company_id, version, feature, price)
        if price is not None and stripe_price_id is not None:
            found.append(_item(version, feature, price, stripe_price_id, number, base, at))
    return found


def _known_as(catalog: Catalog, company_id: str, version: PlanVersion, feature: str | None, price: Price) -> str | None:
    """The Stripe price that sells this part of a version to the company: this very one, or one like it."""
    alike: str | None = None
    for stripe_id, owner in catalog.price_owners.items():
        part = (owner.kind, owner.key, owner.version, owner.feature)
        if part != (version.kind, version.key, version.version, feature) or owner.company_id not in {None, company_id}:
            continue
        if stripe_id == price.stripe_price_id:
            return stripe_id
        if owner.company_id is None and alike is None and _billed_as(owner.price) == _billed_as(price):
            alike = stripe_id
    return alike


def _billed_as(price: Price) -> tuple[str, Interval, int]:
    return price.currency, price.interval, price.interval_count


def _item(
    version: PlanVersion,
    feature: str | None,
    price: Price,
    stripe_price_id: str,
    quantity: int | None,
    base: SubscriptionFact | None,
    at: datetime,
) -> SubscriptionItem:
    paid = base.items if base is not None else ()
    length = price.interval, price.interval_count
    running = next((one for one in paid if (one.interval, one.interval_count) == length), None)
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
        stripe_item_id=f"{version.kind}/{version.key}" + (f"/{feature}" if feature is not None else ""),
        stripe_price_id=stripe_price_id,
        stripe_product_id=version.stripe_product_id or "",
        quantity=quantity,
        is_metered=price.is_metered,
        currency=price.currency,
        interval=price.interval,
        interval_count=price.interval_count,
        unit_amount_minor=price.amount_minor,
        period_start_at=period[0],
        period_end_at=period[1],
    )


def _subscription(base: SubscriptionFact | None, items: tuple[SubscriptionItem, ...], at: datetime) -> SubscriptionFact:
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
    before, after = ({(one.interval, one.interval_count) for one in some} for some in (base.items, items))
    return replace(base, items=items, anchor_at=at if before.isdisjoint(after) else base.anchor_at)
