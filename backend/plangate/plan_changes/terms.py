"""Turns a verdict into the exact parameters Stripe gets, once: the preview and the charge are both built from them."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from plangate.billing.transport import StripeJson
from plangate.change_terms import OWN_PRICE, Action, Line, Terms
from plangate.engine.catalog import Catalog
from plangate.engine.facts import SubscriptionFact
from plangate.engine.holding import Holding
from plangate.engine.plan_change import ChangeKind, Immediate, Scheduled
from plangate.errors import Code, Refusal
from plangate.plan_changes.custom import CustomPrice, collection_of, own_price_to_make
from plangate.plan_changes.endings import giving_back
from plangate.plan_changes.lines import TargetLine, held_plan_price, item_params, target_lines

_BEHAVIOURS = {"charge_now": "always_invoice", "next_invoice": "create_prorations", "none": "none"}


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
    company_id: str,
    has_card: bool,
    trial_days: int,
    proration_at: datetime,
    promotion_code: str | None,
    custom: CustomPrice | None = None,
) -> Drafted:
    """How a permitted change is made in Stripe.

    Raises Refusal when Stripe does not know a price yet, or when the customer must pay first.
    """
    schedule_id = subscription.stripe_schedule_id if subscription is not None else None
    is_ending = subscription is not None and subscription.scheduled_end_at is not None
    if verdict.kind is ChangeKind.CANCEL:
        ending = Terms(action=Action.CANCEL_AT_PERIOD_END, stripe_schedule_id=schedule_id)
        if isinstance(verdict, Immediate):
            params = {} if subscription is None else giving_back(subscription, proration_at=proration_at)
            ending = msgspec.structs.replace(ending, action=Action.CANCEL_NOW, params=params)
        return Drafted(terms=ending)
    lines = target_lines(catalog, verdict.target, subscription, company_id=company_id)
    held = tuple(Line(line.stripe_price_id, line.quantity) for line in lines)
    if not held:
        raise Refusal(Code.NO_CHANGE, "Nothing would be held that is paid for; cancel the subscription instead.")
    plan_price_id = next((line.stripe_price_id for line in lines if line.kind == "plan"), held[0].stripe_price_id)
    interval = verdict.target.interval
    if interval is None:
        raise Refusal(Code.INVALID, "Say monthly or yearly: this plan is paid, so it needs an interval.")
    is_own = any(line.stripe_price_id == OWN_PRICE for line in held)
    base = Terms(
        action=Action.UPDATE,
        lines=held,
        plan_price_id=plan_price_id,
        interval=interval,
        interval_count=verdict.target.interval_count,
        is_interval_changed=_is_interval_changed(current, verdict.target),
        stripe_schedule_id=schedule_id,
        is_end_undone=is_ending,
        promotion_code=promotion_code,
        own=own_price_to_make(catalog, verdict.target, custom) if is_own else None,
        collection=collection_of(custom),
    )
    if subscription is None:
        starting = msgspec.structs.replace(base, stripe_schedule_id=None)
        return Drafted(terms=_start(starting, custom, has_card=has_card, trial_days=trial_days), lines=lines)
    if isinstance(verdict, Scheduled):
        boundary = int(verdict.effective_at.timestamp())
        scheduled = msgspec.structs.replace(
            base,
            action=Action.SCHEDULE,
            boundary=boundary,
            # Of an interval that nothing held is billed by, Stripe collects the first period only where all begin anew.
            is_interval_changed=base.is_interval_changed or _is_interval_brought(lines, subscription),
            held=tuple(Line(item.stripe_price_id, item.quantity) for item in subscription.items),
            held_plan_price_id=held_plan_price(catalog, subscription, company_id=company_id),
        )
        return Drafted(terms=scheduled, lines=lines)
    params = update_params(catalog, verdict, lines, subscription, company_id=company_id, proration_at=proration_at)
    if promotion_code is not None:
        params["discounts"] = [{"promotion_code": promotion_code}]
    return Drafted(terms=msgspec.structs.replace(base, params=params), lines=lines)


def refuse_foreign(subscription: SubscriptionFact) -> None:
    """Raise Refusal when another system's schedule manages the subscription: it is respected, never overwritten."""
    if subscription.stripe_schedule_id is not None and not subscription.is_schedule_ours:
        raise Refusal(
            Code.FOREIGN_SCHEDULE,
            "Another system schedules changes of this subscription: release its schedule in Stripe first.",
        )


def update_params(
    catalog: Catalog,
    verdict: Immediate,
    lines: Sequence[TargetLine],
    subscription: SubscriptionFact,
    *,
    company_id: str,
    proration_at: datetime,
) -> StripeJson:
    """The part of a subscription update that the preview and the charge share.

    A reduction made now restarts the period and credits what is left; an increase keeps it, prorated by the setting.
    Changes during a trial keep its end and cost nothing.
    """
    params: StripeJson = {"items": item_params(catalog, lines, subscription, company_id=company_id)}
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


def _start(base: Terms, custom: CustomPrice | None, *, has_card: bool, trial_days: int) -> Terms:
    """How a subscription begins: on its day, by invoice, with the card on file, or on Stripe's page."""
    is_invoiced = custom is not None and custom.collection_method == "send_invoice"
    if custom is not None and custom.starts_at is not None:
        if not has_card and not is_invoiced:
            raise Refusal(
                Code.INVALID,
                "Nobody is there to pay on that day, and no card is on file: send an invoice, or start now.",
            )
        boundary = int(custom.starts_at.timestamp())
        return msgspec.structs.replace(base, action=Action.START_LATER, boundary=boundary)
    action = Action.CREATE if has_card or is_invoiced else Action.CHECKOUT
    return msgspec.structs.replace(base, action=action, trial_days=0 if custom is not None else trial_days)


def _is_interval_brought(lines: Sequence[TargetLine], subscription: SubscriptionFact) -> bool:
    """Whether a line that is not held yet is billed by an interval that nothing held is."""
    held = {item.stripe_price_id for item in subscription.items}
    known = {(item.interval, item.interval_count) for item in subscription.items}
    fresh = [line.price for line in lines if line.stripe_price_id not in held and line.price is not None]
    return any((price.interval, price.interval_count) not in known for price in fresh)


def _is_interval_changed(current: Holding, target: Holding) -> bool:
    before = (current.interval, current.interval_count)
    return current.interval is not None and before != (target.interval, target.interval_count)
