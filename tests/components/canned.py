"""A small catalogue and companies in every state, for rendering fragments without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from plangate.engine.catalog import Catalog, Entitlement, Feature, PlanVersion, Price, PriceTier
from plangate.engine.decision import Decision, Period, Reason, Source, SourceKind, Trace, Unlock
from plangate.engine.facts import PlanSource
from plangate.engine.values import UNLIMITED, FeatureType, Interval, Limit, PeriodKind, PriceBehaviour, Stacking
from plangate.errors import Code, Refusal
from plangate.shapes import (
    Actor,
    ChangeKind,
    ChangeState,
    ChangeTarget,
    Company,
    EntitlementEffect,
    HeldAddOn,
    HeldPlan,
    Money,
    NextAction,
    NextInvoice,
    PlanChange,
    Quote,
    QuoteLine,
    ScheduledChange,
    SubscriptionPeriod,
    SubscriptionView,
    Violation,
)
from plangate.web.fragments import Frame
from plangate.web.wording import reader_of

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RESET = datetime(2026, 12, 3, tzinfo=UTC)

INVOICES = tuple(
    {
        "created": int((NOW - timedelta(days=30 * number)).timestamp()),
        "status": status,
        "total": 104900,
        "currency": "usd",
        "hosted_invoice_url": f"https://pay.test/{number}",
    }
    for number, status in enumerate(("open", "paid", "uncollectible"))
)
"""Stripe's invoices of Acme: one in each state, with an amount that takes room."""


def frame(*, locale: str = "en", now: datetime = NOW) -> Frame:
    """A reader in Berlin."""
    return Frame(reader=reader_of(locale=locale, time_zone="Europe/Berlin", now=now))


def feature(
    key: str, name: str, kind: FeatureType, *, unit: str = "unit", units: str = "units", description: str = ""
) -> Feature:
    """One feature of the canned catalogue."""
    return Feature(key=key, name=name, type=kind, unit=unit, units=units, description=description)


def prices(monthly: int) -> tuple[Price, ...]:
    """Monthly and yearly in two currencies; a year costs ten months."""
    return tuple(
        Price(currency=currency, interval=interval, amount_minor=monthly * factor)
        for currency in ("usd", "eur")
        for interval, factor in ((Interval.MONTH, 1), (Interval.YEAR, 10))
    )


def exports(limit: Limit) -> Entitlement:
    """So many exports in a billing month."""
    return Entitlement(feature="exports", limit=limit, period=PeriodKind.BILLING_MONTH)


