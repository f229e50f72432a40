"""Promise 10: whoever sends the version of their write reads it, whichever process answers; others soon do."""

from plangate.deployment import create_key
from plangate.environment import Environment
from tests.access.following import follow_writes
from tests.world import publish


async def test_promise_10_a_read_with_the_version_of_a_write_is_never_older(
    environment: Environment, database_url: str
) -> None:
    await publish(environment)
    raw, _ = await create_key(environment, kind="secret", name="following")
    followed = await follow_writes(database_url, raw, pairs=80, processes=2, seed=10)
    assert (followed.pairs, followed.stale) == (80, 0)
    # A loaded machine may be slow to hear; ten times the promised second is nobody's normal day.
    assert max(followed.untold_seconds) < 10
