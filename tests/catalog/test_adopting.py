"""An account that sells already: its products and prices are drafted as a catalogue, adopted by name, never changed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from plangate import catalog
from plangate.catalog_document import document_value
from plangate.catalog_file import catalog_text, read_catalog
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.mirroring import refetch_customer
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """Our own catalogue, beside products that were made by hand."""
    opened = await Shop.open(connected_environment, sandbox)
    yield opened
    await opened.close()


def made_by_hand(shop: Shop) -> tuple[str, str]:
    """A product with one monthly price; their ids."""
    product = shop.stripe.products.create({"name": "Gold & Silver", "description": "Made by hand"})
    price = shop.stripe.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": 3000, "recurring": {"interval": "month"}}
    )
    return product.id, price.id


def writes(shop: Shop) -> list[str]:
    """What was written about products and prices."""
    return [one["path"] for path in ("/v1/products", "/v1/prices") for one in shop.requests("POST", path)]


async def test_a_drafted_catalogue_round_trips_through_plan_and_adopts_what_it_names(shop: Shop) -> None:
    product, price = made_by_hand(shop)
    yearly = shop.stripe.prices.create(
        {"product": product, "currency": "usd", "unit_amount": 30000, "recurring": {"interval": "year"}}
    )
    second = shop.stripe.prices.create(
        {"product": product, "currency": "usd", "unit_amount": 3500, "recurring": {"interval": "month"}}
    )
    once = shop.stripe.products.create({"name": "A mug"})
    shop.stripe.prices.create({"product": once.id, "currency": "usd", "unit_amount": 900})
    drafted = await catalog.draft_from_stripe(shop.env)
    assert len(drafted.notes) == 2
    assert second.id in drafted.notes[0]
    assert once.id in drafted.notes[1]
    text = catalog_text(drafted.document)
    document = read_catalog(text)
    assert document == drafted.document
    assert document_value(document)["plans"]["gold-silver"] == {
        "name": "Gold & Silver",
        "description": "Made by hand",
        "stripe_product": product,
        "prices": [
            {"currency": "usd", "interval": "month", "amount_minor": 3000, "stripe_price": price},
            {"currency": "usd", "interval": "year", "amount_minor": 30000, "stripe_price": yearly.id},
        ],
    }
    planned = await catalog.plan(shop.env, document)
    assert [(one.kind, one.key, one.action) for one in planned.changes][:1] == [("plan", "gold-silver", "added")]

    before = writes(shop)
    assert (await catalog.apply(shop.env, document, actor=ACTOR)).is_applied
    assert writes(shop) == before
    loaded = await shop.env.catalog()
    plan = loaded.plans["gold-silver"]
    assert (plan.stripe_product_id, [one.stripe_price_id for one in plan.prices]) == (product, [price, yearly.id])
    assert loaded.price_owners[price].key == "gold-silver"
    assert catalog_text(await catalog.current_document(shop.env)) == text
    again = await catalog.draft_from_stripe(shop.env)
    assert again.document == document
    assert (await catalog.plan(shop.env, again.document)).is_empty


async def test_who_subscribed_before_is_on_the_adopted_plan(shop: Shop) -> None:
    _, price = made_by_hand(shop)
    customer = shop.stripe.customers.create({"name": "Globex"})
    shop.new_card(customer.id, "pm_card_visa")
    shop.stripe.subscriptions.create({"customer": customer.id, "items": [{"price": price}]})
    drafted = await catalog.draft_from_stripe(shop.env)
    await catalog.apply(shop.env, drafted.document, actor=ACTOR)
    mirrored = await refetch_customer(shop.env, customer.id)
    assert mirrored is not None
    standing = await shop.env.standings.of(mirrored.company_id)
    assert standing is not None
    plan = standing.snapshot_at(shop.now()).plan
    assert plan is not None
    assert (plan.key, plan.version) == ("gold-silver", 1)


async def test_an_adopted_price_is_left_alone_when_the_catalogue_forgets_it(shop: Shop) -> None:
    product, price = made_by_hand(shop)
    drafted = await catalog.draft_from_stripe(shop.env)
    await catalog.apply(shop.env, drafted.document, actor=ACTOR)
    before = writes(shop)
    await catalog.apply(shop.env, DOCUMENT, actor=ACTOR)
    assert writes(shop) == before
    assert shop.stripe.prices.retrieve(price).active
    assert shop.stripe.products.retrieve(product).name == "Gold & Silver"
    assert (await shop.env.catalog()).plans["gold-silver"].is_archived


async def test_an_adopted_plan_may_get_another_key_and_is_pulled_as_it_is(shop: Shop) -> None:
    _, price = made_by_hand(shop)
    document = document_value((await catalog.draft_from_stripe(shop.env)).document)
    await catalog.apply(shop.env, document, actor=ACTOR)
    document["plans"]["gold"] = document["plans"].pop("gold-silver")
    await catalog.apply(shop.env, document, actor=ACTOR)
    # Whoever pays the price is on the plan that it stands for now.
    assert (await shop.env.catalog()).price_owners[price].key == "gold"
    pulled = read_catalog(catalog_text(await catalog.current_document(shop.env)))
    planned = await catalog.plan(shop.env, pulled)
    assert (planned.is_empty, planned.stripe) == (True, ())
    document["plans"]["gold-silver"] = document["plans"].pop("gold")
    await catalog.apply(shop.env, document, actor=ACTOR)
    assert (await shop.env.catalog()).price_owners[price].key == "gold-silver"
    assert shop.stripe.prices.retrieve(price).active


async def test_a_second_price_is_made_on_the_adopted_product(shop: Shop) -> None:
    product, price = made_by_hand(shop)
    document = document_value((await catalog.draft_from_stripe(shop.env)).document)
    document["plans"]["gold-silver"]["prices"].append({"currency": "eur", "interval": "month", "amount_minor": 2800})
    await catalog.apply(shop.env, document, actor=ACTOR)
    plan = (await shop.env.catalog()).plans["gold-silver"]
    assert plan.prices[0].stripe_price_id == price
    made = shop.stripe.prices.retrieve(plan.prices[1].stripe_price_id or "")
    assert (made.product, made.unit_amount, made.currency) == (product, 2800, "eur")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"stripe_product": "prod_nowhere"}, "/plans/gold-silver/stripe_product"),
        ({"amount_minor": 3100}, "/plans/gold-silver/prices/0/stripe_price"),
        ({"interval": "year"}, "/plans/gold-silver/prices/0/stripe_price"),
        ({"stripe_price": "price_nowhere"}, "/plans/gold-silver/prices/0/stripe_price"),
        ({"stripe_product": None}, "/plans/gold-silver/prices/0/stripe_price"),
    ],
)
async def test_what_stripe_does_not_have_or_says_otherwise_is_not_adopted(
    shop: Shop, change: dict[str, Any], pointer: str
) -> None:
    made_by_hand(shop)
    document = document_value((await catalog.draft_from_stripe(shop.env)).document)
    plan = document["plans"]["gold-silver"]
    for name, value in change.items():
        part = plan if name == "stripe_product" else plan["prices"][0]
        part[name] = value
    with pytest.raises(Refusal) as caught:
        await catalog.apply(shop.env, document, actor=ACTOR)
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert "gold-silver" not in (await shop.env.catalog()).plans


async def test_one_price_stands_for_one_thing(shop: Shop) -> None:
    made_by_hand(shop)
    document = document_value((await catalog.draft_from_stripe(shop.env)).document)
    document["plans"]["twin"] = {**document["plans"]["gold-silver"], "name": "Twin"}
    with pytest.raises(Refusal) as caught:
        await catalog.plan(shop.env, document)
    assert [error.pointer for error in caught.value.errors] == [
        "/plans/twin/stripe_product",
        "/plans/twin/prices/0/stripe_price",
    ]
