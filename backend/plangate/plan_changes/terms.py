"""Turns a verdict into the exact parameters Stripe gets, once: the preview and the charge are both built from them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from plangate.billing.transport import StripeJson
from plangate.change_terms import Action, Line, Terms
from plangate.engine.holding import Holding
from plangate.engine.model import Catalog, Price, SubscriptionFact, SubscriptionItem
from plangate.engine.plan_change import ChangeKind, Immediate, Scheduled
from plangate.engine.pricing import price_for
from plangate.errors import Code, Refusal

_BEHAVIOURS = {"charge_now": "always_invoice", "next_invoice": "create_prorations", "none": "none"}


class TargetLine(msgspec.Struct, frozen=True, kw_only=True):
    """One item the subscription is to hold, with what it stands for; `item` is the one that holds it already.

    `kind` is `other` for items the catalogue does not know, which are left exactly as they are. `amount_minor` is the
    price per unit, None where it is not a flat one.
    """

    kind: Literal["plan", "add_on", "other"]
    key: str
    stripe_price_id: str
    quantity: int | None
    name: str = ""
    amount_minor: int | None = None
    item: SubscriptionItem | None = None


class Drafted(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of a change and the lines behind them, for the quote's own words."""

    terms: Terms
    lines: tuple[TargetLine, ...] = ()


def draft(
    catalog: Catalog,
    verdict: Immediate | Scheduled,
    current: Holding,
    subscription: SubscriptionFact | None,
    *,
    has_card: bool,
    trial_days: int,
    proration_at: datetime,
    promotion_code: str | None,
) -> Drafted:
    """How a permitted change is made in Stripe.

    Raises Refusal when Stripe does not know a price yet, or when the customer must pay first.
    """
    schedule_id = subscription.stripe_schedule_id if subscription is not None else None
    is_ending = subscription is not None and subscription.scheduled_end_at is not None
    if verdict.kind is ChangeKind.CANCEL:
        action = Action.CANCEL_AT_PERIOD_END if isinstance(verdict, Scheduled) else Action.CANCEL_NOW
        return Drafted(terms=Terms(action=action, stripe_schedule_id=schedule_id))
    lines = target_lines(catalog, verdict.target, subscription)
    held = tuple(Line(line.stripe_price_id, line.quantity) for line in lines)
    if not held:
        raise Refusal(Code.NO_CHANGE, "Nothing would be held that is paid for; cancel the subscription instead.")
    plan_price_id = next((line.stripe_price_id for line in lines if line.kind == "plan"), held[0].stripe_price_id)
    interval = verdict.target.interval
    if interval is None:
        raise Refusal(Code.INVALID, "Say monthly or yearly: this plan is paid, so it needs an interval.")
    base = Terms(
        action=Action.UPDATE,
        lines=held,
        plan_price_id=plan_price_id,
        interval=interval,
        interval_count=verdict.target.interval_count,
        is_interval_changed=current.interval is not None and current.interval is not interval,
        stripe_schedule_id=schedule_id,
        is_end_undone=is_ending,
        promotion_code=promotion_code,
    )
    if subscription is None:
        action = Action.CREATE if has_card else Action.CHECKOUT
        starting = msgspec.structs.replace(base, action=action, trial_days=trial_days, stripe_schedule_id=None)
        return Drafted(terms=starting, lines=lines)
    if isinstance(verdict, Scheduled):
        boundary = int(verdict.effective_at.timestamp())
        scheduled = msgspec.structs.replace(
            base,
            action=Action.SCHEDULE,
            boundary=boundary,
            held=tuple(Line(item.stripe_price_id, item.quantity) for item in subscription.items),
            held_plan_price_id=_held_plan_price(catalog, subscription),
        )
        return Drafted(terms=scheduled, lines=lines)
    params = update_params(catalog, verdict, lines, subscription, proration_at=proration_at)
    if promotion_code is not None:
        params["discounts"] = [{"promotion_code": promotion_code}]
    return Drafted(terms=msgspec.structs.replace(base, params=params), lines=lines)


def target_lines(catalog: Catalog, target: Holding, subscription: SubscriptionFact | None) -> tuple[TargetLine, ...]:
    """All items the subscription is to hold: the plan first, then add-ons, then what the catalogue does not know.

    A plan version or add-on that is held already in the same interval keeps its price, also when that is archived.
    """
    found: list[TargetLine] = []
    held = _held_items(catalog, subscription)
    plan = catalog.newest("plan", target.plan) if target.plan is not None else None
    if plan is not None and target.version is not None:
        plan = catalog.version_of("plan", plan.key, target.version) or plan
    if plan is not None and not plan.is_free:
        old = held.get(("plan", plan.key)) or next((item for (kind, _), item in held.items() if kind == "plan"), None)
        owner = catalog.price_owners.get(old.stripe_price_id) if old is not None else None
        newest = catalog.newest("plan", plan.key)
        is_kept = (
            old is not None
            and owner is not None
            and owner.key == plan.key
            # A price sells the newest version; only who holds an older one already can be on it.
            and (owner.version == plan.version or (newest is not None and plan.version < newest.version))
            and old.interval is target.interval
        )
        price = price_for(plan, currency=target.currency, interval=target.interval)
        kept = old.stripe_price_id if is_kept and old is not None else None
        found.append(_line("plan", plan.key, plan.name, kept, price, target.quantity, old))
    for key, quantity in target.add_ons.items():
        add_on = catalog.newest("add_on", key)
        if add_on is None:
            continue
        old = held.get(("add_on", key))
        kept = old.stripe_price_id if old is not None and old.interval is target.interval else None
        price = price_for(add_on, currency=target.currency, interval=target.interval)
        found.append(_line("add_on", key, add_on.name, kept, price, quantity, old))
    if subscription is not None:
        found.extend(
            TargetLine(
                kind="other",
                key=item.stripe_item_id,
                stripe_price_id=item.stripe_price_id,
                quantity=item.quantity,
                amount_minor=item.unit_amount_minor,
                item=item,
            )
            for item in subscription.items
            if item.stripe_price_id not in catalog.price_owners
        )
    return tuple(found)


