"""Brings a whole Stripe account in: page by page rather than customer by customer, and on from where it was stopped.

Most customers of a page are as they were stored, or are new; those are read, or made companies, all at once. Only the
others take a lease each, so that an account of 10,000 customers takes some hundred calls and transactions.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal, TypeAlias

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError

from plangate.billing.gateway import CustomerState, reference
from plangate.billing.mirror import owning_company
from plangate.billing.transport import StripeJson
from plangate.clock import wall_now
from plangate.engine.catalog import Catalog
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.listing import (
    Listed,
    Listing,
    Progress,
    agrees,
    listed_state,
    several_at_once,
    subscriptions_held,
    untold,
)
from plangate.mirroring import Mirrored, keep_fetched, refetch, refetch_customer, refuse_other_account
from plangate.newcomers import is_subscriber, make_companies
from plangate.store.inbox import cursor, set_cursor
from plangate.store.known import known_customers
from plangate.store.subscriptions import running_subscriptions

_CURSOR: Final = "import"
_RESUMED_FOR: Final = timedelta(hours=24)
_PAGE: Final = 500
_EXAMPLES: Final = 3
_UNMAPPED_MAX: Final = 200
_FAILED_MAX: Final = 1_000
_ENDED: Final = frozenset({"canceled", "incomplete_expired"})
_log = structlog.get_logger(__name__)

Step: TypeAlias = Literal["subscribers", "customers", "vanished", "done"]


class Unmapped(msgspec.Struct, kw_only=True):
    """A Stripe price that somebody subscribes to and that no plan or add-on names."""

    stripe_price_id: str
    stripe_product_id: str
    amount_minor: int | None
    currency: str
    interval: str
    interval_count: int = 1
    customers: int = 0
    examples: list[str] = []


class ImportReport(msgspec.Struct, kw_only=True):
    """What an import went through: customers seen, those that are companies, and those whose facts changed.

    `failed` are customers that could not be read or stored; repeating the import tries them again. `unmapped` are
    prices without a plan, the one with the most customers first; of more than 200 the others are only counted, each
    time a customer has one, in `unmapped_beyond`. `is_resumed` says that it went on with one that was stopped.
    """

    customers: int = 0
    companies: int = 0
    changed: int = 0
    failed: list[str] = []
    unmapped: list[Unmapped] = []
    unmapped_beyond: int = 0
    is_resumed: bool = False


class _Place(msgspec.Struct, kw_only=True):
    """Where an import stands, stored after every page.

    `apart` are customers of whom only a part was listed by then: whoever goes on fetches them.
    """

    began_at: datetime
    is_every_customer_wanted: bool
    step: Step = "subscribers"
    after: str | None = None
    apart: list[str] = []
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
    last day goes on where it was, unless `is_restarted`. Raises `StripeFailure` when the account cannot be listed, and
    Refusal (unavailable) when the key is known to be another account's.
    """
    with env.gateway.long_work():
        await refuse_other_account(env)
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


