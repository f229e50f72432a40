"""Explains a Decision: the sources in order of precedence."""

from collections.abc import Callable

from plangate.engine.model import Catalog, Counters, Decision, Trace, UserFacts
from plangate.engine.snapshot import CompanySnapshot


def explain(
    snapshot: CompanySnapshot,
    decision: Decision,
    counters: Counters,
    *,
    quantity: int,
    user: UserFacts | None,
    catalog: Catalog | None,
    ask: Callable[..., Decision],
) -> Trace:
    """Why a Decision is what it is."""
    return Trace(steps=())
