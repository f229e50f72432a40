"""Payment goes wrong: past due, unpaid, paused, expired. Access follows Stripe's status and the policies alone."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from plangate import catalog, companies, grace
from plangate.access import check
from plangate.companies import HistoryEntry
from plangate.engine.decision import Reason
from plangate.errors import Refusal
from plangate.mirroring import refetch
from plangate.shapes import Actor
from plangate.store.audit import audit_of
from plangate.store.snapshot import company_facts
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR


async def subscribe(shop: Shop, plan: str = "pro", **params: Any) -> str:  # noqa: ANN401 - parameters as Stripe's
    customer = await shop.customer()
    price = (await shop.env.catalog()).plans[plan].prices[0].stripe_price_id or ""
    asked: Any = {"customer": customer, "items": [{"price": price}], **params}
    made = shop.stripe.subscriptions.create(asked)
    await refetch(shop.env, shop.company_id)
    return made.id


async def notices(shop: Shop) -> list[str]:
    return [one.code for one in (await shop.snapshot()).notices]


async def apply_settings(shop: Shop, **settings: object) -> None:
    await catalog.apply(shop.env, {**DOCUMENT, "settings": settings}, actor=Actor(kind="cli", id="tests"))


async def fail_renewal(shop: Shop) -> None:
    """The renewal's first attempt fails."""
    (customer,) = shop.objects("customer")
    shop.new_card(customer["id"], "pm_card_chargeCustomerFail")
    shop.advance("P1M")
    shop.advance("PT2H")
    await refetch(shop.env, shop.company_id)


async def test_s3_past_due_keeps_access_for_the_grace_days_then_falls_back(shop: Shop) -> None:
    await subscribe(shop)
    await fail_renewal(shop)
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert (fact.status, await shop.plan(), await notices(shop)) == ("past_due", "pro", ["past_due"])
    # The days count from the first failed attempt, to the microsecond.
    (invoice,) = [one for one in shop.objects("invoice") if one["status"] == "open"]
    first_failed_at = invoice["status_transitions"]["finalized_at"]
    assert fact.past_due_since is not None
    assert fact.past_due_since.timestamp() == first_failed_at
    standing = await shop.env.standings.of(shop.company_id)
    assert standing is not None
    ends_at = fact.past_due_since + timedelta(days=7)
    held = [standing.snapshot_at(at).plan for at in (ends_at - timedelta(microseconds=1), ends_at)]
    assert [None if one is None else one.key for one in held] == ["pro", "free"]
    assert [one.code for one in standing.snapshot_at(ends_at).notices] == ["grace_ended"]
    async with shop.env.reading() as session:
        entries = await audit_of(session, shop.company_id)
    assert "past_due" in {entry.after["status"] for entry in entries if entry.action == "subscription.changed"}


async def past_due_since(shop: Shop) -> float | None:
    (fact,) = (await shop.snapshot()).facts.subscriptions
    return None if fact.past_due_since is None else fact.past_due_since.timestamp()


def failed_first_at(shop: Shop, number: int) -> float:
    """When one of the invoices, in their order, was finalized, which is when it was charged first."""
    at: float = sorted(shop.objects("invoice"), key=lambda one: one["created"])[number]["status_transitions"][
        "finalized_at"
    ]
    return at


async def test_s3_the_grace_days_of_an_invoice_that_was_sent_count_from_its_due_date(shop: Shop) -> None:
    await subscribe(shop, collection_method="send_invoice", days_until_due=30)
    (invoice,) = shop.objects("invoice")
    shop.advance("P29D")
    await refetch(shop.env, shop.company_id)
    assert (await shop.plan(), await notices(shop)) == ("pro", [])
    shop.advance("P2D")
    await refetch(shop.env, shop.company_id)
    assert (await past_due_since(shop), await shop.plan()) == (invoice["due_date"], "pro")
    shop.advance("P6D")
    assert (await shop.plan(), await notices(shop)) == ("free", ["grace_ended"])


async def test_s3_a_second_failed_invoice_and_a_debt_written_off_give_no_new_grace_days(shop: Shop) -> None:
    await subscribe(shop)
    await fail_renewal(shop)
    shop.sandbox.app_state.sandbox.world.store.get("invoice", await open_invoice(shop))["next_payment_attempt"] = None
    shop.advance("P10D")
    assert await shop.plan() == "free"
    shop.advance("P21D")
    await refetch(shop.env, shop.company_id)
    first = failed_first_at(shop, 1)
    assert len([one for one in shop.objects("invoice") if one["status"] == "open"]) == 2
    assert (await past_due_since(shop), await shop.plan()) == (first, "free")
    shop.stripe.invoices.mark_uncollectible(shop.objects("invoice")[1]["id"])
    await refetch(shop.env, shop.company_id)
    assert (await past_due_since(shop), await shop.plan()) == (first, "free")
    # Whoever pays the newest is active again, and a later failure has grace days of its own.
    (customer,) = shop.objects("customer")
    shop.new_card(customer["id"], "pm_card_visa")
    shop.stripe.invoices.pay(await open_invoice(shop))
    await refetch(shop.env, shop.company_id)
    assert (await past_due_since(shop), await shop.plan()) == (None, "pro")
    await fail_renewal(shop)
    assert (await past_due_since(shop), await shop.plan()) == (failed_first_at(shop, 3), "pro")