def catalog() -> Catalog:
    """Free, Starter, Pro, Enterprise; two add-ons; features of every type."""
    features = [
        feature("exports", "Exports", FeatureType.EVENT, unit="export", units="exports"),
        feature("seats", "Seats", FeatureType.SEAT, unit="seat", units="seats"),
        feature("notebooks", "Notebooks", FeatureType.TRAIT, unit="notebook", units="notebooks"),
        feature("api", "API access", FeatureType.BOOLEAN),
        feature("sso", "Single sign-on", FeatureType.BOOLEAN, description="SAML and OpenID Connect."),
        feature("audit-log", "Audit log", FeatureType.BOOLEAN),
        feature("upload", "Largest upload (MB)", FeatureType.CONFIG),
        feature("ai-words", "AI words", FeatureType.EVENT, unit="word", units="words"),
    ]
    plans = [
        PlanVersion(
            key="free",
            version=1,
            kind="plan",
            name="Free",
            description="For trying things out.",
            position=0,
            entitlements=(
                exports(10),
                Entitlement(feature="seats", limit=2),
                Entitlement(feature="notebooks", limit=3),
                Entitlement(feature="upload", config=5),
            ),
        ),
        PlanVersion(
            key="starter",
            version=2,
            kind="plan",
            name="Starter",
            description="For one busy person.",
            position=1,
            prices=prices(1900),
            trial_days=14,
            entitlements=(
                exports(100),
                Entitlement(feature="seats", limit=3),
                Entitlement(feature="notebooks", limit=50),
                Entitlement(feature="api", enabled=True),
                Entitlement(feature="upload", config=50),
            ),
        ),
        PlanVersion(
            key="pro",
            version=3,
            kind="plan",
            name="Pro",
            description="For a team that ships.",
            position=2,
            prices=prices(4900),
            is_recommended=True,
            entitlements=(
                exports(1000),
                Entitlement(feature="seats", limit=10),
                Entitlement(feature="notebooks", limit=UNLIMITED),
                Entitlement(feature="api", enabled=True),
                Entitlement(feature="sso", enabled=True),
                Entitlement(feature="upload", config=512),
                Entitlement(
                    feature="ai-words",
                    soft_limit=50_000,
                    period=PeriodKind.BILLING_MONTH,
                    price_behaviour=PriceBehaviour.OVERAGE,
                ),
            ),
        ),
        PlanVersion(
            key="enterprise",
            version=1,
            kind="plan",
            name="Enterprise",
            description="For everybody you work with.",
            position=3,
            is_contact_us=True,
            contact_url="mailto:sales@northwind.test",
            entitlements=(
                exports(UNLIMITED),
                Entitlement(feature="seats", limit_trait="contract_seats"),
                Entitlement(feature="notebooks", limit=UNLIMITED),
                Entitlement(feature="api", enabled=True),
                Entitlement(feature="sso", enabled=True),
                Entitlement(feature="audit-log", enabled=True),
                Entitlement(feature="upload", config=2048),
            ),
        ),
    ]
    add_ons = [
        PlanVersion(
            key="extra-exports",
            version=1,
            kind="add_on",
            name="Extra exports",
            description="500 more exports a month",
            prices=prices(1000),
            entitlements=(
                Entitlement(feature="exports", limit=500, period=PeriodKind.BILLING_MONTH, stacking=Stacking.SUM),
            ),
        ),
        PlanVersion(
            key="audit",
            version=1,
            kind="add_on",
            name="Audit log",
            description="Who did what, kept for a year",
            prices=prices(1500),
            fits=("pro",),
            entitlements=(Entitlement(feature="audit-log", enabled=True),),
        ),
    ]
    return Catalog(
        revision=1,
        features={one.key: one for one in features},
        plans={one.key: one for one in plans},
        add_ons={one.key: one for one in add_ons},
        initial_plan="free",
        fallback_plan="free",
    )


def _rates(**terms: Any) -> tuple[Price, ...]:  # noqa: ANN401 - fields of Price
    """A price for each interval and currency on the same terms."""
    return tuple(
        Price(currency=currency, interval=interval, **{"amount_minor": 0, **terms})
        for currency in ("usd", "eur")
        for interval in (Interval.MONTH, Interval.YEAR)
    )


def priced_catalog() -> Catalog:
    """Free, Pay as you go, and Grow, whose features are paid for in every way there is."""
    plain = catalog()
    payg = PlanVersion(
        key="payg",
        version=1,
        kind="plan",
        name="Pay as you go",
        description="For quiet months.",
        position=1,
        entitlements=(
            Entitlement(
                feature="exports",
                limit=UNLIMITED,
                period=PeriodKind.BILLING_MONTH,
                price_behaviour=PriceBehaviour.PAY_AS_YOU_GO,
                prices=_rates(amount_minor=500, package_size=1000, is_metered=True),
            ),
        ),
    )
    grow = PlanVersion(
        key="grow",
        version=1,
        kind="plan",
        name="Grow",
        description="For a team that grows.",
        position=2,
        prices=prices(4900),
        is_recommended=True,
        entitlements=(
            Entitlement(
                feature="ai-words",
                limit=UNLIMITED,
                soft_limit=10_000,
                period=PeriodKind.BILLING_MONTH,
                price_behaviour=PriceBehaviour.OVERAGE,
                prices=_rates(amount_decimal="0.2", is_metered=True),
            ),
            Entitlement(
                feature="exports",
                limit=UNLIMITED,
                period=PeriodKind.BILLING_MONTH,
                price_behaviour=PriceBehaviour.TIERS,
                prices=_rates(
                    tiers_mode="graduated",
                    tiers=(
                        PriceTier(up_to=1000, amount="0"),
                        PriceTier(up_to=5000, amount="1"),
                        PriceTier(up_to=None, amount="0.5", flat_amount_minor=1000),
                    ),
                    is_metered=True,
                ),
            ),
            Entitlement(
                feature="seats",
                limit=3,
                price_behaviour=PriceBehaviour.PAY_IN_ADVANCE,
                prices=(*_each(Interval.MONTH, 900), *_each(Interval.YEAR, 9000)),
            ),
            Entitlement(feature="sso", enabled=True),
        ),
    )
    plans = {"free": plain.plans["free"], "payg": payg, "grow": grow}
    return msgspec.structs.replace(plain, plans=plans, add_ons={})


