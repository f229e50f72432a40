"""`plangate demo`: everything in one process, offline, with the addresses and what to try."""

from pathlib import Path
from typing import Annotated, Final

import typer

from plangate.cli.shipped import demo_catalog_text
from plangate.cli.terminal import err, hint, out
from plangate.demo import DemoAddresses, run_demo

_LAST_FIRST_PORT: Final = 65_533


def register(app: typer.Typer) -> None:
    """Add `demo` to the command line."""
    app.command("demo")(demo_command)


def demo_command(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=_LAST_FIRST_PORT, help="The first of three: Plangate, the sandbox, the site.")
    ] = 8787,
    data: Annotated[
        Path | None, typer.Option(help="Keep everything in this folder between runs; a temporary one otherwise.")
    ] = None,
) -> None:
    """Try Plangate offline: the Stripe sandbox, the server and a customer's site, filled with four companies.

    Example: plangate demo --port 8800 --data ./demo
    """
    status = err.status("Starting")
    status.start()

    def ready(addresses: DemoAddresses) -> None:
        status.stop()
        _welcome(addresses, data)

    try:
        run_demo(
            port=port,
            data=data,
            catalog_text=demo_catalog_text(),
            step=status.update,
            ready=ready,
        )
    finally:
        status.stop()
    hint("The demo has ended." if data is None else f"The demo has ended. Its state is kept in {data}.")


def _welcome(addresses: DemoAddresses, data: Path | None) -> None:
    where = (
        ("Site", addresses.site, "Northwind Notes, a product that sells plans"),
        ("Plangate", addresses.plangate, "API, components, webhooks, Stripe App"),
        ("Sandbox", addresses.sandbox, "the Stripe stand-in: its clock, requests and faults"),
    )
    out.print()
    for name, address, what in where:
        out.print(f"  [bold]{name:9}[/bold] [cyan]{address}[/cyan]   [dim]{what}[/dim]")
    out.print("\n  [bold]Try[/bold]")
    for number, text in enumerate(
        (
            f"Open {addresses.site}/app as Acme and export until the 11th export is refused.",
            f"Take Pro at {addresses.site}/pricing, pay in the sandbox's Checkout, and export again.",
            f"Move to Starter at {addresses.site}/billing: it waits for the end of the period.",
            f"Advance the clock by a month at {addresses.sandbox}, and look at the page again.",
        ),
        1,
    ):
        out.print(f"  {number}. {text}", markup=False)
    if data is not None:
        out.print(f"\n  [dim]Keys: {data / 'demo.json'}   Log: {data / 'demo.log'}[/dim]")
    hint("\n  Ctrl-C ends it.")
