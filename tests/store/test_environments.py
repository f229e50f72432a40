"""An environment is one Stripe account in one mode for good: no setting makes another account's data of it."""

import asyncio

import pytest

from plangate.deployment import Deployment
from plangate.errors import StartRefused
from plangate.settings import EnvironmentSettings, Settings
from tests.conftest import ACCOUNT, SECRET_KEY, environment_settings


async def _opened(database_url: str, environment: EnvironmentSettings) -> str:
    """Start once, and say which environment that was."""
    settings = Settings(database_url=database_url, secret_keys=(SECRET_KEY,), environments=(environment,))
    deployment = await Deployment.open(settings)
    found = deployment.named(None).id
    await deployment.close()
    return found


@pytest.mark.parametrize("change", [{"stripe_account": "acct_another"}, {"stripe_mode": "live"}])
async def test_another_account_or_mode_does_not_get_the_environment(database_url: str, change: dict[str, str]) -> None:
    first = await _opened(database_url, environment_settings())
    with pytest.raises(StartRefused, match=f"belongs to {ACCOUNT} in test mode"):
        await _opened(database_url, environment_settings(stripe_secret_key=None, **change))
    assert await _opened(database_url, environment_settings()) == first


async def test_an_account_is_not_given_a_second_environment(database_url: str) -> None:
    await _opened(database_url, environment_settings())
    with pytest.raises(StartRefused, match="as environment 'default'"):
        await _opened(database_url, environment_settings(name="live"))


async def test_servers_that_start_for_the_first_time_at_once_make_one_environment(database_url: str) -> None:
    started = await asyncio.gather(*(_opened(database_url, environment_settings()) for _ in range(4)))
    assert len(set(started)) == 1


async def test_of_servers_that_name_one_account_differently_one_starts(database_url: str) -> None:
    started = await asyncio.gather(
        *(_opened(database_url, environment_settings(name=name)) for name in ("a", "b", "c", "d")),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in started) == ["StartRefused"] * 3 + ["str"]


async def test_an_environment_made_before_its_account_was_known_gets_it_once(database_url: str) -> None:
    first = await _opened(database_url, environment_settings(stripe_account=""))
    assert await _opened(database_url, environment_settings(stripe_account="acct_1")) == first
    assert await _opened(database_url, environment_settings(stripe_account="")) == first
    with pytest.raises(StartRefused, match="belongs to acct_1"):
        await _opened(database_url, environment_settings(stripe_account="acct_2"))
