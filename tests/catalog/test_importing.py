"""An account that sells in every way is drafted, and what is drafted is adopted without a change in Stripe."""

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from plangate import catalog
from plangate.catalog_document import document_value
from plangate.catalog_file import catalog_text, read_catalog
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.mirroring import refetch
from tests.sandbox_server import SandboxServer
from tests.shop import DOCUMENT, Shop
from tests.world import ACTOR

# What is read from Stripe and written down is the same on every database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """Our own catalogue, beside what was made by hand."""
    opened = await Shop.open(connected_environment, sandbox)
    yield opened
    await opened.close()


class ByHand:
    """Makes what people make in the dashboard."""

    def __init__(self, shop: Shop) -> None:
        self.stripe = shop.stripe
        self.shop = shop

    def product(self, name: str, **metadata: str) -> str:
        return self.stripe.products.create({"name": name, "metadata": metadata}).id

    def price(self, product: str, amount: int | None = None, **said: Any) -> str:  # noqa: ANN401 - as Stripe's
        recurring = said.pop("recurring", {"interval": "month"})
        params: dict[str, Any] = {"product": product, "currency": "usd", "recurring": recurring, **said}
        if amount is not None:
            params["unit_amount"] = amount
        return self.stripe.prices.create(params).id  # type: ignore[arg-type]  # built up

    def meter(self, event_name: str, formula: Literal["sum", "count"] = "sum") -> str:
        made = self.stripe.billing.meters.create(
            {"display_name": event_name.title(), "event_name": event_name, "default_aggregation": {"formula": formula}}
        )
        return made.id

    def metered(self, product: str, meter: str, **said: Any) -> str:  # noqa: ANN401 - as Stripe's
        return self.price(product, recurring={"interval": "month", "usage_type": "metered", "meter": meter}, **said)

    def subscription(self, *prices: str) -> None:
        customer = self.stripe.customers.create({"name": "Somebody"}).id
        self.shop.new_card(customer, "pm_card_visa")
        self.stripe.subscriptions.create({"customer": customer, "items": [{"price": price} for price in prices]})


TIERS = [{"up_to": 10, "unit_amount": 500, "flat_amount": 100}, {"up_to": "inf", "unit_amount_decimal": "0.25"}]


async def test_every_form_is_drafted_and_adopted_without_a_change(shop: Shop) -> None:
    hand = ByHand(shop)
    tokens = hand.meter("tokens")
    hand.meter("logins")
    gold = hand.product("Gold")
    base = hand.price(gold, 3000)
    used = hand.metered(gold, tokens, billing_scheme="tiered", tiers_mode="graduated", tiers=TIERS)
    team = hand.price(hand.product("Team"), billing_scheme="tiered", tiers_mode="volume", tiers=TIERS)
    packed = hand.price(hand.product("Packs"), 250, transform_quantity={"divide_by": 100, "round": "down"})
    dust = hand.price(hand.product("Dust"), unit_amount_decimal="0.0625")
    drafted = await catalog.draft_from_stripe(shop.env)
    assert drafted.notes == ()
    value = document_value(drafted.document)
    assert value["features"]["tokens"] == {
        "name": "Tokens",
        "type": "event",
        "stripe_meter": "tokens",
        "usage_source": "stripe_meter",
    }
    assert value["features"]["logins"]["stripe_meter"] == "logins"
    tiers = [
        {"up_to": 10, "amount_minor": 500, "flat_amount_minor": 100},
        {"up_to": None, "amount_decimal": "0.25"},
    ]
    assert value["plans"]["gold"] == {
        "name": "Gold",
        "stripe_product": gold,
        "entitlements": {
            "tokens": {
                "price_behaviour": "tiers",
                "prices": [
                    {
                        "currency": "usd",
                        "interval": "month",
                        "tiers_mode": "graduated",
                        "tiers": tiers,
                        "stripe_price": used,
                    }
                ],
            }
        },
        "prices": [{"currency": "usd", "interval": "month", "amount_minor": 3000, "stripe_price": base}],
    }
    sold = {key: plan["prices"][0] for key, plan in value["plans"].items() if "prices" in plan}
    assert (sold["team"]["tiers_mode"], sold["team"]["tiers"], sold["team"]["stripe_price"]) == ("volume", tiers, team)
    assert (sold["packs"]["package"], sold["packs"]["amount_minor"]) == ({"size": 100, "round": "down"}, 250)
    assert (sold["dust"]["amount_decimal"], sold["dust"]["stripe_price"]) == ("0.0625", dust)
    document = read_catalog(catalog_text(drafted.document))
    assert document == drafted.document

    planned = await catalog.plan(shop.env, document)
    assert {call.action for call in planned.stripe} == {"adopt"}
    before = len(shop.requests("POST"))
    await catalog.apply(shop.env, document, actor=ACTOR)
    assert len(shop.requests("POST")) == before
    owners = (await shop.env.catalog()).price_owners
    assert {owners[one].key for one in (base, used, team, packed, dust)} == {"gold", "team", "packs", "dust"}
    assert (owners[used].feature, owners[base].feature) == ("tokens", None)
    assert (await catalog.plan(shop.env, (await catalog.draft_from_stripe(shop.env)).document)).is_empty


