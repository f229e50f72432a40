"""S24: refunds and disputes are reviewed by people, revoke nothing silently, and a dispute won gives access back."""

import random
from typing import Any

import pytest

from plangate import catalog, companies, reviews, sync
from plangate.errors import Refusal
from plangate.mirroring import refetch
from plangate.reviews import Review
from plangate.shapes import Actor
from plangate.store.inbox import inbox
from tests.shop import DOCUMENT, STAFF, Shop


async def bought(shop: Shop, **settings: object) -> str:
    """The company pays for Pro; answers the charge."""
    if settings:
        await catalog.apply(shop.env, {**DOCUMENT, "settings": settings}, actor=Actor(kind="cli", id="tests"))
    customer = await shop.customer()
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price}]})
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    charge: str = shop.objects("charge")[-1]["id"]
    return charge


def refund(shop: Shop, charge: str, amount: int | None = None) -> None:
    (intent,) = [one["payment_intent"] for one in shop.objects("charge") if one["id"] == charge]
    asked: Any = {"payment_intent": intent} | ({} if amount is None else {"amount": amount})
    shop.stripe.refunds.create(asked)


def dispute(shop: Shop, charge: str) -> str:
    found: str = shop.sandbox.control("POST", "disputes", {"charge": charge})["id"]
    return found


def decide(shop: Shop, name: str, status: str) -> None:
    shop.sandbox.control("POST", f"disputes/{name}", {"status": status})


async def only(shop: Shop) -> Review:
    (found,) = await reviews.listing(shop.env, state=None)
    return found


async def test_s24_a_full_refund_waits_for_a_person_and_access_goes_on(shop: Shop) -> None:
    refund(shop, charge := await bought(shop))
    await shop.sync()
    found = await only(shop)
    assert (found.kind, found.state, found.access, found.stripe_status) == ("refund", "open", "kept", "refunded")
    assert (found.company, found.stripe_charge_id, found.amount_minor) == (shop.company_id, charge, 4900)
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert found.stripe_subscription_id == fact.stripe_subscription_id
    assert await shop.plan() == "pro"
    resolved = await reviews.resolve(shop.env, found.id, access="keep", note="Goodwill", actor=STAFF)
    assert (resolved.state, resolved.outcome, resolved.resolved_by, await shop.plan()) == (
        "resolved",
        "keep",
        STAFF,
        "pro",
    )
    assert await reviews.listing(shop.env) == []
    actions = [entry.action for entry in await companies.history(shop.env, shop.company_id)]
    assert {"review.opened", "review.resolved"} <= set(actions)


async def test_s24_a_person_may_revoke_and_give_back(shop: Shop) -> None:
    refund(shop, await bought(shop))
    await shop.sync()
    found = await only(shop)
    revoked = await reviews.resolve(shop.env, found.id, access="revoke", note="Fraud", actor=STAFF)
    assert (revoked.access, await shop.plan()) == ("withheld", "free")
    assert "access_withheld" in [one.code for one in (await shop.snapshot()).notices]
    # Stripe says nothing of it, and a refetch changes nothing of it.
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "free"
    kept = await reviews.resolve(shop.env, found.id, access="keep", note="A mistake", actor=STAFF)
    assert (kept.access, await shop.plan()) == ("kept", "pro")


async def test_s24_a_partial_refund_never_revokes_and_a_full_one_does_by_policy(shop: Shop) -> None:
    charge = await bought(shop, on_refund="revoke")
    refund(shop, charge, 100)
    await shop.sync()
    assert ((await only(shop)).stripe_status, await shop.plan()) == ("partially_refunded", "pro")
    await reviews.resolve(shop.env, (await only(shop)).id, access="keep", note="Ours", actor=STAFF)
    # The rest of it is more to decide.
    refund(shop, charge)
    await shop.sync()
    found = await only(shop)
    assert (found.state, found.stripe_status, found.access) == ("open", "refunded", "withheld")
    assert await shop.plan() == "free"


async def test_s24_a_dispute_that_is_won_restores_what_it_took(shop: Shop) -> None:
    name = dispute(shop, await bought(shop, on_dispute="revoke"))
    await shop.sync()
    assert ((await only(shop)).access, await shop.plan()) == ("withheld", "free")
    decide(shop, name, "under_review")
    await shop.sync()
    assert ((await only(shop)).stripe_status, await shop.plan()) == ("under_review", "free")
    decide(shop, name, "won")
    await shop.sync()
    found = await only(shop)
    assert (found.state, found.outcome, found.access) == ("resolved", "dispute_won", "kept")
    assert await shop.plan() == "pro"


