"""Prices that others made in Stripe, mapped by hand: seen first, at once for whoever holds them, never for the past."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from plangate import access, catalog
from plangate.catalog import Target
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.shapes import Actor
from plangate.store.audit import audit
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR

ADMIN = Actor(kind="stripe_user", id="usr_admin")
ACME = {"id": "acme"}
PRO = Target(kind="plan", key="pro")


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """A company that subscribes to a price which somebody made in the dashboard."""
    opened = await Shop.open(connected_environment, sandbox)
    yield opened
    await opened.close()


async def _handmade(shop: Shop, *, name: str = "Handmade", amount: int = 1234) -> tuple[str, str]:
    """A product and its price."""
    product = shop.stripe.products.create({"name": name})
    recurring: Any = {"interval": "month"}
    price = shop.stripe.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": amount, "recurring": recurring}
    )
    return product.id, price.id


async def _subscribe(shop: Shop, *prices: str) -> None:
    customer = await shop.customer()
    items: Any = [{"price": price} for price in prices]
    shop.stripe.subscriptions.create({"customer": customer, "items": items})
    await shop.sync()


async def _map(shop: Shop, product: str, target: Target, **changes: str) -> catalog.ProductPage:
    shown = await catalog.product_page(shop.env, product)
    return await catalog.map_product(
        shop.env, product, target=target, mapping=changes.get("mapping", shown.mapping), actor=ADMIN
    )


async def test_s13_a_mapping_is_previewed_counted_versioned_and_audited(shop: Shop) -> None:
    product, price = await _handmade(shop)
    await _subscribe(shop, price)
    assert await shop.plan() == "free"
    shown = await catalog.product_page(shop.env, product, target=PRO)
    assert (shown.name, shown.stands_for, shown.unmapped, shown.companies) == ("Handmade", None, (price,), 1)
    assert {one.key for one in shown.choices} == {"free", "starter", "pro", "extra-exports"}
    assert shown.preview is not None
    assert (shown.preview.companies, shown.preview.examined, shown.preview.moving) == (1, 1, 1)
    assert [(one.before, one.after) for one in shown.preview.moves] == [("Free", "Pro")]
    # A preview moves nobody.
    assert await shop.plan() == "free"
    before = shop.now()
    mapped = await _map(shop, product, PRO)
    assert await shop.plan() == "pro"
    assert mapped.unmapped == ()
    assert mapped.stands_for is not None
    assert (mapped.stands_for.key, mapped.stands_for.version) == ("pro", 1)
    (one,) = mapped.prices
    assert (one.amount_minor, one.companies, one.is_sold_here) == (1234, 1, False)
    between = shop.now()
    await _map(shop, product, Target(kind="plan", key="starter", price=price))
    assert await shop.plan() == "starter"
    limits = [
        (await access.check(shop.env, company=ACME, feature="exports", at=at)).limit for at in (before, between, None)
    ]
    assert limits == [10, 1000, 100]
    async with shop.env.reading() as session:
        rows = await session.all(select(audit).where(audit.c.action == "catalog.product_mapped"))
    assert [(row["subject"], row["actor"]["id"]) for row in rows] == [(product, "usr_admin")] * 2
    assert rows[1]["before"] == {"prices": {price: {"kind": "plan", "key": "pro", "feature": None}}}
    assert rows[1]["after"]["companies"] == 1


async def test_s13_a_price_that_the_file_maps_or_moves_is_in_the_blast_radius(shop: Shop) -> None:
    product, price = await _handmade(shop)
    await _subscribe(shop, price)

    def naming(key: str) -> dict[str, Any]:
        sold: dict[str, Any] = {"currency": "usd", "interval": "month", "amount_minor": 1234}
        plans: dict[str, Any] = {
            name: {
                "name": name.title(),
                "entitlements": {"exports": {"limit": limit, "period": "month"}},
                "prices": [sold | ({"stripe_price": price} if name == key else {})],
                **({"stripe_product": product} if name == key else {}),
            }
            for name, limit in (("gold", 5000), ("silver", 500))
        }
        return {**DOCUMENT, "plans": {**DOCUMENT["plans"], **plans}}

    for key, before in (("gold", "free"), ("silver", "gold")):
        shown = await catalog.plan(shop.env, naming(key))
        assert shown.impact is not None
        assert [(one.plan, one.companies) for one in shown.impact.plans] == [(before, 1)]
        await catalog.apply(shop.env, naming(key), actor=ADMIN)
        assert await shop.plan() == key


async def test_what_was_shown_must_still_hold(shop: Shop) -> None:
    product, price = await _handmade(shop)
    shown = await catalog.product_page(shop.env, product)
    await _map(shop, product, PRO)
    with pytest.raises(Refusal) as refused:
        await _map(shop, product, Target(kind="plan", key="starter", price=price), mapping=shown.mapping)
    assert refused.value.code is Code.CATALOG_STALE
    with pytest.raises(Refusal) as refused:
        await _map(shop, product, PRO)
    assert refused.value.code is Code.NO_CHANGE


async def test_what_the_file_sells_is_mapped_there(shop: Shop) -> None:
    known = await shop.env.catalog()
    sold = known.plans["pro"]
    price, product = sold.prices[0].stripe_price_id, sold.stripe_product_id
    assert price is not None
    assert product is not None
    shown = await catalog.product_page(shop.env, product)
    assert {(one.is_sold_here, one.stands_for is not None and one.stands_for.key) for one in shown.prices} == {
        (True, "pro")
    }
    with pytest.raises(Refusal) as refused:
        await _map(shop, product, Target(kind="plan", key="starter", price=price))
    assert refused.value.code is Code.KEY_CONFLICT


async def test_what_is_mapped_by_hand_is_never_sold(shop: Shop) -> None:
    # The same terms as pro's own price: whoever subscribes from here still gets that one.
    product, price = await _handmade(shop, amount=4900)
    known = await shop.env.catalog()
    sold = [one.stripe_price_id for one in known.plans["pro"].prices]
    await _map(shop, product, PRO)
    after = await shop.env.catalog()
    assert [one.stripe_price_id for one in after.plans["pro"].prices] == sold
    assert after.price_owners[price].key == "pro"
    changed = {**DOCUMENT, "plans": {**DOCUMENT["plans"], "pro": {**DOCUMENT["plans"]["pro"], "name": "Professional"}}}
    await catalog.apply(shop.env, changed, actor=ACTOR)
    assert (await shop.env.catalog()).price_owners[price].key == "pro"
    assert shop.stripe.prices.retrieve(price).active


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (Target(kind="plan", key="nope"), Code.INVALID),
        (Target(kind="add_on", key="pro"), Code.INVALID),
        (Target(kind="plan", key="pro", price="price_of_nobody"), Code.INVALID),
        (Target(kind="plan", key="free", feature="sso"), Code.INVALID),
    ],
)
async def test_a_target_that_does_not_exist_is_refused(shop: Shop, target: Target, code: Code) -> None:
    product, _ = await _handmade(shop)
    with pytest.raises(Refusal) as refused:
        await _map(shop, product, target)
    assert refused.value.code is code


async def test_a_product_of_another_account_does_not_exist(shop: Shop) -> None:
    with pytest.raises(Refusal) as refused:
        await catalog.product_page(shop.env, "prod_of_nobody")
    assert refused.value.code is Code.NOT_FOUND


async def test_a_price_charged_once_stands_for_nothing(shop: Shop) -> None:
    product = shop.stripe.products.create({"name": "Setup"})
    price = shop.stripe.prices.create({"product": product.id, "currency": "usd", "unit_amount": 100})
    shown = await catalog.product_page(shop.env, product.id)
    (one,) = shown.prices
    assert (shown.unmapped, one.fault) == ((), "is charged once")
    with pytest.raises(Refusal) as refused:
        await _map(shop, product.id, Target(kind="plan", key="pro", price=price.id))
    assert "charged once" in refused.value.detail
