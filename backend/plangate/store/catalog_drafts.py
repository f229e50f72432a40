"""The one draft that an environment's catalogue may have, beside the revisions in force."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlmodel import Field, SQLModel

from plangate.store.columns import Instant, JsonText
from plangate.store.database import StoreSession, table_of


class CatalogDraftRow(SQLModel, table=True):
    """The draft. `etag` changes with every edit; `revision` is the one in force when it was begun."""

    __tablename__ = "catalog_drafts"

    environment_id: str = Field(primary_key=True)
    etag: str
    revision: int
    document: Any = Field(sa_type=JsonText)
    author: Any = Field(sa_type=JsonText)
    updated_at: datetime = Field(sa_type=Instant)


catalog_drafts = table_of(CatalogDraftRow)


async def draft_row(session: StoreSession) -> CatalogDraftRow | None:
    """The draft, or None."""
    row = await session.one(select(catalog_drafts).where(catalog_drafts.c.environment_id == session.environment_id))
    return None if row is None else CatalogDraftRow(**row)


async def save_draft_row(session: StoreSession, row: CatalogDraftRow) -> None:
    """Make this the draft."""
    values = row.model_dump()
    statement = session.insert(CatalogDraftRow).values(values)
    await session.run(
        statement.on_conflict_do_update(
            index_elements=["environment_id"],
            set_={name: value for name, value in values.items() if name != "environment_id"},
        )
    )


async def delete_draft(session: StoreSession, *, etag: str) -> None:
    """Have no draft any more, unless it was edited since."""
    await session.run(
        delete(catalog_drafts).where(
            catalog_drafts.c.environment_id == session.environment_id, catalog_drafts.c.etag == etag
        )
    )
