"""What decides about one company at present, in one statement, because every change and first check waits for it.

The past is read noun by noun (`store/snapshot.py`); both must give the same facts, which their tests compare.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from plangate.engine.facts import (
    AssignmentFact,
    CompanyFacts,
    Override,
    PlanRef,
    PlanSource,
    SubscriptionFact,
    VersionPin,
)
from plangate.engine.values import OverrideMode, PeriodKind, Unlimited
from plangate.store.columns import from_microseconds, json_value, to_microseconds
from plangate.store.company_terms import read_terms
from plangate.store.database import StoreSession
from plangate.store.direct import Direct, Filled, Rows, together

OPEN_CHANGE: Final = "state IN ('applying', 'awaiting_payment', 'requires_action', 'scheduled', 'cancelling')"
# Each row is a noun and its columns as one JSON array, so that nine tables are one answer on both databases.
_TOLD: Final = """
    SELECT noun, CAST(told AS TEXT) FROM (
        SELECT 'company' AS noun, {array}(version, created_at, merged_at) AS told
        FROM companies WHERE environment_id = {environment} AND id = {company}
        UNION ALL
        SELECT 'key', {array}(created_at, name, value)
        FROM company_keys WHERE environment_id = {environment} AND company_id = {company}
        UNION ALL
        SELECT 'trait', {array}(name, value)
        FROM traits WHERE environment_id = {environment} AND subject_id = {company} AND superseded_at IS NULL
        UNION ALL
        SELECT 'assignment', {array}(held_from, id, kind, key, source, held_until, quantity)
        FROM assignments WHERE environment_id = {environment} AND company_id = {company} AND superseded_at IS NULL
        UNION ALL
        SELECT 'subscription', {array}(stripe_subscription_id, document, state_hash)
        FROM subscriptions WHERE environment_id = {environment} AND company_id = {company} AND superseded_at IS NULL
        UNION ALL
        SELECT 'mapped_plan', {array}(mapped_plan) FROM (
            SELECT mapped_plan FROM subscriptions
            WHERE environment_id = {environment} AND company_id = {company} AND mapped_plan IS NOT NULL
            ORDER BY recorded_at DESC, id DESC
            LIMIT 1
        ) AS newest
        UNION ALL
        SELECT 'override', {array}(starts_at, override_id, feature, mode, value, user_id, period, expires_at)
        FROM overrides WHERE environment_id = {environment} AND company_id = {company} AND superseded_at IS NULL
            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > {now})
        UNION ALL
        SELECT 'pin', {array}(kind, key, version)
        FROM version_pins WHERE environment_id = {environment} AND company_id = {company} AND superseded_at IS NULL
        UNION ALL
        SELECT 'change', {array}(state)
        FROM plan_changes WHERE environment_id = {environment} AND company_id = {company} AND {open_change}
        UNION ALL
        SELECT 'term', {array}(kind, subject, value)
        FROM company_terms WHERE environment_id = {environment} AND company_id = {company} AND superseded_at IS NULL
    ) AS facts
"""
_FACTS: Final = Direct(
    sqlite=_TOLD.format(array="json_array", environment="?1", company="?2", now="?3", open_change=OPEN_CHANGE),
    postgresql=_TOLD.format(
        array="json_build_array", environment="$1", company="$2", now="$3", open_change=OPEN_CHANGE
    ),
)

_columns: Final = msgspec.json.Decoder(list[Any])
_subscription: Final = msgspec.json.Decoder(SubscriptionFact)
_plan_ref: Final = msgspec.json.Decoder(PlanRef)


class PresentFacts(NamedTuple):
    """A company's facts, its `(name, value)` keys, oldest first, and whether any plan change has not ended.

    `states` is the state hash of each subscription.
    """

    facts: CompanyFacts
    keys: tuple[tuple[str, str], ...]
    has_open_changes: bool
    states: Mapping[str, str]


async def present_facts(session: StoreSession, company_id: str) -> PresentFacts | None:
    """The company's facts and keys as they are; None when there is no such company, or it was merged."""
    (rows,) = await together(session, asking_facts(session, company_id))
    return facts_of(rows, company_id)


def asking_facts(session: StoreSession, company_id: str) -> Filled:
    """The statement that reads the present facts of a company; `facts_of` reads its rows."""
    return _FACTS.of(session.environment_id, company_id, to_microseconds(session.now))


def facts_of(rows: Rows, company_id: str) -> PresentFacts | None:
    """The facts in the rows of `asking_facts`; None when there is no such company, or it was merged."""
    told: dict[str, list[list[Any]]] = {}
    for noun, columns in rows:
        told.setdefault(noun, []).append(_columns.decode(columns))
    company = told.get("company")
    if company is None:
        return None
    version, created_at, merged_at = company[0]
    if merged_at is not None:
        return None
    keys = tuple((name, value) for _, name, value in sorted(told.get("key", ())))
    mapped_plan = told.get("mapped_plan")
    terms = read_terms([(kind, subject, json_value(value)) for kind, subject, value in told.get("term", ())])
    facts = CompanyFacts(
        company_id=company_id,
        version=version,
        created_at=from_microseconds(created_at),
        keys=frozenset(f"{name}={value}" for name, value in keys),
        traits={name: json_value(value) for name, value in told.get("trait", ())},
        assignments=tuple(_assignment(*columns[2:], held_from=columns[0]) for columns in _in_order(told, "assignment")),
        subscriptions=tuple(_subscription.decode(document) for _, document, _ in _in_order(told, "subscription")),
        overrides=tuple(_override(*columns) for columns in _in_order(told, "override")),
        last_mapped_plan=None if mapped_plan is None else _plan_ref.decode(mapped_plan[0][0]),
        pins=tuple(
            VersionPin("add_on" if kind == "add_on" else "plan", key, version)
            for kind, key, version in sorted(told.get("pin", ()))
        ),
        past_due_grace_days=terms.past_due_grace_days,
        withheld=terms.withheld,
    )
    states = {name: state_hash for name, _, state_hash in told.get("subscription", ())}
    return PresentFacts(facts, keys, has_open_changes="change" in told, states=states)


def _in_order(told: dict[str, list[list[Any]]], noun: str) -> list[list[Any]]:
    """The noun's rows by their first two columns, an order no two of them share."""
    return sorted(told.get(noun, ()), key=lambda columns: columns[:2])


def _assignment(
    kind: str, key: str, source: str, held_until: int | None, quantity: int, *, held_from: int
) -> AssignmentFact:
    return AssignmentFact(
        kind="add_on" if kind == "add_on" else "plan",
        key=key,
        source=PlanSource(source),
        held_from=from_microseconds(held_from),
        held_until=None if held_until is None else from_microseconds(held_until),
        quantity=quantity,
    )


def _override(
    starts_at: int,
    override_id: str,
    feature: str,
    mode: str,
    value: str | None,
    user_id: str | None,
    period: str | None,
    expires_at: int | None,
) -> Override:
    told = json_value(value)
    return Override(
        id=override_id,
        feature=feature,
        mode=OverrideMode(mode),
        value=Unlimited.UNLIMITED if told == Unlimited.UNLIMITED.value else told,
        starts_at=from_microseconds(starts_at),
        user=user_id,
        period=None if period is None else PeriodKind(period),
        expires_at=None if expires_at is None else from_microseconds(expires_at),
    )
