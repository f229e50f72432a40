"""Usage meters: decisions put into a bar and one sentence that says what happens now and what to do."""

from collections.abc import Sequence
from datetime import datetime

from plangate.engine.model import Catalog, Decision, Feature, FeatureType, Reason, SourceKind, Unlock
from plangate.web.fragments import Action, Frame, Meter, Notice, Tone, UsageView
from plangate.web.views.offers import is_overage_paid
from plangate.web.wording import Reader

_MEASURED = frozenset({FeatureType.EVENT, FeatureType.TRAIT, FeatureType.SEAT})
_WARN_PERCENT = 80


def usage_view(
    frame: Frame,
    catalog: Catalog,
    decisions: Sequence[Decision],
    *,
    features: Sequence[str] = (),
    can_change: bool = False,
    notice: Notice | None = None,
) -> UsageView:
    """One meter for each measured feature, in catalogue order, or in the order the page named them.

    Without names, features the plan does not have are left out. `decisions` carry a trace, for the way out.
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
        meters.append(_meter(frame.reader, catalog, feature, decision, is_absent=is_absent, can_change=can_change))
    return UsageView(frame=frame, notice=notice, meters=tuple(meters))


def _meter(
    reader: Reader, catalog: Catalog, feature: Feature, decision: Decision, *, is_absent: bool, can_change: bool
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
        is_paid = _is_overage_paid(catalog, decision)
        tone, sentence = _state(reader, feature, decision, used, limit, unlock, is_paid=is_paid)
    resets_at = decision.period.resets_at if decision.period else None
    # A sentence about an exhausted limit already says when it resets.
    if resets_at is not None and not is_absent and not (tone == "bad" and decision.reason is Reason.LIMIT_REACHED):
        hints.append(_reset_text(reader, resets_at, "usage.resets"))
    action = None
    if can_change and unlock is not None and unlock.kind == "plan" and unlock.key and (tone or is_absent):
        action = Action(
            label=reader.say("usage.see", plan=unlock.name or unlock.key),
            post="preview",
            fields={"plan": unlock.key, "interval": unlock.interval or ""},
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


def _way_to_more(decision: Decision) -> Unlock | None:
    """The cheapest thing to buy that would turn the "no" into a "yes"; waiting is told anyway."""
    options = decision.trace.options if decision.trace else ()
    return next((option for option in options if option.kind in {"plan", "add_on"}), None)


def _is_overage_paid(catalog: Catalog, decision: Decision) -> bool:
    """Whether what goes beyond the soft limit costs something, by the plan or add-on that grants it."""
    source = decision.source
    version = None
    if source is not None and source.kind in {SourceKind.PLAN, SourceKind.ADD_ON}:
        version = catalog.plans.get(source.key or "") or catalog.add_ons.get(source.key or "")
    granted = version.entitlements if version else ()
    return any(one.feature == decision.feature and is_overage_paid(one) for one in granted)


def _state(
    reader: Reader,
    feature: Feature,
    decision: Decision,
    used: int,
    limit: int,
    unlock: Unlock | None,
    *,
    is_paid: bool,
) -> tuple[Tone, str]:
    """The tone of a meter and its one sentence: nothing, nearly used up, used up, or beyond."""
    if decision.soft_limit is not None:
        included = reader.count(limit, feature)
        if used > limit:
            over = reader.number(used - limit, divisor=feature.display_divisor)
            key = "usage.soft_paid" if is_paid else "usage.soft"
            return "warn", reader.say(key, over=over, included=included)
        key = "usage.soft_paid_below" if is_paid else "usage.soft_below"
        return "", reader.say(key, included=included)
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
