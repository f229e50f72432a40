"""`plangate keys`: API keys. The first one is made here, because the API needs one to be asked anything."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from plangate.cli.opening import EnvironmentOption, opened, run
from plangate.cli.terminal import hint, say, show_json, show_table
from plangate.deployment import SCOPES, KeyKind, create_key
from plangate.errors import StartRefused
from plangate.store.environments import ApiKeyRow, live_keys, revoke_key

app = typer.Typer(
    help="API keys: shown once when made, stored as a hash. Example: plangate keys create --name backend",
    no_args_is_help=True,
)


@app.command("create")
def create_command(
    name: Annotated[str, typer.Option("--name", "-n", help="What it is for, such as backend.", metavar="TEXT")],
    *,
    publishable: Annotated[bool, typer.Option("--publishable", help="For browsers: it sees what is on sale.")] = False,
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help=f"May be given several times: {', '.join(SCOPES)}. All when none is given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
    environment: EnvironmentOption = None,
) -> None:
    """Make an API key and print it; it cannot be shown again.

    Example: plangate keys create --name backend --scope check --scope track
    """
    unknown = [scope for scope in scopes or () if scope not in SCOPES]
    if unknown:
        raise StartRefused(f"{unknown[0]} is not a scope. There are: {', '.join(SCOPES)}.")
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise StartRefused("A key's name has 1 to 100 printable characters.")
    kind: KeyKind = "publishable" if publishable else "secret"

    async def work() -> tuple[str, ApiKeyRow]:
        async with opened(environment) as (_, env):
            return await create_key(env, kind=kind, name=name, scopes=scopes or SCOPES)

    raw, row = run(work)
    if as_json:
        show_json({"id": row.id, "key": raw, "kind": row.kind, "name": row.name, "scopes": row.scopes})
        return
    # The key alone goes to the standard output, so that a script can keep it.
    sys.stdout.write(raw + "\n")
    hint(f"{row.kind} key {row.id}, {', '.join(row.scopes) or 'what is on sale'}. Keep it now: it is stored as a hash.")


@app.command("list")
def list_command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
    environment: EnvironmentOption = None,
) -> None:
    """List the keys, newest first, revoked ones included. Example: plangate keys list"""

    async def work() -> Sequence[ApiKeyRow]:
        async with opened(environment) as (_, env), env.reading() as session:
            return await live_keys(session)

    rows = run(work)
    if as_json:
        shown = {"id", "kind", "name", "hint", "scopes", "created_at", "revoked_at"}
        show_json([row.model_dump(include=shown) for row in rows])
        return
    if not rows:
        say("There are no keys yet.")
        hint("Make one with: plangate keys create --name backend")
        return
    show_table(
        ("Id", "Kind", "Name", "Key", "Scopes", "Made", "Revoked"),
        (
            (
                row.id,
                row.kind,
                row.name,
                row.hint,
                " ".join(row.scopes),
                f"{row.created_at:%Y-%m-%d}",
                "" if row.revoked_at is None else f"{row.revoked_at:%Y-%m-%d}",
            )
            for row in rows
        ),
    )


@app.command("revoke")
def revoke_command(
    key_id: Annotated[str, typer.Argument(help="As `plangate keys list` shows it.", metavar="ID")],
    *,
    environment: EnvironmentOption = None,
) -> None:
    """Revoke a key for good; every server refuses it within a second. Example: plangate keys revoke key_01kb…"""

    async def work() -> bool:
        async with opened(environment) as (_, env), env.writing() as session:
            is_revoked = await revoke_key(session, key_id)
            if is_revoked:
                env.touch_everything(session)
            return is_revoked

    if not run(work):
        raise StartRefused(f"There is no live key {key_id}. See: plangate keys list")
    say(f"Revoked {key_id}.")
