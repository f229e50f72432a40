"""A server that is killed under load, again and again, and the accounts that must balance afterwards."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from itertools import count

import httpx
import msgspec

from plangate.billing.signatures import sign
from plangate.clock import wall_now
from tests.conftest import WEBHOOK_SECRET
from tests.nursery import Nursery
from tests.server_process import ServerProcess, server_environment

_CALLERS = 8
_WHOLE_STARTS = 25  # one in so many servers imports everything itself, as one that is restarted does
_GRANTED_MAX = 500
_FAR_AHEAD = datetime(2099, 1, 1, tzinfo=UTC)


class Kept(msgspec.Struct):
    """What became of everything sent in all rounds, and how long the restarted server took until it was ready.

    `acknowledged`, `lost`, `unsure` and `counted` are about usage; the other two are what was acknowledged, and lost.
    """

    acknowledged: int = 0
    webhooks: tuple[int, int] = (0, 0)
    overrides: tuple[int, int] = (0, 0)
    lost: int = 0
    unsure: int = 0
    counted: int = 0
    slowest_start_seconds: float = 0.0


async def kill_under_load(url: str, key: str, *, rounds: int, seed: int) -> Kept:
    """Start, load and kill a server `rounds` times; then send everything again, or look for it, and compare.

    Besides usage, webhooks arrive and overrides are granted. An event that was acknowledged must be a duplicate when it
    is sent again. `counted` is what the company has used in the end: every event once, whether it had been acknowledged
    or not, because all were sent again.
    """
    dice = random.Random(seed)  # noqa: S311 - repeatable moments, not secrets
    kept, numbers = Kept(), count()
    webhooks: set[str] = set()
    overrides: dict[str, set[str]] = {}
    acknowledged: set[str] = set()
    sent: set[str] = set()
    with Nursery(server_environment(url)) as nursery:
        for number in range(rounds):
            server = await ServerProcess.start(url, None if number % _WHOLE_STARTS == 0 else nursery)
            if number % _WHOLE_STARTS == 0:
                kept.slowest_start_seconds = max(kept.slowest_start_seconds, server.start_seconds)
            load = asyncio.gather(
                _deliver(server, numbers, webhooks),
                _grant(server, key, f"kill-{number}", numbers, overrides),
                *(_report(server, key, numbers, sent, acknowledged) for _ in range(_CALLERS)),
            )
            # However slow the machine is, some were acknowledged and others are under way.
            enough = len(acknowledged) + dice.randint(5, 100)
            while len(acknowledged) < enough and not load.done():
                await asyncio.sleep(0.003)
            server.kill()
            await load
    server = await ServerProcess.start(url)
    async with server.client(key) as client:
        for name in sorted(sent):
            status = await _send(client, name)
            if name in acknowledged and status != "duplicate":
                kept.lost += 1
        answer = await client.post("/v1/check", json={"company": {"id": "acme"}, "feature": "exports"})
        kept.counted = answer.json()["used"]
        forgotten = [name for name in sorted(webhooks) if await _post_webhook(client, name) != "repeated"]
        kept.webhooks = len(webhooks), len(forgotten)
        missing = [ids - await _override_ids(client, company) for company, ids in overrides.items()]
        kept.overrides = sum(map(len, overrides.values())), sum(map(len, missing))
    server.kill()
    kept.acknowledged, kept.unsure = len(acknowledged), len(sent) - len(acknowledged)
    return kept


async def _report(
    server: ServerProcess, key: str, numbers: "count[int]", sent: set[str], acknowledged: set[str]
) -> None:
    async with server.client(key) as client:
        while True:
            name = f"kill-{next(numbers)}"
            sent.add(name)
            try:
                status = await _send(client, name)
            except httpx.TransportError:
                return
            if status == "accepted":
                acknowledged.add(name)


async def _send(client: httpx.AsyncClient, name: str) -> str:
    answer = await client.post(
        "/v1/events", json={"type": "track", "event": "export", "company": {"id": "acme"}, "idempotency_key": name}
    )
    answer.raise_for_status()
    return str(answer.json()["results"][0]["status"])


async def _deliver(server: ServerProcess, numbers: "count[int]", acknowledged: set[str]) -> None:
    """Webhooks of a customer that is none of ours, one after the other."""
    async with server.client(None) as client:
        while True:
            name = f"evt_kill_{next(numbers)}"
            try:
                await _post_webhook(client, name)
            except httpx.TransportError:
                return
            acknowledged.add(name)


async def _post_webhook(client: httpx.AsyncClient, name: str) -> str:
    subject = {"id": "sub_kill", "object": "subscription", "customer": "cus_kill"}
    body = msgspec.json.encode(
        {
            "id": name,
            "object": "event",
            "type": "customer.subscription.updated",
            "livemode": False,
            "created": 1,
            "data": {"object": subject},
        }
    )
    headers = {"Stripe-Signature": sign(body, WEBHOOK_SECRET, at=wall_now()), "Content-Type": "application/json"}
    answer = await client.post("/webhooks/stripe", content=body, headers=headers)
    answer.raise_for_status()
    return str(answer.json()["outcome"])


async def _grant(
    server: ServerProcess, key: str, name: str, numbers: "count[int]", acknowledged: dict[str, set[str]]
) -> None:
    """Overrides of one second each, far ahead, so that none overlaps another and none decides."""
    async with server.client(key) as client:
        try:
            company = (await client.put("/v1/companies", json={"keys": {"id": name}})).json()["id"]
            # A company may have a thousand; those of a round are its own.
            granted = acknowledged.setdefault(company, set())
            while len(granted) < _GRANTED_MAX:
                starts_at = _FAR_AHEAD + timedelta(seconds=next(numbers))
                body = {
                    "feature": "exports",
                    "mode": "add",
                    "value": 1,
                    "starts_at": starts_at.isoformat(),
                    "expires_at": (starts_at + timedelta(seconds=1)).isoformat(),
                    "note": "while it is killed",
                }
                answer = await client.post(f"/v1/companies/{company}/overrides", json=body)
                answer.raise_for_status()
                granted.add(answer.json()["id"])
        except httpx.TransportError:
            return


async def _override_ids(client: httpx.AsyncClient, company: str) -> set[str]:
    found: set[str] = set()
    cursor: str | None = None
    while True:
        query = {"limit": "100"} if cursor is None else {"limit": "100", "cursor": cursor}
        page = (await client.get(f"/v1/companies/{company}/overrides", params=query)).json()
        found |= {one["id"] for one in page["data"]}
        cursor = page["next_cursor"]
        if cursor is None:
            return found
