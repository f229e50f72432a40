"""A Plangate server on each database, with two environments, a small catalogue and a company in each."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from plangate import catalog, companies
from plangate.deployment import Deployment
from plangate.settings import Settings
from plangate.store.companies import STRIPE_CUSTOMER_KEY, add_keys
from tests.conftest import SECRET_KEY, environment_settings
from tests.plangate_server import PlangateServer
from tests.world import ACTOR, DOCUMENT

OTHER_ACCOUNT = "acct_other9876543210"
OTHER_WEBHOOK_SECRET = "whsec_other_0123456789abcdef"
OTHER_APP_SECRET = "absec_other_0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Front:
    """The server as its callers see it. `acme` and `rival` are the companies of the two environments."""

    server: PlangateServer
    http: httpx.Client
    other: httpx.Client
    key: str
    other_key: str
    acme: str
    rival: str


@pytest.fixture
def front(database_url: str) -> Iterator[Front]:
    """Two environments, `default` and `other`, each with the company `id=acme` (or `id=rival`) on the plan free."""
    settings = Settings(
        database_url=database_url,
        secret_keys=(SECRET_KEY,),
        address_rate_limit_per_second=100_000,
        rate_limit_per_second=100_000,
        environments=(
            environment_settings(),
            environment_settings(
                name="other",
                stripe_account=OTHER_ACCOUNT,
                stripe_webhook_secrets=(OTHER_WEBHOOK_SECRET,),
                stripe_app_secrets=(OTHER_APP_SECRET,),
            ),
        ),
    )
    with PlangateServer(settings) as server:
        acme = server.run(lambda deployment: _furnish(deployment, "default", "acme"))
        rival = server.run(lambda deployment: _furnish(deployment, "other", "rival"))
        key, other_key = server.key(environment="default"), server.key(environment="other")
        with server.client(key) as http, server.client(other_key) as other:
            yield Front(server, http, other, key, other_key, acme, rival)


async def _furnish(deployment: Deployment, environment: str, name: str) -> str:
    env = deployment.named(environment)
    await catalog.apply(env, DOCUMENT, actor=ACTOR)
    company, _ = await companies.upsert(env, keys={"id": name}, name=name.title(), actor=ACTOR)
    # Linked without being fetched: nobody answers for Stripe here.
    async with env.writing() as session:
        await add_keys(session, company.id, [(STRIPE_CUSTOMER_KEY, f"cus_{name}")])
        await env.touch(session, company.id)
    return company.id
