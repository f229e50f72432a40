"""The hot routes over HTTP, each beside a bare Starlette route on the same uvicorn, round by round."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.load import Round, measure, post
from benchmarks.servers import COMPANIES
from benchmarks.table import Line, at_least

_BARE: Final = "bare Starlette route"
_TARGETS: Final[dict[str, float | None]] = {
    "POST /v1/check": 0.9,
    "POST /v1/checks, 20 features": 0.55,
    "POST /v1/consume, durable": None,
    "POST /v1/events, one, durable": 0.35,
}
_CONNECTIONS = 32
_WARM_SECONDS = 0.3


@contextmanager
def _server(kind: str, folder: Path) -> Iterator[tuple[int, str]]:
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "benchmarks.servers", kind, str(folder)], stdout=subprocess.PIPE, stderr=log
        )
        try:
            if process.stdout is None or not (line := process.stdout.readline()):
                raise RuntimeError(f"the {kind} server did not start:\n{(folder / f'{kind}.log').read_text()}")
            told = json.loads(line)
            yield int(told["port"]), str(told["key"])
        finally:
            process.terminate()
            process.wait(10)


def _requests(port: int, key: str) -> dict[str, Callable[[], bytes]]:
    dice = random.Random(7)  # noqa: S311 - which company is asked about, not a secret
    numbers = count()
    asked = [
        post(
            "/v1/check",
            json.dumps({"company": {"id": f"company-{number}"}, "feature": "feature-1"}).encode(),
            key=key,
            port=port,
        )
        for number in range(COMPANIES)
    ]
    all_asked = [
        post("/v1/checks", json.dumps({"company": {"id": f"company-{number}"}}).encode(), key=key, port=port)
        for number in range(COMPANIES)
    ]

    def consume() -> bytes:
        body = {
            "company": {"id": f"company-{dice.randrange(COMPANIES)}"},
            "feature": "feature-1",
            "idempotency_key": f"c{next(numbers)}",
        }
        return post("/v1/consume", json.dumps(body).encode(), key=key, port=port)

    def event() -> bytes:
        body = {
            "type": "track",
            "company": {"id": f"company-{dice.randrange(COMPANIES)}"},
            "event": "feature-1",
            "idempotency_key": f"e{next(numbers)}",
        }
        return post("/v1/events", json.dumps(body).encode(), key=key, port=port)

    return {
        "POST /v1/check": lambda: dice.choice(asked),
        "POST /v1/checks, 20 features": lambda: dice.choice(all_asked),
        "POST /v1/consume, durable": consume,
        "POST /v1/events, one, durable": event,
    }


async def _measured(rounds: int, seconds: float, folder: Path) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {}
    with _server("bare", folder) as (bare_port, _), _server("plangate", folder) as (port, key):
        requests = _requests(port, key)
        body = json.dumps({"company": {"id": "company-1"}, "feature": "feature-1"}).encode()
        same = post("/bare", body, key=key, port=bare_port)
        for _ in range(rounds):
            plan = [(_BARE, bare_port, lambda: same)]
            plan += [(name, port, request) for name, request in requests.items()]
            for name, target, request in plan:
                found.setdefault(name, []).append(
                    await measure(target, request, connections=_CONNECTIONS, seconds=seconds, warm=_WARM_SECONDS)
                )
    return found


def _lines(found: dict[str, list[Round]]) -> list[Line]:
    floors = found[_BARE]
    lines = []
    for work, target in _TARGETS.items():
        rounds = found[work]
        lines.append(
            at_least(
                work,
                floor=median(one.per_second for one in floors),
                figure=median(one.per_second for one in rounds),
                ratio=median(one.per_second / floor.per_second for one, floor in zip(rounds, floors, strict=True)),
                target=target,
            )
        )
        if work == "POST /v1/check":
            slowest = median(one.p99_ms / floor.p99_ms for one, floor in zip(rounds, floors, strict=True))
            bare_ms, check_ms = (median(one.p99_ms for one in both) for both in (floors, rounds))
            lines.append(
                Line(f"{work}, p99", f"{bare_ms:.2f} ms", f"{check_ms:.2f} ms", slowest, "≤ 2.00", slowest <= 2)
            )
    return lines


async def measured(rounds: int, seconds: float, folder: Path) -> list[Line]:
    """Lines of the table: medians of interleaved rounds of so many seconds for each route."""
    return _lines(await _measured(rounds, seconds, folder))