def _each(interval: Interval, amount_minor: int) -> tuple[Price, ...]:
    return tuple(Price(currency=currency, interval=interval, amount_minor=amount_minor) for currency in ("usd", "eur"))


def paying(plan: str, *, interval: str = "month") -> Company:
    """Acme with a subscription to a plan of the priced catalogue."""
    held = company("pro", interval=interval)
    return msgspec.structs.replace(held, plan=HeldPlan(key=plan, version=1, source=PlanSource.SUBSCRIPTION))


def rhythmic_catalog() -> Catalog:
    """Starter also by the week and by the quarter, and Pro by the quarter alone."""
    plain = catalog()
    quarter = Price(currency="usd", interval=Interval.MONTH, interval_count=3, amount_minor=12_950)
    week = Price(currency="usd", interval=Interval.WEEK, amount_minor=500)
    sold = {"starter": (*prices(1900), quarter, week), "pro": (msgspec.structs.replace(quarter, amount_minor=13_500),)}
    changed = {key: msgspec.structs.replace(plain.plans[key], prices=each) for key, each in sold.items()}
    return msgspec.structs.replace(plain, plans={**plain.plans, **changed})


def crowded_catalog() -> Catalog:
    """Ten plans, each with six features more than the one before; one word is longer than any card."""
    features = [
        feature(f"f{index}", f"Feature number {index}", FeatureType.BOOLEAN, description="What it is good for.")
        for index in range(59)
    ]
    features.append(feature("f59", "Donaudampfschifffahrtsgesellschaftskapitän" * 2, FeatureType.BOOLEAN))
    plans = [
        PlanVersion(
            key=f"p{number}",
            version=1,
            kind="plan",
            name=f"Plan {number}",
            position=number,
            prices=prices(1000 * number + 1000),
            entitlements=tuple(
                Entitlement(feature=f"f{index}", enabled=True)
                for index in range(6 * (number + 1) if number < 9 else 60)
            ),
        )
        for number in range(10)
    ]
    return Catalog(
        revision=1, features={one.key: one for one in features}, plans={one.key: one for one in (*plans, *_free())}
    )


def _free() -> tuple[PlanVersion, ...]:
    """The free plan of the crowd, archived: held by nobody new."""
    return (PlanVersion(key="free", version=1, kind="plan", name="Free", is_archived=True),)


def change(state: ChangeState, *, kind: ChangeKind = ChangeKind.UPGRADE, url: str = "https://pay.test/1") -> PlanChange:
    """A move from Free to Pro in some state; waiting ones say where a person must act."""
    action = None
    if state is ChangeState.AWAITING_PAYMENT:
        action = NextAction(kind="checkout", url=url)
    elif state is ChangeState.REQUIRES_ACTION:
        action = NextAction(kind="authenticate", url=url)
    return PlanChange(
        id="chg_1",
        state=state,
        kind=kind,
        from_=ChangeTarget(plan="free"),
        to=ChangeTarget(plan="pro"),
        effective_at=NOW,
        next_action=action,
        requested_by=Actor(kind="customer", id="comp_acme"),
        created_at=NOW,
    )


def company(
    plan: str = "free",
    *,
    status: str = "active",
    scheduled: str | None = None,
    cancel_at: datetime | None = None,
    add_ons: tuple[HeldAddOn, ...] = (),
    interval: str = "month",
    interval_count: int = 1,
) -> Company:
    """Acme on some plan; the paid ones have a subscription."""
    version = catalog().plans[plan].version
    subscription = None
    if plan in {"starter", "pro"}:
        subscription = SubscriptionView(
            status=status,
            interval=interval,
            interval_count=interval_count,
            currency="usd",
            period=SubscriptionPeriod(start=RESET - timedelta(days=30), end=RESET),
            cancel_at=cancel_at,
        )
    change = None
    if scheduled is not None:
        change = ScheduledChange(id="chg_1", kind="downgrade", plan=scheduled, effective_at=RESET, interval=interval)
    return Company(
        id="comp_acme",
        keys={"id": "acme"},
        name="Acme",
        plan=HeldPlan(key=plan, version=version, source=PlanSource.SUBSCRIPTION),
        add_ons=add_ons,
        subscription=subscription,
        scheduled_change=change,
        created_at=NOW,
        updated_at=NOW,
    )


