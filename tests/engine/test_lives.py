"""A slice of the proof that the engine is right: the same random lives every time, beside the oracle."""

from plangate.engine.decision import Reason
from tests.engine.anchors import compare
from tests.engine.living import live

STEPS = 20_000
ANCHORS = 300


def test_random_lives_equal_the_oracle() -> None:
    outcome = live(STEPS)
    assert outcome.mismatches == []
    assert outcome.steps == STEPS
    # A life that never meets a reason would prove nothing about it; companies and users are looked up by the caller.
    assert set(outcome.reasons) == set(Reason) - {Reason.UNKNOWN_COMPANY, Reason.CREDITS_EXHAUSTED}


def test_random_anchors_equal_the_oracle() -> None:
    compared = compare(ANCHORS, seed=1)
    assert compared.mismatches == []
    assert compared.windows > ANCHORS * 9 * 3
