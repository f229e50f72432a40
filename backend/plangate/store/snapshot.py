"""Everything stored that decides about one company, read in a counted number of queries."""

from datetime import datetime

from plangate.engine.facts import CompanyFacts
from plangate.store.companies import assignments_of, company_row, keys_at, traits_of
from plangate.store.company_terms import terms_of
from plangate.store.database import StoreSession
from plangate.store.overrides import overrides_in_force
from plangate.store.present import present_facts
from plangate.store.subscriptions import last_mapped_plan, subscriptions_of
from plangate.store.version_migrations import pins_of


async def company_facts(session: StoreSession, company_id: str, *, at: datetime | None = None) -> CompanyFacts | None:
    """The company's facts as known at `at` (None: now), or None when this environment had no such company then.

    One that was merged is no company from that instant on. The present is one query; the past is nine: company, keys,
    traits, assignments, subscriptions, the plan they last meant, overrides, pins, terms.
    """
    if at is None:
        present = await present_facts(session, company_id)
        return None if present is None else present.facts
    row = await company_row(session, company_id)
    if row is None or row.created_at > at or (row.merged_at is not None and at >= row.merged_at):
        return None
    terms = await terms_of(session, company_id, at=at)
    return CompanyFacts(
        company_id=company_id,
        version=row.version,
        created_at=row.created_at,
        keys=await keys_at(session, company_id, at),
        traits=await traits_of(session, company_id, at=at),
        assignments=await assignments_of(session, company_id, at=at),
        subscriptions=await subscriptions_of(session, company_id, at=at),
        last_mapped_plan=await last_mapped_plan(session, company_id, at=at),
        overrides=await overrides_in_force(session, company_id, at=at),
        pins=await pins_of(session, company_id, at=at),
        past_due_grace_days=terms.past_due_grace_days,
        withheld=terms.withheld,
    )
