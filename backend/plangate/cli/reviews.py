"""`plangate reviews`: refunds and disputes that wait for a person, and their decision."""

from typing import Annotated

import typer

from plangate import reviews
from plangate.cli.opening import ACTOR, EnvironmentOption, opened, run
from plangate.cli.terminal import hint, say, show_json, show_table
from plangate.errors import StartRefused

app = typer.Typer(help="Refunds and disputes to look at. Example: plangate reviews list", no_args_is_help=True)


@app.command("list")
def list_command(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were resolved.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
    environment: EnvironmentOption = None,
) -> None:
    """List refunds and disputes that wait for a person, newest first; at most 100. Example: plangate reviews list"""

    async def work() -> list[reviews.Review]:
        async with opened(environment) as (_, env):
            return await reviews.listing(env, state=None if everything else reviews.ReviewState.OPEN)

    found = run(work)
    if as_json:
        show_json(found)
    elif not found:
        say("Nothing to review.")
    else:
        show_table(
            ("Review", "Company", "What", "Amount", "Stripe says", "Access", "State"),
            (
                (
                    one.id,
                    one.company,
                    one.kind,
                    f"{one.amount_minor:,} minor units {one.currency}",
                    one.stripe_status,
                    one.access,
                    one.outcome or one.state.value,
                )
                for one in found
            ),
        )
        hint('Decide with: plangate reviews resolve REVIEW --keep --note "…"')


@app.command("resolve")
def resolve_command(
    review: Annotated[str, typer.Argument(help="The review's id.", metavar="REVIEW")],
    *,
    keep: Annotated[bool, typer.Option("--keep", help="The company keeps what the subscription grants.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="The subscription grants nothing from now on.")] = False,
    note: Annotated[str, typer.Option(help="Why.")],
    environment: EnvironmentOption = None,
) -> None:
    """Decide on a refund or dispute; nothing is changed in Stripe, and it can be decided anew.

    Example: plangate reviews resolve rev_01… --keep --note "Agreed with the customer"
    """
    if keep is revoke:
        raise StartRefused("Say --keep or --revoke.")

    async def work() -> reviews.Review:
        async with opened(environment) as (_, env):
            return await reviews.resolve(env, review, access="keep" if keep else "revoke", note=note, actor=ACTOR)

    decided = run(work)
    say(f"{decided.id} is resolved: {decided.company} {'keeps its access' if keep else 'has no access through it'}.")
