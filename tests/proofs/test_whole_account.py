"""A whole account of 10,000 customers: imported, killed half-way and gone on with, imported again, compared, repaired.

On both databases. `PLANGATE_PROOF_CUSTOMERS` asks for another number.
"""

import asyncio
import os
import resource
import time

import pytest

from plangate import drift
from plangate.environment import Environment
from plangate.importing import import_account
from plangate.store.audit import first_broken
from tests.sandbox_server import SandboxServer
from tests.shop import Shop
from tests.sync.crowds import grow

CUSTOMERS = int(os.environ.get("PLANGATE_PROOF_CUSTOMERS", "10000"))


async def test_a_whole_account_is_imported(
    connected_environment: Environment, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = await Shop.open(connected_environment, sandbox)
    env = shop.env
    try:
        names = grow(shop, CUSTOMERS, price=(await env.catalog()).plans["pro"].prices[0].stripe_price_id or "")
        asked_before = len(shop.requests("GET"))
        half = asyncio.Event()

        def watch(words: str, through: int, _total: int | None) -> None:
            if words == "Importing subscribers" and through >= CUSTOMERS // 2:
                half.set()

        started = time.monotonic()
        running = asyncio.create_task(import_account(env, progress=watch))
        await half.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        report = await import_account(env)
        imported = time.monotonic() - started
        asked = len(shop.requests("GET")) - asked_before
        assert (report.is_resumed, report.customers, report.failed) == (True, CUSTOMERS, [])
        started = time.monotonic()
        again = await import_account(env)
        repeated = time.monotonic() - started
        assert (again.companies, again.changed) == (CUSTOMERS, 0)
        started = time.monotonic()
        assert await drift.stripe_drift(env) == []
        compared = time.monotonic() - started
        silent = set(names[::100])
        for subscription in sandbox.app_state.sandbox.world.store.all("subscription"):
            if subscription["customer"] in silent:
                subscription["_items"][0]["quantity"] = 7
        started = time.monotonic()
        healed = await drift.stripe_drift(env, repair=True)
        repaired = time.monotonic() - started
        assert (len(healed), all(one.is_repaired for one in healed)) == (len(silent), True)
        assert await drift.stripe_drift(env) == []
        async with env.reading() as session:
            assert await first_broken(session) is None
    finally:
        await shop.close()
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what this is for
            f"\nwhole account ({env.database.url.get_backend_name()}): {CUSTOMERS:,} customers imported in"
            f" {imported:.0f} s ({CUSTOMERS / imported:.0f}/s, {asked:,} calls at most), again in {repeated:.0f} s,"
            f" compared in {compared:.0f} s, {len(silent)} repaired in {repaired:.0f} s,"
            f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most, the sandbox included"
        )
