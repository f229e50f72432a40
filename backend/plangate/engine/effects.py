"""What a change does to the company: entitlements gained and lost, and limits that usage is over."""

from datetime import datetime

import msgspec

from plangate.engine.decide import decide, used_at
from plangate.engine.model import Counters, FeatureType, Json, Reason
from plangate.engine.plan_change import Violation
from plangate.engine.snapshot import Answer, CompanySnapshot
from plangate.engine.wording import best_amount, granted_text, granted_value


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """How one feature changes. Values are a boolean, a number, `"unlimited"`, a config value or None for nothing."""

    feature: str
    name: str
    before: Json
    after: Json
    before_text: str
    after_text: str


def effects(before: CompanySnapshot, after: CompanySnapshot) -> tuple[list[Effect], list[Effect]]:
    """What is gained and what is lost, in the catalogue's order; features that stay the same are left out."""
    gained: list[Effect] = []
    lost: list[Effect] = []
    for key, compiled in after.features.items():
        earlier = before.features.get(key)
        if earlier is None or compiled.feature.is_archived:
            continue
        old, new = earlier.answer, compiled.answer
        effect = Effect(
            feature=key,
            name=compiled.feature.name,
            before=granted_value(old),
            after=granted_value(new),
            before_text=granted_text(compiled.feature, old),
            after_text=granted_text(compiled.feature, new),
        )
        if effect.before == effect.after and effect.before_text == effect.after_text:
            continue
        (lost if _is_less(effect, old, new) else gained).append(effect)
    return gained, lost


def violations(
    after: CompanySnapshot,
    counters: Counters,
    *,
    effective_at: datetime,
    before: CompanySnapshot | None = None,
) -> list[Violation]:
    """The limits that usage would be over when a change takes effect; exactly at the limit is no violation.

    `after` is the snapshot at `effective_at`, so overrides and add-ons that are kept count, and counters whose window
    ends before then do not. A feature that `before` grants and `after` does not has a limit of nothing.
    """
    found: list[Violation] = []
    for key, compiled in after.features.items():
        feature = compiled.feature
        if feature.is_archived or feature.type in {FeatureType.BOOLEAN, FeatureType.CONFIG}:
            continue
        decision = decide(after, key, counters, at=effective_at, quantity=0)
        if decision.reason is Reason.LIMIT_REACHED:
            used, limit = decision.used or 0, decision.limit or 0
        elif not decision.allowed and before is not None and _is_granted(before, key):
            used, limit = used_at(after, key, counters, effective_at) or 0, 0
        else:
            continue
        if used > limit:
            found.append(Violation(feature=key, name=feature.name, used=used, limit=limit))
    return found


def _is_granted(snapshot: CompanySnapshot, key: str) -> bool:
    compiled = snapshot.features.get(key)
    return compiled is not None and (bool(compiled.answer.allowances) or compiled.answer.template.allowed)


def _is_less(effect: Effect, old: Answer, new: Answer) -> bool:
    if effect.after is None or effect.after is False:
        return True
    if effect.before is None or effect.before is False:
        return False
    if effect.before == "unlimited" or effect.after == "unlimited":
        return bool(effect.before == "unlimited")
    before, after = best_amount(old), best_amount(new)
    if before is not None and after is not None:
        return after.rank < before.rank
    if isinstance(effect.before, int | float) and isinstance(effect.after, int | float):
        return bool(effect.after < effect.before)
    return False
