"""A quote as a small receipt, and a refusal as a way out: the two answers to "what would this change do?"."""

from collections.abc import Mapping

import msgspec

from plangate.engine.catalog import Catalog, Feature
from plangate.engine.values import FeatureType, Json, PriceBehaviour
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeKind, Company, EntitlementEffect, Quote, UsagePrice, Violation
from plangate.web.fragments import Action, Frame, Notice, ReceiptLine, ReceiptView, RefusalView, web_address
from plangate.web.views.offers import effect_text, name_of
from plangate.web.views.plan_manager import Abilities, is_ending
from plangate.web.views.rates import rate_text
from plangate.web.views.rhythms import rhythm_of, rhythm_paid
from plangate.web.wording import Reader


def receipt_view(
    frame: Frame,
    catalog: Catalog,
    company: Company,
    quote: Quote,
    *,
    wish: Mapping[str, str],
    key: str,
    is_fresh_price: bool = False,
) -> ReceiptView:
    """The receipt of one quote. `wish` are the form fields it was asked with, sent back for a fresh quote if need be.

    `key` is the idempotency key of this rendering; `is_fresh_price` says that an earlier quote no longer held.
    """
    reader = frame.reader
    held = company.plan.key if company.plan else None
    target = wish.get("plan") or held
    plan, current = name_of(catalog, target), name_of(catalog, held)
    currency = quote.due_today.currency
    column, included = _column(reader, quote)
    due = reader.money(quote.due_today.amount_minor, currency)
    return ReceiptView(
        frame=frame,
        notice=Notice(text=reader.say("receipt.stale"), tone="warn") if is_fresh_price else None,
        title=_title(reader, catalog, company, quote, wish=wish, plan=plan, is_same_plan=target == held),
        lead=_lead(reader, quote, company, plan=plan, current=current),
        lines=tuple(ReceiptLine(text=text, amount=reader.money(amount, currency)) for text, amount in column),
        due=ReceiptLine(text=reader.say("receipt.due"), amount=due),
        tax_note=reader.say("receipt.tax_included", amount=reader.money(included, currency)) if included > 0 else "",
        following=_following(reader, quote),
        usage=tuple(_usage(reader, catalog, one, plan=target) for one in quote.plus_usage),
        gained=tuple(_effect(reader, catalog, effect) for effect in quote.gained),
        lost=(
            *(_effect(reader, catalog, effect) for effect in quote.lost),
            *(reader.say("receipt.add_on_ends", name=name_of(catalog, ended)) for ended in quote.ends),
        ),
        warnings=tuple(_violation(reader, catalog, one, "receipt.over") for one in quote.violations),
        hint=_hint(reader, quote, due),
        confirm=Action(
            label=_confirm_label(reader, quote, due),
            post="confirm",
            fields={**wish, "quote": quote.quote},
            key=key,
            style="primary",
        ),
        is_ending=quote.kind is ChangeKind.CANCEL,
        cancel_label=reader.say("receipt.keep", plan=current)
        if quote.kind is ChangeKind.CANCEL or (quote.kind is ChangeKind.DOWNGRADE and target != held)
        else reader.say("not_now"),
    )


def refusal_view(
    frame: Frame,
    catalog: Catalog,
    company: Company | None,
    refusal: Refusal,
    *,
    abilities: Abilities,
    plan: str | None = None,
) -> RefusalView:
    """A refused change as a dialog: the reason in its own words, and the button that leads out of it.

    `plan` is the plan that was asked for. A refusal over a limit lists every feature, what is used and the limit.
    """
    reader = frame.reader
    violations = _violations_of(refusal)
    is_over = refusal.code is Code.OVER_LIMIT and bool(violations)
    is_same = refusal.code is Code.NO_CHANGE
    hint = "" if is_same else reader.say("refusal.over_hint" if is_over else "refusal.unchanged")
    return RefusalView(
        frame=frame,
        title=reader.say("refusal.same_title" if is_same else "refusal.title"),
        text=reader.say("refusal.over", plan=name_of(catalog, plan))
        if is_over and plan
        else _reason(reader, company, refusal),
        reasons=tuple(_violation(reader, catalog, one, "refusal.violation") for one in violations),
        hint=hint,
        action=_way_out(reader, catalog, company, refusal, abilities),
        close_label=reader.say("refusal.close"),
        is_outdated=is_same,
    )