def update_params(
    catalog: Catalog,
    verdict: Immediate,
    lines: Sequence[TargetLine],
    subscription: SubscriptionFact,
    *,
    proration_at: datetime,
) -> StripeJson:
    """The part of a subscription update that the preview and the charge share.

    A reduction made now restarts the period and credits what is left; an increase keeps it, prorated by the setting.
    Changes during a trial keep its end and cost nothing.
    """
    params: StripeJson = {"items": item_params(catalog, lines, subscription)}
    if subscription.status == "trialing":
        params["proration_behavior"] = "none"
        return params
    behaviour = "always_invoice"
    if verdict.kind is ChangeKind.UPGRADE:
        behaviour = _BEHAVIOURS[catalog.settings.proration]
    params["proration_behavior"] = behaviour
    if behaviour != "none":
        params["proration_date"] = int(proration_at.timestamp())
    if verdict.kind is ChangeKind.DOWNGRADE:
        params["billing_cycle_anchor"] = {"type": "now"}
    return params


def item_params(catalog: Catalog, lines: Sequence[TargetLine], subscription: SubscriptionFact) -> list[StripeJson]:
    """The `items` that turn the subscription into `lines`: changed, added and deleted ones; others are not named."""
    written: list[StripeJson] = []
    kept: set[str] = set()
    for line in lines:
        if line.item is None:
            written.append(_priced(line))
            continue
        kept.add(line.item.stripe_item_id)
        is_same = (line.item.stripe_price_id, line.item.quantity) == (line.stripe_price_id, line.quantity)
        if line.kind != "other" and not is_same:
            priced = _priced(line)
            if line.item.stripe_price_id == line.stripe_price_id:
                # A price that is held already need not be active, as long as it is not named again.
                priced.pop("price")
            written.append({"id": line.item.stripe_item_id, **priced})
    gone = [
        item.stripe_item_id
        for item in subscription.items
        if item.stripe_item_id not in kept and item.stripe_price_id in catalog.price_owners
    ]
    return [*written, *({"id": stripe_item_id, "deleted": True} for stripe_item_id in gone)]


def start_items(lines: Sequence[Line]) -> list[StripeJson]:
    """The `items` of a subscription that begins."""
    return [
        {"price": line.stripe_price_id} | ({"quantity": line.quantity} if line.quantity is not None else {})
        for line in lines
    ]


def _held_items(catalog: Catalog, subscription: SubscriptionFact | None) -> dict[tuple[str, str], SubscriptionItem]:
    """What each item of the subscription stands for, found by its price and never by its position."""
    held: dict[tuple[str, str], SubscriptionItem] = {}
    for item in subscription.items if subscription is not None else ():
        owner = catalog.price_owners.get(item.stripe_price_id)
        if owner is not None:
            held.setdefault((owner.kind, owner.key), item)
    return held


def _held_plan_price(catalog: Catalog, subscription: SubscriptionFact) -> str | None:
    """The price of the base plan the subscription holds."""
    held = _held_items(catalog, subscription)
    return next((item.stripe_price_id for (kind, _), item in held.items() if kind == "plan"), None)


def _line(
    kind: Literal["plan", "add_on"],
    key: str,
    name: str,
    kept: str | None,
    price: Price | None,
    quantity: int,
    item: SubscriptionItem | None,
) -> TargetLine:
    stripe_price_id = kept or (price.stripe_price_id if price is not None else None)
    if stripe_price_id is None:
        raise Refusal(
            Code.UNAVAILABLE,
            f"Stripe does not know a price of {name} in that currency and interval yet; apply the catalogue first.",
        )
    amount = item.unit_amount_minor if kept is not None and item is not None else price.amount_minor if price else None
    return TargetLine(
        kind=kind,
        key=key,
        name=name,
        stripe_price_id=stripe_price_id,
        quantity=quantity,
        amount_minor=amount,
        item=item,
    )


def _priced(line: TargetLine) -> StripeJson:
    written: StripeJson = {"price": line.stripe_price_id}
    if line.quantity is not None:
        written["quantity"] = line.quantity
    return written
