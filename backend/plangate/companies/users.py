"""Users: people known by keys, who belong to companies and inherit what those have."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from plangate.companies.paging import LARGEST_PAGE, PAGE, after_id, checked_search, cursor_of
from plangate.engine.values import TraitValue
from plangate.environment import Environment, one_owner
from plangate.errors import Code, Refusal, invalid
from plangate.ids import new_id
from plangate.keys import checked_keys, checked_name, checked_traits
from plangate.members import one_user
from plangate.shapes import Actor
from plangate.store.audit import append_audit
from plangate.store.companies import UserRow, is_company, owners_of_keys, set_traits, traits_of
from plangate.store.database import StoreSession
from plangate.store.races import repeated
from plangate.store.users import (
    add_user_keys,
    companies_of_user,
    join_company,
    keys_of_user,
    leave_company,
    page_of_users,
    rename_user,
    user_of_keys,
    user_row,
)

_PLANGATE: Final = Actor(kind="system", id="plangate")


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user as the API shows it; `companies` are the ids of those they belong to."""

    id: str
    keys: Mapping[str, str]
    name: str | None = None
    traits: Mapping[str, TraitValue] = {}
    companies: tuple[str, ...] = ()
    created_at: datetime
    updated_at: datetime


async def upsert_user(
    env: Environment,
    *,
    keys: Mapping[str, str],
    name: str | None = None,
    traits: Mapping[str, object] | None = None,
    companies: Sequence[Mapping[str, str]] = (),
    left: Sequence[Mapping[str, str]] = (),
    actor: Actor = _PLANGATE,
) -> tuple[User, bool]:
    """Create or update the user any of these keys belongs to, as a member of these companies (each named by keys).

    Memberships stay until a company is named in `left`. Answers the user and whether it was created. Raises Refusal:
    422 for input out of bounds or an unknown company, 409 when the keys belong to two users.
    """
    checked_keys(keys, pointer="/keys")
    wanted_name = checked_name(name)
    wanted_traits = checked_traits(traits or {}, pointer="/traits")
    return await _store(env, keys, wanted_name, wanted_traits, companies, left, actor)


async def get_user(env: Environment, user_id: str) -> User:
    """One user. Raises Refusal (404)."""
    async with env.reading() as session:
        row = await user_row(session, user_id)
        if row is None:
            raise Refusal(Code.NOT_FOUND, "There is no such user.")
        return await _shown(session, row)


async def search_users(
    env: Environment,
    *,
    company_id: str | None = None,
    search: str | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> tuple[list[User], str | None]:
    """A page of users, oldest first, and the cursor of the next page (None: this was the last).

    `company_id` leaves only its members; `search` looks in names and key values, letter case aside. Raises Refusal
    (422) for an unknown company, a cursor that is not ours or a limit outside 1 to 100.
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise invalid("/limit", f"The limit is a number from 1 to {LARGEST_PAGE}.")
    after = after_id(cursor, prefix="user_")
    async with env.reading() as session:
        if company_id is not None and not await is_company(session, company_id):
            raise invalid("/company", "There is no such company.")
        rows = await page_of_users(
            session, company_id=company_id, search=checked_search(search), after=after, limit=limit + 1
        )
        found = [await _shown(session, row) for row in rows[:limit]]
    return found, cursor_of(rows[limit - 1].id) if len(rows) > limit else None


@repeated
async def _store(
    env: Environment,
    keys: Mapping[str, str],
    name: str | None,
    traits: Mapping[str, TraitValue],
    companies: Sequence[Mapping[str, str]],
    left: Sequence[Mapping[str, str]],
    actor: Actor,
) -> tuple[User, bool]:
    async with env.writing() as session:
        wanted = [await _company(session, one, f"/companies/{number}") for number, one in enumerate(companies)]
        unwanted = [await _company(session, one, f"/left/{number}") for number, one in enumerate(left)]
        if both := set(wanted) & set(unwanted):
            raise invalid("/left", f"{min(both)} is named in `companies` as well.")
        user_id = one_user(await user_of_keys(session, keys))
        before = None if user_id is None else await user_row(session, user_id, lock=True)
        is_created = user_id is None
        if user_id is None:
            user_id = new_id("user")
            await session.add(
                UserRow(id=user_id, environment_id=env.id, name=name, created_at=session.now, updated_at=session.now)
            )
        known = await keys_of_user(session, user_id)
        new_pairs = [pair for pair in keys.items() if pair not in known]
        await add_user_keys(session, user_id, new_pairs)
        belonged = await companies_of_user(session, user_id)
        joined = [one for one in dict.fromkeys(wanted) if one not in belonged]
        for company_id in joined:
            await join_company(session, user_id, company_id)
        ended = [one for one in dict.fromkeys(unwanted) if await leave_company(session, user_id, one)]
        changed = await set_traits(session, user_id, traits)
        is_renamed = before is not None and name is not None and name != before.name
        if before is not None and (is_renamed or changed or new_pairs):
            await rename_user(session, user_id, before.name if name is None else name)
        # Rules may look at the user's keys and traits, so every company that has the user asks again.
        told = {*joined, *ended, *(belonged if changed or new_pairs else ())}
        for company_id in sorted(told):
            await env.touch(session, company_id)
        for company_id in sorted(told):
            action = "joined" if company_id in joined else "left" if company_id in ended else "updated"
            await append_audit(
                session,
                actor=actor,
                action=f"user.{action}",
                subject=user_id,
                company_id=company_id,
                after={"keys": [f"{key}={value}" for key, value in new_pairs], "traits": changed},
            )
        row = await user_row(session, user_id)
        if row is None:
            raise LookupError(f"user {user_id} vanished")
        return await _shown(session, row), is_created


async def _shown(session: StoreSession, row: UserRow) -> User:
    return User(
        id=row.id,
        keys=dict(await keys_of_user(session, row.id)),
        name=row.name,
        traits=await traits_of(session, row.id),
        companies=tuple(await companies_of_user(session, row.id)),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


async def _company(session: StoreSession, keys: Mapping[str, str], pointer: str) -> str:
    checked_keys(keys, pointer=pointer)
    company_id = one_owner(await owners_of_keys(session, keys))
    if company_id is None:
        raise invalid(pointer, "There is no such company; make it known first.")
    return company_id
