"""Who was moved to which version of a plan or add-on: each publication's migration, its companies, and their pins."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import and_, func, select, text, update
from sqlmodel import Field, Index, SQLModel

from plangate.engine.facts import VersionPin
from plangate.ids import new_id
from plangate.store.columns import Instant, JsonText
from plangate.store.companies import known_at
from plangate.store.database import StoreSession, table_of


class MigratingState(StrEnum):
    """How far one company is: `not_held` has nothing to move, `failed` was tried often enough to need a person."""

    PENDING = "pending"
    DONE = "done"
    NOT_HELD = "not_held"
    FAILED = "failed"


class PriceOutcome(StrEnum):
    """What came of moving one company to the prices of a new version. Those that are not over may be tried again."""

    MOVED = "moved"
    ALREADY_THERE = "already_there"
    NOT_HELD = "not_held"  # It pays for nothing of it any more.
    CUSTOM_PRICE = "custom_price"  # What was agreed on with it stays.
    NOT_SOLD = "not_sold"  # The new version has no price in its currency and interval.
    ENDING = "ending"  # The subscription is set to end; it pays no other price.
    SCHEDULED_CHANGE = "scheduled_change"
    PAST_DUE = "past_due"
    FOREIGN_SCHEDULE = "foreign_schedule"
    CHANGE_IN_PROGRESS = "change_in_progress"
    PAYMENT_FAILED = "payment_failed"
    STRIPE_REFUSED = "stripe_refused"
    FAILED = "failed"


PRICE_PENDING: Final = "pending"
# What a person, the customer or time may mend: `retry` tries these again.
RETRIED: Final = (
    PriceOutcome.SCHEDULED_CHANGE,
    PriceOutcome.PAST_DUE,
    PriceOutcome.FOREIGN_SCHEDULE,
    PriceOutcome.CHANGE_IN_PROGRESS,
    PriceOutcome.PAYMENT_FAILED,
    PriceOutcome.STRIPE_REFUSED,
    PriceOutcome.FAILED,
)


class VersionPinRow(SQLModel, table=True):
    """The version one company was moved to: from when it counts, and when that was overtaken."""

    __tablename__ = "version_pins"
    __table_args__ = (Index("version_pins_by_company", "environment_id", "company_id"),)

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    kind: str
    key: str
    version: int
    migration_id: str
    recorded_at: datetime = Field(sa_type=Instant)
    superseded_at: datetime | None = Field(default=None, sa_type=Instant)


class VersionMigrationRow(SQLModel, table=True):
    """Who gets one published version. `selection` is a MigrationDocument for `some`; `listed_until` is how far the
    companies were looked through, None once all were. `proration` says how the prices paid in Stripe move along; None:
    they stay.
    """

    __tablename__ = "version_migrations"
    __table_args__ = (
        Index("version_migrations_by_environment", "environment_id", "id"),
        Index(
            "version_migrations_running",
            "environment_id",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    environment_id: str
    kind: str
    key: str
    version: int
    mode: str
    selection: Any = Field(default=None, sa_type=JsonText, nullable=True)
    is_listed: bool = False
    listed_until: str = ""
    proration: str | None = None
    author: Any = Field(sa_type=JsonText)
    created_at: datetime = Field(sa_type=Instant)
    finished_at: datetime | None = Field(default=None, sa_type=Instant)


class MigratingCompanyRow(SQLModel, table=True):
    """One company of a migration, tried again at `available_at` (wall time) while it is pending.

    `price` is what came of moving the price it pays: `pending`, then a PriceOutcome; None where prices stay.
    """

    __tablename__ = "version_migration_companies"
    __table_args__ = (
        Index(
            "version_migration_companies_pending",
            "environment_id",
            "available_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )

    environment_id: str = Field(primary_key=True)
    migration_id: str = Field(primary_key=True)
    company_id: str = Field(primary_key=True)
    state: str = MigratingState.PENDING.value
    attempts: int = 0
    last_error: str | None = None
    price: str | None = None
    price_detail: str | None = None
    available_at: datetime = Field(sa_type=Instant)
    updated_at: datetime = Field(sa_type=Instant)


version_pins = table_of(VersionPinRow)
version_migrations = table_of(VersionMigrationRow)
migrating_companies = table_of(MigratingCompanyRow)


async def pins_of(session: StoreSession, company_id: str, *, at: datetime | None = None) -> tuple[VersionPin, ...]:
    """The versions the company was moved to, as known at `at` (None: now)."""
    rows = await session.all(
        select(version_pins.c.kind, version_pins.c.key, version_pins.c.version)
        .where(
            version_pins.c.environment_id == session.environment_id,
            version_pins.c.company_id == company_id,
            known_at(version_pins, at),
        )
        .order_by(version_pins.c.kind, version_pins.c.key)
    )
    return tuple(
        VersionPin("add_on" if row["kind"] == "add_on" else "plan", row["key"], row["version"]) for row in rows
    )


async def pin_version(session: StoreSession, company_id: str, pin: VersionPin, *, migration_id: str) -> None:
    """Record that the company holds at least this version from now on."""
    await session.run(
        update(version_pins)
        .where(
            version_pins.c.environment_id == session.environment_id,
            version_pins.c.company_id == company_id,
            version_pins.c.kind == pin.kind,
            version_pins.c.key == pin.key,
            version_pins.c.superseded_at.is_(None),
        )
        .values(superseded_at=session.now)
    )
    await session.add(
        VersionPinRow(
            id=new_id("pin"),
            environment_id=session.environment_id,
            company_id=company_id,
            kind=pin.kind,
            key=pin.key,
            version=pin.version,
            migration_id=migration_id,
            recorded_at=session.now,
        )
    )


async def page_of_migrations(session: StoreSession, *, before: str | None, limit: int) -> list[VersionMigrationRow]:
    """Up to `limit` migrations, the newest first, older than the cursor."""
    query = select(version_migrations).where(version_migrations.c.environment_id == session.environment_id)
    if before is not None:
        query = query.where(version_migrations.c.id < before)
    rows = await session.all(query.order_by(version_migrations.c.id.desc()).limit(limit))
    return [VersionMigrationRow(**row) for row in rows]


async def running_migrations(session: StoreSession) -> list[VersionMigrationRow]:
    """The migrations that are not finished, oldest first."""
    rows = await session.all(
        select(version_migrations)
        .where(
            version_migrations.c.environment_id == session.environment_id, version_migrations.c.finished_at.is_(None)
        )
        .order_by(version_migrations.c.id)
    )
    return [VersionMigrationRow(**row) for row in rows]


async def migration_row(session: StoreSession, migration_id: str) -> VersionMigrationRow | None:
    """One migration of this environment."""
    row = await session.one(
        select(version_migrations).where(
            version_migrations.c.environment_id == session.environment_id, version_migrations.c.id == migration_id
        )
    )
    return None if row is None else VersionMigrationRow(**row)


async def update_migration(session: StoreSession, migration_id: str, **values: object) -> None:
    """Change some columns of a migration."""
    await session.run(
        update(version_migrations)
        .where(version_migrations.c.environment_id == session.environment_id, version_migrations.c.id == migration_id)
        .values(**values)
    )


async def list_companies(
    session: StoreSession, migration_id: str, company_ids: Sequence[str], *, wall_now: datetime
) -> None:
    """Add companies to a migration; those listed already stay as they are."""
    if company_ids:
        rows = [
            MigratingCompanyRow(
                environment_id=session.environment_id,
                migration_id=migration_id,
                company_id=company_id,
                available_at=wall_now,
                updated_at=session.now,
            ).model_dump()
            for company_id in company_ids
        ]
        await session.run(session.insert(MigratingCompanyRow).values(rows).on_conflict_do_nothing())


async def claim_companies(
    session: StoreSession,
    migration_id: str,
    *,
    wall_now: datetime,
    lease_seconds: int,
    limit: int,
    for_prices: bool = False,
) -> list[MigratingCompanyRow]:
    """Take up to `limit` companies that are due; nobody else gets them until the lease ends.

    `for_prices` takes those that were moved and still pay the price of before.
    """
    is_due = migrating_companies.c.state == MigratingState.PENDING.value
    if for_prices:
        is_due = and_(
            migrating_companies.c.state == MigratingState.DONE.value, migrating_companies.c.price == PRICE_PENDING
        )
    mine = (
        migrating_companies.c.environment_id == session.environment_id,
        migrating_companies.c.migration_id == migration_id,
    )
    due = (
        select(migrating_companies.c.company_id)
        .where(
            *mine,
            is_due,
            migrating_companies.c.available_at <= wall_now,
        )
        .order_by(migrating_companies.c.company_id)
        .limit(limit)
    )
    if session.is_postgresql:
        due = due.with_for_update(skip_locked=True)
    company_ids = [row["company_id"] for row in await session.all(due)]
    if not company_ids:
        return []
    rows = await session.run(
        update(migrating_companies)
        .where(*mine, migrating_companies.c.company_id.in_(company_ids))
        .values(available_at=wall_now + timedelta(seconds=lease_seconds), attempts=migrating_companies.c.attempts + 1)
        .returning(migrating_companies)
    )
    return sorted((MigratingCompanyRow(**row) for row in rows.mappings()), key=lambda row: row.company_id)


async def settle_company(
    session: StoreSession,
    migration_id: str,
    company_id: str,
    *,
    state: MigratingState,
    error: str | None = None,
    available_at: datetime | None = None,
) -> None:
    """Record what came of one company; a pending one comes back at `available_at`."""
    values = {"state": state.value, "last_error": error}
    await _settle(session, migration_id, company_id, values, available_at)


async def settle_price(
    session: StoreSession,
    migration_id: str,
    company_id: str,
    *,
    price: str,
    detail: str | None = None,
    available_at: datetime | None = None,
) -> None:
    """Record what came of moving a company's price; a pending one comes back at `available_at`."""
    values = {"price": price, "price_detail": detail}
    await _settle(session, migration_id, company_id, values, available_at)


