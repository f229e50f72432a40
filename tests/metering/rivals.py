"""Processes that count for the same companies at the same time; each is told on its standard input what to try.

Run as `python -m tests.metering.rivals URL`: it answers one line of JSON for each line it is given.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from plangate import metering
from plangate.deployment import Deployment
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.settings import EnvironmentSettings, Settings

_CHECKOUT = Path(__file__).parents[2]


class Rival:
    """One process. Use as a context manager."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "tests.metering.rivals", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_CHECKOUT,
            env={"PYTHONPATH": "backend:.", "PATH": ""},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def tell(self, **task: object) -> None:
        """Start something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What became of it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "a process died"
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def rivals(url: str, number: int) -> Iterator[Sequence[Rival]]:
    """So many processes on one database, all started before the first task."""
    started = [Rival(url) for _ in range(number)]
    try:
        for one in started:
            one.tell(kind="wait")
        for one in started:
            one.answer()
        yield started
    finally:
        for one in started:
            one.__exit__(None, None, None)


def compete(started: Sequence[Rival], *, key: str, tries: int, has_reservations: bool = False) -> int:
    """Let all of them consume one unit `tries` times, shared out among them, for one company; how many were let in.

    With `has_reservations` every second try reserves the unit and settles it instead.
    """
    for number, one in enumerate(started):
        one.tell(kind="reserve" if has_reservations else "consume", key=key, tries=tries // len(started), name=number)
    answers = [one.answer() for one in started]
    assert all(answer["errors"] == [] for answer in answers), answers
    return sum(answer["allowed"] for answer in answers)


async def _consume(env: Environment, task: dict[str, Any]) -> dict[str, object]:
    async def one(number: int) -> bool:
        if task["kind"] == "reserve" and number % 2:
            held = await metering.reserve(env, company={"id": task["key"]}, feature="exports")
            if held.id is None:
                return False
            closed = await metering.settle(env, held.id, 1)
            return closed.overrun == 0
        decision, _ = await metering.consume(
            env,
            company={"id": task["key"]},
            feature="exports",
            idempotency_key=f"{task['key']}-{task['name']}-{number}",
        )
        return decision.allowed

    outcomes = await asyncio.gather(*(one(number) for number in range(task["tries"])), return_exceptions=True)
    errors = [repr(one) for one in outcomes if isinstance(one, BaseException)]
    return {"allowed": sum(one is True for one in outcomes), "errors": errors}


async def _record(env: Environment, task: dict[str, Any]) -> dict[str, object]:
    """One transaction after another, each of one event."""
    longest, errors = 0.0, []
    for number in range(task["times"]):
        began = perf_counter()
        try:
            await metering.record(
                env,
                [
                    metering.TrackEvent(
                        event="export",
                        company={"id": task["key"]},
                        idempotency_key=f"{task['name']}-{number}",
                    )
                ],
            )
        except Refusal as refusal:
            errors.append(repr(refusal))
        longest = max(longest, perf_counter() - began)
    return {"longest_seconds": longest, "errors": errors}


async def _main(url: str) -> None:
    settings = Settings(
        database_url=url, secret_keys=("rival-0123456789abcdef0123456789abcdef",), environments=(EnvironmentSettings(),)
    )
    deployment = await Deployment.open(settings)
    env = deployment.named(None)
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            task = json.loads(line)
            match task["kind"]:
                case "consume" | "reserve":
                    answer = await _consume(env, task)
                case "record":
                    answer = await _record(env, task)
                case _:
                    answer = {}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        await deployment.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
