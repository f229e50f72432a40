"""Several processes at once: a hard limit admits exactly the limit, and SQLite never says that it is locked."""

import pytest

from plangate import access
from plangate.environment import Environment
from tests.metering.rivals import compete, rivals
from tests.world import make_company, publish


@pytest.mark.parametrize("has_reservations", [False, True])
async def test_promise_4_a_hard_limit_admits_exactly_the_limit(
    environment: Environment, database_url: str, *, has_reservations: bool
) -> None:
    await publish(environment)
    with rivals(database_url, 2) as started:
        for number in range(3):
            await make_company(environment, f"round-{number}")
            assert compete(started, key=f"round-{number}", tries=60, has_reservations=has_reservations) == 10
            environment.forget("")
            decision = await access.check(environment, company={"id": f"round-{number}"}, feature="exports")
            assert (decision.used, decision.reserved, decision.allowed) == (10, 0, False)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_promise_8_writers_of_sqlite_wait_for_each_other(environment: Environment, database_url: str) -> None:
    await publish(environment)
    await make_company(environment)
    with rivals(database_url, 3) as started:
        for number, one in enumerate(started):
            one.tell(kind="record", key="acme", times=50, name=number)
        answers = [one.answer() for one in started]
    assert [answer["errors"] for answer in answers] == [[], [], []]
    environment.forget("")
    assert (await access.check(environment, company={"id": "acme"}, feature="exports")).used == 150
