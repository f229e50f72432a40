"""Usage meters: decisions put into a bar and one sentence that says what happens now and what to do."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from msgspec import structs

from plangate.engine.catalog import Catalog, Entitlement, Feature, Price
from plangate.engine.decision import Decision, Reason, SourceKind, Unlock
from plangate.engine.values import FeatureType, PriceBehaviour
from plangate.shapes import Company
from plangate.web.fragments import Action, Frame, Meter, Notice, Tone, UsageView
from plangate.web.views.offers import is_overage_paid
from plangate.web.views.rates import cost_so_far, price_at, rate_text
from plangate.web.views.rhythms import Rhythm, rhythm_paid
from plangate.web.wording import Reader

_MEASURED = frozenset({FeatureType.EVENT, FeatureType.TRAIT, FeatureType.SEAT})
_WARN_PERCENT = 80


def usage_view(
    frame: Frame,
    catalog: Catalog,
    decisions: Sequence[Decision],
    *,
    company: Company | None = None,
    features: Sequence[str] = (),
    can_change: bool = False,
    notice: Notice | None = None,
) -> UsageView:
    """One meter for each measured feature, in catalogue order, or in the order the page named them.

    Without names, features the plan does not have are left out. `decisions` carry a trace, for the way out. What usage
    costs is said in the currency that the `company` pays in.
    """
    by_feature = {decision.feature: decision for decision in decisions}
    wanted = list(dict.fromkeys(features)) or list(catalog.features)
    meters = []
    for key in wanted:
        feature, decision = catalog.features.get(key), by_feature.get(key)
        if feature is None or decision is None or feature.is_archived or feature.type not in _MEASURED:
            continue
        is_endless = decision.unlimited or decision.soft_limit is not None
        is_absent = not is_endless and not decision.limit and not decision.used
        if is_absent and not features:
            continue
        meter = _meter(
            frame.reader,
            feature,
            decision,
            _paid_for(catalog, company, feature, decision),
            is_absent=is_absent,
            can_change=can_change,
        )
        meters.append(meter)
    return UsageView(frame=frame, notice=notice, meters=tuple(meters))


def paid_sentence(
    reader: Reader, catalog: Catalog, company: Company, feature: Feature, decision: Decision
) -> str | None:
    """What usage of a feature costs and has cost so far, for whoever looks at the company; None when nothing does."""
    paid = _paid_for(catalog, company, feature, decision)
    if paid is None or paid.price is None or not decision.allowed:
        return None
    used = max(decision.used or 0, 0)
    if decision.soft_limit is not None:
        return _overage(reader, feature, decision, used, decision.soft_limit, paid)[1]
    return _usage_cost(reader, feature, paid.granted, paid.price, used) or None


class _Paid(NamedTuple):
    """What goes on costing something: the entitlement, and its price where the reader's currency has one."""

    granted: Entitlement
    price: Price | None


def _meter(
    reader: Reader, feature: Feature, decision: Decision, paid: _Paid | None, *, is_absent: bool, can_change: bool
) -> Meter:
    used = max(decision.used or 0, 0)
    counted = reader.count(used, feature)
    unlock = _way_to_more(decision)
    hints = [reader.say("usage.stale")] if decision.stale else []
    if decision.source is not None and decision.source.kind is SourceKind.OVERRIDE:
        hints.append(reader.say("usage.override"))
    if is_absent:
        text, spoken, limit = reader.say("usage.none"), "", 0
    elif decision.unlimited and decision.soft_limit is None:
        text, spoken, limit = reader.say("usage.unlimited", used=counted), "", 0
    else:
        limit = decision.soft_limit if decision.soft_limit is not None else (decision.limit or 0)
        words = {
            "used": reader.number(used, divisor=feature.display_divisor),
            "limit": reader.count(limit, feature),
        }
        text, spoken = reader.say("usage.of", **words), reader.say("usage.spoken", **words)
    tone: Tone = ""
    sentence = ""
    if spoken:
        tone, sentence = _state(reader, feature, decision, used, limit, unlock, paid)
    if not sentence and paid is not None and paid.price is not None and not is_absent:
        sentence = _usage_cost(reader, feature, paid.granted, paid.price, used)
    resets_at = decision.period.resets_at if decision.period else None
    # A sentence about an exhausted limit already says when it resets.
    if resets_at is not None and not is_absent and not (tone == "bad" and decision.reason is Reason.LIMIT_REACHED):
        hints.append(_reset_text(reader, resets_at, "usage.resets"))
    action = None
    if can_change and unlock is not None and unlock.kind == "plan" and unlock.key and (tone or is_absent):
        action = Action(
            label=reader.say("usage.see", plan=unlock.name or unlock.key),
            post="preview",
            fields={"plan": unlock.key, "interval": _rhythm_key(unlock)},
            element_id=f"unlock-{feature.key}",
        )
    return Meter(
        id=feature.key,
        name=feature.name,
        text=text,
        spoken=spoken,
        value=min(used, limit),
        maximum=limit,
        tone=tone,
        sentence=sentence,
        hint=" · ".join(hints),
        action=action,
    )


def _rhythm_key(unlock: Unlock) -> str:
    return "" if unlock.interval is None else Rhythm(unlock.interval, unlock.interval_count).key


