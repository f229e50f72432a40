"""The facts of many companies at once, as known now: for questions about everybody, such as a blast radius."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import RowMapping, Table, select

from plangate.engine.facts import CompanyFacts, PlanRef, SubscriptionFact
from plangate.store.companies import CompanyRow, assignment_fact, assignments, keys_of, known_at, traits
from plangate.store.company_terms import company_terms, read_terms
from plangate.store.database import StoreSession
from plangate.store.overrides import overrides, overrides_in_force
from plangate.store.subscriptions import subscriptions
from plangate.store.version_migrations import pins_of, version_pins


async def facts_of_companies(session: StoreSession, rows: Sequence[CompanyRow]) -> dict[str, CompanyFacts]:
    """What `company_facts` answers for each of these companies, which are no merged ones.

    Eight queries, and two for each company that has an override or was migrated by name, which few have.
    """
    ids = [row.id for row in rows]
    keys = await keys_of(session, ids)
    found_traits: dict[str, dict[str, Any]] = {one: {} for one in ids}
    for row in await _known(session, traits, ids, owner="subject_id"):
        found_traits[row["subject_id"]][row["name"]] = row["value"]
    held: dict[str, list[RowMapping]] = {one: [] for one in ids}
    for row in await _known(session, assignments, ids):
        held[row["company_id"]].append(row)
    subscribed: dict[str, list[SubscriptionFact]] = {one: [] for one in ids}
    mapped: dict[str, PlanRef] = {}
    for row in await _subscriptions(session, ids):
        if row["mapped_plan"] is not None:
            mapped[row["company_id"]] = msgspec.convert(row["mapped_plan"], PlanRef)
        if row["superseded_at"] is None:
            subscribed[row["company_id"]].append(msgspec.convert(row["document"], SubscriptionFact))
    with_overrides = {row["company_id"] for row in await _known(session, overrides, ids)}
    terms: dict[str, list[tuple[str, str, Any]]] = {one: [] for one in ids}
    for row in await _known(session, company_terms, ids):
        terms[row["company_id"]].append((row["kind"], row["subject"], row["value"]))
    with_pins = {row["company_id"] for row in await _known(session, version_pins, ids)}
    return {
        row.id: CompanyFacts(
            company_id=row.id,
            version=row.version,
            created_at=row.created_at,
            keys=frozenset(f"{name}={value}" for name, value in keys[row.id]),
            traits=found_traits[row.id],
            assignments=tuple(
                assignment_fact(one) for one in sorted(held[row.id], key=lambda one: (one["held_from"], one["id"]))
            ),
            subscriptions=tuple(sorted(subscribed[row.id], key=lambda fact: fact.stripe_subscription_id)),
            last_mapped_plan=mapped.get(row.id),
            overrides=await overrides_in_force(session, row.id, at=session.now) if row.id in with_overrides else (),
            pins=await pins_of(session, row.id) if row.id in with_pins else (),
            past_due_grace_days=read_terms(terms[row.id]).past_due_grace_days,
            withheld=read_terms(terms[row.id]).withheld,
        )
        for row in rows
    }


async def _known(
    session: StoreSession, table: Table, ids: Sequence[str], *, owner: str = "company_id"
) -> Sequence[RowMapping]:
    return await session.all(
        select(table).where(
            table.c.environment_id == session.environment_id, table.c[owner].in_(ids), known_at(table, None)
        )
    )


async def _subscriptions(session: StoreSession, ids: Sequence[str]) -> Sequence[RowMapping]:
    """Every state of the companies' subscriptions that says something: the present ones, and what they meant before."""
    return await session.all(
        select(
            subscriptions.c.company_id,
            subscriptions.c.document,
            subscriptions.c.mapped_plan,
            subscriptions.c.superseded_at,
        )
        .where(subscriptions.c.environment_id == session.environment_id, subscriptions.c.company_id.in_(ids))
        .where(subscriptions.c.superseded_at.is_(None) | subscriptions.c.mapped_plan.is_not(None))
        .order_by(subscriptions.c.recorded_at, subscriptions.c.id)
    )
