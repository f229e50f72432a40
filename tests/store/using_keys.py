"""Uses keys in one database until it is killed: run as `python -m tests.store.using_keys URL FIRST`.

Each batch is told on a line of its own once it is committed; what its keys are follows from its number.
"""

import asyncio
import sys
from hashlib import sha256
from itertools import count

from plangate.clock import wall_now
from plangate.store import recent_keys
from plangate.store.database import Database
from plangate.store.ledger import add_usage
from plangate.store.used_keys import UsedKey

KEPT = 300
PER_BATCH = 40


def keys_of(batch: int) -> list[UsedKey]:
    """The keys of one batch; every third batch is one that is answered."""
    hashes = [sha256(f"{batch} {number}".encode()).digest() for number in range(PER_BATCH)]
    return [UsedKey(one[:16], one[16:24], {"batch": batch} if batch % 3 == 0 else None) for one in hashes]


async def _use(url: str, first: int) -> None:
    recent_keys.LEAST_KEPT = KEPT  # type: ignore[misc]  # merging is what is killed here
    database = Database.at(url)
    for batch in count(first):
        async with database.writing("env_one", wall_now()) as session:
            await add_usage(session, [], keys=keys_of(batch))
        sys.stdout.write(f"{batch}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_use(sys.argv[1], int(sys.argv[2])))
