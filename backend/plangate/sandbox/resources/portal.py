"""Billing portal sessions: a link behind which a person looks after a subscription."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

from .customers import live_customer

Obj = dict[str, Any]


def create_portal_session(world: World, call: Call) -> Obj:
    """`POST /v1/billing_portal/sessions`."""
    p = call.params
    customer = live_customer(world, p.get("customer"), param="customer")
    stripe_id = new_id("bps")
    session = {
        "id": stripe_id,
        "object": "billing_portal.session",
        "configuration": p.get("configuration") or "bpc_sandbox",
        "created": world.now(),
        "customer": customer["id"],
        "flow": p.get("flow_data"),
        "livemode": False,
        "locale": p.get("locale"),
        "return_url": p.get("return_url"),
        "url": f"{world.config.public_url}/p/session/{stripe_id}",
    }
    return view(world, world.add(session))


ROUTES = [
    Route(
        "POST",
        "/v1/billing_portal/sessions",
        "billing_portal.SessionCreateParams",
        create_portal_session,
        "billing_portal.Session",
    )
]
