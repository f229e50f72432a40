"""Several server processes on one database: what one wrote, another is asked about at once."""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import httpx
import msgspec

from tests.nursery import Nursery
from tests.server_process import ServerProcess, server_environment

_WRITERS = 8
_UNTOLD_EVERY = 10  # one pair in so many is asked about without the version token, until it shows
_UNTOLD_SECONDS_MAX = 10


class Followed(msgspec.Struct):
    """Answers to checks that carried the version of a write, how many were older, and how long the others took."""

    pairs: int = 0
    stale: int = 0
    untold_seconds: list[float] = []


async def follow_writes(url: str, key: str, *, pairs: int, processes: int, seed: int) -> Followed:
    """Write through one process and check through another, `pairs` times; eight writers share them out.

    The company of each writer buys one project more with every write, and what it bought is its limit.
    """
    dice = random.Random(seed)  # noqa: S311 - repeatable choices, not secrets
    followed = Followed()
    servers: list[ServerProcess] = []
    with Nursery(server_environment(url)) as nursery:
        try:
            servers += [await ServerProcess.start(url, nursery) for _ in range(processes)]
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(server.client(key)) for server in servers]
                share = pairs // _WRITERS
                await asyncio.gather(*(_write(clients, f"w{n}", share, dice, followed) for n in range(_WRITERS)))
        finally:
            for server in servers:
                server.kill()
    return followed


async def _write(
    clients: Sequence[httpx.AsyncClient], name: str, times: int, dice: random.Random, followed: Followed
) -> None:
    asked = {"company": {"id": name}, "feature": "projects", "quantity": 0}
    for number in range(1, times + 1):
        writer, reader = dice.sample(clients, 2)
        told = {"keys": {"id": name}, "traits": {"projects_bought": number}}
        written = await writer.put("/v1/companies", json=told)
        written.raise_for_status()
        if number % _UNTOLD_EVERY == 0:
            followed.untold_seconds.append(await _seconds_until(reader, asked, number))
        headers = {"Plangate-Version": written.headers["Plangate-Version"]}
        answer = await reader.post("/v1/check", json=asked, headers=headers)
        answer.raise_for_status()
        followed.pairs += 1
        followed.stale += answer.json()["limit"] != number


async def _seconds_until(reader: httpx.AsyncClient, asked: dict[str, object], limit: int) -> float:
    """How long the reader goes on answering what was true before."""
    began = time.monotonic()
    while time.monotonic() - began < _UNTOLD_SECONDS_MAX:
        answer = await reader.post("/v1/check", json=asked)
        if answer.json()["limit"] == limit:
            break
        await asyncio.sleep(0.005)
    return time.monotonic() - began
