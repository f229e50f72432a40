"""Random lives of one company: the catalogue changes, subscriptions come and go, time passes, usage is counted.

A life is made by a seed alone, so that a mismatch can be lived again. Every step changes one thing or moves the clock,
often to an instant at which something begins or ends, and then asks one question.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace

from plangate.engine.catalog import (
    Audience,
    Catalog,
    CatalogSettings,
    Feature,
    Flag,
    KeptVersions,
    PlanVersion,
    Price,
    PriceOwner,
    Rule,
    version_key,
)
from plangate.engine.facts import (
    AssignmentFact,
    CompanyFacts,
    Override,
    PlanRef,
    PlanSource,
    SubscriptionFact,
    SubscriptionItem,
    UserFacts,
    VersionPin,
    WindowCounter,
)
from plangate.engine.values import (
    FeatureType,
    Interval,
    OverrideMode,
    PeriodKind,
    TraitValue,
)
from tests.engine.calendar_oracle import Billing, window
from tests.engine.drawn import any_entitlements, any_groups, priced
from tests.engine.standing_oracle import Standing

BEGINNING = datetime(2026, 1, 31, 9, tzinfo=UTC)
PLANS = ("free", "starter", "pro", "expired")
ADD_ONS = ("extra", "audit")
FEATURES = {
    one.key: one
    for one in (
        Feature(key="exports", name="Exports", type=FeatureType.EVENT),
        Feature(key="emails", name="E-mails", type=FeatureType.EVENT),
        Feature(key="sso", name="Single sign-on", type=FeatureType.BOOLEAN),
        Feature(key="seats", name="Seats", type=FeatureType.SEAT, trait="people"),
        Feature(key="projects", name="Projects", type=FeatureType.TRAIT),
        Feature(key="upload", name="Upload", type=FeatureType.CONFIG, config_type="number"),
        Feature(key="theme", name="Theme", type=FeatureType.CONFIG, config_type="string"),
        Feature(key="beta", name="Beta", type=FeatureType.BOOLEAN),
    )
}
USERS = (
    UserFacts(user_id="user_ann", keys=frozenset({"email=ann"}), traits={"role": "admin", "age": 30}),
    UserFacts(user_id="user_bob", traits={"role": "member"}),
)
STATUSES = ("active", "active", "trialing", "past_due", "unpaid", "paused", "canceled", "incomplete", "novel")
PRICES = {"starter": 1900, "pro": 4900, "extra": 900, "audit": 2900}


class Question(NamedTuple):
    """What is asked after a step."""

    feature: str
    quantity: int
    user: UserFacts | None


class Life:
    """One company and one catalogue; `step` makes something happen and gives the question that follows."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - a life to be lived again, not a secret
        self.at = BEGINNING + timedelta(minutes=self.dice.randrange(60 * 24 * 400))
        zone = self.dice.choice(["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"])
        self.catalog = Catalog(
            revision=0,
            features=FEATURES,
            settings=CatalogSettings(
                past_due_grace_days=self.dice.choice([0, 7]), time_zone=zone, week_start=self.dice.randrange(7)
            ),
        )
        self.company = CompanyFacts(
            company_id="comp_acme",
            version=1,
            created_at=self.at - timedelta(days=self.dice.randrange(100)),
            keys=frozenset({"id=acme"}),
        )
        self.counters: dict[tuple[str, PeriodKind, str], WindowCounter] = {}
        self.number = 0
        self.published: dict[str, list[tuple[int, datetime]]] = {}
        for key in (*PLANS, *ADD_ONS):
            self._publish(key)
        self._roles()

    def step(self) -> Question:
        """Something happens, and somebody asks."""
        happening = self.dice.choices(
            (
                self._pass_time,
                self._count,
                self._override,
                self._end_override,
                self._trait,
                self._subscribe,
                self._change_subscription,
                self._assign,
                self._publish_one,
                self._migrate,
                self._roles,
                self._flag,
            ),
            (30, 25, 12, 4, 8, 6, 10, 5, 5, 2, 2, 4),
        )[0]
        happening()
        feature = self.dice.choice([*FEATURES, "exports", "emails", "nothing"])
        user = self.dice.choice([None, None, *USERS])
        return Question(feature, self.dice.choice([0, 1, 1, 1, 2, 5, 40]), user)

    # --- time and usage --------------------------------------------------------------------------

    def _pass_time(self) -> None:
        ahead = [instant for instant in self._instants() if instant > self.at]
        if ahead and self.dice.random() < 0.5:
            instant = min(ahead) if self.dice.random() < 0.7 else self.dice.choice(ahead)
            self.at = instant - timedelta(microseconds=self.dice.choice([0, 0, 1]))
            return
        self.at += timedelta(minutes=self.dice.choice([1, 60, 60 * 24, 60 * 24 * 10, 60 * 24 * 45]))

    def _instants(self) -> Iterator[datetime]:
        company = self.company
        found: list[datetime | None] = [one.end_at for one in self.counters.values()]
        for override in company.overrides:
            found += [override.starts_at, override.expires_at]
        for assignment in company.assignments:
            found += [assignment.held_from, assignment.held_until]
        for one in company.subscriptions:
            found += [one.ended_at, one.trial_end_at, one.items[0].period_end_at]
            if one.past_due_since is not None:
                found += [one.past_due_since + timedelta(days=days) for days in (0, 3, 7)]
        yield from (instant for instant in found if instant is not None)

    def _count(self) -> None:
        feature, user = self.dice.choice(["exports", "emails"]), self.dice.choice(["", "user_ann", "user_bob"])
        quantity = self.dice.choice([1, 2, 5, 10, 20, -3])
        for kind in PeriodKind:
            for who in {"", user}:
                counter = self._window(feature, kind, who)
                counter.used += quantity
                counter.reserved = self.dice.choice([0, 0, 0, 2])

    def _window(self, feature: str, kind: PeriodKind, who: str) -> WindowCounter:
        stored = self.counters.get((feature, kind, who))
        if stored is not None and (stored.end_at is None or self.at < stored.end_at):
            return stored
        start, end = self._bounds(kind)
        start = start or BEGINNING
        if stored is not None and stored.end_at is not None:
            start = max(start, stored.end_at)
        self.number += 1
        opened = WindowCounter(window_id=f"win_{self.number}", start_at=start, end_at=end)
        self.counters[feature, kind, who] = opened
        return opened

    def _bounds(self, kind: PeriodKind) -> tuple[datetime | None, datetime | None]:
        settings = self.catalog.settings
        return window(kind.value, self.at, self._billing(), settings.time_zone, settings.week_start)

    def _billing(self) -> Billing:
        return Standing(self.catalog, self.company, self.at).billing()

    # --- facts about the company -----------------------------------------------------------------

    def _know(self, **fields: Any) -> None:  # noqa: ANN401 - any fact of the company
        before = self._billing()
        self.company = replace(self.company, version=self.company.version + 1, **fields)
        if self._billing() != before:
            # Running windows keep their start and end with the new anchor's period.
            for (_, kind, _), counter in self.counters.items():
                is_running = counter.start_at <= self.at and (counter.end_at is None or self.at < counter.end_at)
                if is_running and kind in {PeriodKind.BILLING_MONTH, PeriodKind.BILLING_INTERVAL}:
                    counter.end_at = self._bounds(kind)[1]

    def _override(self) -> None:
        feature = self.dice.choice(list(FEATURES))
        mode = self.dice.choice(list(OverrideMode))
        values: dict[FeatureType, list[Any]] = {
            FeatureType.BOOLEAN: [True, True, False],
            FeatureType.CONFIG: [16, 4096] if feature == "upload" else ["dark", "light"],
        }
        starts_at = self.at + timedelta(hours=self.dice.choice([-1, 0, 5, 200]))
        lasts = self.dice.choice([None, timedelta(hours=1), timedelta(days=9)])
        self.number += 1
        made = Override(
            id=f"ovr_{self.number}",
            feature=feature,
            mode=mode,
            value=None
            if mode is OverrideMode.DENY
            else self.dice.choice(values.get(FEATURES[feature].type, [0, 3, 50, "unlimited", 7.5])),
            starts_at=starts_at,
            expires_at=None if lasts is None else starts_at + lasts,
            user=self.dice.choice([None, None, "user_ann", "user_bob"]),
            period=self.dice.choice([None, None, *PeriodKind]),
        )
        self._know(overrides=(*self.company.overrides[-6:], made))

    def _end_override(self) -> None:
        """Revoked now, or gone without a trace as when it was never known."""
        if not self.company.overrides:
            return
        chosen = self.dice.choice(self.company.overrides)
        others = tuple(one for one in self.company.overrides if one is not chosen)
        ended = () if chosen.starts_at >= self.at else (replace(chosen, expires_at=self.at),)
        self._know(overrides=(*others, *ended))

    def _trait(self) -> None:
        name = self.dice.choice(["people", "projects", "quota", "region", "since", "size"])
        values: dict[str, list[TraitValue]] = {
            "region": ["eu", "us", None, 5],
            "since": ["2026-01-01", "2026-06-01T00:00:00Z", "2027-03-01T10:00:00+02:00", "soon", 2026],
            "size": [10, 250, 250.5, "250", True],
        }
        traits = dict(self.company.traits)
        if self.dice.random() < 0.2:
            traits.pop(name, None)
        else:
            traits[name] = self.dice.choice(values.get(name, [0, 3, 4.2, 9, -2, "4", True, None]))
        self._know(traits=traits)

    def _subscribe(self) -> None:
        self.number += 1
        interval = self.dice.choice([Interval.MONTH, Interval.MONTH, Interval.YEAR])
        anchor = self.at - timedelta(hours=self.dice.choice([0, 3, 24 * 20]))
        made = SubscriptionFact(
            stripe_subscription_id=f"sub_{self.dice.randrange(10**6)}_{self.number}",
            stripe_customer_id="cus_acme",
            status="active",
            items=self._items(interval, anchor, (anchor, anchor + timedelta(days=self.dice.choice([14, 30, 365])))),
            currency="usd",
            anchor_at=anchor,
            started_at=anchor,
            trial_end_at=self.dice.choice([None, anchor + timedelta(days=14)]),
        )
        self._keep_subscriptions((*self.company.subscriptions[-1:], made))

    def _items(
        self, interval: Interval, anchor: datetime, paid: tuple[datetime, datetime]
    ) -> tuple[SubscriptionItem, ...]:
        keys = [self.dice.choice(["starter", "pro", "pro", "mystery"])]
        keys += [key for key in ADD_ONS if self.dice.random() < 0.3]
        several: list[int | None] = [1, 1, 2, 3]
        chosen = [(key, self.dice.choice(self._prices(key, interval)), several, 0.1) for key in keys]
        if self.dice.random() < 0.05:
            chosen = []
        # Prices of single features: of what is held, sometimes of what is not, with a quantity or without.
        parts = [price for price, owner in self.catalog.price_owners.items() if owner.feature is not None]
        for price in self.dice.sample(parts, min(len(parts), self.dice.choice([0, 1, 3]))):
            chosen.append((price, price, [None, 0, 1, 4, 9], 0.3))
        self.dice.shuffle(chosen)
        return tuple(
            SubscriptionItem(
                stripe_item_id=f"si_{key}",
                stripe_price_id=price,
                stripe_product_id=f"prod_{key}",
                quantity=self.dice.choice(quantities),
                is_metered=self.dice.random() < metered,
                currency="usd",
                interval=interval,
                interval_count=1,
                unit_amount_minor=None,
                period_start_at=paid[0],
                period_end_at=paid[1],
                held_since=self.dice.choice([None, self.at, self.at - timedelta(days=9)]),
            )
            for key, price, quantities, metered in chosen or [("mystery", "price_mystery", several, 0.0)]
        )

    def _prices(self, key: str, interval: Interval) -> list[str]:
        """Every price ever of a plan or add-on, or one that nobody knows."""
        owners = self.catalog.price_owners.items()
        known = [
            price
            for price, owner in owners
            if owner.key == key and owner.price.interval is interval and owner.feature is None
        ]
        return known or [f"price_{key}"]

    def _change_subscription(self) -> None:
        if not self.company.subscriptions:
            self._subscribe()
            return
        chosen = self.dice.choice(self.company.subscriptions)
        item = chosen.items[0]
        changed = chosen
        match self.dice.choice(["status", "status", "items", "renewal", "end", "trial_over"]):
            case "status":
                status = self.dice.choice(STATUSES)
                since = self.dice.choice([None, self.at - timedelta(days=self.dice.choice([0, 3, 8]))])
                changed = replace(chosen, status=status, past_due_since=since)
            case "items":
                interval = self.dice.choice([item.interval, Interval.MONTH, Interval.YEAR])
                anchor = chosen.anchor_at if interval is item.interval else self.at
                paid = (item.period_start_at, item.period_end_at) if interval is item.interval else None
                paid = paid or (self.at, self.at + timedelta(days=365 if interval is Interval.YEAR else 31))
                changed = replace(chosen, items=self._items(interval, anchor, paid), anchor_at=anchor)
            case "renewal":
                ends_at = item.period_end_at + timedelta(days=31)
                renewed = [
                    replace(one, period_start_at=item.period_end_at, period_end_at=ends_at) for one in chosen.items
                ]
                changed = replace(chosen, items=tuple(renewed))
            case "end":
                ended_at = self.at + timedelta(hours=self.dice.choice([0, 0, 30]))
                changed = replace(chosen, status=self.dice.choice(["canceled", chosen.status]), ended_at=ended_at)
            case _:
                status = self.dice.choice(["paused", "canceled"])
                changed = replace(chosen, status=status, trial_end_at=self.at, ended_at=self.at)
        self._keep_subscriptions(tuple(changed if one is chosen else one for one in self.company.subscriptions))

    def _keep_subscriptions(self, subscriptions: tuple[SubscriptionFact, ...]) -> None:
        held = [self.catalog.price_owners.get(item.stripe_price_id) for one in subscriptions for item in one.items]
        plans = [
            PlanRef(one.key, one.version)
            for one in held
            if one is not None and one.kind == "plan" and one.feature is None
        ]
        last = plans[0] if plans and self.dice.random() < 0.8 else self.company.last_mapped_plan
        self._know(subscriptions=subscriptions, last_mapped_plan=last)

    def _assign(self) -> None:
        kind: Literal["plan", "add_on"] = self.dice.choice(["plan", "plan", "add_on"])
        held_from = self.at + timedelta(hours=self.dice.choice([-24, 0, 48]))
        lasts = self.dice.choice([None, timedelta(days=1), timedelta(days=40)])
        made = AssignmentFact(
            kind=kind,
            key=self.dice.choice([*PLANS, "unheard"] if kind == "plan" else ADD_ONS),
            source=self.dice.choice([PlanSource.ASSIGNMENT, PlanSource.AUDIENCE, PlanSource.INITIAL])
            if kind == "plan"
            else PlanSource.ASSIGNMENT,
            held_from=held_from,
            held_until=None if lasts is None else held_from + lasts,
            quantity=self.dice.choice([1, 1, 3]),
            version=self.dice.choice([None, 1, 2]),
        )
        self._know(assignments=(*self.company.assignments[-2:], made))

    # --- the catalogue ---------------------------------------------------------------------------

    def _change_catalog(self, **fields: Any) -> None:  # noqa: ANN401 - any part of the catalogue
        self.catalog = replace(self.catalog, revision=self.catalog.revision + 1, **fields)

    def _publish_one(self) -> None:
        self._publish(self.dice.choice([*PLANS, *ADD_ONS]))

    def _publish(self, key: str) -> None:
        """A new version, to which everybody is migrated or nobody. A price that stays the same sells it too."""
        kind: Literal["plan", "add_on"] = "add_on" if key in ADD_ONS else "plan"
        before = self.catalog.newest(kind, key)
        number = 1 if before is None else before.version + 1
        older = dict(self.catalog.older_versions)
        if before is not None:
            older[version_key(kind, key, before.version)] = before
        prices: tuple[Price, ...] = ()
        if key in PRICES:
            amount = PRICES[key] + self.dice.choice([0, 0, 3000])
            prices = tuple(
                Price(
                    currency="usd",
                    interval=interval,
                    amount_minor=amount * times,
                    stripe_price_id=f"price_{key}_{amount}_{interval.value}",
                )
                for interval, times in ((Interval.MONTH, 1), (Interval.YEAR, 10))
            )
        made = PlanVersion(
            key=key,
            version=number,
            kind=kind,
            name=key.capitalize(),
            entitlements=tuple(priced(self.dice, key, one) for one in any_entitlements(self.dice)),
            prices=prices,
            is_archived=self.dice.random() < 0.1,
        )
        sold = [
            (owner.price, owner.feature)
            for owner in self.catalog.price_owners.values()
            if (owner.kind, owner.key) == (kind, key)
        ]
        sold += [(price, None) for price in prices]
        sold += [(price, one.feature) for one in made.entitlements for price in one.prices]
        owners = {
            str(one.stripe_price_id): PriceOwner(kind, key, number, one, feature=feature) for one, feature in sold
        }
        newest = {**(self.catalog.plans if kind == "plan" else self.catalog.add_ons), key: made}
        left = [] if self.dice.random() < 0.5 else self.published.get(key, [])
        self.published[key] = [*left, (number, self.at)]
        kept = {name: one for name, one in self.catalog.kept.items() if name != f"{kind}/{key}"}
        if left:
            kept[f"{kind}/{key}"] = KeptVersions(tuple(self.published[key]))
        field = "plans" if kind == "plan" else "add_ons"
        self._change_catalog(
            **{field: newest},
            older_versions=older,
            price_owners={**self.catalog.price_owners, **owners},
            kept=kept,
        )

    def _migrate(self) -> None:
        """Only this company is moved to a newer version."""
        key = self.dice.choice([*PLANS, *ADD_ONS])
        kind: Literal["plan", "add_on"] = "add_on" if key in ADD_ONS else "plan"
        version = self.dice.choice(self.published[key])[0]
        others = tuple(one for one in self.company.pins if one.key != key)
        self._know(pins=(*others, VersionPin(kind, key, version)))

    def _roles(self) -> None:
        dice = self.dice
        audiences = tuple(
            Audience(
                key=f"audience-{number}",
                plan=dice.choice([*PLANS, "unheard"]),
                priority=dice.randrange(3),
                groups=any_groups(dice, dice.choice([0, 1, 1, 2])),
            )
            for number in range(dice.choice([0, 0, 1, 2]))
        )
        self._change_catalog(
            initial_plan=dice.choice(["free", "free", None]),
            fallback_plan=dice.choice(["free", "free", None, "starter"]),
            trial_expiry_plan=dice.choice(["expired", None]),
            audiences=audiences,
        )

    def _flag(self) -> None:
        key = self.dice.choice(["exports", "seats", "sso", "upload", "beta", "beta"])
        rules = tuple(
            Rule(
                key=f"rule-{number}",
                priority=self.dice.randrange(3),
                allowed=self.dice.random() < 0.8,
                groups=any_groups(self.dice, self.dice.choice([1, 1, 2])),
            )
            for number in range(self.dice.choice([0, 1, 1, 2]))
        )
        feature = self.catalog.features[key]
        flag = Flag(forced=self.dice.choice([None] * 6 + [True, False]), rules=rules, default=self.dice.random() < 0.2)
        changed = replace(feature, flag=flag, is_archived=self.dice.random() < 0.1)
        self._change_catalog(features={**self.catalog.features, key: changed})
