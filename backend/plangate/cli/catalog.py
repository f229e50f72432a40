"""`plangate catalog`: the difference a file would make and for whom, applying it, and writing today's as a file."""

import json
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import typer

from plangate import catalog as journey
from plangate.catalog import CatalogDiff, CatalogDraft, Imported, KeptMigration, Migration
from plangate.catalog_document import CatalogDocument, MigrationDocument
from plangate.catalog_file import catalog_text, placed, read_catalog
from plangate.cli.catalog_shown import show_diff, show_impact, show_repriced
from plangate.cli.opening import ACTOR, EnvironmentOption, opened, run
from plangate.cli.terminal import hint, progress, say, show_json, show_table
from plangate.errors import Refusal, StartRefused

app = typer.Typer(
    help="The catalogue as code: plan, apply and pull a YAML file. Example: plangate catalog plan catalog.yaml",
    no_args_is_help=True,
)

T = TypeVar("T")
_DIFFERS: Final = 2
_WHO: Final = {"all": "everybody", "some": "some", "none": "nobody"}

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


Prorating = Annotated[
    Literal["none", "next_invoice", "charge_now"] | None,
    typer.Option(
        "--proration",
        help="Move the prices that migrated subscribers pay in Stripe along, prorated so. Without it they stay.",
    ),
]


@app.command("plan")
def plan_command(
    file: File,
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
    migrate: Migrating = None,
    proration: Prorating = None,
    environment: EnvironmentOption = None,
) -> None:
    """Show what FILE would change, and for how many companies. Exits 0 when nothing, 2 when something.

    Example: plangate catalog plan catalog.yaml -v
    """
    text = _text(file)
    who = journey.read_migrations(migrate) if migrate else None

    async def work(document: CatalogDocument) -> CatalogDiff:
        async with opened(environment) as (_, env):
            with progress("Asking the engine about companies:") as counter:
                return await journey.plan(
                    env, document, migrate=who, proration=proration, impact_limit=None, progress=counter
                )

    diff = _run(text, work)
    if as_json:
        show_json(diff)
    else:
        show_diff(diff, verbose=verbose)
        if not diff.is_empty:
            said = "".join(f" --migrate {shlex.quote(one)}" for one in migrate or ())
            said += f" --proration {proration}" if proration is not None else ""
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
    proration: Prorating = None,
    environment: EnvironmentOption = None,
) -> None:
    """Make FILE the catalogue in force, here and in Stripe. Safe to repeat.

    Example: plangate catalog apply catalog.yaml --revision 3 --migrate none
    """
    text = _text(file)
    who = journey.read_migrations(migrate) if migrate else None

    async def work(document: CatalogDocument) -> CatalogDiff:
        async with opened(environment) as (_, env):
            with progress("Applying, here and in Stripe"):
                return await journey.apply(
                    env, document, actor=ACTOR, migrate=who, proration=proration, expected_revision=revision
                )

    _show_applied(_run(text, work), as_json=as_json, verbose=verbose)


@app.command("draft")
def draft_command(
    file: File,
    *,
    revision: Annotated[
        int | None,
        typer.Option("--revision", help="Base it on this revision, which must be in force."),
    ] = None,
    environment: EnvironmentOption = None,
) -> None:
    """Save FILE as the draft of the catalogue, for others to look at; nothing of it is in force.

    Example: plangate catalog draft catalog.yaml
    """
    text = _text(file)

    async def work(document: CatalogDocument) -> CatalogDraft:
        async with opened(environment) as (_, env):
            return await journey.save_draft(env, document, actor=ACTOR, expected_revision=revision)

    saved = _run(text, work)
    say(f"Saved. The draft is based on revision {saved.revision}.")
    hint("See what it changes: plangate catalog diff")


@app.command("diff")
def diff_command(
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
    migrate: Migrating = None,
    proration: Prorating = None,
    environment: EnvironmentOption = None,
) -> None:
    """Show what publishing the draft would change, and for whom. Exits 0 when nothing, 2 when something.

    Example: plangate catalog diff -v
    """
    who = journey.read_migrations(migrate) if migrate else None

    async def work() -> CatalogDiff:
        async with opened(environment) as (_, env):
            with progress("Asking the engine about companies"):
                return await journey.diff_draft(env, migrate=who, proration=proration)

    diff = run(work)
    if as_json:
        show_json(diff)
    else:
        show_diff(diff, verbose=verbose)
        if not diff.is_empty:
            said = "".join(f" --migrate {shlex.quote(one)}" for one in migrate or ())
            said += f" --proration {proration}" if proration is not None else ""
            hint(f"\nPublish it with: plangate catalog publish{said}")
    raise typer.Exit(0 if diff.is_empty else _DIFFERS)


