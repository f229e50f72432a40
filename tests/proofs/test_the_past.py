"""The past in full: many random lives, each with every answer asked again at its instant.

`PLANGATE_PROOF_LIVES` asks for more lives on each database than 40.
"""

import os

import pytest

from plangate.environment import Environment
from tests.access.life import live

LIVES = int(os.environ.get("PLANGATE_PROOF_LIVES", "40"))
STEPS = 45


@pytest.mark.parametrize("seed", range(1_000, 1_000 + LIVES))
async def test_the_past_is_answered_as_it_was(
    connected_environment: Environment, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, mismatches = await live(connected_environment, seed, steps=STEPS)
    with capsys.disabled():
        print(f"\nthe past, life {seed}: {asked:,} answers, {len(mismatches)} mismatches")  # noqa: T201 - the figure
    assert mismatches == []
