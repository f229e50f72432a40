"""Settings: environment variables with the prefix PLANGATE_ for one environment, `plangate.toml` for several.

Every setting is listed in docs/reference/settings.md, held to this file by a test.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from plangate.errors import StartRefused

PREFIX = "PLANGATE_"
DEFAULT_DATABASE = "sqlite:///plangate.sqlite3"
_MINIMUM_SECRET = 32

Role = Literal["viewer", "agent", "admin"]


def _words(value: object) -> object:
    return [word for word in value.replace(",", " ").split() if word] if isinstance(value, str) else value


class EnvironmentSettings(BaseModel):
    """One environment: one Stripe account in one mode, its secrets and its rules."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = "default"
    stripe_secret_key: str | None = None
    stripe_account: str = ""
    stripe_mode: Literal["live", "test"] = "test"
    stripe_api_base: str | None = None
    stripe_requests_per_second: Annotated[int, Field(ge=1, le=1_000)] | None = None
    stripe_webhook_secrets: tuple[str, ...] = ()
    stripe_app_secrets: tuple[str, ...] = ()
    stripe_app_roles: Mapping[str, Role] = Field(default_factory=dict)
    allowed_origins: tuple[str, ...] = ()
    time_zone: str = "UTC"

    @property
    def long_work_per_second(self) -> int:
        """How often an import or a comparison asks Stripe, which refuses more than 100 (live) or 25 (test) a second."""
        return self.stripe_requests_per_second or (80 if self.stripe_mode == "live" else 20)

    @field_validator("stripe_webhook_secrets", "stripe_app_secrets", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _words(value)

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            scheme, _, rest = origin.partition("://")
            if scheme not in {"http", "https"} or not rest or "/" in rest or "*" in rest:
                raise ValueError(f"{origin!r} is not an origin such as https://app.example.com")
        return value

    @field_validator("stripe_app_roles", mode="before")
    @classmethod
    def _roles(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        roles: dict[str, str] = {}
        for pair in _words(value):  # type: ignore[attr-defined]  # a list, as value is a text
            user, separator, role = pair.partition("=")
            if not separator:
                raise ValueError(f"{pair!r} is not user=role, such as usr_123=admin")
            roles[user] = role
        return roles

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not a time zone such as Europe/Berlin") from error
        return value


class Settings(BaseModel):
    """What one Plangate process needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: str = DEFAULT_DATABASE
    secret_keys: tuple[str, ...] = ()
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    rate_limit_per_second: Annotated[int, Field(ge=1)] = 2_000
    address_rate_limit_per_second: Annotated[int, Field(ge=1)] = 200
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    environments: tuple[EnvironmentSettings, ...] = (EnvironmentSettings(),)

    @field_validator("secret_keys", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _words(value)

    @field_validator("secret_keys")
    @classmethod
    def _long_enough(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(secret) < _MINIMUM_SECRET for secret in value):
            raise ValueError(f"each secret needs at least {_MINIMUM_SECRET} characters")
        return value


def load_settings(variables: Mapping[str, str] | None = None, *, folder: Path | None = None) -> Settings:
    """Read `plangate.toml` in `folder` (default: the working directory), then environment variables, which win.

    Raises StartRefused with one sentence that names the setting at fault.
    """
    variables = os.environ if variables is None else variables
    file = (folder or Path.cwd()) / "plangate.toml"
    values = _from_file(file, variables) if file.is_file() else {}
    named = {name for name in Settings.model_fields if name != "environments"}
    for name in named:
        if (text := variables.get(f"{PREFIX}{name.upper()}")) is not None:
            values[name] = text
    own = {
        name: text
        for name in EnvironmentSettings.model_fields
        if name != "name" and (text := variables.get(f"{PREFIX}{name.upper()}")) is not None
    }
    environments: list[dict[str, Any]] = values.get("environments") or [{"name": "default"}]
    if own:
        if len(environments) > 1:
            raise StartRefused(
                f"{PREFIX}{next(iter(own)).upper()} does not say which environment it is for: "
                "set it in plangate.toml, under [environments.NAME]."
            )
        environments = [{**environments[0], **own}]
    values["environments"] = environments
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = _written_as(first["loc"], environments, variables)
        said = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise StartRefused(f"The setting {where} is not valid: {said}.") from None
    _refuse_contradictions(settings, variables)
    return settings


def require_for_serving(settings: Settings) -> None:
    """Refuse to start a server whose surfaces could not verify what they are sent.

    Raises StartRefused that names the first missing secret and where it comes from.
    """
    if not settings.secret_keys:
        raise StartRefused(
            "PLANGATE_SECRET_KEYS is missing: it signs component tokens and quotes. "
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    for environment in settings.environments:
        wanted = {
            "STRIPE_SECRET_KEY": (environment.stripe_secret_key, "Stripe dashboard, Developers, API keys"),
            "STRIPE_WEBHOOK_SECRETS": (environment.stripe_webhook_secrets, "Stripe dashboard, Webhooks (whsec_…)"),
            "STRIPE_APP_SECRETS": (environment.stripe_app_secrets, "`stripe apps upload` (absec_…)"),
            "STRIPE_ACCOUNT": (environment.stripe_account, "Stripe dashboard, Settings, Account (acct_…)"),
        }
        for name, (value, origin) in wanted.items():
            if not value:
                where = _setting(name.lower(), None if len(settings.environments) == 1 else environment.name)
                raise StartRefused(f"{where} is missing: you find it in {origin}.")


def _refuse_contradictions(settings: Settings, variables: Mapping[str, str]) -> None:
    """Raise StartRefused where a key is of the other mode, or a message could mean either of two environments."""
    several = len(settings.environments) > 1
    accounts: dict[tuple[str, str], str] = {}
    secrets: dict[str, str] = {}
    for environment in settings.environments:
        key_mode = re.match(r"[sr]k_(live|test)_", environment.stripe_secret_key or "")
        if key_mode is not None and key_mode[1] != environment.stripe_mode:
            is_variable = not several and f"{PREFIX}STRIPE_SECRET_KEY" in variables
            key = _setting("stripe_secret_key", None if is_variable else environment.name)
            is_variable = not several and f"{PREFIX}STRIPE_MODE" in variables
            mode = _setting("stripe_mode", None if is_variable or key.startswith(PREFIX) else environment.name)
            raise StartRefused(
                f"The setting {key} is a {key_mode[1]} key, but {mode} is {environment.stripe_mode}: "
                "change one of them."
            )
        account = (environment.stripe_account, environment.stripe_mode)
        if environment.stripe_account and (other := accounts.setdefault(account, environment.name)) != environment.name:
            raise StartRefused(
                f"The setting {_setting('stripe_account', environment.name)} names the same account, in the same mode, "
                f"as environment {other}: an account in one mode belongs to one environment."
            )
        for secret in environment.stripe_webhook_secrets:
            if (other := secrets.setdefault(secret, environment.name)) != environment.name:
                raise StartRefused(
                    f"The setting {_setting('stripe_webhook_secrets', environment.name)} shares a secret with "
                    f"environment {other}: give each its own endpoint in Stripe, as the secret names the environment."
                )


def _written_as(
    location: Sequence[int | str], environments: Sequence[Mapping[str, Any]], variables: Mapping[str, str]
) -> str:
    """A setting as people write it: `PLANGATE_STRIPE_MODE`, or `[environments.NAME] stripe_mode` in the file."""
    first, *rest = location
    if first == "environments" and len(rest) > 1 and isinstance(rest[0], int):
        is_variable = len(environments) == 1 and f"{PREFIX}{rest[1]}".upper() in variables
        return _setting(str(rest[1]), None if is_variable else str(environments[rest[0]].get("name", "default")))
    if f"{PREFIX}{first}".upper() in variables:
        return _setting(str(first), None)
    return f"{first} of plangate.toml"


def _setting(name: str, environment: str | None) -> str:
    return f"{PREFIX}{name.upper()}" if environment is None else f"[environments.{environment}] {name}"


def _from_file(file: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartRefused(f"{file.name} cannot be read: {error}.") from None
    resolved: dict[str, Any] = _resolve(document, variables)
    tables = resolved.pop("environments", {})
    resolved["environments"] = [{"name": name, **table} for name, table in tables.items()]
    return resolved


def _resolve(value: Any, variables: Mapping[str, str]) -> Any:  # noqa: ANN401 - any TOML value
    """Replace `env:VAR` texts by the variable, so that secrets stay out of the file."""
    if isinstance(value, dict):
        return {key: _resolve(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, variables) for item in value]
    if isinstance(value, str) and value.startswith("env:"):
        name = value.removeprefix("env:")
        if name not in variables:
            raise StartRefused(f"plangate.toml refers to the environment variable {name}, which is not set.")
        return variables[name]
    return value
