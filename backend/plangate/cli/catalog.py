"""`plangate catalog`: the difference a file would make and for whom, applying it, and writing today's as a file."""

import json
import shlex
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from babel.numbers import format_currency, get_currency_precision

from plangate import catalog as journey
from plangate.catalog import CatalogDiff, Change, Detail, Effect, Imported, Migration, PlanImpact
from plangate.catalog_document import CatalogDocument
from plangate.catalog_file import catalog_text, read_catalog
from plangate.cli.opening import ACTOR, EnvironmentOption, opened, run
from plangate.cli.terminal import hint, out, progress, say, show_json, show_table
from plangate.engine.model import Json
from plangate.errors import StartRefused

app = typer.Typer(
    help="The catalogue as code: plan, apply and pull a YAML file. Example: plangate catalog plan catalog.yaml",
    no_args_is_help=True,
)

_DIFFERS: Final = 2
_SIGNS: Final = {
    "added": ("+", "green"),
    "changed": ("~", "yellow"),
    "archived": ("-", "red"),
    "restored": ("+", "green"),
    "removed": ("-", "red"),
}
_WHO: Final = {"all": "everybody", "some": "some", "none": "nobody"}
_MIGRATES: Final = {
    "all": "its holders get it at once",
    "some": "some of its holders get it",
    "none": "its holders keep theirs",
}
_PERIODS: Final = {
    "day": "per day",
    "week": "per week",
    "month": "per calendar month",
    "billing_month": "per billing month",
    "billing_interval": "per billing period",
    "all_time": "in total",
}

File = Annotated[Path, typer.Argument(help="The catalogue, YAML or JSON; - is the standard input.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Name the companies, and every field.")]


Migrating = Annotated[
    list[str] | None,
    typer.Option(
        "--migrate",
        help="Who gets new versions of what they hold: all, none, pro=none, pro=id=acme,id=globex. May be repeated.",
        metavar="WHO",
    ),
]


@app.command("plan")
def plan_command(
    file: File,
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
    migrate: Migrating = None,
    environment: EnvironmentOption = None,
) -> None:
    """Show what FILE would change, and for how many companies. Exits 0 when nothing, 2 when something.

    Example: plangate catalog plan catalog.yaml -v
    """
    document = _read(file)
    who = journey.read_migrations(migrate) if migrate else None

    async def work() -> CatalogDiff:
        async with opened(environment) as (_, env):
            with progress("Asking the engine about companies:") as counter:
                return await journey.plan(env, document, migrate=who, impact_limit=None, progress=counter)

    diff = run(work)
    if as_json:
        show_json(diff)
    else:
        show_diff(diff, verbose=verbose)
        if not diff.is_empty:
            said = "".join(f" --migrate {shlex.quote(one)}" for one in migrate or ())
            hint(f"\nApply it with: plangate catalog apply {file} --revision {diff.revision}{said}")
    raise typer.Exit(0 if diff.is_empty else _DIFFERS)


@app.command("apply")
def apply_command(
    file: File,
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
    revision: Annotated[
        int | None,
        typer.Option("--revision", help="Refuse unless this revision is in force, as `plan` printed it."),
    ] = None,
    migrate: Migrating = None,
    environment: EnvironmentOption = None,
) -> None:
    """Make FILE the catalogue in force, here and in Stripe. Safe to repeat.

    Example: plangate catalog apply catalog.yaml --revision 3 --migrate none
    """
    document = _read(file)
    who = journey.read_migrations(migrate) if migrate else None

    async def work() -> CatalogDiff:
        async with opened(environment) as (_, env):
            with progress("Applying, here and in Stripe"):
                return await journey.apply(env, document, actor=ACTOR, migrate=who, expected_revision=revision)

    diff = run(work)
    if as_json:
        show_json(diff)
        return
    show_diff(diff, verbose=verbose)
    if diff.is_applied:
        say(f"\nApplied. Revision {diff.revision} is in force.")
        if any(change.migrate == "some" for change in diff.changes):
            hint("The worker moves the companies that were named. See how far with: plangate catalog migrations")


