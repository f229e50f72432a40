"""A server killed with `kill -9` in the middle of a plan change: what the same confirmation answers after that."""

import asyncio
import time

import pytest

from plangate.deployment import create_key
from plangate.shapes import ChangeState
from tests.plan_changes.conftest import shop as shop  # noqa: PLC0414 - the fixture, under its own name
from tests.server_process import ServerProcess
from tests.shop import Shop

_ANSWERED_WITHIN_SECONDS = 10


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_confirmation_after_a_kill_is_answered_in_time_and_makes_one_change(
    shop: Shop, database_url: str
) -> None:
    await shop.subscribed(plan="pro")
    quote = await shop.preview(plan="starter")
    key, _ = await create_key(shop.env, kind="secret", name="killing")
    settings = {
        "PLANGATE_STRIPE_API_BASE": shop.sandbox.url,
        "PLANGATE_STRIPE_SECRET_KEY": shop.sandbox.secret_key,
        "PLANGATE_STRIPE_ACCOUNT": shop.sandbox.account_id,
    }
    killed, other = await asyncio.gather(
        ServerProcess.start(database_url, settings=settings), ServerProcess.start(database_url, settings=settings)
    )
    path, body = f"/v1/companies/{shop.company_id}/plan-changes", {"quote": quote.quote}
    fault = {"fault": "timeout", "method": "POST", "path": "/v1/subscription_schedules*", "when": "after", "seconds": 5}
    shop.sandbox.control("POST", "faults", fault)
    try:
        async with killed.client(key) as first, other.client(key) as second:
            asked = asyncio.create_task(first.post(path, json=body))
            while not shop.objects("subscription_schedule"):
                assert not asked.done(), asked.result().text
                await asyncio.sleep(0.02)
            killed.kill()
            await asyncio.gather(asked, return_exceptions=True)

            # The dead process renews its lease no more: whoever waits for it has it before the answer is due.
            began = time.monotonic()
            done = await second.post(path, json=body)
            assert time.monotonic() - began < _ANSWERED_WITHIN_SECONDS
            assert (done.status_code, done.json()["state"]) == (201, ChangeState.SCHEDULED.value), done.text
            again = await second.post(path, json=body)
            assert again.json()["id"] == done.json()["id"]
            assert len(shop.objects("subscription_schedule")) == 1
    finally:
        other.kill()
