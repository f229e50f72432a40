"""Servers that start at once: a process that has imported everything forks one for each port it is told.

Importing is most of a start, and the same each time; what a kill is about begins afterwards. Run as
`python -m tests.metering.nursery`: it answers each line with the new process's id.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from plangate.cli import main
from plangate.cli.serving import application

_CHECKOUT = Path(__file__).parents[2]


class Nursery:
    """The process that forks. Use as a context manager."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.metering.nursery"],
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
    assert callable(application)  # imported for the servers to come
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.argv = ["plangate", "serve", "--no-worker", "--port", line.strip()]
            main()
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _fork()