async def test_s24_a_lost_dispute_stays_open_for_a_person(shop: Shop) -> None:
    name = dispute(shop, await bought(shop))
    await shop.sync()
    await reviews.resolve(shop.env, (await only(shop)).id, access="keep", note="Wait and see", actor=STAFF)
    decide(shop, name, "lost")
    await shop.sync()
    found = await only(shop)
    assert (found.state, found.stripe_status, found.access, await shop.plan()) == ("open", "lost", "kept", "pro")


async def test_s24_two_reasons_to_withhold_are_both_needed_to_be_gone(shop: Shop) -> None:
    charge = await bought(shop, on_dispute="revoke", on_refund="revoke")
    name = dispute(shop, charge)
    refund(shop, charge)
    await shop.sync()
    assert len(await reviews.listing(shop.env)) == 2
    decide(shop, name, "won")
    await shop.sync()
    assert await shop.plan() == "free"
    (left,) = await reviews.listing(shop.env)
    await reviews.resolve(shop.env, left.id, access="keep", note="Paid again", actor=STAFF)
    assert await shop.plan() == "pro"


async def test_s24_a_refund_that_did_not_go_through_gives_back_what_it_took(shop: Shop) -> None:
    refund(shop, charge := await bought(shop, on_refund="revoke"))
    await shop.sync()
    assert ((await only(shop)).access, await shop.plan()) == ("withheld", "free")
    # The customer's bank sends the money back: Stripe counts the refund no more, and says so of the refund.
    told = shop.sandbox.app_state.sandbox.world.store.get("charge", charge)
    told["amount_refunded"], told["refunded"] = 0, False
    failed = {"id": "re_1", "object": "refund", "charge": charge, "status": "failed"}
    event = {"id": "evt_failed", "type": "refund.failed", "created": 1, "livemode": False, "data": {"object": failed}}
    await sync.receive(shop.env, event)
    while await sync.work_inbox(shop.env):
        pass
    found = await only(shop)
    assert (found.state, found.outcome, found.access) == ("resolved", "refund_failed", "kept")
    assert (found.stripe_status, await shop.plan()) == ("not_refunded", "pro")


async def test_s24_the_policy_may_be_to_ignore_them(shop: Shop) -> None:
    refund(shop, await bought(shop, on_refund="ignore"))
    await shop.sync()
    assert (await reviews.listing(shop.env, state=None), await shop.plan()) == ([], "pro")


async def test_s24_any_order_of_events_ends_in_what_the_charge_says(shop: Shop) -> None:
    charge = await bought(shop, on_dispute="revoke")
    name = dispute(shop, charge)
    decide(shop, name, "won")
    refund(shop, charge, 100)
    events = [one.to_dict(for_json=True) for one in shop.stripe.events.list({"limit": 100}).data]
    chance = random.Random(20261120)  # noqa: S311 - repeatable shuffles, not secrets.
    for number in range(3):
        chance.shuffle(events)
        for event in [*events, *events]:
            await sync.receive(shop.env, {**event, "id": f"{event['id']}{number}"})
        while await sync.work_inbox(shop.env):
            pass
        found = {one.kind: one for one in await reviews.listing(shop.env, state=None)}
        assert set(found) == {"refund", "dispute"}
        assert (found["dispute"].outcome, found["refund"].amount_minor) == ("dispute_won", 100)
        assert await shop.plan() == "pro"
        async with shop.env.writing() as session:
            await session.run(inbox.delete())


async def test_a_charge_of_nobody_is_ignored(shop: Shop) -> None:
    other = shop.stripe.customers.create({"name": "Somebody else"}).id
    shop.new_card(other, "pm_card_visa")
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.create({"customer": other, "items": [{"price": price}]})
    assert not await reviews.learn_of_charge(shop.env, shop.objects("charge")[-1]["id"])
    assert not await reviews.learn_of_charge(shop.env, "ch_never")


async def test_what_cannot_be_resolved_is_refused(shop: Shop) -> None:
    refund(shop, await bought(shop))
    await shop.sync()
    found = await only(shop)
    for wrong in ("", " ", "x" * 1_001):
        with pytest.raises(Refusal):
            await reviews.resolve(shop.env, found.id, access="keep", note=wrong, actor=STAFF)
    with pytest.raises(Refusal):
        await reviews.resolve(shop.env, "rev_none", access="keep", note="Why", actor=STAFF)
