"""Promise 3, a slice: whatever the network does to a call, one intent makes one change, answered in time."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.shapes import ChangeState, PlanChange
from tests.plan_changes.network import Fault, Network, every_call
from tests.plan_changes.scenarios import PATHS, SOLD, STEPS, Scenario, Upgrade, restart
from tests.sandbox_server import SandboxServer
from tests.shop import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, SOLD)
    yield opened
    await opened.close()


@pytest.mark.parametrize("scenario", PATHS)
async def test_d23_a_spoiled_call_changes_nothing_twice(
    shop: Shop, scenario: Callable[[], Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call once, the kinds of fault taking turns."""
    kinds, start, step = list(Fault), PATHS.index(scenario), min(STEPS.get(scenario, 1), 4)

    def chosen(number: int, fault: Fault, stays: bool) -> bool:
        turn = kinds[(number + start) % len(kinds)]
        return number % step == 0 and fault is turn and stays is (number % 3 == 0)

    assert await every_call(shop, scenario, Network(monkeypatch), chosen) >= 4 // step


async def test_a_stripe_that_hangs_is_answered_for_in_ten_seconds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    network, path = Network(monkeypatch), Upgrade()
    await path.prepare(shop, "hangs")
    network.hangs = True
    started = time.monotonic()
    network.start(strikes_at=4, fault=Fault.TIMEOUT_AFTER, stays=True)
    with suppress(Refusal):
        change = await path.act(shop)
        assert isinstance(change, PlanChange)
        assert change.state is ChangeState.APPLYING
    assert time.monotonic() - started < 10
    network.start(strikes_at=None)
    is_saved = bool(await shop.rows())
    await restart(shop)
    await path.check(shop, is_saved=is_saved)
