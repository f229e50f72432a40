"""Promise 11, a slice: what changed in Stripe without a word is reported by its class, and healed in one cycle."""

from typing import Any

import pytest

from plangate.drift import DriftKind, stripe_drift
from plangate.errors import Refusal
from plangate.importing import import_account
from plangate.mirroring import refetch
from plangate.store.catalog import all_stripe_prices, save_stripe_price
from plangate.store.companies import STRIPE_CUSTOMER_KEY, add_keys
from tests.shop import Shop, new_company
from tests.sync.crowds import grow


async def priced(shop: Shop, plan: str) -> str:
    return (await shop.env.catalog()).plans[plan].prices[0].stripe_price_id or ""


async def subscriber(shop: Shop, name: str) -> tuple[str, str, str]:
    """A company on Pro that we know all about; its id, its Stripe customer and its subscription."""
    shop.company_id = await new_company(shop.env, name)
    customer = await shop.customer()
    price = await priced(shop, "pro")
    made = shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price}]})
    await refetch(shop.env, shop.company_id)
    return shop.company_id, customer, made.id


async def test_every_silent_change_is_reported_and_healed(shop: Shop) -> None:
    starter, expected = await priced(shop, "starter"), dict[str, DriftKind]()
    subscriptions = shop.stripe.subscriptions
    kinds = ("quantity", "price", "added", "ends", "kept", "ended", "schedule", "released", "deleted", "another")
    for name in (*kinds, "trial", "card", "paused"):
        company_id, customer, subscription = await subscriber(shop, name)
        item = subscriptions.retrieve(subscription)["items"].data[0].id
        match name:
            case "quantity":
                subscriptions.update(subscription, {"items": [{"id": item, "quantity": 7}]})
                expected[company_id] = DriftKind.ITEMS
            case "price":
                subscriptions.update(subscription, {"items": [{"id": item, "price": starter}]})
                expected[company_id] = DriftKind.ITEMS
            case "ends":
                subscriptions.update(subscription, {"cancel_at_period_end": True})
                expected[company_id] = DriftKind.ENDING
            case "added":
                subscriptions.update(subscription, {"items": [{"price": starter}]})
                expected[company_id] = DriftKind.ITEMS
            case "kept":
                subscriptions.update(subscription, {"cancel_at_period_end": True})
                await refetch(shop.env, company_id)
                subscriptions.update(subscription, {"cancel_at_period_end": False})
                expected[company_id] = DriftKind.ENDING
            case "released":
                made = shop.stripe.subscription_schedules.create({"from_subscription": subscription})
                await refetch(shop.env, company_id)
                shop.stripe.subscription_schedules.release(made.id)
                expected[company_id] = DriftKind.SCHEDULE
            case "card":
                card = shop.new_card(customer, "pm_card_mastercard")
                subscriptions.update(subscription, {"default_payment_method": card})
                expected[company_id] = DriftKind.DETAILS
            case "ended":
                subscriptions.cancel(subscription)
                expected[company_id] = DriftKind.STATUS
            case "schedule":
                shop.stripe.subscription_schedules.create({"from_subscription": subscription})
                expected[company_id] = DriftKind.SCHEDULE
            case "deleted":
                shop.stripe.customers.delete(customer)
                expected[company_id] = DriftKind.GONE
            case "another":
                subscriptions.create({"customer": customer, "items": [{"price": starter}]})
                expected[company_id] = DriftKind.MISSING
            case "trial":
                later = int(shop.now().timestamp()) + 9 * 86_400
                subscriptions.update(subscription, {"trial_end": later, "proration_behavior": "none"})
                expected[company_id] = DriftKind.STATUS
            case _:
                subscriptions.update(subscription, {"pause_collection": {"behavior": "void"}})
                expected[company_id] = DriftKind.DETAILS
    unheard = shop.stripe.customers.create({"name": "Unheard of"}).id
    shop.new_card(unheard, "pm_card_visa")
    subscriptions.create({"customer": unheard, "items": [{"price": starter}]})
    shop.stripe.customers.create({"name": "Another product's"})

    reported = await stripe_drift(shop.env)
    assert {one.company: one.kind for one in reported if one.company} == expected
    assert [one.subject for one in reported if one.kind is DriftKind.UNLINKED_CUSTOMER] == [unheard]
    assert not any(one.is_repaired for one in reported)
    healed = await stripe_drift(shop.env, repair=True)
    assert (len(healed), all(one.is_repaired for one in healed)) == (len(reported), True)
    assert await stripe_drift(shop.env) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_differs_is_told_as_it_is_here_and_in_stripe(shop: Shop) -> None:
    company_id, customer, name = await subscriber(shop, "told")
    pro, starter = await priced(shop, "pro"), await priced(shop, "starter")
    (item,) = shop.stripe.subscriptions.retrieve(name)["items"].data
    shop.stripe.subscriptions.update(
        name, {"items": [{"id": item.id, "price": starter, "quantity": 7}], "cancel_at_period_end": True}
    )
    another = shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": pro}]})
    found = {one.subject: one for one in await stripe_drift(shop.env)}
    ends = f"{(await shop.snapshot()).facts.subscriptions[0].items[0].period_end_at:%Y-%m-%d %H:%M}"
    assert found[name].detail == (
        f"items: {pro} (1) until {ends} here, {starter} (7) until {ends} in Stripe; "
        f"scheduled end at: none here, {ends} in Stripe"
    )
    assert (found[name].company, found[name].kind, set(found[name].here)) == (
        company_id,
        DriftKind.ITEMS,
        {"items", "scheduled_end_at"},
    )
    assert found[name].here["scheduled_end_at"] is None
    assert [one["stripe_price_id"] for one in found[name].in_stripe["items"]] == [starter]
    assert found[another.id].detail.startswith(f"active in Stripe, unknown here: {pro} (1) until 20")


