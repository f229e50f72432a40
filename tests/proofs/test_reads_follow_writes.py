"""Promise 10 in full: 10,000 writes, each read at once through another of 4 processes, on both databases.

`PLANGATE_PROOF_PAIRS` asks for another number.
"""

import os
import time

import pytest

from plangate.deployment import create_key
from plangate.environment import Environment
from tests.access.following import follow_writes
from tests.world import publish

PAIRS = int(os.environ.get("PLANGATE_PROOF_PAIRS", "10000"))


async def test_a_read_with_the_version_of_a_write_is_never_older(
    environment: Environment, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await publish(environment)
    raw, _ = await create_key(environment, kind="secret", name="following")
    started_at = time.monotonic()
    followed = await follow_writes(database_url, raw, pairs=PAIRS, processes=4, seed=20261120)
    untold = sorted(followed.untold_seconds)
    slowest = untold[len(untold) * 99 // 100]
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nreads after writes on {environment.database.url.get_backend_name()}: {followed.stale} stale of"
            f" {followed.pairs:,} with the version token; without it p99 {slowest * 1000:.0f} ms of {len(untold):,};"
            f" 4 processes, {time.monotonic() - started_at:.0f} s"
        )
    assert followed.stale == 0
    assert followed.pairs == PAIRS
    assert slowest <= 1
