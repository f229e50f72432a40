"""Which version of a plan or add-on a company holds: the one it took, raised by what was migrated since.

A published version reaches current holders only as far as its migration says (product.md, The nouns: migrate all,
some or none). So the version held follows from when it was taken, the oldest version anybody was left on, and the
migrations of the one company.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal

from plangate.engine.catalog import Catalog, KeptVersions, PlanVersion, Price
from plangate.engine.facts import VersionPin


def held_version(
    catalog: Catalog,
    kind: Literal["plan", "add_on"],
    key: str,
    *,
    since: datetime | None,
    stripe_price_id: str | None = None,
    pins: Iterable[VersionPin] = (),
) -> PlanVersion | None:
    """The version held by who took the plan or add-on at `since`, for a Stripe price if it was bought.

    Without an instant it is the newest: nobody chose another one. None when the catalogue never had the key.
    """
    newest = catalog.newest(kind, key)
    kept = catalog.kept.get(kept_key(kind, key))
    if newest is None or kept is None or since is None:
        return newest
    taken = _taken(catalog, newest, kept, since=since, stripe_price_id=stripe_price_id)
    pinned = max((pin.version for pin in pins if (pin.kind, pin.key) == (kind, key)), default=0)
    return catalog.version_of(kind, key, max(taken, pinned)) or newest


def kept_key(kind: Literal["plan", "add_on"], key: str) -> str:
    """The key of `Catalog.kept`, such as `plan/pro`."""
    return f"{kind}/{key}"


def _taken(
    catalog: Catalog, newest: PlanVersion, kept: KeptVersions, *, since: datetime, stripe_price_id: str | None
) -> int:
    oldest, oldest_at = kept.versions[0]
    taken = max((version for version, at in kept.versions if at <= since), default=oldest)
    if stripe_price_id is None or (since < oldest_at and oldest > 1):
        # Whoever was migrated keeps the price of an earlier version, so that price says nothing.
        return taken
    selling = [
        version
        for version, _ in kept.versions
        if (one := catalog.version_of(newest.kind, newest.key, version)) is not None
        and any(price.stripe_price_id == stripe_price_id for price in _sold_for(one))
    ]
    # A checkout begun before a publication may end after it: then the price tells which version was bought.
    return max((version for version in selling if version <= taken), default=min(selling, default=taken))


def _sold_for(version: PlanVersion) -> Iterator[Price]:
    """The prices of a version: its own, and those of what it grants."""
    yield from version.prices
    for entitlement in version.entitlements:
        yield from entitlement.prices
