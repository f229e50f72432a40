"""`make bench`: the hot routes over HTTP, each beside a bare Starlette route on the same uvicorn, round by round.

Exits 1 when `POST /v1/check` falls below 0.6 of the bare route. Medians of the rounds are printed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.load import Round, measure, post
from benchmarks.servers import COMPANIES

LEAST_CHECK_RATIO = 0.6
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
            plan = [("bare Starlette route", bare_port, lambda: same)]
            plan += [(name, port, request) for name, request in requests.items()]
            for name, target, request in plan:
                found.setdefault(name, []).append(
                    await measure(target, request, connections=_CONNECTIONS, seconds=seconds, warm=_WARM_SECONDS)
                )
    return found


def _table(found: dict[str, list[Round]]) -> tuple[str, float]:
    floors = found["bare Starlette route"]
    check_ratio = 0.0
    lines = [f"{'':<32}{'per second':>12}{'median ms':>12}{'p99 ms':>10}{'of bare':>10}"]
    for name, rounds in found.items():
        ratio = median(one.per_second / floor.per_second for one, floor in zip(rounds, floors, strict=True))
        if name == "POST /v1/check":
            check_ratio = ratio
        lines.append(
            f"{name:<32}{median(one.per_second for one in rounds):>12,.0f}"
            f"{median(one.median_ms for one in rounds):>12.2f}{median(one.p99_ms for one in rounds):>10.2f}"
            f"{ratio:>10.2f}"
        )
    return "\n".join(lines), check_ratio


def main() -> int:
    """Measure, print the table, and say whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plangate-bench-") as folder:
        found = uvloop.run(_measured(options.rounds, options.seconds, Path(folder)))
    table, check_ratio = _table(found)
    sys.stdout.write(
        f"{table}\n\n{_CONNECTIONS} connections, medians of {options.rounds} interleaved rounds; a real key, SQLite on "
        f"disk, {COMPANIES} companies at random, access log to a file.\n"
    )
    if check_ratio < LEAST_CHECK_RATIO:
        sys.stdout.write(f"POST /v1/check is below {LEAST_CHECK_RATIO} of a bare route.\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
