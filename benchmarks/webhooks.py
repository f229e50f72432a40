"""How soon a webhook decides: from its signed bytes at the server's edge until a check answers by what Stripe says now.

The time that Stripe takes to answer is left out; its stand-in is a process of its own, as Stripe is no thread of the
server. The floor, measured beside it, is what no build can do without: verify the signature, make the event durable,
compile the company anew.
"""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from statistics import median
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final

import asyncpg
import httpx
import msgspec
from starlette.types import ASGIApp, Message

from benchmarks.table import Line
from plangate import access
from plangate.billing.gateway import CustomerState
from plangate.billing.signatures import sign, verify_webhook
from plangate.clock import wall_now
from plangate.collecting import settle
from plangate.deployment import Deployment
from plangate.engine.entitlements import build_snapshot
from plangate.environment import Environment
from plangate.settings import EnvironmentSettings, Settings
from plangate.store.database import Database
from plangate.store.inbox import inbox_figures
from plangate.store.schema import migrate
from plangate.web.app import create_app
from tests.sandbox_server import SandboxServer
from tests.shop import Shop

SAME_PROCESS_MS: Final = 5.0
OTHER_PROCESS_MS: Final = 20.0
_LIMITS: Final = {"starter": 100, "pro": 1000}
_SECRET_KEY: Final = "benchmark-0123456789abcdef0123456789abcdef"
_WARM: Final = 20
_WAIT_SECONDS: Final = 20


async def measured(url: str, name: str, *, times: int) -> list[Line]:
    """Lines for one database: the process that receives the webhook, and on PostgreSQL another one as well."""
    database = Database.at(url)
    await migrate(database)
    await database.close()
    with _Sandbox() as sandbox:
        settings = Settings(
            database_url=url,
            log_level="warning",
            secret_keys=(_SECRET_KEY,),
            environments=(
                EnvironmentSettings(
                    stripe_secret_key=sandbox.secret_key,
                    stripe_account=sandbox.account_id,
                    stripe_mode="test",
                    stripe_api_base=sandbox.url,
                    stripe_webhook_secrets=(sandbox.webhook_secret,),
                    allowed_origins=("http://shop.test",),
                ),
            ),
        )
        deployment = await Deployment.open(settings)
        try:
            shop = await Shop.open(deployment.named(None), sandbox)
            async with _serving(deployment) as app:
                one_company = _Round(shop, app)
                found = await one_company.measured(times)
                if deployment.database.is_postgresql:
                    # Apart from the first, in which nobody else wants the machine.
                    async with _watching(url, shop.company_id) as other:
                        found.elsewhere = (await one_company.measured(times // 2, other)).elsewhere
            await shop.close()
        finally:
            await deployment.close()
    lines = [_line(f"webhook received → decision, p99, {name}", found.floors, found.here, SAME_PROCESS_MS)]
    if found.elsewhere:
        lines.append(
            _line(f"the same in another process, p99, {name}", found.floors, found.elsewhere, OTHER_PROCESS_MS)
        )
    return lines


class _Sandbox(SandboxServer):
    """The sandbox as a process of its own: a thread of this one would keep the server waiting for the interpreter."""

    def __enter__(self) -> "_Sandbox":
        port = self._socket.getsockname()[1]
        self._socket.close()
        options = {
            "--port": str(port),
            "--secret-key": self.secret_key,
            "--account": self.account_id,
            "--webhook-secret": self.webhook_secret,
        }
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "plangate.sandbox", *(text for option in options.items() for text in option)]
        )
        self._http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        give_up_at = monotonic() + _WAIT_SECONDS
        while not self._answers():
            if monotonic() > give_up_at or self._process.poll() is not None:
                raise RuntimeError("the sandbox did not start")
            sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            self.control("GET", "clock")
        except httpx.TransportError:
            return False
        return True


class _Found(msgspec.Struct):
    """Milliseconds of each webhook."""

    floors: list[float] = []
    here: list[float] = []
    elsewhere: list[float] = []


