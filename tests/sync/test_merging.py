"""Companies that pay through Stripe: merged, or linked to a customer, they have at once what was bought."""

from plangate import companies
from plangate.engine.model import PlanSource
from plangate.mirroring import refetch
from plangate.shapes import Actor
from plangate.web.stripe_app_actions import Asked, LinkPayload, company_link
from tests.shop import Shop, new_company
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


async def test_a_linked_customer_is_fetched_at_once(shop: Shop) -> None:
    customer = await _buy(shop)
    company_id = await new_company(shop.env, "other")
    payload = LinkPayload(
        user_id="usr_1", account_id="acct_1", mode="test", customer=customer, operation_id="op_1", company=company_id
    )
    linked = await company_link(Asked(shop.env, "admin", Actor(kind="stripe_user", id="usr_1"), payload))
    assert linked.plan is not None
    assert (linked.id, linked.plan.key, linked.plan.source) == (company_id, "pro", PlanSource.SUBSCRIPTION)
