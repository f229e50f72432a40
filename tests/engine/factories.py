"""Small catalogues and facts for engine tests, and Hypothesis strategies over them."""

# ruff: noqa: ANN401 - the builders pass any field of the struct they build through to it.

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from hypothesis import strategies as st

from plangate.engine.catalog import Catalog, CatalogSettings, Entitlement, Feature, PlanVersion, Price, PriceOwner
from plangate.engine.facts import (
    AssignmentFact,
    CompanyFacts,
    Override,
    PlanSource,
    SubscriptionFact,
    SubscriptionItem,
    WindowCounter,
)
from plangate.engine.values import UNLIMITED, FeatureType, Interval, OverrideMode, PeriodKind, Stacking

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEGAN = datetime(2026, 11, 3, tzinfo=UTC)
RENEWS = datetime(2026, 12, 3, tzinfo=UTC)

FEATURES = {
    feature.key: feature
    for feature in (
        Feature(key="exports", name="Exports", type=FeatureType.EVENT, unit="export", units="exports"),
        Feature(key="sso", name="Single sign-on", type=FeatureType.BOOLEAN),
        Feature(key="seats", name="Seats", type=FeatureType.SEAT, trait="seats", unit="seat", units="seats"),
        Feature(key="upload-mb", name="Upload size", type=FeatureType.CONFIG, config_type="number"),
    )
}


def price(key: str, interval: Interval, amount_minor: int, *, currency: str = "usd", count: int = 1) -> Price:
    return Price(
        currency=currency,
        interval=interval,
        interval_count=count,
        amount_minor=amount_minor,
        stripe_price_id=f"price_{key}_{interval}_{currency}",
    )


def plan(
    key: str,
    *entitlements: Entitlement,
    monthly: int | None = None,
    kind: Literal["plan", "add_on"] = "plan",
    version: int = 1,
    **fields: Any,
) -> PlanVersion:
    """A version sold monthly and, for ten times as much, yearly."""
    prices = () if monthly is None else (price(key, Interval.MONTH, monthly), price(key, Interval.YEAR, monthly * 10))
    return PlanVersion(
        key=key,
        version=version,
        kind=kind,
        name=key.capitalize(),
        entitlements=entitlements,
        prices=fields.pop("prices", prices),
        **fields,
    )


def exports(limit: int | None, **fields: Any) -> Entitlement:
    """So many exports per billing month; None is unlimited."""
    return Entitlement(
        feature="exports",
        limit=UNLIMITED if limit is None else limit,
        period=fields.pop("period", PeriodKind.BILLING_MONTH),
        **fields,
    )


def catalog_of(versions: Iterable[PlanVersion], **fields: Any) -> Catalog:
    """A catalogue of these versions, each price of which Stripe knows."""
    held = list(versions)
    return Catalog(
        revision=1,
        features=fields.pop("features", FEATURES),
        plans={one.key: one for one in held if one.kind == "plan"},
        add_ons={one.key: one for one in held if one.kind == "add_on"},
        price_owners={
            one.stripe_price_id: PriceOwner(version.kind, version.key, version.version, one)
            for version in held
            for one in version.prices
            if one.stripe_price_id is not None
        },
        **fields,
    )


def shop(**settings: Any) -> Catalog:
    """Free, Starter, Pro and Enterprise with two add-ons, one of which fits Pro alone."""
    return catalog_of(
        (
            plan("free", exports(10), Entitlement(feature="seats", limit=2)),
            plan("starter", exports(100), Entitlement(feature="seats", limit=5), monthly=1900),
            plan(
                "pro",
                exports(1000),
                Entitlement(feature="seats", limit=20),
                Entitlement(feature="sso", enabled=True),
                Entitlement(feature="upload-mb", config=512),
                monthly=4900,
            ),
            plan("enterprise", exports(None), Entitlement(feature="sso", enabled=True), is_contact_us=True),
            plan("extra", exports(500, stacking=Stacking.SUM), monthly=900, kind="add_on", fits=("starter", "pro")),
            plan("audit", Entitlement(feature="sso", enabled=True), monthly=2900, kind="add_on", fits=("pro",)),
        ),
        initial_plan="free",
        fallback_plan="free",
        settings=CatalogSettings(**settings),
    )


def facts(**fields: Any) -> CompanyFacts:
    return CompanyFacts(company_id="comp_acme", version=1, created_at=fields.pop("created_at", BEGAN), **fields)


def assigned(key: str, **fields: Any) -> AssignmentFact:
    return AssignmentFact(
        kind=fields.pop("kind", "plan"),
        key=key,
        source=fields.pop("source", PlanSource.ASSIGNMENT),
        held_from=fields.pop("held_from", BEGAN),
        **fields,
    )


def item(stripe_price_id: str, *, quantity: int | None = 1, **fields: Any) -> SubscriptionItem:
    return SubscriptionItem(
        stripe_item_id=f"si_{stripe_price_id}",
        stripe_price_id=stripe_price_id,
        stripe_product_id=fields.pop("stripe_product_id", "prod_1"),
        quantity=quantity,
        is_metered=fields.pop("is_metered", False),
        currency="usd",
        interval=fields.pop("interval", Interval.MONTH),
        interval_count=1,
        unit_amount_minor=None,
        period_start_at=fields.pop("period_start_at", BEGAN),
        period_end_at=fields.pop("period_end_at", RENEWS),
    )


