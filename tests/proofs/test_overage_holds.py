"""Overage in full: many random lives, each window of which must have been reported to the unit.

`PLANGATE_PROOF_OVERAGE` asks for more lives on each database than 60.
"""

import os

import pytest

from plangate.environment import Environment
from tests.metering.overage_life import live

LIVES = int(os.environ.get("PLANGATE_PROOF_OVERAGE", "60"))
STEPS = 200


@pytest.mark.parametrize("seed", range(1_000, 1_000 + LIVES))
async def test_overage_is_reported_to_the_unit(
    connected_environment: Environment, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    compared, mismatches = await live(connected_environment, seed, steps=STEPS)
    with capsys.disabled():
        print(f"\noverage, life {seed}: {compared} windows, {len(mismatches)} mismatches")  # noqa: T201 - the figure
    assert mismatches == []
