"""Moves some holders of a plan or add-on to a newer version, in the background: who, how far, and what went wrong.

Migrating everybody needs none of this: the revision then says that nobody is left on an older version.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import msgspec
import structlog

from plangate.catalog_compiled import compiled_groups
from plangate.catalog_document import Kind, Migrate, MigrationDocument
from plangate.clock import wall_now
from plangate.engine.catalog import Audience, Catalog, Condition
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, VersionPin
from plangate.engine.holdings import resolve_holdings
from plangate.engine.targeting import is_in_audience
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.ids import new_id
from plangate.shapes import Actor
from plangate.store.audit import append_audit
from plangate.store.companies import owners_of_keys, page_of_companies
from plangate.store.database import StoreSession
from plangate.store.ledger import lock_companies
from plangate.store.population import facts_of_companies
from plangate.store.snapshot import company_facts
from plangate.store.version_migrations import (
    PRICE_PENDING,
    MigratingState,
    VersionMigrationRow,
    claim_companies,
    counts_of,
    list_companies,
    migration_row,
    page_of_migrating,
    page_of_migrations,
    pin_version,
    prices_of,
    retry_failed,
    retry_prices,
    running_migrations,
    settle_company,
    settle_price,
    update_migration,
)
from plangate.usage_windows import rebind_windows

Proration: TypeAlias = Literal["none", "next_invoice", "charge_now"]

_LISTED_AT_ONCE: Final = 200
_MOVED_AT_ONCE: Final = 50
_NAMED_MAX: Final = 10_000
_NAME_LENGTH_MAX: Final = 500
_WORDS: Final = frozenset({"all", "none"})
_CLAIM_SECONDS: Final = 60
_ATTEMPTS_MAX: Final = 8
_BACKOFF_SECONDS_MAX: Final = 3_600
_PRORATIONS: Final[Mapping[str, Proration]] = {
    "none": "none",
    "next_invoice": "next_invoice",
    "charge_now": "charge_now",
}
_log = structlog.get_logger(__name__)


class MigrationCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many companies are in which state. `not_held` were named, but hold nothing older."""

    pending: int = 0
    done: int = 0
    not_held: int = 0
    failed: int = 0


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets one published version. `counts` is for `some`, and for `all` where prices move along.

    `proration` is how the prices paid in Stripe move along (null: they stay); `prices` counts what came of that, by
    outcome.
    """

    id: str
    kind: Literal["plan", "add_on"]
    key: str
    version: int
    mode: Literal["all", "some", "none"]
    state: Literal["running", "finished"]
    counts: MigrationCounts
    proration: Proration | None = None
    prices: Mapping[str, int] = {}
    author: Any
    created_at: datetime
    finished_at: datetime | None


class MigratingCompany(msgspec.Struct, frozen=True, kw_only=True):
    """One company of a migration: `detail` says what went wrong the last time.

    `price` is what came of moving the price it pays, `pending` until then; null where prices stay.
    """

    company: str
    state: Literal["pending", "done", "not_held", "failed"]
    attempts: int
    detail: str | None
    updated_at: datetime
    price: str | None = None
    price_detail: str | None = None


def read_migrations(said: Iterable[str]) -> dict[str, Migrate]:
    """Who gets new versions, from words: `all`, `none`, `KEY=all`, `KEY=none`, `KEY=id=acme,id=globex`.

    The answer is by KEY (or `plan:KEY`, `add_on:KEY`), "" for the rest. Raises Refusal (422).
    """
    found: dict[str, Migrate] = {}
    for one in said:
        key, _, who = one.strip().rpartition("=") if one.strip() in _WORDS else one.strip().partition("=")
        names = [name.strip() for name in who.split(",") if name.strip()]
        is_bounded = len(names) <= _NAMED_MAX and all(len(name) <= _NAME_LENGTH_MAX for name in names)
        if key in found or not names or not is_bounded or (not key and one.strip() not in _WORDS):
            example = "all, none, pro=none or pro=id=acme,id=globex"
            raise invalid("/migrate", f"{one[:100]!r} does not say who migrates: {example}.")
        found[key] = "all" if who == "all" else "none" if who == "none" else MigrationDocument(companies=names)
    return found


def new_migration(
    environment_id: str,
    *,
    kind: Kind,
    key: str,
    version: int,
    wanted: Migrate,
    actor: Actor,
    at: datetime,
    proration: Proration | None = None,
) -> VersionMigrationRow:
    """The row that records who gets a version; only `some`, and prices that move along, are work for afterwards."""
    is_some = isinstance(wanted, MigrationDocument)
    is_work = is_some or (wanted == "all" and proration is not None)
    return VersionMigrationRow(
        id=new_id("mig"),
        environment_id=environment_id,
        kind=kind,
        key=key,
        version=version,
        mode="some" if isinstance(wanted, MigrationDocument) else wanted,
        selection=wanted.model_dump(mode="json", exclude_defaults=True)
        if isinstance(wanted, MigrationDocument)
        else None,
        proration=proration if is_work else None,
        is_listed=not is_work,
        author=msgspec.to_builtins(actor),
        created_at=at,
        finished_at=None if is_work else at,
    )


def pins_wanted(
    catalog: Catalog, facts: CompanyFacts, at: datetime, *, kind: Kind, key: str, version: int, selection: Audience
) -> tuple[VersionPin, ...]:
    """The pin that would move the company; none when it holds nothing older, or is not among those selected."""
    holdings = resolve_holdings(catalog, facts, at)
    held = [one for one, _ in (holdings.plans if kind == "plan" else holdings.add_ons) if one.key == key]
    if not any(one.version < version for one in held):
        return ()
    names = frozenset(one.key for one, _ in holdings.add_ons)
    if not is_in_audience(selection, facts, add_ons=names, products=holdings.products):
        return ()
    return (VersionPin(kind, key, version),)


def selection_of(wanted: MigrationDocument) -> Audience:
    """Those a migration selects, as the engine asks about companies: the named ones are one more group."""
    named = ((Condition(kind="company", values=tuple(wanted.companies)),),) if wanted.companies else ()
    return Audience(key="", plan="", groups=(*named, *compiled_groups(wanted.groups)))


async def migrations(
    environment: Environment, *, before: str | None = None, limit: int = 50
) -> tuple[list[Migration], str | None]:
    """The migrations, newest first, and the cursor for more."""
    async with environment.reading() as session:
        rows = await page_of_migrations(session, before=before, limit=limit + 1)
        counts = await counts_of(session, [row.id for row in rows])
        prices = await prices_of(session, [row.id for row in rows])
    shown = [_view(row, counts[row.id], prices[row.id]) for row in rows[:limit]]
    return shown, shown[-1].id if len(rows) > limit else None


async def migration(environment: Environment, migration_id: str) -> Migration:
    """One migration. Raises Refusal (404)."""
    async with environment.reading() as session:
        row = await _known(session, migration_id)
        counts, prices = await counts_of(session, [row.id]), await prices_of(session, [row.id])
        return _view(row, counts[row.id], prices[row.id])


async def migrating_companies(
    environment: Environment, migration_id: str, *, state: str | None = None, after: str | None = None, limit: int = 50
) -> tuple[list[MigratingCompany], str | None]:
    """The companies of a migration by id, and the cursor for more. Raises Refusal (404)."""
    async with environment.reading() as session:
        await _known(session, migration_id)
        rows = await page_of_migrating(session, migration_id, state=state, after=after, limit=limit + 1)
    shown = [
        MigratingCompany(
            company=row.company_id,
            state=MigratingState(row.state).value,
            attempts=row.attempts,
            detail=row.last_error,
            price=row.price,
            price_detail=row.price_detail,
            updated_at=row.updated_at,
        )
        for row in rows[:limit]
    ]
    return shown, shown[-1].company if len(rows) > limit else None


async def retry_migration(environment: Environment, migration_id: str, *, actor: Actor) -> Migration:
    """Try the companies that failed again, and the prices that could not be moved. Raises Refusal (404)."""
    async with environment.writing() as session:
        row = await _known(session, migration_id)
        again = await retry_failed(session, row.id, wall_now=wall_now())
        again += await retry_prices(session, row.id, wall_now=wall_now())
        if again:
            await update_migration(session, row.id, finished_at=None)
            await append_audit(
                session, actor=actor, action="catalog.migration_retried", subject=row.id, after={"companies": again}
            )
    return await migration(environment, migration_id)


async def carry_on_migrations(environment: Environment) -> int:
    """One step of every running migration: list more companies, then move some. Answers how many were looked at."""
    async with environment.reading() as session:
        running = await running_migrations(session)
    found = 0
    for row in running:
        found += await _list_more(environment, row) if not row.is_listed else 0
        found += await _move_some(environment, row)
        if row.proration is not None:
            # The prices are moved by plan changes, one for each company; this sees when the last one is.
            async with environment.writing() as session:
                await _finish(session, row.id)
    return found


async def _list_more(environment: Environment, row: VersionMigrationRow) -> int:
    if row.mode == "all":
        return await _list_payers(environment, row)
    wanted = MigrationDocument.model_validate(row.selection)
    selection = selection_of(wanted)
    catalog = await environment.catalog()
    kind: Kind = "plan" if row.kind == "plan" else "add_on"
    async with environment.reading() as session:
        if wanted.groups:
            page = await page_of_companies(session, search=None, after=row.listed_until or None, limit=_LISTED_AT_ONCE)
            company_ids, is_listed = [one.id for one in page], len(page) < _LISTED_AT_ONCE
            known = await facts_of_companies(session, page)
        else:
            # Everybody is named, so nobody else needs to be looked at.
            company_ids, is_listed = await _named(session, wanted.companies), True
            named = {one: await company_facts(session, one) for one in company_ids}
            known = {one: facts for one, facts in named.items() if facts is not None}
        chosen = [
            company_id
            for company_id, facts in known.items()
            if pins_wanted(
                catalog, facts, session.now, kind=kind, key=row.key, version=row.version, selection=selection
            )
        ]
    async with environment.writing() as session:
        await list_companies(session, row.id, chosen, wall_now=wall_now())
        await update_migration(
            session, row.id, is_listed=is_listed, listed_until=company_ids[-1] if company_ids else row.listed_until
        )
        await _finish(session, row.id)
    return len(company_ids)


async def _list_payers(environment: Environment, row: VersionMigrationRow) -> int:
    """List those who pay for the plan or add-on; everybody holds the new version already."""
    catalog = await environment.catalog()
    async with environment.reading() as session:
        page = await page_of_companies(session, search=None, after=row.listed_until or None, limit=_LISTED_AT_ONCE)
        known = await facts_of_companies(session, page)
        chosen = [
            company_id
            for company_id, facts in known.items()
            if any(
                (owner := catalog.owner_of(item.stripe_price_id, company_id)) is not None
                and (owner.kind, owner.key) == (row.kind, row.key)
                for fact in facts.subscriptions
                if fact.ended_at is None
                for item in fact.items
            )
        ]
    async with environment.writing() as session:
        await list_companies(session, row.id, chosen, wall_now=wall_now())
        await update_migration(
            session,
            row.id,
            is_listed=len(page) < _LISTED_AT_ONCE,
            listed_until=page[-1].id if page else row.listed_until,
        )
        await _finish(session, row.id)
    return len(page)


async def _named(session: StoreSession, names: Sequence[str]) -> list[str]:
    """The ids of the companies named by id or `key=value`; unknown names are nobody."""
    found = {name for name in names if "=" not in name}
    for name in names:
        key, is_key, value = name.partition("=")
        if is_key:
            found.update((await owners_of_keys(session, {key: value})).values())
    return sorted(found)


async def _move_some(environment: Environment, row: VersionMigrationRow) -> int:
    async with environment.writing() as session:
        claimed = await claim_companies(
            session, row.id, wall_now=wall_now(), lease_seconds=_CLAIM_SECONDS, limit=_MOVED_AT_ONCE
        )
    for one in claimed:
        state, error, available_at = MigratingState.DONE, None, None
        try:
            await _move(environment, row, one.company_id)
        except Exception as problem:  # noqa: BLE001 - one company that cannot be moved must not hold up the others.
            _log.exception("migration_failed", migration=row.id, company=one.company_id)
            error = f"{type(problem).__name__}: {problem}"[:500]
            state = MigratingState.FAILED if one.attempts >= _ATTEMPTS_MAX else MigratingState.PENDING
            pause = min(2**one.attempts, _BACKOFF_SECONDS_MAX)
            available_at = wall_now() + timedelta(seconds=pause)
        if error is not None:
            async with environment.writing() as session:
                await settle_company(
                    session, row.id, one.company_id, state=state, error=error, available_at=available_at
                )
    async with environment.writing() as session:
        await _finish(session, row.id)
    return len(claimed)


async def _move(environment: Environment, row: VersionMigrationRow, company_id: str) -> None:
    """Move one company, and note it, in one transaction; the price it pays follows, if it is to."""
    kind: Kind = "plan" if row.kind == "plan" else "add_on"
    anybody = Audience(key="", plan="", groups=((),))
    async with environment.writing() as session:
        if row.mode == "all":
            await settle_company(session, row.id, company_id, state=MigratingState.DONE)
            await settle_price(session, row.id, company_id, price=PRICE_PENDING, available_at=wall_now())
            return
        await lock_companies(session, [company_id])
        catalog = await environment.catalog_in(session)
        facts = await company_facts(session, company_id)
        pins = (
            ()
            if facts is None
            else pins_wanted(
                catalog, facts, session.now, kind=kind, key=row.key, version=row.version, selection=anybody
            )
        )
        if facts is None or not pins:
            await settle_company(session, row.id, company_id, state=MigratingState.NOT_HELD)
            return
        await pin_version(session, company_id, pins[0], migration_id=row.id)
        before = build_snapshot(catalog, facts, session.now)
        after = build_snapshot(catalog, with_pins(facts, pins), session.now)
        await rebind_windows(environment, session, before, after)
        await environment.touch(session, company_id)
        await settle_company(session, row.id, company_id, state=MigratingState.DONE)
        if row.proration is not None:
            await settle_price(session, row.id, company_id, price=PRICE_PENDING, available_at=wall_now())
        await append_audit(
            session,
            actor=msgspec.convert(row.author, Actor),
            action="catalog.migrated",
            subject=row.id,
            company_id=company_id,
            after={"kind": row.kind, "key": row.key, "version": row.version},
        )


def with_pins(facts: CompanyFacts, pins: Sequence[VersionPin]) -> CompanyFacts:
    """The company's facts once it was moved."""
    return msgspec.structs.replace(facts, pins=(*facts.pins, *pins)) if pins else facts