async def _settle(
    session: StoreSession,
    migration_id: str,
    company_id: str,
    values: Mapping[str, object],
    available_at: datetime | None,
) -> None:
    again = {} if available_at is None else {"available_at": available_at}
    await session.run(
        update(migrating_companies)
        .where(
            migrating_companies.c.environment_id == session.environment_id,
            migrating_companies.c.migration_id == migration_id,
            migrating_companies.c.company_id == company_id,
        )
        .values(**values, **again, updated_at=session.now)
    )


async def retry_prices(session: StoreSession, migration_id: str, *, wall_now: datetime) -> int:
    """Let the prices that could not be moved be tried again; answers how many."""
    return (
        await session.run(
            update(migrating_companies)
            .where(
                migrating_companies.c.environment_id == session.environment_id,
                migrating_companies.c.migration_id == migration_id,
                migrating_companies.c.price.in_([one.value for one in RETRIED]),
            )
            .values(price=PRICE_PENDING, available_at=wall_now, updated_at=session.now)
        )
    ).rowcount


async def prices_of(session: StoreSession, migration_ids: Sequence[str]) -> Mapping[str, dict[str, int]]:
    """How many companies of each migration had what come of moving their price."""
    rows = await session.all(
        select(migrating_companies.c.migration_id, migrating_companies.c.price, func.count().label("n"))
        .where(
            migrating_companies.c.environment_id == session.environment_id,
            migrating_companies.c.migration_id.in_(migration_ids),
            migrating_companies.c.price.is_not(None),
        )
        .group_by(migrating_companies.c.migration_id, migrating_companies.c.price)
    )
    found: dict[str, dict[str, int]] = {migration_id: {} for migration_id in migration_ids}
    for row in rows:
        found[row["migration_id"]][row["price"]] = row["n"]
    return found


