"""An add-on without prices is given by hand: it counts, but nobody finds it on sale and nobody can buy it."""

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plangate import access, catalog, companies
from plangate.companies import Assigned
from plangate.environment import Environment
from plangate.errors import Refusal
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def document() -> dict[str, Any]:
    """The shop's catalogue with a gift."""
    whole: dict[str, Any] = copy.deepcopy(DOCUMENT)
    whole["add_ons"]["gift"] = {"name": "Gift", "entitlements": {"exports": {"limit": 7, "stacking": "sum"}}}
    return whole


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """A shop with a gift."""
    opened = await Shop.open(connected_environment, sandbox, document())
    yield opened
    await opened.close()


async def test_it_is_given_by_hand_and_counts(shop: Shop) -> None:
    await companies.upsert(shop.env, keys={"id": "acme"}, assigned=Assigned(add_ons={"gift": 2}), actor=ACTOR)
    decision = await access.check(shop.env, company={"id": "acme"}, feature="exports")
    assert decision.limit == 10 + 2 * 7
    assert "gift" not in {one.key for one in await catalog.public_plans(shop.env)}
    assert not [one for one in shop.objects("product") if "gift" in one["id"]]
    refused = await access.check(shop.env, company={"id": "acme"}, feature="exports", quantity=30, trace=True)
    assert refused.trace is not None
    assert {one.key for one in refused.trace.options} == {"starter", "pro"}


async def test_it_cannot_be_bought(shop: Shop) -> None:
    await shop.subscribed()
    with pytest.raises(Refusal) as caught:
        await shop.preview(add_ons={"gift": 1})
    assert caught.value.status in {409, 422}
    assert "Gift" in caught.value.detail
    priced = document()
    priced["add_ons"]["gift"]["prices"] = DOCUMENT["add_ons"]["extra-exports"]["prices"]
    await catalog.apply(shop.env, priced, actor=ACTOR)
    assert (await shop.preview(add_ons={"gift": 1})).due_today.amount_minor > 0
