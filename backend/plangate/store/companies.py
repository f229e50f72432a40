"""Companies and users: their keys, traits and plan assignments."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, RowMapping, Table, and_, func, or_, select, update
from sqlmodel import Field, Index, SQLModel

from plangate.engine.facts import AssignmentFact, PlanSource
from plangate.ids import new_id
from plangate.store.columns import Instant, JsonText, to_microseconds
from plangate.store.database import StoreSession, table_of
from plangate.store.direct import Direct, Filled, together

STRIPE_CUSTOMER_KEY = "stripe_customer_id"


class CompanyRow(SQLModel, table=True):
    """A company. `version` counts every change of a fact that decides; caches and `consume` compare it.

    `windows_opened` counts its usage windows, those of its users included: memory that knows all of them compares it.

    One that was merged stays as it was known, with the company it became: the past is still asked about it.
    """

    __tablename__ = "companies"
    __table_args__ = (Index("companies_by_environment", "environment_id", "id"),)

    id: str = Field(primary_key=True)
    environment_id: str
    name: str | None = None
    version: int = 1
    windows_opened: int = Field(default=0, sa_type=BigInteger)
    merged_into: str | None = None
    merged_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)


class CompanyKeyRow(SQLModel, table=True):
    """`name=value` by which another system knows a company. Several Stripe customer ids may name one company."""

    __tablename__ = "company_keys"
    __table_args__ = (Index("company_keys_by_company", "environment_id", "company_id"),)

    environment_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    value: str = Field(primary_key=True)
    company_id: str
    created_at: datetime = Field(sa_type=Instant)


class FormerKeyRow(SQLModel, table=True):
    """A key that a company held in `[held_from, held_until)`, before a merge gave it to another."""

    __tablename__ = "former_keys"
    __table_args__ = (Index("former_keys_by_company", "environment_id", "company_id"),)

    environment_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    value: str = Field(primary_key=True)
    company_id: str = Field(primary_key=True)
    held_from: datetime = Field(sa_type=Instant)
    held_until: datetime = Field(sa_type=Instant)


class UserRow(SQLModel, table=True):
    """A person, who may belong to several companies."""

    __tablename__ = "users"
    __table_args__ = (Index("users_by_environment", "environment_id", "id"),)

    id: str = Field(primary_key=True)
    environment_id: str
    name: str | None = None
    created_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)


class UserKeyRow(SQLModel, table=True):
    """`name=value` by which another system knows a user."""

    __tablename__ = "user_keys"
    __table_args__ = (Index("user_keys_by_user", "environment_id", "user_id"),)

    environment_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    value: str = Field(primary_key=True)
    user_id: str
    created_at: datetime = Field(sa_type=Instant)


class UserCompanyRow(SQLModel, table=True):
    """A user belongs to a company."""

    __tablename__ = "user_companies"

    environment_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    company_id: str = Field(primary_key=True)
    created_at: datetime = Field(sa_type=Instant)


class FormerMemberRow(SQLModel, table=True):
    """A user belonged to a company in `[held_from, held_until)`, and left."""

    __tablename__ = "former_members"

    environment_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    company_id: str = Field(primary_key=True)
    held_from: datetime = Field(primary_key=True, sa_type=Instant)
    held_until: datetime = Field(sa_type=Instant)


class TraitRow(SQLModel, table=True):
    """A trait's value: when it held, and when we knew. A new value supersedes the row and ends its hold."""

    __tablename__ = "traits"
    __table_args__ = (Index("traits_by_subject", "environment_id", "subject_id", "name"),)

    id: str = Field(primary_key=True)
    environment_id: str
    subject_id: str
    name: str
    value: Any = Field(sa_type=JsonText, nullable=True)
    held_from: datetime = Field(sa_type=Instant)
    held_until: datetime | None = Field(default=None, sa_type=Instant)
    recorded_at: datetime = Field(sa_type=Instant)
    superseded_at: datetime | None = Field(default=None, sa_type=Instant)


