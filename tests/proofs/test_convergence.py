"""Promise 2 in full: 1,000 histories, 20 orders of delivery each, doubled and lost; all end in what fetching gives.

On both databases, in as many processes as there are cores. `PLANGATE_PROOF_HISTORIES` asks for another number.
"""

import asyncio
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.sync.histories import Account

HISTORIES = int(os.environ.get("PLANGATE_PROOF_HISTORIES", "1000"))
SHUFFLES = 20
SIDE_BY_SIDE = 5


async def _play(database_url: str, name: str, seeds: list[int]) -> list[str]:
    account = await Account.open(database_url, watchers=SHUFFLES, name=name)
    try:
        return [
            f"seed {seed}: {words}"
            for seed in seeds
            for words in await account.play(seed=seed, customers=min(SIDE_BY_SIDE, HISTORIES - seed))
        ]
    finally:
        await account.close()


def _play_share(database_url: str, name: str, seeds: list[int]) -> list[str]:
    return asyncio.run(_play(database_url, name, seeds))


async def test_any_delivery_converges(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    started, loop = time.monotonic(), asyncio.get_running_loop()
    seeds, shares = list(range(0, HISTORIES, SIDE_BY_SIDE)), os.cpu_count() or 1
    urls = [database_url] * shares
    if database_url.startswith("sqlite"):
        # A file has one writer at a time; each process has its own.
        file = database_url.removeprefix("sqlite:///")
        urls = [f"sqlite:///{shutil.copyfile(file, f'{file}.{number}')}" for number in range(shares)]
    with ProcessPoolExecutor(shares, mp_context=get_context("spawn")) as pool:
        found = await asyncio.gather(
            *(
                loop.run_in_executor(pool, _play_share, url, f"proof-{number}", seeds[number::shares])
                for number, url in enumerate(urls)
            )
        )
    differences = [words for share in found for words in share]
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nconvergence ({database_url.split(':', 1)[0]}): {HISTORIES:,} histories x {SHUFFLES} deliveries,"
            f" {len(differences)} differences, {time.monotonic() - started:.0f} s"
        )
    assert not differences, "\n".join(differences)