def _reason(reader: Reader, company: Company | None, refusal: Refusal) -> str:
    """The refusal in the words of whoever asked; its own detail where those would say no more."""
    scheduled = company.scheduled_change if company is not None and is_ending(company) else None
    if refusal.code is Code.DOWNGRADE_SCHEDULED and scheduled is not None:
        return reader.say("refusal.ending", date=reader.day(scheduled.effective_at))
    return refusal.detail


def _column(reader: Reader, quote: Quote) -> tuple[list[tuple[str, int]], int]:
    """The lines that come to what is due, in minor units, and the tax that is in them already.

    What is given back beyond what is charged is not paid out: kept as credit, it brings the column up to nothing due.
    """
    column = [(line.description, line.amount_minor) for line in quote.lines]
    credit = 0 if quote.credit is None else quote.credit.amount_minor
    tax = 0 if quote.tax is None else quote.tax.amount_minor
    on_top = quote.due_today.amount_minor - credit - sum(amount for _, amount in column) if tax else 0
    if on_top:
        column.append((reader.say("receipt.tax"), on_top))
    if credit:
        column.append((reader.say("receipt.credit"), credit))
    return column, tax - on_top


def _way_out(
    reader: Reader, catalog: Catalog, company: Company | None, refusal: Refusal, abilities: Abilities
) -> Action | None:
    if refusal.code is Code.DOWNGRADE_SCHEDULED and abilities.can_change:
        current = name_of(catalog, company.plan.key if company and company.plan else None)
        label = reader.say("manager.keep_named", plan=current)
        return Action(label=label, post="cancel-scheduled", style="primary")
    if refusal.code is Code.PAST_DUE and abilities.can_pay:
        return Action(label=reader.say("manager.update_card"), post="portal", style="primary")
    if url := web_address(_next_url(refusal.extra.get("next_action"))):
        return Action(label=reader.say("refusal.pay"), url=url, style="primary")
    if url := web_address(str(refusal.extra.get("url") or "")):
        label = str(refusal.extra.get("label") or reader.say("refusal.contact"))
        return Action(label=label, url=url, style="primary")
    if refusal.code is Code.PAYMENT_FAILED and abilities.can_pay:
        return Action(label=reader.say("manager.update_card"), post="portal", style="primary")
    return None


def _violations_of(refusal: Refusal) -> tuple[Violation, ...]:
    try:
        return msgspec.convert(refusal.extra.get("violations", ()), tuple[Violation, ...])
    except msgspec.ValidationError:
        return ()


def _violation(reader: Reader, catalog: Catalog, violation: Violation, key: str) -> str:
    """One feature in the way: its name, what is used, what the limit would be."""
    feature = catalog.features.get(violation.feature)
    divisor = feature.display_divisor if feature else 1
    return reader.say(
        key,
        name=violation.name or (feature.name if feature else violation.feature),
        used=reader.number(violation.used, divisor=divisor),
        limit=reader.number(violation.limit, divisor=divisor),
    )


def _next_url(next_action: object) -> str:
    if isinstance(next_action, Mapping):
        return str(next_action.get("url") or "")
    return str(getattr(next_action, "url", "") or "")


def _title(
    reader: Reader,
    catalog: Catalog,
    company: Company,
    quote: Quote,
    *,
    wish: Mapping[str, str],
    plan: str,
    is_same_plan: bool,
) -> str:
    if quote.kind is ChangeKind.CANCEL:
        return reader.say("receipt.cancel")
    if not is_same_plan or quote.kind is ChangeKind.RESUME:
        return reader.say(f"receipt.{quote.kind}", plan=plan)
    if add_on := wish.get("add_on"):
        count = wish.get("quantity", "")
        held = next((one.quantity for one in company.add_ons if one.key == add_on), 0)
        key = "receipt.remove" if count == "0" else "receipt.quantity" if held else "receipt.add"
        shown = reader.number(int(count)) if count.isdecimal() else count
        return reader.say(key, name=name_of(catalog, add_on), count=shown)
    if unit := catalog.features.get(wish.get("unit", "")):
        return reader.say("receipt.quantity", name=unit.name, count=reader.number(int(wish.get("quantity") or 0)))
    rhythm = rhythm_of(wish.get("interval", ""))
    if rhythm and company.subscription is not None and rhythm != rhythm_paid(company.subscription):
        return rhythm.say(reader, "receipt.interval", plan=plan)
    return reader.say("receipt.same", plan=plan)


