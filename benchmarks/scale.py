"""Whether a check costs the same however many companies there are and however long the ledger is.

A small deployment and a large one, with a long ledger, are asked in turn, each at its server's edge: about companies in
memory, which are all there are, and about companies that were forgotten and have to be read.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from sqlalchemy import text
from starlette.types import ASGIApp, Message

from benchmarks.servers import COMPANIES, plangate
from benchmarks.table import Line
from plangate.deployment import Deployment

_SMALL: Final = 1_000
_AT_ONCE: Final = 200  # companies asked about in one go of the clock
_FLATNESS: Final = 0.8
_COPIED: Final = ("companies", "company_keys", "assignments", "usage_windows")

# The companies of the server, again and again under other names; each with its key, its plan and a window.
_COMPANIES: Final = """
    INSERT INTO {table} ({columns})
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {copies})
    SELECT {values} FROM {table} AS one, numbers
"""
_LEDGER: Final = """
    INSERT INTO usage_events (id, environment_id, company_id, user_id, event, quantity, occurred_at, recorded_at)
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {copies})
    SELECT one.id || '-' || n, environment_id, company_id, user_id, event, quantity, occurred_at - n, recorded_at
    FROM usage_events AS one, numbers
"""


async def measured(folder: Path, *, companies: int, ledger_rows: int, rounds: int) -> list[Line]:
    """Lines for checks from memory and for first checks, each with the large deployment beside the small one."""
    small = await _Asked.to(folder / "small.sqlite3", companies=_SMALL, ledger_rows=0)
    large = await _Asked.to(folder / "large.sqlite3", companies=companies, ledger_rows=ledger_rows)
    dice = random.Random(11)  # noqa: S311 - which company is asked about, not a secret
    warm: dict[bool, list[float]] = {False: [], True: []}
    first: dict[bool, list[float]] = {False: [], True: []}
    try:
        for asked in (small, large):
            await asked.seconds(range(asked.companies))
        for _ in range(rounds):
            for is_large, asked in ((False, small), (True, large)):
                numbers = [dice.randrange(asked.companies) for _ in range(_AT_ONCE)]
                warm[is_large].append(await asked.seconds(numbers))
                asked.forget(numbers)
                first[is_large].append(await asked.seconds(numbers))
    finally:
        await small.close()
        await large.close()
    beside = f"{companies:,} companies, {ledger_rows / 1e6:g} M rows beside {_SMALL:,}"
    return [
        _line(f"check from memory, {beside}", warm[False], warm[True]),
        _line(f"first check, {beside}", first[False], first[True]),
    ]


class _Asked:
    """One deployment, and what asks it."""

    def __init__(self, app: ASGIApp, deployment: Deployment, key: str, companies: int) -> None:
        self.companies = companies
        self.close = deployment.close
        self._app = app
        self._env = deployment.named(None)
        self._headers = [(b"authorization", b"Bearer " + key.encode()), (b"content-type", b"application/json")]
        self._answer = b""

    @classmethod
    async def to(cls, file: Path, *, companies: int, ledger_rows: int) -> "_Asked":
        """A deployment in a file of its own with so many companies, and so many rows in its ledger."""
        app, deployment, key = await plangate(file.parent, url=f"sqlite:///{file}")
        copies = companies // COMPANIES - 1
        async with deployment.named(None).writing() as session:
            if ledger_rows:
                await session.run(text(_LEDGER.format(copies=ledger_rows // COMPANIES)))
            for table in _COPIED if copies else ():
                columns = [row["name"] for row in await session.all(text(f"PRAGMA table_info({table})"))]
                values = ", ".join(f"one.{name} || '-' || n" if _is_renamed(table, name) else name for name in columns)
                await session.run(
                    text(_COMPANIES.format(table=table, columns=", ".join(columns), values=values, copies=copies))
                )
        return cls(app, deployment, key, companies)

    async def seconds(self, numbers: Sequence[int]) -> float:
        """Seconds for each check of these companies."""
        bodies = [b'{"company": {"id": "%s"}, "feature": "feature-1"}' % _name(number).encode() for number in numbers]
        began = perf_counter()
        for body in bodies:
            await self._ask(body)
        taken = perf_counter() - began
        if b'"allowed":true' not in self._answer or b'"used":1,' not in self._answer:
            raise RuntimeError(f"the last company is not as it was made: {self._answer!r}")
        return taken / len(bodies)

    def forget(self, numbers: Sequence[int]) -> None:
        """Let these be read again."""
        for number in numbers:
            standing = self._env.standings.peek("id", _name(number))
            if standing is not None:
                self._env.forget(standing.facts.company_id)

    async def _ask(self, body: bytes) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/check",
            "raw_path": b"/v1/check",
            "query_string": b"",
            "headers": self._headers,
            "client": ("127.0.0.1", 1),
        }
        await self._app(scope, receive, self._sent)

    async def _sent(self, message: Message) -> None:
        self._answer = message.get("body", self._answer)


def _is_renamed(table: str, column: str) -> bool:
    return column in {"id", "company_id"} or (table, column) == ("company_keys", "value")


def _name(number: int) -> str:
    copy, original = divmod(number, COMPANIES)
    return f"company-{original}-{copy}" if copy else f"company-{original}"


def _line(work: str, small: list[float], large: list[float]) -> Line:
    ratio = median(one / other for one, other in zip(small, large, strict=True))
    floor, figure = (f"{median(both) * 1e6:,.1f} µs" for both in (small, large))
    return Line(work, floor, figure, ratio, f"≥ {_FLATNESS:.2f}", ratio >= _FLATNESS)
