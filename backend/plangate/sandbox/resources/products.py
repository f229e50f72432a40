"""Products, and the entitlement features Stripe itself attaches to them."""

from __future__ import annotations

from typing import Any

from plangate.sandbox.errors import ApiError, invalid, required
from plangate.sandbox.render import view
from plangate.sandbox.routing import Call, Route, in_range, merged_metadata, newest_first, page
from plangate.sandbox.state import new_id
from plangate.sandbox.world import World

Obj = dict[str, Any]

_PLAIN = ("description", "statement_descriptor", "tax_code", "unit_label", "url")


def create_product(world: World, call: Call) -> Obj:
    """`POST /v1/products`, with a default price when one is described."""
    from .prices import new_price  # noqa: PLC0415 - prices make products from `product_data`.

    p = call.params
    product = new_product(world, p)
    if p.get("default_price_data"):
        price = new_price(world, {**p["default_price_data"], "product": product["id"]})
        product["default_price"] = price["id"]
    world.emit("product.created", product)
    return view(world, product)


def new_product(world: World, given: Obj) -> Obj:
    """A product from parameters; its event is the caller's to send."""
    stripe_id = given.get("id") or new_id("prod", 14)
    if world.store.get("product", stripe_id):
        raise ApiError(400, f"Product already exists: {stripe_id}", code="resource_already_exists", param="id")
    return world.store.add(
        {
            "id": stripe_id,
            "object": "product",
            "active": given.get("active", True),
            "created": world.now(),
            "default_price": None,
            "images": given.get("images") or [],
            "livemode": False,
            "marketing_features": given.get("marketing_features") or [],
            "metadata": merged_metadata({}, given.get("metadata")),
            "name": given["name"],
            "package_dimensions": given.get("package_dimensions") or None,
            "shippable": given.get("shippable"),
            "type": given.get("type", "service"),
            "updated": world.now(),
            **{name: given.get(name) or None for name in _PLAIN},
        }
    )


def retrieve_product(world: World, call: Call) -> Obj:
    """`GET /v1/products/{id}`."""
    return view(world, world.require("product", call.ids[0]))


def update_product(world: World, call: Call) -> Obj:
    """`POST /v1/products/{id}`."""
    p = call.params
    product = world.require("product", call.ids[0])
    with world.changing(product, "product.updated"):
        for name in ("active", "name", "shippable"):
            if name in p:
                product[name] = p[name]
        for name in _PLAIN:
            if name in p:
                product[name] = p[name] or None
        for name in ("images", "marketing_features"):
            if name in p:
                product[name] = p[name] or []
        if "default_price" in p:
            price = world.require("price", p["default_price"], param="default_price")
            if price["product"] != product["id"]:
                raise invalid(
                    f"The price {price['id']} does not belong to the product {product['id']}.", param="default_price"
                )
            product["default_price"] = price["id"]
        if "metadata" in p:
            product["metadata"] = merged_metadata(product["metadata"], p["metadata"])
        product["updated"] = world.now()
    return view(world, product)


def delete_product(world: World, call: Call) -> Obj:
    """`DELETE /v1/products/{id}`: only without prices."""
    product = world.require("product", call.ids[0])
    if any(price["product"] == product["id"] for price in world.store.all("price")):
        raise invalid("This product cannot be deleted because it has one or more user-created prices.")
    world.emit("product.deleted", product)
    world.store.remove(product)
    return {"id": product["id"], "object": "product", "deleted": True}


def list_products(world: World, call: Call) -> Obj:
    """`GET /v1/products`."""
    p = call.params
    ids = p.get("ids")
    rows = [
        product
        for product in newest_first(world, "product")
        if p.get("active") in (None, product["active"])
        and (ids is None or product["id"] in ids)
        and in_range(product["created"], p.get("created"))
    ]
    return page(world, call, rows)


