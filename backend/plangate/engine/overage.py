"""Where overage begins: what a company may use in one window before every further unit has a price.

Only what lies beyond is billed, so everything that raises an allowance counts: stacked add-ons and overrides alike. A
denial does not, because usage that happened is still usage.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from plangate.engine.catalog import Catalog, Entitlement, PlanVersion
from plangate.engine.entitlements import gather, is_in_force, window_kinds
from plangate.engine.facts import CompanyFacts
from plangate.engine.grants import combine, contribution, longest_kind
from plangate.engine.holdings import resolve_holdings
from plangate.engine.values import PeriodKind, PriceBehaviour


class Sold(NamedTuple):
    """Overage that some version of the catalogue bills: of one feature, in windows of one kind.

    Nobody has less included than `least`; `meter` is the event name that the prices bill.
    """

    feature: str
    kind: PeriodKind
    least: int
    meter: str


def sold_overage(catalog: Catalog) -> list[Sold]:
    """Every feature and period kind whose overage has a price in a published version, old ones included."""
    found: dict[tuple[str, PeriodKind], Sold] = {}
    for version in _published(catalog):
        for entitlement in version.entitlements:
            meter = _meter_of(entitlement)
            if meter is None or entitlement.feature not in catalog.features:
                continue
            key = (entitlement.feature, entitlement.period or PeriodKind.ALL_TIME)
            least = entitlement.soft_limit or 0
            if key in found:
                least = min(least, found[key].least)
            found[key] = Sold(*key, least, meter)
    return list(found.values())


def included(
    catalog: Catalog, facts: CompanyFacts, feature_key: str, kind: PeriodKind, at: datetime
) -> tuple[bool, int | None]:
    """Whether overage in windows of this kind is billed to the company at `at`, and how much it may use before.

    That much is None when nothing is ever overage, as under an unlimited override.
    """
    feature = catalog.features.get(feature_key)
    if feature is None:
        return False, None
    holdings = resolve_holdings(catalog, facts, at)
    granted = gather(feature, facts, holdings)
    if not any(_meter_of(one) is not None and (one.period or PeriodKind.ALL_TIME) is kind for *_, one in granted):
        return False, None
    contributions = [
        one
        for _, source, quantity, entitlement in granted
        if (one := contribution(entitlement, source, quantity, facts.traits, feature.type)) is not None
        and not one.is_per_user
    ]
    overrides = [
        one for one in facts.overrides if one.feature == feature_key and one.user is None and is_in_force(one, at)
    ]
    default_kind = longest_kind(window_kinds(catalog, feature_key), default=PeriodKind.ALL_TIME)
    for combined in combine(contributions, overrides, default_kind=default_kind):
        if combined.kind is kind:
            return True, combined.amount.included
    return False, None


def beyond(used: int, before: int | None) -> int:
    """How much of what was used is overage; corrections below zero make none."""
    return 0 if before is None else max(0, used - before)


def _meter_of(entitlement: Entitlement) -> str | None:
    """The meter that an entitlement's overage is billed by; None when it is free, or there is none."""
    if entitlement.price_behaviour is not PriceBehaviour.OVERAGE:
        return None
    return next((price.meter for price in entitlement.prices if price.meter is not None), None)


def _published(catalog: Catalog) -> Iterable[PlanVersion]:
    return (*catalog.plans.values(), *catalog.add_ons.values(), *catalog.older_versions.values())
