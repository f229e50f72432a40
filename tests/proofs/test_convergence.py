"""Promise 2 in full: 1,000 histories, 20 orders of delivery each, doubled and lost; all end in what fetching gives.

On both databases. `PLANGATE_PROOF_HISTORIES` asks for another number.
"""

import os
import time

import pytest

from plangate.deployment import Deployment
from plangate.settings import Settings
from tests.conftest import SECRET_KEY, environment_settings
from tests.sandbox_server import SandboxServer
from tests.shop import Shop
from tests.sync.histories import play

HISTORIES = int(os.environ.get("PLANGATE_PROOF_HISTORIES", "1000"))
SHUFFLES = 20


async def test_any_delivery_converges(
    database_url: str, sandbox_process: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    started, differences = time.monotonic(), list[str]()
    own = environment_settings(
        stripe_api_base=sandbox_process.url,
        stripe_secret_key=sandbox_process.secret_key,
        stripe_account=sandbox_process.account_id,
        stripe_webhook_secrets=(sandbox_process.webhook_secret,),
    )
    for seed in range(HISTORIES):
        # Each history has an account and an environment of its own in the one database.
        sandbox_process.control("POST", "/_sandbox/reset")
        settings = Settings(
            database_url=database_url,
            secret_keys=(SECRET_KEY,),
            environments=(own.model_copy(update={"name": f"history-{seed}"}),),
        )
        deployment = await Deployment.open(settings)
        try:
            shop = await Shop.open(deployment.named(None), sandbox_process)
            try:
                differences += await play(shop, seed=seed, shuffles=SHUFFLES)
            finally:
                await shop.close()
        finally:
            await deployment.close()
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nconvergence ({database_url.split(':', 1)[0]}): {HISTORIES:,} histories x {SHUFFLES} deliveries,"
            f" {len(differences)} differences, {time.monotonic() - started:.0f} s"
        )
    assert not differences, "\n".join(differences)