@app.command("publish")
def publish_command(
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
    migrate: Migrating = None,
    proration: Prorating = None,
    environment: EnvironmentOption = None,
) -> None:
    """Make the draft the catalogue in force, here and in Stripe. Safe to repeat.

    Example: plangate catalog publish --migrate none
    """
    who = journey.read_migrations(migrate) if migrate else None

    async def work() -> CatalogDiff:
        async with opened(environment) as (_, env):
            with progress("Publishing, here and in Stripe"):
                return await journey.publish_draft(env, actor=ACTOR, migrate=who, proration=proration)

    _show_applied(run(work), as_json=as_json, verbose=verbose)


@app.command("discard")
def discard_command(*, environment: EnvironmentOption = None) -> None:
    """Throw the draft away. Example: plangate catalog discard"""

    async def work() -> CatalogDraft:
        async with opened(environment) as (_, env):
            return await journey.discard_draft(env, actor=ACTOR)

    run(work)
    say("There is no draft any more.")


@app.command("migrate")
def migrate_command(
    key: Annotated[str, typer.Argument(help="A plan or add-on; plan:KEY where both are called so.", metavar="KEY")],
    *,
    companies: Annotated[
        str | None,
        typer.Option("--companies", help="Only these, by id or key: id=acme,id=globex.", metavar="NAMES"),
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody who was left on an older version.")] = False,
    proration: Prorating = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show for whom what would change.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    environment: EnvironmentOption = None,
) -> None:
    """Give the newest version of KEY to those who were left on an older one.

    Example: plangate catalog migrate pro --companies id=acme --dry-run
    """
    if everybody is (companies is not None):
        raise StartRefused("Say who: --all, or --companies id=acme,id=globex.")
    who: Literal["all"] | MigrationDocument = "all"
    if companies is not None:
        read = journey.read_migrations([f"x={companies}"])["x"]
        if not isinstance(read, MigrationDocument):
            raise StartRefused("Name companies by id or key: --companies id=acme,id=globex.")
        who = read

    async def work() -> KeptMigration:
        async with opened(environment) as (_, env):
            if not dry_run:
                return await journey.migrate_kept(env, key, who, actor=ACTOR, proration=proration)
            with progress("Asking the engine about companies:") as counter:
                return await journey.plan_migration(
                    env, key, who, proration=proration, impact_limit=None, progress=counter
                )

    found = run(work)
    if as_json:
        show_json(found)
        return
    if found.impact is not None:
        show_impact(found.impact, verbose=verbose)
        show_repriced(found.repriced)
        return
    say(f"{_WHO[found.mode].capitalize()} left on an older version of {found.key} gets version {found.version}.")
    if found.mode == "some":
        hint("The worker moves them. See how far with: plangate catalog migrations")


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
            ("Migration", "Version", "Who", "State", "Moved", "Left", "Failed", "Prices"),
            (
                (
                    one.id,
                    f"{one.key} {one.version}",
                    _WHO[one.mode],
                    one.state,
                    f"{one.counts.done:,}" if one.mode == "some" or one.proration else "",
                    f"{one.counts.pending:,}" if one.mode == "some" or one.proration else "",
                    f"{one.counts.failed:,}" if one.mode == "some" or one.proration else "",
                    ", ".join(f"{number:,} {outcome}" for outcome, number in one.prices.items()),
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


def _show_applied(diff: CatalogDiff, *, as_json: bool, verbose: bool) -> None:
    if as_json:
        show_json(diff)
        return
    show_diff(diff, verbose=verbose)
    if diff.is_applied:
        say(f"\nApplied. Revision {diff.revision} is in force.")
        if any(change.migrate == "some" for change in diff.changes):
            hint("The worker moves the companies, one by one. See how far with: plangate catalog migrations")


def _write(file: Path, text: str) -> None:
    if str(file) == "-":
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StartRefused(f"{file} cannot be written: {error.strerror}.") from None
    say(f"Wrote {file}.")


def _run(text: str, work: Callable[[CatalogDocument], Awaitable[T]]) -> T:
    """Work with the catalogue of the file; what is refused of it is told with its line."""
    document = read_catalog(text)
    try:
        return run(lambda: work(document))
    except Refusal as refusal:
        raise placed(refusal, text) from None


def _text(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise StartRefused(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise StartRefused(f"{file} cannot be read: it is not UTF-8 text.") from None