async def test_products_that_stand_beside_others_are_add_ons(shop: Shop) -> None:
    hand = ByHand(shop)
    gold = hand.price(hand.product("Gold"), 3000)
    silver = hand.price(hand.product("Silver"), 1000)
    support = hand.price(hand.product("Support"), 9000)
    tokens = hand.metered(hand.product("Tokens"), hand.meter("tokens"), unit_amount=2)
    hand.price(hand.product("Storage", kind="add-on"), 100)
    hand.subscription(gold)
    hand.subscription(gold, support)
    hand.subscription(silver, support)
    hand.subscription(silver, tokens)
    hand.subscription(silver)
    drafted = await catalog.draft_from_stripe(shop.env)
    value = document_value(drafted.document)
    assert set(value["plans"]) - set(DOCUMENT["plans"]) == {"gold", "silver"}
    assert set(value["add_ons"]) - set(DOCUMENT["add_ons"]) == {"support", "tokens", "storage"}
    assert value["add_ons"]["tokens"] == {
        "name": "Tokens",
        "entitlements": {
            "tokens": {
                "price_behaviour": "pay_as_you_go",
                "prices": [{"currency": "usd", "interval": "month", "amount_minor": 2, "stripe_price": tokens}],
            }
        },
    }
    said = " ".join(drafted.notes)
    assert said.count("drafted as an add-on") == 3
    assert "because it says so" in said
    await catalog.apply(shop.env, drafted.document, actor=ACTOR)


async def test_what_is_left_out_is_told_with_its_reason(shop: Shop) -> None:
    hand = ByHand(shop)
    counted, summed = hand.meter("logins", "count"), hand.meter("tokens")
    gold = hand.product("Gold")
    hand.price(gold, 3000)
    yearly = hand.price(gold, 30000, recurring={"interval": "year"})
    one = hand.metered(gold, counted, unit_amount=1)
    two = hand.metered(gold, summed, unit_amount=1)
    odd = hand.price(
        gold,
        currency="eur",
        billing_scheme="tiered",
        tiers_mode="volume",
        tiers=[{"up_to": "inf", "flat_amount_decimal": "0.5"}],
    )
    both = hand.price(hand.product("Silver"), 900, currency_options={"eur": {"unit_amount": 800}})
    drafted = await catalog.draft_from_stripe(shop.env)
    plan = document_value(drafted.document)["plans"]["gold"]
    assert "entitlements" not in plan
    assert [price["stripe_price"] for price in plan["prices"]][1] == yearly
    said = "\n".join(drafted.notes)
    assert "The meter logins is left out: its aggregation is count, not sum." in said
    assert f"{one} of Gold" in said
    assert f"{two} of Gold is left out: what is used must be charged" in said
    assert f"{both} of Silver also sells in eur: a price here is in one currency, and is drafted in usd." in said
    assert f"{odd} of Gold has a tier whose flat amount is not whole" in said


