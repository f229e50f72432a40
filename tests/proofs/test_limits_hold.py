"""Promises 4 and 8 in full: 200 rounds of 2,000 tries for 100 from 4 processes, and 20,000 transactions on SQLite.

`PLANGATE_PROOF_ROUNDS` asks for another number of rounds.
"""

import copy
import os
import time
from typing import Any

import pytest

from plangate import access
from plangate.environment import Environment
from tests.metering.rivals import compete, rivals
from tests.world import DOCUMENT, make_company, publish

ROUNDS = int(os.environ.get("PLANGATE_PROOF_ROUNDS", "200"))
LIMIT, TRIES, PROCESSES, TRANSACTIONS = 100, 2_000, 4, 20_000


@pytest.mark.parametrize("has_reservations", [False, True])
async def test_a_hard_limit_admits_exactly_the_limit(
    environment: Environment, database_url: str, capsys: pytest.CaptureFixture[str], *, has_reservations: bool
) -> None:
    document: dict[str, Any] = copy.deepcopy(dict(DOCUMENT))
    document["plans"]["free"]["entitlements"]["exports"]["limit"] = LIMIT
    await publish(environment, document)
    # A server and a command beside it on SQLite; as many processes as a deployment likes on PostgreSQL.
    processes = PROCESSES if environment.database.is_postgresql else 2
    started_at = time.monotonic()
    admitted: list[int] = []
    with rivals(database_url, processes) as started:
        for number in range(ROUNDS):
            await make_company(environment, f"round-{number}")
            admitted.append(compete(started, key=f"round-{number}", tries=TRIES, has_reservations=has_reservations))
    environment.forget("")
    counted = [
        (await access.check(environment, company={"id": f"round-{number}"}, feature="exports")).used
        for number in range(ROUNDS)
    ]
    ways = "consume and reserve" if has_reservations else "consume"
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nlimits, {ways}: exactly {LIMIT} of {TRIES:,} tries from {processes} processes in "
            f"{sum(one == LIMIT for one in admitted)} of {ROUNDS} rounds, {time.monotonic() - started_at:.0f} s"
        )
    assert admitted == [LIMIT] * ROUNDS
    assert counted == [LIMIT] * ROUNDS


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sqlite_never_says_locked(
    environment: Environment, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await publish(environment)
    await make_company(environment)
    with rivals(database_url, PROCESSES) as started:
        for number, one in enumerate(started):
            one.tell(kind="record", key="acme", times=TRANSACTIONS // PROCESSES, name=number)
        answers = [one.answer() for one in started]
    longest = max(answer["longest_seconds"] for answer in answers)
    errors = sum(len(answer["errors"]) for answer in answers)
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nlocks: {TRANSACTIONS:,} transactions from {PROCESSES} processes, {errors} errors,"
            f" longest wait {longest:.2f} s"
        )
    environment.forget("")
    assert errors == 0
    assert longest < 1
    assert (await access.check(environment, company={"id": "acme"}, feature="exports")).used == TRANSACTIONS
