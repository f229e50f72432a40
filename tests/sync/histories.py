"""Random histories of a Stripe account, their webhooks shuffled, doubled and lost: what is held of them in the end.

Several environments watch the same account, each with an order of deliveries of its own; several customers live their
histories side by side. What every environment stores must be what fetching gives it.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import plangate.sync as synchronisation
from plangate import catalog
from plangate.billing.mirror import mirrored, state_hash
from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.environment import Environment
from plangate.mirroring import company_of_customer, refetch_customer
from plangate.sandbox.errors import ApiError
from plangate.settings import Settings
from plangate.shapes import Actor
from plangate.store.companies import AssignmentRow, CompanyKeyRow, CompanyRow
from plangate.store.database import table_of
from plangate.store.inbox import InboxRow, InboxState, InboxTable, inbox, store_event
from plangate.store.leases import LeaseRow
from plangate.store.subscriptions import SubscriptionRow, subscriptions_of
from tests.conftest import SECRET_KEY, environment_settings
from tests.sandbox_inside import InsideSandbox, Obj
from tests.shop import DOCUMENT

_ABOUT_COMPANIES = [
    table_of(row) for row in (InboxTable, LeaseRow, SubscriptionRow, AssignmentRow, CompanyKeyRow, CompanyRow)
]
_LOST_AT_MOST = 0.3
_TIMES_AT_MOST = 4
_SPAN_SECONDS = tuple(hours * 3_600 for hours in (2, 72, 216, 480, 792))


@dataclass
class Customer:
    """One customer that lives through its history. `told` is what happened, for the report of a difference."""

    id: str
    chance: random.Random
    subscriptions: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


@dataclass
class Watcher:
    """One environment with its own order of deliveries, and the share of steps of which it hears nothing."""

    env: Environment
    chance: random.Random
    lost: float = 0.0
    pool: list[Obj] = field(default_factory=list)
    _rows: dict[str, InboxRow] = field(default_factory=dict)

    def row_of(self, event: Obj) -> InboxRow:
        """The row an event is stored as; made once for all its deliveries, which takes longer than to store it."""
        event_id = event["id"]
        if event_id not in self._rows:
            self._rows[event_id] = synchronisation.inbox_row(self.env, event, received_at=wall_now())
        return self._rows[event_id]


class Account:
    """One sandbox account, and the environments that watch it."""

    def __init__(self, deployment: Deployment, inside: InsideSandbox) -> None:
        self.deployment = deployment
        self.inside = inside
        self.environments = list(deployment.environments.values())
        self.prices = [one["id"] for one in inside.world.store.all("price") if one["type"] == "recurring"]

    @classmethod
    async def open(cls, database_url: str, *, watchers: int, name: str = "watcher") -> "Account":
        """A deployment with so many environments of one account, each with the same catalogue."""
        inside = InsideSandbox()
        own = environment_settings(
            stripe_api_base="http://sandbox.test",
            stripe_secret_key=inside.secret_key,
            stripe_account="",  # named, it would be one environment's alone
        )
        names = [own.model_copy(update={"name": f"{name}-{number}"}) for number in range(watchers)]
        settings = Settings(database_url=database_url, secret_keys=(SECRET_KEY,), environments=tuple(names))
        deployment = await Deployment.open(settings)
        for env in deployment.environments.values():
            inside.attach(env)
            # The first one makes the prices, all others find them by their names.
            await catalog.apply(env, DOCUMENT, actor=Actor(kind="cli", id="tests"))
            # As a worker does when it starts; from then on what happens can be found again.
            await synchronisation.sweep(env)
        inside.fresh_events()
        return cls(deployment, inside)

    async def close(self) -> None:
        await self.deployment.close()

    async def play(self, *, seed: int, customers: int = 1, steps: int = 9) -> list[str]:
        """Let customers live, each with the history its seed names, from `seed` on; answers what differs in the end."""
        round_ = _Round(self, seed, customers)
        await round_.run(steps)
        differences = await self.look(round_)
        await self._forget_everybody()
        return differences

    async def _forget_everybody(self) -> None:
        """Begin the next round without those who lived before: importing them as vanished would be most of it."""
        self.inside.forget_everybody()
        watching = [env.id for env in self.environments]
        async with self.environments[0].writing() as session:
            for table in _ABOUT_COMPANIES:
                await session.run(table.delete().where(table.c.environment_id.in_(watching)))
        for env in self.environments:
            env.forget("")

    async def look(self, round_: "_Round") -> list[str]:
        """What differs from what fetching gives."""
        return await round_.differences()


async def _arrive(env: Environment, event: Obj) -> None:
    """What the server does with a webhook: stored and claimed in one commit, acted on after the answer."""
    _, claim = await synchronisation.receive_to_act(env, event)
    if claim is not None:
        await synchronisation.act_on(env, claim)


class _Round:
    def __init__(self, account: Account, seed: int, customers: int) -> None:
        self.account = account
        self.inside = account.inside
        self.prices = account.prices
        self.chance = random.Random(seed)  # noqa: S311 - repeatable histories, no secret
        self.customers = [
            Customer(self._new_customer(number), random.Random(seed + number))  # noqa: S311 - same
            for number in range(customers)
        ]
        self.watchers = [
            Watcher(env, chance := random.Random(f"{seed}/{number}"), chance.uniform(0, _LOST_AT_MOST))  # noqa: S311 - same
            for number, env in enumerate(account.environments)
        ]

    async def run(self, steps: int) -> None:
        acts: tuple[Callable[[Customer], None], ...] = (
            self._subscribe,
            self._subscribe,
            self._change_items,
            self._change_items,
            self._add_item,
            self._end_later,
            self._stay,
            self._cancel,
            self._pause,
            self._schedule,
            self._release,
            self._bad_card,
            self._time,
            self._time,
        )
        for customer in self.customers:
            self._act(customer, self._subscribe)
        for _ in range(steps):
            for customer in self.customers:
                self._act(customer, customer.chance.choice(acts))
                self._gather()
            for watcher in self.watchers:
                if watcher.chance.random() < 0.4:
                    await self._deliver(watcher, watcher.chance.randint(0, len(watcher.pool)))
                    await self._decide(watcher)
                if watcher.chance.random() < 0.1:
                    await synchronisation.sweep(watcher.env)
        for customer in self.customers:
            if customer.chance.random() < 0.15:
                self._act(customer, self._delete)
        self._gather()
        for watcher in self.watchers:
            await self._deliver(watcher, watcher.chance.randint(0, len(watcher.pool)))
            await synchronisation.sweep(watcher.env)
            # Some arrive after the sweep found them.
            await self._deliver(watcher, len(watcher.pool))
            await self._finish(watcher)

    async def differences(self) -> list[str]:
        """Where what is stored is not what fetching gives."""
        found = []
        gateway = self.watchers[0].env.gateway
        for customer in self.customers:
            state = await gateway.fetch_customer_state(customer.id)
            fetched = None if state is None or state.is_deleted else state_hash(mirrored(state))
            for number, watcher in enumerate(self.watchers):
                env = watcher.env
                async with env.reading() as session:
                    company_id = await company_of_customer(session, customer.id)
                    known = () if company_id is None else await subscriptions_of(session, company_id)
                    held = None if company_id is None else env.standings.held(company_id)
                is_agreed = state is not None and (state.is_deleted or fetched == state_hash(known))
                if held is not None and held.facts.subscriptions != known:
                    is_agreed = False
                fresh = await refetch_customer(env, customer.id)
                if (company_id is None) is not (fresh is None) or (fresh is not None and fresh.is_changed):
                    is_agreed = False
                if not is_agreed:
                    found.append(f"watcher {number} of {customer.id} after {customer.told}")
        return found

    async def _deliver(self, watcher: Watcher, number: int) -> None:
        arriving, watcher.pool = watcher.pool[:number], watcher.pool[number:]
        while arriving:
            size = watcher.chance.choice([1, 8, 25])
            chunk, arriving = arriving[:size], arriving[size:]
            if size == 1:
                await _arrive(watcher.env, chunk[0])
            elif size == 8:
                # At once, so that they meet at the company's lease: who comes too late waits in the inbox.
                await asyncio.gather(*(_arrive(watcher.env, event) for event in chunk))
            else:
                # Piled up behind a worker that was away; each is stored as `receive` stores it.
                async with watcher.env.writing() as session:
                    for event in chunk:
                        await store_event(session, watcher.row_of(event))
            if watcher.chance.random() < 0.1:
                await synchronisation.work_inbox(watcher.env, limit=watcher.chance.choice([1, 3, 50]))
        while await synchronisation.work_inbox(watcher.env, limit=200):
            pass

    async def _decide(self, watcher: Watcher) -> None:
        """Let somebody ask about some companies, so that they are held in memory and have to be kept true there."""
        async with watcher.env.reading() as session:
            companies = [await company_of_customer(session, customer.id) for customer in self.customers]
        for company_id in companies:
            if company_id is not None and watcher.chance.random() < 0.5:
                await watcher.env.standings.of(company_id)

    async def _finish(self, watcher: Watcher) -> None:
        """Act on what was put off because somebody was at work on its company: time enough has passed."""
        mine = (inbox.c.environment_id == watcher.env.id) & (inbox.c.state == InboxState.PENDING.value)
        async with watcher.env.writing() as session:
            await session.run(inbox.update().where(mine).values(available_at=wall_now()))
        await self._deliver(watcher, 0)

    def _gather(self) -> None:
        """Put what happened since into every pool: some lost, some doubled, all in any order."""
        fresh: dict[str, list[Obj]] = {}
        for event in self.inside.fresh_events():
            subject = event["data"]["object"]
            named = subject["id"] if subject["object"] == "customer" else subject.get("customer")
            fresh.setdefault(str(named), []).append(event)
        for watcher in self.watchers:
            for events in fresh.values():
                # All that one step told is lost at once, as when an endpoint is down: one event would be enough.
                if watcher.chance.random() < watcher.lost:
                    continue
                for event in events:
                    watcher.pool += [event] * watcher.chance.randint(1, _TIMES_AT_MOST)
            watcher.chance.shuffle(watcher.pool)

    def _new_customer(self, number: int) -> str:
        made: str = self.inside.call("POST", "/v1/customers", name=f"Customer {number}")["id"]
        self._new_card(made, "pm_card_visa")
        return made

    def _new_card(self, customer: str, card: str) -> None:
        method = self.inside.call("POST", f"/v1/payment_methods/{card}/attach", customer=customer)["id"]
        settings = {"default_payment_method": method}
        self.inside.call("POST", f"/v1/customers/{customer}", invoice_settings=settings)

    def _act(self, customer: Customer, act: Callable[[Customer], None]) -> None:
        customer.told.append(act.__name__.strip("_"))
        try:
            act(customer)
        except ApiError as refused:
            # What Stripe refuses, such as changing what has ended, is a part of the history too.
            customer.told[-1] += f"!{refused.body['error'].get('code') or refused.status}"

    def _one(self, customer: Customer) -> str | None:
        return customer.chance.choice(customer.subscriptions) if customer.subscriptions else None

    def _update(self, customer: Customer, **params: object) -> None:
        subscription = self._one(customer)
        if subscription is not None:
            self.inside.call("POST", f"/v1/subscriptions/{subscription}", **params)

    def _subscribe(self, customer: Customer) -> None:
        chance = customer.chance
        params: Obj = {"items": [{"price": chance.choice(self.prices), "quantity": chance.choice([1, 1, 4])}]}
        if chance.random() < 0.3:
            params["trial_period_days"] = chance.choice([3, 14])
        if chance.random() < 0.2:
            params["payment_behavior"] = "default_incomplete"
        made = self.inside.call("POST", "/v1/subscriptions", customer=customer.id, **params)
        customer.subscriptions.append(made["id"])

    def _change_items(self, customer: Customer) -> None:
        price, quantity = customer.chance.choice(self.prices), customer.chance.randint(1, 6)
        subscription = self._one(customer)
        if subscription is None:
            return
        item = self.inside.call("GET", f"/v1/subscriptions/{subscription}")["items"]["data"][0]["id"]
        wanted = [{"id": item, "price": price, "quantity": quantity}]
        self.inside.call("POST", f"/v1/subscriptions/{subscription}", items=wanted)

    def _add_item(self, customer: Customer) -> None:
        self._update(customer, items=[{"price": customer.chance.choice(self.prices)}])

    def _end_later(self, customer: Customer) -> None:
        self._update(customer, cancel_at_period_end=True)

    def _stay(self, customer: Customer) -> None:
        self._update(customer, cancel_at_period_end=False)

    def _cancel(self, customer: Customer) -> None:
        subscription = self._one(customer)
        if subscription is not None:
            self.inside.call("DELETE", f"/v1/subscriptions/{subscription}")

    def _pause(self, customer: Customer) -> None:
        self._update(customer, pause_collection=customer.chance.choice(["", {"behavior": "void"}]))

    def _schedule(self, customer: Customer) -> None:
        price, subscription = customer.chance.choice(self.prices), self._one(customer)
        if subscription is None:
            return
        made = self.inside.call("POST", "/v1/subscription_schedules", from_subscription=subscription)
        first = made["phases"][0]
        held = [{"price": item["price"], "quantity": item["quantity"] or 1} for item in first["items"]]
        self.inside.call(
            "POST",
            f"/v1/subscription_schedules/{made['id']}",
            proration_behavior="none",
            phases=[
                {"items": held, "start_date": first["start_date"], "end_date": first["end_date"]},
                {"items": [{"price": price}], "duration": {"interval": "month", "interval_count": 1}},
            ],
        )

    def _release(self, customer: Customer) -> None:
        subscription = self._one(customer)
        if subscription is None:
            return
        schedule = self.inside.call("GET", f"/v1/subscriptions/{subscription}")["schedule"]
        if schedule is not None:
            self.inside.call("POST", f"/v1/subscription_schedules/{schedule}/release")

    def _bad_card(self, customer: Customer) -> None:
        self._new_card(customer.id, customer.chance.choice(["pm_card_visa", "pm_card_chargeCustomerFail"]))

    def _delete(self, customer: Customer) -> None:
        self.inside.call("DELETE", f"/v1/customers/{customer.id}")

    def _time(self, customer: Customer) -> None:
        offset = self.inside.advance(customer.chance.choice(_SPAN_SECONDS))
        for watcher in self.watchers:
            watcher.env.clock.offset = timedelta(seconds=offset)
