"""Moves those who were left on an older version to the newest one, later and without publishing anything."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

import msgspec

from plangate.catalog.impact import Impact, Mover, impact_of
from plangate.catalog.in_force import BUSY, StoredCatalog, stored_catalog, turn
from plangate.catalog.migrating import Migration, Proration, migration, new_migration, pins_wanted, selection_of
from plangate.catalog.price_moves import Repriced, repriced
from plangate.catalog_document import CatalogDocument, Kind, MigrationDocument
from plangate.catalog_file import refused
from plangate.catalog_rules import migration_faults
from plangate.engine.catalog import Catalog
from plangate.engine.facts import CompanyFacts, VersionPin
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.shapes import Actor
from plangate.store.audit import append_audit
from plangate.store.catalog import CatalogRevisionRow, publish_revision, revision_row

_EXAMINED: Final = 10_000


class KeptMigration(msgspec.Struct, frozen=True, kw_only=True):
    """Who of those left on older versions gets the newest. `migration` is None where it was only asked for.

    `impact` says what changes for them, and `repriced` how many of them will pay another price (None where prices
    stay); both are None once that is under way.
    """

    kind: Literal["plan", "add_on"]
    key: str
    version: int
    mode: Literal["all", "some"]
    impact: Impact | None = None
    repriced: Repriced | None = None
    migration: Migration | None = None


async def plan_migration(
    environment: Environment,
    key: str,
    who: Literal["all"] | MigrationDocument,
    *,
    proration: Proration | None = None,
    impact_limit: int | None = _EXAMINED,
    progress: Callable[[int], None] | None = None,
) -> KeptMigration:
    """What migrating them would change, and for whom; writes nothing. Raises Refusal as `migrate_kept`."""
    async with environment.reading() as session:
        stored = await stored_catalog(session)
    kind, name, version = _meant(stored, key, who)
    before = stored.compiled(environment)
    after = before
    if who == "all":
        kept = {kept_name: one for kept_name, one in before.kept.items() if kept_name != f"{kind}/{name}"}
        after = msgspec.structs.replace(before, kept=kept)
    impact = await impact_of(
        environment,
        before,
        after,
        moved=_mover(kind, name, version, who),
        limit=impact_limit,
        progress=progress,
    )
    counted = None
    if proration is not None:
        counted = await repriced(environment, before, after, {(kind, name): who}, limit=impact_limit)
    return KeptMigration(kind=kind, key=name, version=version, mode=_mode(who), impact=impact, repriced=counted)


async def migrate_kept(
    environment: Environment,
    key: str,
    who: Literal["all"] | MigrationDocument,
    *,
    actor: Actor,
    proration: Proration | None = None,
) -> KeptMigration:
    """Give the newest version of `key` (or `plan:KEY`, `add_on:KEY`) to those who were left on an older one.

    Everybody gets it at once, as a revision of the same document; some get it in the background. With `proration` the
    prices they pay in Stripe move along in the background, prorated so; without it they stay.
    Raises Refusal: 404 for a key that nobody was left on an older version of; 422 for a selection that makes no sense;
    409 while a catalogue is being applied.
    """
    async with turn(environment) as lease:
        async with environment.reading() as session:
            stored = await stored_catalog(session)
        kind, name, version = _meant(stored, key, who)
        async with environment.writing() as session:
            row = await revision_row(session)
            if row is None or row.revision != stored.number or not await lease.still_held(session):
                raise Refusal(Code.CHANGE_IN_PROGRESS, BUSY)
            if who == "all":
                floors = {held: floor for held, floor in (row.floors or {}).items() if held != f"{kind}:{name}"}
                following = CatalogRevisionRow(
                    environment_id=environment.id,
                    revision=row.revision + 1,
                    document=row.document,
                    versions=row.versions,
                    floors=floors,
                    author=msgspec.to_builtins(actor),
                    recorded_at=session.now,
                )
                await publish_revision(session, following, [])
                environment.touch_catalog(session)
            begun = new_migration(
                environment.id,
                kind=kind,
                key=name,
                version=version,
                wanted=who,
                actor=actor,
                at=session.now,
                proration=proration,
            )
            await session.add(begun)
            await append_audit(
                session,
                actor=actor,
                action="catalog.migrate",
                subject=begun.id,
                after={"kind": kind, "key": name, "version": version, "mode": _mode(who)},
            )
    return KeptMigration(
        kind=kind, key=name, version=version, mode=_mode(who), migration=await migration(environment, begun.id)
    )


def _mode(who: Literal["all"] | MigrationDocument) -> Literal["all", "some"]:
    return "all" if who == "all" else "some"


def _meant(stored: StoredCatalog, key: str, who: Literal["all"] | MigrationDocument) -> tuple[Kind, str, int]:
    """Kind, key and newest version of what is meant, if anybody was left behind."""
    row = stored.revision
    floors = {} if row is None else row.floors or {}
    found = [name for name in floors if key in {name, name.partition(":")[2]}]
    if row is None or not found:
        raise Refusal(Code.NOT_FOUND, f"Nobody was left on an older version of {key[:100]!r}.")
    if len(found) > 1:
        raise invalid("/key", f"There are a plan and an add-on {key}: write plan:{key} or add_on:{key}.")
    if isinstance(who, MigrationDocument):
        faults = migration_faults(CatalogDocument.model_validate(row.document), ("migrate",), who)
        if faults:
            raise refused(faults)
    kind, _, name = found[0].partition(":")
    return "plan" if kind == "plan" else "add_on", name, row.versions[found[0]]


def _mover(kind: Kind, key: str, version: int, who: Literal["all"] | MigrationDocument) -> Mover:
    """Whom a migration of some would move, as pins of a company."""
    selection = None if who == "all" else selection_of(who)

    def moved(catalog: Catalog, facts: CompanyFacts, at: datetime) -> tuple[VersionPin, ...]:
        if selection is None:
            return ()
        return pins_wanted(catalog, facts, at, kind=kind, key=key, version=version, selection=selection)

    return moved