async def test_a_company_with_another_live_subscription_keeps_its_plan(shop: Shop) -> None:
    _, customer, subscription = await subscriber(shop, "two")
    shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": await priced(shop, "starter")}]})
    shop.stripe.subscriptions.cancel(subscription)
    assert all(one.is_repaired for one in await stripe_drift(shop.env, repair=True))
    assert await shop.plan() == "starter"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_customer_the_account_never_had_is_reported_and_ends_nothing(shop: Shop) -> None:
    company_id, _, _ = await subscriber(shop, "acme-two")
    async with shop.env.writing() as session:
        await add_keys(session, company_id, [(STRIPE_CUSTOMER_KEY, "cus_elsewhere")])
    (found,) = await stripe_drift(shop.env, repair=True)
    assert (found.kind, found.subject, found.is_repaired) == (DriftKind.UNKNOWN_CUSTOMER, "cus_elsewhere", False)
    assert await shop.plan() == "pro"


async def test_companies_that_never_subscribed_take_no_call_each(shop: Shop) -> None:
    world = shop.sandbox.app_state.sandbox.world
    first = shop.stripe.customers.create({"name": "Customer 1"}).id
    for number in range(110):
        world.store.add({**world.store.get("customer", first), "id": f"cus_{number}"})
    await import_account(shop.env, is_every_customer_wanted=True)
    elsewhere = await new_company(shop.env, "elsewhere")
    async with shop.env.writing() as session:
        await add_keys(session, elsewhere, [(STRIPE_CUSTOMER_KEY, "cus_elsewhere")])
    before = len(shop.requests("GET"))
    (found,) = await stripe_drift(shop.env)
    assert (found.company, found.kind) == (elsewhere, DriftKind.UNKNOWN_CUSTOMER)
    asked = [one["path"] for one in shop.requests("GET")][before:]
    assert [one for one in asked if one.startswith("/v1/customers/")] == ["/v1/customers/cus_elsewhere"]
    # Who began to subscribe meanwhile is reported all the same.
    shop.new_card(first, "pm_card_visa")
    shop.stripe.subscriptions.create({"customer": first, "items": [{"price": await priced(shop, "pro")}]})
    assert {one.kind for one in await stripe_drift(shop.env)} == {DriftKind.MISSING, DriftKind.UNKNOWN_CUSTOMER}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_unpaid_customer_that_cannot_be_read_is_reported_and_the_others_are_compared(shop: Shop) -> None:
    unpaid, _, subscription = await subscriber(shop, "unpaid")
    other, _, silent = await subscriber(shop, "other")
    world = shop.sandbox.app_state.sandbox.world
    world.store.get("subscription", subscription)["status"] = "past_due"
    await refetch(shop.env, unpaid)
    shop.stripe.subscriptions.cancel(silent)
    fault: dict[str, Any] = {"fault": "fail_call", "path": "/v1/invoices", "status": 500, "count": None}
    shop.sandbox.control("POST", "faults", fault)
    found = {one.company: one for one in await stripe_drift(shop.env, repair=True)}
    assert (found[unpaid].kind, found[other].is_repaired, len(found)) == (DriftKind.UNREADABLE, True, 2)
    shop.sandbox.control("DELETE", "faults")
    assert await stripe_drift(shop.env) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_key_of_another_account_compares_nothing(shop: Shop) -> None:
    await subscriber(shop, "acme-three")
    shop.env.settings = shop.env.settings.model_copy(update={"stripe_account": "acct_another"})
    with pytest.raises(Refusal, match="another account"):
        await stripe_drift(shop.env, repair=True)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_company_stripe_does_not_answer_for_keeps_nobody_else_waiting(shop: Shop) -> None:
    _, customer, silent = await subscriber(shop, "silent")
    company_id, _, subscription = await subscriber(shop, "heard")
    shop.stripe.subscriptions.cancel(subscription)
    shop.stripe.subscriptions.cancel(silent)
    fault: dict[str, Any] = {"fault": "fail_call", "path": f"/v1/customers/{customer}", "status": 500, "count": 9}
    shop.sandbox.control("POST", "faults", fault)
    found = {one.company: one for one in await stripe_drift(shop.env, repair=True)}
    assert found.pop(company_id).is_repaired
    assert [one.kind for one in found.values()] == [DriftKind.UNREADABLE]