@app.command("migrations")
def migrations_command(
    *,
    retry: Annotated[
        str | None, typer.Option("--retry", help="Try the failed companies of this migration again.", metavar="ID")
    ] = None,
    as_json: AsJson = False,
    environment: EnvironmentOption = None,
) -> None:
    """Show who got the latest versions of plans and add-ons, and how far that is.

    Example: plangate catalog migrations
    """

    async def work() -> list[Migration]:
        async with opened(environment) as (_, env):
            if retry is not None:
                return [await journey.retry_migration(env, retry, actor=ACTOR)]
            return (await journey.migrations(env))[0]

    found = run(work)
    if as_json:
        show_json(found)
    elif not found:
        say("No version was published yet that anybody could migrate to.")
    else:
        show_table(
            ("Migration", "Version", "Who", "State", "Moved", "Left", "Failed"),
            (
                (
                    one.id,
                    f"{one.key} {one.version}",
                    _WHO[one.mode],
                    one.state,
                    f"{one.counts.done:,}" if one.mode == "some" else "",
                    f"{one.counts.pending:,}" if one.mode == "some" else "",
                    f"{one.counts.failed:,}" if one.mode == "some" else "",
                )
                for one in found
            ),
        )


@app.command("pull")
def pull_command(file: File, *, environment: EnvironmentOption = None) -> None:
    """Write the catalogue in force to FILE, always in the same form. Comments in FILE are lost.

    Example: plangate catalog pull catalog.yaml
    """

    async def work() -> CatalogDocument:
        async with opened(environment) as (_, env):
            return await journey.current_document(env)

    _write(file, catalog_text(run(work)))


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="Where to write; - is the standard output.", metavar="FILE")] = Path("-"),
    *,
    stripe: Annotated[bool, typer.Option("--stripe", help="Draft it from the Stripe account.")] = False,
    environment: EnvironmentOption = None,
) -> None:
    """Draft a catalogue from what is sold already: products become plans, and their prices keep their ids.

    Nothing changes until the file is applied. Example: plangate catalog import --stripe catalog.yaml
    """
    if not stripe:
        raise StartRefused("Say where from: plangate catalog import --stripe FILE.")

    async def work() -> Imported:
        async with opened(environment) as (_, env):
            with progress("Reading products and prices in Stripe"):
                return await journey.draft_from_stripe(env)

    imported = run(work)
    _write(file, catalog_text(imported.document))
    for note in imported.notes:
        hint(note)
    if str(file) != "-":
        hint(f"\nSay what each plan grants, then see what it changes: plangate catalog plan {file}")


@app.command("schema")
def schema_command() -> None:
    """Print the JSON schema of the file, for editors. Example: plangate catalog schema > catalog.schema.json"""
    sys.stdout.write(json.dumps(CatalogDocument.model_json_schema(), indent=2, ensure_ascii=False) + "\n")


def show_diff(diff: CatalogDiff, *, verbose: bool = False) -> None:
    """Print a difference for people: one line for each part, its fields below, then who is affected."""
    if diff.is_empty:
        say(f"No difference: revision {diff.revision} says the same.")
        return
    width = max(len(change.key) for change in diff.changes)
    for change in diff.changes:
        _show_change(change, width, verbose=verbose)
    impact = diff.impact
    if impact is None:
        return
    say()
    examined = f"{impact.examined:,} {'company' if impact.examined == 1 else 'companies'}"
    if impact.affected == 0:
        say(f"None of {examined} would notice.")
    else:
        say(f"{impact.affected:,} of {examined} {'is' if impact.affected == 1 else 'are'} affected:")
    for one in impact.plans:
        _show_impact(one, verbose=verbose)
    if not impact.is_complete:
        say("More companies were not looked at.")


def _write(file: Path, text: str) -> None:
    if str(file) == "-":
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StartRefused(f"{file} cannot be written: {error.strerror}.") from None
    say(f"Wrote {file}.")


