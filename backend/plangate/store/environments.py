"""Environments and their API keys: one Stripe account in one mode, and who may speak for it."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import select, text, update
from sqlmodel import Field, Index, SQLModel

from plangate.store.columns import Instant, JsonText, to_microseconds
from plangate.store.database import StoreSession, table_of

_HAS_ACCOUNT: Final = "stripe_account <> ''"


class EnvironmentRow(SQLModel, table=True):
    """One environment. `offset_seconds` moves its business time (test mode only).

    `time_zones` are those it was served in, oldest first: pairs of an instant in microseconds and a name.
    """

    __tablename__ = "environments"
    __table_args__ = (
        Index(
            "environments_by_account",
            "stripe_account",
            "stripe_mode",
            unique=True,
            sqlite_where=text(_HAS_ACCOUNT),
            postgresql_where=text(_HAS_ACCOUNT),
        ),
    )

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    stripe_account: str = Field(default="")
    stripe_mode: str = Field(default="test")
    offset_seconds: int = Field(default=0)
    catalog_revision: int = Field(default=0)
    time_zones: Any = Field(default=None, sa_type=JsonText, nullable=True)
    created_at: datetime = Field(sa_type=Instant)


class ApiKeyRow(SQLModel, table=True):
    """An API key, stored as a SHA-256 hash. `hint` is what a list may show of it."""

    __tablename__ = "api_keys"

    id: str = Field(primary_key=True)
    environment_id: str = Field(index=True)
    kind: str
    name: str
    key_hash: str = Field(unique=True)
    hint: str
    scopes: Any = Field(sa_type=JsonText)
    created_at: datetime = Field(sa_type=Instant)
    revoked_at: datetime | None = Field(default=None, sa_type=Instant)


environments = table_of(EnvironmentRow)
api_keys = table_of(ApiKeyRow)


async def ensure_environment(session: StoreSession, row: EnvironmentRow) -> EnvironmentRow:
    """The environment of that name, made when it is missing; its account and mode are those it was first given.

    Where another environment has this account and mode already, that one is answered and nothing is made.
    """
    # Several servers may start at once: whoever comes first makes it.
    await session.run(session.insert(EnvironmentRow).values(row.model_dump()).on_conflict_do_nothing())
    known = await session.one(select(environments).where(environments.c.name == row.name))
    if known is not None and (known["stripe_account"] or not row.stripe_account):
        return EnvironmentRow(**known)
    same = (environments.c.stripe_account == row.stripe_account, environments.c.stripe_mode == row.stripe_mode)
    other = await session.one(select(environments).where(*same))
    if other is not None:
        return EnvironmentRow(**other)
    given = {"stripe_account": row.stripe_account, "stripe_mode": row.stripe_mode}
    told = update(environments).where(environments.c.name == row.name).values(given).returning(environments)
    return EnvironmentRow(**(await session.run(told)).mappings().one())


async def environment(session: StoreSession) -> EnvironmentRow:
    """The session's own environment."""
    row = await session.one(select(environments).where(environments.c.id == session.environment_id))
    if row is None:
        raise LookupError(f"environment {session.environment_id} is gone")
    return EnvironmentRow(**row)


async def remember_time_zone(session: StoreSession, time_zone: str) -> None:
    """Write down from when days, weeks and months are those of another zone; a repeat changes nothing."""
    known = (await environment(session)).time_zones or []
    if known and known[-1][1] == time_zone:
        return
    await session.run(
        update(environments)
        .where(environments.c.id == session.environment_id)
        .values(time_zones=[*known, [to_microseconds(session.now), time_zone]])
    )


async def time_zone_at(session: StoreSession, at: datetime) -> str | None:
    """The zone the environment was served in at an instant, the first one before that; None when it never was."""
    known = (await environment(session)).time_zones or []
    then = [name for since, name in known if since <= to_microseconds(at)]
    return then[-1] if then else known[0][1] if known else None


async def set_offset(session: StoreSession, offset_seconds: int) -> None:
    """Move the environment's business time."""
    await session.run(
        update(environments).where(environments.c.id == session.environment_id).values(offset_seconds=offset_seconds)
    )


async def live_keys(session: StoreSession) -> list[ApiKeyRow]:
    """All keys of the environment, revoked ones included, newest first."""
    rows = await session.all(
        select(api_keys)
        .where(api_keys.c.environment_id == session.environment_id)
        .order_by(api_keys.c.created_at.desc())
    )
    return [ApiKeyRow(**row) for row in rows]


async def key_by_hash(session: StoreSession, key_hash: str) -> ApiKeyRow | None:
    """The key with that hash in any environment: this is how a request learns which environment it speaks for."""
    row = await session.one(select(api_keys).where(api_keys.c.key_hash == key_hash, api_keys.c.revoked_at.is_(None)))
    return None if row is None else ApiKeyRow(**row)


async def revoke_key(session: StoreSession, key_id: str) -> bool:
    """Revoke a key for good. False when there is no such live key."""
    result = await session.run(
        update(api_keys)
        .where(
            api_keys.c.environment_id == session.environment_id,
            api_keys.c.id == key_id,
            api_keys.c.revoked_at.is_(None),
        )
        .values(revoked_at=session.now)
    )
    return result.rowcount == 1
