"""The pricing table: which plans are on sale to this reader, at what price, and what one button each says."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from msgspec import structs

from plangate.catalog import on_offer
from plangate.engine.catalog import Catalog, Entitlement, Feature, PlanVersion, Price
from plangate.engine.pricing import amount_of, monthly_amount
from plangate.engine.values import FeatureType, Stacking
from plangate.shapes import Company
from plangate.web.fragments import (
    Action,
    Banner,
    Card,
    FeatureLine,
    Frame,
    IntervalChoice,
    Notice,
    Offer,
    PlanButton,
    PricingView,
    web_address,
)
from plangate.web.views.offers import feature_line, is_granting, is_more, may_change, price_of
from plangate.web.views.rates import rate_text
from plangate.web.views.rhythms import (
    MONTHLY,
    YEARLY,
    Rhythm,
    rhythm_of,
    rhythm_of_price,
    rhythm_paid,
    rhythm_scheduled,
    rhythms_of,
)
from plangate.web.wording import Reader


@dataclass(frozen=True, slots=True)
class PricingWish:
    """What the page asked for: `interval` as the key of a rhythm, such as `month` or `3-month`.

    Unknown rhythms, plans and currencies are ignored; `sign_up_url` is for visitors only.
    """

    interval: str = ""
    currency: str = ""
    plans: Sequence[str] = ()
    sign_up_url: str = ""


@dataclass(frozen=True, slots=True)
class _Table:
    """What all cards of one table share."""

    reader: Reader
    catalog: Catalog
    company: Company | None
    can_change: bool
    currency: str
    rhythms: tuple[Rhythm, ...]
    held: str | None = None
    held_rhythm: Rhythm | None = None
    held_amount: Fraction = Fraction(0)
    scheduled: str | None = None
    scheduled_rhythm: Rhythm | None = None
    scheduled_at: datetime | None = None
    tried: frozenset[str] = frozenset()


def pricing_view(
    frame: Frame,
    catalog: Catalog,
    company: Company | None,
    *,
    wish: PricingWish,
    can_change: bool,
    tried: frozenset[str] = frozenset(),
    notice: Notice | None = None,
    banners: Sequence[Banner] = (),
    back: Action | None = None,
) -> PricingView:
    """The table for a visitor (`company` None) or for a company, whose own plan and currency then decide.

    `tried` are the plans whose trial the company had: it is offered once.
    """
    plans = _on_sale(catalog, wish.plans, held=None if company is None or company.plan is None else company.plan.key)
    currencies = _currencies(plans, company)
    currency = (
        wish.currency.lower() if wish.currency.lower() in currencies else (currencies[0] if currencies else "usd")
    )
    prices = [price for plan in plans for price in plan.prices if price.currency == currency]
    rhythms = rhythms_of(prices)
    table = _table(
        frame.reader, catalog, company, can_change=can_change, tried=tried, currency=currency, rhythms=rhythms
    )
    likely = (rhythm_of(wish.interval) or table.held_rhythm, MONTHLY, *rhythms)
    chosen = next((rhythm for rhythm in likely if rhythm in rhythms), None)
    cards = [_card(table, plan, plans[index - 1] if index else None) for index, plan in enumerate(plans)]
    return PricingView(
        frame=frame,
        notice=notice,
        banners=tuple(banners),
        title=frame.reader.say("manager.choices_title" if back else "pricing.label"),
        is_title_shown=back is not None,
        back=back,
        intervals=tuple(_choice(table, plans, rhythm, is_chosen=rhythm == chosen) for rhythm in rhythms),
        interval=chosen.key if chosen else "",
        currencies=currencies,
        currency=currency,
        cards=tuple(cards),
        sign_up_url=None if company is not None else web_address(wish.sign_up_url),
    )


def _on_sale(catalog: Catalog, wanted: Sequence[str], *, held: str | None) -> list[PlanVersion]:
    """What can be bought, with the prices it can be bought at; the plan that is `held` is shown whole."""
    offered = (
        plan if plan.key == held else on_offer(catalog, plan) for plan in catalog.plans.values() if not plan.is_archived
    )
    plans = sorted((plan for plan in offered if plan is not None), key=lambda plan: (plan.position, plan.key))
    if wanted:
        by_key = {plan.key: plan for plan in plans}
        plans = [by_key[key] for key in dict.fromkeys(wanted) if key in by_key]
    return plans


def _currencies(plans: Sequence[PlanVersion], company: Company | None) -> tuple[str, ...]:
    if company is not None and company.subscription is not None:
        return (company.subscription.currency,)
    return tuple(dict.fromkeys(price.currency for plan in plans for price in plan.prices))


def _table(
    reader: Reader,
    catalog: Catalog,
    company: Company | None,
    *,
    can_change: bool,
    tried: frozenset[str],
    currency: str,
    rhythms: tuple[Rhythm, ...],
) -> _Table:
    if company is None or company.plan is None:
        return _Table(reader, catalog, company, can_change, currency, rhythms, tried=tried)
    held_rhythm = rhythm_paid(company.subscription) if company.subscription else None
    held = catalog.plans.get(company.plan.key)
    price = price_of(held, currency=currency, rhythm=held_rhythm) if held and held_rhythm else None
    scheduled = company.scheduled_change
    return _Table(
        reader,
        catalog,
        company,
        can_change,
        currency,
        rhythms,
        held=company.plan.key,
        held_rhythm=held_rhythm,
        held_amount=monthly_amount(price) if price else Fraction(0),
        scheduled=scheduled.plan if scheduled else None,
        scheduled_rhythm=rhythm_scheduled(scheduled) if scheduled else None,
        scheduled_at=scheduled.effective_at if scheduled else None,
        tried=tried,
    )


def _choice(table: _Table, plans: Sequence[PlanVersion], rhythm: Rhythm, *, is_chosen: bool) -> IntervalChoice:
    most = max((_yearly_saving(table, plan) for plan in plans), default=0) if rhythm == YEARLY else 0
    saving = ""
    if most > 0:
        saving = table.reader.say("pricing.save_up_to", amount=table.reader.short_money(most, table.currency))
    return IntervalChoice(key=rhythm.key, label=rhythm.say(table.reader, "rhythm"), saving=saving, is_chosen=is_chosen)


def _yearly_saving(table: _Table, plan: PlanVersion) -> int:
    """Minor units saved each year by paying yearly: twelve monthly prices less the yearly one."""
    monthly = price_of(plan, currency=table.currency, rhythm=MONTHLY)
    yearly = price_of(plan, currency=table.currency, rhythm=YEARLY)
    return amount_of(monthly, 1) * 12 - amount_of(yearly, 1) if monthly and yearly else 0


def _card(table: _Table, plan: PlanVersion, previous: PlanVersion | None) -> Card:
    reader = table.reader
    is_current = plan.key == table.held
    if previous is not None and not _keeps_all(table, plan, previous):
        previous = None
    gains, everything = _features(table, plan, previous)
    is_begun = table.company is not None and table.company.subscription is not None
    trial_days = 0 if is_begun or plan.key in table.tried else plan.trial_days
    badge = ""
    if is_current:
        badge = reader.say("pricing.yours")
    elif trial_days and plan.prices:
        badge = reader.say("pricing.trial_badge", days=trial_days)
    is_difference = previous is not None and len(gains) < len(everything)
    if previous is not None and is_difference:
        gains_title = reader.say("pricing.everything_in", plan=previous.name)
    else:
        gains_title = reader.say("pricing.includes")
    is_explained = is_difference or any(line.description for line in everything)
    return Card(
        key=plan.key,
        name=plan.name,
        description=plan.description,
        badge=badge,
        is_recommended=plan.is_recommended,
        is_current=is_current,
        offers=_offers(table, plan, trial_days),
        gains_title=gains_title,
        gains=gains,
        everything_title=(
            reader.say("pricing.all_features", count=len(everything))
            if is_difference
            else reader.say("pricing.explained")
        ),
        everything=everything if is_explained else (),
    )


def _offers(table: _Table, plan: PlanVersion, trial_days: int) -> tuple[Offer, ...]:
    reader = table.reader
    if plan.is_contact_us or not plan.prices:
        kind = "contact" if plan.is_contact_us else "free" if plan.is_free else "usage"
        headline, note = reader.say(f"pricing.{kind}"), reader.say(f"pricing.{kind}_note")
        button = _button(table, plan, None)
        return (Offer(interval="", price=None, headline=headline, per="", note=note, saving="", button=button),)
    offers = []
    for rhythm in table.rhythms:
        price = price_of(plan, currency=table.currency, rhythm=rhythm)
        if price is None:
            word = PlanButton(kind="word", label=reader.say("pricing.not_sold"))
            offers.append(Offer(interval=rhythm.key, price=None, headline="—", per="", note="", saving="", button=word))
            continue
        amount = amount_of(price, 1)
        note = rhythm.say(reader, "pricing.billed")
        if price.tiers or price.package_size > 1:
            note = reader.say("pricing.by_quantity", rate=rate_text(reader, _sold_by(table.catalog, plan), price))
        if trial_days:
            each = f"{reader.short_money(amount, price.currency)} {rhythm.say(reader, 'each')}"
            note = reader.say("pricing.trial", days=trial_days, price=each)
        saved = _yearly_saving(table, plan) if rhythm == YEARLY else 0
        offers.append(
            Offer(
                interval=rhythm.key,
                price=reader.price(amount, price.currency),
                headline="",
                per=rhythm.say(reader, "per"),
                note=note,
                saving=reader.say("pricing.save", amount=reader.short_money(saved, price.currency))
                if saved > 0
                else "",
                button=_button(table, plan, price),
            )
        )
    return tuple(offers)


def _sold_by(catalog: Catalog, plan: PlanVersion) -> Feature:
    """What a plan's quantity counts: the feature whose allowance it multiplies, else the plan itself."""
    for one in plan.entitlements:
        feature = catalog.features.get(one.feature)
        if feature is not None and one.stacking is Stacking.SUM:
            return feature
    return Feature(key=plan.key, name=plan.name, type=FeatureType.SEAT)


