"""Promise 3 in full: deaths at every call and commit of every path, and every kind of network fault, on both databases.

The first round of deaths is the plain one; in each other one every company has another age when it asks, and other
things go on beside the death: webhooks, hours that pass, a second death, a person who clicks again.
`PLANGATE_PROOF_ROUNDS` asks for another number of rounds, 20 unless said. It runs in as many processes as one likes:
`make proofs ARGS="-k one_change -n 2"`.
"""

import os
import sys
import time
from collections.abc import AsyncIterator, Callable

import pytest

from plangate.environment import Environment
from tests.plan_changes.network import Fault, Network, every_call
from tests.plan_changes.scenarios import PATHS, SOLD, Scenario, every_death
from tests.sandbox_server import SandboxServer
from tests.shop import Shop

ROUNDS = int(os.environ.get("PLANGATE_PROOF_ROUNDS", "20"))
_TIMES = 10


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, SOLD)
    yield opened
    await opened.close()


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
@pytest.mark.parametrize("scenario", PATHS)
async def test_one_intent_makes_one_change_whenever_the_process_dies(
    shop: Shop,
    database_url: str,
    scenario: Callable[[], Scenario],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started = time.monotonic()
    points = await every_death(shop, scenario(), monkeypatch, number=number)
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\ndeaths ({database_url.split(':', 1)[0]}): {type(scenario()).__name__}, round {number} of {ROUNDS}:"
            f" {points} points, 0 duplicates, 0 orphans, 0 wrong plans, {time.monotonic() - started:.0f} s",
            file=sys.stderr,  # which comes through from the processes of `-n`
        )
    assert points > 6


@pytest.mark.parametrize("scenario", PATHS)
async def test_one_intent_makes_one_change_whatever_the_network_does(
    shop: Shop,
    database_url: str,
    scenario: Callable[[], Scenario],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each kind of fault ten times on each path: at one call after the other, once and from then on."""
    started = time.monotonic()
    left = dict.fromkeys(Fault, _TIMES)
    total = await calls_of(shop, scenario, network := Network(monkeypatch))
    spoiled = [(call, stays) for stays in (False, True) for call in range(1, total + 1)]

    def chosen(number: int, fault: Fault, stays: bool) -> bool:
        # Ten of all the calls, spread evenly, another start for each kind.
        place = (spoiled.index((number, stays)) + list(Fault).index(fault)) % len(spoiled)
        is_wanted = place * _TIMES // len(spoiled) != (place - 1) * _TIMES // len(spoiled)
        if is_wanted and left[fault]:
            left[fault] -= 1
            return True
        return False

    tried = await every_call(shop, scenario, network, chosen)
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nfaults ({database_url.split(':', 1)[0]}): {type(scenario()).__name__}: {tried} spoiled calls of"
            f" {len(Fault)} kinds, 0 duplicates, 0 orphans, 0 wrong plans, each answered within 10 s,"
            f" {time.monotonic() - started:.0f} s",
            file=sys.stderr,
        )
    assert tried >= min(_TIMES, len(spoiled) - 1) * len(Fault)


async def calls_of(shop: Shop, make: Callable[[], Scenario], network: Network) -> int:
    """How many calls to Stripe a path makes."""
    scenario = make()
    await scenario.prepare(shop, "counted")
    network.start(strikes_at=None)
    await scenario.act(shop)
    return network.calls
