"""Makes a company known, or says more about one that is: by any of its keys, once, whoever else tries meanwhile."""

from collections.abc import Mapping, Sequence

import msgspec

from plangate.companies.assigning import Assigned, assign_in, check_assigned
from plangate.companies.linking import fetch_linked, note_linked
from plangate.companies.reading import company_view
from plangate.engine.facts import PlanSource
from plangate.engine.values import TraitValue
from plangate.environment import Environment, one_owner
from plangate.errors import invalid
from plangate.ids import new_id
from plangate.keys import checked_keys, checked_name, checked_traits
from plangate.shapes import Actor, Company
from plangate.store.audit import append_audit
from plangate.store.companies import (
    STRIPE_CUSTOMER_KEY,
    CompanyRow,
    add_keys,
    assign,
    company_row,
    keys_of,
    set_traits,
    traits_of,
)
from plangate.store.company_terms import set_grace_days, terms_of
from plangate.store.ledger import lock_pairs, owners_of_pairs
from plangate.store.races import repeated
from plangate.store.users import (
    rename_company,
)
from plangate.usage_windows import attribute_waiting

_STRIPE_CUSTOMERS = 20
_GRACE_DAYS = 365

Pair = tuple[str, str]


async def upsert(
    env: Environment,
    *,
    keys: Mapping[str, str],
    actor: Actor,
    name: str | None = None,
    traits: Mapping[str, object] | None = None,
    stripe_customer_ids: Sequence[str] = (),
    assigned: Assigned = Assigned(),  # noqa: B008 - immutable
    past_due_grace_days: int | msgspec.UnsetType | None = msgspec.UNSET,
) -> tuple[Company, bool]:
    """Create or update the company any of these keys belongs to; answers it and whether it was created.

    Keys not known yet are added to it, a null trait is removed, what is left out stays. A new company starts on the
    catalogue's initial plan, and usage that waited up to 24 hours for one of the keys is counted. `assigned` gives it
    a plan and add-ons by hand, `past_due_grace_days` its own grace days (None: the catalogue's). A Stripe customer that
    is new to it is fetched before the answer, as far as that takes a few seconds. Raises Refusal:
    422 for input out of bounds, 409 naming both companies when the keys belong to two, 409 for an add-on that does not
    fit.
    """
    pairs = _pairs(keys, stripe_customer_ids)
    wanted_name = checked_name(name)
    wanted_traits = checked_traits(traits or {}, pointer="/traits")
    if past_due_grace_days not in {msgspec.UNSET, None} and past_due_grace_days not in range(_GRACE_DAYS + 1):
        raise invalid("/past_due_grace_days", f"Grace days are a number from 0 to {_GRACE_DAYS}.")
    company_id, is_created, noted = await _store(
        env, pairs, wanted_name, wanted_traits, assigned, past_due_grace_days, actor
    )
    if noted:
        await fetch_linked(env, company_id, noted)
    return await company_view(env, company_id), is_created


async def find(env: Environment, keys: Mapping[str, str]) -> str | None:
    """The id of the company all known `keys` belong to, or None. Raises Refusal (409) when they belong to two."""
    standing = await env.standings.of_keys(keys)
    return None if standing is None else standing.facts.company_id


@repeated
async def _store(
    env: Environment,
    pairs: Sequence[Pair],
    name: str | None,
    traits: Mapping[str, TraitValue],
    assigned: Assigned,
    grace_days: int | msgspec.UnsetType | None,
    actor: Actor,
) -> tuple[str, bool, list[str]]:
    catalog = await env.catalog()
    check_assigned(catalog, assigned)
    async with env.writing() as session:
        company_id = one_owner(await owners_of_pairs(session, pairs))
        before = None if company_id is None else await company_row(session, company_id, lock=True)
        while before is not None and before.merged_into is not None:
            # It was merged while we waited for it; the keys lead to the company it became.
            company_id = before.merged_into
            before = await company_row(session, company_id, lock=True)
        is_created = company_id is None
        if company_id is None:
            company_id = new_id("comp")
            await session.add(
                CompanyRow(
                    id=company_id,
                    environment_id=env.id,
                    name=name,
                    created_at=session.now,
                    updated_at=session.now,
                )
            )
        known = (await keys_of(session, [company_id]))[company_id]
        new_pairs = [pair for pair in pairs if pair not in known]
        await lock_pairs(session, new_pairs)
        await add_keys(session, company_id, new_pairs)
        if is_created and catalog.initial_plan is not None:
            await assign(session, company_id, key=catalog.initial_plan, source=PlanSource.INITIAL)
        traits_before = {} if is_created else await traits_of(session, company_id)
        changed = await set_traits(session, company_id, traits)
        is_renamed = before is not None and name is not None and name != before.name
        if is_renamed:
            await rename_company(session, company_id, name)
        held = await assign_in(env, session, catalog, company_id, assigned)
        grace_before = (await terms_of(session, company_id)).past_due_grace_days
        is_regraced = grace_days is not msgspec.UNSET and grace_days != grace_before
        if not (is_created or new_pairs or changed or is_renamed or held or is_regraced):
            return company_id, False, []
        if not isinstance(grace_days, msgspec.UnsetType) and is_regraced:
            await set_grace_days(session, company_id, grace_days)
        stripe_customer_ids = [value for key, value in new_pairs if key == STRIPE_CUSTOMER_KEY]
        noted = await note_linked(env, session, stripe_customer_ids) if env.has_stripe else []
        await attribute_waiting(session, catalog, company_id, new_pairs)
        after: dict[str, object] = {"keys": [f"{key}={value}" for key, value in new_pairs], "traits": changed}
        if is_created or is_renamed:
            after["name"] = name
        told: dict[str, object] = {}
        if before is not None:
            told = {"name": before.name, "traits": {key: traits_before.get(key) for key in changed}}
        if held is not None:
            told["assigned"], after["assigned"] = held
        if is_regraced:
            told["past_due_grace_days"], after["past_due_grace_days"] = grace_before, grace_days
        await append_audit(
            session,
            actor=actor,
            action="company.created" if is_created else "company.updated",
            subject=company_id,
            company_id=company_id,
            before=None if before is None else told,
            after=after,
        )
        await env.touch(session, company_id)
    return company_id, is_created, noted


def _pairs(keys: Mapping[str, str], stripe_customer_ids: Sequence[str]) -> list[Pair]:
    if keys or not stripe_customer_ids:
        checked_keys(keys, pointer="/keys")
    if len(stripe_customer_ids) > _STRIPE_CUSTOMERS:
        raise invalid("/stripe_customer_ids", f"At most {_STRIPE_CUSTOMERS} Stripe customers belong to one company.")
    for number, stripe_customer_id in enumerate(stripe_customer_ids):
        checked_keys({STRIPE_CUSTOMER_KEY: stripe_customer_id}, pointer=f"/stripe_customer_ids/{number}")
    # The order in which two writers insert the same keys must be the same, or they would wait for each other.
    return sorted({*keys.items(), *((STRIPE_CUSTOMER_KEY, one) for one in stripe_customer_ids)})
