"""Reads how much of a feature is in use, for conditions about usage and for limits after a change."""

from datetime import datetime

from plangate.engine.facts import Counters
from plangate.engine.snapshot import CompanySnapshot


def used_at(snapshot: CompanySnapshot, feature_key: str, counters: Counters, at: datetime) -> int | None:
    """How much of a numeric feature is in use at `at`, in the window that resets least often; None when unknown."""
    compiled = snapshot.features.get(feature_key)
    if compiled is None:
        return None
    if compiled.usage_key is None:
        return None if compiled.trait_used is None else max(0, compiled.trait_used)
    counter = counters.get(compiled.usage_key)
    if counter is None or counter.start_at > at or (counter.end_at is not None and counter.end_at <= at):
        return 0
    return max(0, counter.used)