def _button(table: _Table, plan: PlanVersion, price: Price | None) -> PlanButton | None:
    """The one button of a card at one price; a word where there is nothing to press, None where nothing is to say."""
    reader = table.reader
    rhythm = rhythm_of_price(price) if price else None
    is_held = plan.key == table.held and rhythm in (None, table.held_rhythm)
    if is_held or (plan.key == table.held and table.company is not None and table.company.subscription is None):
        return PlanButton(kind="word", label=reader.say("pricing.yours"))
    is_scheduled = plan.key == table.scheduled and (rhythm is None or table.scheduled_rhythm in (None, rhythm))
    if is_scheduled and table.scheduled_at is not None:
        return PlanButton(kind="word", label=reader.say("pricing.starts", date=reader.day(table.scheduled_at)))
    if plan.is_contact_us:
        url = web_address(plan.contact_url)
        label = reader.say("pricing.contact_button" if url else "pricing.contact")
        return PlanButton(kind="contact" if url else "word", label=label, url=url)
    if table.company is not None and not table.can_change:
        return None
    if not plan.is_free and not may_change(table.company):
        return PlanButton(kind="word", label=reader.say("pricing.once_paid"))
    return PlanButton(kind="choose", label=_choose_label(table, plan, price), is_primary=plan.is_recommended)


