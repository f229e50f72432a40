"""Many customers of the sandbox at once: one is made through its API, the rest are copies put into its world."""

import copy
from typing import Any

from stripe import V1Services

from plangate.sandbox.state import new_id
from tests.sandbox_server import SandboxServer
from tests.shop import Shop

Obj = dict[str, Any]


def grow(shop: Shop, count: int, *, price: str) -> list[str]:
    """Customers with one paid subscription each to `price`; their ids. No events are told of the copies."""
    return grow_in(shop.stripe, shop.sandbox, count, price=price)


def grow_in(stripe: V1Services, sandbox: SandboxServer, count: int, *, price: str) -> list[str]:
    """The same without a shop."""
    first = stripe.customers.create({"name": "Customer 1"}).id
    stripe.payment_methods.attach("pm_card_visa", {"customer": first})
    card = stripe.customers.payment_methods.list(first).data[0].id
    stripe.customers.update(first, {"invoice_settings": {"default_payment_method": card}})
    made = stripe.subscriptions.create({"customer": first, "items": [{"price": price}]}).id
    store = sandbox.app_state.sandbox.world.store
    customer, subscription = store.get("customer", first), store.get("subscription", made)
    names = [first]
    for number in range(2, count + 1):
        stripe_customer_id, stripe_subscription_id = new_id("cus", 14), new_id("sub")
        store.add({**copy.deepcopy(customer), "id": stripe_customer_id, "name": f"Customer {number}"})
        twin: Obj = {
            **copy.deepcopy(subscription),
            "id": stripe_subscription_id,
            "customer": stripe_customer_id,
            "latest_invoice": None,
            "default_payment_method": None,
        }
        for item in twin["_items"]:
            item["id"], item["subscription"] = new_id("si"), stripe_subscription_id
        store.add(twin)
        names.append(stripe_customer_id)
    return names
