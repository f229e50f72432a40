"""The `plangate` command: every subcommand, and how a refusal ends one: a sentence, the way out, exit code 1."""

import sys
from typing import Final, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError

from plangate import __version__
from plangate.cli import app_roles, audit, catalog, demonstration, inbox, keys, reviews, serving, stripe_account
from plangate.cli.terminal import complain
from plangate.errors import Refusal, StartRefused

_INTERRUPTED: Final = 130

app = typer.Typer(
    name="plangate",
    help="Entitlements beside your own Stripe account. Try it offline: [bold]plangate demo[/bold]",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
demonstration.register(app)
serving.register(app)
stripe_account.register(app)
app.add_typer(catalog.app, name="catalog")
app.add_typer(keys.app, name="keys")
app.add_typer(app_roles.app, name="app-roles")
app.add_typer(audit.app, name="audit")
app.add_typer(inbox.app, name="inbox")
app.add_typer(reviews.app, name="reviews")
app.add_typer(stripe_account.dashboard_app, name="stripe-app")


@app.command()
def version() -> None:
    """Print the version. Example: plangate version"""
    typer.echo(__version__)


def main() -> NoReturn:
    """Run the command line. Exits 0, 1 for a refusal, 2 for wrong usage or a difference found, 130 when interrupted."""
    try:
        app()
    except StartRefused as refusal:
        complain(str(refusal))
    except Refusal as refusal:
        complain(refusal.detail, *(f"{error.pointer or '/'} {error.detail}" for error in refusal.errors[1:]))
    except SQLAlchemyError as error:
        complain(f"The database refused: {_first_line(error)}. Check PLANGATE_DATABASE_URL.")
    except BrokenPipeError:
        sys.stderr.close()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    sys.exit(1)


def _first_line(error: SQLAlchemyError) -> str:
    # The statement and its parameters follow on later lines, and may hold what nobody should read here.
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0].rstrip(".")