async def _finish(session: StoreSession, migration_id: str) -> None:
    """Note that a migration is over when every company was looked at and none is left to move."""
    row = await migration_row(session, migration_id)
    if row is None or not row.is_listed or row.finished_at is not None:
        return
    pending = (await counts_of(session, [migration_id]))[migration_id].get(MigratingState.PENDING.value, 0)
    pending += (await prices_of(session, [migration_id]))[migration_id].get(PRICE_PENDING, 0)
    if not pending:
        await update_migration(session, migration_id, finished_at=session.now)


async def _known(session: StoreSession, migration_id: str) -> VersionMigrationRow:
    row = await migration_row(session, migration_id)
    if row is None:
        raise Refusal(Code.NOT_FOUND, "There is no such migration: see GET /v1/catalog/migrations.")
    return row


def _view(row: VersionMigrationRow, counts: dict[str, int], prices: dict[str, int]) -> Migration:
    return Migration(
        id=row.id,
        kind="plan" if row.kind == "plan" else "add_on",
        key=row.key,
        version=row.version,
        mode="all" if row.mode == "all" else "none" if row.mode == "none" else "some",
        state="running" if row.finished_at is None else "finished",
        counts=MigrationCounts(**counts),
        proration=_PRORATIONS.get(row.proration or ""),
        prices=prices,
        author=row.author,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
