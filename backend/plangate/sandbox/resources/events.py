"""The list of events, and the endpoints they are delivered to."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.clock import DAY
from plangate.sandbox.config import API_VERSION
from plangate.sandbox.errors import invalid
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

Obj = dict[str, Any]

EVENT_MEMORY_SECONDS = 30 * DAY


def retrieve_event(world: World, call: Call) -> Obj:
    """`GET /v1/events/{id}`: for thirty days."""
    return view(world, world.require("event", call.ids[0]))


def list_events(world: World, call: Call) -> Obj:
    """`GET /v1/events`: `delivery_success=false` finds those that reached not every endpoint."""
    p = call.params
    if p.get("type") and p.get("types"):
        raise invalid("You may only specify one of these parameters: type, types.", param="types")
    types = p.get("types") or ([p["type"]] if p.get("type") else None)
    success = p.get("delivery_success")
    oldest = world.now() - EVENT_MEMORY_SECONDS
    rows = [
        e
        for e in newest_first(world, "event")
        if e["created"] >= oldest
        and (types is None or any(_matches(e["type"], wanted) for wanted in types))
        and in_range(e["created"], p.get("created"))
        and (success is None or success == is_delivered(e))
    ]
    return page(world, call, rows)


def is_delivered(event: Obj) -> bool:
    """Whether every endpoint that wanted an event has answered for it."""
    return all(state == "delivered" for state in event["_deliveries"].values())


def wanted_by(endpoint: Obj, event_type: str) -> bool:
    """Whether an endpoint listens for a type."""
    return endpoint["status"] == "enabled" and any(_matches(event_type, w) for w in endpoint["enabled_events"])


def create_endpoint(world: World, call: Call) -> Obj:
    """`POST /v1/webhook_endpoints`: the answer carries the secret, once."""
    p = call.params
    if not p["url"].startswith(("http://", "https://")):
        raise invalid("Invalid URL: An explicit scheme (such as https) must be provided.", param="url")
    endpoint = new_endpoint(world, p["url"], events=p["enabled_events"])
    endpoint["description"] = p.get("description") or None
    endpoint["metadata"] = merged_metadata({}, p.get("metadata"))
    endpoint["api_version"] = p.get("api_version") or API_VERSION
    return {**view(world, endpoint), "secret": endpoint["_secret"]}


def new_endpoint(world: World, url: str, *, events: list[str] | None = None, secret: str | None = None) -> Obj:
    """An endpoint that is listened at from now on."""
    return world.store.add(
        {
            "id": new_id("we"),
            "object": "webhook_endpoint",
            "api_version": API_VERSION,
            "created": world.now(),
            "description": None,
            "enabled_events": events or ["*"],
            "livemode": False,
            "metadata": {},
            "status": "enabled",
            "url": url,
            "_secret": secret or new_id("whsec", 32),
        }
    )


def retrieve_endpoint(world: World, call: Call) -> Obj:
    """`GET /v1/webhook_endpoints/{id}`."""
    return view(world, world.require("webhook_endpoint", call.ids[0]))


def update_endpoint(world: World, call: Call) -> Obj:
    """`POST /v1/webhook_endpoints/{id}`."""
    p = call.params
    endpoint = world.require("webhook_endpoint", call.ids[0])
    with world.changing(endpoint, None):
        endpoint["url"] = p.get("url", endpoint["url"])
        endpoint["enabled_events"] = p.get("enabled_events") or endpoint["enabled_events"]
        if "disabled" in p:
            endpoint["status"] = "disabled" if p["disabled"] else "enabled"
        if "description" in p:
            endpoint["description"] = p["description"] or None
        endpoint["metadata"] = merged_metadata(endpoint["metadata"], p.get("metadata"))
    return view(world, endpoint)


def delete_endpoint(world: World, call: Call) -> Obj:
    """`DELETE /v1/webhook_endpoints/{id}`."""
    endpoint = world.require("webhook_endpoint", call.ids[0])
    world.store.remove(endpoint)
    return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}


def list_endpoints(world: World, call: Call) -> Obj:
    """`GET /v1/webhook_endpoints`."""
    return page(world, call, list(newest_first(world, "webhook_endpoint")))


def _matches(event_type: str, wanted: str) -> bool:
    return wanted in ("*", event_type) or (wanted.endswith(".*") and event_type.startswith(wanted[:-1]))


_PATH = "/v1/webhook_endpoints"
ROUTES = [
    Route("GET", "/v1/events", "EventListParams", list_events, "list:Event"),
    Route("GET", "/v1/events/{}", "EventRetrieveParams", retrieve_event, "Event"),
    Route("POST", _PATH, "WebhookEndpointCreateParams", create_endpoint, "WebhookEndpoint"),
    Route("GET", _PATH, "WebhookEndpointListParams", list_endpoints, "list:WebhookEndpoint"),
    Route("GET", f"{_PATH}/{{}}", "WebhookEndpointRetrieveParams", retrieve_endpoint, "WebhookEndpoint"),
    Route("POST", f"{_PATH}/{{}}", "WebhookEndpointUpdateParams", update_endpoint, "WebhookEndpoint"),
    Route("DELETE", f"{_PATH}/{{}}", "WebhookEndpointDeleteParams", delete_endpoint, "WebhookEndpoint"),
]
