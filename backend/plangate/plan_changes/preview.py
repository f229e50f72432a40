"""Works out a change without making it: when it happens, what it costs, what is gained and lost; and signs that."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NoReturn

import msgspec

from plangate.billing.mirror import state_hash
from plangate.billing.transport import StripeJson
from plangate.change_terms import LIVE_STATUSES, Action, Terms
from plangate.clock import wall_now
from plangate.engine.catalog import Catalog
from plangate.engine.effects import Effect, effects, violations
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import SubscriptionFact
from plangate.engine.holding import Holding, holding_of
from plangate.engine.plan_change import (
    ChangeKind as EngineKind,
)
from plangate.engine.plan_change import (
    Immediate,
    Refused,
    Scheduled,
    fitted,
    judge,
    timing,
)
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.what_if import as_scheduled, with_holding
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.ids import new_id
from plangate.mirroring import buying_customers_of
from plangate.plan_changes.amounts import Amounts, amounts_of
from plangate.plan_changes.custom import refuse_start, with_agreed
from plangate.plan_changes.lines import target_lines
from plangate.plan_changes.promotions import promotion_of
from plangate.plan_changes.quotes import Promise, signed
from plangate.plan_changes.request import PLAN_QUANTITY, ChangeRequest, checked, target_holding
from plangate.plan_changes.terms import Drafted, draft, refuse_foreign
from plangate.plan_changes.trials import moved_trial, trial_days
from plangate.shapes import Actor, ChangeKind, ChangeState, EntitlementEffect, Quote, UsagePrice, Violation
from plangate.standing import Standing
from plangate.store.plan_changes import changes_in

_GRACE_DAYS_UNENDING = 36_500
_SCHEDULING = frozenset({Action.SCHEDULE, Action.START_LATER, Action.CANCEL_AT_PERIOD_END})


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A change worked out in full: the quote for people, what it promises, and the terms that would carry it out."""

    quote: Quote
    promise: Promise
    drafted: Drafted
    held: Holding
    target: Holding
    effective_at: datetime
    stripe_customer_id: str | None
    subscription: SubscriptionFact | None