def _way_to_more(decision: Decision) -> Unlock | None:
    """The cheapest thing to buy that would turn the "no" into a "yes"; waiting is told anyway."""
    options = decision.trace.options if decision.trace else ()
    return next((option for option in options if option.kind in {"plan", "add_on"}), None)


def _paid_for(catalog: Catalog, company: Company | None, feature: Feature, decision: Decision) -> _Paid | None:
    """What usage of the feature costs, by the plan or an add-on that is held; None when nothing does."""
    source = decision.source
    held = [(source.kind.value, source.key or "", source.version)] if source is not None else []
    if company is not None:
        held += [("plan", company.plan.key, company.plan.version)] if company.plan is not None else []
        held += [("add_on", one.key, one.version) for one in company.add_ons]
    for kind, key, number in held:
        if kind not in {"plan", "add_on"}:
            continue
        sold: Literal["plan", "add_on"] = "plan" if kind == "plan" else "add_on"
        version = catalog.version_of(sold, key, number or 0) or catalog.newest(sold, key)
        for granted in () if version is None else version.entitlements:
            if granted.feature == feature.key and is_overage_paid(granted):
                paying = None if company is None else company.subscription
                if paying is None:
                    return _Paid(granted, None)
                price = price_at(granted, currency=paying.currency, rhythm=rhythm_paid(paying))
                return _Paid(granted, price)
    return None


def _usage_cost(reader: Reader, feature: Feature, granted: Entitlement, price: Price, used: int) -> str:
    """What is paid for each use, and what it has come to."""
    if granted.price_behaviour is PriceBehaviour.OVERAGE:
        return ""
    rate = rate_text(reader, feature, price)
    cost = cost_so_far(granted, price, used)
    if cost is None or not used:
        return reader.say("usage.rate", rate=rate)
    return reader.say("usage.cost", cost=reader.money(cost, price.currency), rate=rate)


def _overage(
    reader: Reader, feature: Feature, decision: Decision, used: int, limit: int, paid: _Paid | None
) -> tuple[Tone, str]:
    """What is said of usage under a soft limit and beyond it: nothing stops, and what the rest costs."""
    words = {"included": reader.count(limit, feature)}
    price = None if paid is None else paid.price
    if used > limit:
        words["over"] = reader.number(used - limit, divisor=feature.display_divisor)
    if paid is None or price is None:
        suffix = "" if used > limit else "_below"
        return ("warn" if used > limit else ""), reader.say(
            f"usage.soft{'' if paid is None else '_paid'}{suffix}", **words
        )
    words["rate"] = rate_text(reader, feature, price)
    if used <= limit:
        return "", reader.say("usage.soft_rate_below", **words)
    # What raises the allowance, such as an override, moves where overage begins.
    granted = structs.replace(paid.granted, soft_limit=decision.soft_limit)
    cost = cost_so_far(granted, price, used)
    if cost is None:
        return "warn", reader.say("usage.soft_rate", **words)
    return "warn", reader.say("usage.soft_cost", cost=reader.money(cost, price.currency), **words)


def _state(
    reader: Reader,
    feature: Feature,
    decision: Decision,
    used: int,
    limit: int,
    unlock: Unlock | None,
    paid: _Paid | None,
) -> tuple[Tone, str]:
    """The tone of a meter and its one sentence: nothing, nearly used up, used up, or beyond."""
    if decision.soft_limit is not None:
        return _overage(reader, feature, decision, used, limit, paid)
    if used > limit:
        words = {"used": reader.number(used, divisor=feature.display_divisor), "limit": reader.count(limit, feature)}
        return "bad", f"{reader.say('usage.over', **words)} {_way_out(reader, feature, decision, unlock)}".strip()
    if used >= limit:
        sentence = reader.say("usage.reached", count=limit, limit=reader.count(limit, feature))
        return "bad", f"{sentence} {_way_out(reader, feature, decision, unlock)}".strip()
    if used * 100 >= limit * _WARN_PERCENT:
        return "warn", reader.say("usage.warning", remaining=reader.count(limit - used, feature))
    return "", ""


def _way_out(reader: Reader, feature: Feature, decision: Decision, unlock: Unlock | None) -> str:
    """What to do about it: wait for the reset, or move to the plan that is the cheapest way to more."""
    resets_at = decision.period.resets_at if decision.period else None
    wait = _reset_text(reader, resets_at, "usage.reached_reset") if resets_at else ""
    move, alone = "", ""
    if unlock is not None:
        more = reader.say("feature.unlimited", units=feature.units).lower()
        if isinstance(unlock.limit, int):
            more = reader.count(unlock.limit, feature)
            if decision.period is not None and feature.type is FeatureType.EVENT:
                more = reader.say("feature.limit", quantity=more, period=reader.say(f"period.{decision.period.kind}"))
        words = {"plan": unlock.name or unlock.key or "", "limit": more}
        move = reader.say(f"usage.reached_{unlock.kind}", **words)
        alone = reader.say(f"usage.reached_{unlock.kind}_only", **words)
    if wait and move:
        return reader.say("usage.reached_or", first=wait, second=move)
    return reader.say("usage.reached_alone", first=wait) if wait else alone


def _reset_text(reader: Reader, at: datetime, key: str) -> str:
    if reader.is_today(at):
        return reader.say(f"{key}_at" if key == "usage.reached_reset" else "usage.resets_at", time=reader.time(at))
    return reader.say(key, date=reader.day(at))
