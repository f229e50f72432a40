"""What was quoted is what is charged, now and at the next renewal: a slice of the changes that the proofs generate."""

from collections.abc import AsyncIterator

import pytest

from plangate.environment import Environment
from tests.plan_changes.generated import SOLD, live
from tests.sandbox_server import SandboxServer
from tests.shop import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def selling(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, SOLD)
    yield opened
    await opened.close()


async def test_generated_changes_cost_what_was_quoted(selling: Shop) -> None:
    outcome = await live(selling, seed=1, changes=50)
    assert not outcome.differences, "\n".join(outcome.differences)
    assert (outcome.changes, outcome.renewals > 8, len(outcome.kinds)) == (50, True, 5)
