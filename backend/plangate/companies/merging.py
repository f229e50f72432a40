"""Makes one company of two that turned out to be the same: what the one had belongs to the other from then on."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from plangate.companies.reading import company_view
from plangate.counted_events import event_of, metered_by
from plangate.engine.catalog import Catalog
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import AssignmentFact, CompanyFacts, Override, PlanSource
from plangate.environment import Environment, Lease, one_owner
from plangate.errors import Code, FieldError, Refusal, invalid
from plangate.keys import checked_keys
from plangate.recording import plan_meant
from plangate.shapes import Actor, ChangeState, Company
from plangate.store.audit import append_audit
from plangate.store.companies import CompanyRow, company_row, owners_of_keys, set_traits
from plangate.store.company_terms import CompanyTerms, move_terms
from plangate.store.database import StoreSession
from plangate.store.ledger import ledger_total, lock_companies
from plangate.store.merging import (
    book_usage,
    mark_merged,
    move_assignments,
    move_keys,
    move_members,
    move_overrides,
    move_pins,
    move_prices,
    move_records,
    move_subscriptions,
    note_mapped_plan,
    used_events,
    windows_since,
)
from plangate.store.plan_changes import changes_in
from plangate.store.races import repeated
from plangate.store.reservations import held_total
from plangate.store.reviews import move_reviews
from plangate.store.snapshot import company_facts
from plangate.store.subscriptions import last_mapped_plan
from plangate.store.usage import set_counters
from plangate.store.users import rename_company
from plangate.usage_windows import clamped, company_usage, rebind_windows

_ENDED: Final = frozenset({ChangeState.APPLIED, ChangeState.CANCELLED, ChangeState.REFUSED, ChangeState.FAILED})
_OPEN: Final = tuple(state.value for state in ChangeState if state not in _ENDED)
_OVERLAPS_NAMED: Final = 100


async def merge(env: Environment, company_id: str, former: Mapping[str, str] | str, *, actor: Actor) -> Company:
    """Merge the company `former` (its id, or keys) into `company_id`; answers the company as it is then.

    Keys, Stripe customers, subscriptions, users, overrides, plan changes, reservations and usage become the company's;
    name and traits where it has none itself. An assigned plan moves when the company has no assigned one; assigned
    add-ons add up. Counters are counted anew, so that no usage is lost or counted twice. The former id is unknown from
    then on, except for questions about the past. Merging the same again changes nothing.

    Raises Refusal: 404 when one of them is unknown, 422 for one and the same, 409 while a plan change of either is
    under way, and 409 naming every pair of overrides of one mode that would overlap.
    """
    former_id = await _former_id(env, company_id, former)
    if former_id is not None:
        # Always in the order of ids, so that two merges never wait for each other.
        first, second = sorted((company_id, former_id))
        async with env.lease(first) as one, env.lease(second) as other:
            await _merge(env, company_id, former_id, (one, other), actor)
    return await company_view(env, company_id)


async def became(env: Environment, company_id: str) -> str | None:
    """The id of the company that this one was merged into, or None."""
    async with env.reading() as session:
        row = await company_row(session, company_id)
    return None if row is None else row.merged_into


async def _former_id(env: Environment, company_id: str, former: Mapping[str, str] | str) -> str | None:
    """The id of the company to merge, None when it was merged into this one before."""
    async with env.reading() as session:
        if isinstance(former, str):
            former_id: str | None = former
        else:
            former_id = one_owner(await owners_of_keys(session, checked_keys(former, pointer="/from")))
        target = await company_row(session, company_id)
        row = None if former_id is None else await company_row(session, former_id)
    if target is None or target.merged_into is not None:
        raise Refusal(Code.NOT_FOUND, "There is no such company.")
    if row is not None and row.id == company_id:
        raise invalid("/from", "A company cannot be merged into itself.")
    if row is None or row.merged_into not in {None, company_id}:
        detail = "There is no such company to merge."
        raise Refusal(Code.NOT_FOUND, detail, errors=[FieldError("/from", Code.NOT_FOUND, detail)])
    return None if row.merged_into is not None else row.id


@repeated
async def _merge(env: Environment, company_id: str, former_id: str, leases: Sequence[Lease], actor: Actor) -> None:
    catalog = await env.catalog()
    async with env.writing() as session:
        for lease in leases:
            if not await lease.still_held(session):
                raise Refusal(Code.CHANGE_IN_PROGRESS, "Another change of one of the companies took over. Try again.")
        await lock_companies(session, [company_id, former_id])
        rows = [await company_row(session, one) for one in (company_id, former_id)]
        facts = [await company_facts(session, one) for one in (company_id, former_id)]
        (target, source), (before, gone) = rows, facts
        if target is None or source is None or before is None or gone is None:
            raise Refusal(Code.NOT_FOUND, "One of the companies was merged meanwhile.")
        await _refuse_open_changes(session, company_id, former_id)
        _refuse_overlaps(before.overrides, gone.overrides)
        moved = await _move(session, before, gone)
        if await move_prices(session, former_id, company_id):
            env.touch_catalog(session)
            catalog = await env.catalog_in(session)
        if target.name is None and source.name is not None:
            await rename_company(session, company_id, source.name)
        await mark_merged(session, former_id, company_id)
        await _settle(env, session, catalog, before, gone)
        await _note(session, actor, source, gone, company_id, moved)
        await env.touch(session, company_id)
        await env.touch(session, former_id)


async def _move(session: StoreSession, before: CompanyFacts, gone: CompanyFacts) -> dict[str, object]:
    """Move everything but usage; answers what was moved, for the audit."""
    company_id, former_id = before.company_id, gone.company_id
    last = await last_mapped_plan(session, company_id) or await last_mapped_plan(session, former_id)
    keys = await move_keys(session, former_id, company_id)
    members = await move_members(session, former_id, company_id)
    new_traits = {name: value for name, value in gone.traits.items() if name not in before.traits}
    await set_traits(session, company_id, new_traits)
    assigned = _assignments(before, gone)
    await move_assignments(session, former_id, company_id, assigned)
    await move_pins(session, company_id, gone.pins)
    await move_terms(session, company_id, CompanyTerms(gone.past_due_grace_days, gone.withheld))
    overrides = await move_overrides(session, former_id, company_id)
    subscriptions = await move_subscriptions(session, former_id, company_id, mapped_plan=last)
    changes = await move_records(session, former_id, company_id)
    await move_reviews(session, former_id, company_id)
    return {
        "keys": [f"{name}={value}" for name, value in keys],
        "traits": new_traits,
        "users": members,
        "assigned": {fact.key: fact.quantity for fact in assigned},
        "overrides": sorted(row.override_id for row in overrides),
        "subscriptions": subscriptions,
        "plan_changes": changes,
    }


async def _settle(
    env: Environment, session: StoreSession, catalog: Catalog, before: CompanyFacts, gone: CompanyFacts
) -> None:
    """Book the usage, and let counters and windows follow what the company is now."""
    company_id = before.company_id
    after = await company_facts(session, company_id)
    if after is None:
        raise LookupError(f"company {company_id} vanished")
    snapshot = build_snapshot(catalog, after, session.now)
    meant = plan_meant(snapshot)
    if meant is not None and gone.subscriptions:
        await note_mapped_plan(session, company_id, meant)
    await rebind_windows(env, session, build_snapshot(catalog, before, session.now), snapshot)
    events = await used_events(session, gone.company_id)
    personal = await _users_counted(session, catalog, gone.company_id)
    await book_usage(session, gone.company_id, company_id)
    features = {feature.key: event for event in events for feature in metered_by(catalog, event)}
    held = {key: event_of(feature) for key, feature in catalog.features.items()}
    counted = []
    for feature, user_id, window in await windows_since(
        session, company_id, list(catalog.features), min(events.values(), default=session.now)
    ):
        span = {"start_at": window.start_at, "end_at": window.end_at}
        if feature in features:
            used = await ledger_total(session, company_id, features[feature], user_id=user_id, **span)
            window.used = clamped(used)
        window.reserved = await held_total(session, company_id, held[feature], user_id=user_id, **span)
        counted.append(window)
    await set_counters(session, counted)
    usage = await company_usage(session, catalog, after, snapshot=snapshot)
    await usage.open_missing(features, session.now)
    for feature, user_id in personal:
        await usage.counters_at(feature, user_id, session.now)


async def _users_counted(session: StoreSession, catalog: Catalog, company_id: str) -> list[tuple[str, str]]:
    """Features that users of the company have counters of their own for, with the user."""
    windows = await windows_since(session, company_id, list(catalog.features), session.now)
    return sorted({(feature, user_id) for feature, user_id, _ in windows if user_id})


def _assignments(before: CompanyFacts, gone: CompanyFacts) -> list[AssignmentFact]:
    """What was assigned to the former company and counts on: add-ons add up, the company's own plan stays."""
    moved: list[AssignmentFact] = []
    own_plans = {fact.source for fact in before.assignments if fact.kind == "plan"}
    own_add_ons = {fact.key: fact for fact in before.assignments if fact.kind == "add_on"}
    for fact in gone.assignments:
        if fact.kind == "add_on":
            own = own_add_ons.get(fact.key)
            kept = fact if own is None else msgspec.structs.replace(own, quantity=own.quantity + fact.quantity)
            moved.append(kept)
        elif not own_plans or (fact.source is PlanSource.ASSIGNMENT and PlanSource.ASSIGNMENT not in own_plans):
            moved.append(fact)
    return moved


