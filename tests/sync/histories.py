"""Random histories of one Stripe account, their webhooks shuffled, doubled and lost: what we hold in the end.

A history is played for several customers side by side, each with its own order of deliveries.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import stripe

from plangate import drift
from plangate.mirroring import company_of_customer, refetch_customer
from plangate.sandbox.render import view
from plangate.sync import receive, sweep, work_inbox
from tests.shop import Shop

Event = dict[str, Any]

_LOST_AT_MOST = 0.3
_TIMES_AT_MOST = 4


@dataclass
class Customer:
    """One customer that lives through the history, and the share of steps of which no webhook arrives."""

    id: str
    lost: float
    subscriptions: list[str]


async def play(shop: Shop, *, seed: int, shuffles: int, steps: int = 9) -> list[str]:
    """Play one history for `shuffles` customers, deliver what it told badly, sweep; answers what differs then.

    What is stored must be what fetching now gives, for every customer.
    """
    history = _History(shop, random.Random(seed), shuffles)  # noqa: S311 - repeatable histories, no secret
    await history.run(steps)
    return [f"seed {seed}: {words}" for words in await history.differences()]


class _History:
    def __init__(self, shop: Shop, chance: random.Random, shuffles: int) -> None:
        self.shop = shop
        self.chance = chance
        self.told: list[str] = []
        self.seen = 0
        self._fresh()
        self.pool: list[Event] = []
        self.prices = [price["id"] for price in shop.objects("price") if price["type"] == "recurring"]
        self.customers = [
            Customer(self._customer(f"Copy {number}"), chance.uniform(0, _LOST_AT_MOST), [])
            for number in range(shuffles)
        ]

    async def run(self, steps: int) -> None:
        acts: tuple[Callable[[], None], ...] = (
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
        self._subscribe()
        for _ in range(steps):
            act = self.chance.choice(acts)
            self.told.append(act.__name__.strip("_"))
            act()
            self._gather()
            if self.chance.random() < 0.4:
                await self._deliver(self.chance.randint(0, len(self.pool)))
        if self.chance.random() < 0.15:
            self.told.append("delete")
            self._each(lambda customer: self.shop.stripe.customers.delete(customer.id))
        self._gather()
        await self._deliver(self.chance.randint(0, len(self.pool)))
        await sweep(self.shop.env)
        # Some arrive after the sweep found them.
        await self._deliver(len(self.pool))

    async def differences(self) -> list[str]:
        """Where what is stored is not what fetching now gives."""
        env = self.shop.env
        found = [f"{one.subject} {one.detail} after {self.told}" for one in await drift.stripe_drift(env)]
        for customer in self.customers:
            async with env.reading() as session:
                known = await company_of_customer(session, customer.id)
            fresh = await refetch_customer(env, customer.id)
            if (known is None) is not (fresh is None) or (fresh is not None and fresh.is_changed):
                found.append(f"{customer.id} changed when fetched once more, after {self.told}")
        return found

    async def _deliver(self, number: int) -> None:
        arriving, self.pool = self.pool[:number], self.pool[number:]
        for event in arriving:
            await receive(self.shop.env, event)
            if self.chance.random() < 0.03:
                await work_inbox(self.shop.env, limit=self.chance.choice([1, 3, 50]))
        while await work_inbox(self.shop.env):
            pass

    def _gather(self) -> None:
        """Put what happened since into the pool: some lost, some doubled, all in any order."""
        # All that one step told is lost at once, as when an endpoint is down: one of its many events would be enough.
        unheard = {customer.id for customer in self.customers if self.chance.random() < customer.lost}
        for event in self._fresh():
            subject = event["data"]["object"]
            named = subject["id"] if subject["object"] == "customer" else subject.get("customer")
            if str(named) not in unheard:
                self.pool += [event] * self.chance.randint(1, _TIMES_AT_MOST)
        self.chance.shuffle(self.pool)

    def _fresh(self) -> list[Event]:
        """The events that were not seen yet, as a webhook carries them."""
        world = self.shop.sandbox.app_state.sandbox.world
        events = list(world.store.all("event"))
        fresh, self.seen = events[self.seen :], len(events)
        return [view(world, event) for event in fresh]

    def _customer(self, name: str) -> str:
        made = self.shop.stripe.customers.create({"name": name})
        self.shop.new_card(made.id, "pm_card_visa")
        return made.id

    def _each(self, act: Callable[[Customer], object]) -> None:
        """The same for every customer; what Stripe refuses, such as changing what has ended, it refuses for all."""
        for customer in self.customers:
            try:
                act(customer)
            except stripe.StripeError as refused:
                self.told[-1:] = [f"{self.told[-1] if self.told else ''}!{refused.code or ''}".replace("!!", "!")]

    def _on_one(self, act: Callable[[str], object]) -> None:
        place = self.chance.random()
        self._each(
            lambda customer: (
                act(customer.subscriptions[int(place * len(customer.subscriptions))])
                if customer.subscriptions
                else None
            )
        )

    def _subscribe(self) -> None:
        price, quantity = self.chance.choice(self.prices), self.chance.choice([1, 1, 4])
        params: Any = {"items": [{"price": price, "quantity": quantity}]}
        if self.chance.random() < 0.3:
            params["trial_period_days"] = self.chance.choice([3, 14])
        if self.chance.random() < 0.2:
            params["payment_behavior"] = "default_incomplete"

        def start(customer: Customer) -> None:
            asked: Any = {"customer": customer.id, **params}
            made = self.shop.stripe.subscriptions.create(asked)
            customer.subscriptions.append(made.id)

        self._each(start)

    def _change_items(self) -> None:
        price, quantity = self.chance.choice(self.prices), self.chance.randint(1, 6)

        def change(subscription: str) -> None:
            item = self.shop.stripe.subscriptions.retrieve(subscription)["items"].data[0].id
            wanted: Any = {"items": [{"id": item, "price": price, "quantity": quantity}]}
            self.shop.stripe.subscriptions.update(subscription, wanted)

        self._on_one(change)

    def _add_item(self) -> None:
        price = self.chance.choice(self.prices)
        self._on_one(lambda name: self.shop.stripe.subscriptions.update(name, {"items": [{"price": price}]}))

    def _end_later(self) -> None:
        self._on_one(lambda name: self.shop.stripe.subscriptions.update(name, {"cancel_at_period_end": True}))

    def _stay(self) -> None:
        self._on_one(lambda name: self.shop.stripe.subscriptions.update(name, {"cancel_at_period_end": False}))

    def _cancel(self) -> None:
        self._on_one(self.shop.stripe.subscriptions.cancel)

    def _pause(self) -> None:
        pause: Any = self.chance.choice(["", {"behavior": "void"}])
        self._on_one(lambda name: self.shop.stripe.subscriptions.update(name, {"pause_collection": pause}))

    def _schedule(self) -> None:
        price = self.chance.choice(self.prices)

        def attach(subscription: str) -> None:
            made = self.shop.stripe.subscription_schedules.create({"from_subscription": subscription})
            first = made.phases[0]
            held: Any = [{"price": item.price, "quantity": item.quantity or 1} for item in first["items"]]
            wanted: Any = {
                "proration_behavior": "none",
                "phases": [
                    {"items": held, "start_date": first.start_date, "end_date": first.end_date},
                    {"items": [{"price": price}], "duration": {"interval": "month", "interval_count": 1}},
                ],
            }
            self.shop.stripe.subscription_schedules.update(made.id, wanted)

        self._on_one(attach)

    def _release(self) -> None:
        def detach(subscription: str) -> None:
            schedule = self.shop.stripe.subscriptions.retrieve(subscription).schedule
            if schedule is not None:
                self.shop.stripe.subscription_schedules.release(str(schedule))

        self._on_one(detach)

    def _bad_card(self) -> None:
        card = self.chance.choice(["pm_card_visa", "pm_card_chargeCustomerFail"])
        self._each(lambda customer: self.shop.new_card(customer.id, card))

    def _time(self) -> None:
        self.shop.advance(self.chance.choice(["PT2H", "P3D", "P9D", "P20D", "P33D"]))