async def retry_failed(session: StoreSession, migration_id: str, *, wall_now: datetime) -> int:
    """Let the companies that failed be tried again; answers how many."""
    return (
        await session.run(
            update(migrating_companies)
            .where(
                migrating_companies.c.environment_id == session.environment_id,
                migrating_companies.c.migration_id == migration_id,
                migrating_companies.c.state == MigratingState.FAILED.value,
            )
            .values(state=MigratingState.PENDING.value, attempts=0, available_at=wall_now, updated_at=session.now)
        )
    ).rowcount


async def counts_of(session: StoreSession, migration_ids: Sequence[str]) -> Mapping[str, dict[str, int]]:
    """How many companies of each migration are in which state."""
    rows = await session.all(
        select(migrating_companies.c.migration_id, migrating_companies.c.state, func.count().label("n"))
        .where(
            migrating_companies.c.environment_id == session.environment_id,
            migrating_companies.c.migration_id.in_(migration_ids),
        )
        .group_by(migrating_companies.c.migration_id, migrating_companies.c.state)
    )
    found: dict[str, dict[str, int]] = {migration_id: {} for migration_id in migration_ids}
    for row in rows:
        found[row["migration_id"]][row["state"]] = row["n"]
    return found


async def page_of_migrating(
    session: StoreSession, migration_id: str, *, state: str | None, after: str | None, limit: int
) -> list[MigratingCompanyRow]:
    """Up to `limit` companies of a migration by id, after the cursor."""
    query = select(migrating_companies).where(
        migrating_companies.c.environment_id == session.environment_id,
        migrating_companies.c.migration_id == migration_id,
    )
    if state is not None:
        query = query.where(migrating_companies.c.state == state)
    if after is not None:
        query = query.where(migrating_companies.c.company_id > after)
    rows = await session.all(query.order_by(migrating_companies.c.company_id).limit(limit))
    return [MigratingCompanyRow(**row) for row in rows]
