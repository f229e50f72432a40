"""One exception for many companies at once: each gets its own override, or its own reason why not."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from plangate.engine.values import Json
from plangate.environment import Environment, one_owner
from plangate.errors import Code, Refusal, invalid
from plangate.keys import checked_keys
from plangate.overrides.granting import Granting, checked_grant, grant_in
from plangate.overrides.reading import nothing
from plangate.shapes import Actor, OverrideView
from plangate.store.companies import owners_of_keys, page_of_companies
from plangate.store.ledger import lock_companies
from plangate.store.races import repeated

COMPANIES_AT_ONCE: Final = 1_000
_CHUNK: Final = 50  # companies in one transaction: few enough that nobody else waits long


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one company: its id (or the keys that name none), and the override or why there is none."""

    company: str | Mapping[str, str]
    status: Literal["granted", "refused"]
    override: OverrideView | None = None
    code: Code | None = None
    detail: str | None = None


async def grant_to_many(
    env: Environment,
    companies: Sequence[Mapping[str, str] | str],
    *,
    feature: str,
    mode: str,
    value: Json,
    note: str,
    actor: Actor,
    period: str | None = None,
    starts_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> list[Granted]:
    """Grant the same to up to 1,000 companies, each named by id or keys; one result for each, in order.

    A company that is refused does not touch the others. Raises Refusal (422) when the grant itself does not fit the
    catalogue, or for too many companies.
    """
    if not 1 <= len(companies) <= COMPANIES_AT_ONCE:
        raise invalid("/companies", f"Between 1 and {COMPANIES_AT_ONCE:,} companies may be named at once.")
    wanted = checked_grant(
        await env.catalog(),
        feature=feature,
        mode=mode,
        value=value,
        period=period,
        note=note,
        starts_at=starts_at,
        expires_at=expires_at,
    )
    named = [await _named(env, one, number) for number, one in enumerate(companies)]
    ids = sorted({one for one in named if isinstance(one, str)})
    outcomes: dict[str, Granted] = {}
    for start in range(0, len(ids), _CHUNK):
        outcomes |= await _grant_chunk(env, ids[start : start + _CHUNK], wanted, actor)
    return [outcomes[one] if isinstance(one, str) else one for one in named]


async def companies_on_plan(env: Environment, plan: str, *, after: str | None = None) -> tuple[list[str], str | None]:
    """The ids of companies on a plan among the next 1,000 companies, and where to go on (None: these were the last).

    Raises Refusal (422) for a plan that the catalogue does not have.
    """
    catalog = await env.catalog()
    if plan not in catalog.plans:
        raise invalid("/plan", "The catalogue has no such plan.")
    async with env.reading() as session:
        rows = await page_of_companies(session, search=None, after=after, limit=COMPANIES_AT_ONCE)
    found: list[str] = []
    for row in rows:
        standing = await env.standings.of(row.id)
        if standing is None:
            continue
        held = standing.snapshot_at(env.clock.now()).plan
        if held is not None and held.key == plan:
            found.append(row.id)
    return found, rows[-1].id if len(rows) == COMPANIES_AT_ONCE else None


@repeated
async def _grant_chunk(
    env: Environment, company_ids: Sequence[str], wanted: Granting, actor: Actor
) -> dict[str, Granted]:
    catalog = await env.catalog()
    outcomes: dict[str, Granted] = {}
    async with env.writing() as session:
        # All of them before the first is written: companies come before the audit, everywhere.
        held = await lock_companies(session, company_ids)
        for company_id in company_ids:
            try:
                if company_id not in held:
                    raise nothing("company")
                view = await grant_in(env, session, catalog, company_id, wanted, user=None, actor=actor)
                outcomes[company_id] = Granted(company=company_id, status="granted", override=view)
            except Refusal as refusal:
                outcomes[company_id] = _refused(company_id, refusal)
    return outcomes


async def _named(env: Environment, company: Mapping[str, str] | str, number: int) -> str | Granted:
    """The id of a company named by id or keys, or the outcome when keys name none or two."""
    if isinstance(company, str):
        return company
    checked_keys(company, pointer=f"/companies/{number}")
    try:
        async with env.reading() as session:
            company_id = one_owner(await owners_of_keys(session, company))
    except Refusal as refusal:
        return _refused(company, refusal)
    return company_id if company_id is not None else _refused(company, nothing("company"))


def _refused(company: str | Mapping[str, str], refusal: Refusal) -> Granted:
    return Granted(company=company, status="refused", code=refusal.code, detail=refusal.detail)
