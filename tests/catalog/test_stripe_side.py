"""What the catalogue makes in Stripe: every form of price, its product and meter, once each whatever goes wrong."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Literal

import pytest
from sqlalchemy import update

from plangate import catalog
from plangate.clock import wall_now
from plangate.environment import Environment
from plangate.errors import Refusal
from plangate.mirroring import refetch
from plangate.store.leases import leases
from tests.catalog.pricing import STEPS, monthly, priced
from tests.plan_changes.scenarios import Died, Process
from tests.sandbox_server import SandboxServer
from tests.shop import Shop
from tests.world import ACTOR


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    """A shop that charges in every way."""
    opened = await Shop.open(connected_environment, sandbox, priced())
    yield opened
    await opened.close()


def on_sale(shop: Shop) -> dict[str, dict[str, Any]]:
    """Every active price in Stripe, by the name of its product."""
    products = {one["id"]: one["name"] for one in shop.objects("product")}
    return {products[one["product"]]: one for one in shop.objects("price") if one["active"]}


def asked(shop: Shop) -> int:
    """How many calls there were so far."""
    return len(shop.sandbox.control("GET", "requests")["data"])


async def test_every_form_of_price_is_made_as_it_is_written(shop: Shop) -> None:
    prices = on_sale(shop)
    meters = {one["event_name"]: one for one in shop.objects("billing.meter")}
    assert meters.keys() == {"plangate_exports", "plangate_messages", "plangate_overage_calls"}
    assert {one["default_aggregation"]["formula"] for one in meters.values()} == {"sum"}
    assert {one["customer_mapping"]["event_payload_key"] for one in meters.values()} == {"stripe_customer_id"}
    pro = prices["Pro"]
    assert (pro["unit_amount"], pro["recurring"]["usage_type"], pro["lookup_key"]) == (
        4900,
        "licensed",
        "plangate_plan_pro_usd_1_month_4900",
    )
    assert (prices["Pro: Seats"]["unit_amount"], prices["Pro: Seats"]["recurring"]["usage_type"]) == (900, "licensed")
    exports = prices["Pro: Exports"]
    assert (exports["unit_amount"], exports["unit_amount_decimal"]) == (None, "0.5")
    assert exports["recurring"]["usage_type"] == "metered"
    assert exports["recurring"]["meter"] == meters["plangate_exports"]["id"]
    messages = shop.stripe.prices.retrieve(prices["Pro: Messages"]["id"], {"expand": ["tiers"]})
    assert (messages.billing_scheme, messages.tiers_mode) == ("tiered", "graduated")
    assert [(one.up_to, str(one.unit_amount_decimal), one.flat_amount) for one in messages.tiers or []] == [
        (1000, "0", 500),
        (None, "0.25", None),
    ]
    calls = prices["Pro: API calls"]
    assert (calls["unit_amount"], calls["transform_quantity"]) == (200, {"divide_by": 1000, "round": "up"})
    assert calls["recurring"]["meter"] == meters["plangate_overage_calls"]["id"]
    assert calls["metadata"] == {"plangate_plan": "pro", "plangate_version": "1", "plangate_feature": "calls"}
    assert prices["Storage"]["transform_quantity"] == {"divide_by": 10, "round": "down"}
    team = [one for one in shop.objects("price") if one["product"] == "plangate_plan_team"]
    assert {(one["currency"], one["tiers_mode"]) for one in team} == {("usd", "volume"), ("eur", None)}
    products = {one["name"]: one for one in shop.objects("product")}
    assert products["Pro"]["description"] == "For companies."
    assert products["Pro: API calls"]["description"] == "Calls to our API."
    assert "Free" not in products

    compiled = await shop.env.catalog()
    owners = {(one.kind, one.key, one.feature): one.price for one in compiled.price_owners.values()}
    by_feature = {one.feature: one for one in compiled.plans["pro"].entitlements}
    for feature in ("seats", "exports", "messages", "calls"):
        (price,) = by_feature[feature].prices
        assert price.stripe_price_id is not None
        assert owners["plan", "pro", feature] == price
    assert compiled.features["exports"].stripe_meter == "plangate_exports"
    assert compiled.features["calls"].stripe_meter is None


async def test_a_plan_shows_the_calls_and_makes_none(
    connected_environment: Environment, sandbox: SandboxServer
) -> None:
    planned = await catalog.plan(connected_environment, priced())
    assert sandbox.control("GET", "requests")["data"] == []
    kinds = [call.kind for call in planned.stripe]
    assert (kinds.count("product"), kinds.count("meter"), kinds.count("price")) == (7, 3, 8)
    assert kinds == sorted(kinds, key=["product", "meter", "price"].index)
    assert {call.action for call in planned.stripe} == {"create"}
    applied = await catalog.apply(connected_environment, priced(), actor=ACTOR)
    assert applied.stripe == planned.stripe
    writes = [one for one in sandbox.control("GET", "requests")["data"] if one["method"] == "POST"]
    assert len(writes) == len(planned.stripe)


async def test_applying_again_makes_no_call(shop: Shop) -> None:
    before = asked(shop)
    again = await catalog.plan(shop.env, priced())
    assert (again.is_empty, again.stripe) == (True, ())
    assert not (await catalog.apply(shop.env, priced(), actor=ACTOR)).is_applied
    pulled = await catalog.current_document(shop.env)
    assert not (await catalog.apply(shop.env, pulled, actor=ACTOR)).is_applied
    assert asked(shop) == before


async def test_names_and_descriptions_follow_on_our_products_alone(shop: Shop) -> None:
    by_hand = shop.stripe.products.create({"name": "Gold"})
    document = priced()
    document["plans"]["gold"] = {
        "name": "Gold",
        "stripe_product": by_hand.id,
        "prices": [monthly(amount_minor=1)],
    }
    await catalog.apply(shop.env, document, actor=ACTOR)
    document["plans"]["pro"] |= {"name": "Professional", "description": ""}
    document["plans"]["gold"]["name"] = "Golden"
    document["features"]["calls"]["name"] = "Calls"
    planned = await catalog.plan(shop.env, document)
    assert [(call.action, call.kind, call.name) for call in planned.stripe] == [
        ("update", "product", "Professional"),
        ("update", "product", "Professional: Exports"),
        ("update", "product", "Professional: Messages"),
        ("update", "product", "Professional: Calls"),
        ("update", "product", "Professional: Seats"),
        ("update", "meter", "Calls: overage"),
    ]
    await catalog.apply(shop.env, document, actor=ACTOR)
    product = shop.stripe.products.retrieve("plangate_plan_pro")
    assert (product.name, product.description) == ("Professional", None)
    assert shop.stripe.products.retrieve(by_hand.id).name == "Gold"
    assert "Calls: overage" in {one["display_name"] for one in shop.objects("billing.meter")}


async def test_changed_terms_are_a_new_price_and_the_old_one_leaves_when_nobody_holds_it(shop: Shop) -> None:
    old = on_sale(shop)["Pro: Messages"]["id"]
    pro, customer = on_sale(shop)["Pro"]["id"], await shop.customer()
    held = shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": pro}, {"price": old}]})
    await refetch(shop.env, shop.company_id)
    document = priced()
    document["plans"]["pro"]["entitlements"]["messages"]["prices"] = [
        monthly(tiers_mode="graduated", tiers=[{**STEPS[0], "flat_amount_minor": 0}, STEPS[1]])
    ]
    planned = await catalog.plan(shop.env, document)
    assert [(call.action, call.kind) for call in planned.stripe] == [("create", "price")]
    await catalog.apply(shop.env, document, actor=ACTOR)
    then = shop.now()
    assert shop.stripe.prices.retrieve(old).active
    assert (await shop.env.catalog()).price_owners[old].feature == "messages"
    shop.stripe.subscriptions.cancel(held.id)
    await refetch(shop.env, shop.company_id)
    waiting = await catalog.plan(shop.env, document)
    assert [(call.action, call.key) for call in waiting.stripe] == [("archive", old)]
    assert waiting.is_empty
    assert await catalog.tidy_shelf(shop.env) == 1
    assert not shop.stripe.prices.retrieve(old).active
    # Going back puts the same price on sale again.
    back = await catalog.apply(shop.env, priced(), actor=ACTOR)
    assert ("restore", "price") in {(call.action, call.kind) for call in back.stripe}
    assert shop.stripe.prices.retrieve(old).active
    async with shop.env.reading() as session:
        assert (await shop.env.catalog_in(session, at=then)).price_owners[old].feature == "messages"
    assert (
        len([one for one in shop.objects("price") if one["product"] == on_sale(shop)["Pro: Messages"]["product"]]) == 2
    )


async def test_all_prices_of_a_version_that_somebody_keeps_stay_on_sale(shop: Shop) -> None:
    before = on_sale(shop)
    customer = await shop.customer()
    held = shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": before["Pro"]["id"]}]})
    await refetch(shop.env, shop.company_id)
    document = priced()
    document["plans"]["pro"]["entitlements"]["seats"]["prices"] = [monthly(amount_minor=1200)]
    await catalog.apply(shop.env, document, actor=ACTOR, migrate={"": "none"})
    # Whoever keeps the version may still buy seats at its price.
    assert shop.stripe.prices.retrieve(before["Pro: Seats"]["id"]).active
    shop.stripe.subscriptions.cancel(held.id)
    await refetch(shop.env, shop.company_id)
    assert await catalog.tidy_shelf(shop.env) == 1
    assert not shop.stripe.prices.retrieve(before["Pro: Seats"]["id"]).active
    assert shop.stripe.prices.retrieve(before["Pro"]["id"]).active


@pytest.mark.parametrize(
    ("formula", "feature", "said"),
    [
        ("count", {}, "cannot bill this: its aggregation is count"),
        ("count", {"stripe_meter": "theirs"}, "cannot bill this: its aggregation is count"),
        (
            "sum",
            {"stripe_meter": "nowhere", "usage_source": "stripe_meter"},
            "no active meter with the event name nowhere",
        ),
    ],
)
async def test_a_meter_that_says_something_else_is_refused(
    shop: Shop, formula: Literal["count", "sum"], feature: dict[str, Any], said: str
) -> None:
    for event_name in ("plangate_uploads", "theirs"):
        shop.stripe.billing.meters.create(
            {"display_name": "M", "event_name": event_name, "default_aggregation": {"formula": formula}}
        )
    document = priced()
    document["features"]["uploads"] = {"name": "Uploads", "type": "event", **feature}
    document["plans"]["team"]["entitlements"] = {
        "uploads": {
            "price_behaviour": "pay_as_you_go",
            "prices": [monthly(amount_minor=1), {"currency": "eur", "interval": "year", "amount_minor": 1}],
        }
    }
    with pytest.raises(Refusal) as caught:
        await catalog.apply(shop.env, document, actor=ACTOR)
    assert [error.pointer for error in caught.value.errors] == ["/features/uploads/stripe_meter"]
    assert said in caught.value.detail
    assert "uploads" not in (await shop.env.catalog()).features


async def test_a_meter_that_is_named_is_adopted_and_ours_is_found_again(shop: Shop) -> None:
    theirs = shop.stripe.billing.meters.create(
        {"display_name": "Theirs", "event_name": "theirs", "default_aggregation": {"formula": "sum"}}
    )
    document = priced()
    document["features"]["uploads"] = {
        "name": "Uploads",
        "type": "event",
        "stripe_meter": "theirs",
        "usage_source": "stripe_meter",
    }
    document["plans"]["pro"]["entitlements"]["uploads"] = {
        "price_behaviour": "pay_as_you_go",
        "prices": [monthly(amount_minor=1)],
    }
    planned = await catalog.plan(shop.env, document)
    assert ("adopt", "meter", "theirs") in {(call.action, call.kind, call.key) for call in planned.stripe}
    await catalog.apply(shop.env, document, actor=ACTOR)
    assert on_sale(shop)["Pro: Uploads"]["recurring"]["meter"] == theirs.id
    assert shop.stripe.billing.meters.retrieve(theirs.id).display_name == "Theirs"
    document["features"]["uploads"]["stripe_meter"] = "another"
    with pytest.raises(Refusal) as caught:
        await catalog.plan(shop.env, document)
    assert [error.pointer for error in caught.value.errors] == ["/features/uploads/stripe_meter"]


async def test_a_product_of_our_name_that_others_made_is_not_taken(shop: Shop) -> None:
    shop.stripe.products.create({"id": "plangate_plan_gold", "name": "Not ours"})
    document = priced()
    document["plans"]["gold"] = {"name": "Gold", "prices": [monthly(amount_minor=1)]}
    with pytest.raises(Refusal) as caught:
        await catalog.apply(shop.env, document, actor=ACTOR)
    assert [error.pointer for error in caught.value.errors] == ["/plans/gold/stripe_product"]
    assert shop.stripe.products.retrieve("plangate_plan_gold").name == "Not ours"


def numbered(number: int) -> dict[str, Any]:
    """A document with one plan that charges for one feature, each with keys of its own."""
    return {
        "version": 1,
        "features": {f"f{number}": {"name": f"F{number}", "type": "event"}},
        "plans": {
            f"p{number}": {
                "name": f"P{number}",
                "entitlements": {
                    f"f{number}": {"price_behaviour": "pay_as_you_go", "prices": [monthly(amount_decimal="0.1")]}
                },
                "prices": [monthly(amount_minor=100)],
            }
        },
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_death_at_any_call_or_commit_leaves_one_of_each(
    connected_environment: Environment, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each document also archives the prices of the one before, so those calls die too."""
    shop = await Shop.open(connected_environment, sandbox, numbered(0))
    process = Process(shop.env, monkeypatch)
    process.start(dies_at=None)
    await catalog.apply(shop.env, numbered(1), actor=ACTOR)
    total = process.points
    assert total > 30
    # Between a commit and the next call nothing happens, so of two neighbouring points one is enough.
    for number, death in enumerate(range(1, total + 1, 2), start=2):
        process.start(dies_at=death)
        with pytest.raises(Died):
            await catalog.apply(shop.env, numbered(number), actor=ACTOR)
        process.start(dies_at=None)
        await over(shop)
        await catalog.apply(shop.env, numbered(number), actor=ACTOR)
        mine = {one["id"]: one["name"] for one in shop.objects("product") if one["name"].startswith(f"P{number}")}
        assert sorted(mine.values()) == [f"P{number}", f"P{number}: F{number}"], death
        active = [one for one in shop.objects("price") if one["active"]]
        assert sorted(mine[one["product"]] for one in active) == sorted(mine.values()), death
        assert len(shop.objects("price")) == 2 * (number + 1), death
        assert len(shop.objects("billing.meter")) == number + 1, death
        plan = (await shop.env.catalog()).plans[f"p{number}"]
        sold = {price.stripe_price_id for price in (*plan.prices, *plan.entitlements[0].prices)}
        assert sold == {one["id"] for one in active}, death
    before, number = asked(shop), len(shop.objects("billing.meter")) - 1
    assert not (await catalog.apply(shop.env, numbered(number), actor=ACTOR)).is_applied
    assert asked(shop) == before
    await shop.close()


