"""Planning and applying a catalogue: first in Stripe, then here in one transaction, then old prices leave the shelf."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from plangate.catalog.impact import Impact, Mover, impact_of
from plangate.catalog.in_force import BUSY, StoredCatalog, stored_catalog, turn
from plangate.catalog.migrating import Proration, new_migration, pins_wanted, selection_of
from plangate.catalog.price_moves import Repriced, repriced
from plangate.catalog.remembering import remember_audiences, remembered
from plangate.catalog.revision import Change, Draft, draft
from plangate.catalog.shelf import clear_shelf, leftover, unneeded
from plangate.catalog.stripe_objects import WantedInStripe, price_words, wanted_in_stripe
from plangate.catalog.stripe_side import Missing, StripeCall, make_in_stripe, missing_in_stripe
from plangate.catalog_compiled import compile_catalog, price_of
from plangate.catalog_document import CatalogDocument, Migrate, MigrationDocument, document_value
from plangate.catalog_file import parse_catalog
from plangate.engine.catalog import Catalog, PriceOwner
from plangate.engine.facts import CompanyFacts, VersionPin
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.ids import new_id
from plangate.shapes import Actor
from plangate.store.audit import append_audit
from plangate.store.catalog import (
    StripePriceRow,
    publish_revision,
    revision_row,
    save_stripe_object,
    save_stripe_price,
)
from plangate.usage_windows import open_windows_of_new_periods

_PAGE: Final = 200
_EXAMINED: Final = 10_000


class CatalogDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What a document changes, and for whom. `revision` is the one in force afterwards (planned: that it is based on).

    `stripe` are the calls that applying makes in Stripe, or made, as far as what is stored here tells. `impact` is None
    where it was not asked for. `repriced` says how many companies will pay another price; None where prices stay.
    """

    revision: int
    changes: tuple[Change, ...]
    is_applied: bool = False
    stripe: tuple[StripeCall, ...] = ()
    impact: Impact | None = None
    repriced: Repriced | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the document says what is in force already."""
        return not self.changes


async def current_revision(environment: Environment) -> tuple[int, dict[str, Any]]:
    """The number of the revision in force (0 before the first), and its document in canonical form."""
    async with environment.reading() as session:
        row = await revision_row(session)
    return (0, document_value(CatalogDocument(features={}, plans={}))) if row is None else (row.revision, row.document)


async def current_document(environment: Environment) -> CatalogDocument:
    """The catalogue document in force."""
    async with environment.reading() as session:
        row = await revision_row(session)
    return CatalogDocument(features={}, plans={}) if row is None else CatalogDocument.model_validate(row.document)


async def plan(
    environment: Environment,
    document: CatalogDocument | Mapping[str, Any],
    *,
    migrate: Mapping[str, Migrate] | None = None,
    proration: Proration | None = None,
    expected_revision: int | None = None,
    with_impact: bool = True,
    impact_limit: int | None = _EXAMINED,
    progress: Callable[[int], None] | None = None,
) -> CatalogDiff:
    """What applying the document would change, and for which companies (at most `impact_limit`); writes nothing.

    `migrate` and `proration` are as for `apply`. Raises Refusal: 422 that lists every fault of the document; 409
    `catalog_stale` when the revision in force is not `expected_revision`.
    """
    wanted = _parsed(document)
    async with environment.reading() as session:
        stored = await stored_catalog(session)
    _assert_revision(stored.number, expected_revision)
    drafted = draft(stored.revision, stored.versions, wanted, migrate=migrate)
    impact = counted = None
    if with_impact and drafted.changes:
        before, after = stored.compiled(environment), _compiled_draft(environment, stored, drafted)
        left = _left_behind(before, drafted)
        impact = await impact_of(
            environment,
            before,
            after,
            moved=_moves(drafted),
            remembered=lambda facts, at: remembered(before, facts, at, left),
            limit=impact_limit,
            progress=progress,
        )
        if proration is not None:
            counted = await repriced(environment, before, after, drafted.migrations, limit=impact_limit)
    calls = (*_missing(stored, drafted).calls(), *(await _archived(environment, stored, drafted)))
    return CatalogDiff(revision=stored.number, changes=drafted.changes, stripe=calls, impact=impact, repriced=counted)


async def apply(
    environment: Environment,
    document: CatalogDocument | Mapping[str, Any],
    *,
    actor: Actor,
    migrate: Mapping[str, Migrate] | None = None,
    proration: Proration | None = None,
    expected_revision: int | None = None,
) -> CatalogDiff:
    """Make the document the catalogue in force, in Stripe and here; a document in force already changes nothing.

    A changed plan or add-on is published as its next version. `migrate` says who of its holders gets it, by
    `plan:KEY`, `add_on:KEY`, KEY or "" for the rest; without it the document says so. Everybody gets it at once, some
    get it in the background (`migrations`), and nobody else moves until they take it. With `proration` the prices they
    pay in Stripe move along in the background, prorated so; without it they stay until something else changes. May be
    repeated after a failure at any point. Raises Refusal: 422 for faults; 409 `catalog_stale` when the revision in
    force is not `expected_revision`; 409 while another one is being applied; 422 or 503 from Stripe.
    """
    wanted = _parsed(document)
    async with turn(environment) as lease:
        async with environment.reading() as session:
            stored = await stored_catalog(session)
        _assert_revision(stored.number, expected_revision)
        drafted = draft(stored.revision, stored.versions, wanted, migrate=migrate)
        missing = _missing(stored, drafted)
        calls = (*missing.calls(), *(await _archived(environment, stored, drafted)))
        counted = None
        if drafted.changes:
            if proration is not None:
                counted = await repriced(
                    environment,
                    stored.compiled(environment),
                    _compiled_draft(environment, stored, drafted),
                    drafted.migrations,
                    limit=_EXAMINED,
                )
            made = await make_in_stripe(environment, missing, stored.in_stripe, intent_id=_intent(environment, drafted))
            before = stored.compiled(environment)
            await remember_audiences(environment, before, _left_behind(before, drafted))
            async with environment.writing() as session:
                if not await lease.still_held(session):
                    raise Refusal(Code.CHANGE_IN_PROGRESS, BUSY)
                row = await revision_row(session)
                _assert_revision(0 if row is None else row.revision, stored.number)
                await publish_revision(
                    session,
                    drafted.revision_row(environment.id, author=actor, at=session.now),
                    drafted.version_rows(environment.id, at=session.now),
                )
                await session.add_all(
                    [
                        new_migration(
                            environment.id,
                            kind=kind,
                            key=key,
                            version=drafted.versions[f"{kind}:{key}"],
                            wanted=who,
                            actor=actor,
                            at=session.now,
                            proration=proration,
                        )
                        for (kind, key), who in drafted.migrations.items()
                    ]
                )
                for one in made.objects:
                    await save_stripe_object(session, one)
                # Holders of a changed plan move with their price: every price of it now sells the newest version.
                for price in _moved(stored.prices, drafted):
                    await save_stripe_price(session, price)
                for price in made.prices:
                    await save_stripe_price(session, price)
                await append_audit(
                    session,
                    actor=actor,
                    action="catalog.apply",
                    subject=f"revision {drafted.revision}",
                    before={"revision": stored.number},
                    after={"revision": drafted.revision, "changes": drafted.changes},
                )
                environment.touch_catalog(session)
            await open_windows_of_new_periods(environment, before, await environment.catalog())
        elif missing.prices:
            # Somebody archived in Stripe what the catalogue sells. Each time is an intent of its own.
            intent_id = f"catalog:{environment.id}:{stored.number}:{new_id('restore')}"
            made = await make_in_stripe(environment, missing, stored.in_stripe, intent_id=intent_id)
            async with environment.writing() as session:
                for price in made.prices:
                    await save_stripe_price(session, price)
                environment.touch_catalog(session)
        number = drafted.revision if drafted.changes else stored.number
        await clear_shelf(environment, drafted.document, revision=number, versions=drafted.versions)
    return CatalogDiff(
        revision=number,
        changes=drafted.changes,
        is_applied=bool(drafted.changes),
        stripe=calls,
        repriced=counted,
    )


def _parsed(document: CatalogDocument | Mapping[str, Any]) -> CatalogDocument:
    return document if isinstance(document, CatalogDocument) else parse_catalog(document)


def _assert_revision(found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise Refusal(
            Code.CATALOG_STALE,
            f"The catalogue is at revision {found}, not {expected}: somebody applied another one. Plan again first.",
            extra={"revision": found},
        )


def _missing(stored: StoredCatalog, drafted: Draft) -> Missing:
    """What the draft needs in Stripe beyond what stands there; where nothing changes, prices archived beside it."""
    before = WantedInStripe((), (), ())
    if stored.revision is not None:
        document = CatalogDocument.model_validate(stored.revision.document)
        before = wanted_in_stripe(document, stored.revision.versions, with_archived=True)
    wanted = wanted_in_stripe(drafted.document, drafted.versions)
    missing = missing_in_stripe(wanted, stored.in_stripe, before=before)
    if drafted.changes:
        return missing
    return Missing(products=(), meters=(), prices=tuple(one for one in missing.prices if one[0] == "restore"))


async def _archived(environment: Environment, stored: StoredCatalog, drafted: Draft) -> list[StripeCall]:
    """The prices that would leave the shelf once the draft is published."""
    moved = {row.stripe_price_id: row for row in _moved(stored.prices, drafted)}
    rows = [moved.get(row.stripe_price_id, row) for row in stored.prices]
    candidates = leftover(wanted_in_stripe(drafted.document, drafted.versions), rows)
    if not candidates:
        return []
    after = _compiled_draft(environment, stored, drafted) if drafted.changes else stored.compiled(environment)
    async with environment.reading() as session:
        gone = await unneeded(session, candidates, after)
    return [
        StripeCall(
            action="archive",
            kind="price",
            key=row.stripe_price_id,
            name=f"{row.owner_key}{f': {row.feature}' if row.feature else ''}, {price_words(price_of(row))}",
        )
        for row in gone
        if not row.is_adopted
    ]


def _compiled_draft(environment: Environment, stored: StoredCatalog, drafted: Draft) -> Catalog:
    """The catalogue as it would be once published; prices that Stripe does not have yet have no id.

    What is paid at prices that the document adopts, maybe of another plan until now, is what they then stand for.
    """
    now = environment.clock.now()
    moved = {row.stripe_price_id: row for row in _moved(stored.prices, drafted)}
    compiled = compile_catalog(
        drafted.revision_row(environment.id, author={}, at=now),
        [*stored.versions, *drafted.version_rows(environment.id, at=now)],
        [moved.get(row.stripe_price_id, row) for row in stored.prices],
        stored.plan_products,
        stored.add_on_products,
        time_zone=environment.settings.time_zone,
    )
    adopted = {
        one.price.stripe_price_id: PriceOwner(one.kind, one.key, one.version, one.price, feature=one.feature)
        for action, one in _missing(stored, drafted).prices
        if action == "adopt" and one.price.stripe_price_id is not None
    }
    return msgspec.structs.replace(compiled, price_owners={**compiled.price_owners, **adopted})


def _moved(rows: list[StripePriceRow], drafted: Draft) -> list[StripePriceRow]:
    """The known prices of what is published anew, as prices of the new version."""
    return [
        row.model_copy(update={"owner_version": drafted.versions[f"{row.owner_kind}:{row.owner_key}"]})
        for row in rows
        if any((row.owner_kind, row.owner_key) == published for published in drafted.published)
    ]


def _left_behind(before: Catalog, drafted: Draft) -> frozenset[str]:
    """The plans that audiences lead to, and whose next version does not reach all of their holders."""
    led_to = {one.plan for one in before.audiences}
    return frozenset(
        key for (kind, key), who in drafted.migrations.items() if kind == "plan" and key in led_to and who != "all"
    )


def _moves(drafted: Draft) -> Mover:
    """Whom the draft's migrations of some would move, as pins of a company."""
    selections = [
        (kind, key, drafted.versions[f"{kind}:{key}"], selection_of(who))
        for (kind, key), who in drafted.migrations.items()
        if isinstance(who, MigrationDocument)
    ]

    def moved(catalog: Catalog, facts: CompanyFacts, at: datetime) -> tuple[VersionPin, ...]:
        return tuple(
            pin
            for kind, key, version, selection in selections
            for pin in pins_wanted(catalog, facts, at, kind=kind, key=key, version=version, selection=selection)
        )

    return moved


def _intent(environment: Environment, drafted: Draft) -> str:
    """The same for the same document over the same revision, so that a repeat finds the calls already made."""
    said = hashlib.sha256(msgspec.json.encode(document_value(drafted.document))).hexdigest()
    return f"catalog:{environment.id}:{drafted.revision}:{said[:24]}"
