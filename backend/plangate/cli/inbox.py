"""`plangate inbox`: webhooks that could not be acted on, why, and another try."""

from typing import Annotated, Final

import typer

from plangate.cli.opening import EnvironmentOption, opened, run
from plangate.cli.terminal import hint, say, show_json, show_table
from plangate.clock import wall_now
from plangate.errors import StartRefused
from plangate.store.inbox import InboxRow, dead_letters, inbox_figures, revive_events

app = typer.Typer(help="Webhooks that failed. Example: plangate inbox list", no_args_is_help=True)
_SHOWN_MAX: Final = 200


@app.command("list")
def list_command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
    environment: EnvironmentOption = None,
) -> None:
    """List webhooks that failed too often to be tried again by themselves, with the reason. Exits 1 when there are any.

    Example: plangate inbox list
    """

    async def work() -> tuple[dict[str, int], list[InboxRow]]:
        async with opened(environment) as (_, env), env.reading() as session:
            return (await inbox_figures(session))["counts"], await dead_letters(session, limit=_SHOWN_MAX)

    counts, dead = run(work)
    if as_json:
        told = [
            {
                "event": row.stripe_event_id,
                "type": row.type,
                "customer": row.stripe_customer_id,
                "attempts": row.attempts,
                "received_at": row.received_at.isoformat(),
                "reason": row.last_error,
            }
            for row in dead
        ]
        show_json({"counts": counts, "failed": told})
    elif not dead:
        say(f"No webhook failed; {counts.get('pending', 0):,} wait for their turn.")
    else:
        show_table(
            ("Event", "Type", "Customer", "Received", "Reason"),
            (
                (
                    row.stripe_event_id,
                    row.type,
                    row.stripe_customer_id or "",
                    row.received_at.strftime("%Y-%m-%d %H:%M"),
                    row.last_error or "",
                )
                for row in dead
            ),
        )
        hint("See to the reason, then: plangate inbox retry --all")
    raise typer.Exit(1 if dead else 0)


@app.command("retry")
def retry_command(
    events: Annotated[list[str] | None, typer.Argument(help="Ids of events.", metavar="[EVENT]...")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every one that failed.")] = False,
    environment: EnvironmentOption = None,
) -> None:
    """Let failed webhooks be acted on once more, by the worker. Safe: the present state is fetched, no payload is used.

    Example: plangate inbox retry --all
    """
    if bool(events) is everything:
        raise StartRefused("Name the events to try again, or all of them with --all.")

    async def work() -> int:
        async with opened(environment) as (_, env), env.writing() as session:
            return await revive_events(session, None if everything else events or [], wall_now=wall_now())

    revived = run(work)
    say(f"{revived:,} will be acted on by the worker.")