async def _refuse_open_changes(session: StoreSession, company_id: str, former_id: str) -> None:
    found = [row for one in (company_id, former_id) for row in await changes_in(session, one, _OPEN)]
    under_way = [row for row in found if row.state != ChangeState.SCHEDULED.value]
    if under_way or len(found) > 1:
        raise Refusal(
            Code.CHANGE_IN_PROGRESS,
            "Plan changes of these companies are under way or scheduled for both. Finish or cancel them, then merge.",
            extra={"plan_changes": [row.id for row in found]},
        )


def _refuse_overlaps(own: Sequence[Override], others: Sequence[Override]) -> None:
    """Raises Refusal (409) naming the overrides of one mode, feature and subject that would be in force at once."""
    pairs = [
        (one.id, other.id)
        for one in own
        for other in others
        if (one.feature, one.mode, one.user) == (other.feature, other.mode, other.user)
        and (one.expires_at is None or other.starts_at < one.expires_at)
        and (other.expires_at is None or one.starts_at < other.expires_at)
    ]
    if pairs:
        raise Refusal(
            Code.OVERRIDE_OVERLAP,
            f"{len(pairs)} overrides of the two companies overlap. Revoke one of each pair, then merge.",
            extra={"overrides": [list(pair) for pair in pairs[:_OVERLAPS_NAMED]]},
        )


async def _note(
    session: StoreSession,
    actor: Actor,
    source: CompanyRow,
    gone: CompanyFacts,
    company_id: str,
    moved: Mapping[str, object],
) -> None:
    await append_audit(
        session,
        actor=actor,
        action="company.merged",
        subject=source.id,
        company_id=company_id,
        before={"id": source.id, "name": source.name, "keys": sorted(gone.keys), "traits": gone.traits},
        after=moved,
    )
