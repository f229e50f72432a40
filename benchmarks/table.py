"""What every benchmark ends in: one aligned table of figures, each beside its floor and its target."""

from collections.abc import Sequence
from typing import NamedTuple

_TITLES = ("work", "floor", "figure", "ratio", "target", "ok")


class Line(NamedTuple):
    """One measured work. `ratio` compares figure and floor; `is_met` is None where there is no target."""

    work: str
    floor: str
    figure: str
    ratio: float | None
    target: str
    is_met: bool | None


def table(lines: Sequence[Line]) -> str:
    """The lines as aligned text, titles first."""
    rows = [_TITLES, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    return "\n".join(
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    )


def at_least(work: str, *, floor: float, figure: float, ratio: float, target: float | None, unit: str = "/s") -> Line:
    """A line of two speeds, of which the figure should reach `target` times the floor."""
    return Line(
        work,
        f"{floor:,.0f}{unit}",
        f"{figure:,.0f}{unit}",
        ratio,
        "" if target is None else f"≥ {target:.2f}",
        None if target is None else ratio >= target,
    )


def _cells(line: Line) -> tuple[str, ...]:
    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    met = "" if line.is_met is None else ("yes" if line.is_met else "NO")
    return line.work, line.floor, line.figure, ratio, line.target, met