def decision(
    key: str,
    used: int,
    limit: int | None,
    *,
    unlimited: bool = False,
    soft_limit: int | None = None,
    unlock: Unlock | None = None,
    kind: PeriodKind | None = PeriodKind.BILLING_MONTH,
    resets_at: datetime = RESET,
    source: SourceKind = SourceKind.PLAN,
) -> Decision:
    """The answer a meter is drawn from."""
    is_allowed = unlimited or soft_limit is not None or (limit is not None and used < limit)
    return Decision(
        feature=key,
        allowed=is_allowed,
        reason=Reason.WITHIN_LIMIT if is_allowed else Reason.LIMIT_REACHED,
        limit=limit,
        unlimited=unlimited,
        used=used,
        remaining=None if limit is None else max(limit - used, 0),
        soft_limit=soft_limit,
        period=Period(kind=kind, start=resets_at - timedelta(days=30), resets_at=resets_at) if kind else None,
        source=Source(kind=source, key="pro", version=3),
        trace=Trace(steps=(), unlock=unlock, options=(unlock,) if unlock else ()),
    )


def unlock_pro() -> Unlock:
    """The cheapest way out: Pro, a thousand exports."""
    return Unlock(
        kind="plan", key="pro", name="Pro", amount_minor=4900, currency="usd", interval=Interval.MONTH, limit=1000
    )


def decisions(plan: str, used: int) -> list[Decision]:
    """All meters of a company on a plan that made `used` exports."""
    limits = {"free": 10, "starter": 100, "pro": 1000}
    limit = limits[plan]
    answers = [
        decision("exports", used, limit, unlock=unlock_pro() if used >= limit else None),
        decision("seats", 8, 10, kind=None),
        decision("notebooks", 41, None, unlimited=True, kind=None),
    ]
    if plan == "pro":
        answers.append(decision("ai-words", 61_500, None, soft_limit=50_000, unlimited=True))
    return answers


def quote(kind: ChangeKind = ChangeKind.UPGRADE, *, text: str = "signed", needs_checkout: bool = False) -> Quote:
    """A quote of one kind, as the receipt shows it."""
    is_scheduled = kind in {ChangeKind.DOWNGRADE, ChangeKind.CANCEL}
    gained = (
        EntitlementEffect(feature="exports", name="Exports", before=10, after=1000),
        EntitlementEffect(feature="sso", name="Single sign-on", before=False, after=True),
    )
    lost = (
        EntitlementEffect(feature="exports", name="Exports", before=1000, after=100),
        EntitlementEffect(feature="sso", name="Single sign-on", before=True, after=False),
        EntitlementEffect(feature="notebooks", name="Notebooks", before="unlimited", after=50),
    )
    amount = 0 if is_scheduled else 4900
    lines = () if is_scheduled else (QuoteLine(description="Pro, monthly", amount_minor=4900),)
    return Quote(
        quote=text,
        kind=kind,
        when=RESET if is_scheduled else NOW,
        due_today=Money(amount_minor=amount, currency="usd"),
        lines=lines,
        tax=Money(amount_minor=0, currency="usd"),
        next_invoice=None
        if kind is ChangeKind.CANCEL
        else NextInvoice(amount_minor=1900 if is_scheduled else 4900, currency="usd", at=RESET),
        gained=() if is_scheduled else gained,
        lost=lost if is_scheduled else (),
        ends=("audit",) if kind is ChangeKind.DOWNGRADE else (),
        expires_at=NOW + timedelta(minutes=15),
        is_scheduled=is_scheduled,
        needs_checkout=needs_checkout,
    )


def violating_quote() -> Quote:
    """A downgrade that usage forbids."""
    return Quote(
        quote="signed",
        kind=ChangeKind.DOWNGRADE,
        when=RESET,
        due_today=Money(amount_minor=0, currency="usd"),
        violations=(Violation(feature="seats", name="Seats", used=8, limit=3),),
        expires_at=NOW,
        is_scheduled=True,
    )


def over_limit(detail: str) -> Refusal:
    """A downgrade refused because eight seats are used where three would be allowed."""
    over = [{"feature": "seats", "used": 8, "limit": 3, "name": "Seats"}]
    return Refusal(Code.OVER_LIMIT, detail, extra={"violations": over})
