"""What a change does to the company: entitlements gained and lost, and limits that usage is over."""

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction

import msgspec

from plangate.engine.decide import decide
from plangate.engine.decision import Reason
from plangate.engine.facts import Counters, UserFacts
from plangate.engine.grants import PERIOD_ORDER, Amount
from plangate.engine.plan_change import Violation
from plangate.engine.snapshot import Allowance, Answer, CompanySnapshot
from plangate.engine.usage import used_at
from plangate.engine.values import FeatureType, Json, PeriodKind
from plangate.engine.wording import granted_text, granted_value

_DAYS = {
    PeriodKind.DAY: Fraction(1),
    PeriodKind.WEEK: Fraction(7),
    PeriodKind.MONTH: Fraction(365, 12),
    PeriodKind.BILLING_MONTH: Fraction(365, 12),
}


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
    together, each = _growth(old.allowances, new.allowances), _growth(old.personal, new.personal)
    if together:
        return together < 0
    if each is not None:
        return each < 0
    if old.personal or new.personal:
        # An allowance for all together or one for each user is gone or new; the other stays as it is.
        return not new.personal if together is not None else bool(old.allowances)
    if together is not None:
        return False
    if isinstance(effect.before, int | float) and isinstance(effect.after, int | float):
        return bool(effect.after < effect.before)
    return False


def _growth(old: Sequence[Allowance], new: Sequence[Allowance]) -> int | None:
    """Whether the most generous of some allowances is more (1), less (-1) or as much (0); None when one is missing.

    Where both return after so many days, it is what they come to each day that counts: 100 a day are more than 1,000 a
    month. As much for longer is less.
    """
    if not old or not new:
        return None
    before, after = max(old, key=_rank), max(new, key=_rank)
    if before.kind is not after.kind:
        paces = _each_day(before), _each_day(after)
        if paces[0] is not None and paces[1] is not None:
            return (paces[1] > paces[0]) - (paces[1] < paces[0])
    was, becomes = _generosity(before), _generosity(after)
    if was != becomes or before.kind is None or after.kind is None:
        return (becomes > was) - (becomes < was)
    sooner = PERIOD_ORDER.index(before.kind) - PERIOD_ORDER.index(after.kind)
    if sooner:
        return 1 if sooner > 0 else -1
    return _others(old, new)


def _others(old: Sequence[Allowance], new: Sequence[Allowance]) -> int:
    """As `_growth`, over every window: of those that change, one that is less or gone counts for more than all else."""
    before, after = ({one.kind: _generosity(one) for one in some} for some in (old, new))
    if any(kind not in after or after[kind] < before[kind] for kind in before):
        return -1
    return 1 if before != after else 0


def _rank(allowance: Allowance) -> tuple[bool, int, bool, int]:
    return Amount(allowance.limit, allowance.soft_limit).rank


def _each_day(allowance: Allowance) -> Fraction | None:
    """What is included, spread over its days; None when it is without end, or its days depend on what is paid."""
    number = Amount(allowance.limit, allowance.soft_limit).included
    days = _DAYS.get(allowance.kind) if allowance.kind is not None else None
    return None if number is None or days is None else number / days


def _generosity(allowance: Allowance) -> tuple[bool, int, bool, int]:
    """Sorts allowances by what is included, then by what may be used at all."""
    amount = Amount(allowance.limit, allowance.soft_limit)
    return amount.included is None, amount.included or 0, amount.hard is None, amount.hard or 0