async def open_invoice(shop: Shop) -> str:
    """The invoice that waits for its payment."""
    (found,) = [one["id"] for one in shop.objects("invoice") if one["status"] == "open"]
    return str(found)


async def test_s3_a_company_may_have_grace_days_of_its_own(shop: Shop) -> None:
    await subscribe(shop)
    await fail_renewal(shop)
    then = shop.now()
    shop.advance("P10D")
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "free"
    company, _ = await companies.upsert(shop.env, keys={"id": "acme"}, past_due_grace_days=30, actor=ACTOR)
    assert (company.past_due_grace_days, company.plan and company.plan.key) == (30, "pro")
    entry = (await companies.history(shop.env, shop.company_id))[0]
    assert entry.before is not None
    assert entry.after is not None
    assert isinstance(entry.before, dict)
    assert isinstance(entry.after, dict)
    assert (entry.before["past_due_grace_days"], entry.after["past_due_grace_days"]) == (None, 30)
    # The past is answered with what was agreed on then.
    async with shop.env.reading() as session:
        before = await company_facts(session, shop.company_id, at=then)
        now = await company_facts(session, shop.company_id)
        again = await company_facts(session, shop.company_id, at=shop.now())
    assert before is not None
    assert now is not None
    assert again is not None
    assert (before.past_due_grace_days, now.past_due_grace_days, again.past_due_grace_days) == (None, 30, 30)
    company, _ = await companies.upsert(shop.env, keys={"id": "acme"}, past_due_grace_days=None, actor=ACTOR)
    assert (company.past_due_grace_days, company.plan and company.plan.key) == (None, "free")
    with pytest.raises(Refusal):
        await companies.upsert(shop.env, keys={"id": "acme"}, past_due_grace_days=400, actor=ACTOR)


async def ends_noted(shop: Shop, action: str) -> list[HistoryEntry]:
    """The entries that say when access ended by the passing of time alone."""
    return [one for one in await companies.history(shop.env, shop.company_id) if one.action == action]


async def test_s3_the_end_of_the_grace_days_is_in_the_history_once(shop: Shop) -> None:
    name = await subscribe(shop)
    await fail_renewal(shop)
    assert await grace.note_ended_grace(shop.env) == 0
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert fact.past_due_since is not None
    ends_at = fact.past_due_since + timedelta(days=7)
    shop.advance("P6D")
    assert await grace.note_ended_grace(shop.env) == 0
    shop.advance("P2D")
    assert sorted(await asyncio.gather(*(grace.note_ended_grace(shop.env) for _ in range(3)))) == [0, 0, 1]
    # What is fetched afterwards is a new state of the same subscription, and no new end.
    shop.stripe.subscriptions.update(name, {"metadata": {"seen": "yes"}})
    await refetch(shop.env, shop.company_id)
    assert await grace.note_ended_grace(shop.env) == 0
    (entry,) = await ends_noted(shop, grace.GRACE_ENDED)
    assert (entry.subject, entry.actor.kind, entry.before) == (name, "system", {"plan": "pro"})
    assert entry.after == {"plan": "free", "at": ends_at.isoformat().replace("+00:00", "Z")}
    # More grace days, given too late, end later: that is another end.
    await companies.upsert(shop.env, keys={"id": "acme"}, past_due_grace_days=30, actor=ACTOR)
    assert (await grace.note_ended_grace(shop.env), await shop.plan()) == (0, "pro")
    shop.advance("P23D")
    assert (await grace.note_ended_grace(shop.env), await grace.note_ended_grace(shop.env)) == (1, 0)
    changed = [
        one for one in await companies.history(shop.env, shop.company_id) if one.action == "subscription.changed"
    ]
    assert changed
    assert all(one.before != one.after for one in changed)


async def test_s3_the_catalogue_says_how_many_grace_days(shop: Shop) -> None:
    await apply_settings(shop, past_due_grace_days=0)
    await subscribe(shop)
    await fail_renewal(shop)
    assert (await shop.plan(), await notices(shop)) == ("free", ["grace_ended"])