class _Round:
    """One company whose plan is changed at Stripe again and again."""

    def __init__(self, shop: Shop, app: ASGIApp) -> None:
        self._shop = shop
        self._env = shop.env
        self._app = app
        self._subscription_id: str | None = None
        self._other: asyncio.subprocess.Process | None = None
        self._fetch = shop.env.gateway.fetch_customer_state
        self._fetching_seconds = 0.0
        shop.env.gateway.fetch_customer_state = self._fetched  # type: ignore[method-assign]  # the one way to time it alone

    async def measured(self, times: int, other: "asyncio.subprocess.Process | None" = None) -> _Found:
        """Change the plan so many times (an even number), after a few to warm up; `other` is a process that watches."""
        shop, env = self._shop, self._env
        self._other = other
        self._subscription_id = subscription_id = self._subscription_id or await shop.subscribed()
        plans = (await env.catalog()).plans
        prices = {plan: plans[plan].prices[0].stripe_price_id or "" for plan in _LIMITS}
        found = _Found()
        commit = await _durable(env)
        await self._rested()
        # As `plangate serve` does; the floor gains as well.
        settle()
        for number in range(times + _WARM):
            plan = ("starter", "pro")[number % 2]
            # On a thread: somebody else changes it, and the server goes on with what it does meanwhile.
            event = await asyncio.to_thread(self._moved, subscription_id, prices[plan])
            body = msgspec.json.encode(event)
            signature = sign(body, shop.sandbox.webhook_secret, at=wall_now())
            floor = await self._floor(body, signature, commit)
            here, elsewhere = await self._one(body, signature, _LIMITS[plan])
            if number >= _WARM:
                found.floors.append(floor)
                found.here.append(here)
                found.elsewhere += elsewhere
        return found

    def _moved(self, subscription_id: str, price: str) -> dict[str, Any]:
        """Give the subscription another price at Stripe; the event that tells of it."""
        stripe = self._shop.stripe
        item = stripe.subscriptions.retrieve(subscription_id)["items"]["data"][0]["id"]
        stripe.subscriptions.update(
            subscription_id, {"items": [{"id": item, "price": price}], "proration_behavior": "none"}
        )
        told: dict[str, Any] = stripe.events.list({"limit": 1}).data[0].to_dict(for_json=True)
        return told

    async def _rested(self) -> None:
        """Wait until what the first sweep found is done with: it is about the same company."""
        calm = 0
        while calm < 5:
            await asyncio.sleep(0.1)
            async with self._env.reading() as session:
                waiting = (await inbox_figures(session))["counts"].get("pending", 0)
            calm = 0 if waiting else calm + 1

    async def _floor(self, body: bytes, signature: str, commit: Callable[[bytes], Any]) -> float:
        standing = await self._env.standings.of(self._shop.company_id)
        if standing is None:
            raise RuntimeError("there is no such company")
        catalog, now = await self._env.catalog(), self._env.clock.now()
        began = monotonic()
        verify_webhook(body, signature, [(self._shop.sandbox.webhook_secret, "default")], now=wall_now())
        await commit(body)
        build_snapshot(catalog, standing.facts, now)
        return (monotonic() - began) * 1000

    async def _one(self, body: bytes, signature: str, limit: int) -> tuple[float, list[float]]:
        env, company_id = self._env, self._shop.company_id
        self._fetching_seconds = 0.0
        changed = asyncio.Event()
        forget = env.standings.forget

        def forgotten(company_id: str) -> None:
            forget(company_id)
            changed.set()

        env.standings.forget = forgotten  # type: ignore[method-assign]  # tells when to ask, instead of asking all the time
        if self._other is not None and self._other.stdin is not None:
            self._other.stdin.write(f"{limit}\n".encode())
        began = monotonic()
        status = await _post(self._app, body, signature)
        if status != 200:
            raise RuntimeError(f"the webhook was answered {status}")
        while True:
            await asyncio.wait_for(changed.wait(), _WAIT_SECONDS)
            changed.clear()
            standing = await env.standings.of(company_id)
            if standing is not None and access.check_now(env, standing, "exports").limit == limit:
                break
        here = monotonic() - began - self._fetching_seconds
        env.standings.forget = forget  # type: ignore[method-assign]  # as it was
        elsewhere = []
        if self._other is not None and self._other.stdout is not None:
            seen = float(await asyncio.wait_for(self._other.stdout.readline(), _WAIT_SECONDS))
            elsewhere.append((seen - began - self._fetching_seconds) * 1000)
        return here * 1000, elsewhere

    async def _fetched(self, stripe_customer_id: str) -> CustomerState | None:
        began = monotonic()
        try:
            return await self._fetch(stripe_customer_id)
        finally:
            self._fetching_seconds += monotonic() - began