def create_feature(world: World, call: Call) -> Obj:
    """`POST /v1/entitlements/features`."""
    p = call.params
    if any(f["lookup_key"] == p["lookup_key"] for f in world.store.all("entitlements.feature")):
        raise invalid(f"A feature already exists with lookup key: {p['lookup_key']}", param="lookup_key")
    feature = {
        "id": new_id("feat"),
        "object": "entitlements.feature",
        "active": True,
        "livemode": False,
        "lookup_key": p["lookup_key"],
        "metadata": merged_metadata({}, p.get("metadata")),
        "name": p["name"],
    }
    return view(world, world.add(feature))


def list_features(world: World, call: Call) -> Obj:
    """`GET /v1/entitlements/features`."""
    wanted = call.params.get("lookup_key")
    rows = [f for f in newest_first(world, "entitlements.feature") if wanted in (None, f["lookup_key"])]
    return page(world, call, rows)


def attach_feature(world: World, call: Call) -> Obj:
    """`POST /v1/products/{id}/features`."""
    product = world.require("product", call.ids[0])
    feature = world.require("entitlements.feature", call.params["entitlement_feature"], param="entitlement_feature")
    row = {
        "id": new_id("prodft"),
        "object": "product_feature",
        "entitlement_feature": view(world, feature),
        "livemode": False,
        "_product": product["id"],
    }
    return view(world, world.add(row))


def list_product_features(world: World, call: Call) -> Obj:
    """`GET /v1/products/{id}/features`."""
    product = world.require("product", call.ids[0])
    return page(world, call, [r for r in newest_first(world, "product_feature") if r["_product"] == product["id"]])


def list_active_entitlements(world: World, call: Call) -> Obj:
    """`GET /v1/entitlements/active_entitlements?customer=`: features of the products subscribed to."""
    if not call.params.get("customer"):
        raise required("customer")
    customer = world.require("customer", call.params["customer"], param="customer")
    products = {
        world.require("price", item["price"])["product"]
        for subscription in world.store.all("subscription")
        if subscription["customer"] == customer["id"] and subscription["status"] in ("active", "trialing", "past_due")
        for item in subscription["_items"]
    }
    features = {
        row["entitlement_feature"]["id"]: row["entitlement_feature"]
        for row in world.store.all("product_feature")
        if row["_product"] in products
    }
    rows = [
        {
            "id": f"ent_{customer['id'][4:]}{stripe_id[5:15]}",
            "object": "entitlements.active_entitlement",
            "feature": stripe_id,
            "livemode": False,
            "lookup_key": feature["lookup_key"],
        }
        for stripe_id, feature in features.items()
    ]
    return page(world, call, rows)


ROUTES = [
    Route("POST", "/v1/products", "ProductCreateParams", create_product, "Product"),
    Route("GET", "/v1/products", "ProductListParams", list_products, "list:Product"),
    Route("GET", "/v1/products/{}", "ProductRetrieveParams", retrieve_product, "Product"),
    Route("POST", "/v1/products/{}", "ProductUpdateParams", update_product, "Product"),
    Route("DELETE", "/v1/products/{}", "ProductDeleteParams", delete_product, "Product"),
    Route("POST", "/v1/products/{}/features", "ProductFeatureCreateParams", attach_feature, "ProductFeature"),
    Route("GET", "/v1/products/{}/features", "ProductFeatureListParams", list_product_features, "list:ProductFeature"),
    Route(
        "POST", "/v1/entitlements/features", "entitlements.FeatureCreateParams", create_feature, "entitlements.Feature"
    ),
    Route(
        "GET", "/v1/entitlements/features", "entitlements.FeatureListParams", list_features, "list:entitlements.Feature"
    ),
    Route(
        "GET",
        "/v1/entitlements/active_entitlements",
        "entitlements.ActiveEntitlementListParams",
        list_active_entitlements,
        "list:entitlements.ActiveEntitlement",
    ),
]
