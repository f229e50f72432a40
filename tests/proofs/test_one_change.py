"""Promise 3 on the network in full: every kind of fault at every call of every path, once and lasting."""

import time
from collections.abc import AsyncIterator

import pytest

from plangate.environment import Environment
from tests.plan_changes.network import Network, every_call
from tests.plan_changes.test_crashes import Checkout, Downgrade, Subscribe, TakeBack, Upgrade
from tests.sandbox_server import SandboxServer
from tests.shop import Shop


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox)
    yield opened
    await opened.close()


async def test_one_intent_makes_one_change(
    shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started, tried = time.monotonic(), 0
    network = Network(monkeypatch)
    for scenario in (Downgrade, Upgrade, Subscribe, Checkout, TakeBack):
        tried += await every_call(shop, scenario, network, lambda _number, _fault, _stays: True)
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nfaults ({database_url.split(':', 1)[0]}): {tried:,} spoiled calls on 5 paths, 0 duplicates, 0 orphans,"
            f" 0 wrong plans, {time.monotonic() - started:.0f} s"
        )
    assert tried > 200