class AssignmentRow(SQLModel, table=True):
    """A plan or add-on held without a subscription: when it held, and when we knew."""

    __tablename__ = "assignments"
    __table_args__ = (Index("assignments_by_company", "environment_id", "company_id"),)

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    kind: str
    key: str
    quantity: int = 1
    source: str
    held_from: datetime = Field(sa_type=Instant)
    held_until: datetime | None = Field(default=None, sa_type=Instant)
    recorded_at: datetime = Field(sa_type=Instant)
    superseded_at: datetime | None = Field(default=None, sa_type=Instant)


companies = table_of(CompanyRow)
company_keys = table_of(CompanyKeyRow)
former_keys = table_of(FormerKeyRow)
users = table_of(UserRow)
user_keys = table_of(UserKeyRow)
user_companies = table_of(UserCompanyRow)
former_members = table_of(FormerMemberRow)
traits = table_of(TraitRow)
assignments = table_of(AssignmentRow)

_OWNER: Final = Direct(
    sqlite="SELECT company_id FROM company_keys WHERE environment_id = ? AND name = ? AND value = ?",
    postgresql="SELECT company_id FROM company_keys WHERE environment_id = $1 AND name = $2 AND value = $3",
)
_BUMP: Final = Direct(
    sqlite="""
        UPDATE companies SET version = version + 1, updated_at = ?3 WHERE environment_id = ?1 AND id = ?2
    """,
    postgresql="""
        UPDATE companies SET version = version + 1, updated_at = $3 WHERE environment_id = $1 AND id = $2
    """,
    writes="companies",
)


def known_at(table: Table, at: datetime | None) -> ColumnElement[bool]:
    """Rows of a bitemporal table as known at an instant; None means now."""
    if at is None:
        return table.c.superseded_at.is_(None)
    return and_(table.c.recorded_at <= at, or_(table.c.superseded_at.is_(None), table.c.superseded_at > at))


async def owners_of_keys(
    session: StoreSession, keys: Mapping[str, str], *, at: datetime | None = None
) -> dict[tuple[str, str], str]:
    """Which company each `(name, value)` known at `at` (None: now) belonged to; unknown keys are left out."""
    found = await _owners(session, company_keys, company_keys.c.company_id, keys, at=at)
    if at is not None:
        held = and_(former_keys.c.held_from <= at, former_keys.c.held_until > at)
        found |= await _owners(session, former_keys, former_keys.c.company_id, keys, held=held)
    return found


async def owner_of_key(session: StoreSession, name: str, value: str) -> str | None:
    """The company that one key belongs to now."""
    (rows,) = await together(session, _OWNER.of(session.environment_id, name, value))
    return str(rows[0][0]) if rows else None


async def user_owners_of_keys(
    session: StoreSession, keys: Mapping[str, str], *, at: datetime | None = None
) -> dict[tuple[str, str], str]:
    """Which user each `(name, value)` known at `at` (None: now) belongs to; unknown keys are left out."""
    return await _owners(session, user_keys, user_keys.c.user_id, keys, at=at)


async def company_row(session: StoreSession, company_id: str, *, lock: bool = False) -> CompanyRow | None:
    """One company of this environment. With `lock`, on PostgreSQL, its row stays locked until the end."""
    query = select(companies).where(companies.c.environment_id == session.environment_id, companies.c.id == company_id)
    if lock and session.is_postgresql:
        query = query.with_for_update()
    row = await session.one(query)
    return None if row is None else CompanyRow(**row)


async def is_company(session: StoreSession, company_id: str) -> bool:
    """Whether this environment has such a company; one that was merged is none any more."""
    row = await company_row(session, company_id)
    return row is not None and row.merged_into is None