async def test_odd_names_are_drafted_and_prices_off_sale_that_are_still_paid_are_told(shop: Shop) -> None:
    hand = ByHand(shop)
    shop.stripe.billing.meters.create(
        {"display_name": " ", "event_name": "tokens used", "default_aggregation": {"formula": "sum"}}
    )
    for name in ("日本", "  Gold\n\x1b[31m", "GOLD", "x" * 250):
        hand.price(hand.product(name), 100, recurring={"interval": "day", "interval_count": 90})
    legacy = hand.product("Legacy")
    old = hand.price(legacy, 900)
    hand.subscription(old)
    hand.price(legacy, 1900)
    shop.stripe.prices.update(old, {"active": False})
    drafted = await catalog.draft_from_stripe(shop.env)
    document = read_catalog(catalog_text(drafted.document))
    assert document == drafted.document
    assert document.features["tokens-used"].stripe_meter == "tokens used"
    added = [key for key in document.plans if key not in DOCUMENT["plans"]]
    assert added[0].startswith("prod-")
    assert added[1:] == ["gold-31m", "gold", "x" * 60, "legacy"]
    assert document.plans["gold"].prices[0].interval_count == 90
    (note,) = drafted.notes
    assert note.startswith(f"{old} is archived in Stripe, so it is left out, but 1 subscription holds it")
    await catalog.apply(shop.env, document, actor=ACTOR)
    assert not (await shop.env.catalog()).owner_of(old, shop.company_id)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tiers_mode": "volume"}, "says something else: graduated tiers"),
        ({"tiers": [{"up_to": None, "amount_minor": 1}]}, "says something else: graduated tiers"),
        ({"tiers_mode": None, "tiers": [], "amount_minor": 500}, None),
        ({"stripe_price": "price_nowhere"}, "Stripe has no active price"),
    ],
)
async def test_tiers_that_stripe_says_otherwise_are_not_adopted(
    shop: Shop, change: dict[str, Any], said: str | None
) -> None:
    hand = ByHand(shop)
    gold = hand.product("Gold")
    hand.price(gold, 3000)
    hand.metered(gold, hand.meter("tokens"), billing_scheme="tiered", tiers_mode="graduated", tiers=TIERS)
    document = document_value((await catalog.draft_from_stripe(shop.env)).document)
    document["plans"]["gold"]["entitlements"]["tokens"]["prices"][0] |= change
    with pytest.raises(Refusal) as caught:
        await catalog.apply(shop.env, document, actor=ACTOR)
    place = "" if said is None else "/stripe_price"
    assert [error.pointer for error in caught.value.errors] == [f"/plans/gold/entitlements/tokens/prices/0{place}"]
    assert (said or "needs `tiers`") in caught.value.detail


async def test_a_price_that_is_no_longer_named_is_made_anew_and_left_alone(shop: Shop) -> None:
    hand = ByHand(shop)
    theirs = hand.price(hand.product("Gold"), 3000)
    document = document_value((await catalog.draft_from_stripe(shop.env)).document)
    await catalog.apply(shop.env, document, actor=ACTOR)
    del document["plans"]["gold"]["stripe_product"]
    del document["plans"]["gold"]["prices"][0]["stripe_price"]
    await catalog.apply(shop.env, document, actor=ACTOR)
    (price,) = (await shop.env.catalog()).plans["gold"].prices
    assert price.stripe_price_id not in {theirs, None}
    assert shop.stripe.prices.retrieve(theirs).active
    customer = await shop.customer()
    ours = price.stripe_price_id or ""
    held = shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": ours}]})
    await refetch(shop.env, shop.company_id)
    document["plans"]["gold"]["stripe_product"] = shop.stripe.prices.retrieve(theirs).product
    document["plans"]["gold"]["prices"][0]["stripe_price"] = theirs
    await catalog.apply(shop.env, document, actor=ACTOR)
    assert (await shop.env.catalog()).plans["gold"].prices[0].stripe_price_id == theirs
    assert shop.stripe.prices.retrieve(ours).active
    shop.stripe.subscriptions.cancel(held.id)
    await refetch(shop.env, shop.company_id)
    assert await catalog.tidy_shelf(shop.env) == 1
    assert not shop.stripe.prices.retrieve(ours).active
