"""Everything stored that decides about one company, read in a counted number of queries."""

from datetime import datetime

from plangate.engine.model import CompanyFacts
from plangate.store.companies import assignments_of, company_row, keys_of, traits_of
from plangate.store.database import StoreSession
from plangate.store.overrides import overrides_in_force
from plangate.store.subscriptions import last_mapped_plan, subscriptions_of


async def company_facts(session: StoreSession, company_id: str, *, at: datetime | None = None) -> CompanyFacts | None:
    """The company's facts as known at `at` (None: now), or None when this environment has no such company.

    Seven queries: company, keys, traits, assignments, subscriptions, the plan they last meant, overrides.
    """
    row = await company_row(session, company_id)
    if row is None or (at is not None and row.created_at > at):
        return None
    keys = await keys_of(session, [company_id])
    return CompanyFacts(
        company_id=company_id,
        version=row.version,
        created_at=row.created_at,
        keys=frozenset(f"{name}={value}" for name, value in keys[company_id]),
        traits=await traits_of(session, company_id, at=at),
        assignments=await assignments_of(session, company_id, at=at),
        subscriptions=await subscriptions_of(session, company_id, at=at),
        last_mapped_plan=await last_mapped_plan(session, company_id, at=at),
        overrides=await overrides_in_force(session, company_id, at=at or session.now),
    )
