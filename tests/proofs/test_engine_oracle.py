"""Promises 5 and 6 in full: random lives and random anchors beside oracles that share nothing with the engine.

`PLANGATE_PROOF_STEPS` asks for more steps than 100,000.
"""

import os
import time

import pytest

from tests.engine.anchors import LENGTHS, compare
from tests.engine.living import STEPS_OF_A_LIFE, live

STEPS = int(os.environ.get("PLANGATE_PROOF_STEPS", "100000"))
ANCHORS = 10_000


def test_the_engine_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    outcome = live(STEPS, first_seed=1_000_000)
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nengine: {outcome.steps:,} steps in {outcome.steps // STEPS_OF_A_LIFE:,} lives,"
            f" {len(outcome.mismatches)} mismatches, {len(outcome.reasons)} reasons, {time.monotonic() - started:.0f} s"
        )
    assert outcome.mismatches == []
    assert outcome.steps == STEPS


def test_time_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    compared = compare(ANCHORS, seed=2)
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\ntime: {ANCHORS:,} anchors, {len(LENGTHS)} intervals, {compared.windows:,} windows,"
            f" {len(compared.mismatches)} mismatches, {time.monotonic() - started:.0f} s"
        )
    assert compared.mismatches == []
