"""Writing back is for the holder of the lease alone, and only differences are written."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from structlog.testing import capture_logs

from plangate.access import check
from plangate.billing.transport import Transport
from plangate.clock import wall_now
from plangate.drift import DriftKind, stripe_drift
from plangate.errors import Code, Refusal
from plangate.importing import import_account
from plangate.metering import TrackEvent, consume, record
from plangate.mirroring import customers_of, refetch, refetch_customer
from plangate.store.audit import audit_of
from plangate.store.leases import leases
from plangate.store.subscriptions import subscriptions, subscriptions_of
from plangate.sync import act_on, receive_to_act
from tests.shop import Shop


async def started(shop: Shop) -> str:
    customer = await shop.customer()
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    return shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price}]}).id


async def version(shop: Shop) -> int:
    standing = await shop.env.standings.of(shop.company_id)
    assert standing is not None
    return standing.facts.version


async def test_a_refetch_that_finds_nothing_new_writes_nothing(shop: Shop) -> None:
    await started(shop)
    assert (await refetch(shop.env, shop.company_id)).is_changed
    before = await version(shop)
    assert not (await refetch(shop.env, shop.company_id)).is_changed
    assert await version(shop) == before
    async with shop.env.reading() as session:
        assert await session.scalar(select(func.count()).select_from(subscriptions)) == 1


async def test_a_change_is_announced_and_audited(shop: Shop) -> None:
    stripe_subscription_id = await started(shop)
    await refetch(shop.env, shop.company_id)
    before = await version(shop)
    shop.stripe.subscriptions.update(stripe_subscription_id, {"cancel_at_period_end": True})
    await refetch(shop.env, shop.company_id)
    assert await version(shop) > before
    async with shop.env.reading() as session:
        entries = await audit_of(session, shop.company_id)
    changed = [entry for entry in entries if entry.action == "subscription.changed"]
    assert [entry.subject for entry in changed] == [stripe_subscription_id] * 2
    assert changed[0].before["scheduled_end_at"] is None
    assert changed[0].after["scheduled_end_at"] is not None


async def test_a_state_that_reads_the_same_is_kept_and_not_told(shop: Shop) -> None:
    await started(shop)
    await refetch(shop.env, shop.company_id)
    shop.advance("P32D")
    assert (await refetch(shop.env, shop.company_id)).is_changed
    async with shop.env.reading() as session:
        entries = await audit_of(session, shop.company_id)
    told = [entry for entry in entries if entry.action == "subscription.changed"]
    assert all(entry.before != entry.after for entry in told)
    assert len(told) == 1


async def test_w20_who_lost_the_lease_writes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await started(shop)
    find = Transport.find

    async def slow_find(self: Transport, request: object) -> object:
        # While we asked Stripe our lease ran out, and somebody else took the company.
        async with shop.env.writing() as session:
            await session.run(update(leases).values(fence=leases.c.fence + 1, holder="somebody else"))
        return await find(self, request)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(Transport, "find", slow_find)
    with pytest.raises(Refusal) as caught:
        await refetch(shop.env, shop.company_id)
    assert caught.value.code is Code.CHANGE_IN_PROGRESS
    async with shop.env.reading() as session:
        assert await subscriptions_of(session, shop.company_id) == ()


async def test_a_held_lease_is_waited_for_and_then_refused(shop: Shop) -> None:
    await started(shop)
    async with shop.env.lease(shop.company_id):
        with pytest.raises(Refusal) as caught:
            await refetch(shop.env, shop.company_id, wait_seconds=0.1)
    assert caught.value.code is Code.CHANGE_IN_PROGRESS
    await refetch(shop.env, shop.company_id)
    async with shop.env.writing() as session:
        await session.run(update(leases).values(holder="dead", expires_at=wall_now() - timedelta(seconds=1)))
    await refetch(shop.env, shop.company_id, wait_seconds=0.1)


async def test_a_company_without_a_customer_asks_stripe_nothing(shop: Shop) -> None:
    before = len(shop.sandbox.control("GET", "requests")["data"])
    assert (await refetch(shop.env, shop.company_id)).facts == ()
    assert len(shop.sandbox.control("GET", "requests")["data"]) == before


async def test_customers_that_never_were_or_are_gone(shop: Shop) -> None:
    assert await refetch_customer(shop.env, "cus_never") is None
    gone = shop.stripe.customers.create({"metadata": {"plangate_company": shop.company_id}})
    shop.stripe.customers.delete(gone.id)
    assert await refetch_customer(shop.env, gone.id) is None


async def test_several_customers_of_one_company(shop: Shop) -> None:
    await started(shop)
    await started(shop)
    found = await refetch(shop.env, shop.company_id)
    assert len(found.facts) == 2
    assert (await shop.snapshot()).notices[0].code == "several_subscriptions"
    async with shop.env.reading() as session:
        assert len(await customers_of(session, shop.company_id)) == 2


async def test_what_was_known_then_stays_known(shop: Shop) -> None:
    stripe_subscription_id = await started(shop)
    await refetch(shop.env, shop.company_id)
    then = shop.now()
    shop.advance("P1D")
    shop.stripe.subscriptions.cancel(stripe_subscription_id)
    await refetch(shop.env, shop.company_id)
    async with shop.env.reading() as session:
        (before,) = await subscriptions_of(session, shop.company_id, at=then)
        (after,) = await subscriptions_of(session, shop.company_id)
    assert (before.status, after.status) == ("active", "canceled")
    assert before.started_at > datetime(2026, 1, 1, tzinfo=UTC)


async def test_s11_an_unknown_price_keeps_the_last_known_plan_and_says_so(shop: Shop) -> None:
    stripe_subscription_id = await started(shop)
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    (item,) = shop.stripe.subscriptions.retrieve(stripe_subscription_id)["items"].data
    by_hand = made_by_hand(shop)
    shop.stripe.subscriptions.update(stripe_subscription_id, {"items": [{"id": item.id, "price": by_hand}]})
    with capture_logs() as logged:
        await refetch(shop.env, shop.company_id)
        shop.stripe.subscriptions.update(stripe_subscription_id, {"cancel_at_period_end": True})
        await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    assert [notice.code for notice in (await shop.snapshot()).notices] == ["unmapped_price"]
    # The log says it once, verify as long as it lasts.
    (warning,) = [one for one in logged if one["event"] == "look_at_subscription"]
    assert (warning["log_level"], warning["company"], warning["code"]) == (
        "warning",
        shop.company_id,
        "unmapped_price",
    )
    (found,) = await stripe_drift(shop.env, repair=True)
    assert (found.company, found.subject, found.kind, found.is_repaired) == (
        shop.company_id,
        stripe_subscription_id,
        DriftKind.UNMAPPED_PRICE,
        False,
    )
    assert by_hand in found.detail


async def test_s11_the_plan_is_known_beside_an_unknown_price_and_stays_when_its_own_becomes_one(shop: Shop) -> None:
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    asked: Any = {"customer": await shop.customer(), "items": [{"price": price}, {"price": made_by_hand(shop)}]}
    made = shop.stripe.subscriptions.create(asked)
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    # Beside a plan it may be another product's, which is nothing to mend.
    assert await stripe_drift(shop.env) == []
    (item,) = [one.id for one in made["items"].data if one.price.id == price]
    shop.stripe.subscriptions.update(made.id, {"items": [{"id": item, "price": made_by_hand(shop)}]})
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"


def made_by_hand(shop: Shop) -> str:
    """A price that no plan or add-on names."""
    product = shop.stripe.products.create({"name": "Made by hand"})
    recurring: Any = {"interval": "month"}
    return shop.stripe.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": 1_000, "recurring": recurring}
    ).id


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_key_of_another_account_ends_nothing(shop: Shop) -> None:
    await started(shop)
    await refetch(shop.env, shop.company_id)
    (customer,) = shop.objects("customer")
    # The other account has none of our customers.
    shop.sandbox.control("POST", "reset", {})
    settings = shop.env.settings
    shop.env.settings = settings.model_copy(update={"stripe_account": "acct_another"})
    with pytest.raises(Refusal, match="another account"):
        await refetch(shop.env, shop.company_id)
    event = {"type": "customer.updated", "created": 1, "livemode": False, "data": {"object": customer}}
    row, claim = await receive_to_act(shop.env, {"id": "evt_elsewhere", **event})
    assert row is not None
    assert claim is not None
    await act_on(shop.env, claim)
    with pytest.raises(Refusal, match="another account"):
        await import_account(shop.env)
    assert await shop.plan() == "pro"
    # To the account that is ours, a customer that is gone has no subscription.
    shop.env.settings = settings
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "free"


async def test_usage_that_waited_for_a_stripe_customer_counts_once_it_is_linked(shop: Shop) -> None:
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    customer = shop.stripe.customers.create({"name": "Somebody", "payment_method": "pm_card_visa"})
    card = shop.new_card(customer.id, "pm_card_visa")
    shop.stripe.subscriptions.create(
        {"customer": customer.id, "items": [{"price": price}], "default_payment_method": card}
    )
    event = TrackEvent(event="exports", company={"stripe_customer_id": customer.id}, quantity=7)
    (waiting,) = await record(shop.env, [event])
    assert waiting.status == "unattributed"
    mirror = await refetch_customer(shop.env, customer.id)
    assert mirror is not None
    decision = await check(shop.env, company={"stripe_customer_id": customer.id}, feature="exports")
    assert decision.used == 7


async def test_t4_the_running_window_ends_at_the_new_anchor_and_keeps_its_usage(shop: Shop) -> None:
    await consume(shop.env, company={"id": "acme"}, feature="exports", quantity=3, idempotency_key="before")
    free = await check(shop.env, company={"id": "acme"}, feature="exports")
    shop.advance("P10D")
    await started(shop)
    await refetch(shop.env, shop.company_id)
    paid = await check(shop.env, company={"id": "acme"}, feature="exports")
    (subscription,) = (await shop.snapshot()).facts.subscriptions
    assert free.period is not None
    assert paid.period is not None
    assert (paid.used, paid.period.start) == (3, free.period.start)
    assert paid.period.resets_at == subscription.items[0].period_end_at
