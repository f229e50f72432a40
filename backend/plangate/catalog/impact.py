"""The blast radius of a new catalogue: which companies would gain, lose or be over a limit, as the engine says."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from plangate.catalog.migrating import with_pins
from plangate.engine.catalog import Catalog
from plangate.engine.effects import effects, violations
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, VersionPin, WindowCounter
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.values import PeriodKind
from plangate.engine.wording import granted_text, granted_value
from plangate.environment import Environment
from plangate.store.companies import CompanyRow, keys_of, page_of_companies
from plangate.store.database import StoreSession
from plangate.store.population import facts_of_companies
from plangate.store.usage import newest_windows

_PAGE: Final = 200
_NAMED: Final = 100

# The pins that a company would get under a catalogue, beyond those it has.
Mover: TypeAlias = Callable[[Catalog, CompanyFacts, datetime], tuple[VersionPin, ...]]
# The facts of a company as they are once the publication has begun.
Rememberer: TypeAlias = Callable[[CompanyFacts, datetime], CompanyFacts]
_Said: TypeAlias = tuple[str, str, str, str]  # feature, its name, before and after in words


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """How many companies one feature changes for. `companies` names up to 100 of them."""

    feature: str
    name: str
    count: int
    before: str = ""
    after: str = ""
    companies: tuple[str, ...] = ()


class PlanImpact(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to the companies whose base plan is `plan` (None: those without one)."""

    plan: str | None
    companies: int
    gained: tuple[Effect, ...] = ()
    lost: tuple[Effect, ...] = ()
    over_limit: tuple[Effect, ...] = ()


class Impact(msgspec.Struct, frozen=True, kw_only=True):
    """The blast radius. `examined` counts the companies looked at; `is_complete` is False when there were more."""

    examined: int = 0
    affected: int = 0
    is_complete: bool = True
    plans: tuple[PlanImpact, ...] = ()


class _Tally:
    """Counts of one plan's companies, by feature and by what changes."""

    def __init__(self) -> None:
        self.companies = 0
        self.gained: dict[_Said, list[str]] = {}
        self.lost: dict[_Said, list[str]] = {}
        self.over_limit: dict[_Said, list[str]] = {}


async def impact_of(
    environment: Environment,
    before: Catalog,
    after: Catalog,
    *,
    moved: Mover,
    remembered: Rememberer = lambda facts, at: facts,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Impact:
    """Ask the engine about every company (or the first `limit`) under both catalogues, a page at a time.

    `moved` says which versions a company is moved to beyond what the new catalogue moves everybody to, `remembered`
    what is written down about it before.
    """
    tallies: dict[str | None, _Tally] = {}
    examined = affected = 0
    cursor: str | None = None
    is_complete = True
    while True:
        async with environment.reading() as session:
            rows = await page_of_companies(session, search=None, after=cursor, limit=_PAGE)
            names = await keys_of(session, [row.id for row in rows])
            found_facts = await facts_of_companies(session, rows)
            counted = await _counters(session, [row.id for row in rows])
            for row in rows:
                facts = found_facts[row.id]
                old = build_snapshot(before, facts, session.now)
                later = remembered(facts, session.now)
                pins = moved(after, later, session.now)
                new = build_snapshot(after, with_pins(later, pins), session.now)
                examined += 1
                gained, lost = _differences(old, new)
                if not gained and not lost:
                    continue
                affected += 1
                name = _name(row, names[row.id])
                tally = tallies.setdefault(old.plan.key if old.plan is not None else None, _Tally())
                tally.companies += 1
                for found, effect in (*((tally.gained, one) for one in gained), *((tally.lost, one) for one in lost)):
                    found.setdefault(effect, []).append(name)
                counters = counted[row.id]
                # Being over a limit already, be it a lower one, is not this change's doing.
                already = {one.feature for one in violations(old, counters, effective_at=session.now)}
                for violation in violations(new, counters, effective_at=session.now, before=old):
                    if violation.feature not in already:
                        over: _Said = (violation.feature, violation.name, "", f"{violation.limit:,}")
                        tally.over_limit.setdefault(over, []).append(name)
        if progress is not None:
            progress(examined)
        if len(rows) < _PAGE:
            break
        if limit is not None and examined >= limit:
            is_complete = False
            break
        cursor = rows[-1].id
    return Impact(
        examined=examined,
        affected=affected,
        is_complete=is_complete,
        plans=tuple(
            PlanImpact(
                plan=plan,
                companies=tally.companies,
                gained=_effects(tally.gained),
                lost=_effects(tally.lost),
                over_limit=_effects(tally.over_limit),
            )
            for plan, tally in tallies.items()
        ),
    )


async def _counters(
    session: StoreSession, company_ids: Sequence[str]
) -> dict[str, dict[tuple[str, PeriodKind, str], WindowCounter]]:
    """The companies' own newest windows."""
    found: dict[str, dict[tuple[str, PeriodKind, str], WindowCounter]] = {one: {} for one in company_ids}
    for (company_id, feature, kind, user_id), window in (await newest_windows(session, company_ids)).items():
        found[company_id][feature, kind, user_id] = window
    return found


def _differences(old: CompanySnapshot, new: CompanySnapshot) -> tuple[list[_Said], list[_Said]]:
    """What is gained and lost, features that appear or are archived included."""
    gained, lost = (
        [(one.feature, one.name, one.before_text, one.after_text) for one in found] for found in effects(old, new)
    )
    for key, compiled in new.features.items():
        feature, earlier = compiled.feature, old.features.get(key)
        if earlier is None and granted_value(compiled.answer) not in {None, False}:
            gained.append((key, feature.name, "not included", granted_text(feature, compiled.answer)))
        if earlier is None or not feature.is_archived or earlier.feature.is_archived:
            continue
        if granted_value(earlier.answer) not in {None, False}:
            lost.append((key, feature.name, granted_text(earlier.feature, earlier.answer), "archived"))
    return gained, lost


def _effects(found: dict[_Said, list[str]]) -> tuple[Effect, ...]:
    return tuple(
        Effect(
            feature=feature,
            name=name,
            count=len(companies),
            before=before,
            after=after,
            companies=tuple(companies[:_NAMED]),
        )
        for (feature, name, before, after), companies in found.items()
    )


def _name(row: CompanyRow, keys: Sequence[tuple[str, str]]) -> str:
    """How people know the company: its name, else its first key, else its id."""
    return row.name or (f"{keys[0][0]}={keys[0][1]}" if keys else row.id)