async def over(shop: Shop) -> None:
    """The dead process' lease is over."""
    past = wall_now() - timedelta(seconds=1)
    async with shop.env.writing() as session:
        await session.run(update(leases).values(expires_at=past))
    shop.env.forget("")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("path", ["/v1/products", "/v1/billing/meters", "/v1/prices"])
async def test_a_call_that_fails_before_or_after_it_applied_is_made_once(
    connected_environment: Environment, sandbox: SandboxServer, path: str, when: str
) -> None:
    fault = {"fault": "fail_call", "when": when, "method": "POST", "path": path, "count": None, "status": 500}
    sandbox.control("POST", "/_sandbox/faults", fault)
    with pytest.raises(Refusal) as caught:
        await catalog.apply(connected_environment, priced(), actor=ACTOR)
    assert caught.value.status == 503
    assert (await catalog.current_revision(connected_environment))[0] == 0
    sandbox.control("DELETE", "/_sandbox/faults")
    assert (await catalog.apply(connected_environment, priced(), actor=ACTOR)).revision == 1
    objects = sandbox.control("GET", "/_sandbox/state")["objects"]
    assert [len(objects[kind]) for kind in ("product", "billing.meter", "price")] == [7, 3, 8]
    assert (await catalog.plan(connected_environment, priced())).stripe == ()
