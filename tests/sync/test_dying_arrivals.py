"""A process dies at any call or commit of a webhook it acts on as it arrives: the next one ends where it would have."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from plangate import sync
from plangate.store.audit import audit_of
from plangate.store.inbox import InboxState
from plangate.store.present import present_facts
from tests.plan_changes.scenarios import Died, Process, on_plan, outlast
from tests.shop import Shop, new_company
from tests.sync.test_arriving import holders
from tests.sync.test_webhooks import states


async def moved(shop: Shop, name: str) -> None:
    """A subscription got another price: what is written back was worked out before."""
    stripe_customer_id = await on_plan(shop, name, "starter")
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    (subscription,) = shop.stripe.subscriptions.list({"customer": stripe_customer_id}).data
    item = subscription["items"]["data"][0]["id"]
    shop.stripe.subscriptions.update(subscription.id, {"items": [{"id": item, "price": price}]})


async def paid(shop: Shop, name: str) -> None:
    """A Checkout page was paid: the plan change that waits for it ends as well."""
    shop.company_id = await new_company(shop.env, name)
    change = await shop.change(plan="pro")
    assert change.next_action is not None
    shop.pay(change.next_action.url)


def newest(shop: Shop) -> dict[str, Any]:
    """The last event that is about a customer."""
    events = [event.to_dict(for_json=True) for event in shop.stripe.events.list({"limit": 20}).data]
    return next(event for event in events if event["type"].startswith(sync.CUSTOMER_EVENTS))


async def arrives(shop: Shop, event: dict[str, Any], answered: list[str]) -> None:
    """As the server does it: stored, answered, acted on."""
    _, claim = await sync.receive_to_act(shop.env, event)
    answered.append(event["id"])
    if claim is not None:
        await sync.act_on(shop.env, claim)


async def outcome(shop: Shop) -> dict[str, Any]:
    """Everything that came of it, whoever did it."""
    async with shop.env.reading() as session:
        present = await present_facts(session, shop.company_id)
        entries = await audit_of(session, shop.company_id)
    assert present is not None
    return {
        "plan": await shop.plan(),
        "subscriptions": [(one.status, len(one.items)) for one in present.facts.subscriptions],
        "changes": [row.state for row in await shop.rows()],
        "entries": sorted(entry.action for entry in entries),
        "inbox": set((await states(shop)).values()),
        "holders": await holders(shop),
    }


@pytest.mark.parametrize("happens", [moved, paid])
async def test_w5_a_death_at_any_point_of_an_arrival_ends_the_same(
    shop: Shop, happens: Callable[[Shop, str], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(shop.env, monkeypatch)
    fetch = "fetch_customer_state"
    monkeypatch.setattr(shop.env.gateway, fetch, process.around(getattr(shop.env.gateway, fetch)))
    await happens(shop, "whole")
    event = newest(shop)
    process.start(dies_at=None)
    await arrives(shop, event, [])
    total, whole = process.points, await outcome(shop)
    assert (whole["plan"], whole["inbox"], whole["holders"]) == ("pro", {InboxState.PROCESSED.value}, [None])
    assert total == 6
    for place in range(1, total + 1):
        process.start(dies_at=None)
        await happens(shop, f"dies-at-{place}")
        event, answered = newest(shop), list[str]()
        process.start(dies_at=place)
        with suppress(Died):
            await arrives(shop, event, answered)
        assert process.is_dead
        process.start(dies_at=None)
        await outlast(shop)
        if not answered:
            # Stripe was told nothing, and tells it again.
            await arrives(shop, event, answered)
        while await sync.work_inbox(shop.env):
            pass
        assert await outcome(shop) == whole, f"dies at {place} of {total}"
