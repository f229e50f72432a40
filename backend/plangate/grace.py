"""Notes in the history when a company's grace days ran out, because access then ends by the passing of time alone."""

from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from plangate.engine.catalog import Catalog
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts
from plangate.engine.subscriptions import grace_end
from plangate.environment import Environment
from plangate.shapes import Actor
from plangate.store.audit import append_audit, told_of
from plangate.store.database import StoreSession
from plangate.store.merging import merged_companies
from plangate.store.snapshot import company_facts
from plangate.store.subscriptions import companies_past_due

ACTION: Final = "subscription.grace_ended"
_PAGE: Final = 200
_SYSTEM: Final = Actor(kind="system", id="plangate")
_log = structlog.get_logger(__name__)


async def note_ended_grace(env: Environment) -> int:
    """Write one entry for each end of grace that has come: the plan before, and the one since. Answers how many.

    An end that moves, because the company got more grace days, is noted again when it comes.
    """
    noted, after = 0, ""
    catalog = await env.catalog()
    while True:
        async with env.reading() as session:
            company_ids = await companies_past_due(session, after=after, limit=_PAGE)
            found = [await company_facts(session, one) for one in company_ids]
            due = [facts.company_id for facts in found if facts is not None and await _ended(session, catalog, facts)]
        for company_id in due:
            noted += await _note(env, catalog, company_id)
        if len(company_ids) < _PAGE:
            return noted
        after = company_ids[-1]


async def _note(env: Environment, catalog: Catalog, company_id: str) -> int:
    async with env.writing() as session:
        # The company is locked before it is looked at again, so that two workers never note the same end.
        await env.touch(session, company_id)
        facts = await company_facts(session, company_id)
        if facts is None:
            return 0
        ended = await _ended(session, catalog, facts)
        for stripe_subscription_id, at in ended:
            await append_audit(
                session,
                actor=_SYSTEM,
                action=ACTION,
                subject=stripe_subscription_id,
                company_id=company_id,
                before={"plan": _plan(catalog, facts, at - timedelta(microseconds=1))},
                after={"plan": _plan(catalog, facts, at), "at": at},
            )
    for stripe_subscription_id, at in ended:
        _log.info("grace_ended", company=company_id, subscription=stripe_subscription_id, at=at.isoformat())
    return len(ended)


async def _ended(session: StoreSession, catalog: Catalog, facts: CompanyFacts) -> list[tuple[str, datetime]]:
    """The company's past-due subscriptions whose grace is over, and since when, as far as no entry says so."""
    ends = ((one.stripe_subscription_id, grace_end(catalog, facts, one)) for one in facts.subscriptions)
    over = [(name, at) for name, at in ends if at is not None and at <= session.now]
    if not over:
        return []
    told = await told_of(session, [facts.company_id, *await merged_companies(session, facts.company_id)], ACTION)
    return [(name, at) for name, at in over if (name, msgspec.to_builtins(at)) not in told]


def _plan(catalog: Catalog, facts: CompanyFacts, at: datetime) -> str | None:
    plan = build_snapshot(catalog, facts, at).plan
    return None if plan is None else plan.key
