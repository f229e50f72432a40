"""Notes in the history when a company's grace days or the period of a pause ran out: access then ends by time alone."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec
import structlog

from plangate.engine.catalog import Catalog
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts
from plangate.engine.subscriptions import grace_end, pause_end
from plangate.environment import Environment
from plangate.shapes import Actor
from plangate.store.audit import append_audit, told_of
from plangate.store.database import StoreSession
from plangate.store.merging import merged_companies
from plangate.store.snapshot import company_facts
from plangate.store.subscriptions import companies_past_due, companies_paused

GRACE_ENDED: Final = "subscription.grace_ended"
PAUSE_ENDED: Final = "subscription.paused_period_ended"
_PAGE: Final = 200
_SYSTEM: Final = Actor(kind="system", id="plangate")
_log = structlog.get_logger(__name__)


class _End(NamedTuple):
    """An instant at which a subscription stopped granting, and the action it is noted as."""

    action: str
    stripe_subscription_id: str
    at: datetime


async def note_ended_grace(env: Environment) -> int:
    """Write one entry for each end of grace, or of a paused period, that has come. Answers how many.

    An entry says the plan before, and the one since. An end that moves, because the company got more grace days or the
    catalogue another rule for pauses, is noted again when it comes.
    """
    catalog = await env.catalog()
    listings = [companies_past_due]
    if catalog.settings.paused_collection != "keep":
        listings.append(companies_paused)
    noted = 0
    for listed in listings:
        after = ""
        while True:
            async with env.reading() as session:
                company_ids = await listed(session, after=after, limit=_PAGE)
                found = [await company_facts(session, one) for one in company_ids]
                due = [one.company_id for one in found if one is not None and await _ended(session, catalog, one)]
            for company_id in due:
                noted += await _note(env, catalog, company_id)
            if len(company_ids) < _PAGE:
                break
            after = company_ids[-1]
    return noted


async def _note(env: Environment, catalog: Catalog, company_id: str) -> int:
    async with env.writing() as session:
        # The company is locked before it is looked at again, so that two workers never note the same end.
        await env.touch(session, company_id)
        facts = await company_facts(session, company_id)
        if facts is None:
            return 0
        ended = await _ended(session, catalog, facts)
        for one in ended:
            await append_audit(
                session,
                actor=_SYSTEM,
                action=one.action,
                subject=one.stripe_subscription_id,
                company_id=company_id,
                before={"plan": _plan(catalog, facts, one.at - timedelta(microseconds=1))},
                after={"plan": _plan(catalog, facts, one.at), "at": one.at},
            )
    for one in ended:
        subscription, at = one.stripe_subscription_id, one.at.isoformat()
        _log.info("access_ended", action=one.action, company=company_id, subscription=subscription, at=at)
    return len(ended)


async def _ended(session: StoreSession, catalog: Catalog, facts: CompanyFacts) -> list[_End]:
    """The ends of the company's subscriptions that have come, as far as no entry says so."""
    over = [end for end in _ends(catalog, facts) if end.at <= session.now]
    if not over:
        return []
    company_ids = [facts.company_id, *await merged_companies(session, facts.company_id)]
    told = {action: await told_of(session, company_ids, action) for action in {end.action for end in over}}
    return [end for end in over if (end.stripe_subscription_id, msgspec.to_builtins(end.at)) not in told[end.action]]


def _ends(catalog: Catalog, facts: CompanyFacts) -> Iterable[_End]:
    for subscription in facts.subscriptions:
        name, ended_at = subscription.stripe_subscription_id, subscription.ended_at
        for action, at in (
            (GRACE_ENDED, grace_end(catalog, facts, subscription)),
            (PAUSE_ENDED, pause_end(catalog, subscription)),
        ):
            # What had ended in Stripe by then granted nothing any more.
            if at is not None and (ended_at is None or at < ended_at):
                yield _End(action, name, at)


def _plan(catalog: Catalog, facts: CompanyFacts, at: datetime) -> str | None:
    plan = build_snapshot(catalog, facts, at).plan
    return None if plan is None else plan.key