async def keys_of(session: StoreSession, company_ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """The `(name, value)` keys of each company, oldest first."""
    rows = await session.all(
        select(company_keys)
        .where(company_keys.c.environment_id == session.environment_id, company_keys.c.company_id.in_(company_ids))
        .order_by(company_keys.c.created_at, company_keys.c.name, company_keys.c.value)
    )
    found: dict[str, list[tuple[str, str]]] = {company_id: [] for company_id in company_ids}
    for row in rows:
        found[row["company_id"]].append((row["name"], row["value"]))
    return found


async def keys_at(session: StoreSession, company_id: str, at: datetime) -> frozenset[str]:
    """The company's keys at a past instant, as `name=value` texts."""
    held = await session.all(
        select(company_keys.c.name, company_keys.c.value)
        .where(
            company_keys.c.environment_id == session.environment_id,
            company_keys.c.company_id == company_id,
            company_keys.c.created_at <= at,
        )
        .union(
            select(former_keys.c.name, former_keys.c.value).where(
                former_keys.c.environment_id == session.environment_id,
                former_keys.c.company_id == company_id,
                former_keys.c.held_from <= at,
                former_keys.c.held_until > at,
            )
        )
    )
    return frozenset(f"{row['name']}={row['value']}" for row in held)


async def add_keys(session: StoreSession, company_id: str, keys: Sequence[tuple[str, str]]) -> None:
    """Give the company these keys. A key of another company raises the database's IntegrityError."""
    await session.add_all(
        [
            CompanyKeyRow(
                environment_id=session.environment_id,
                name=name,
                value=value,
                company_id=company_id,
                created_at=session.now,
            )
            for name, value in keys
        ]
    )


def bumping_version(session: StoreSession, company_id: str) -> Filled:
    """The statement that counts one change of a fact that decides about the company."""
    return _BUMP.of(session.environment_id, company_id, to_microseconds(session.now))


async def page_of_companies(
    session: StoreSession, *, search: str | None, after: str | None, limit: int
) -> Sequence[CompanyRow]:
    """Up to `limit` companies by id, after the cursor; `search` looks in names and key values, letter case aside."""
    query = select(companies).where(
        companies.c.environment_id == session.environment_id, companies.c.merged_into.is_(None)
    )
    if after is not None:
        query = query.where(companies.c.id > after)
    if search:
        pattern = f"%{escaped_like(search.lower())}%"
        by_key = select(company_keys.c.company_id).where(
            company_keys.c.environment_id == session.environment_id,
            func.lower(company_keys.c.value).like(pattern, escape="\\"),
        )
        query = query.where(or_(func.lower(companies.c.name).like(pattern, escape="\\"), companies.c.id.in_(by_key)))
    rows = await session.all(query.order_by(companies.c.id).limit(limit))
    return [CompanyRow(**row) for row in rows]


async def traits_of(session: StoreSession, subject_id: str, *, at: datetime | None = None) -> dict[str, Any]:
    """Trait values of a company or user, as known at `at` (None: now)."""
    rows = await session.all(
        select(traits.c.name, traits.c.value).where(
            traits.c.environment_id == session.environment_id,
            traits.c.subject_id == subject_id,
            known_at(traits, at),
        )
    )
    return {row["name"]: row["value"] for row in rows}


async def set_traits(session: StoreSession, subject_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Set these traits; None removes one. Answers only those that changed, old values are kept as history."""
    known = await traits_of(session, subject_id)
    changed = {name: value for name, value in values.items() if not _same(known.get(name), value)}
    if not changed:
        return {}
    await session.run(
        update(traits)
        .where(
            traits.c.environment_id == session.environment_id,
            traits.c.subject_id == subject_id,
            traits.c.name.in_(list(changed)),
            traits.c.superseded_at.is_(None),
        )
        .values(superseded_at=session.now, held_until=session.now)
    )
    await session.add_all(
        [
            TraitRow(
                id=new_id("trt"),
                environment_id=session.environment_id,
                subject_id=subject_id,
                name=name,
                value=value,
                held_from=session.now,
                recorded_at=session.now,
            )
            for name, value in changed.items()
            if value is not None
        ]
    )
    return changed


async def assignments_of(
    session: StoreSession, company_id: str, *, at: datetime | None = None
) -> tuple[AssignmentFact, ...]:
    """The company's assignments as known at `at` (None: now), oldest first."""
    rows = await session.all(
        select(assignments)
        .where(
            assignments.c.environment_id == session.environment_id,
            assignments.c.company_id == company_id,
            known_at(assignments, at),
        )
        .order_by(assignments.c.held_from, assignments.c.id)
    )
    return tuple(assignment_fact(row) for row in rows)


def assignment_fact(row: RowMapping) -> AssignmentFact:
    """A stored assignment as the engine's fact."""
    return AssignmentFact(
        kind="add_on" if row["kind"] == "add_on" else "plan",
        key=row["key"],
        source=PlanSource(row["source"]),
        held_from=row["held_from"],
        held_until=row["held_until"],
        quantity=row["quantity"],
    )


async def assign(
    session: StoreSession, company_id: str, *, key: str, source: PlanSource, kind: str = "plan", quantity: int = 1
) -> None:
    """Assign a plan (ending the earlier assignment of the same kind) or an add-on from now on."""
    ended = (
        update(assignments)
        .where(
            assignments.c.environment_id == session.environment_id,
            assignments.c.company_id == company_id,
            assignments.c.kind == kind,
            assignments.c.superseded_at.is_(None),
        )
        .values(superseded_at=session.now, held_until=session.now)
    )
    if kind == "add_on":
        ended = ended.where(assignments.c.key == key)
    await session.run(ended)
    await session.add(
        AssignmentRow(
            id=new_id("asg"),
            environment_id=session.environment_id,
            company_id=company_id,
            kind=kind,
            key=key,
            quantity=quantity,
            source=source.value,
            held_from=session.now,
            recorded_at=session.now,
        )
    )


async def record_assignment(
    session: StoreSession, company_id: str, *, key: str, source: PlanSource, held_from: datetime
) -> None:
    """Write down that the company holds a plan since an instant that has passed; other assignments stay."""
    await session.add(
        AssignmentRow(
            id=new_id("asg"),
            environment_id=session.environment_id,
            company_id=company_id,
            kind="plan",
            key=key,
            source=source.value,
            held_from=held_from,
            recorded_at=session.now,
        )
    )


async def unassign(
    session: StoreSession, company_id: str, *, kind: str, key: str | None = None, source: PlanSource | None = None
) -> None:
    """End the company's assignments of a kind from now on: all, those of one key, or those of one source."""
    ended = update(assignments).where(
        assignments.c.environment_id == session.environment_id,
        assignments.c.company_id == company_id,
        assignments.c.kind == kind,
        assignments.c.superseded_at.is_(None),
    )
    if key is not None:
        ended = ended.where(assignments.c.key == key)
    if source is not None:
        ended = ended.where(assignments.c.source == source.value)
    await session.run(ended.values(superseded_at=session.now, held_until=session.now))


async def _owners(
    session: StoreSession,
    table: Table,
    owner: ColumnElement[str],
    keys: Mapping[str, str],
    *,
    at: datetime | None = None,
    held: ColumnElement[bool] | None = None,
) -> dict[tuple[str, str], str]:
    if not keys:
        return {}
    wanted = [and_(table.c.name == name, table.c.value == value) for name, value in keys.items()]
    query = select(table.c.name, table.c.value, owner.label("owner")).where(
        table.c.environment_id == session.environment_id, or_(*wanted)
    )
    if at is not None:
        query = query.where(table.c.created_at <= at)
    if held is not None:
        query = query.where(held)
    rows = await session.all(query)
    return {(row["name"], row["value"]): row["owner"] for row in rows}


def _same(left: object, right: object) -> bool:
    # 1 == True and 1 == 1.0 in Python, but they are different trait values.
    return type(left) is type(right) and left == right


def escaped_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
