"""The plan manager: what a company has, what it costs, when it pays next, what waits, and the ways to change it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from plangate.engine.catalog import Catalog, PlanVersion, Price
from plangate.engine.holding import Holding, sold_in_advance, version_held
from plangate.engine.pricing import amount_of
from plangate.engine.values import FeatureType, Stacking
from plangate.shapes import ChangeKind, ChangeState, Company, PlanChange, SubscriptionView
from plangate.web.fragments import (
    Action,
    AddOnLine,
    Banner,
    Fact,
    Frame,
    Notice,
    PlanManagerView,
    Tone,
    web_address,
)
from plangate.web.views.offers import held_price, may_change, name_of, price_of
from plangate.web.views.rates import price_at, rate_text
from plangate.web.views.rhythms import Rhythm, rhythm_of_price, rhythm_paid, rhythm_scheduled
from plangate.web.wording import Reader

_POLL_SECONDS = 3
_POLLING_ENDS_AFTER = timedelta(minutes=5)
_UNFINISHED = frozenset({ChangeState.REQUESTED, ChangeState.APPLYING, ChangeState.CANCELLING})
_STATUS_TONES: dict[str, Tone] = {"active": "good", "trialing": "good", "past_due": "bad", "unpaid": "bad"}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the holder of the token may do: change plans, and pay."""

    can_change: bool = False
    can_pay: bool = False


def plan_manager_view(
    frame: Frame,
    catalog: Catalog,
    company: Company,
    changes: Sequence[PlanChange],
    *,
    holding: Holding | None = None,
    abilities: Abilities,
    notice: Notice | None = None,
) -> PlanManagerView:
    """The overview. `changes` are the company's plan changes, newest first or in any order.

    `holding` says how many are held of what the subscription is sold by: the plan's quantity and units in advance.
    """
    reader = frame.reader
    subscription = company.subscription
    pending = pending_change(changes)
    badge = ""
    tone: Tone = ""
    if subscription is not None:
        key = f"manager.status.{subscription.status}"
        badge = reader.say(key if reader.knows(key) else "manager.status.other")
        tone = _STATUS_TONES.get(subscription.status, "warn")
    return PlanManagerView(
        frame=frame,
        notice=notice,
        plan=name_of(catalog, company.plan.key) if company.plan else reader.say("manager.none"),
        badge=badge,
        badge_tone=tone,
        facts=_facts(reader, catalog, company, holding or _plain(company)),
        banners=tuple(change_banners(reader, catalog, company, pending, abilities=abilities)),
        units=_units(reader, catalog, company, holding or _plain(company)) if abilities.can_change else (),
        add_ons=_add_ons(reader, catalog, company, holding or _plain(company)) if abilities.can_change else (),
        actions=_actions(reader, company, pending) if abilities.can_change else (),
        poll_seconds=_POLL_SECONDS if _is_worth_asking_again(reader, pending) else 0,
    )


def _is_worth_asking_again(reader: Reader, pending: PlanChange | None) -> bool:
    """Whether the page refreshes by itself: while a change is being made, but not for ever."""
    if pending is None or pending.state not in _UNFINISHED:
        return False
    return reader.now - pending.created_at < _POLLING_ENDS_AFTER


def pending_change(changes: Sequence[PlanChange]) -> PlanChange | None:
    """The newest change that still waits for somebody or something, or None. A scheduled one does not count."""
    waiting = _UNFINISHED | {ChangeState.AWAITING_PAYMENT, ChangeState.REQUIRES_ACTION}
    return max((change for change in changes if change.state in waiting), key=lambda c: c.created_at, default=None)


def change_banners(
    reader: Reader,
    catalog: Catalog,
    company: Company,
    pending: PlanChange | None,
    *,
    abilities: Abilities,
) -> list[Banner]:
    """What waits or went wrong, the most pressing first: an overdue payment, an open payment, a scheduled change."""
    banners: list[Banner] = []
    current = name_of(catalog, company.plan.key if company.plan else None)
    if company.subscription is not None and company.subscription.status == "past_due":
        action = Action(label=reader.say("manager.update_card"), post="portal") if abilities.can_pay else None
        banners.append(
            Banner(
                text=reader.say("manager.past_due"),
                hint=reader.say("manager.past_due_hint", current=current),
                tone="bad",
                icon="alert",
                action=action,
            )
        )
    if pending is not None:
        banners.append(_pending_banner(reader, catalog, pending, abilities=abilities))
    banner = _scheduled_banner(reader, catalog, company, current, abilities=abilities)
    return [*banners, banner] if banner else banners


