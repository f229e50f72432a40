"""Writing companies and users: new rows, names, memberships, and what decides about one user of a company."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, func, or_, select, update

from plangate.engine.facts import UserFacts
from plangate.store.companies import (
    FormerMemberRow,
    UserCompanyRow,
    UserKeyRow,
    UserRow,
    companies,
    escaped_like,
    former_members,
    traits_of,
    user_companies,
    user_keys,
    user_owners_of_keys,
    users,
)
from plangate.store.database import StoreSession


async def rename_company(session: StoreSession, company_id: str, name: str | None) -> None:
    """Set the company's name."""
    await session.run(
        update(companies)
        .where(companies.c.environment_id == session.environment_id, companies.c.id == company_id)
        .values(name=name, updated_at=session.now)
    )


async def user_row(session: StoreSession, user_id: str, *, lock: bool = False) -> UserRow | None:
    """One user of this environment. With `lock`, on PostgreSQL, its row stays locked until the end."""
    query = select(users).where(users.c.environment_id == session.environment_id, users.c.id == user_id)
    if lock and session.is_postgresql:
        query = query.with_for_update()
    row = await session.one(query)
    return None if row is None else UserRow(**row)


async def rename_user(session: StoreSession, user_id: str, name: str | None) -> None:
    """Set the user's name."""
    await session.run(
        update(users)
        .where(users.c.environment_id == session.environment_id, users.c.id == user_id)
        .values(name=name, updated_at=session.now)
    )


async def add_user_keys(session: StoreSession, user_id: str, keys: Sequence[tuple[str, str]]) -> None:
    """Give the user these keys. A key of another user raises the database's IntegrityError."""
    await session.add_all(
        [
            UserKeyRow(
                environment_id=session.environment_id, name=name, value=value, user_id=user_id, created_at=session.now
            )
            for name, value in keys
        ]
    )


async def keys_of_user(session: StoreSession, user_id: str, *, at: datetime | None = None) -> list[tuple[str, str]]:
    """The user's `(name, value)` keys as known at `at` (None: now), oldest first."""
    query = select(user_keys.c.name, user_keys.c.value).where(
        user_keys.c.environment_id == session.environment_id, user_keys.c.user_id == user_id
    )
    if at is not None:
        query = query.where(user_keys.c.created_at <= at)
    rows = await session.all(query.order_by(user_keys.c.created_at, user_keys.c.name, user_keys.c.value))
    return [(row["name"], row["value"]) for row in rows]


async def companies_of_user(session: StoreSession, user_id: str) -> list[str]:
    """The companies the user belongs to, in the order of joining; those that were merged are left out."""
    rows = await session.all(
        select(user_companies.c.company_id)
        .join(companies, companies.c.id == user_companies.c.company_id)
        .where(
            user_companies.c.environment_id == session.environment_id,
            user_companies.c.user_id == user_id,
            companies.c.merged_into.is_(None),
        )
        .order_by(user_companies.c.created_at, user_companies.c.company_id)
    )
    return [row["company_id"] for row in rows]


async def join_company(session: StoreSession, user_id: str, company_id: str) -> None:
    """Make the user belong to the company; nothing changes when they do already."""
    row = UserCompanyRow(
        environment_id=session.environment_id, user_id=user_id, company_id=company_id, created_at=session.now
    )
    await session.run(session.insert(UserCompanyRow).values(row.model_dump()).on_conflict_do_nothing())


async def leave_company(session: StoreSession, user_id: str, company_id: str) -> bool:
    """End the user's belonging to the company, keeping since when they did; False when they do not belong to it."""
    own = (
        user_companies.c.environment_id == session.environment_id,
        user_companies.c.user_id == user_id,
        user_companies.c.company_id == company_id,
    )
    joined_at = await session.scalar(select(user_companies.c.created_at).where(*own))
    if joined_at is None:
        return False
    await session.run(delete(user_companies).where(*own))
    await session.add(
        FormerMemberRow(
            environment_id=session.environment_id,
            user_id=user_id,
            company_id=company_id,
            held_from=joined_at,
            held_until=session.now,
        )
    )
    return True


async def page_of_users(
    session: StoreSession, *, company_id: str | None, search: str | None, after: str | None, limit: int
) -> Sequence[UserRow]:
    """Up to `limit` users by id, after the cursor; of one company; `search` looks in names and key values."""
    query = select(users).where(users.c.environment_id == session.environment_id)
    if company_id is not None:
        members = select(user_companies.c.user_id).where(
            user_companies.c.environment_id == session.environment_id, user_companies.c.company_id == company_id
        )
        query = query.where(users.c.id.in_(members))
    if after is not None:
        query = query.where(users.c.id > after)
    if search:
        pattern = f"%{escaped_like(search.lower())}%"
        by_key = select(user_keys.c.user_id).where(
            user_keys.c.environment_id == session.environment_id,
            func.lower(user_keys.c.value).like(pattern, escape="\\"),
        )
        query = query.where(or_(func.lower(users.c.name).like(pattern, escape="\\"), users.c.id.in_(by_key)))
    return [UserRow(**row) for row in await session.all(query.order_by(users.c.id).limit(limit))]


async def user_facts(
    session: StoreSession, company_id: str, user_id: str, *, at: datetime | None = None
) -> UserFacts | None:
    """What decides about one user of the company as known at `at` (None: now), or None for one who is no member."""
    if not await _is_member(session, company_id, user_id, at):
        return None
    return UserFacts(
        user_id=user_id,
        keys=frozenset(f"{name}={value}" for name, value in await keys_of_user(session, user_id, at=at)),
        traits=await traits_of(session, user_id, at=at),
    )


async def _is_member(session: StoreSession, company_id: str, user_id: str, at: datetime | None) -> bool:
    joined_at = await session.scalar(
        select(user_companies.c.created_at).where(
            user_companies.c.environment_id == session.environment_id,
            user_companies.c.user_id == user_id,
            user_companies.c.company_id == company_id,
        )
    )
    if at is None or (joined_at is not None and joined_at <= at):
        return joined_at is not None
    former = await session.scalar(
        select(former_members.c.held_until).where(
            former_members.c.environment_id == session.environment_id,
            former_members.c.user_id == user_id,
            former_members.c.company_id == company_id,
            former_members.c.held_from <= at,
            former_members.c.held_until > at,
        )
    )
    return former is not None


async def user_of_keys(session: StoreSession, keys: Mapping[str, str], *, at: datetime | None = None) -> list[str]:
    """The users these keys, as known at `at` (None: now), belong to: one when they agree, none when unknown."""
    return sorted(set((await user_owners_of_keys(session, keys, at=at)).values()))
