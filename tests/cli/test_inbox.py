"""Webhooks that failed for good are listed with their reason, and get another try."""

import asyncio
import json

from sqlalchemy import select, update

from plangate.deployment import Deployment
from plangate.settings import load_settings
from plangate.store.inbox import InboxState, inbox
from plangate.sync import receive
from tests.cli.conftest import Plangate


async def _two_failed() -> None:
    deployment = await Deployment.open(load_settings())
    env = deployment.named(None)
    for name in ("evt_1", "evt_2", "evt_3"):
        subject = {"id": "sub_1", "object": "subscription", "customer": "cus_1"}
        told = {
            "id": name,
            "type": "customer.subscription.updated",
            "created": 1_790_000_000,
            "livemode": False,
            "data": {"object": subject},
        }
        await receive(env, told)
    async with env.writing() as session:
        failed = {"state": InboxState.FAILED.value, "attempts": 15, "last_error": "stripe_busy: No answer."}
        await session.run(update(inbox).where(inbox.c.stripe_event_id != "evt_3").values(failed))
    await deployment.close()


async def _states() -> dict[str, tuple[str, int]]:
    deployment = await Deployment.open(load_settings())
    async with deployment.named(None).reading() as session:
        rows = await session.all(select(inbox))
    await deployment.close()
    return {row["stripe_event_id"]: (row["state"], row["attempts"]) for row in rows}


def test_failed_webhooks_are_listed_and_tried_again(plangate: Plangate, on_database: str) -> None:
    assert on_database
    listed = plangate("inbox", "list")
    assert (listed.code, "No webhook failed" in listed.out) == (0, True)
    asyncio.run(_two_failed())
    listed = plangate("inbox", "list")
    assert (listed.code, "evt_1" in listed.out, "evt_3" in listed.out, "No answer" in listed.out) == (
        1,
        True,
        False,
        True,
    )
    told = json.loads(plangate("inbox", "list", "--json").out)
    assert (told["counts"], {one["event"] for one in told["failed"]}) == (
        {"failed": 2, "pending": 1},
        {"evt_1", "evt_2"},
    )
    assert "--all" in plangate("inbox", "retry").err
    assert plangate("inbox", "retry", "evt_1").out == "1 will be acted on by the worker.\n"
    assert asyncio.run(_states())["evt_1"] == ("pending", 0)
    # One that has not failed is left alone.
    assert plangate("inbox", "retry", "evt_3").out == "0 will be acted on by the worker.\n"
    assert plangate("inbox", "retry", "--all").out == "1 will be acted on by the worker.\n"
    assert plangate("inbox", "list").code == 0
