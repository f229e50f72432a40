"""Companies over HTTP: upsert by any key, read, list, entitlements, usage, history."""

from typing import Final

import msgspec

from plangate import access, companies
from plangate.engine.decision import Decision, Period
from plangate.errors import Code
from plangate.shapes import Company
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.queries import CompaniesQuery, EntitlementsQuery, HistoryQuery, NoQuery
from plangate.web.schemas import CompanyBody, MergeBody

_TAG: Final = "Companies"


class UsageFigure(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one metered feature is used now. `limit` null with `unlimited` false: not granted."""

    feature: str
    used: int
    limit: int | None
    unlimited: bool
    remaining: int | None
    period: Period | None


class CompanyDetail(Company, frozen=True, kw_only=True):
    """A Company with what it may do and what it used."""

    entitlements: list[Decision]
    usage: list[UsageFigure]


class CompanyList(msgspec.Struct, frozen=True, kw_only=True):
    """One page of companies; `next_cursor` null on the last."""

    data: list[Company]
    next_cursor: str | None


class DecisionList(msgspec.Struct, frozen=True, kw_only=True):
    """All of a company's Decisions, in the catalogue's order."""

    data: list[Decision]
    next_cursor: None = None


class HistoryList(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed what, newest first; `next_cursor` null on the last page."""

    data: list[companies.HistoryEntry]
    next_cursor: str | None


async def put_company(call: Call[CompanyBody, None]) -> Answer:
    """Make or update a company."""
    body = call.body
    plan = body.plan if "plan" in body.model_fields_set else msgspec.UNSET
    grace_days = body.past_due_grace_days if "past_due_grace_days" in body.model_fields_set else msgspec.UNSET
    company, is_created = await companies.upsert(
        call.environment,
        keys=body.keys,
        name=body.name,
        traits=body.traits,
        stripe_customer_ids=tuple(body.stripe_customer_ids),
        assigned=companies.Assigned(plan=plan, add_ons=body.add_ons),
        past_due_grace_days=grace_days,
        actor=call.actor,
    )
    return Answer(company, 201 if is_created else 200, await call.version_of(company.id))


async def list_companies(call: Call[None, CompaniesQuery]) -> Answer:
    """One page of companies."""
    query = call.query
    found, cursor = await companies.search(
        call.environment, search=query.search, cursor=query.cursor, limit=query.limit
    )
    return Answer(CompanyList(data=found, next_cursor=cursor))


async def get_company(call: Call[None, None]) -> Answer:
    """One company with entitlements and usage."""
    company_id = call.path["company_id"]
    await call.catch_up(company_id)
    company = await companies.get(call.environment, company_id)
    decisions = await access.entitlements(call.environment, company_id)
    members = {name: getattr(company, name) for name in Company.__struct_fields__}
    return Answer(CompanyDetail(**members, entitlements=decisions, usage=usage_figures(decisions)))


async def get_entitlements(call: Call[None, EntitlementsQuery]) -> Answer:
    """Every Decision, now or then."""
    company_id = call.path["company_id"]
    await call.catch_up(company_id)
    decisions = await access.entitlements(call.environment, company_id, at=call.query.at, trace=call.query.trace)
    return Answer(DecisionList(data=decisions))


async def get_history(call: Call[None, HistoryQuery]) -> Answer:
    """Who changed what."""
    entries, cursor = await companies.history_page(
        call.environment, call.path["company_id"], cursor=call.query.cursor, limit=call.query.limit
    )
    return Answer(HistoryList(data=entries, next_cursor=cursor))


async def merge_company(call: Call[MergeBody, None]) -> Answer:
    """Make one company of two."""
    merged = await companies.merge(call.environment, call.path["company_id"], call.body.former, actor=call.actor)
    return Answer(merged, headers=await call.version_of(merged.id))


def usage_figures(decisions: list[Decision]) -> list[UsageFigure]:
    """What the Decisions say about usage: only features that count something."""
    return [
        UsageFigure(
            feature=decision.feature,
            used=decision.used,
            limit=decision.limit,
            unlimited=decision.unlimited,
            remaining=decision.remaining,
            period=decision.period,
        )
        for decision in decisions
        if decision.used is not None
    ]


_COMPANY: Final = Documented("The company.", Company, headers=("Plangate-Version",))
_EXAMPLE: Final = {
    "keys": {"id": "acme"},
    "name": "Acme",
    "traits": {"seats": 4, "region": "eu"},
    "stripe_customer_ids": ["cus_NffrFeUfNV2Hib"],
}

OPERATIONS: Final = (
    Operation(
        method="PUT",
        path="/v1/companies",
        name="putCompany",
        tag=_TAG,
        summary="Make or update a company",
        text="Known by any of its keys. Keys that belong to two companies are a 409 naming both. Fields left out stay "
        "as they are; a trait set to null is removed. A new company starts on the catalogue's initial plan. `plan` and "
        "`add_ons` assign by hand what does not come through Stripe; a live subscription's plan comes first. "
        "A Stripe customer that is new to it is fetched before the answer, within a few seconds, else by the worker.",
        scope="write",
        answer=put_company,
        body=CompanyBody,
        example=_EXAMPLE,
        responses={200: _COMPANY, 201: Documented("Made.", Company, headers=("Plangate-Version",))},
        problems=(Code.KEY_CONFLICT, Code.ADD_ON_UNFIT),
    ),
    Operation(
        method="GET",
        path="/v1/companies",
        name="listCompanies",
        tag=_TAG,
        summary="List companies",
        text="Oldest first, `limit` at a time; `search` looks into names, keys and ids.",
        scope="read",
        answer=list_companies,
        query=CompaniesQuery,
        responses={200: Documented("One page.", CompanyList)},
    ),
    Operation(
        method="GET",
        path="/v1/companies/{company_id}",
        name="getCompany",
        tag=_TAG,
        summary="One company",
        text="With its plan, entitlements and usage, from the same function that answers checks.",
        scope="read",
        answer=get_company,
        query=NoQuery,
        responses={200: Documented("The company.", CompanyDetail)},
        problems=(Code.NOT_FOUND,),
        takes_version=True,
    ),
    Operation(
        method="POST",
        path="/v1/companies/{company_id}/merge",
        name="mergeCompany",
        tag=_TAG,
        summary="Merge a company into this one",
        text="`from` is its id or keys. Its keys, Stripe customers, subscriptions, users, overrides, plan changes and "
        "usage become this company's; name and traits where this one has none. Nothing is lost or counted twice. Its "
        "id is a 404 from then on, with `merged_into`; questions about the past are answered as before. Overrides that "
        "would overlap are a 409 naming each pair.",
        scope="write",
        answer=merge_company,
        body=MergeBody,
        example={"from": {"id": "acme-duplicate"}},
        responses={200: Documented("The company as it is now.", Company, headers=("Plangate-Version",))},
        problems=(
            Code.NOT_FOUND,
            Code.KEY_CONFLICT,
            Code.OVERRIDE_OVERLAP,
            Code.CHANGE_IN_PROGRESS,
            Code.IDEMPOTENCY_CONFLICT,
        ),
        takes_idempotency_key=True,
    ),
    Operation(
        method="GET",
        path="/v1/companies/{company_id}/entitlements",
        name="getEntitlements",
        tag=_TAG,
        summary="Everything a company may do, and why",
        text="A Decision for each feature; with `at`, as known at that past instant.",
        scope="read",
        answer=get_entitlements,
        query=EntitlementsQuery,
        responses={200: Documented("The Decisions.", DecisionList)},
        problems=(Code.NOT_FOUND,),
        takes_version=True,
    ),
    Operation(
        method="GET",
        path="/v1/companies/{company_id}/history",
        name="getHistory",
        tag=_TAG,
        summary="Who changed what",
        text="The company's audit entries, newest first, with those of companies that were merged into it.",
        scope="read",
        answer=get_history,
        query=HistoryQuery,
        responses={200: Documented("The entries.", HistoryList)},
        problems=(Code.NOT_FOUND,),
    ),
)
