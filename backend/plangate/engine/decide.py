"""Answers one question from a snapshot: a lookup, a few comparisons, one Decision. The hot path of everything.

Counters are only read. A stored window that has ended, or does not exist yet, is rolled forward here: nothing is used
in the new window until the first event of it is counted.
"""

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from plangate.engine.catalog import Catalog
from plangate.engine.decision import Decision, Period, Reason
from plangate.engine.facts import Counters, UserFacts
from plangate.engine.snapshot import Allowance, Answer, CompanySnapshot, CompiledFeature
from plangate.engine.targeting import matches
from plangate.engine.trace import explain, explain_unknown
from plangate.engine.usage import used_at
from plangate.engine.values import PeriodKind


def decide(
    snapshot: CompanySnapshot,
    feature_key: str,
    counters: Counters,
    *,
    at: datetime,
    quantity: int = 1,
    user: UserFacts | None = None,
    with_trace: bool = False,
    catalog: Catalog | None = None,
) -> Decision:
    """May the company (and user) use `quantity` more of a feature at `at`? `at` lies within the snapshot's validity.

    `quantity` is in base units and is never counted. With `with_trace` the Decision also says why, and what would turn
    a "no" into a "yes" among what `catalog` sells (default: the catalogue the snapshot was built from).
    """
    compiled = snapshot.features.get(feature_key)
    if compiled is None:
        decision = unanswerable(Reason.UNKNOWN_FEATURE, feature_key, at=at, company=snapshot.company_id, user=user)
        return replace(decision, trace=explain_unknown()) if with_trace else decision
    if user is not None and compiled.by_user:
        compiled = compiled.by_user.get(user.user_id, compiled)
    answer = compiled.answer
    if compiled.rules:
        answer = _ruled(snapshot, compiled, counters, at, user)
    allowances = answer.allowances
    user_id = None
    if user is not None:
        user_id = user.user_id
        if answer.personal:
            allowances = (*allowances, *(_own(one, user_id) for one in answer.personal))
    if not allowances:
        decision = replace(answer.template, company=snapshot.company_id, at=at, user=user_id)
    elif len(allowances) == 1:
        decision = _limited(snapshot, allowances[0], counters, at, quantity, user_id)
    else:
        decision = _limited(snapshot, _roomiest(allowances, counters, at), counters, at, quantity, user_id)
    if with_trace:
        trace = explain(snapshot, decision, counters, at=at, quantity=quantity, user=user, catalog=catalog, ask=decide)
        return replace(decision, trace=trace)
    return decision


def decisions(
    snapshot: CompanySnapshot,
    counters: Counters,
    *,
    at: datetime,
    features: Iterable[str] | None = None,
    user: UserFacts | None = None,
) -> dict[str, Decision]:
    """One Decision for each feature named, or for every feature in the catalogue's order, archived ones left out."""
    keys = features
    if keys is None:
        keys = [key for key, compiled in snapshot.features.items() if not compiled.feature.is_archived]
    return {key: decide(snapshot, key, counters, at=at, user=user) for key in keys}


def unanswerable(
    reason: Reason, feature_key: str, *, at: datetime, company: str | None = None, user: UserFacts | None = None
) -> Decision:
    """The "no" about something unknown: a feature, a company or a user. It never grants by accident."""
    user_id = None if user is None else user.user_id
    return Decision(feature=feature_key, allowed=False, reason=reason, company=company, user=user_id, at=at)


def _own(allowance: Allowance, user_id: str) -> Allowance:
    """A personal allowance on the counter of the user who asks."""
    key = allowance.counter_key
    return allowance if key is None else replace(allowance, counter_key=(key[0], key[1], user_id))


def _limited(
    snapshot: CompanySnapshot,
    allowance: Allowance,
    counters: Counters,
    at: datetime,
    quantity: int,
    user_id: str | None,
) -> Decision:
    key = allowance.counter_key
    used, reserved, period = allowance.used, 0, None
    if key is not None:
        kind = key[1]
        period = snapshot.periods[kind]
        counter = counters.get(key)
        end_at = None
        if counter is not None:
            end_at = counter.end_at
            if (end_at is None or at < end_at) and counter.start_at <= at:
                # Corrections may bring a ledger below zero; what is shown and judged is never negative.
                used, reserved = counter.used, counter.reserved
                if used < 0:
                    used = 0
                if end_at != period.resets_at or (end_at is not None and counter.start_at != period.start):
                    period = Period(kind=kind, start=None if end_at is None else counter.start_at, resets_at=end_at)
            else:
                period = _rolled(snapshot, period, at, end_at)
        else:
            period = _rolled(snapshot, period, at, None)
    limit, soft_limit = allowance.limit, allowance.soft_limit
    taken = used + reserved
    over_soft_limit = soft_limit is not None and taken + quantity > soft_limit
    if limit is None:
        return replace(
            allowance.template,
            allowed=True,
            reason=allowance.granted,
            used=used,
            reserved=reserved,
            over_soft_limit=over_soft_limit,
            period=period,
            company=snapshot.company_id,
            user=user_id,
            at=at,
        )
    is_allowed = taken + quantity <= limit
    return replace(
        allowance.template,
        allowed=is_allowed,
        reason=allowance.granted if is_allowed else Reason.LIMIT_REACHED,
        used=used,
        reserved=reserved,
        remaining=limit - taken if taken < limit else 0,
        over_soft_limit=over_soft_limit,
        period=period,
        company=snapshot.company_id,
        user=user_id,
        at=at,
    )


def _rolled(snapshot: CompanySnapshot, period: Period, at: datetime, stored_end_at: datetime | None) -> Period:
    """The window at `at`: the one the snapshot was built in while that lasts, never overlapping the stored one."""
    if (period.start is None or period.start <= at) and (period.resets_at is None or at < period.resets_at):
        if stored_end_at is None or period.start is None or stored_end_at <= period.start or stored_end_at > at:
            return period
        return Period(kind=period.kind, start=stored_end_at, resets_at=period.resets_at)
    if period.kind is PeriodKind.ALL_TIME:
        return period
    if stored_end_at is None:
        start, end = snapshot.cycle.window(period.kind, at)
    else:
        start, end = snapshot.cycle.next_window(period.kind, stored_end_at, at)
    return Period(kind=period.kind, start=start, resets_at=end)


def _roomiest(allowances: Iterable[Allowance], counters: Counters, at: datetime) -> Allowance:
    """The allowance with the most remaining: it says yes if any does. Unlimited without overage comes first."""
    best: Allowance | None = None
    most = (False, False, 0)
    for one in allowances:
        taken = one.used
        counter = None if one.counter_key is None else counters.get(one.counter_key)
        if counter is not None and counter.start_at <= at and (counter.end_at is None or at < counter.end_at):
            taken = counter.reserved + max(0, counter.used)
        if one.limit is not None:
            # Not `remaining`, which never shows less than nothing.
            room = (False, False, one.limit - taken)
        elif one.soft_limit is not None:
            room = (True, False, one.soft_limit - taken)
        else:
            room = (True, True, 0)
        if best is None or room > most:
            best, most = one, room
    if best is None:
        raise ValueError("there is no allowance to choose from")
    return best


def _ruled(
    snapshot: CompanySnapshot, compiled: CompiledFeature, counters: Counters, at: datetime, user: UserFacts | None
) -> Answer:
    for rule in compiled.rules:
        if matches(rule.groups, user, lambda key: used_at(snapshot, key, counters, at)):
            return rule.answer
    return compiled.answer
