"""One running process: its database, all its environments, and which of them an API key speaks for."""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from plangate.billing.gateway import StripeGateway
from plangate.clock import BusinessClock, wall_now
from plangate.environment import PROCESS, Environment
from plangate.errors import StartRefused
from plangate.ids import new_id
from plangate.settings import EnvironmentSettings, Settings
from plangate.store.database import Database
from plangate.store.environments import ApiKeyRow, EnvironmentRow, ensure_environment, key_by_hash
from plangate.store.environments import environment as environment_row
from plangate.store.feed import EVERYTHING, follow
from plangate.store.schema import SchemaState, schema_state

KeyKind = Literal["secret", "publishable"]
SCOPES = ("check", "track", "read", "write", "admin")
_PREFIXES: dict[KeyKind, str] = {"secret": "pgt_sk_", "publishable": "pgt_pk_"}
_UNKNOWN_KEYS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A live key: the environment it speaks for and what it may do there."""

    id: str
    environment: Environment
    kind: KeyKind
    name: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the key has a scope; `admin` includes all of them."""
        return scope in self.scopes or "admin" in self.scopes


class Deployment:
    """Everything one process holds open. Made by `Deployment.open`, closed by `close`."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.environments: dict[str, Environment] = {}
        self._keys: dict[str, ApiKey | None] = {}
        self._follower: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, settings: Settings) -> "Deployment":
        """Connect, check the schema and open every environment of the settings.

        Raises StartRefused when the database cannot be reached or its schema is older or newer than this version.
        """
        try:
            database = Database.at(settings.database_url)
        except ValueError as error:
            raise StartRefused(f"PLANGATE_DATABASE_URL is not usable: {error}.") from None
        deployment = cls(settings, database)
        try:
            await deployment._open()
        except BaseException:
            await deployment.close()
            raise
        return deployment

    async def key(self, raw: str) -> ApiKey | None:
        """The live key with this text, or None. Answers from memory once it was seen."""
        key_hash = hash_key(raw)
        try:
            return self._keys[key_hash]
        except KeyError:
            pass
        async with self.database.reading("", wall_now()) as session:
            row = await key_by_hash(session, key_hash)
        found = None if row is None else self._bind(row)
        if len(self._keys) >= _UNKNOWN_KEYS_REMEMBERED:
            self._keys.clear()
        self._keys[key_hash] = found
        return found

    def held_key(self, raw: str) -> ApiKey | None:
        """The live key with this text if it was seen before, without waiting."""
        return self._keys.get(hash_key(raw))

    def environment_for(self, stripe_account: str, stripe_mode: str) -> Environment | None:
        """The environment of a Stripe account in a mode, or None."""
        for environment in self.environments.values():
            if (environment.settings.stripe_account, environment.settings.stripe_mode) == (stripe_account, stripe_mode):
                return environment
        return None

    def named(self, name: str | None) -> Environment:
        """The environment of that name, or the only one. Raises StartRefused naming those there are."""
        if name is None and len(self.environments) == 1:
            return next(iter(self.environments.values()))
        for environment in self.environments.values():
            if environment.settings.name == name:
                return environment
        names = ", ".join(environment.settings.name for environment in self.environments.values())
        raise StartRefused(f"Say which environment you mean with --environment: {names}.")

    def start_following(self) -> None:
        """Begin to hear of changes that other processes make."""
        self._follower = asyncio.create_task(
            follow(self.database, origin=PROCESS, forget=self._forget, forget_all=self._forget_all)
        )

    async def close(self) -> None:
        """Stop following, close Stripe connections and the database."""
        if self._follower is not None:
            self._follower.cancel()
            with suppress(asyncio.CancelledError):
                await self._follower
        for environment in self.environments.values():
            await environment.close()
        await self.database.close()

    def forget_keys(self) -> None:
        """Read keys from the store again, after one was made or revoked here."""
        self._keys.clear()

    async def _open(self) -> None:
        try:
            state = await schema_state(self.database)
        except OSError as error:
            raise StartRefused(f"The database cannot be reached: {error}. Check PLANGATE_DATABASE_URL.") from None
        if state in {SchemaState.EMPTY, SchemaState.OLDER}:
            raise StartRefused("The database has no current schema. Bring it there with: plangate migrate")
        if state is SchemaState.NEWER:
            raise StartRefused(
                "The database was made by a newer version of Plangate. Install that version, or restore a backup."
            )
        for settings in self.settings.environments:
            row = await self._ensure(settings)
            self.environments[row.id] = Environment(
                row.id,
                settings,
                self.database,
                BusinessClock(row.offset_seconds),
                secret_keys=self.settings.secret_keys,
                gateway=_gateway(settings),
            )

    async def _ensure(self, settings: EnvironmentSettings) -> EnvironmentRow:
        wanted = EnvironmentRow(
            id=new_id("env"),
            name=settings.name,
            stripe_account=settings.stripe_account,
            stripe_mode=settings.stripe_mode,
            created_at=wall_now(),
        )
        async with self.database.writing("", wall_now()) as session:
            row = await ensure_environment(session, wanted)
        if row.name != settings.name:
            raise StartRefused(
                f"The database has {row.stripe_account} in {row.stripe_mode} mode as environment '{row.name}': call it "
                f"so in plangate.toml, not '{settings.name}'. Settings from variables are called 'default'."
            )
        is_told = bool(settings.stripe_account)
        if is_told and (row.stripe_account, row.stripe_mode) != (settings.stripe_account, settings.stripe_mode):
            raise StartRefused(
                f"Environment '{row.name}' of this database belongs to {row.stripe_account} in {row.stripe_mode} mode. "
                f"Use another database, or another name in plangate.toml, for {settings.stripe_account} in "
                f"{settings.stripe_mode} mode."
            )
        if settings.stripe_mode == "live" and row.offset_seconds != 0:
            raise StartRefused(
                f"Environment {settings.name} is in live mode, but its clock was moved in test mode. "
                "Use a database of its own for live mode."
            )
        return row

    def _bind(self, row: ApiKeyRow) -> ApiKey | None:
        environment = self.environments.get(row.environment_id)
        if environment is None:
            return None
        kind: KeyKind = "publishable" if row.kind == "publishable" else "secret"
        return ApiKey(row.id, environment, kind, row.name, frozenset(row.scopes))

    def _forget(self, environment_id: str, company_id: str) -> None:
        environment = self.environments.get(environment_id)
        if environment is None:
            return
        environment.forget(company_id)
        if company_id == EVERYTHING:
            self.forget_keys()
            task = asyncio.get_running_loop().create_task(self._reread_clock(environment))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def _forget_all(self) -> None:
        for environment_id in self.environments:
            self._forget(environment_id, EVERYTHING)

    async def _reread_clock(self, environment: Environment) -> None:
        async with environment.reading() as session:
            row = await environment_row(session)
        environment.clock.offset = BusinessClock(row.offset_seconds).offset


def hash_key(raw: str) -> str:
    """How a key is stored: keys carry 192 random bits, so a plain SHA-256 cannot be searched."""
    return hashlib.sha256(raw.encode()).hexdigest()


def new_key(kind: KeyKind) -> str:
    """A new key's text, shown once and never stored."""
    return _PREFIXES[kind] + secrets.token_urlsafe(24)


async def create_key(
    environment: Environment, *, kind: KeyKind, name: str, scopes: Iterable[str] = SCOPES
) -> tuple[str, ApiKeyRow]:
    """Make an API key; answers its text (the only time it can be seen) and its row."""
    raw = new_key(kind)
    row = ApiKeyRow(
        id=new_id("key"),
        environment_id=environment.id,
        kind=kind,
        name=name,
        key_hash=hash_key(raw),
        hint=f"{_PREFIXES[kind]}…{raw[-4:]}",
        scopes=sorted(scopes) if kind == "secret" else [],
        created_at=wall_now(),
    )
    async with environment.writing() as session:
        await session.add(row)
        environment.touch_everything(session)
    return raw, row


def _gateway(settings: EnvironmentSettings) -> StripeGateway | None:
    if settings.stripe_secret_key is None:
        return None
    return StripeGateway(
        settings.stripe_secret_key,
        api_base=settings.stripe_api_base,
        long_work_per_second=settings.long_work_per_second,
    )