def _pending_banner(reader: Reader, catalog: Catalog, change: PlanChange, *, abilities: Abilities) -> Banner:
    url = web_address(change.next_action.url) if change.next_action and abilities.can_pay else ""
    if change.state is ChangeState.AWAITING_PAYMENT:
        return Banner(
            text=reader.say("manager.awaiting", plan=name_of(catalog, change.to.plan)),
            hint=reader.say("manager.awaiting_hint"),
            icon="clock",
            action=Action(label=reader.say("manager.awaiting_button"), url=url, style="primary") if url else None,
        )
    if change.state is ChangeState.REQUIRES_ACTION:
        is_invoice = change.next_action is not None and change.next_action.kind == "pay_invoice"
        label = reader.say("manager.pay_button" if is_invoice else "manager.action_button")
        return Banner(
            text=reader.say("manager.past_due" if is_invoice else "manager.action"),
            hint=reader.say("manager.action_hint"),
            tone="warn",
            icon="alert",
            action=Action(label=label, url=url, style="primary") if url else None,
        )
    return Banner(text=reader.say("manager.settling"), hint=reader.say("manager.settling_hint"), icon="clock")


def _scheduled_banner(
    reader: Reader, catalog: Catalog, company: Company, current: str, *, abilities: Abilities
) -> Banner | None:
    scheduled = company.scheduled_change
    cancel_at = company.subscription.cancel_at if company.subscription else None
    if scheduled is None and cancel_at is None:
        return None
    keep = None
    if abilities.can_change:
        keep = Action(label=reader.say("manager.keep"), post="cancel-scheduled", element_id="keep-plan")
    if scheduled is None or scheduled.kind == ChangeKind.CANCEL:
        at = scheduled.effective_at if scheduled else cancel_at
        text = reader.say("manager.scheduled_cancel", date=reader.day(at)) if at else ""
        hint = reader.say("manager.scheduled_cancel_hint", current=current)
        return Banner(text=text, hint=hint, icon="clock", action=keep)
    date = reader.day(scheduled.effective_at)
    held = company.plan.key if company.plan else None
    if scheduled.plan is None or scheduled.plan == held:
        text = reader.say("manager.scheduled_other", date=date)
    else:
        text = reader.say("manager.scheduled_plan", plan=name_of(catalog, scheduled.plan), date=date)
    hint = reader.say("manager.scheduled_plan_hint", current=current)
    return Banner(text=text, hint=hint, icon="clock", action=keep)


# --- what it costs -------------------------------------------------------------------------------------


def _plain(company: Company) -> Holding:
    """One of the plan and nothing in advance: what there is to say where nobody looked closer."""
    return Holding(
        plan=company.plan.key if company.plan else None,
        version=company.plan.version if company.plan else None,
        add_ons={one.key: one.quantity for one in company.add_ons},
    )


def is_ending(company: Company) -> bool:
    """Whether the subscription is set to end, by us or in Stripe."""
    scheduled, subscription = company.scheduled_change, company.subscription
    is_set = subscription is not None and subscription.cancel_at is not None
    return is_set or (scheduled is not None and scheduled.kind == ChangeKind.CANCEL)


def _facts(reader: Reader, catalog: Catalog, company: Company, holding: Holding) -> tuple[Fact, ...]:
    subscription = company.subscription
    price_label, next_label = reader.say("manager.price"), reader.say("manager.next")
    if subscription is None or company.plan is None:
        plan = catalog.plans.get(company.plan.key) if company.plan else None
        by_hand = plan is not None and not plan.is_free
        cost = reader.say("manager.by_hand" if by_hand else "manager.no_charge")
        nothing = reader.say("manager.no_next")
        return (Fact(label=price_label, text=cost), Fact(label=next_label, text=nothing))
    versions = {one.key: one.version for one in company.add_ons}
    held = {key: (versions[key], number) for key, number in holding.add_ons.items() if key in versions}
    rhythm = rhythm_paid(subscription)
    total = _total(catalog, subscription.currency, holding, held, rhythm)
    facts = []
    if total is not None:
        amount = reader.money(total, subscription.currency)
        is_more = _is_usage_paid(catalog, company)
        facts.append(
            Fact(
                label=price_label,
                text=f"{amount} {rhythm.say(reader, 'each')}",
                hint=reader.say("manager.usage") if is_more else "",
            )
        )
    facts.append(_next_payment(reader, catalog, company, subscription, holding, total))
    if subscription.trial_end is not None and subscription.status == "trialing":
        label = reader.say("manager.status.trialing")
        text = reader.say("manager.trial_ends", date=reader.day(subscription.trial_end))
        facts.append(Fact(label=label, text=text))
    return tuple(facts)