async def propose(
    env: Environment,
    company_id: str,
    request: ChangeRequest,
    *,
    actor: Actor,
    proration_at: int | None = None,
) -> Proposal:
    """Work out a change from what is mirrored; asks Stripe only for amounts and the card on file.

    `proration_at` is given when a confirmed quote is worked out once more. Raises Refusal for everything that the
    change may not be, with the way out.
    """
    checked(request)
    is_self_service = actor.kind == "customer"
    if request.force is not None and is_self_service:
        raise Refusal(Code.FORBIDDEN, "Only staff may force a change.")
    if request.custom_price is not None and is_self_service:
        raise Refusal(Code.FORBIDDEN, "Only staff may give a company a price of its own.")
    standing = await _standing(env, company_id)
    at = env.clock.now()
    before = standing.snapshot_at(at)
    snapshot = before if request.cancel is None else _given_grace(standing, before, at)
    catalog = standing.catalog
    current = holding_of(snapshot)
    async with env.reading() as session:
        stripe_customer_ids = await buying_customers_of(session, company_id)
    subscription = snapshot.subscription
    if subscription is not None:
        stripe_customer_id: str | None = subscription.stripe_customer_id
    else:
        stripe_customer_id = stripe_customer_ids[0] if stripe_customer_ids else None
    wanted_currency = request.custom_price.currency if request.custom_price is not None else request.currency
    if subscription is not None and wanted_currency not in {None, subscription.currency} and request.cancel is None:
        # Said before anything else is judged: a change of nothing but the currency is not "no change".
        raise Refusal(
            Code.CURRENCY_PINNED,
            f"The subscription is billed in {subscription.currency.upper()}: changes stay in that currency.",
            extra={"way_out": "keep_currency"},
        )
    prorated_at = proration_at if proration_at is not None else int(at.timestamp())
    violated: tuple[Violation, ...] = ()
    ends: tuple[str, ...] = ()
    promotion: StripeJson | None = None
    if request.resume or request.moves_trial:
        kind, effective_at, target = ChangeKind.RESUME, at, current
        drafted = (
            _kept(catalog, subscription, current, company_id)
            if request.resume
            else moved_trial(catalog, subscription, current, request, actor, at, company_id)
        )
        if request.moves_trial:
            kind = ChangeKind.UPGRADE
        after = snapshot
    else:
        target = target_holding(catalog, _built_on(standing, snapshot, current, request, at), request)
        if request.custom_price is not None:
            period_end_at = snapshot.cycle.period_end_at if subscription is not None else None
            refuse_start(request.custom_price, period_end_at=period_end_at, at=at)
        await _refuse_beside_a_later_start(env, company_id, subscription)
        verdict, violated = _judged(standing, snapshot, current, target, request, at, is_self_service=is_self_service)
        kind, effective_at, target, ends = ChangeKind(verdict.kind), verdict.effective_at, verdict.target, verdict.ends
        currency = target.currency or current.currency or "usd"
        if request.promotion_code is not None and verdict.kind is not EngineKind.CANCEL:
            promotion = await promotion_of(
                env.gateway, request.promotion_code, stripe_customer_id=stripe_customer_id, currency=currency, at=at
            )
        has_card = False
        if subscription is None and verdict.kind is not EngineKind.CANCEL and stripe_customer_id is not None:
            has_card = await env.gateway.default_payment_method(stripe_customer_id) is not None
        drafted = draft(
            catalog,
            verdict,
            current,
            subscription,
            company_id=company_id,
            has_card=has_card,
            trial_days=await trial_days(env, company_id, catalog, target) if subscription is None else 0,
            proration_at=datetime.fromtimestamp(prorated_at, UTC),
            promotion_code=None if promotion is None else promotion["id"],
            custom=request.custom_price,
        )
        if subscription is not None:
            _refuse_scheduled_already(subscription, drafted.terms)
        if drafted.terms.action is Action.START_LATER:
            effective_at = datetime.fromtimestamp(drafted.terms.boundary or 0, UTC)
        after = _after(standing, target, effective_at)
    currency = target.currency or current.currency or "usd"
    amounts = await amounts_of(
        env.gateway,
        drafted,
        subscription=subscription,
        stripe_customer_id=stripe_customer_id,
        currency=currency,
        effective_at=effective_at,
        at=at,
    )
    promise = Promise(
        quote_id=new_id("quo"),
        environment_id=env.id,
        company_id=company_id,
        request=request,
        proration_at=prorated_at,
        fingerprint=_fingerprint(standing, drafted.terms),
        kind=kind.value,
        effective_at=int(effective_at.timestamp()) if drafted.terms.boundary is not None else 0,
        due_minor=amounts.due_today.amount_minor,
        credit_minor=amounts.credit.amount_minor if amounts.credit is not None else 0,
        currency=currency,
    )
    quote = _quote(env, promise, amounts, drafted, before, after, kind, effective_at, violated, ends)
    return Proposal(
        quote=quote,
        promise=promise,
        drafted=drafted,
        held=current,
        target=target,
        effective_at=effective_at,
        stripe_customer_id=stripe_customer_id,
        subscription=subscription,
    )


async def _standing(env: Environment, company_id: str) -> Standing:
    standing = await env.standings.of(company_id)
    if standing is None:
        raise Refusal(Code.NOT_FOUND, "There is no such company.")
    return standing


def _given_grace(standing: Standing, snapshot: CompanySnapshot, at: datetime) -> CompanySnapshot:
    """The company as if its grace days went on: what is suspended can be cancelled, also when it grants nothing."""
    if snapshot.subscription is not None:
        return snapshot
    replaced = msgspec.structs.replace
    subscriptions = tuple(
        replaced(one, status="past_due") if one.status in {"unpaid", "paused"} else one
        for one in standing.facts.subscriptions
    )
    facts = replaced(standing.facts, subscriptions=subscriptions, past_due_grace_days=_GRACE_DAYS_UNENDING)
    return build_snapshot(standing.catalog, facts, at)


