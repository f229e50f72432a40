"""Catalogue revisions as applied, published plan versions, and which Stripe price belongs to which of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, select, update
from sqlmodel import Field, SQLModel

from plangate.store.columns import Instant, JsonText
from plangate.store.database import StoreSession, table_of
from plangate.store.environments import environments


class CatalogRevisionRow(SQLModel, table=True):
    """One applied catalogue document, whole and immutable. `versions` maps `plan:KEY` / `add_on:KEY` to a version.

    `floors` maps those that not everybody was migrated to the newest version of to the oldest version still held.
    """

    __tablename__ = "catalog_revisions"

    environment_id: str = Field(primary_key=True)
    revision: int = Field(primary_key=True)
    document: Any = Field(sa_type=JsonText)
    versions: Any = Field(sa_type=JsonText)
    floors: Any = Field(default=None, sa_type=JsonText, nullable=True)
    author: Any = Field(sa_type=JsonText)
    recorded_at: datetime = Field(sa_type=Instant)


class PlanVersionRow(SQLModel, table=True):
    """A published version of a plan or add-on: never changed, never deleted."""

    __tablename__ = "plan_versions"

    environment_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    document: Any = Field(sa_type=JsonText)
    recorded_at: datetime = Field(sa_type=Instant)


class StripePriceRow(SQLModel, table=True):
    """A Stripe price we made or adopted, and the plan or add-on version it sells. Archived ones still map.

    `feature` is the entitlement it pays for; None: the plan or add-on itself. `terms` are those of the engine's price
    where currency, interval and whole amount do not say everything. `is_adopted` marks one that others made: it is
    never archived. `company_id` is the only company that a price agreed on with it is for.
    """

    __tablename__ = "stripe_prices"

    environment_id: str = Field(primary_key=True)
    stripe_price_id: str = Field(primary_key=True)
    stripe_product_id: str
    owner_kind: str
    owner_key: str
    owner_version: int
    currency: str
    interval: str
    interval_count: int = 1
    amount_minor: int = Field(sa_type=BigInteger)
    feature: str | None = None
    terms: Any = Field(default=None, sa_type=JsonText, nullable=True)
    is_active: bool = True
    is_adopted: bool = False
    company_id: str | None = None
    recorded_at: datetime = Field(sa_type=Instant)


class StripeObjectRow(SQLModel, table=True):
    """A product or meter in Stripe that stands for a catalogue key."""

    __tablename__ = "stripe_objects"

    environment_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    stripe_id: str
    recorded_at: datetime = Field(sa_type=Instant)


catalog_revisions = table_of(CatalogRevisionRow)
plan_versions = table_of(PlanVersionRow)
stripe_prices = table_of(StripePriceRow)
stripe_objects = table_of(StripeObjectRow)


async def revision_row(session: StoreSession, *, at: datetime | None = None) -> CatalogRevisionRow | None:
    """The catalogue in force as known at an instant (None: the newest), or None before the first."""
    query = select(catalog_revisions).where(catalog_revisions.c.environment_id == session.environment_id)
    if at is not None:
        query = query.where(catalog_revisions.c.recorded_at <= at)
    row = await session.one(query.order_by(catalog_revisions.c.revision.desc()).limit(1))
    return None if row is None else CatalogRevisionRow(**row)


async def publish_revision(session: StoreSession, row: CatalogRevisionRow, versions: list[PlanVersionRow]) -> None:
    """Store a new revision with the plan versions it published, and make it the environment's newest."""
    await session.add(row)
    await session.add_all(versions)
    await session.run(
        update(environments).where(environments.c.id == session.environment_id).values(catalog_revision=row.revision)
    )


async def all_plan_versions(session: StoreSession) -> list[PlanVersionRow]:
    """Every version ever published, by kind, key and version."""
    rows = await session.all(
        select(plan_versions)
        .where(plan_versions.c.environment_id == session.environment_id)
        .order_by(plan_versions.c.kind, plan_versions.c.key, plan_versions.c.version)
    )
    return [PlanVersionRow(**row) for row in rows]


async def all_stripe_prices(session: StoreSession) -> list[StripePriceRow]:
    """Every Stripe price of the environment that maps to a plan or add-on, archived ones included."""
    rows = await session.all(
        select(stripe_prices)
        .where(stripe_prices.c.environment_id == session.environment_id)
        .order_by(stripe_prices.c.recorded_at, stripe_prices.c.stripe_price_id)
    )
    return [StripePriceRow(**row) for row in rows]


_CORRECTED = ("owner_kind", "owner_key", "owner_version", "feature", "terms", "is_active", "is_adopted", "company_id")


async def save_stripe_price(session: StoreSession, row: StripePriceRow) -> None:
    """Record (or correct) the owner of a Stripe price."""
    values = row.model_dump()
    statement = session.insert(StripePriceRow).values(values)
    await session.run(
        statement.on_conflict_do_update(
            index_elements=["environment_id", "stripe_price_id"],
            set_={name: values[name] for name in _CORRECTED},
        )
    )


async def stripe_objects_of(session: StoreSession, kind: str) -> dict[str, str]:
    """Key → Stripe id, for one kind: `plan`, `add_on` and `entitlement` (`plan:pro:exports`) are products; a `meter`
    is by event name.
    """
    rows = await session.all(
        select(stripe_objects).where(
            stripe_objects.c.environment_id == session.environment_id, stripe_objects.c.kind == kind
        )
    )
    return {row["key"]: row["stripe_id"] for row in rows}


async def save_stripe_object(session: StoreSession, row: StripeObjectRow) -> None:
    """Record which Stripe object stands for a key."""
    statement = session.insert(StripeObjectRow).values(row.model_dump())
    await session.run(
        statement.on_conflict_do_update(
            index_elements=["environment_id", "kind", "key"], set_={"stripe_id": row.stripe_id}
        )
    )
