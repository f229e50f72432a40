"""`make bench`: every speed the product promises, each beside its floor in the same run, as one table.

Exits 1 when a target is missed.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import changes, check, ingest, scale, webhooks
from benchmarks.servers import COMPANIES
from benchmarks.table import Line, table
from tests.postgresql import PostgresqlServer

_PARTS: Final = ("http", "ingest", "scale", "changes")
_WEBHOOKS: Final = 1_000  # so that the slowest one in a hundred are ten


async def _measured(options: argparse.Namespace, folder: Path, postgresql_urls: Sequence[str]) -> list[Line]:
    rounds: int = options.rounds
    sizes = (100_000, 10_000_000) if options.large else (100_000, 1_000_000)
    parts: dict[str, list[Callable[[], Awaitable[list[Line]]]]] = {
        "http": [lambda: check.measured(rounds, options.seconds, folder)],
        "ingest": [lambda: ingest.measured(_sqlite(folder), "SQLite", folder, rounds=rounds, sizes=sizes)],
        "scale": [
            lambda: scale.measured(
                folder, companies=100_000 if options.large else 10_000, ledger_rows=1_000_000, rounds=31
            )
        ],
        "changes": [
            lambda: webhooks.measured(f"sqlite:///{folder / 'webhooks.sqlite3'}", "SQLite", times=_WEBHOOKS),
            lambda: _one(changes.publishing(folder, times=70)),
        ],
    }
    if postgresql_urls:
        url, another = postgresql_urls
        parts["changes"].insert(1, lambda: webhooks.measured(another, "PostgreSQL", times=_WEBHOOKS))
        parts["ingest"].append(lambda: ingest.measured(url, "PostgreSQL", folder, rounds=rounds, sizes=sizes))
    lines = []
    for part in options.only or _PARTS:
        for measured in parts[part]:
            found = await measured()
            # The table comes at the end; what is known already helps whoever waits for it.
            sys.stderr.write("".join(f"measured: {line.work}: {line.figure}\n" for line in found))
            lines += found
    return lines


def main() -> int:
    """Measure, print the table, and say whether the promises hold."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure speed, each figure beside its floor.")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, of which medians are shown")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each route in a round")
    parser.add_argument("--only", choices=_PARTS, action="append", help="measure this part alone; may be repeated")
    parser.add_argument("--large", action="store_true", help="10 million rows and 100,000 companies (takes long)")
    parser.add_argument("--no-postgresql", action="store_true", help="measure SQLite alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plangate-bench-") as name:
        folder = Path(name)
        needs_server = not options.no_postgresql and {"ingest", "changes"} & {*(options.only or _PARTS)}
        servers: list[PostgresqlServer] = []
        if needs_server:
            # Two databases, so that what one part leaves behind slows no other.
            given = os.environ.get("PLANGATE_TEST_POSTGRESQL_URL")
            servers.append(PostgresqlServer.start(folder / "pg", given, settings=_as_advised()))
            servers.append(PostgresqlServer.start(folder / "pg", servers[0].admin_url))
        try:
            lines = uvloop.run(_measured(options, folder, [server.url for server in servers]))
        finally:
            for server in reversed(servers):
                server.stop()
    sys.stdout.write(
        f"{table(lines)}\n\nMedians of {options.rounds} interleaved rounds; 32 connections, a real key, "
        f"{COMPANIES} companies at random, SQLite on disk with synchronous=FULL, a PostgreSQL of our own without "
        f"fsync and with a quarter of the memory.\n"
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n"
    )
    missed = [line.work for line in lines if line.is_met is False]
    if missed:
        sys.stdout.write(f"Below target: {', '.join(missed)}.\n")
    return 1 if missed else 0


def _as_advised() -> list[str]:
    """Settings that PostgreSQL's manual advises: a quarter of the memory, and a log to match it."""
    megabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // 4
    return [f"shared_buffers = '{megabytes}MB'", f"max_wal_size = '{max(megabytes, 1_024)}MB'"]


async def _one(line: Awaitable[Line]) -> list[Line]:
    return [await line]


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'ingest.sqlite3'}"


if __name__ == "__main__":
    raise SystemExit(main())