def subscribed(*keys: str, **fields: Any) -> SubscriptionFact:
    """An active monthly subscription that holds these plans and add-ons, or the `items` given."""
    items = fields.pop("items", tuple(item(f"price_{key}_month_usd") for key in keys))
    return SubscriptionFact(
        stripe_subscription_id=fields.pop("stripe_subscription_id", "sub_1"),
        stripe_customer_id="cus_1",
        status=fields.pop("status", "active"),
        items=items,
        currency="usd",
        anchor_at=fields.pop("anchor_at", BEGAN),
        started_at=BEGAN,
        **fields,
    )


def override(mode: OverrideMode, value: Any = None, *, feature: str = "exports", **fields: Any) -> Override:
    return Override(
        id=fields.pop("id", f"ovr_{mode}"),
        feature=feature,
        mode=mode,
        value=value,
        starts_at=fields.pop("starts_at", BEGAN),
        **fields,
    )


def counter(used: int, *, start_at: datetime = BEGAN, end_at: datetime | None = RENEWS, **fields: Any) -> WindowCounter:
    return WindowCounter(window_id="win_1", start_at=start_at, end_at=end_at, used=used, **fields)


# --- strategies ----------------------------------------------------------------------------------


def instants_between(first: datetime, last: datetime) -> st.SearchStrategy[datetime]:
    """Any instant in UTC between two."""
    return st.datetimes(first.replace(tzinfo=None), last.replace(tzinfo=None), timezones=st.just(UTC))


instants = instants_between(datetime(2020, 1, 1, tzinfo=UTC), datetime(2035, 12, 31, tzinfo=UTC))
near = st.integers(-60 * 24 * 60, 60 * 24 * 60).map(lambda minutes: NOW + timedelta(minutes=minutes))
kinds = st.sampled_from(PeriodKind)
limits = st.one_of(st.integers(0, 50), st.none())
quantities = st.integers(0, 60)


@st.composite
def entitlements(draw: st.DrawFn) -> Entitlement:
    """Any allowance of exports, with or without a soft limit."""
    return exports(
        draw(limits),
        period=draw(kinds),
        stacking=draw(st.sampled_from(Stacking)),
        soft_limit=draw(st.one_of(st.none(), st.integers(0, 50))),
    )


@st.composite
def overrides(draw: st.DrawFn, number: int = 0) -> Override:
    """Any override of exports that may start or expire around now."""
    mode = draw(st.sampled_from(OverrideMode))
    starts_at = draw(near)
    lasts = draw(st.one_of(st.none(), st.integers(1, 60 * 24 * 90)))
    return override(
        mode,
        None if mode is OverrideMode.DENY else draw(st.one_of(st.integers(0, 50), st.just("unlimited"))),
        id=f"ovr_{number}_{mode}",
        starts_at=starts_at,
        expires_at=None if lasts is None else starts_at + timedelta(minutes=lasts),
        period=draw(st.one_of(st.none(), kinds)),
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Catalog, CompanyFacts]:
    """A catalogue and a company on it, with several sources of exports and a changing set of facts."""
    catalog = catalog_of(
        [
            plan("free", *draw(st.lists(entitlements(), max_size=1))),
            plan("pro", *draw(st.lists(entitlements(), max_size=3)), monthly=4900),
            plan("extra", *draw(st.lists(entitlements(), max_size=2)), monthly=900, kind="add_on"),
        ],
        fallback_plan="free",
    )
    assignments = []
    for key in draw(st.lists(st.sampled_from(["free", "pro"]), max_size=2)):
        held_from = draw(near)
        lasts = draw(st.one_of(st.none(), st.integers(1, 60 * 24 * 90)))
        held_until = None if lasts is None else held_from + timedelta(minutes=lasts)
        assignments.append(assigned(key, held_from=held_from, held_until=held_until))
    subscriptions = []
    if draw(st.booleans()):
        subscriptions.append(
            subscribed(
                "pro",
                *(["extra"] if draw(st.booleans()) else []),
                status=draw(st.sampled_from(["active", "trialing", "past_due", "unpaid", "canceled", "novel"])),
                past_due_since=draw(st.one_of(st.none(), near)),
                ended_at=draw(st.one_of(st.none(), near)),
            )
        )
    made = [draw(overrides(number=number)) for number in range(draw(st.integers(0, 3)))]
    company = facts(
        assignments=tuple(assignments),
        subscriptions=tuple(subscriptions),
        overrides=tuple(made),
        created_at=NOW - timedelta(days=100),
    )
    return catalog, company


@st.composite
def counts(draw: st.DrawFn) -> dict[tuple[str, PeriodKind, str], WindowCounter]:
    """Stored usage for some period kinds, in windows around now that may have ended."""
    found = {}
    for kind in draw(st.sets(kinds)):
        start_at = draw(near)
        end_at = None if kind is PeriodKind.ALL_TIME else start_at + timedelta(days=draw(st.integers(1, 60)))
        found[("exports", kind, "")] = counter(
            draw(st.integers(-5, 60)), start_at=start_at, end_at=end_at, reserved=draw(st.integers(0, 5))
        )
    return found