def _next_payment(
    reader: Reader,
    catalog: Catalog,
    company: Company,
    subscription: SubscriptionView,
    holding: Holding,
    total: int | None,
) -> Fact:
    """The next regular payment before tax and credit; at a scheduled change it is the new plan's."""
    label = reader.say("manager.next")
    scheduled = company.scheduled_change
    if is_ending(company):
        return Fact(label=label, text=reader.say("manager.no_next"))
    at = subscription.period.end
    if scheduled is not None and scheduled.plan is not None and scheduled.effective_at <= at:
        rhythm = rhythm_scheduled(scheduled) or rhythm_paid(subscription)
        # A change of quantity keeps the versions held; another plan or interval takes the newest.
        is_kept = scheduled.plan == holding.plan and rhythm == rhythm_paid(subscription)
        versions = {one.key: one.version for one in company.add_ons} if is_kept else {}
        target = Holding(
            plan=scheduled.plan,
            version=holding.version if is_kept else None,
            quantity=scheduled.quantity,
            units=scheduled.units,
            own_price=holding.own_price if is_kept else None,
        )
        add_ons = {key: (versions.get(key) or _newest(catalog, key), n) for key, n in scheduled.add_ons.items()}
        total = _total(catalog, subscription.currency, target, add_ons, rhythm)
    if total is None:
        return Fact(label=label, text=reader.day(at))
    amount = reader.money(total, subscription.currency)
    text = reader.say("manager.next_text", amount=amount, date=reader.day(at))
    return Fact(label=label, text=text, hint=reader.say("manager.next_hint"))


def _total(
    catalog: Catalog,
    currency: str,
    holding: Holding,
    add_ons: Mapping[str, tuple[int, int]],
    rhythm: Rhythm,
) -> int | None:
    """Minor units from one payment to the next, without what is used; None when the catalogue does not know a price.

    Of the plan (at the company's own price, where it has one), of add-ons, and of units paid in advance.
    """
    plan = version_held(catalog, holding)
    if plan is None:
        return None
    lots = [(key, number, count) for key, (number, count) in add_ons.items()]
    own = holding.own_price
    total = 0 if own is None else amount_of(own, holding.quantity)
    if own is None and plan.prices:
        lots.insert(0, (plan.key, plan.version, holding.quantity))
    for key, number, count in lots:
        price = held_price(catalog, key, number, currency=currency, rhythm=rhythm)
        if price is None:
            return None
        total += amount_of(price, count)
    for version in (plan, *(catalog.add_ons[key] for key in add_ons if key in catalog.add_ons)):
        for name, granted in sold_in_advance(version).items():
            units = holding.units.get(name, 0)
            price = price_at(granted, currency=currency, rhythm=rhythm)
            total += amount_of(price, units) if units and price is not None else 0
    return total


def _is_usage_paid(catalog: Catalog, company: Company) -> bool:
    """Whether usage is billed on top, by the plan or an add-on."""
    keys = [company.plan.key if company.plan else "", *(one.key for one in company.add_ons)]
    versions = [catalog.plans.get(key) or catalog.add_ons.get(key) for key in keys]
    return any(
        price.is_metered for one in versions if one is not None for each in one.entitlements for price in each.prices
    )


def _newest(catalog: Catalog, key: str) -> int:
    add_on = catalog.add_ons.get(key)
    return add_on.version if add_on else 0


# --- the ways to change it ---------------------------------------------------------------------------------


def _actions(reader: Reader, company: Company, pending: PlanChange | None) -> tuple[Action, ...]:
    if pending is not None and pending.state in _UNFINISHED:
        return ()
    has_paid_plan = company.subscription is not None
    is_overdue = has_paid_plan and not may_change(company)
    label = reader.say("manager.change" if has_paid_plan else "manager.choose")
    # What waits for payment has the one primary button, in its banner.
    style: Literal["", "primary"] = "" if pending is not None and pending.next_action is not None else "primary"
    change = Action(label=label, get="plan-manager?view=choices", style=style, element_id="change-plan")
    actions = [] if is_overdue else [change]
    if has_paid_plan and not is_ending(company):
        actions.append(
            Action(
                label=reader.say("manager.cancel"),
                post="preview",
                fields={"cancel": "period_end"},
                style="plain",
                element_id="cancel-plan",
            )
        )
    return tuple(actions)


