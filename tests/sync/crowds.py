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
        stripe_customer_id = new_id("cus", 14)
        store.add({**copy.deepcopy(customer), "id": stripe_customer_id, "name": f"Customer {number}"})
        store.add(_twin(subscription, stripe_customer_id))
        names.append(stripe_customer_id)
    return names


def subscribe_again(sandbox: SandboxServer, stripe_customer_id: str) -> str:
    """One more subscription as the customer has one, newer than all others, and told by no event; its id."""
    store = sandbox.app_state.sandbox.world.store
    first = next(one for one in store.all("subscription") if one["customer"] == stripe_customer_id)
    made: str = store.add(_twin(first, stripe_customer_id))["id"]
    return made


def _twin(subscription: Obj, stripe_customer_id: str) -> Obj:
    twin: Obj = {
        **copy.deepcopy(subscription),
        "id": new_id("sub"),
        "customer": stripe_customer_id,
        "latest_invoice": None,
        "default_payment_method": None,
    }
    for item in twin["_items"]:
        item["id"], item["subscription"] = new_id("si"), twin["id"]
    return twin
