"""One running environment: its database sessions, clock, catalogue, standings, leases and Stripe gateway.

Everything a journey does, it does for an Environment; nothing crosses from one to another.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from plangate.billing.gateway import StripeGateway
from plangate.catalog_compiled import compile_catalog
from plangate.clock import BusinessClock, wall_now
from plangate.engine.catalog import Catalog
from plangate.engine.facts import WindowCounter
from plangate.errors import Code, Refusal
from plangate.leasing import Heart, Watch
from plangate.settings import EnvironmentSettings
from plangate.standing import CounterKey, Standing, Standings
from plangate.store import catalog as catalog_store
from plangate.store.arriving import Arrived, Claiming, store_and_claim
from plangate.store.audit import AuditRow
from plangate.store.companies import bumping_version, owners_of_keys
from plangate.store.database import Database, StoreSession
from plangate.store.direct import Filled, Rows, together
from plangate.store.environments import remember_time_zone, time_zone_at
from plangate.store.feed import CATALOG, EVERYTHING, announce
from plangate.store.inbox import InboxRow
from plangate.store.leases import COMPANY, asking_fence, free_lease, holds_lease, renewing_lease, taking_lease
from plangate.store.present import asking_facts, facts_of
from plangate.store.price_mappings import prices_as_known
from plangate.store.usage import asking_newest, windows_of
from plangate.store.writing_back import AsRead, write_back

PROCESS = secrets.token_hex(8)  # tells this process's own changes from others' in the change feed
_LEASE_SECONDS = 30
_LEASE_POLL_SECONDS = 0.05


@dataclass(slots=True)
class Lease:
    """The right to write one company back. `still_held` is asked inside the transaction that writes.

    `is_over` is set once a transaction that gave it back was committed.
    """

    subject: str
    fence: int
    is_over: bool = False

    async def still_held(self, session: StoreSession) -> bool:
        """Whether nobody took over meanwhile; a False must end in writing nothing."""
        return await holds_lease(session, self.subject, self.fence)

    def asking(self, session: StoreSession) -> Filled:
        """The statement of `still_held`, to be executed with others; `is_in` reads its rows."""
        return asking_fence(session, self.subject)

    def is_in(self, rows: Rows) -> bool:
        """Whether the rows of `asking` say that it is still held."""
        return bool(rows) and rows[0][0] == self.fence

    def give_back(self, session: StoreSession) -> None:
        """Give it back in a transaction, such as the one that writes what it was taken for."""
        free_lease(session, self.subject, self.fence)
        session.after_commit.append(self._end)

    def _end(self) -> None:
        self.is_over = True


class Environment:
    """One environment at work. `gateway` is None where no Stripe key is set (tools that never call Stripe)."""

    def __init__(
        self,
        environment_id: str,
        settings: EnvironmentSettings,
        database: Database,
        clock: BusinessClock,
        *,
        secret_keys: tuple[str, ...],
        gateway: StripeGateway | None = None,
    ) -> None:
        self.id = environment_id
        self.settings = settings
        self.database = database
        self.clock = clock
        self.secret_keys = secret_keys
        self._gateway = gateway
        self._catalog: Catalog | None = None
        self._catalog_generation = 0
        self._leases = Watch()
        self.standings = Standings(self._load_standing, self._find_company, renew=self._renew_standing)

    @property
    def gateway(self) -> StripeGateway:
        """The way to Stripe. Raises Refusal when this environment has no Stripe key."""
        if self._gateway is None:
            raise Refusal(
                Code.UNAVAILABLE, "This environment has no Stripe key. Set PLANGATE_STRIPE_SECRET_KEY and restart."
            )
        return self._gateway

    @property
    def has_stripe(self) -> bool:
        """Whether there is a way to Stripe."""
        return self._gateway is not None

    async def close(self) -> None:
        """Close the connections to Stripe."""
        if self._gateway is not None:
            await self._gateway.aclose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[StoreSession]:
        """A reading transaction for this environment."""
        async with self.database.reading(self.id, self.clock.now()) as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[StoreSession]:
        """A writing transaction: what it noted as changed is announced with its commit and forgotten here."""
        async with self.database.writing(self.id, self.clock.now()) as session:
            yield session
            if told := session.changed | session.counted:
                announce(session, sorted(told), origin=PROCESS)
            # Compiled before it is in force, so that no check waits for it.
            generation = self._catalog_generation
            renewed = await self.catalog_in(session) if CATALOG in session.changed else None
        for company_id in session.changed:
            self.forget(company_id)
        if renewed is not None and self._catalog_generation == generation + 1:
            # Nobody else changed it meanwhile.
            self._catalog = renewed
        for follow_up in session.after_commit:
            follow_up()

    @asynccontextmanager
    async def at_once(self, *, only_reads: bool = False) -> AsyncIterator[StoreSession]:
        """A session for `claim` or `write_back`, each of which is a transaction of its own; or to read with."""
        async with self.database.at_once(self.id, self.clock.now(), only_reads=only_reads) as session:
            yield session

    async def claim(
        self, session: StoreSession, row: InboxRow, key: tuple[str, str], *, until: datetime
    ) -> tuple[Arrived, Lease | None]:
        """Store a webhook that is due; where its company is known and free, claimed `until` then with its lease.

        The lease is to be held by `keeping`, in every case.
        """
        claiming = Claiming(key, _new_holder(), _LEASE_SECONDS, wall_now(), until)
        arrived = await store_and_claim(session, row, claiming)
        if arrived.company_id is None or arrived.fence is None:
            return arrived, None
        return arrived, Lease(COMPANY + arrived.company_id, arrived.fence)

    async def write_back(
        self, session: StoreSession, as_read: AsRead, entries: Sequence[AuditRow], *, after: Standing
    ) -> bool:
        """Commit what the session deferred and these entries, if the company is as it was read; answers whether it was.

        What changed is announced with the commit; here the company then stands as `after` says.
        """
        company_id = as_read.company_id
        if session.changed:
            announce(session, sorted(session.changed), origin=PROCESS)
        read = self.standings.writing(company_id)
        is_written = False
        try:
            is_written = await write_back(session, as_read, entries)
        finally:
            if not is_written:
                self.standings.not_written(company_id, read)
        if not is_written:
            return False
        if session.changed:
            self.standings.written(company_id, read, after, version=as_read.version)
        else:
            self.standings.not_written(company_id, read)
        for follow_up in session.after_commit:
            follow_up()
        return True

    async def touch(self, session: StoreSession, company_id: str, *, is_locked: bool = False) -> None:
        """Count a change of the company's deciding facts in this transaction, which may hold its lock already."""
        session.changed.add(company_id)
        if is_locked:
            session.defer(bumping_version(session, company_id))
        else:
            await together(session, bumping_version(session, company_id))

    def touch_everything(self, session: StoreSession) -> None:
        """Note a change that concerns every company and is none of the catalogue: clock, keys."""
        session.changed.add(EVERYTHING)

    def touch_catalog(self, session: StoreSession) -> None:
        """Note that another catalogue is in force: facts and counters in memory stay true."""
        session.changed.add(CATALOG)

    def forget(self, company_id: str) -> None:
        """Forget what is held in memory about a company, the catalogue, or everything."""
        if company_id in {CATALOG, EVERYTHING}:
            self._catalog = None
            self._catalog_generation += 1
        if company_id == CATALOG:
            self.standings.outdate()
        else:
            self.standings.forget(company_id)

    async def catalog(self) -> Catalog:
        """The catalogue in force."""
        while self._catalog is None:
            generation = self._catalog_generation
            async with self.reading() as session:
                loaded = await self.catalog_in(session)
            if generation == self._catalog_generation:
                self._catalog = loaded
            else:
                return loaded
        return self._catalog

    async def catalog_in(self, session: StoreSession, *, at: datetime | None = None) -> Catalog:
        """The catalogue as known at an instant, in the zone of then (None: the newest), read in an open session."""
        zone = None if at is None else await time_zone_at(session, at)
        row = await catalog_store.revision_row(session, at=at)
        return compile_catalog(
            row,
            await catalog_store.all_plan_versions(session),
            await (catalog_store.all_stripe_prices(session) if at is None else prices_as_known(session, at)),
            await catalog_store.stripe_objects_of(session, "plan"),
            await catalog_store.stripe_objects_of(session, "add_on"),
            time_zone=zone or self.settings.time_zone,
        )

    async def remember_time_zone(self) -> None:
        """Write down which zone the environment is served in from now on, for questions about the past."""
        async with self.writing() as session:
            await remember_time_zone(session, self.settings.time_zone)

    @asynccontextmanager
    async def lease(self, company_id: str, *, wait_seconds: float = 8) -> AsyncIterator[Lease]:
        """Hold the company's lease while talking to Stripe; no transaction is open meanwhile.

        One whose holder died is taken over within seconds. Raises Refusal (try again) when somebody else holds it for
        longer than `wait_seconds`.
        """
        give_up_at = asyncio.get_running_loop().time() + wait_seconds
        while True:
            async with self.writing() as session:
                lease = await self._leased(session, company_id)
            if lease is not None:
                break
            if asyncio.get_running_loop().time() >= give_up_at:
                raise Refusal(
                    Code.CHANGE_IN_PROGRESS,
                    "Another change of this company is under way. Try again in a few seconds.",
                    headers={"Retry-After": "3"},
                )
            await asyncio.sleep(_LEASE_POLL_SECONDS)
        async with self.keeping(lease):
            yield lease

    @asynccontextmanager
    async def keeping(self, lease: Lease) -> AsyncIterator[None]:
        """Renew a lease that was taken until it is given back: at the end, if no transaction did so before."""
        heart = Heart(partial(self._renew, lease))
        try:
            yield
        finally:
            await heart.stop()
            if not lease.is_over:
                async with self.writing() as session:
                    lease.give_back(session)

    async def _leased(self, session: StoreSession, company_id: str) -> Lease | None:
        """The company's lease, free or fallen silent; None while somebody else is at work with it."""
        subject, holder, now = COMPANY + company_id, _new_holder(), wall_now()
        (rows,) = await together(session, taking_lease(session, subject, holder, wall_now=now, seconds=_LEASE_SECONDS))
        fence: int | None = rows[0][0] if rows else None
        if fence is None:
            fence = await self._leases.take_over(session, subject, holder, wall_now=now, seconds=_LEASE_SECONDS)
        return None if fence is None else Lease(subject, fence)

    async def _renew(self, lease: Lease) -> bool:
        async with self.database.writing(self.id, self.clock.now()) as session:
            renewing = renewing_lease(session, lease.subject, lease.fence, wall_now=wall_now(), seconds=_LEASE_SECONDS)
            (rows,) = await together(session, renewing)
        return bool(rows)

    async def _load_standing(self, company_id: str) -> tuple[Standing | None, tuple[tuple[str, str], ...]]:
        catalog = await self.catalog()
        async with self.reading() as session:
            told, windows = await together(
                session, asking_facts(session, company_id), asking_newest(session, [company_id], [""])
            )
        present = facts_of(told, company_id)
        if present is None:
            return None, ()
        return Standing(catalog, present.facts, company_counters(windows), session.now), present.keys

    async def _renew_standing(self, outdated: Standing) -> Standing:
        return Standing(await self.catalog(), outdated.facts, outdated.counters, self.clock.now())

    async def _find_company(self, keys: Mapping[str, str]) -> str | None:
        async with self.reading() as session:
            return one_owner(await owners_of_keys(session, keys))


def _new_holder() -> str:
    return f"{PROCESS}:{secrets.token_hex(4)}"


def company_counters(rows: Rows) -> dict[CounterKey, WindowCounter]:
    """The company's own newest windows by (feature, period kind, ""), in the rows of `asking_newest`."""
    return {(feature, kind, user_id): window for (_, feature, kind, user_id), window in windows_of(rows).items()}


def one_owner(owners: Mapping[tuple[str, str], str]) -> str | None:
    """The one company these keys belong to, None when none is known.

    Raises Refusal (409) naming both companies when they belong to two.
    """
    companies = sorted(set(owners.values()))
    if len(companies) > 1:
        raise Refusal(
            Code.KEY_CONFLICT,
            f"These keys belong to different companies: {' and '.join(companies)}. "
            "Merge them with POST /v1/companies/{id}/merge, or send the keys of one.",
            extra={"companies": companies},
        )
    return companies[0] if companies else None
