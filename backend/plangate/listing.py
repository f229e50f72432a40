"""Customers as the list of all subscriptions tells them: a page of it is all there is to know of most customers on it.

What several pages tell of one customer is put together. Few calls tell a whole account that way: one for a hundred
subscriptions, where asking for each customer takes two.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias, TypeVar

from plangate.billing.gateway import CustomerState, reference
from plangate.billing.mirror import mirrored, state_hash
from plangate.billing.transport import StripeJson
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.store.known import KnownCustomer

_AT_ONCE: Final = 8
_WAITING_MAX: Final = 2_000

Answer = TypeVar("Answer")
# Told what is under way, how many of it are through, and how many there are in all where that is known.
Progress: TypeAlias = Callable[[str, int, int | None], None]


class Listed(NamedTuple):
    """What was listed of a customer, and when the first of it was asked for."""

    asked_at: datetime
    subscriptions: list[StripeJson]


class ListedPage(NamedTuple):
    """The customers that a page completes, by id; those that have to be fetched by themselves; and where to go on."""

    whole: dict[str, Listed]
    apart: dict[str, Listed]
    last: str


class Listing:
    """A walk through all subscriptions. `held` is how many each customer has, of any status.

    `waiting` are customers of whom more is to come; whatever is left there in the end changed meanwhile, and has to be
    fetched. Nothing is told of customers in `left_out`.
    """

    def __init__(self, env: Environment, held: Counter[str], *, left_out: Iterable[str] = ()) -> None:
        self.waiting: dict[str, Listed] = {}
        self._env = env
        self._held = held
        self._left_out = set(left_out)
        self._whole: set[str] = set()

    async def pages(self, *, after: str | None = None) -> AsyncIterator[ListedPage]:
        """Page after page, newest first; those after a subscription, to go on there. Raises `StripeFailure`."""
        asked_at = self._env.clock.now()
        async for page in self._env.gateway.iterate_subscriptions(after=after, is_whole=True):
            found = ListedPage({}, {}, page[-1]["id"])
            for name, subscriptions in _by_customer(page).items():
                if name not in self._left_out:
                    self._place(found, name, self.waiting.pop(name, Listed(asked_at, [])), subscriptions)
            yield found
            asked_at = self._env.clock.now()

    def _place(self, found: ListedPage, name: str, listed: Listed, subscriptions: list[StripeJson]) -> None:
        listed.subscriptions.extend(subscriptions)
        missing = self._held[name] - len(listed.subscriptions)
        if missing == 0 and name not in self._whole:
            found.whole[name] = listed
            self._whole.add(name)
        elif missing > 0 and name not in self._whole and len(self.waiting) < _WAITING_MAX:
            self.waiting[name] = listed
        else:
            # It has others than were counted, or there are too many to wait for.
            found.apart[name] = listed
            self._left_out.add(name)


async def subscriptions_held(env: Environment, tell: Progress) -> Counter[str]:
    """How many subscriptions, of any status, each customer of the account has. Raises `StripeFailure`."""
    held: Counter[str] = Counter()
    async for page in env.gateway.iterate_subscriptions():
        held.update(_customer_of(subscription) for subscription in page)
        tell("Counting subscriptions", held.total(), None)
    return held


async def listed_state(env: Environment, name: str, listed: Listed) -> CustomerState | None:
    """The state of a customer that was listed whole; None of a deleted one. Raises `StripeFailure`."""
    customer = listed.subscriptions[0]["customer"]
    if not isinstance(customer, dict) or customer.get("deleted"):
        return None
    for subscription in listed.subscriptions:
        subscription["customer"] = name
    return await env.gateway.completed_state(customer, listed.subscriptions)


def agrees(known: KnownCustomer, state: CustomerState) -> bool:
    """Whether a company with this one customer is stored as the customer was listed."""
    return known.is_sole and known.states == {
        fact.stripe_subscription_id: state_hash([fact]) for fact in mirrored(state)
    }


async def several_at_once(
    names: Iterable[str], work: Callable[[str], Awaitable[Answer]], *, refused: Callable[[str, Refusal], None]
) -> dict[str, Answer]:
    """The answers of `work` by name. Whoever is `refused` one keeps nobody else from theirs."""
    turns = asyncio.Semaphore(_AT_ONCE)
    answers: dict[str, Answer] = {}

    async def one(name: str) -> None:
        async with turns:
            try:
                answers[name] = await work(name)
            except Refusal as refusal:
                refused(name, refusal)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))
    return answers


def untold(_words: str, _through: int, _total: int | None) -> None:
    """Nobody watches."""


def _by_customer(page: Iterable[StripeJson]) -> dict[str, list[StripeJson]]:
    found: dict[str, list[StripeJson]] = {}
    for subscription in page:
        found.setdefault(_customer_of(subscription), []).append(subscription)
    return found


def _customer_of(subscription: StripeJson) -> str:
    return reference(subscription["customer"]) or ""