async def test_prices_and_products_archived_without_a_word_are_reported_and_learned(shop: Shop) -> None:
    company_id, _, _ = await subscriber(shop, "holder")
    starter, pro = await priced(shop, "starter"), (await shop.env.catalog()).plans["pro"]
    ours = {price.stripe_price_id or "" for price in pro.prices}
    shop.stripe.prices.update(starter, {"active": False})
    shop.stripe.products.update(pro.stripe_product_id or "", {"active": False})
    silent = await stripe_drift(shop.env)
    assert {one.subject for one in silent} == {starter, *ours}
    assert {(one.kind, one.company, one.is_repaired) for one in silent} == {(DriftKind.PRICE_NOT_ON_SALE, "", False)}
    assert all(one.is_repaired for one in await stripe_drift(shop.env, repair=True))
    assert await stripe_drift(shop.env) == []
    assert (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id is None
    shop.company_id = company_id
    assert await shop.plan() == "pro"

    shop.stripe.prices.update(starter, {"active": True})
    (back,) = await stripe_drift(shop.env, repair=True)
    assert (back.kind, back.subject, back.is_repaired) == (DriftKind.PRICE_ON_SALE, starter, True)
    assert await priced(shop, "starter") == starter


async def _also_sell(shop: Shop, stripe_price_id: str) -> None:
    """Keep a price as one of Pro's that this Stripe account does not have."""
    sold = await priced(shop, "pro")
    async with shop.env.writing() as session:
        (row,) = [one for one in await all_stripe_prices(session) if one.stripe_price_id == sold]
        await save_stripe_price(session, row.model_copy(update={"stripe_price_id": stripe_price_id}))
        shop.env.touch_catalog(session)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_price_that_stripe_does_not_have_is_missing(shop: Shop) -> None:
    await _also_sell(shop, "price_elsewhere")
    (found,) = await stripe_drift(shop.env, repair=True)
    assert (found.kind, found.subject, found.is_repaired) == (DriftKind.PRICE_MISSING, "price_elsewhere", True)
    assert await stripe_drift(shop.env) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_account_that_has_none_of_our_prices_takes_nothing_off_sale(shop: Shop) -> None:
    sold = await shop.env.catalog()
    shop.sandbox.control("POST", "reset", {})
    found = await stripe_drift(shop.env, repair=True)
    assert len(found) == len(sold.price_owners)
    assert {(one.kind, one.is_repaired) for one in found} == {(DriftKind.PRICE_MISSING, False)}
    assert (await shop.env.catalog()).plans == sold.plans


async def test_a_fleet_that_agrees_is_compared_with_few_calls(shop: Shop) -> None:
    grow(shop, 60, price=await priced(shop, "pro"))
    await import_account(shop.env)
    before = len(shop.requests("GET"))
    assert await stripe_drift(shop.env) == []
    assert len(shop.requests("GET")) - before <= 6
