"""Servers that start sooner: a process that has imported all packages forks one for each port it is told.

Importing is most of a start, and the same each time. Our own modules are left to the servers, because some take a name
for their process when they are imported. Run as `python -m tests.nursery`: it answers each line with a process's id.
"""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Final, Self

_PACKAGES: Final = (
    "aiosqlite",
    "alembic.command",
    "asyncpg",
    "jinja2",
    "msgspec",
    "prometheus_client",
    "pydantic",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio",
    "sqlmodel",
    "starlette.routing",
    "stripe",
    "structlog",
    "typer",
    "uvicorn",
    "uvloop",
)
_CHECKOUT = Path(__file__).parents[1]


class Nursery:
    """The process that forks. Use as a context manager."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"],
            cwd=_CHECKOUT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def start(self, port: int) -> int:
        """Start a server on a port; answers its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{port}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _fork() -> None:
    for package in _PACKAGES:
        import_module(package)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.argv = ["plangate", "serve", "--no-worker", "--port", line.strip()]
            import_module("plangate.cli").main()
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _fork()