def _built_on(
    standing: Standing, snapshot: CompanySnapshot, current: Holding, request: ChangeRequest, at: datetime
) -> Holding:
    """What a change is built on: what is held, or what waits for the day on which numbers alone are to become less.

    Giving up seats or an add-on then must not take back the move to another plan that is scheduled for that day.
    """
    subscription, settings = snapshot.subscription, standing.catalog.settings
    if subscription is None or not subscription.is_schedule_ours:
        return current
    ahead = [phase.starts_at for phase in subscription.phases if phase.starts_at > at]
    is_later = request.when == "period_end" or (request.when == "auto" and settings.downgrades == "period_end")
    is_of_numbers = request.plan is None and request.interval is None and request.custom_price is None
    if not (ahead and is_later and is_of_numbers):
        return current
    facts = as_scheduled(standing.facts, standing.catalog, min(ahead))
    waiting = holding_of(build_snapshot(standing.catalog, facts, min(ahead)))
    held = {PLAN_QUANTITY: current.quantity, **current.units, **current.add_ons}
    asked = [*request.quantities.items(), *request.add_ons.items()]
    is_less = all(number <= held.get(PLAN_QUANTITY if key == waiting.plan else key, 0) for key, number in asked)
    return waiting if is_less else current


def _judged(
    standing: Standing,
    snapshot: CompanySnapshot,
    current: Holding,
    target: Holding,
    request: ChangeRequest,
    at: datetime,
    *,
    is_self_service: bool,
) -> tuple[Immediate | Scheduled, tuple[Violation, ...]]:
    """The engine's verdict. Its limits are looked at as of the instant the change would take effect."""
    catalog = standing.catalog
    when: Literal["auto", "now", "period_end"] = (
        "period_end" if _starts_at_period_end(request, snapshot) else request.timing
    )
    later = timing(catalog, snapshot, current, target, at=at, when=when)
    effective_at = later or at
    after = _after(standing, fitted(catalog, target)[0], effective_at)
    over = violations(after, standing.counters, effective_at=effective_at, before=snapshot)
    verdict = judge(
        catalog,
        snapshot,
        current,
        target,
        at=at,
        violations=over,
        when=when,
        is_self_service=is_self_service,
        is_forced=request.force is not None,
    )
    if isinstance(verdict, Refused):
        _refuse(verdict, snapshot)
    shown = tuple(Violation(feature=one.feature, used=one.used, limit=one.limit, name=one.name) for one in over)
    return verdict, shown if verdict.kind is EngineKind.DOWNGRADE or verdict.violations else ()


def _refuse_scheduled_already(subscription: SubscriptionFact, terms: Terms) -> None:
    """Raise Refusal when the change waits for that very day already: a second one would be scheduled beside it."""
    if terms.action is not Action.SCHEDULE or terms.promotion_code is not None or terms.own is not None:
        return
    wanted = Counter((line.stripe_price_id, line.quantity) for line in terms.lines)
    for phase in subscription.phases if subscription.is_schedule_ours else ():
        if int(phase.starts_at.timestamp()) == terms.boundary and Counter(phase.prices) == wanted:
            raise Refusal(
                Code.NO_CHANGE,
                f"That is scheduled already, for {phase.starts_at.date().isoformat()}: nothing would change.",
            )


def _starts_at_period_end(request: ChangeRequest, snapshot: CompanySnapshot) -> bool:
    """Whether what was agreed on begins where the paid period of a running subscription ends."""
    custom = request.custom_price
    return custom is not None and custom.starts_at is not None and snapshot.subscription is not None


async def _refuse_beside_a_later_start(
    env: Environment, company_id: str, subscription: SubscriptionFact | None
) -> None:
    """Raise Refusal while a subscription waits for its day to start: another one beside it would be paid twice."""
    if subscription is not None:
        return
    async with env.reading() as session:
        scheduled = await changes_in(session, company_id, (ChangeState.SCHEDULED.value,))
    waiting = [row for row in scheduled if row.terms["action"] == Action.START_LATER.value]
    if waiting:
        raise Refusal(
            Code.CHANGE_IN_PROGRESS,
            f"A subscription starts on {waiting[0].effective_at.date().isoformat()}: cancel that first.",
            extra={"way_out": "cancel_scheduled", "change": waiting[0].id},
        )


