"""Prices that people archive in the Stripe dashboard while the catalogue sells them."""

import pytest
from sqlalchemy import select

from plangate import catalog
from plangate.catalog import on_offer
from plangate.errors import Code, Refusal
from plangate.shapes import Actor
from plangate.store.inbox import inbox
from tests.plan_changes.conftest import shop as shop  # noqa: PLC0414 - the fixture, under its own name
from tests.shop import DOCUMENT, Shop, new_company

ACTOR = Actor(kind="cli", id="tests")


async def test_s12_a_price_archived_in_the_dashboard_is_not_sold_until_applying_restores_it(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    pro = (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id or ""
    shop.stripe.prices.update(pro, {"active": False})
    await shop.sync()
    assert await shop.plan() == "pro"
    assert (await shop.env.catalog()).plans["pro"].prices[0].stripe_price_id is None

    offered = {one.key: [price.interval for price in one.prices] for one in await catalog.public_plans(shop.env)}
    assert offered["pro"] == ["year"]
    shown = on_offer(await shop.env.catalog(), (await shop.env.catalog()).plans["starter"])
    assert shown == (await shop.env.catalog()).plans["starter"]

    # Who holds it changes what stands beside it; nobody else buys it.
    assert (await shop.preview(add_ons={"extra-exports": 1})).next_invoice is not None
    holder, shop.company_id = shop.company_id, await new_company(shop.env, "globex")
    with pytest.raises(Refusal) as refused:
        await shop.preview(plan="pro")
    assert refused.value.code is Code.UNAVAILABLE
    assert "apply the catalogue" in refused.value.detail

    planned = await catalog.plan(shop.env, DOCUMENT)
    assert [(call.action, call.kind) for call in planned.stripe] == [("restore", "price")]
    await catalog.apply(shop.env, DOCUMENT, actor=ACTOR)
    assert shop.stripe.prices.retrieve(pro).active
    assert (await catalog.plan(shop.env, DOCUMENT)).stripe == ()
    assert (await shop.preview(plan="pro")).due_today.amount_minor == 4900

    # Archived once more, it is restored once more.
    shop.stripe.prices.update(pro, {"active": False})
    await shop.sync()
    await catalog.apply(shop.env, DOCUMENT, actor=ACTOR)
    assert shop.stripe.prices.retrieve(pro).active
    await shop.sync()
    shop.company_id = holder
    assert await shop.plan() == "pro"


async def test_s12_a_product_archived_in_the_dashboard_is_not_sold_until_applying_restores_it(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    holder = shop.company_id
    pro = (await shop.env.catalog()).plans["pro"]
    product, prices = pro.stripe_product_id or "", [price.stripe_price_id or "" for price in pro.prices]
    shop.stripe.products.update(product, {"active": False})
    await shop.sync()
    assert await shop.plan() == "pro"
    assert "pro" not in {one.key for one in await catalog.public_plans(shop.env)}
    shop.company_id = await new_company(shop.env, "globex")
    with pytest.raises(Refusal) as refused:
        await shop.preview(plan="pro")
    assert refused.value.code is Code.UNAVAILABLE

    # A price that changes meanwhile does not come on sale by that.
    shop.stripe.prices.update(prices[0], {"nickname": "Old"})
    await shop.sync()
    assert "pro" not in {one.key for one in await catalog.public_plans(shop.env)}

    planned = await catalog.plan(shop.env, DOCUMENT)
    assert [(call.action, call.kind) for call in planned.stripe] == [("restore", "price")] * len(prices)
    await catalog.apply(shop.env, DOCUMENT, actor=ACTOR)
    assert shop.stripe.products.retrieve(product).active
    assert (await catalog.plan(shop.env, DOCUMENT)).stripe == ()
    assert (await shop.preview(plan="pro")).due_today.amount_minor == 4900
    await shop.sync()
    assert (await catalog.plan(shop.env, DOCUMENT)).stripe == ()

    # Restored in the dashboard, it is on sale again by itself.
    shop.stripe.products.update(product, {"active": False})
    await shop.sync()
    shop.stripe.products.update(product, {"active": True})
    await shop.sync()
    assert "pro" in {one.key for one in await catalog.public_plans(shop.env)}
    shop.company_id = holder
    assert await shop.plan() == "pro"


async def test_a_price_or_product_of_others_that_changes_is_none_of_ours(shop: Shop) -> None:
    product = shop.stripe.products.create({"name": "Theirs"})
    price = shop.stripe.prices.create({"product": product.id, "currency": "usd", "unit_amount": 5})
    await shop.sync()
    shop.stripe.prices.update(price.id, {"active": False})
    shop.stripe.products.update(product.id, {"active": False})
    await shop.sync()
    assert (await catalog.plan(shop.env, DOCUMENT)).stripe == ()
    async with shop.env.reading() as session:
        rows = await session.all(select(inbox.c.state).where(inbox.c.type.in_(("price.updated", "product.updated"))))
    assert {row["state"] for row in rows} == {"ignored"}
