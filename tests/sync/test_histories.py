"""Promise 2, a slice: any order, repetition and loss of webhooks ends, after a sweep, in what fetching now gives.

And the proof is proven: with a part of the synchronisation broken on purpose, it finds differences.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

import pytest

import plangate.sync as synchronisation
from plangate.billing.gateway import CustomerState, StripeGateway
from plangate.environment import Environment
from plangate.standing import Standings
from plangate.store.inbox import InboxRow, InboxState
from tests.sync.histories import Account


@pytest.fixture
async def account(database_url: str) -> AsyncIterator[Account]:
    opened = await Account.open(database_url, watchers=3)
    yield opened
    await opened.close()


async def test_w1_w2_w3_any_delivery_converges(account: Account) -> None:
    for seed in (0, 100):
        differences = await account.play(seed=seed, customers=4, steps=7)
        assert not differences, "\n".join(differences)


async def _differences(account: Account, *, customers: int = 6, seeds: range = range(0, 300, 100)) -> int:
    """In short histories, in which much happens in one second and little later heals what was missed."""
    return sum([len(await account.play(seed=seed, customers=customers, steps=3)) for seed in seeds])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_sweep_that_finds_nothing_is_noticed(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(_env: Environment) -> int:
        return 0

    monkeypatch.setattr(synchronisation, "sweep", blind)
    assert await _differences(account) > 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_refetch_that_answers_from_memory_is_noticed(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, first = StripeGateway.fetch_customer_state, dict[tuple[int, str], CustomerState | None]()

    async def remembered(self: StripeGateway, stripe_customer_id: str) -> CustomerState | None:
        key = (id(self), stripe_customer_id)
        if key not in first:
            first[key] = await fetch(self, stripe_customer_id)
        return first[key]

    monkeypatch.setattr(StripeGateway, "fetch_customer_state", remembered)
    differences = account.look

    async def look_again(*arguments: Any) -> list[str]:  # noqa: ANN401 - passed on
        monkeypatch.setattr(StripeGateway, "fetch_customer_state", fetch)
        found: list[str] = await differences(*arguments)
        monkeypatch.setattr(StripeGateway, "fetch_customer_state", remembered)
        return found

    monkeypatch.setattr(account, "look", look_again)
    assert await _differences(account) > 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_w2_ordering_by_created_is_noticed(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    made, newest = synchronisation.inbox_row, dict[tuple[str, str | None], int]()

    def by_created(env: Environment, event: Mapping[str, Any], *, received_at: datetime) -> InboxRow:
        row = made(env, event, received_at=received_at)
        key = (env.id, row.stripe_customer_id)
        if event["created"] <= newest.get(key, 0):
            row.state = InboxState.IGNORED.value
        newest[key] = max(event["created"], newest.get(key, 0))
        return row

    monkeypatch.setattr(synchronisation, "inbox_row", by_created)
    assert await _differences(account, customers=1, seeds=range(10)) > 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_company_held_in_memory_as_it_was_is_noticed(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(*_arguments: object, **_options: object) -> None:
        """Nothing is forgotten, and nothing newer is put in its place."""

    monkeypatch.setattr(Standings, "forget", kept)
    monkeypatch.setattr(Standings, "written", kept)
    assert await _differences(account, seeds=range(1)) > 0