def _refuse(refused: Refused, snapshot: CompanySnapshot) -> NoReturn:
    extra: dict[str, object] = {"way_out": refused.way_out}
    if refused.url is not None:
        extra["url"] = refused.url
    if refused.label is not None:
        extra["label"] = refused.label
    if refused.violations:
        extra["violations"] = [msgspec.to_builtins(one) for one in refused.violations]
    if refused.may_force:
        extra["may_force"] = True
    if refused.code is Code.DOWNGRADE_SCHEDULED and snapshot.subscription is not None:
        dates = [phase.starts_at for phase in snapshot.subscription.phases]
        pinned = min(dates, default=snapshot.subscription.scheduled_end_at)
        if pinned is not None:
            extra["effective_at"] = pinned.isoformat().replace("+00:00", "Z")
    raise Refusal(refused.code, refused.detail, extra=extra)


def _after(standing: Standing, target: Holding, at: datetime) -> CompanySnapshot:
    """The company as it would be on the target from that instant."""
    catalog = with_agreed(standing.catalog, target, company_id=standing.facts.company_id)
    return build_snapshot(catalog, with_holding(standing.facts, catalog, target, at), at)


def _kept(catalog: Catalog, subscription: SubscriptionFact | None, current: Holding, company_id: str) -> Drafted:
    """The terms of taking back whatever is scheduled."""
    if subscription is None or (not subscription.phases and subscription.scheduled_end_at is None):
        raise Refusal(Code.NOTHING_SCHEDULED, "No change is scheduled, so there is nothing to take back.")
    refuse_foreign(subscription)
    terms = Terms(action=Action.KEEP, stripe_schedule_id=subscription.stripe_schedule_id)
    return Drafted(terms=terms, lines=target_lines(catalog, current, subscription, company_id=company_id))


def _fingerprint(standing: Standing, terms: Terms) -> str:
    """Stands for everything the quote was worked out from, but for the moment: change any of it and it differs."""
    live = [fact for fact in standing.facts.subscriptions if fact.status in LIVE_STATUSES]
    told = [state_hash(live), standing.catalog.revision, msgspec.to_builtins(terms)]
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:32]


def _quote(
    env: Environment,
    promise: Promise,
    amounts: Amounts,
    drafted: Drafted,
    before: CompanySnapshot,
    after: CompanySnapshot,
    kind: ChangeKind,
    effective_at: datetime,
    violated: Sequence[Violation],
    ends: Sequence[str],
) -> Quote:
    text, expires_at = signed(promise, secrets=env.secret_keys, wall_now=wall_now())
    gained, lost = effects(before, after)
    return Quote(
        quote=text,
        kind=kind,
        when=effective_at,
        due_today=amounts.due_today,
        lines=amounts.lines,
        credit=amounts.credit,
        tax=amounts.tax,
        next_invoice=amounts.next_invoice,
        plus_usage=_plus_usage(after, drafted),
        gained=tuple(_effect(one) for one in gained),
        lost=tuple(_effect(one) for one in lost),
        violations=tuple(violated),
        ends=tuple(ends),
        expires_at=expires_at,
        is_scheduled=drafted.terms.action in _SCHEDULING,
        needs_checkout=drafted.terms.action is Action.CHECKOUT,
    )


def _plus_usage(after: CompanySnapshot, drafted: Drafted) -> tuple[UsagePrice, ...]:
    """What is billed as it is used, beside what the quote says; the price as the catalogue says it."""
    return tuple(
        UsagePrice(
            feature=line.feature,
            name=after.features[line.feature].feature.name if line.feature in after.features else line.feature,
            price=msgspec.structs.replace(line.price, stripe_price_id=None, meter=None),
        )
        for line in drafted.lines
        if line.quantity is None and line.feature is not None and line.price is not None
    )


def _effect(one: Effect) -> EntitlementEffect:
    return EntitlementEffect(feature=one.feature, name=one.name, before=one.before, after=one.after)
