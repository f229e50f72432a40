"""Remembers what companies have in common: features compiled from the catalogue and the versions held alone.

Most companies on a plan differ in nothing but usage, so their snapshots hold the same compiled features; that makes a
snapshot several times smaller and cheaper to build. It is a memory of a pure function and never changes an answer.
"""

from collections.abc import Callable, Hashable

from plangate.engine.catalog import Catalog, Feature
from plangate.engine.holdings import Held, Holdings
from plangate.engine.snapshot import CompiledFeature
from plangate.engine.values import FeatureType

_CATALOGS_KEPT = 4
_FEATURES_KEPT = 10_000


class CompiledFeatures:
    """The compiled features of one catalogue that do not depend on anything stored about a company."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._compiled: dict[Hashable, CompiledFeature] = {}
        self._dependent = {feature.key for feature in catalog.features.values() if _depends_on_facts(feature)}
        for version in (*catalog.plans.values(), *catalog.add_ons.values(), *catalog.older_versions.values()):
            self._dependent |= {one.feature for one in version.entitlements if one.limit_trait is not None}

    def get(self, feature: Feature, holdings: Holdings, build: Callable[[], CompiledFeature]) -> CompiledFeature:
        """The feature compiled for these holdings and no overrides: remembered where it can be, else built."""
        if feature.key in self._dependent:
            return build()
        key = (
            feature.key,
            _names(holdings.plans),
            _names(holdings.add_ons),
            tuple((version.kind, version.key, version.version) for version in holdings.suspended),
            tuple(sorted(holdings.bought[feature.key].items())) if feature.key in holdings.bought else (),
        )
        compiled = self._compiled.get(key)
        if compiled is None:
            if len(self._compiled) >= _FEATURES_KEPT:
                self._compiled.clear()
            compiled = self._compiled[key] = build()
        return compiled


def compiled_features(catalog: Catalog) -> CompiledFeatures:
    """What is remembered for this very catalogue object; only the catalogues used last are kept."""
    for index, known in enumerate(_recent):
        if known.catalog is catalog:
            if index:
                _recent.insert(0, _recent.pop(index))
            return known
    _recent.insert(0, CompiledFeatures(catalog))
    del _recent[_CATALOGS_KEPT:]
    return _recent[0]


_recent: list[CompiledFeatures] = []


def _depends_on_facts(feature: Feature) -> bool:
    # Seats and traits are compiled with the value in use, rules with the company's keys and traits.
    return feature.type in {FeatureType.TRAIT, FeatureType.SEAT} or bool(feature.flag.rules)


def _names(held: tuple[Held, ...]) -> tuple[tuple[str, int, int | None], ...]:
    return tuple((version.key, version.version, quantity) for version, quantity in held)
