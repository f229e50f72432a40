"""Promise 2, a slice: any order, repetition and loss of webhooks ends, after a sweep, in what fetching now gives."""

import pytest

from tests.shop import Shop
from tests.sync.histories import play


@pytest.mark.parametrize("seed", range(3))
async def test_w1_w2_w3_any_delivery_converges(shop: Shop, seed: int) -> None:
    differences = await play(shop, seed=seed, shuffles=3, steps=7)
    assert not differences, "\n".join(differences)
