"""The one draft that an environment's catalogue may have, beside the revisions in force."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
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


async def save_draft_row(session: StoreSession, row: CatalogDraftRow, *, over: str | None) -> bool:
    """Make this the draft in the place of the one with the etag `over` (None: of none); False when it is another."""
    values = row.model_dump()
    if over is None:
        added = await session.run(session.insert(CatalogDraftRow).values(values).on_conflict_do_nothing())
        return added.rowcount == 1
    replaced = await session.run(
        update(catalog_drafts)
        .where(catalog_drafts.c.environment_id == session.environment_id, catalog_drafts.c.etag == over)
        .values(values)
    )
    return replaced.rowcount == 1


async def delete_draft(session: StoreSession, *, etag: str) -> bool:
    """Have no draft any more; False when it was edited since."""
    gone = await session.run(
        delete(catalog_drafts).where(
            catalog_drafts.c.environment_id == session.environment_id, catalog_drafts.c.etag == etag
        )
    )
    return gone.rowcount == 1
