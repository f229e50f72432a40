"""`plangate app-roles`: who may do what in the Stripe App, as the settings say and as set here, which comes first."""

from typing import Annotated

import typer

from plangate.cli.opening import ACTOR, EnvironmentOption, opened, run
from plangate.cli.terminal import hint, say, show_json, show_table
from plangate.deployment import Deployment
from plangate.errors import StartRefused
from plangate.settings import load_settings
from plangate.store.app_roles import store_role, stored_roles
from plangate.store.audit import append_audit

app = typer.Typer(help="Who may do what in the Stripe App. Example: plangate app-roles list", no_args_is_help=True)

_ROLES = ("viewer", "agent", "admin")
_SETTINGS = "settings"


@app.command("set")
def set_command(
    user: Annotated[str, typer.Argument(help="A dashboard user, usr_…, or * for everybody else.", metavar="USER")],
    role: Annotated[str, typer.Argument(help=f"{', '.join(_ROLES)}, or {_SETTINGS}: as they say.", metavar="ROLE")],
    *,
    environment: EnvironmentOption = None,
) -> None:
    """Set one dashboard user's role; it counts at once, before what the settings say.

    Example: plangate app-roles set usr_NffrFeUfNV2Hib agent
    """
    if role not in {*_ROLES, _SETTINGS}:
        raise StartRefused(f"{role} is not a role. There are: {', '.join(_ROLES)}, and {_SETTINGS}: as they say.")
    if user != "*" and not (user.startswith("usr_") and user.isascii() and user.isprintable() and len(user) <= 255):
        raise StartRefused("A dashboard user looks like usr_…; * stands for everybody else.")
    wanted = None if role == _SETTINGS else role

    async def work() -> None:
        async with opened(environment) as (_, env), env.writing() as session:
            before = (await stored_roles(session)).get(user)
            await store_role(session, user, wanted)
            await append_audit(
                session,
                actor=ACTOR,
                action="app_role.set",
                subject=user,
                before={"role": before},
                after={"role": wanted},
            )

    run(work)
    say(f"{user} is {role} now." if wanted else f"{user} has the role that the settings give.")


@app.command("list")
def list_command(*, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """List who may do what, and where that was said. Example: plangate app-roles list"""
    settings = load_settings()

    async def work() -> dict[str, dict[str, str]]:
        deployment = await Deployment.open(settings)
        try:
            found = {}
            for env in deployment.environments.values():
                async with env.reading() as session:
                    found[env.settings.name] = await stored_roles(session)
            return found
        finally:
            await deployment.close()

    try:
        stored = run(work)
    except StartRefused as refusal:
        stored = {}
        hint(f"Only the settings are listed: {refusal}")
    rows: list[tuple[str, str, str, str]] = []
    for environment in settings.environments:
        own = stored.get(environment.name, {})
        said: dict[str, str] = {"*": "viewer", **environment.stripe_app_roles, **own}
        for user, role in sorted(said.items()):
            origin = "app-roles" if user in own else "settings" if user in environment.stripe_app_roles else "default"
            rows.append((environment.name, user, role, origin))
    if as_json:
        show_json(
            [{"environment": name, "user": user, "role": role, "from": origin} for name, user, role, origin in rows]
        )
        return
    show_table(("Environment", "Stripe user", "Role", "From"), rows)
    hint("Set one with: plangate app-roles set usr_… agent")
