"""`at` answers for any past instant exactly as it would have been answered then, whatever happened since."""

import pytest

from plangate.environment import Environment
from tests.access.life import live


@pytest.mark.parametrize("seed", range(2))
async def test_answers_of_a_random_life_are_given_again_later(connected_environment: Environment, seed: int) -> None:
    asked, mismatches = await live(connected_environment, seed, steps=30)
    assert asked > 700
    assert mismatches == []