class _Run:
    """One import under way."""

    def __init__(self, env: Environment, place: _Place, progress: Progress | None) -> None:
        self.env = env
        self.place = place
        self.report = place.report
        self.tell = progress or untold
        self.held: Counter[str] = Counter()  # how many subscriptions each customer has, of any status
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
        """Everybody with subscriptions: from the list where it tells all, otherwise fetched."""
        catalog = await self.env.catalog()
        await self._fetch(catalog, dict.fromkeys(self.place.apart))
        listing = Listing(self.env, self.held, left_out=self.place.apart)
        async for page in listing.pages(after=self.place.after):
            await self._keep(catalog, page.whole)
            await self._fetch(catalog, page.apart)
            self.place.apart = sorted(listing.waiting)
            await self._mark(page.last)
            self.tell("Importing subscribers", self.place.through, max(len(self.held), self.place.through))
        await self._fetch(catalog, listing.waiting)

    async def _keep(self, catalog: Catalog, whole: Mapping[str, Listed]) -> None:
        async with self.env.reading() as session:
            known = await known_customers(session, whole)
        states = await several_at_once(
            whole, lambda name: listed_state(self.env, name, whole[name]), refused=self._refused
        )
        for name in states:
            self._note_unmapped(catalog, name, whole[name].subscriptions)
        # One that was deleted and is no company's never was one of ours.
        deleted = [name for name, state in states.items() if state is None and name in known]
        listed = {name: state for name, state in states.items() if state is not None}
        others = await self._at_once(catalog, listed)
        await self._each(others, lambda name: self._one(listed[name], asked_at=whole[name].asked_at))
        await self._each(deleted, partial(refetch_customer, self.env))
        self._went_through(len(whole))

    async def _fetch(self, catalog: Catalog, apart: Mapping[str, Listed | None]) -> None:
        """Customers that the list does not tell, with what it told of them."""
        everybody = self.place.is_every_customer_wanted

        async def fetched(name: str) -> Mirrored | None:
            mirror = await refetch_customer(self.env, name, is_every_customer_wanted=everybody)
            listed = apart[name]
            subscriptions = mirror.subscriptions if mirror is not None else ()
            self._note_unmapped(catalog, name, subscriptions or (listed.subscriptions if listed is not None else ()))
            return mirror

        await self._each(apart, fetched)
        self._went_through(len(apart))

    def _went_through(self, customers: int) -> None:
        self.report.customers += customers
        self.place.through += customers

    async def _at_once(self, catalog: Catalog, states: Mapping[str, CustomerState]) -> list[str]:
        """Read and store together what needs no lease; answers who is left.

        Those are companies that are stored otherwise, and customers whose metadata names a company.
        """
        async with self.env.reading() as session:
            known = await known_customers(session, states)
        self.report.companies += sum(name in known and agrees(known[name], states[name]) for name in states)
        others = [name for name, one in known.items() if not agrees(one, states[name])]
        new = [state for name, state in states.items() if name not in known]
        others += [one.stripe_customer_id for one in new if owning_company(one.customer.get("metadata")) is not None]
        newcomers = [
            one
            for one in new
            if owning_company(one.customer.get("metadata")) is None
            and (self.place.is_every_customer_wanted or is_subscriber(catalog, one.subscriptions))
        ]
        if newcomers:
            try:
                async with self.env.writing() as session:
                    await make_companies(session, catalog, newcomers)
            except IntegrityError:
                # Somebody linked one of them a moment ago.
                return others + [one.stripe_customer_id for one in newcomers]
        self.report.companies += len(newcomers)
        self.report.changed += len(newcomers)
        return others

    async def _one(self, state: CustomerState, *, asked_at: datetime) -> Mirrored | None:
        everybody = self.place.is_every_customer_wanted
        return await keep_fetched(self.env, state, asked_at=asked_at, is_every_customer_wanted=everybody)

    async def _customers(self) -> None:
        """Everybody without subscriptions: linked when the metadata names a company, or when all are wanted."""
        catalog = await self.env.catalog()
        seen, asked_at = 0, self.env.clock.now()
        async for page in self.env.gateway.iterate_customers(after=self.place.after):
            without = {customer["id"]: customer for customer in page if customer["id"] not in self.held}
            wanted = {
                name: CustomerState(stripe_customer_id=name, customer=customer)
                for name, customer in without.items()
                if self.place.is_every_customer_wanted or owning_company(customer.get("metadata")) is not None
            }
            others = await self._at_once(catalog, wanted)
            await self._each(others, lambda name: self._one(wanted[name], asked_at=asked_at))  # noqa: B023 - awaited here
            self.report.customers += len(without)
            seen += len(page)
            await self._mark(page[-1]["id"])
            self.tell("Looking at all customers", seen, None)
            asked_at = self.env.clock.now()

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
        mirrors = await several_at_once(names, work, refused=self._refused)
        for mirror in mirrors.values():
            self.report.companies += is_customer and mirror is not None
            self.report.changed += mirror is not None and mirror.is_changed

    def _refused(self, name: str, refusal: Refusal) -> None:
        """What fails for one is noted."""
        _log.warning("import_failed", environment=self.env.id, subject=name, code=refusal.code.value)
        if len(self.report.failed) < _FAILED_MAX:
            self.report.failed.append(name)

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
                    self.report.unmapped_beyond += 1
                    continue
                known = self.unmapped[stripe_price_id] = _unmapped(price)
            known.customers += 1
            if len(known.examples) < _EXAMPLES:
                known.examples.append(name)

    async def _go_on_to(self, step: Step) -> None:
        self.place.step, self.place.through, self.place.apart = step, 0, []
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
        interval_count=recurring.get("interval_count") or 1,
    )
