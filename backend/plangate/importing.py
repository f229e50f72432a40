"""Brings a whole Stripe account in: page by page rather than customer by customer, and on from where it was stopped.

One pass counts how many subscriptions each customer has; then a page of subscriptions, with their customers and
schedules, is all there is to know about those customers whose subscriptions are all on it. Only the others are fetched
one by one, so that an account of 10,000 customers takes some hundred calls.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal, TypeAlias

import msgspec
import structlog

from plangate.billing.gateway import CustomerState, reference
from plangate.billing.mirror import owning_company
from plangate.billing.transport import StripeJson
from plangate.clock import wall_now
from plangate.engine.catalog import Catalog
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.mirroring import Mirrored, keep_fetched, refetch, refetch_customer
from plangate.store.inbox import cursor, set_cursor
from plangate.store.subscriptions import running_subscriptions

_CURSOR: Final = "import"
_RESUMED_FOR: Final = timedelta(hours=24)
_AT_ONCE: Final = 8
_PAGE: Final = 500
_EXAMPLES: Final = 3
_UNMAPPED_MAX: Final = 200
_FAILED_MAX: Final = 1_000
_ENDED: Final = frozenset({"canceled", "incomplete_expired"})
_log = structlog.get_logger(__name__)

Step: TypeAlias = Literal["subscribers", "customers", "vanished", "done"]
# Told what is under way, how many of it are through, and how many there are in all where that is known.
Progress: TypeAlias = Callable[[str, int, int | None], None]


class Unmapped(msgspec.Struct, kw_only=True):
    """A Stripe price that somebody subscribes to and that no plan or add-on names."""

    stripe_price_id: str
    stripe_product_id: str
    amount_minor: int | None
    currency: str
    interval: str
    customers: int = 0
    examples: list[str] = []


class ImportReport(msgspec.Struct, kw_only=True):
    """What an import went through: customers seen, those that are companies, and those whose facts changed.

    `failed` are customers that could not be read or stored; repeating the import tries them again. `unmapped` are
    prices without a plan, the one with the most customers first. `is_resumed` says that it went on with one that was
    stopped.
    """

    customers: int = 0
    companies: int = 0
    changed: int = 0
    failed: list[str] = []
    unmapped: list[Unmapped] = []
    is_resumed: bool = False


class _Place(msgspec.Struct, kw_only=True):
    """Where an import stands, stored after every page."""

    began_at: datetime
    is_every_customer_wanted: bool
    step: Step = "subscribers"
    after: str | None = None
    through: int = 0
    report: ImportReport = msgspec.field(default_factory=ImportReport)


async def import_account(
    env: Environment,
    *,
    is_every_customer_wanted: bool = False,
    is_restarted: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Store the state of every customer of the Stripe account, one company at a time. Can be repeated at any time.

    Customers that are none of ours are left alone unless `is_every_customer_wanted`. One that was stopped within the
    last day goes on where it was, unless `is_restarted`. Raises `StripeFailure` when the account cannot be listed.
    """
    with env.gateway.long_work():
        run = _Run(env, await _place(env, is_every_customer_wanted, is_restarted=is_restarted), progress)
        await run.all()
    return run.place.report


async def _place(env: Environment, is_every_customer_wanted: bool, *, is_restarted: bool) -> _Place:
    async with env.reading() as session:
        stored = await cursor(session, _CURSOR)
    fresh = _Place(began_at=wall_now(), is_every_customer_wanted=is_every_customer_wanted)
    if stored is None or is_restarted:
        return fresh
    place = msgspec.convert(stored, _Place)
    is_young = wall_now() - place.began_at < _RESUMED_FOR
    if place.step == "done" or not is_young or place.is_every_customer_wanted is not is_every_customer_wanted:
        return fresh
    place.report.is_resumed = True
    return place


async def subscriptions_held(env: Environment, tell: Progress) -> Counter[str]:
    """How many subscriptions, of any status, each customer of the account has. Raises `StripeFailure`."""
    held: Counter[str] = Counter()
    async for page in env.gateway.iterate_subscriptions():
        held.update(_customer_of(subscription) for subscription in page)
        tell("Counting subscriptions", held.total(), None)
    return held


def grouped_by_customer(page: Iterable[StripeJson]) -> dict[str, list[StripeJson]]:
    """The subscriptions of a page by their customers."""
    found: dict[str, list[StripeJson]] = {}
    for subscription in page:
        found.setdefault(_customer_of(subscription), []).append(subscription)
    return found


async def listed_state(env: Environment, name: str, subscriptions: Sequence[StripeJson]) -> CustomerState | None:
    """The state of a customer all of whose subscriptions were listed whole; None where a list cannot tell it."""
    customer = subscriptions[0]["customer"]
    if not isinstance(customer, dict) or customer.get("deleted"):
        return None
    for subscription in subscriptions:
        subscription["customer"] = name
    return await env.gateway.completed_state(customer, subscriptions)


