"""Before a publication leaves holders behind: remembers who is on a plan by an audience alone, and so took nothing yet.

Such a company has no instant at which it took the plan, so the new version would reach it like everybody new.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final

import msgspec

from plangate.engine.catalog import Catalog
from plangate.engine.facts import AssignmentFact, CompanyFacts, PlanSource, VersionPin
from plangate.engine.holdings import resolve_holdings
from plangate.environment import Environment
from plangate.store.companies import page_of_companies, record_assignment
from plangate.store.ledger import lock_companies
from plangate.store.population import facts_of_companies
from plangate.store.snapshot import company_facts
from plangate.store.version_migrations import pin_version

_PAGE: Final = 200


def remembered(catalog: Catalog, facts: CompanyFacts, at: datetime, plans: Collection[str]) -> CompanyFacts:
    """The company's facts with an assignment of the plan it is on by audience, if that is one of `plans`.

    It counts since the company exists, which is what its billing months are counted from already; a pin says which
    version it holds. The same facts when it is not on such a plan, or that was remembered before.
    """
    holdings = resolve_holdings(catalog, facts, at)
    if holdings.source is not PlanSource.AUDIENCE or not holdings.plans:
        return facts
    held = holdings.plans[0][0]
    is_known = any(
        one.source is PlanSource.AUDIENCE and one.key == held.key and one.held_until is None
        for one in facts.assignments
    )
    if is_known or held.key not in plans:
        return facts
    assignment = AssignmentFact(
        kind="plan", key=held.key, source=PlanSource.AUDIENCE, held_from=facts.created_at, held_until=None
    )
    pin = VersionPin("plan", held.key, held.version)
    return msgspec.structs.replace(
        facts, assignments=(*facts.assignments, assignment), pins=(*facts.pins, pin) if held.version > 1 else facts.pins
    )


async def remember_audiences(environment: Environment, catalog: Catalog, plans: Collection[str]) -> int:
    """Store what `remembered` says about every company, one short transaction each; answers how many there were.

    May be repeated: whoever was remembered is passed over.
    """
    if not plans:
        return 0
    cursor: str | None = None
    count = 0
    while True:
        async with environment.reading() as session:
            rows = await page_of_companies(session, search=None, after=cursor, limit=_PAGE)
            known = await facts_of_companies(session, rows)
            found = [one for one, facts in known.items() if remembered(catalog, facts, session.now, plans) is not facts]
        for company_id in found:
            count += await _remember(environment, catalog, company_id, plans)
        if len(rows) < _PAGE:
            return count
        cursor = rows[-1].id


async def _remember(environment: Environment, catalog: Catalog, company_id: str, plans: Collection[str]) -> int:
    async with environment.writing() as session:
        await lock_companies(session, [company_id])
        facts = await company_facts(session, company_id)
        if facts is None:
            return 0
        after = remembered(catalog, facts, session.now, plans)
        if after is facts:
            return 0
        taken = after.assignments[-1]
        await record_assignment(session, company_id, key=taken.key, source=taken.source, held_from=taken.held_from)
        for pin in after.pins[len(facts.pins) :]:
            await pin_version(session, company_id, pin, migration_id=f"audience:{pin.key}")
        await environment.touch(session, company_id)
        return 1