def _lead(reader: Reader, quote: Quote, company: Company, *, plan: str, current: str) -> str:
    if quote.kind is ChangeKind.CANCEL:
        key = "receipt.ends" if quote.is_scheduled else "receipt.ends_now"
        text = reader.say(key, date=reader.day(quote.when))
    elif quote.is_scheduled:
        text = reader.say("receipt.later", date=reader.day(quote.when))
    else:
        text = reader.say("receipt.now_keep" if company.plan else "receipt.now")
    if plan and current and plan != current:
        names = {"from": current, "to": plan}
        return f"{reader.say('receipt.from_to', **names)}. {text}"
    return text


def _following(reader: Reader, quote: Quote) -> str:
    if quote.next_invoice is None:
        return reader.say("receipt.no_next_usage" if quote.plus_usage else "receipt.no_next")
    amount = reader.money(quote.next_invoice.amount_minor, quote.next_invoice.currency)
    key = "receipt.next_usage" if quote.plus_usage else "receipt.next"
    return reader.say(key, amount=amount, date=reader.day(quote.next_invoice.at))


def _usage(reader: Reader, catalog: Catalog, used: UsagePrice, *, plan: str | None) -> str:
    """What one feature costs as it is used: from the first unit on, or beyond what the plan includes."""
    feature = catalog.features.get(used.feature)
    if feature is None:
        feature = Feature(key=used.feature, name=used.name, type=FeatureType.EVENT)
    version = catalog.plans.get(plan or "")
    granted = version.entitlements if version is not None else ()
    is_beyond = any(one.feature == used.feature and one.price_behaviour is PriceBehaviour.OVERAGE for one in granted)
    rate = rate_text(reader, feature, used.price)
    return reader.say("receipt.usage_beyond" if is_beyond else "feature.rate", name=used.name, rate=rate)


def _confirm_label(reader: Reader, quote: Quote, due: str) -> str:
    if quote.is_scheduled:
        key = "receipt.cancel_on" if quote.kind is ChangeKind.CANCEL else "receipt.switch_on"
        return reader.say(key, date=reader.day(quote.when))
    if quote.kind is ChangeKind.CANCEL:
        return reader.say("receipt.cancel_now")
    if quote.needs_checkout:
        return reader.say("receipt.checkout" if quote.due_today.amount_minor else "receipt.checkout_free")
    return (
        reader.say("receipt.pay", amount=due)
        if quote.due_today.amount_minor > 0
        else reader.say("receipt.confirm_free")
    )


def _hint(reader: Reader, quote: Quote, due: str) -> str:
    if quote.kind is ChangeKind.CANCEL:
        return ""
    key = "receipt.terms" if quote.is_scheduled else "receipt.valid"
    valid = reader.say(key, time=reader.time(quote.expires_at))
    if quote.needs_checkout:
        free = "" if quote.due_today.amount_minor else "free_"
        return f"{reader.say(f'receipt.checkout_{free}hint', amount=due)} {valid}"
    return valid


def _effect(reader: Reader, catalog: Catalog, effect: EntitlementEffect) -> str:
    feature = catalog.features.get(effect.feature)
    name = effect.name or (feature.name if feature else effect.feature)
    if _is_switch(effect.before) and _is_switch(effect.after):
        return reader.say("receipt.lost_all", name=name)
    after = effect_text(reader, feature, effect.after)
    if effect.before is None or effect.before is False:
        return reader.say("receipt.change", name=name, after=after)
    return reader.say(
        "receipt.change_from", name=name, after=after, before=effect_text(reader, feature, effect.before, is_bare=True)
    )


def _is_switch(value: Json) -> bool:
    return value is None or isinstance(value, bool)
