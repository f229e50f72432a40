"""Signed quotes in full: of 2,000 generated changes each costs what was quoted, now and at the renewal after it.

`PLANGATE_PROOF_CHANGES` asks for another number.
"""

import os
import shutil
import time
from pathlib import Path

import pytest

from plangate.deployment import Deployment
from plangate.settings import Settings
from tests.conftest import SECRET_KEY, environment_settings
from tests.plan_changes.generated import Outcome, live, selling
from tests.sandbox_server import SandboxServer
from tests.shop import Shop

CHANGES = int(os.environ.get("PLANGATE_PROOF_CHANGES", "2000"))
_AT_ONCE = 100


async def test_quotes_hold(
    sandbox_process: SandboxServer, sqlite_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started, total = time.monotonic(), Outcome()
    while total.changes < CHANGES:
        # A fresh account and database now and then, so that the years that pass stay few.
        seed = 1_000 + total.changes
        found = await _block(sandbox_process, sqlite_template, tmp_path / f"{seed}.sqlite3", seed)
        total.changes += found.changes
        total.renewals += found.renewals
        total.kinds += found.kinds
        total.differences += found.differences
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nquotes: {total.changes:,} changes ({dict(total.kinds)}), {total.renewals:,} renewals,"
            f" {len(total.differences)} differences, {time.monotonic() - started:.0f} s"
        )
    assert not total.differences, "\n".join(total.differences)


async def _block(sandbox: SandboxServer, template: Path, file: Path, seed: int) -> Outcome:
    sandbox.control("POST", "/_sandbox/reset")
    shutil.copyfile(template, file)
    own = environment_settings(
        stripe_api_base=sandbox.url,
        stripe_secret_key=sandbox.secret_key,
        stripe_account=sandbox.account_id,
        stripe_webhook_secrets=(sandbox.webhook_secret,),
    )
    settings = Settings(database_url=f"sqlite:///{file}", secret_keys=(SECRET_KEY,), environments=(own,))
    deployment = await Deployment.open(settings)
    try:
        shop = await Shop.open(deployment.named(None), sandbox, selling(seed))
        try:
            return await live(shop, seed=seed, changes=min(_AT_ONCE, CHANGES))
        finally:
            await shop.close()
    finally:
        await deployment.close()
