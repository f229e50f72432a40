"""What Plangate asks of Stripe about what is sold: products, prices and meters, found again before they are made.

Every write takes the idempotency key its intent was saved with. Every method raises `StripeFailure`.
"""

from collections.abc import Mapping
from typing import Any, Final

from plangate.billing.transport import StripeJson, Transport

_METER_PAYLOAD_KEY: Final = "stripe_customer_id"


class CatalogCalls:
    """Products, prices and meters of one environment's Stripe account."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._v1 = transport.client.v1

    # --- products ----------------------------------------------------------------------------------

    async def fetch_product(self, stripe_product_id: str) -> StripeJson | None:
        """The product, or None when it does not exist or was deleted."""
        found = await self._transport.find(
            lambda options: self._v1.products.retrieve_async(stripe_product_id, options=options)
        )
        return None if found is None or found.get("deleted") else found

    async def products_on_sale(self) -> list[StripeJson]:
        """The account's active products, newest first."""
        return await self._transport.all(
            lambda params, options: self._v1.products.list_async(_any(params), options), {"active": True}
        )

    async def create_product(
        self,
        stripe_product_id: str,
        *,
        name: str,
        description: str,
        metadata: Mapping[str, str],
        idempotency_key: str,
    ) -> StripeJson:
        """A product with exactly this id: ours are chosen, so creating twice is impossible."""
        params: StripeJson = {"id": stripe_product_id, "name": name, "metadata": dict(metadata)}
        if description:
            params["description"] = description
        return await self._transport.write(
            lambda options: self._v1.products.create_async(_any(params), options), idempotency_key=idempotency_key
        )

    async def update_product(
        self,
        found: StripeJson,
        *,
        name: str,
        description: str,
        metadata: Mapping[str, str],
        idempotency_key: str,
    ) -> StripeJson:
        """The product, active and so named and described; nothing is written when it is already."""
        held = found.get("metadata") or {}
        is_so = found["name"] == name and (found.get("description") or "") == description and found["active"]
        if is_so and all(held.get(key) == text for key, text in metadata.items()):
            return found
        params: StripeJson = {"name": name, "description": description, "active": True, "metadata": dict(metadata)}
        return await self._transport.write(
            lambda options: self._v1.products.update_async(found["id"], _any(params), options),
            idempotency_key=idempotency_key,
        )

    async def restore_product(self, stripe_product_id: str, *, idempotency_key: str) -> StripeJson:
        """The product, on sale again."""
        return await self._transport.write(
            lambda options: self._v1.products.update_async(stripe_product_id, _any({"active": True}), options),
            idempotency_key=idempotency_key,
        )

    # --- prices ------------------------------------------------------------------------------------

    async def fetch_price(self, stripe_price_id: str) -> StripeJson | None:
        """The price with its tiers, or None when it does not exist."""
        return await self._transport.find(
            lambda options: self._v1.prices.retrieve_async(stripe_price_id, _any({"expand": ["tiers"]}), options)
        )

    async def prices_on_sale(self) -> list[StripeJson]:
        """The account's active recurring prices with their tiers and other currencies, newest first."""
        return await self._transport.all(
            lambda params, options: self._v1.prices.list_async(_any(params), options),
            {"active": True, "type": "recurring", "expand": ["data.tiers", "data.currency_options"]},
        )

    async def prices_of_product(self, stripe_product_id: str) -> list[StripeJson]:
        """Every price of a product with its tiers, on sale or not, newest first."""
        return await self._transport.all(
            lambda params, options: self._v1.prices.list_async(_any(params), options),
            {"product": stripe_product_id, "expand": ["data.tiers"]},
        )

    async def find_price(self, lookup_key: str) -> StripeJson | None:
        """The price with this lookup key and its tiers, on sale or not; None when there is none."""
        params: StripeJson = {"lookup_keys": [lookup_key], "limit": 1, "expand": ["data.tiers"]}
        listed = await self._transport.read(lambda options: self._v1.prices.list_async(_any(params), options))
        found: list[StripeJson] = listed["data"]
        return found[0] if found else None

    async def create_price(self, lookup_key: str, params: StripeJson, *, idempotency_key: str) -> StripeJson:
        """A price, which never changes its amount; `params` as Stripe's."""
        wanted = {"lookup_key": lookup_key, **params}
        return await self._transport.write(
            lambda options: self._v1.prices.create_async(_any(wanted), options), idempotency_key=idempotency_key
        )

    async def set_price_active(self, stripe_price_id: str, *, is_active: bool, idempotency_key: str) -> StripeJson:
        """Put a price on sale again, or take it off; subscriptions that hold it keep it."""
        return await self._transport.write(
            lambda options: self._v1.prices.update_async(stripe_price_id, _any({"active": is_active}), options),
            idempotency_key=idempotency_key,
        )

    # --- meters ------------------------------------------------------------------------------------

    async def active_meters(self) -> list[StripeJson]:
        """The account's active meters; of one event name there is at most one."""
        return await self._transport.all(
            lambda params, options: self._v1.billing.meters.list_async(_any(params), options), {"status": "active"}
        )

    async def create_meter(self, event_name: str, *, display_name: str, idempotency_key: str) -> StripeJson:
        """A meter that adds up the values of its events, by Stripe customer."""
        params: StripeJson = {
            "display_name": display_name,
            "event_name": event_name,
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"type": "by_id", "event_payload_key": _METER_PAYLOAD_KEY},
            "value_settings": {"event_payload_key": "value"},
        }
        return await self._transport.write(
            lambda options: self._v1.billing.meters.create_async(_any(params), options),
            idempotency_key=idempotency_key,
        )

    async def rename_meter(self, stripe_meter_id: str, *, display_name: str, idempotency_key: str) -> StripeJson:
        """The meter under another name for people."""
        params = {"display_name": display_name}
        return await self._transport.write(
            lambda options: self._v1.billing.meters.update_async(stripe_meter_id, _any(params), options),
            idempotency_key=idempotency_key,
        )


def counts_otherwise(meter: Mapping[str, Any]) -> str | None:
    """Why usage cannot be reported to a meter as we do, in words; None when it can."""
    formula = (meter.get("default_aggregation") or {}).get("formula")
    mapping, value = meter.get("customer_mapping") or {}, meter.get("value_settings") or {}
    if formula != "sum":
        return f"its aggregation is {formula}, not sum"
    if mapping.get("type") != "by_id" or mapping.get("event_payload_key") != _METER_PAYLOAD_KEY:
        return f"it finds customers by {mapping.get('event_payload_key')}, not by {_METER_PAYLOAD_KEY}"
    if value.get("event_payload_key") != "value":
        return f"it adds up {value.get('event_payload_key')}, not value"
    return None


def _any(params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the package's TypedDicts cannot be met by built-up params.
    return params
