"""Promise 1 in full: a server killed under load, 500 times on each database, loses nothing it acknowledged.

`PLANGATE_PROOF_KILLS` asks for another number.
"""

import os
import time

import pytest

from plangate.deployment import create_key
from plangate.environment import Environment
from tests.metering.killing import kill_under_load
from tests.world import make_company, publish

KILLS = int(os.environ.get("PLANGATE_PROOF_KILLS", "500"))


async def test_nothing_acknowledged_is_lost(
    environment: Environment, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await publish(environment)
    await make_company(environment)
    raw, _ = await create_key(environment, kind="secret", name="killing")
    started = time.monotonic()
    kept = await kill_under_load(database_url, raw, rounds=KILLS, seed=20261120)
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nkills: {KILLS} on {environment.database.url.get_backend_name()}, {kept.acknowledged:,} events, "
            f"{kept.webhooks[0]:,} webhooks and {kept.overrides[0]:,} overrides acknowledged,"
            f" {kept.lost + kept.webhooks[1] + kept.overrides[1]} lost,"
            f" {kept.counted - kept.acknowledged - kept.unsure} counted twice,"
            f" slowest start {kept.slowest_start_seconds:.1f} s, {time.monotonic() - started:.0f} s"
        )
    assert kept.lost == kept.webhooks[1] == kept.overrides[1] == 0
    assert min(kept.acknowledged, kept.webhooks[0], kept.overrides[0]) > 0
    assert kept.counted == kept.acknowledged + kept.unsure
