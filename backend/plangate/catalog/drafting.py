"""The draft of the catalogue: a document being edited beside the one in force, until it is published or discarded.

One environment has one draft at most. It remembers the revision it was begun from, so that publishing it never undoes
what somebody else applied meanwhile.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from plangate.catalog.migrating import Proration
from plangate.catalog.publishing import CatalogDiff, apply, plan
from plangate.catalog_document import CatalogDocument, Migrate, document_value
from plangate.catalog_file import parse_catalog
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.ids import new_id
from plangate.shapes import Actor
from plangate.store.audit import append_audit
from plangate.store.catalog import revision_row
from plangate.store.catalog_drafts import CatalogDraftRow, delete_draft, draft_row, save_draft_row
from plangate.store.database import StoreSession

_ABSENT = "There is no draft of the catalogue. Make one with PUT /v1/catalog/draft or plangate catalog draft FILE."


class CatalogDraft(msgspec.Struct, frozen=True, kw_only=True):
    """The draft. `etag` changes with every edit; `revision` is the one in force when it was begun."""

    etag: str
    revision: int
    document: dict[str, Any]
    author: Any
    updated_at: datetime


async def current_draft(environment: Environment) -> CatalogDraft:
    """The draft as last saved. Raises Refusal (404)."""
    async with environment.reading() as session:
        return _view(await _known(session))


async def save_draft(
    environment: Environment,
    document: CatalogDocument | Mapping[str, Any],
    *,
    actor: Actor,
    expected_revision: int | None = None,
    expected_etag: str | None = None,
) -> CatalogDraft:
    """Make the document the draft; nothing of it is in force before it is published.

    An edited draft stays based on the revision it was begun from, unless `expected_revision` says that it is made from
    the one in force. Raises Refusal: 422 that lists every fault; 409 `catalog_stale` when that revision is not in
    force; 412 when the draft is not the one with `expected_etag` (`*`: any one).
    """
    wanted = document if isinstance(document, CatalogDocument) else parse_catalog(document)
    async with environment.writing() as session:
        in_force = await revision_row(session)
        revision = 0 if in_force is None else in_force.revision
        if expected_revision is not None and expected_revision != revision:
            raise _stale(revision, expected_revision)
        held = await draft_row(session)
        _assert_etag(held, expected_etag)
        begun_from = revision if held is None or expected_revision is not None else held.revision
        row = CatalogDraftRow(
            environment_id=environment.id,
            etag=new_id("dft"),
            revision=begun_from,
            document=document_value(wanted),
            author=msgspec.to_builtins(actor),
            updated_at=session.now,
        )
        if not await save_draft_row(session, row, over=None if held is None else held.etag):
            raise _overtaken()
        await append_audit(
            session,
            actor=actor,
            action="catalog.draft_saved",
            subject=row.etag,
            after={"revision": row.revision},
        )
    return _view(row)


async def diff_draft(
    environment: Environment, *, migrate: Mapping[str, Migrate] | None = None, proration: Proration | None = None
) -> CatalogDiff:
    """What publishing the draft would change, and for whom; with `proration` also how many would pay another price.

    Writes nothing. Raises Refusal: 404 without a draft, 409 `catalog_stale` when another catalogue was applied since it
    was begun.
    """
    found = await current_draft(environment)
    return await plan(
        environment, found.document, migrate=migrate, proration=proration, expected_revision=found.revision
    )


async def publish_draft(
    environment: Environment,
    *,
    actor: Actor,
    migrate: Mapping[str, Migrate] | None = None,
    proration: Proration | None = None,
    expected_etag: str | None = None,
) -> CatalogDiff:
    """Apply the draft, and have none any more. Raises Refusal: as `diff_draft` and `apply`, 412 as `save_draft`."""
    found = await current_draft(environment)
    _assert_etag(found, expected_etag)
    # A repeat of a publication that got no further than the catalogue itself finds nothing left to change.
    is_in_force = (await plan(environment, found.document, with_impact=False)).is_empty
    diff = await apply(
        environment,
        found.document,
        actor=actor,
        migrate=migrate,
        proration=proration,
        expected_revision=None if is_in_force else found.revision,
    )
    async with environment.writing() as session:
        await delete_draft(session, etag=found.etag)
    return diff


async def discard_draft(environment: Environment, *, actor: Actor, expected_etag: str | None = None) -> CatalogDraft:
    """Throw the draft away; answers what it was. Raises Refusal: 404 without one, 412 as `save_draft`."""
    async with environment.writing() as session:
        row = await _known(session)
        _assert_etag(row, expected_etag)
        if not await delete_draft(session, etag=row.etag):
            raise _overtaken()
        await append_audit(
            session, actor=actor, action="catalog.draft_discarded", subject=row.etag, before=row.document
        )
    return _view(row)


async def _known(session: StoreSession) -> CatalogDraftRow:
    row = await draft_row(session)
    if row is None:
        raise Refusal(Code.NOT_FOUND, _ABSENT)
    return row


def _assert_etag(found: CatalogDraft | CatalogDraftRow | None, expected: str | None) -> None:
    if expected is None or (found is not None and expected in {"*", found.etag}):
        return
    raise _overtaken()


def _overtaken() -> Refusal:
    return Refusal(Code.ETAG_MISMATCH, "The draft was saved, published or discarded meanwhile. Read it again first.")


def _stale(found: int, expected: int) -> Refusal:
    return Refusal(
        Code.CATALOG_STALE,
        f"The catalogue is at revision {found}, not {expected}: somebody applied another one. Read it again first.",
        extra={"revision": found},
    )


def _view(row: CatalogDraftRow) -> CatalogDraft:
    return CatalogDraft(
        etag=row.etag,
        revision=row.revision,
        document=row.document,
        author=row.author,
        updated_at=row.updated_at,
    )
