"""Which events a feature counts, and the Stripe meters that usage is reported to."""

from collections.abc import Mapping, Sequence
from typing import Final

from plangate.engine.catalog import Catalog, Feature
from plangate.engine.values import FeatureType
from plangate.ids import new_id
from plangate.store.database import StoreSession
from plangate.store.ledger import LedgerEntry
from plangate.store.meter_outbox import WAITING

PULLED: Final = "stripe_meter:"  # begins the events of usage that was read from a Stripe meter; nobody may track them


def event_of(feature: Feature) -> str:
    """The name of the events a feature counts: tracked ones, or what was read from its Stripe meter."""
    if feature.usage_source == "stripe_meter":
        return f"{PULLED}{feature.stripe_meter}"
    return feature.event or feature.key


def is_counted_here(feature: Feature) -> bool:
    """Whether we count the feature's usage, rather than read it from a Stripe meter that the product feeds."""
    return feature.type is FeatureType.EVENT and feature.usage_source == "events"


def metered_by(catalog: Catalog, event: str) -> list[Feature]:
    """The event features that count this event; archived ones go on counting."""
    return [
        feature
        for feature in catalog.features.values()
        if feature.type is FeatureType.EVENT and event_of(feature) == event
    ]


def reported_meters(catalog: Catalog, event: str) -> dict[str, str]:
    """The Stripe meters that usage of an event is reported to, each with a feature that counts the event."""
    # Two features may count one event for one meter: it is reported once.
    return {
        feature.stripe_meter: feature.key
        for feature in metered_by(catalog, event)
        if feature.stripe_meter is not None and feature.usage_source == "events"
    }


def meter_events(session: StoreSession, catalog: Catalog, entries: Sequence[LedgerEntry]) -> list[Mapping[str, object]]:
    """Rows of the outbox of Stripe meters for rows of the ledger, to be stored in the same transaction."""
    reported: dict[str, dict[str, str]] = {}
    rows: list[Mapping[str, object]] = []
    for entry in entries:
        meters = reported.get(entry.event)
        if meters is None:
            meters = reported[entry.event] = reported_meters(catalog, entry.event)
        for meter, feature_key in meters.items() if entry.quantity else ():
            rows.append(
                {
                    "id": new_id("mev"),
                    "environment_id": session.environment_id,
                    "company_id": entry.company_id,
                    "feature": feature_key,
                    "meter": meter,
                    "quantity": entry.quantity,
                    "occurred_at": entry.occurred_at,
                    "recorded_at": session.now,
                    "available_at": session.now,
                    "state": WAITING,
                    "attempts": 0,
                }
            )
    return rows
