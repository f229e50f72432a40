"""What is held beside the base subscription: given by hand, or by another subscription. No change bills or moves it."""

from typing import Any

from plangate import catalog, companies, plan_changes
from plangate.shapes import ChangeState
from tests.shop import DOCUMENT, STAFF, Shop


async def test_an_add_on_given_by_hand_is_not_bought_by_another_change(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    await companies.upsert(
        shop.env, keys={"id": "acme"}, assigned=companies.Assigned(add_ons={"extra-exports": 2}), actor=STAFF
    )
    quote = await shop.preview(interval="year")
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.lost, quote.ends) == (47_000, (), ())
    await shop.confirm(quote)
    assert _held(shop) == [(47_000, 1)]
    assert [(one.key, one.quantity) for one in (await shop.snapshot()).add_ons] == [("extra-exports", 2)]
    # One more is bought beside those given.
    assert (await shop.change(add_ons={"extra-exports": 1})).state is ChangeState.APPLIED
    assert _held(shop) == [(4_800, 1), (47_000, 1)]
    assert [one.quantity for one in (await shop.snapshot()).add_ons] == [3]


async def test_a_change_is_of_the_base_subscription_alone(shop: Shop) -> None:
    """The customer has two by accident (S26): what the other one holds is neither doubled nor moved over."""
    first = await shop.subscribed(plan="pro")
    sold = await shop.env.catalog()
    prices = [one.prices[0].stripe_price_id for one in (sold.plans["pro"], sold.add_ons["extra-exports"])]
    (customer,) = shop.objects("customer")
    shop.stripe.subscriptions.create({"customer": customer["id"], "items": [{"price": one or ""} for one in prices]})
    await shop.sync()
    quote = await shop.preview(interval="year")
    assert quote.next_invoice is not None
    base = (await shop.snapshot()).subscription
    assert base is not None
    moved, stays = [(47_000, 1)], [(500, 1), (4_900, 1)]
    if base.stripe_subscription_id != first:
        moved, stays = [(4_800, 1), (47_000, 1)], [(4_900, 1)]
    assert (quote.next_invoice.amount_minor, quote.lost) == (sum(amount for amount, _ in moved), ())
    await shop.confirm(quote)
    assert _held(shop) == sorted([*moved, *stays])


async def test_another_products_subscription_is_neither_changed_nor_ended_with_a_plan_of_ours(shop: Shop) -> None:
    await shop.customer()
    others = _of_another_product(shop)
    await shop.sync()
    assert (await companies.get(shop.env, shop.company_id)).subscription is None
    quote = await shop.preview(plan="pro", interval="year")
    assert quote.due_today.amount_minor == 47_000
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert _held(shop) == [(700, 1), (47_000, 1)]
    # Ours is the base from then on.
    snapshot = await shop.snapshot()
    assert snapshot.subscription is not None
    assert snapshot.subscription.stripe_subscription_id != others
    assert [one.code for one in snapshot.notices] == ["unmapped_price"]
    quote = await shop.preview(cancel="now")
    assert quote.credit is not None
    assert quote.credit.amount_minor == 47_000
    await shop.confirm(quote)
    assert shop.stripe.subscriptions.retrieve(others).status == "active"
    running = [one["id"] for one in shop.objects("subscription") if one["ended_at"] is None]
    assert running == [others]


async def test_a_page_stays_open_beside_another_products_subscription(shop: Shop) -> None:
    change = await shop.change(plan="pro")
    shop.advance("PT2M")
    (customer,) = shop.objects("customer")
    shop.new_card(customer["id"], "pm_card_visa")
    _of_another_product(shop)
    await shop.sync()
    await plan_changes.settle_pending(shop.env, shop.company_id)
    found = await plan_changes.get(shop.env, shop.company_id, change.id)
    assert (found.state, found.next_action) == (ChangeState.AWAITING_PAYMENT, change.next_action)
    assert [one["status"] for one in shop.objects("checkout.session")] == ["open"]


async def test_a_bulk_move_of_prices_buys_nothing_that_is_held_beside(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    await companies.upsert(
        shop.env, keys={"id": "acme"}, assigned=companies.Assigned(add_ons={"extra-exports": 2}), actor=STAFF
    )
    pro = {**DOCUMENT["plans"]["pro"], "prices": [{"currency": "usd", "interval": "month", "amount_minor": 5_900}]}
    dearer = {**DOCUMENT, "plans": {**DOCUMENT["plans"], "pro": pro}}
    await catalog.apply(shop.env, dearer, actor=STAFF, proration="charge_now")
    while await catalog.carry_on_migrations(shop.env) or await plan_changes.carry_on_repricing(shop.env):
        pass
    assert _held(shop) == [(5_900, 1)]


def _of_another_product(shop: Shop) -> str:
    """A subscription of the same customer to something that no catalogue of ours names; answers its id."""
    (customer,) = shop.objects("customer")
    product = shop.stripe.products.create({"name": "Another product"})
    recurring: Any = {"interval": "month"}
    price = shop.stripe.prices.create(
        {"product": product.id, "currency": "usd", "unit_amount": 700, "recurring": recurring}
    )
    return shop.stripe.subscriptions.create({"customer": customer["id"], "items": [{"price": price.id}]}).id


def _held(shop: Shop) -> list[tuple[int, int]]:
    """The price and number of every item of every subscription."""
    return sorted(
        (item["price"]["unit_amount"], item["quantity"])
        for subscription in shop.objects("subscription")
        for item in subscription["items"]["data"]
    )