def _choose_label(table: _Table, plan: PlanVersion, price: Price | None) -> str:
    reader = table.reader
    if price is not None and plan.key == table.held:
        return rhythm_of_price(price).say(reader, "pricing.switch")
    if table.held is None:
        return reader.say("pricing.start_free") if plan.is_free else reader.say("pricing.choose", plan=plan.name)
    amount = monthly_amount(price) if price else 0
    is_upgrade = bool(plan.prices) and amount >= table.held_amount
    return reader.say("pricing.upgrade" if is_upgrade else "pricing.move", plan=plan.name)


def _keeps_all(table: _Table, plan: PlanVersion, previous: PlanVersion) -> bool:
    """Whether "everything in" the plan before is true: nothing of it is missing here or less.

    Another config value, or a limit read from a trait, is neither more nor less: it is listed as it is.
    """
    granted = _by_feature(plan)
    for key, before in _by_feature(previous).items():
        feature, now = table.catalog.features.get(key), granted.get(key)
        is_listed = now is not None and (now.config is not None or now.limit_trait is not None)
        if feature is None or feature.is_archived or is_listed:
            continue
        if is_granting(before) if now is None else is_more(before, now):
            return False
    return True


def _features(
    table: _Table, plan: PlanVersion, previous: PlanVersion | None
) -> tuple[tuple[FeatureLine, ...], tuple[FeatureLine, ...]]:
    """What the plan has beyond the one before it (all of it where there is none), and everything, explained."""
    granted = _by_feature(plan)
    before = _by_feature(previous) if previous else {}
    gains: list[FeatureLine] = []
    everything: list[FeatureLine] = []
    for key, feature in table.catalog.features.items():
        entitlement = granted.get(key)
        if feature.is_archived or entitlement is None or not is_granting(entitlement):
            continue
        line = _line(table, plan, feature, entitlement)
        everything.append(line)
        if is_more(entitlement, before.get(key)):
            line = _line(table, plan, feature, entitlement, before.get(key))
            gains.append(structs.replace(line, description=""))
    if not gains:
        gains = [structs.replace(line, description="") for line in everything]
    return tuple(gains), tuple(everything)


def _line(
    table: _Table, plan: PlanVersion, feature: Feature, granted: Entitlement, before: Entitlement | None = None
) -> FeatureLine:
    # A card without prices of its own has no rhythm to choose.
    rhythms = table.rhythms if plan.prices else ()
    return feature_line(table.reader, feature, granted, before=before, currency=table.currency, rhythms=rhythms)


def _by_feature(plan: PlanVersion) -> dict[str, Entitlement]:
    return {entitlement.feature: entitlement for entitlement in plan.entitlements}