def _units(reader: Reader, catalog: Catalog, company: Company, holding: Holding) -> tuple[AddOnLine, ...]:
    """What of the plan is paid in advance, unit by unit, with a stepper for each."""
    subscription, plan = company.subscription, version_held(catalog, holding)
    if subscription is None or plan is None or not may_change(company):
        return ()
    lines = []
    for key, granted in sold_in_advance(plan).items():
        feature = catalog.features.get(granted.feature)
        price = price_at(granted, currency=subscription.currency, rhythm=rhythm_paid(subscription))
        if feature is None or price is None:
            continue
        count = holding.units.get(key, 0)
        label = reader.say("manager.update" if count else "manager.add")
        action = Action(
            label=label,
            post="preview",
            fields={"unit": key},
            spoken=f"{label}: {feature.name}",
            element_id=f"unit-{key}",
        )
        included = granted.limit if isinstance(granted.limit, int) else 0
        lines.append(
            AddOnLine(
                key=key,
                name=feature.name,
                description="",
                price=rate_text(reader, feature, price, is_recurring=True),
                quantity=count or max(included, 1),
                held=reader.say("manager.held", count=reader.number(count)) if count else "",
                quantity_label=reader.say("manager.quantity", name=feature.name),
                update=action,
                remove=None,
                add=None,
            )
        )
    return tuple(lines)


def _add_ons(reader: Reader, catalog: Catalog, company: Company, holding: Holding) -> tuple[AddOnLine, ...]:
    """The add-ons that fit the plan, held ones first. Without a subscription there is nothing to add them to.

    All that is held is shown; the buttons change what the subscription pays for, which is in `holding`.
    """
    subscription = company.subscription
    if subscription is None or company.plan is None or not may_change(company):
        return ()
    held = {add_on.key: add_on.quantity for add_on in company.add_ons}
    offered = sorted(
        (add_on for add_on in catalog.add_ons.values() if add_on.key in held or _fits(add_on, company.plan.key)),
        key=lambda add_on: (add_on.key not in held, add_on.position, add_on.key),
    )
    lines = []
    for add_on in offered:
        price = _add_on_price(add_on, subscription)
        if price is None and add_on.key not in held:
            continue
        total, quantity = held.get(add_on.key, 0), holding.add_ons.get(add_on.key, 0)
        each = ""
        if price is not None:
            amount = reader.short_money(amount_of(price, 1), price.currency)
            words = rhythm_of_price(price).say(reader, "each")
            each = f"{amount} {words}"
            if _is_countable(catalog, add_on):
                each = reader.say("manager.add_on_price", price=amount, each=words)
        lines.append(
            AddOnLine(
                key=add_on.key,
                name=add_on.name,
                description=add_on.description,
                price=each,
                quantity=quantity,
                held=reader.say("manager.held", count=reader.number(total)) if total else "",
                quantity_label=reader.say("manager.quantity", name=add_on.name),
                update=_add_on_action(reader, add_on, "update")
                if quantity and _is_countable(catalog, add_on)
                else None,
                remove=_add_on_action(reader, add_on, "remove", quantity=0) if quantity else None,
                add=None if quantity else _add_on_action(reader, add_on, "add", quantity=1),
            )
        )
    return tuple(lines)


def _add_on_price(add_on: PlanVersion, subscription: SubscriptionView) -> Price | None:
    """What an add-on is sold for beside the plan: paid as often, or each interval of those the plan is paid by."""
    rhythm = rhythm_paid(subscription)
    likely = (price_of(add_on, currency=subscription.currency, rhythm=one) for one in (rhythm, Rhythm(rhythm.interval)))
    return next((price for price in likely if price is not None), None)


def _add_on_action(reader: Reader, add_on: PlanVersion, verb: str, *, quantity: int | None = None) -> Action:
    fields = {"add_on": add_on.key}
    if quantity is not None:
        fields["quantity"] = str(quantity)
    label = reader.say(f"manager.{verb}")
    return Action(
        label=label,
        post="preview",
        fields=fields,
        style="plain" if verb == "remove" else "",
        spoken=f"{label}: {add_on.name}",
        element_id=f"{verb}-{add_on.key}",
    )


def _fits(add_on: PlanVersion, plan: str) -> bool:
    return not add_on.is_archived and (not add_on.fits or plan in add_on.fits)


def _is_countable(catalog: Catalog, add_on: PlanVersion) -> bool:
    """Whether having two of it means more: some allowance adds up, or it is a seat."""
    for entitlement in add_on.entitlements:
        feature = catalog.features.get(entitlement.feature)
        is_seat = feature is not None and feature.type is FeatureType.SEAT
        if isinstance(entitlement.limit, int) and (entitlement.stacking is Stacking.SUM or is_seat):
            return True
    return False
