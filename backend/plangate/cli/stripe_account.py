"""What concerns Stripe: the sandbox, importing, comparing, and that app's manifest."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
import uvicorn

from plangate import drift, importing
from plangate.billing.failures import StripeFailure
from plangate.cli.opening import EnvironmentOption, opened, run
from plangate.cli.ports import refuse_taken_port
from plangate.cli.shipped import dashboard_app_manifest
from plangate.cli.terminal import hint, out, say, show_json, show_table, steps
from plangate.errors import StartRefused
from plangate.sandbox.app import create_app
from plangate.sandbox.config import SandboxConfig

dashboard_app = typer.Typer(
    help="The Plangate app in the Stripe dashboard. Example: plangate stripe-app manifest --url https://plangate.example.com",
    no_args_is_help=True,
)

# A stand-in guards nothing, so everybody may know its secrets.
_SECRET_KEY: Final = "sk_test_sandbox"
_WEBHOOK_SECRET: Final = "whsec_sandbox"

# What to do about drift, by whether it is of usage, and of Stripe's meters.
_WAY_OUT: Final = {
    (False, False): "Take Stripe's word with: plangate verify --repair",
    (True, False): "Count again from the ledger with: plangate verify --usage --repair",
    (True, True): "Report again what was set aside with: plangate verify --usage --stripe --repair",
}

_FAILED_SHOWN: Final = 10
_UNMAPPED_SHOWN: Final = 25

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    """Add `sandbox`, `sync` and `verify` to the command line."""
    app.command("sandbox")(sandbox_command)
    app.command("sync")(sync_command)
    app.command("verify")(verify_command)


def sandbox_command(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8788,
    secret_key: Annotated[str, typer.Option(help="The only API key it accepts.")] = _SECRET_KEY,
    account: Annotated[str, typer.Option(help="Its account id.")] = "acct_sandbox",
    webhook_url: Annotated[str | None, typer.Option(help="Where events go.")] = None,
    webhook_secret: Annotated[str, typer.Option(help="Signs them.")] = _WEBHOOK_SECRET,
    clock_url: Annotated[str | None, typer.Option(help="A Plangate clock that moves along.")] = None,
    clock_key: Annotated[str | None, typer.Option(envvar="PLANGATE_CLOCK_KEY", help="An admin key for it.")] = None,
    state: Annotated[Path | None, typer.Option(help="Keep everything in this file between runs.")] = None,
) -> None:
    """Run the Stripe stand-in alone, with its clock and fault controls.

    Example: plangate sandbox --port 8788 --webhook-url http://127.0.0.1:8787/webhooks/stripe
    """
    refuse_taken_port(host, port)
    config = SandboxConfig(
        secret_key=secret_key,
        account_id=account,
        public_url=f"http://{host}:{port}",
        webhook_url=webhook_url,
        webhook_secret=webhook_secret,
        clock_url=clock_url,
        clock_key=clock_key,
        state_path=state,
    )
    say(f"Sandbox   http://{host}:{port}   (API key {secret_key})")
    hint("Point Plangate at it with PLANGATE_STRIPE_API_BASE. Ctrl-C ends it.")
    uvicorn.run(create_app(config), host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)


def sync_command(
    *,
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Also make companies of customers that hold none of our prices.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew instead of going on with an import that was stopped.")
    ] = False,
    as_json: AsJson = False,
    environment: EnvironmentOption = None,
) -> None:
    """Import every customer, subscription and schedule from Stripe. Safe to repeat; one that was stopped goes on.

    Exits 1 when some customers could not be imported.

    Example: plangate sync
    """

    async def work() -> importing.ImportReport:
        async with opened(environment) as (_, env):
            with steps() as progress:
                return await importing.import_account(
                    env, is_every_customer_wanted=everybody, is_restarted=restart, progress=progress
                )

    try:
        report = run(work)
    except (KeyboardInterrupt, StripeFailure):
        hint("What was imported stays. Go on from there with: plangate sync")
        raise
    if as_json:
        show_json(report)
        raise typer.Exit(1 if report.failed else 0)
    if report.is_resumed:
        say("Went on with the import that was stopped.")
    say(f"{report.customers:,} customers seen, {report.companies:,} are ours, {report.changed:,} changed.")
    if report.unmapped:
        say(f"\n{len(report.unmapped):,} prices that customers pay belong to no plan or add-on:")
        show_table(
            ("Price", "Product", "Amount", "Customers", "Such as"),
            (
                (one.stripe_price_id, one.stripe_product_id, _amount(one), f"{one.customers:,}", " ".join(one.examples))
                for one in report.unmapped[:_UNMAPPED_SHOWN]
            ),
        )
        if len(report.unmapped) > _UNMAPPED_SHOWN:
            hint("All of them: plangate sync --json")
        if report.unmapped_beyond:
            say(f"Prices beyond these were not told apart: customers hold {report.unmapped_beyond:,} of them.")
        hint("Name them in the catalogue as `stripe_price`, or draft one with: plangate catalog import --stripe")
    if report.failed:
        say(f"\n{len(report.failed):,} customers could not be imported: {', '.join(report.failed[:_FAILED_SHOWN])}")
        hint("Try them again with: plangate sync")
    else:
        hint("Compare at any time with: plangate verify")
    raise typer.Exit(1 if report.failed else 0)


def _amount(one: importing.Unmapped) -> str:
    amount = "by tiers" if one.amount_minor is None else f"{one.amount_minor:,} minor units"
    every = one.interval if one.interval_count == 1 else f"{one.interval_count} {one.interval}s"
    return f"{amount} {one.currency} / {every or 'once'}"


def verify_command(
    *,
    usage: Annotated[bool, typer.Option("--usage", help="Compare counters with the usage ledger instead.")] = False,
    stripe_meters: Annotated[
        bool, typer.Option("--stripe", help="With --usage: compare what was reported with Stripe's meters.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch or count again what differs, one company at a time.")
    ] = False,
    as_json: AsJson = False,
    environment: EnvironmentOption = None,
) -> None:
    """Compare every company with Stripe, counters with the ledger, or reports with Stripe's meters.

    Exits 1 when something differs.

    Example: plangate verify --repair
    """

    if stripe_meters and not usage:
        raise StartRefused("--stripe goes with --usage; without --usage it is Stripe that is compared.")

    async def work() -> list[drift.Drift]:
        async with opened(environment) as (_, env):
            with steps() as progress:
                if usage and stripe_meters:
                    return await drift.meter_drift(env, repair=repair, progress=progress)
                if usage:
                    return await drift.usage_drift(env, repair=repair, progress=progress)
                return await drift.stripe_drift(env, repair=repair, progress=progress)

    found = run(work)
    left = [one for one in found if not one.is_repaired]
    if as_json:
        show_json(found)
    elif not found:
        say("No drift.")
    else:
        show_table(
            ("Company", "Class", "Subject", "Difference", ""),
            (
                (one.company, one.kind.value, one.subject, one.detail, "repaired" if one.is_repaired else "")
                for one in found
            ),
        )
        counted = Counter(one.kind.value for one in found)
        classes = ", ".join(f"{number:,} {kind}" for kind, number in counted.most_common())
        say(f"\n{len(found):,} differences ({classes}), {len(found) - len(left):,} repaired.")
        if not repair and any(one.kind not in drift.FOR_PEOPLE for one in left):
            hint(_WAY_OUT[usage, stripe_meters])
        elif left:
            hint("What to do about each class is said in docs/how-to/runbook.md.")
    raise typer.Exit(1 if left else 0)


@dashboard_app.command("manifest")
def manifest_command(
    url: Annotated[str, typer.Option("--url", help="Where browsers reach this deployment.", metavar="URL")],
) -> None:
    """Print stripe-app.json for this deployment.

    Example: plangate stripe-app manifest --url https://plangate.example.com > stripe-app/stripe-app.json
    """
    parsed = urlsplit(url)
    is_local = parsed.hostname in {"127.0.0.1", "localhost"}
    if parsed.scheme not in ({"http", "https"} if is_local else {"https"}) or not parsed.hostname or parsed.query:
        raise StartRefused("--url is an https address such as https://plangate.example.com.")
    out.print_json(json.dumps(manifest_for(dashboard_app_manifest(), url)))


def manifest_for(manifest: dict[str, Any], url: str) -> dict[str, Any]:
    """The app's manifest with the deployment at `url` as the only place it may talk to."""
    base = f"{url.rstrip('/')}/stripe-app/v1/"
    extension = manifest["ui_extension"]
    policy = {**extension["content_security_policy"], "connect-src": [base]}
    return {
        **manifest,
        "ui_extension": {**extension, "content_security_policy": policy},
        "constants": {**manifest["constants"], "API_BASE": base},
    }
