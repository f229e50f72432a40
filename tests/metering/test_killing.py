"""Promise 1: what was acknowledged survives a kill at any moment, and counts once."""

from plangate.deployment import create_key
from plangate.environment import Environment
from tests.metering.killing import kill_under_load
from tests.world import make_company, publish


async def test_promise_1_nothing_acknowledged_is_lost(environment: Environment, database_url: str) -> None:
    await publish(environment)
    await make_company(environment)
    raw, _ = await create_key(environment, kind="secret", name="killing")
    kept = await kill_under_load(database_url, raw, rounds=2, seed=1)
    assert kept.acknowledged > 0
    assert kept.lost == kept.webhooks[1] == kept.overrides[1] == 0
    assert kept.counted == kept.acknowledged + kept.unsure
