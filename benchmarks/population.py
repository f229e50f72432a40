"""Twenty thousand different companies on one catalogue with every kind of entitlement, and questions about them.

The same seed makes the same companies, so that every engine of `benchmarks.engine` is asked the same.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from plangate.engine.catalog import (
    Audience,
    Catalog,
    Condition,
    Entitlement,
    Feature,
    Flag,
    PlanVersion,
    Price,
    PriceOwner,
    Rule,
)
from plangate.engine.entitlements import build_snapshot, window_kinds
from plangate.engine.facts import (
    AssignmentFact,
    CompanyFacts,
    Override,
    PlanSource,
    SubscriptionFact,
    SubscriptionItem,
    UserFacts,
    WindowCounter,
)
from plangate.engine.snapshot import CompanySnapshot, CounterKey
from plangate.engine.values import UNLIMITED, FeatureType, Interval, OverrideMode, PeriodKind, Stacking

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEGAN = datetime(2026, 11, 3, tzinfo=UTC)
RENEWS = datetime(2026, 12, 3, tzinfo=UTC)
PLANS = ("free", "starter", "pro", "enterprise")
LIMITS = {"exports": (10, 100, 1000, None), "emails": (5, 50, 500, 5000), "renders": (3, 30, 300, 3000)}


USERS: Final[Sequence[UserFacts]] = tuple(
    UserFacts(user_id=f"user_{name}", traits={"role": role})
    for name, role in (("ann", "admin"), ("bob", "member"), ("eve", "guest"))
)


class Asked(NamedTuple):
    """One question: which company, which feature, and which of its users, if any."""

    company: str
    feature: str
    user: UserFacts | None


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """The companies by id: what is known, what they used, and what the engine compiled from it."""

    catalog: Catalog
    facts: dict[str, CompanyFacts]
    counters: dict[str, dict[CounterKey, WindowCounter]]
    snapshots: dict[str, CompanySnapshot]

    def questions(self, number: int, seed: int) -> list[Asked]:
        """So many questions about companies and features at random; one in eight is about a user."""
        dice = random.Random(seed)  # noqa: S311 - which company is asked about, not a secret
        companies, features = list(self.facts), list(self.catalog.features)
        return [
            Asked(dice.choice(companies), dice.choice(features), dice.choice(USERS) if dice.random() < 0.125 else None)
            for _ in range(number)
        ]


def populate(number: int, seed: int = 7) -> Population:
    """So many companies, all different, on one catalogue."""
    dice = random.Random(seed)  # noqa: S311 - made-up companies
    catalog = _catalog()
    facts = {one.company_id: one for one in (_company(index, dice) for index in range(number))}
    return Population(
        catalog=catalog,
        facts=facts,
        counters={key: _counters(catalog, dice) for key in facts},
        snapshots={key: build_snapshot(catalog, one, NOW) for key, one in facts.items()},
    )


def _catalog() -> Catalog:
    features = [
        Feature(key="sso", name="Single sign-on", type=FeatureType.BOOLEAN),
        Feature(key="audit-log", name="Audit log", type=FeatureType.BOOLEAN),
        Feature(key="exports", name="Exports", type=FeatureType.EVENT),
        Feature(key="emails", name="E-mails", type=FeatureType.EVENT),
        Feature(key="renders", name="Renders", type=FeatureType.EVENT),
        Feature(key="tokens", name="Tokens", type=FeatureType.EVENT),
        Feature(key="questions", name="Questions", type=FeatureType.EVENT),
        Feature(key="seats", name="Seats", type=FeatureType.SEAT, trait="seats"),
        Feature(key="projects", name="Projects", type=FeatureType.TRAIT, trait="projects"),
        Feature(key="upload-mb", name="Upload size", type=FeatureType.CONFIG, config_type="number"),
        Feature(
            key="beta",
            name="Beta",
            type=FeatureType.BOOLEAN,
            flag=Flag(
                rules=(
                    Rule(
                        key="large-europe",
                        priority=1,
                        groups=(
                            (
                                Condition(kind="trait", trait="region", value="eu"),
                                Condition(kind="trait", trait="size", operator="gte", value=250),
                            ),
                        ),
                    ),
                    Rule(
                        key="admins",
                        priority=2,
                        groups=((Condition(kind="trait", subject="user", trait="role", value="admin"),),),
                    ),
                )
            ),
        ),
        Feature(key="export-pdf", name="Export as PDF", type=FeatureType.BOOLEAN, flag=Flag(default=True)),
    ]
    plans = [_plan(index, key) for index, key in enumerate(PLANS)]
    add_ons = [
        _version(
            "extra-emails",
            "add_on",
            (Entitlement(feature="emails", limit=500, period=PeriodKind.MONTH, stacking=Stacking.SUM),),
            900,
        ),
        _version("audit", "add_on", (Entitlement(feature="audit-log", enabled=True),), 2900),
    ]
    return Catalog(
        revision=1,
        features={one.key: one for one in features},
        plans={one.key: one for one in plans},
        add_ons={one.key: one for one in add_ons},
        price_owners={
            f"price_{one.key}": PriceOwner(one.kind, one.key, 1, one.prices[0])
            for one in (*plans, *add_ons)
            if one.prices
        },
        initial_plan="free",
        fallback_plan="free",
        trial_expiry_plan="free",
        audiences=(
            Audience(
                key="partners",
                plan="pro",
                groups=((Condition(kind="trait", trait="is_partner", value=True, value_type="boolean"),),),
            ),
        ),
    )


def _plan(index: int, key: str) -> PlanVersion:
    exports, emails, renders = (LIMITS[name][index] for name in ("exports", "emails", "renders"))
    return _version(
        key,
        "plan",
        (
            *([Entitlement(feature="sso", enabled=True)] if index >= 2 else []),
            Entitlement(
                feature="exports", limit=UNLIMITED if exports is None else exports, period=PeriodKind.BILLING_MONTH
            ),
            Entitlement(feature="emails", limit=emails, period=PeriodKind.MONTH),
            Entitlement(feature="renders", limit=renders, period=PeriodKind.DAY),
            Entitlement(feature="renders", limit=(renders or 0) * 10, period=PeriodKind.MONTH),
            Entitlement(feature="tokens", limit=UNLIMITED, soft_limit=1000 * (index + 1), period=PeriodKind.MONTH),
            Entitlement(feature="questions", limit=50 * (index + 1), period=PeriodKind.DAY, scope="user"),
            Entitlement(feature="seats", limit=5 * (index + 1)),
            Entitlement(feature="projects", limit_trait="project_quota"),
            Entitlement(feature="upload-mb", config=64 << index),
        ),
        None if index == 0 else 1900 * index,
    )


def _version(key: str, kind: str, entitlements: tuple[Entitlement, ...], amount: int | None) -> PlanVersion:
    price = (
        ()
        if amount is None
        else (Price(currency="usd", interval=Interval.MONTH, amount_minor=amount, stripe_price_id=f"price_{key}"),)
    )
    return PlanVersion(
        key=key,
        version=1,
        kind="plan" if kind == "plan" else "add_on",
        name=key.capitalize(),
        entitlements=entitlements,
        prices=price,
    )


def _company(index: int, dice: random.Random) -> CompanyFacts:
    plan = dice.choice(PLANS)
    add_ons = [key for key in ("extra-emails", "audit") if plan != "free" and dice.random() < 0.25]
    is_subscribed = plan != "free" and dice.random() < 0.8
    company_id = f"comp_{index:08d}"
    traits: dict[str, str | int | float | bool | None] = {
        "region": dice.choice(["eu", "us", "asia"]),
        "size": dice.randrange(1, 1000),
        "is_partner": dice.random() < 0.02,
        "seats": dice.randrange(0, 25),
        "projects": dice.randrange(0, 12),
    }
    if dice.random() < 0.9:
        traits["project_quota"] = 10
    return CompanyFacts(
        company_id=company_id,
        version=1,
        created_at=BEGAN - timedelta(days=dice.randrange(0, 700)),
        keys=frozenset({f"id=company-{index}"}),
        traits=traits,
        subscriptions=(_subscription(company_id, plan, add_ons, dice),) if is_subscribed else (),
        assignments=()
        if is_subscribed or plan == "free"
        else (AssignmentFact(kind="plan", key=plan, source=PlanSource.ASSIGNMENT, held_from=BEGAN),),
        overrides=tuple(_overrides(company_id, dice)),
    )


def _subscription(company_id: str, plan: str, add_ons: Sequence[str], dice: random.Random) -> SubscriptionFact:
    # A trial that ended without a card is paused.
    is_expired = dice.random() < 0.03
    return SubscriptionFact(
        stripe_subscription_id=f"sub_{company_id}",
        stripe_customer_id=f"cus_{company_id}",
        status="paused" if is_expired else dice.choice(["active", "active", "active", "trialing", "past_due"]),
        trial_end_at=NOW - timedelta(days=1) if is_expired else None,
        items=tuple(
            SubscriptionItem(
                stripe_item_id=f"si_{key}",
                stripe_price_id=f"price_{key}",
                stripe_product_id=f"prod_{key}",
                quantity=1 if key == plan else dice.randrange(1, 4),
                is_metered=False,
                currency="usd",
                interval=Interval.MONTH,
                interval_count=1,
                unit_amount_minor=None,
                period_start_at=BEGAN,
                period_end_at=RENEWS,
            )
            for key in (plan, *add_ons)
        ),
        currency="usd",
        anchor_at=BEGAN,
        started_at=BEGAN,
        past_due_since=NOW - timedelta(days=dice.randrange(1, 12)),
    )


def _overrides(company_id: str, dice: random.Random) -> list[Override]:
    wanted: list[tuple[str, OverrideMode, object, str | None]] = []
    if dice.random() < 0.1:
        wanted.append(("exports", OverrideMode.ADD, 500, None))
    if dice.random() < 0.05:
        wanted.append(("seats", OverrideMode.SET, 40, None))
    if dice.random() < 0.03:
        wanted.append(("sso", OverrideMode.DENY, None, None))
    if dice.random() < 0.03:
        wanted.append(("upload-mb", OverrideMode.SET, 2048, None))
    if dice.random() < 0.03:
        wanted.append(("questions", OverrideMode.ADD, 25, "user_ann"))
    return [
        Override(
            id=f"ovr_{company_id}_{feature}",
            feature=feature,
            mode=mode,
            value=value,
            user=user,
            starts_at=BEGAN,
            expires_at=RENEWS + timedelta(days=30) if dice.random() < 0.5 else None,
        )
        for feature, mode, value, user in wanted
    ]


def _counters(catalog: Catalog, dice: random.Random) -> dict[CounterKey, WindowCounter]:
    bounds = {
        PeriodKind.DAY: (datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC)),
        PeriodKind.MONTH: (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        PeriodKind.BILLING_MONTH: (BEGAN, RENEWS),
    }
    found: dict[CounterKey, WindowCounter] = {}
    for feature in catalog.features:
        most = dice.choice([12, 120, 1200])
        users = ["", "user_ann", "user_bob"] if feature == "questions" else [""]
        for kind in window_kinds(catalog, feature):
            for user in users:
                # One in eight has not used it in this period: nothing is stored.
                if dice.random() < 0.875:
                    start, end = bounds[kind]
                    found[feature, kind, user] = WindowCounter(
                        window_id=f"win_{len(found)}", start_at=start, end_at=end, used=dice.randrange(most)
                    )
    return found