async def test_s4_unpaid_is_the_fallback_plan_and_paying_brings_it_back(shop: Shop) -> None:
    name = await subscribe(shop)
    # The account's rule for unpaid renewals is to leave them unpaid.
    world = shop.sandbox.app_state.sandbox.world
    subscription = world.store.get("subscription", name)
    world.store.touch(subscription)
    subscription["status"] = "unpaid"
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "free"
    decision = await check(shop.env, company={"id": "acme"}, feature="sso")
    assert (decision.allowed, decision.reason) == (False, Reason.SUBSCRIPTION_INACTIVE)
    world.store.touch(subscription)
    subscription["status"] = "active"
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"


async def test_s5_a_paused_subscription_grants_nothing(shop: Shop) -> None:
    customer = await shop.customer(card=None)
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    trial: Any = {"end_behavior": {"missing_payment_method": "pause"}}
    shop.stripe.subscriptions.create(
        {"customer": customer, "items": [{"price": price}], "trial_period_days": 7, "trial_settings": trial}
    )
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    shop.advance("P8D")
    await refetch(shop.env, shop.company_id)
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert (fact.status, await shop.plan()) == ("paused", "free")


async def test_s5_paused_collection_keeps_access_unless_the_catalogue_says_otherwise(shop: Shop) -> None:
    subscription = await subscribe(shop)
    shop.stripe.subscriptions.update(subscription, {"pause_collection": {"behavior": "void"}})
    await refetch(shop.env, shop.company_id)
    assert (await shop.plan(), await notices(shop)) == ("pro", ["collection_paused"])
    shop.advance("P40D")
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    # With the other policy it ends with the period in which it was paused, which is over by now.
    await apply_settings(shop, paused_collection="fallback")
    assert (await shop.plan(), await notices(shop)) == ("free", ["collection_paused"])
    unpaused: Any = {"pause_collection": ""}
    shop.stripe.subscriptions.update(subscription, unpaused)
    await refetch(shop.env, shop.company_id)
    assert (await shop.plan(), await notices(shop)) == ("pro", [])


async def test_s5_the_paid_period_of_a_pause_is_kept_to_its_last_instant(shop: Shop) -> None:
    await apply_settings(shop, paused_collection="fallback")
    subscription = await subscribe(shop)
    shop.stripe.subscriptions.update(subscription, {"pause_collection": {"behavior": "void"}})
    await refetch(shop.env, shop.company_id)
    (fact,) = (await shop.snapshot()).facts.subscriptions
    ends_at = fact.items[0].period_end_at
    standing = await shop.env.standings.of(shop.company_id)
    assert standing is not None
    held = [standing.snapshot_at(at).plan for at in (ends_at - timedelta(microseconds=1), ends_at)]
    assert [None if one is None else one.key for one in held] == ["pro", "free"]
    assert await grace.note_ended_grace(shop.env) == 0
    # Periods that Stripe goes on with, unpaid, do not bring it back.
    shop.advance("P40D")
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "free"
    assert sorted(await asyncio.gather(*(grace.note_ended_grace(shop.env) for _ in range(3)))) == [0, 0, 1]
    (entry,) = await ends_noted(shop, grace.PAUSE_ENDED)
    assert (entry.subject, entry.before) == (subscription, {"plan": "pro"})
    assert entry.after == {"plan": "free", "at": ends_at.isoformat().replace("+00:00", "Z")}
    # Where access goes on during a pause, nothing ends; and what was noted is not noted again.
    await apply_settings(shop, paused_collection="keep")
    assert (await shop.plan(), await grace.note_ended_grace(shop.env)) == ("pro", 0)
    await apply_settings(shop, paused_collection="fallback")
    assert (await shop.plan(), await grace.note_ended_grace(shop.env)) == ("free", 0)


async def test_a_pause_of_what_was_cancelled_before_its_period_ended_is_not_noted(shop: Shop) -> None:
    await apply_settings(shop, paused_collection="fallback")
    subscription = await subscribe(shop)
    shop.stripe.subscriptions.update(subscription, {"pause_collection": {"behavior": "void"}})
    await refetch(shop.env, shop.company_id)
    shop.advance("P3D")
    shop.stripe.subscriptions.cancel(subscription)
    await refetch(shop.env, shop.company_id)
    shop.advance("P40D")
    assert await grace.note_ended_grace(shop.env) == 0


async def test_s1_and_s2_incomplete_grants_nothing_and_expires_into_nothing(shop: Shop) -> None:
    await subscribe(shop, payment_behavior="default_incomplete")
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert (fact.status, await shop.plan()) == ("incomplete", "free")
    shop.advance("PT24H")
    await refetch(shop.env, shop.company_id)
    (fact,) = (await shop.snapshot()).facts.subscriptions
    assert (fact.status, await shop.plan()) == ("incomplete_expired", "free")
