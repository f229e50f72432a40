"""`plangate audit`: proves that nobody changed what was written about who changed what."""

from typing import Annotated

import typer

from plangate.cli.opening import EnvironmentOption, opened, run
from plangate.cli.terminal import hint, say, show_json
from plangate.store.audit import audit_head, first_broken

app = typer.Typer(help="The record of who changed what. Example: plangate audit verify", no_args_is_help=True)


@app.callback()
def record() -> None:
    """The record of who changed what. Example: plangate audit verify"""


@app.command("verify")
def verify_command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
    environment: EnvironmentOption = None,
) -> None:
    """Follow the chain of audit entries from the first to the last. Exits 1 where one was changed or taken out.

    Example: plangate audit verify
    """

    async def work() -> tuple[int, str, tuple[int, str] | None]:
        async with opened(environment) as (_, env), env.reading() as session:
            entries, last_hash = await audit_head(session)
            return entries, last_hash, await first_broken(session)

    entries, last_hash, broken = run(work)
    if as_json:
        fault = None if broken is None else {"sequence": broken[0], "detail": broken[1]}
        show_json({"entries": entries, "hash": last_hash, "broken": fault})
    elif broken is None:
        say(f"{entries:,} entries, unbroken.")
        hint(f"The chain ends in {last_hash or 'nothing yet'}. Whoever noted an earlier end can look for it.")
    else:
        say(f"Entry {broken[0]:,} {broken[1]}.")
    raise typer.Exit(0 if broken is None else 1)
