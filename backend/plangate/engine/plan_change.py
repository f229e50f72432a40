"""Says what a change of plan is, when it happens, and why it may not: at once, scheduled or refused.

The rules are product.md's (Plan changes). Nothing here talks to Stripe: a verdict is a value the journey acts on.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Literal, TypeAlias

import msgspec

from plangate.engine.catalog import Catalog, PlanVersion, Price
from plangate.engine.facts import SubscriptionFact
from plangate.engine.holding import Holding, sold_in_advance, version_held
from plangate.engine.pricing import monthly_amount, months_in, price_among, price_for, prices_of
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.subscriptions import is_of_ours
from plangate.engine.values import Interval
from plangate.errors import Code


class ChangeKind(StrEnum):
    """What a move between two holdings is called."""

    SUBSCRIBE = "subscribe"
    CANCEL = "cancel"
    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    NO_CHANGE = "no_change"


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """Usage that would be over a limit after a change."""

    feature: str
    name: str
    used: int
    limit: int


class Reduction(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that becomes less in a change; `before` and `after` are quantities, or plan keys or intervals."""

    kind: Literal["plan", "interval", "quantity", "add_on"]
    key: str
    before: str | int | None
    after: str | int | None


class Immediate(msgspec.Struct, frozen=True, kw_only=True):
    """The change happens at once. `ends` are add-ons that do not fit the new plan and end at the same instant.

    `removes_scheduled` says that a scheduled change is dropped first; `starts_new_period` that the billing period
    begins anew; `violations` are limits that staff chose to pass over.
    """

    kind: ChangeKind
    effective_at: datetime
    target: Holding
    ends: tuple[str, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    removes_scheduled: bool = False
    starts_new_period: bool = False
    violations: tuple[Violation, ...] = ()


class Scheduled(msgspec.Struct, frozen=True, kw_only=True):
    """The change happens at the end of the paid period; everything stays as it is until `effective_at`."""

    kind: ChangeKind
    effective_at: datetime
    target: Holding
    ends: tuple[str, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    removes_scheduled: bool = False
    violations: tuple[Violation, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The change may not happen. `detail` is a sentence for a person that says the way out.

    `way_out` names that way for a program; `url` and `label` are a link to offer instead; `may_force` says that
    staff can insist.
    """

    code: Code
    detail: str
    way_out: Literal[
        "none",
        "pay",
        "cancel_scheduled",
        "contact",
        "reduce_usage",
        "release_schedule",
        "choose_other",
        "keep_currency",
    ] = "none"
    url: str | None = None
    label: str | None = None
    violations: tuple[Violation, ...] = ()
    may_force: bool = False


Verdict: TypeAlias = Immediate | Scheduled | Refused


def classify(catalog: Catalog, current: Holding, target: Holding) -> ChangeKind:
    """Upgrade or downgrade? Free to paid is a subscription, paid to free a cancellation.

    A different plan: the base price each month in one currency decides, higher or equal is an upgrade. The same plan:
    a longer interval is an upgrade, a shorter one a downgrade; then more quantity or add-ons, or less. Where those
    pull both ways the monthly total decides, equal again being an upgrade.
    """
    before, after = version_held(catalog, current), version_held(catalog, target)
    if _is_paid(before, current) != _is_paid(after, target):
        return ChangeKind.SUBSCRIBE if _is_paid(after, target) else ChangeKind.CANCEL
    if current.plan != target.plan:
        return _by_amount(catalog, current, target, base_only=True)
    if _is_paid(after, target):
        length = _length(target) - _length(current)
        if length:
            return ChangeKind.UPGRADE if length > 0 else ChangeKind.DOWNGRADE
    steps = [target.quantity - current.quantity]
    steps += [target.add_ons.get(key, 0) - current.add_ons.get(key, 0) for key in {*current.add_ons, *target.add_ons}]
    steps += [target.units.get(key, 0) - current.units.get(key, 0) for key in {*current.units, *target.units}]
    is_more, is_less = any(step > 0 for step in steps), any(step < 0 for step in steps)
    if is_more and is_less:
        return _by_amount(catalog, current, target, base_only=False)
    if is_more or is_less:
        return ChangeKind.UPGRADE if is_more else ChangeKind.DOWNGRADE
    if current.own_price != target.own_price:
        return _by_amount(catalog, current, target, base_only=True)
    if before is not None and after is not None and before.version != after.version:
        return _by_amount(catalog, current, target, base_only=True)
    return ChangeKind.NO_CHANGE


def reductions(catalog: Catalog, current: Holding, target: Holding) -> tuple[Reduction, ...]:
    """Everything that becomes less, whatever the change as a whole is called."""
    found: list[Reduction] = []
    if current.plan is not None and current.plan != target.plan:
        bare = msgspec.structs.replace
        if classify(catalog, bare(current, add_ons={}), bare(target, add_ons={})) in _REDUCING:
            found.append(Reduction(kind="plan", key=current.plan, before=current.plan, after=target.plan))
    is_both_paid = current.interval is not None and target.interval is not None
    if is_both_paid and _length(target) < _length(current):
        found.append(Reduction(kind="interval", key=current.plan or "", before=current.interval, after=target.interval))
    if target.plan is not None and target.quantity < current.quantity:
        found.append(Reduction(kind="quantity", key=target.plan, before=current.quantity, after=target.quantity))
    for key, before in current.add_ons.items():
        after = target.add_ons.get(key, 0)
        if after < before:
            found.append(Reduction(kind="add_on", key=key, before=before, after=after))
    for key, before in current.units.items():
        after = target.units.get(key, 0)
        if after < before:
            found.append(Reduction(kind="quantity", key=key, before=before, after=after))
    return tuple(found)


def fitted(catalog: Catalog, target: Holding) -> tuple[Holding, tuple[str, ...]]:
    """The target without the add-ons that cannot stand beside its plan, and the keys of those, which end with it."""
    after = version_held(catalog, target)
    ends = tuple(key for key in target.add_ons if not _fits(catalog, key, after))
    kept = {key: quantity for key, quantity in target.add_ons.items() if key not in ends}
    # What is paid in advance beside an add-on is a part of it.
    units = {key: number for key, number in target.units.items() if key.partition("/")[0] not in ends}
    return (msgspec.structs.replace(target, add_ons=kept, units=units) if ends else target), ends


def judge(
    catalog: Catalog,
    snapshot: CompanySnapshot,
    current: Holding,
    target: Holding,
    *,
    at: datetime,
    violations: Sequence[Violation] = (),
    when: Literal["auto", "now", "period_end"] = "auto",
    is_self_service: bool = True,
    is_forced: bool = False,
) -> Verdict:
    """When a change happens, or why it may not. `violations` are those of the change's own effective instant.

    Ask `timing` for that instant first. Staff (`is_self_service` false) may force past violations, nothing else.
    """
    asked_for = {key for key, quantity in target.add_ons.items() if quantity > current.add_ons.get(key, 0)}
    settled, ends = fitted(catalog, target)
    kind = classify(catalog, current, settled)
    refusal = (
        _refused_by_catalogue(catalog, current, target, kind, asked_for & set(ends), is_self_service=is_self_service)
        or _refused_by_subscription(snapshot, settled, kind)
        or _refused_while_scheduled(snapshot, current, settled, kind, at)
    )
    if refusal is not None:
        return refusal
    less = reductions(catalog, current, settled)
    settings = catalog.settings
    if kind is ChangeKind.DOWNGRADE and is_self_service and not settings.is_self_service_downgrade_allowed:
        label = settings.self_service_downgrade_label or None
        return Refused(
            code=Code.SELF_SERVICE_DISABLED,
            detail="Downgrades are made by our team: contact us to change to a smaller plan.",
            way_out="contact",
            url=settings.self_service_downgrade_url,
            label=label,
        )
    is_checked = kind is ChangeKind.DOWNGRADE or (kind is ChangeKind.UPGRADE and bool(less))
    over = tuple(violations) if is_checked and settings.is_downgrade_blocked_over_limit else ()
    if over and (is_self_service or not is_forced):
        listed = "; ".join(f"{one.name}: {one.used:,} used, {one.limit:,} allowed" for one in over)
        return Refused(
            code=Code.OVER_LIMIT,
            detail=f"Usage is over what the new plan allows ({listed}): use less first, or choose another plan.",
            way_out="reduce_usage",
            violations=over,
            may_force=not is_self_service,
        )
    effective_at = timing(catalog, snapshot, current, target, at=at, when=when)
    # Less of what ends anyway changes nothing, and must not take the end back.
    is_less = kind is ChangeKind.DOWNGRADE and _is_same_base(current, settled)
    is_ending_so = kind is ChangeKind.CANCEL or (is_less and current.own_price == settled.own_price)
    if is_ending_so and effective_at is not None and _ends_by(snapshot.subscription, effective_at):
        return Refused(
            code=Code.NO_CHANGE,
            detail=f"The subscription is set to end then already, on {effective_at.date().isoformat()}: nothing would "
            "change.",
        )
    is_scheduled = _has_scheduled(snapshot.subscription, at)
    if effective_at is not None:
        return Scheduled(
            kind=kind,
            effective_at=effective_at,
            target=settled,
            ends=ends,
            reductions=less,
            removes_scheduled=is_scheduled,
            violations=over,
        )
    has_new_interval = current.interval is not None and _length(settled) != _length(current)
    return Immediate(
        kind=kind,
        effective_at=at,
        target=settled,
        ends=ends,
        reductions=less,
        removes_scheduled=is_scheduled,
        starts_new_period=kind in {ChangeKind.SUBSCRIBE, ChangeKind.DOWNGRADE, ChangeKind.CANCEL} or has_new_interval,
        violations=over,
    )


def timing(
    catalog: Catalog,
    snapshot: CompanySnapshot,
    current: Holding,
    target: Holding,
    *,
    at: datetime,
    when: Literal["auto", "now", "period_end"] = "auto",
) -> datetime | None:
    """The later instant at which a change takes effect: the end of the paid period; None when it happens at once.

    Reductions follow the catalogue's setting unless `when` says otherwise; a subscription that begins, and anything
    without a paid period, is immediate.
    """
    kind = classify(catalog, current, fitted(catalog, target)[0])
    period_end_at = snapshot.cycle.period_end_at if snapshot.subscription is not None else None
    if kind is ChangeKind.SUBSCRIBE or period_end_at is None or period_end_at <= at or when == "now":
        return None
    is_reducing = kind in _REDUCING
    is_later = when == "period_end" or (is_reducing and catalog.settings.downgrades == "period_end")
    return period_end_at if is_later else None


_REDUCING = frozenset({ChangeKind.DOWNGRADE, ChangeKind.CANCEL})


def _refused_by_catalogue(
    catalog: Catalog,
    current: Holding,
    target: Holding,
    kind: ChangeKind,
    unfit: set[str],
    *,
    is_self_service: bool,
) -> Refused | None:
    if kind is ChangeKind.NO_CHANGE and not unfit:
        return Refused(code=Code.NO_CHANGE, detail="The company is already on exactly that: nothing would change.")
    newest = catalog.plans.get(target.plan) if target.plan is not None else None
    if target.plan is not None and target.plan != current.plan:
        if newest is None:
            return Refused(code=Code.NOT_FOUND, detail="There is no such plan: choose one that is on sale.")
        if newest.is_contact_us and (is_self_service or not (newest.prices or target.own_price)):
            return Refused(
                code=Code.CONTACT_US,
                detail=f"{newest.name} is sold by our team: contact us to move to it.",
                way_out="contact",
                url=newest.contact_url,
            )
        if newest.is_archived:
            return Refused(
                code=Code.INVALID,
                detail=f"{newest.name} is no longer on sale: choose another plan.",
                way_out="choose_other",
            )
    for key in sorted(key for key, quantity in target.add_ons.items() if quantity > current.add_ons.get(key, 0)):
        add_on = catalog.add_ons.get(key)
        if add_on is None or add_on.is_archived:
            return Refused(code=Code.NOT_FOUND, detail="There is no such add-on on sale.", way_out="choose_other")
        if add_on.is_free:
            return Refused(
                code=Code.INVALID,
                detail=f"{add_on.name} has no price, so it cannot be bought: ask for it.",
                way_out="choose_other",
            )
        if key in unfit:
            return Refused(
                code=Code.ADD_ON_UNFIT,
                detail=f"{add_on.name} cannot be added to this plan: choose a plan it fits first.",
                way_out="choose_other",
            )
    after = version_held(catalog, target)
    is_listed = target.own_price is None and after is not None and not after.is_contact_us
    every = (target.interval, target.interval_count)
    # Whoever pays for the plan as often already keeps that price, listed or not.
    is_kept = current.plan == target.plan and every == (current.interval, current.interval_count)
    if target.currency is not None and after is not None and is_listed and not is_kept and _is_paid(after, target):
        price = price_for(after, currency=target.currency, interval=target.interval, interval_count=every[1])
        if price is None or (target.interval is not None and (price.interval, price.interval_count) != every):
            return Refused(
                code=Code.INVALID,
                detail=f"{after.name} is not sold in that currency and interval: choose another.",
                way_out="choose_other",
            )
    return None


def _refused_by_subscription(snapshot: CompanySnapshot, target: Holding, kind: ChangeKind) -> Refused | None:
    facts = snapshot.facts
    running = [one for one in facts.subscriptions if one.ended_at is None and is_of_ours(snapshot.catalog, facts, one)]
    if kind is not ChangeKind.CANCEL and any(one.status in {"past_due", "unpaid"} for one in running):
        return Refused(
            code=Code.PAST_DUE,
            detail="A payment is overdue: pay the open invoice first. Cancelling is possible at any time.",
            way_out="pay",
        )
    subscription = snapshot.subscription
    if subscription is None:
        return None
    if subscription.stripe_schedule_id is not None and not subscription.is_schedule_ours:
        return Refused(
            code=Code.FOREIGN_SCHEDULE,
            detail="Another system schedules changes of this subscription: release its schedule in Stripe first.",
            way_out="release_schedule",
        )
    if kind is not ChangeKind.CANCEL and target.currency is not None and target.currency != subscription.currency:
        return Refused(
            code=Code.CURRENCY_PINNED,
            detail=f"The subscription is billed in {subscription.currency.upper()}: changes stay in that currency.",
            way_out="keep_currency",
        )
    return None


def _refused_while_scheduled(
    snapshot: CompanySnapshot, current: Holding, target: Holding, kind: ChangeKind, at: datetime
) -> Refused | None:
    """While a downgrade is scheduled nothing more is bought; an upgrade of plan or interval removes it instead."""
    if not _has_scheduled(snapshot.subscription, at) or kind is ChangeKind.CANCEL:
        return None
    if not _is_same_base(current, target) and kind is not ChangeKind.DOWNGRADE:
        return None
    is_buying = target.quantity > current.quantity or any(
        after > before.get(key, 0)
        for before, wanted in ((current.add_ons, target.add_ons), (current.units, target.units))
        for key, after in wanted.items()
    )
    if not is_buying:
        return None
    return Refused(
        code=Code.DOWNGRADE_SCHEDULED,
        detail="A downgrade is scheduled: cancel it first to add seats or add-ons, or upgrade the plan.",
        way_out="cancel_scheduled",
    )


def _is_same_base(current: Holding, target: Holding) -> bool:
    """Whether the plan and its interval stay."""
    return current.plan == target.plan and _length(current) == _length(target)


def _has_scheduled(subscription: SubscriptionFact | None, at: datetime) -> bool:
    if subscription is None:
        return False
    is_phased = subscription.is_schedule_ours and any(phase.starts_at > at for phase in subscription.phases)
    return is_phased or subscription.scheduled_end_at is not None


def _ends_by(subscription: SubscriptionFact | None, at: datetime) -> bool:
    """Whether a cancellation is scheduled already that ends the subscription no later."""
    ends_at = None if subscription is None else subscription.scheduled_end_at
    return ends_at is not None and ends_at <= at


def _is_paid(version: PlanVersion | None, holding: Holding) -> bool:
    return version is not None and (not version.is_free or holding.own_price is not None)


def _fits(catalog: Catalog, key: str, plan: PlanVersion | None) -> bool:
    add_on = catalog.newest("add_on", key)
    if add_on is None or plan is None:
        return False
    return not add_on.fits or plan.key in add_on.fits


def _length(holding: Holding) -> Fraction:
    return months_in(holding.interval or Interval.MONTH, holding.interval_count)


def _by_amount(catalog: Catalog, current: Holding, target: Holding, *, base_only: bool) -> ChangeKind:
    for currency in _currencies(catalog, current, target):
        before = _amount(catalog, current, currency, base_only=base_only)
        after = _amount(catalog, target, currency, base_only=base_only)
        if before is not None and after is not None:
            return ChangeKind.UPGRADE if after >= before else ChangeKind.DOWNGRADE
    # A plan without any price in a shared currency is one sold by hand: the dearest there is.
    is_by_hand = [version is not None and version.is_contact_us for version in _both(catalog, current, target)]
    return ChangeKind.DOWNGRADE if is_by_hand == [True, False] else ChangeKind.UPGRADE


def _both(catalog: Catalog, current: Holding, target: Holding) -> tuple[PlanVersion | None, PlanVersion | None]:
    return version_held(catalog, current), version_held(catalog, target)


def _currencies(catalog: Catalog, current: Holding, target: Holding) -> list[str]:
    """The currencies to compare in: the one paid in first. The order is the same in both directions."""
    versions = [version for version in _both(catalog, current, target) if version is not None]
    offered = {price.currency for version in versions for price in prices_of(version)}
    paid = sorted({one for one in (current.currency, target.currency) if one is not None})
    return [*paid, *sorted(offered - set(paid))] or ["usd"]


def _amount(catalog: Catalog, holding: Holding, currency: str, *, base_only: bool) -> Fraction | None:
    """What a holding costs each month in a currency; None when it has no price there.

    Usage costs what it costs: what is billed as it is used does not count.
    """
    version = version_held(catalog, holding)
    base = _monthly_base(version, holding, currency)
    if base is None or base_only:
        return base
    total = base * holding.quantity
    held = [version] if version is not None else []
    for key, quantity in holding.add_ons.items():
        add_on = catalog.newest("add_on", key)
        if add_on is not None and add_on.prices:
            held.append(add_on)
            total += _monthly(add_on.prices, holding, currency, quantity) * quantity
    for one in held:
        for key, entitlement in sold_in_advance(one).items():
            bought = holding.units.get(key, 0)
            total += _monthly(entitlement.prices, holding, currency, bought) * bought
    return total


def _monthly_base(version: PlanVersion | None, holding: Holding, currency: str) -> Fraction | None:
    """What one of the plan costs each month; where its amount depends on the quantity, at the one held."""
    if version is None or not _is_paid(version, holding):
        return Fraction(0)
    own = holding.own_price
    if own is not None:
        return monthly_amount(own, holding.quantity) if own.currency == currency else None
    price = price_for(version, currency=currency, interval=holding.interval, interval_count=holding.interval_count)
    if price is None:
        return None
    # A plan without a price of its own costs what is used.
    return monthly_amount(price, holding.quantity) if version.prices else Fraction(0)


def _monthly(prices: Sequence[Price], holding: Holding, currency: str, quantity: int) -> Fraction:
    price = price_among(prices, currency=currency, interval=holding.interval, interval_count=holding.interval_count)
    return Fraction(0) if price is None else monthly_amount(price, quantity)
