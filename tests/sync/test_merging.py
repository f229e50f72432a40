"""Companies that pay through Stripe: merged, or linked to a customer, they have at once what was bought."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import update

from plangate import companies, mirroring
from plangate.billing.mirror import COMPANY_METADATA
from plangate.clock import wall_now
from plangate.engine.facts import PlanSource
from plangate.errors import Refusal
from plangate.mirroring import company_of_customer, refetch, refetch_customer
from plangate.shapes import Actor
from plangate.store.companies import CompanyRow, company_row
from plangate.store.database import StoreSession
from plangate.store.inbox import inbox, inbox_figures
from plangate.sync import receive, work_inbox
from plangate.web.stripe_app_actions import Asked, company_link
from plangate.web.stripe_app_payloads import LinkPayload
from tests.shop import Shop, new_company
from tests.sync.test_webhooks import events_of
from tests.world import ACTOR


async def _buy(shop: Shop) -> str:
    """A customer of nobody's company, subscribed to `pro`."""
    customer: str = shop.stripe.customers.create({"name": "Somebody"}).id
    shop.stripe.payment_methods.attach("pm_card_visa", {"customer": customer})
    price = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.create(
        {
            "customer": customer,
            "items": [{"price": price}],
            "collection_method": "send_invoice",
            "days_until_due": 30,
        }
    )
    return customer


async def test_a_subscription_moves_with_its_company(shop: Shop) -> None:
    customer = await _buy(shop)
    twin, _ = await companies.upsert(shop.env, keys={"id": "twin"}, stripe_customer_ids=(customer,), actor=ACTOR)
    await refetch(shop.env, twin.id)
    merged = await companies.merge(shop.env, shop.company_id, twin.id, actor=ACTOR)
    assert merged.plan is not None
    assert (merged.plan.key, merged.plan.source) == ("pro", PlanSource.SUBSCRIPTION)
    assert merged.subscription is not None
    assert customer in merged.stripe_customer_ids
    # What Stripe says now is what was moved: nothing is written again.
    assert not (await refetch(shop.env, shop.company_id)).is_changed


async def test_an_event_of_a_company_that_is_merged_meanwhile_is_told_to_the_one_it_became(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await _buy(shop)
    twin, _ = await companies.upsert(shop.env, keys={"id": "twin"}, stripe_customer_ids=(customer,), actor=ACTOR)
    (subscription,) = shop.stripe.subscriptions.list({"customer": customer}).data
    shop.stripe.subscriptions.cancel(subscription.id)
    merged: list[str] = []

    async def overtaken(session: StoreSession, stripe_customer_id: str) -> str | None:
        found = await company_of_customer(session, stripe_customer_id)
        if not merged:
            merged.append(twin.id)
            await companies.merge(shop.env, shop.company_id, twin.id, actor=ACTOR)
        return found

    monkeypatch.setattr(mirroring, "company_of_customer", overtaken)
    await receive(shop.env, (await events_of(shop))[-1])
    assert await work_inbox(shop.env) == 1
    async with shop.env.writing() as session:
        await session.run(update(inbox).values(available_at=wall_now()))
    await work_inbox(shop.env)
    assert (merged, await shop.plan()) == ([twin.id], "free")


async def test_a_customer_that_names_a_company_merged_meanwhile_is_linked_to_the_one_it_became(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await _buy(shop)
    twin = await new_company(shop.env, "twin")
    shop.stripe.customers.update(customer, {"metadata": {COMPANY_METADATA: twin}})
    merging: list[asyncio.Task[object]] = []

    async def overtaken(session: StoreSession, company_id: str, **options: bool) -> CompanyRow | None:
        row = await company_row(session, company_id, **options)
        if not merging:
            merging.append(asyncio.create_task(companies.merge(shop.env, shop.company_id, twin, actor=ACTOR)))
            await asyncio.sleep(0.5)  # for as long as it can go on
        return row

    monkeypatch.setattr(mirroring, "company_row", overtaken)
    with suppress(Refusal):
        # It is refused when it was linked before the merge, and tried again.
        await refetch_customer(shop.env, customer)
    await merging[0]
    await refetch_customer(shop.env, customer)
    assert await shop.plan() == "pro"


async def test_a_linked_customer_is_fetched_at_once(shop: Shop) -> None:
    customer = await _buy(shop)
    company_id = await new_company(shop.env, "other")
    payload = LinkPayload(
        user_id="usr_1", account_id="acct_1", mode="test", customer=customer, operation_id="op_1", company=company_id
    )
    linked = await company_link(Asked(shop.env, "admin", Actor(kind="stripe_user", id="usr_1"), payload))
    assert linked.plan is not None
    assert (linked.id, linked.plan.key, linked.plan.source) == (company_id, "pro", PlanSource.SUBSCRIPTION)


async def test_a_customer_linked_by_the_api_is_fetched_before_the_answer(shop: Shop) -> None:
    customer = await _buy(shop)
    linked, _ = await companies.upsert(shop.env, keys={"id": "linked"}, stripe_customer_ids=(customer,), actor=ACTOR)
    assert linked.plan is not None
    assert (linked.plan.key, linked.plan.source) == ("pro", PlanSource.SUBSCRIPTION)
    assert await work_inbox(shop.env) == 0
    async with shop.env.reading() as session:
        assert (await inbox_figures(session))["counts"] == {"processed": 1}
    # Linked again, nothing is fetched.
    before = len(shop.requests("GET"))
    await companies.upsert(shop.env, keys={"id": "linked"}, stripe_customer_ids=(customer,), actor=ACTOR)
    assert len(shop.requests("GET")) == before


async def test_a_customer_who_pays_for_nothing_leaves_nothing_to_be_done(shop: Shop) -> None:
    customer = shop.stripe.customers.create({"name": "Nobody yet"}).id
    await companies.upsert(shop.env, keys={"id": "linked"}, stripe_customer_ids=(customer,), actor=ACTOR)
    async with shop.env.reading() as session:
        assert (await inbox_figures(session))["counts"] == {"processed": 1}


async def test_while_stripe_does_not_answer_the_link_is_kept_and_the_worker_fetches_it(shop: Shop) -> None:
    customer = await _buy(shop)
    shop.sandbox.control("POST", "faults", {"fault": "fail_call", "path": "/v1/*", "count": None, "status": 500})
    linked, _ = await companies.upsert(shop.env, keys={"id": "linked"}, stripe_customer_ids=(customer,), actor=ACTOR)
    assert (linked.stripe_customer_ids, linked.plan and linked.plan.key) == ((customer,), "free")
    shop.sandbox.control("DELETE", "faults")
    async with shop.env.writing() as session:
        await session.run(update(inbox).values(available_at=wall_now() - timedelta(seconds=1)))
    assert await work_inbox(shop.env) == 1
    found = await companies.get(shop.env, linked.id)
    assert found.plan is not None
    assert found.plan.key == "pro"


async def test_grace_days_move_with_a_merged_company_unless_it_has_its_own(shop: Shop) -> None:
    twin, _ = await companies.upsert(shop.env, keys={"id": "twin"}, past_due_grace_days=21, actor=ACTOR)
    assert (await companies.merge(shop.env, shop.company_id, twin.id, actor=ACTOR)).past_due_grace_days == 21
    other, _ = await companies.upsert(shop.env, keys={"id": "other"}, past_due_grace_days=3, actor=ACTOR)
    assert (await companies.merge(shop.env, shop.company_id, other.id, actor=ACTOR)).past_due_grace_days == 21