def _read(file: Path) -> CatalogDocument:
    if str(file) == "-":
        return read_catalog(sys.stdin.read())
    try:
        return read_catalog(file.read_text("utf-8"))
    except OSError as error:
        raise StartRefused(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise StartRefused(f"{file} cannot be read: it is not UTF-8 text.") from None


def _show_change(change: Change, width: int, *, verbose: bool) -> None:
    sign, style = _SIGNS[change.action]
    kind = change.kind.replace("_", "-")
    if change.kind in {"catalog", "setting"}:
        (detail,) = change.details
        out.print(f"{sign} {kind:8} {change.key:{width}}  {_change_text('', detail)}", style=style, markup=False)
        return
    said = [change.name]
    if change.version is not None:
        said.append("version 1" if change.version == 1 else f"version {change.version - 1} → {change.version}")
    if change.migrate is not None:
        said.append(_MIGRATES[change.migrate])
    if change.action in {"archived", "restored", "removed"}:
        said.append(change.action)
    out.print(f"{sign} {kind:8} {change.key:{width}}  {', '.join(said)}", style=style, markup=False)
    if change.action == "added" and not verbose:
        return
    fields = max((len(_field(detail.field)) for detail in change.details), default=0)
    for detail in change.details:
        say(f"    {_field(detail.field):{fields}}  {_change_text(detail.field, detail)}")


def _show_impact(impact: PlanImpact, *, verbose: bool) -> None:
    plan = impact.plan or "no plan"
    say(f"  {plan}: {impact.companies:,} {'company' if impact.companies == 1 else 'companies'}")
    for verbs, style, effects in (
        (("gains", "gain"), "green", impact.gained),
        (("loses", "lose"), "red", impact.lost),
        (("is over the limit of", "are over the limit of"), "red", impact.over_limit),
    ):
        for effect in effects:
            _show_effect(verbs[effect.count != 1], style, effect, verbose=verbose)


def _show_effect(verb: str, style: str, effect: Effect, *, verbose: bool) -> None:
    change = f"{effect.before} → {effect.after}" if effect.before else f"limit {effect.after}"
    out.print(f"    {effect.count:>7,} {verb} {effect.feature}  ({change})", style=style, markup=False)
    if verbose:
        more = effect.count - len(effect.companies)
        say(f"            {', '.join(effect.companies)}{f' and {more:,} more' if more else ''}")


def _field(field: str) -> str:
    section, _, rest = field.partition(".")
    return {"entitlements": rest, "prices": f"price {rest}"}.get(section, field.replace("_", " "))


def _change_text(field: str, detail: Detail) -> str:
    before, after = _value(field, detail.before), _value(field, detail.after)
    return after if detail.before is None else f"{before} → {after}"


def _value(field: str, value: Json) -> str:
    if value is None:
        return "none"
    if field.startswith("prices."):
        return _money(value, field.removeprefix("prices.").partition("/")[0])
    if field.startswith("entitlements.") and isinstance(value, dict):
        return _entitlement(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _entitlement(value: dict[str, Any]) -> str:
    words: list[str] = []
    if "enabled" in value:
        words.append("on" if value["enabled"] else "off")
    if "config" in value:
        words.append(_value("", value["config"]))
    if "limit_trait" in value:
        words.append(f"as many as the trait {value['limit_trait']} says")
    if "limit" in value:
        words.append(_value("", value["limit"]))
    if "period" in value:
        words.append(_PERIODS[value["period"]])
    if "soft_limit" in value:
        words.append(f"(soft limit {value['soft_limit']:,})")
    if value.get("stacking") == "sum":
        words.append("on top")
    if value.get("scope") == "user":
        words.append("for each user")
    return " ".join(words)


def _money(amount_minor: int, currency: str) -> str:
    code = currency.upper()
    amount = Decimal(amount_minor).scaleb(-get_currency_precision(code))
    return format_currency(amount, code, locale="en_US")
