"""How long work shows itself: a bar on a terminal, a plain line now and then anywhere else."""

import io

import pytest
from rich.console import Console

from plangate.cli import terminal


def test_a_bar_shows_how_far_each_step_is_also_where_nobody_knows_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "err", Console(file=shown, force_terminal=True, width=100, color_system=None))
    with terminal.steps() as progress:
        progress("Counting subscriptions", 5_200, None)
        progress("Importing subscribers", 300, 10_000)
        progress("Importing subscribers", 2_500, 10_000)
    assert "5200/?" in shown.getvalue()
    assert "2500/10000" in shown.getvalue().replace(" ", "")


def test_a_plain_line_is_said_every_few_seconds_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    seconds = iter((0.0, 1.0, 5.5, 5.5, 6.0, 11.0, 11.0))
    monkeypatch.setattr(terminal, "err", Console(file=said))
    monkeypatch.setattr("plangate.cli.terminal.time.monotonic", lambda: next(seconds))
    with terminal.steps() as progress:
        for through in (100, 200, 300, 400):
            progress("Importing subscribers", through, 10_000)
    assert said.getvalue() == "Importing subscribers: 200 of 10,000\nImporting subscribers: 400 of 10,000\n"
