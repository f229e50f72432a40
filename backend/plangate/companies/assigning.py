"""Plans and add-ons given by hand, for companies that do not pay through Stripe. A live subscription comes first."""

from collections.abc import Mapping

import msgspec

from plangate.engine.catalog import Catalog, PlanVersion
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, PlanSource
from plangate.environment import Environment
from plangate.errors import Code, FieldError, Refusal, invalid
from plangate.store.companies import assign, unassign
from plangate.store.database import StoreSession
from plangate.store.ledger import lock_companies
from plangate.store.snapshot import company_facts
from plangate.usage_windows import open_missing_windows, rebind_windows

QUANTITY_LIMIT = 1_000_000
_ADD_ONS = 50


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """What to give a company by hand. UNSET leaves the plan as it is, None takes the assigned one away.

    `add_ons` are absolute quantities; 0 takes one away, and add-ons that are not named stay.
    """

    plan: str | msgspec.UnsetType | None = msgspec.UNSET
    add_ons: Mapping[str, int] = {}

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is asked for."""
        return self.plan is msgspec.UNSET and not self.add_ons


def check_assigned(catalog: Catalog, wanted: Assigned) -> None:
    """Raises Refusal (422) for a plan or add-on that is not in the catalogue or archived, and for odd quantities."""
    if isinstance(wanted.plan, str):
        _offered(catalog.plans.get(wanted.plan), "/plan", "plan")
    if len(wanted.add_ons) > _ADD_ONS:
        raise invalid("/add_ons", f"At most {_ADD_ONS} add-ons may be named at once.")
    for key, quantity in wanted.add_ons.items():
        pointer = "/add_ons/" + key.replace("~", "~0").replace("/", "~1")
        if not 0 <= quantity <= QUANTITY_LIMIT:
            raise invalid(pointer, f"The quantity is a number from 0 to {QUANTITY_LIMIT:,}.")
        if quantity:
            _offered(catalog.add_ons.get(key), pointer, "add-on")


async def assign_in(
    env: Environment, session: StoreSession, catalog: Catalog, company_id: str, wanted: Assigned
) -> tuple[dict[str, object], dict[str, object]] | None:
    """Assign in a transaction that holds the company; answers what was and is assigned, None when that is the same.

    Add-ons assigned before that do not fit the plan end with it. Running windows end where the new anchor's period
    does. The caller touches the company. Raises Refusal (409) for a wanted add-on that does not fit the plan in force.
    """
    if wanted.is_nothing:
        return None
    await lock_companies(session, [company_id])
    before = await _facts(session, company_id)
    plan, add_ons = assigned_to(before)
    if wanted.plan is not msgspec.UNSET and wanted.plan != plan:
        if wanted.plan is None:
            await unassign(session, company_id, kind="plan", source=PlanSource.ASSIGNMENT)
        else:
            await assign(session, company_id, key=wanted.plan, source=PlanSource.ASSIGNMENT)
    for key, quantity in wanted.add_ons.items():
        if quantity and quantity != add_ons.get(key):
            await assign(session, company_id, key=key, source=PlanSource.ASSIGNMENT, kind="add_on", quantity=quantity)
        elif not quantity and key in add_ons:
            await unassign(session, company_id, kind="add_on", key=key)
    after = await _facts(session, company_id)
    held = build_snapshot(catalog, after, session.now).plan
    for key in assigned_to(after)[1]:
        add_on = catalog.add_ons.get(key)
        if add_on is None or not add_on.fits or (held is not None and held.key in add_on.fits):
            continue
        if wanted.add_ons.get(key):
            detail = f"{add_on.name} does not fit the plan of this company: it fits {', '.join(sorted(add_on.fits))}."
            raise Refusal(Code.ADD_ON_UNFIT, detail, errors=[FieldError("/add_ons", Code.ADD_ON_UNFIT, detail)])
        await unassign(session, company_id, kind="add_on", key=key)
    after = await _facts(session, company_id)
    if assigned_to(after) == (plan, add_ons):
        return None
    await rebind_windows(
        env, session, build_snapshot(catalog, before, session.now), build_snapshot(catalog, after, session.now)
    )
    await open_missing_windows(session, catalog, company_id)
    return _told(before), _told(after)


def assigned_to(facts: CompanyFacts) -> tuple[str | None, dict[str, int]]:
    """The plan assigned by hand, if any, and the assigned add-ons with their quantities."""
    plans = [fact.key for fact in facts.assignments if fact.kind == "plan" and fact.source is PlanSource.ASSIGNMENT]
    add_ons = {fact.key: fact.quantity for fact in facts.assignments if fact.kind == "add_on"}
    return (plans[-1] if plans else None), add_ons


def _told(facts: CompanyFacts) -> dict[str, object]:
    plan, add_ons = assigned_to(facts)
    return {"plan": plan, "add_ons": add_ons}


def _offered(version: PlanVersion | None, pointer: str, noun: str) -> None:
    if version is None:
        raise invalid(pointer, f"The catalogue has no such {noun}.")
    if version.is_archived:
        raise invalid(pointer, f"{version.name} is archived; nobody can be put on it any more.")


async def _facts(session: StoreSession, company_id: str) -> CompanyFacts:
    facts = await company_facts(session, company_id)
    if facts is None:
        raise LookupError(f"company {company_id} vanished")
    return facts
