"""What is held beside the base subscription: given by hand, or by another subscription. No change bills or moves it."""

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


def _held(shop: Shop) -> list[tuple[int, int]]:
    """The price and number of every item of every subscription."""
    return sorted(
        (item["price"]["unit_amount"], item["quantity"])
        for subscription in shop.objects("subscription")
        for item in subscription["items"]["data"]
    )