class _Run:
    """One import under way."""

    def __init__(self, env: Environment, place: _Place, progress: Progress | None) -> None:
        self.env = env
        self.place = place
        self.report = place.report
        self.tell = progress or _untold
        self.held: Counter[str] = Counter()  # how many subscriptions each customer has, of any status
        self.fetched: set[str] = set()
        self.unmapped = {one.stripe_price_id: one for one in self.report.unmapped}

    async def all(self) -> None:
        self.held = await subscriptions_held(self.env, self.tell)
        if self.place.step == "subscribers":
            await self._subscribers()
            await self._go_on_to("customers")
        if self.place.step == "customers":
            await self._customers()
            await self._go_on_to("vanished")
        if self.place.step == "vanished":
            await self._vanished()
            await self._go_on_to("done")

    async def _subscribers(self) -> None:
        """Everybody with subscriptions: from the page where it tells all, otherwise fetched."""
        catalog = await self.env.catalog()
        asked_at = self.env.clock.now()
        async for page in self.env.gateway.iterate_subscriptions(after=self.place.after, is_whole=True):
            by_customer = grouped_by_customer(page)
            # Those with more subscriptions than this page has were, or are now, fetched by themselves.
            new = [name for name in by_customer if name not in self.fetched]
            self.fetched.update(name for name in new if self.held[name] != len(by_customer[name]))
            await self._each(new, partial(self._subscriber, catalog, by_customer, asked_at))
            self.report.customers += len(new)
            self.place.through += len(new)
            await self._mark(page[-1]["id"])
            self.tell("Importing subscribers", self.place.through, max(len(self.held), self.place.through))
            asked_at = self.env.clock.now()

    async def _subscriber(
        self, catalog: Catalog, listed: Mapping[str, Sequence[StripeJson]], asked_at: datetime, name: str
    ) -> Mirrored | None:
        everybody = self.place.is_every_customer_wanted
        subscriptions = listed[name]
        state = None if name in self.fetched else await listed_state(self.env, name, subscriptions)
        if state is None:
            mirror = await refetch_customer(self.env, name, is_every_customer_wanted=everybody)
            self._note_unmapped(catalog, name, (mirror.subscriptions if mirror is not None else ()) or subscriptions)
            return mirror
        self._note_unmapped(catalog, name, subscriptions)
        return await keep_fetched(self.env, state, asked_at=asked_at, is_every_customer_wanted=everybody)

    async def _customers(self) -> None:
        """Everybody without subscriptions: linked when the metadata names a company, or when all are wanted."""
        seen, asked_at = 0, self.env.clock.now()
        async for page in self.env.gateway.iterate_customers(after=self.place.after):
            without = {customer["id"]: customer for customer in page if customer["id"] not in self.held}
            wanted = [
                name
                for name, customer in without.items()
                if self.place.is_every_customer_wanted or owning_company(customer.get("metadata")) is not None
            ]
            await self._each(wanted, partial(self._customer, without, asked_at))
            self.report.customers += len(without)
            seen += len(page)
            await self._mark(page[-1]["id"])
            self.tell("Looking at all customers", seen, None)
            asked_at = self.env.clock.now()

    async def _customer(self, listed: Mapping[str, StripeJson], asked_at: datetime, name: str) -> Mirrored | None:
        state = CustomerState(stripe_customer_id=name, customer=listed[name])
        everybody = self.place.is_every_customer_wanted
        return await keep_fetched(self.env, state, asked_at=asked_at, is_every_customer_wanted=everybody)

    async def _vanished(self) -> None:
        """Companies with a subscription that runs here while its customer has none in Stripe: deleted, unseen."""
        after: str | None = None
        while True:
            async with self.env.reading() as session:
                rows = await running_subscriptions(session, after=after, limit=_PAGE)
            gone = {company_id for _, stripe_customer_id, company_id in rows if stripe_customer_id not in self.held}
            await self._each(sorted(gone), partial(refetch, self.env), is_customer=False)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def _each(
        self, names: Iterable[str], work: Callable[[str], Awaitable[Mirrored | None]], *, is_customer: bool = True
    ) -> None:
        """Several at once. What fails for one is noted and keeps nobody else from being imported."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> None:
            async with turns:
                try:
                    mirror = await work(name)
                except Refusal as refusal:
                    _log.warning("import_failed", environment=self.env.id, subject=name, code=refusal.code.value)
                    if len(self.report.failed) < _FAILED_MAX:
                        self.report.failed.append(name)
                    return
            self.report.companies += is_customer and mirror is not None
            self.report.changed += mirror is not None and mirror.is_changed

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))

    def _note_unmapped(self, catalog: Catalog, name: str, subscriptions: Iterable[StripeJson]) -> None:
        prices = {
            item["price"]["id"]: item["price"]
            for subscription in subscriptions
            if subscription["status"] not in _ENDED
            for item in subscription["items"]["data"]
            if item["price"]["id"] not in catalog.price_owners
        }
        for stripe_price_id, price in prices.items():
            known = self.unmapped.get(stripe_price_id)
            if known is None:
                if len(self.unmapped) >= _UNMAPPED_MAX:
                    continue
                known = self.unmapped[stripe_price_id] = _unmapped(price)
            known.customers += 1
            if len(known.examples) < _EXAMPLES:
                known.examples.append(name)

    async def _go_on_to(self, step: Step) -> None:
        self.place.step, self.place.through = step, 0
        await self._mark(None)

    async def _mark(self, after: str | None) -> None:
        """Remember the place to go on from."""
        self.place.after = after
        self.report.unmapped = sorted(self.unmapped.values(), key=lambda one: (-one.customers, one.stripe_price_id))
        async with self.env.writing() as session:
            await set_cursor(session, _CURSOR, msgspec.to_builtins(self.place))


def _unmapped(price: StripeJson) -> Unmapped:
    recurring = price.get("recurring") or {}
    return Unmapped(
        stripe_price_id=price["id"],
        stripe_product_id=reference(price["product"]) or "",
        amount_minor=price.get("unit_amount"),
        currency=price["currency"],
        interval=recurring.get("interval") or "",
    )


def _customer_of(subscription: StripeJson) -> str:
    return reference(subscription["customer"]) or ""


def _untold(_words: str, _through: int, _total: int | None) -> None:
    """Nobody watches."""
