"""What a change does to the company: entitlements gained and lost, and limits that usage is over."""

from datetime import datetime

import msgspec

from plangate.engine.decide import decide
from plangate.engine.decision import Reason
from plangate.engine.facts import Counters, UserFacts
from plangate.engine.grants import Amount
from plangate.engine.plan_change import Violation
from plangate.engine.snapshot import Answer, CompanySnapshot
from plangate.engine.usage import used_at
from plangate.engine.values import FeatureType, Json
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
    ends before then do not. A feature that `before` grants and `after` does not has a limit of nothing. Where each user
    has an allowance, the user who is furthest over theirs is shown.
    """
    found: list[Violation] = []
    for key, compiled in after.features.items():
        feature = compiled.feature
        if feature.is_archived or feature.type in {FeatureType.BOOLEAN, FeatureType.CONFIG}:
            continue
        decision = decide(after, key, counters, at=effective_at, quantity=0)
        if decision.reason is Reason.UNKNOWN_USER:
            used, limit = _furthest_over(after, key, counters, effective_at)
        elif decision.reason is Reason.LIMIT_REACHED:
            used, limit = decision.used or 0, decision.limit or 0
        elif not decision.allowed and before is not None and _is_granted(before, key):
            used, limit = used_at(after, key, counters, effective_at) or 0, 0
        else:
            continue
        if used > limit:
            found.append(Violation(feature=key, name=feature.name, used=used, limit=limit))
    return found


def _furthest_over(after: CompanySnapshot, key: str, counters: Counters, at: datetime) -> tuple[int, int]:
    """Usage and limit of the user who is furthest over their own allowance; nothing of nothing when nobody is."""
    found = (0, 0)
    for user_id in sorted({user for feature, _, user in counters if feature == key and user}):
        decision = decide(after, key, counters, at=at, quantity=0, user=UserFacts(user_id=user_id))
        if decision.reason is Reason.LIMIT_REACHED:
            used, limit = decision.used or 0, decision.limit or 0
            if used - limit > found[0] - found[1]:
                found = used, limit
    return found


def _is_granted(snapshot: CompanySnapshot, key: str) -> bool:
    compiled = snapshot.features.get(key)
    if compiled is None:
        return False
    answer = compiled.answer
    return bool(answer.allowances) or bool(answer.personal) or answer.template.allowed


def _is_less(effect: Effect, old: Answer, new: Answer) -> bool:
    if effect.after is None or effect.after is False:
        return True
    if effect.before is None or effect.before is False:
        return False
    if effect.before != effect.after and "unlimited" in {effect.before, effect.after}:
        return bool(effect.before == "unlimited")
    before, after = best_amount(old), best_amount(new)
    own_before, own_after = best_amount(old, is_personal=True), best_amount(new, is_personal=True)
    if before is not None and after is not None and before != after:
        return _generosity(after) < _generosity(before)
    if own_before is not None and own_after is not None:
        return _generosity(own_after) < _generosity(own_before)
    if own_before is not None or own_after is not None:
        # An allowance for all together or one for each user is gone or new; the other stays as it is.
        return own_after is None if before is not None and after is not None else before is not None
    if isinstance(effect.before, int | float) and isinstance(effect.after, int | float):
        return bool(effect.after < effect.before)
    return False


def _generosity(amount: Amount) -> tuple[bool, int, bool, int]:
    """Sorts amounts by what is included, then by what may be used at all."""
    return amount.included is None, amount.included or 0, amount.hard is None, amount.hard or 0
