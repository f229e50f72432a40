"""How the command line speaks: aligned and quiet, coloured only on a terminal, problems on the error stream."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
_LINE_SECONDS: Final = 5.0


def complain(sentence: str, *more: str) -> None:
    """Say what went wrong and how to go on, on the error stream."""
    err.print(f"plangate: {sentence}", style="red", markup=False)
    for line in more:
        err.print(f"  {line}", markup=False)


def say(text: str = "") -> None:
    """One line of plain text."""
    out.print(text, markup=False)


def hint(text: str) -> None:
    """What to run next; only for people, so it goes to the error stream."""
    err.print(text, style="dim", markup=False)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows in aligned columns without lines."""
    lines = [tuple(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(headings, *lines, strict=True)]

    def aligned(cells: Sequence[str]) -> str:
        return "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    # Never cut to the terminal's width: an id that is not whole cannot be used.
    out.print(aligned(headings), style="dim", markup=False)
    for line in lines:
        say(aligned(line))


def show_json(value: object) -> None:
    """One JSON value, for programs."""
    text = json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False)
    sys.stdout.write(text + "\n")


@contextmanager
def progress(text: str) -> Iterator["Counter"]:
    """A line that counts while something long goes on; only on a terminal, and it vanishes when done."""
    with _shown(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as shown:
        yield Counter(shown, text)


@contextmanager
def steps() -> Iterator["Steps"]:
    """A bar for long work in several steps; where nobody sits at a terminal, a plain line every few seconds."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _shown(*columns) as shown:
        yield Steps(shown)


def _shown(*columns: ProgressColumn) -> Progress:
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


class Steps:
    """Says how far each step is: its words, how many are through, and how many there are where that is known."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._tasks: dict[str, TaskID] = {}
        self._said_at = time.monotonic()

    def __call__(self, words: str, through: int, total: int | None) -> None:
        if not err.is_terminal:
            if time.monotonic() - self._said_at >= _LINE_SECONDS:
                self._said_at = time.monotonic()
                err.print(f"{words}: {through:,}" + (f" of {total:,}" if total is not None else ""), markup=False)
            return
        if words not in self._tasks:
            self._tasks[words] = self._shown.add_task(words, total=total)
        self._shown.update(self._tasks[words], completed=through, total=total)


class Counter:
    """Counts on a progress line."""

    def __init__(self, shown: Progress, text: str) -> None:
        self._shown = shown
        self._text = text
        self._task = shown.add_task(text)

    def __call__(self, count: int) -> None:
        self._shown.update(self._task, description=f"{self._text} {count:,}")