async def _post(app: ASGIApp, body: bytes, signature: str) -> int:
    """Post a webhook to the application itself; answers the status."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"stripe-signature", signature.encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/webhooks/stripe",
        "raw_path": b"/webhooks/stripe",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


@asynccontextmanager
async def _serving(deployment: Deployment) -> AsyncIterator[ASGIApp]:
    """The application with its worker, as a server runs it."""
    app = create_app(deployment)
    told: asyncio.Queue[Message] = asyncio.Queue()
    answered: asyncio.Queue[Message] = asyncio.Queue()
    living = asyncio.create_task(_live(app, told, answered))
    told.put_nowait({"type": "lifespan.startup"})
    await answered.get()
    yield app
    told.put_nowait({"type": "lifespan.shutdown"})
    await living


async def _live(app: ASGIApp, told: "asyncio.Queue[Message]", answered: "asyncio.Queue[Message]") -> None:
    await app({"type": "lifespan"}, told.get, answered.put)


async def _durable(env: Environment) -> Callable[[bytes], Any]:
    """Commits some bytes to a table of its own, the fastest way the database has."""
    if env.database.is_postgresql:
        connection = await asyncpg.connect(env.database.plain_url())
        await connection.execute("CREATE TABLE IF NOT EXISTS floor (body bytea)")

        async def insert(body: bytes) -> None:
            await connection.execute("INSERT INTO floor (body) VALUES ($1)", body)

        return insert
    file = sqlite3.connect(f"{env.database.url.database}.floor", isolation_level=None)
    file.execute("PRAGMA journal_mode=WAL")
    file.execute("PRAGMA synchronous=FULL")
    file.execute("CREATE TABLE IF NOT EXISTS floor (body blob)")

    async def append(body: bytes) -> None:
        file.execute("INSERT INTO floor (body) VALUES (?)", (body,))

    return append


@asynccontextmanager
async def _watching(url: str, company_id: str) -> "AsyncIterator[asyncio.subprocess.Process]":
    """Another process on the database, which says when it sees the limit it is told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.webhooks",
        json.dumps([url, company_id]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdout is None or not await process.stdout.readline():
            raise RuntimeError("the other process did not start")
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def _watch(url: str, company_id: str) -> None:
    deployment = await Deployment.open(
        Settings(database_url=url, secret_keys=(_SECRET_KEY,), environments=(EnvironmentSettings(stripe_mode="test"),))
    )
    env = deployment.named(None)
    deployment.start_following()
    changed = asyncio.Event()
    forget = env.standings.forget

    def forgotten(company_id: str) -> None:
        forget(company_id)
        changed.set()

    env.standings.forget = forgotten  # type: ignore[method-assign]  # as above
    loop = asyncio.get_running_loop()
    await env.standings.of(company_id)
    await asyncio.sleep(0.5)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        limit = int(line)
        while True:
            standing = await env.standings.of(company_id)
            if standing is not None and access.check_now(env, standing, "exports").limit == limit:
                break
            await changed.wait()
            changed.clear()
        sys.stdout.write(f"{monotonic()!r}\n")
        sys.stdout.flush()
    await deployment.close()


def _line(work: str, floors: Sequence[float], found: Sequence[float], target_ms: float) -> Line:
    slowest = sorted(found)[len(found) * 99 // 100]
    floor = sorted(floors)[len(floors) * 99 // 100]
    return Line(
        work,
        f"{median(floors):.2f}/{floor:.2f} ms",
        f"{median(found):.2f}/{slowest:.2f} ms",
        None,
        f"≤ {target_ms:.0f} ms",
        slowest <= target_ms,
    )


if __name__ == "__main__":
    import uvloop

    uvloop.run(_watch(*json.loads(sys.argv[1])))
