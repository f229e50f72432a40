"""The schema's version: bring a database to it, or say which command would.

Each migration runs in one transaction on both databases, so a kill leaves the old schema or the new one.
"""

from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from plangate.store.database import Database

_MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaState(StrEnum):
    """How a database's schema compares with what this version of Plangate needs."""

    CURRENT = "current"
    EMPTY = "empty"
    OLDER = "older"
    NEWER = "newer"


async def schema_state(database: Database) -> SchemaState:
    """Compare the database's revision with the newest one known here."""
    async with database.connecting() as connection:
        return await connection.run_sync(_state)


async def migrate(database: Database) -> SchemaState:
    """Bring the database to the newest schema; answers what it was before."""
    async with database.connecting() as connection:
        before = await connection.run_sync(_state)
        if before is SchemaState.NEWER:
            return before
        await connection.run_sync(_upgrade)
        await connection.commit()
    return before


def _state(connection: Connection) -> SchemaState:
    script = ScriptDirectory.from_config(_config())
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        return SchemaState.EMPTY
    if found == script.get_current_head():
        return SchemaState.CURRENT
    known = {revision.revision for revision in script.walk_revisions()}
    return SchemaState.OLDER if found in known else SchemaState.NEWER


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
