"""What a company is on, read from product.md rule by rule: the half of the oracle that looks at no usage."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from plangate.engine.catalog import Catalog, Condition, Entitlement, Feature, PlanVersion
from plangate.engine.facts import (
    AssignmentFact,
    CompanyFacts,
    PlanSource,
    SubscriptionFact,
    SubscriptionItem,
    UserFacts,
)
from plangate.engine.values import INT64_MAX, Json
from tests.engine.calendar_oracle import Billing

# A version held and how many of it; a source as (kind, key, version).
Held = tuple[PlanVersion, int | None]
Source = tuple[str, str | None, int | None]


class Standing:
    """What a company is on at one instant."""

    def __init__(self, catalog: Catalog, company: CompanyFacts, at: datetime) -> None:
        self.catalog, self.company, self.at = catalog, company, at
        self.live = [one for one in company.subscriptions if self._is_live(one)]
        self.products = {item.stripe_product_id for one in self.live for item in one.items}
        bought = [held for one in self.live for held in self._read(one) if held[0].kind == "add_on"]
        self.add_ons = together([*bought, *(self._held(one) for one in self._running("add_on"))])
        self.plans: list[Held] = []
        self.source: PlanSource | None = None
        self.audience: str | None = None
        self.carrier = next((one for one in self.live if self._is_of_ours(one)), None)
        self.since: datetime | None = None
        self._find_plan()

    def _is_live(self, one: SubscriptionFact) -> bool:
        if one.ended_at is not None and one.ended_at <= self.at:
            return False
        if one.status != "past_due":
            return one.status in {"active", "trialing"}
        failed = [one.past_due_since] if one.past_due_since else [item.period_start_at for item in one.items]
        days = self.company.past_due_grace_days
        days = self.catalog.settings.past_due_grace_days if days is None else days
        return not failed or self.at < max(failed) + timedelta(days=days)

    def paid_ahead(self, source: Source, feature: str) -> int:
        """How many units of a feature live subscriptions paid for in advance, as parts of one plan or add-on."""
        total = 0
        for one in self.live:
            for item in one.items:
                owner = self.catalog.price_owners.get(item.stripe_price_id)
                if owner is not None and (owner.feature, owner.kind, owner.key) == (feature, source[0], source[1]):
                    total += 0 if item.is_metered else item.quantity or 0
        return min(total, INT64_MAX)

    def _bought(self, one: SubscriptionFact) -> list[tuple[PlanVersion, int | None, Fraction]]:
        """What each item of a subscription buys, how many, and what one costs each month.

        Prices of single features buy nothing, unless what they are a part of has no price of its own; and a plan only
        where no other one is bought and every price is known.
        """
        whole = self._items_bought(one, are_parts=False)
        is_settled = bool(self._unknown(one)) or any(version.kind == "plan" for version, *_ in whole)
        bought = {(version.kind, version.key, version.version) for version, *_ in whole}
        alone = [
            version
            for version, *_ in self._items_bought(one, are_parts=True)
            if not version.prices
            and (version.kind, version.key, version.version) not in bought
            and not (is_settled and version.kind == "plan")
        ]
        return [*whole, *((version, None, Fraction(0)) for version in alone)]

    def _items_bought(
        self, one: SubscriptionFact, *, are_parts: bool
    ) -> list[tuple[PlanVersion, int | None, Fraction]]:
        found = []
        for item in one.items:
            owner = self.catalog.price_owners.get(item.stripe_price_id)
            if owner is None or (owner.feature is not None) is not are_parts:
                continue
            version = next(
                (v for v in self._versions(owner.kind, owner.key) if v.version == owner.version),
                self._newest(owner.kind, owner.key),
            )
            if f"{owner.kind}/{owner.key}" in self.catalog.kept:
                since = item.held_since or one.started_at
                version = self._taken(owner.kind, owner.key, since, item.stripe_price_id)
            if version is not None:
                quantity = None if item.is_metered else item.quantity
                found.append((version, quantity, monthly(owner.price.amount_minor, owner.price.interval)))
        return found

    def _read(self, one: SubscriptionFact) -> list[Held]:
        return together((version, quantity) for version, quantity, _ in self._bought(one))

    def _versions(self, kind: str, key: str) -> list[PlanVersion]:
        return [version for version in every_version(self.catalog, kind) if version.key == key]

    def _taken(
        self, kind: str, key: str, since: datetime | None, stripe_price_id: str | None = None
    ) -> PlanVersion | None:
        """The version of whoever took it at an instant, unless a migration moved them further."""
        kept = self.catalog.kept.get(f"{kind}/{key}")
        if kept is None or since is None:
            return self._newest(kind, key)
        offered_then = [number for number, published_at in kept.versions if published_at <= since]
        number = offered_then[-1] if offered_then else kept.versions[0][0]
        was_migrated = since < kept.versions[0][1] and kept.versions[0][0] > 1
        if stripe_price_id is not None and not was_migrated:
            known = {version.version: version for version in self._versions(kind, key)}
            selling = [one for one, _ in kept.versions if one in known and stripe_price_id in every_price(known[one])]
            before = [one for one in selling if one <= number]
            number = before[-1] if before else selling[0] if selling else number
        pins = [pin.version for pin in self.company.pins if (pin.kind, pin.key) == (kind, key)]
        number = max([number, *pins])
        return next((one for one in self._versions(kind, key) if one.version == number), self._newest(kind, key))

    def _unknown(self, one: SubscriptionFact) -> list[SubscriptionItem]:
        return [item for item in one.items if item.stripe_price_id not in self.catalog.price_owners]

    def _is_of_ours(self, one: SubscriptionFact) -> bool:
        """One that holds no price of ours, and never did, is another product's."""
        return self.company.last_mapped_plan is not None or len(self._unknown(one)) < len(one.items)

    def _running(self, kind: str) -> list[AssignmentFact]:
        """Assignments in force, the newest first."""
        running = [
            one
            for one in self.company.assignments
            if one.kind == kind
            and one.held_from <= self.at
            and (one.held_until is None or self.at < one.held_until)
            and one.key in {version.key for version in every_version(self.catalog, kind)}
        ]
        return sorted(running, key=lambda one: (one.held_from, one.key), reverse=True)

    def _held(self, one: AssignmentFact) -> Held:
        chosen = [version for version in self._versions(one.kind, one.key) if version.version == one.version]
        taken = chosen[0] if chosen else self._taken(one.kind, one.key, one.held_from)
        assert taken is not None
        return taken, one.quantity

    def _newest(self, kind: str, key: str) -> PlanVersion | None:
        return max(self._versions(kind, key), key=lambda version: version.version, default=None)

    def _find_plan(self) -> None:
        paid: list[tuple[Fraction, str, str, Held, SubscriptionFact]] = []
        said = {version.key for one in self.live for version, _ in self._read(one) if version.kind == "plan"}
        for one in self.live:
            name, last = one.stripe_subscription_id, self.company.last_mapped_plan
            plans = [held for held in self._read(one) if held[0].kind == "plan"]
            for held in plans:
                amounts = [amount for version, _, amount in self._bought(one) if version == held[0]]
                paid.append((max(amounts), name, held[0].key, held, one))
            if not plans and self._unknown(one) and last is not None and last.key not in said:
                known = [version for version in self._versions("plan", last.key) if version.version == last.version]
                stays = known[0] if known else self._newest("plan", last.key)
                if stays is not None:
                    amounts = [monthly(price.amount_minor, price.interval) for price in stays.prices]
                    paid.append((min(amounts, default=Fraction(0)), name, stays.key, (stays, None), one))
        if paid:
            paid.sort(key=lambda one: (-one[0], one[1], one[2]))
            self.plans = together([one[3] for one in paid])
            self.source, self.carrier = PlanSource.SUBSCRIPTION, paid[0][4]
            return
        paying = [
            one
            for one in self.company.subscriptions
            if one.status not in {"incomplete", "incomplete_expired"} and self._is_of_ours(one)
        ]
        for source in (PlanSource.ASSIGNMENT, PlanSource.AUDIENCE, PlanSource.INITIAL):
            if source is PlanSource.AUDIENCE and self.catalog.audiences:
                if self._by_audience():
                    return
                continue
            if source is PlanSource.INITIAL and paying:
                continue
            for assigned in self._running("plan"):
                if assigned.source is source:
                    self.plans, self.source, self.since = [self._held(assigned)], source, assigned.held_from
                    return
        since: datetime | None = self.company.created_at
        if paying:
            ends = [one.ended_at for one in paying if one.ended_at is not None]
            since = max(ends) if len(ends) == len(paying) else None
        roles = [] if paying else [(self.catalog.initial_plan, PlanSource.INITIAL)]
        if self._had_a_trial_last(paying):
            roles.append((self.catalog.trial_expiry_plan, PlanSource.TRIAL_EXPIRY))
        for key, source in (*roles, (self.catalog.fallback_plan, PlanSource.FALLBACK)):
            version = None if key is None else self._taken("plan", key, since)
            if version is not None:
                self.plans, self.source = [(version, None)], source
                return

    def _by_audience(self) -> bool:
        for audience in sorted(self.catalog.audiences, key=lambda one: (one.priority, one.key)):
            version = self._newest("plan", audience.plan)
            if version is None:
                continue
            if any(all(self._admits(condition) for condition in group) for group in audience.groups):
                self.plans, self.source, self.audience = [(version, None)], PlanSource.AUDIENCE, audience.key
                for recorded in self._running("plan"):
                    if recorded.source is PlanSource.AUDIENCE and recorded.key == audience.plan:
                        self.plans, self.since = [self._held(recorded)], recorded.held_from
                        break
                return True
        return False

    def _admits(self, condition: Condition) -> bool:
        if condition.kind in {"plan", "user", "usage"} or condition.subject == "user":
            return False
        return self.meets(condition, None, {})

    def _had_a_trial_last(self, paying: list[SubscriptionFact]) -> bool:
        over = [one for one in paying if self._ended_trial(one)]
        if not over or any(one.ended_at is None and one not in over for one in paying):
            return False
        trial = max(one.trial_end_at for one in over if one.trial_end_at is not None)
        return all(one.ended_at is not None and one.ended_at <= trial for one in paying if one not in over)

    def _ended_trial(self, one: SubscriptionFact) -> bool:
        if one.trial_end_at is None or one.trial_end_at > self.at:
            return False
        return one.status == "paused" or (one.status == "canceled" and one.ended_at == one.trial_end_at)

    def meets(self, condition: Condition, user: UserFacts | None, used: Mapping[str, int | None]) -> bool:
        """Whether one condition is met."""
        names: set[str] | None = None
        match condition.kind:
            case "company":
                names = {self.company.company_id, *self.company.keys}
            case "user" if user is None:
                return False
            case "user":
                names = {user.user_id, *user.keys} if user is not None else set()
            case "plan":
                names = {version.key for version, _ in self.plans}
            case "add_on":
                names = {version.key for version, _ in self.add_ons}
            case "product":
                names = set(self.products)
            case "usage":
                return compared(used.get(condition.feature or ""), condition.operator, condition.value, None)
            case "trait":
                if condition.subject == "user" and user is None:
                    return False
                traits = self.company.traits if condition.subject == "company" or user is None else user.traits
                wanted = condition.value if condition.other_trait is None else traits.get(condition.other_trait)
                actual = traits.get(condition.trait or "")
                return compared(actual, condition.operator, wanted, condition.value_type)
        is_among = bool(names & set(condition.values))
        return not is_among if condition.operator in {"ne", "not_in"} else is_among

    def billing(self) -> Billing:
        """What billing windows are counted from."""
        one = self.carrier
        if one is None:
            return Billing(self.since or self.company.created_at, "month", None)
        item = one.items[0]
        return Billing(one.anchor_at, item.interval.value, (item.period_start_at, item.period_end_at))

    def suspended(self) -> list[PlanVersion]:
        """What subscriptions would grant if they were paid or resumed."""
        waiting = [one for one in self.company.subscriptions if one not in self.live]
        waiting = [one for one in waiting if one.status in {"past_due", "unpaid", "paused", "incomplete"}]
        return [version for one in waiting for version, _ in self._read(one)]

    def granting(self, feature: Feature) -> list[tuple[Source, int | None, Entitlement]]:
        """Everything held that says something about a feature, the base plan first, add-ons last."""
        return [
            ((version.kind, version.key, version.version), quantity, entitlement)
            for version, quantity in (*self.plans, *self.add_ons)
            for entitlement in version.entitlements
            if entitlement.feature == feature.key
        ]


def every_price(version: PlanVersion) -> set[str | None]:
    """The ids of all prices of a version, those of single features among them."""
    prices = [*version.prices, *(price for entitlement in version.entitlements for price in entitlement.prices)]
    return {price.stripe_price_id for price in prices}


def together(held: Iterable[Held]) -> list[Held]:
    """One entry for each version, quantities added where there are any."""
    found: dict[tuple[str, str, int], list[Held]] = {}
    for one in held:
        found.setdefault((one[0].kind, one[0].key, one[0].version), []).append(one)
    merged: list[Held] = []
    for same in found.values():
        numbers = [quantity for _, quantity in same if quantity is not None]
        merged.append((same[0][0], sum(numbers) if numbers else None))
    return merged


def every_version(catalog: Catalog, kind: str) -> list[PlanVersion]:
    """All versions ever published of a kind."""
    newest = catalog.plans if kind == "plan" else catalog.add_ons
    return [*newest.values(), *(one for one in catalog.older_versions.values() if one.kind == kind)]


def monthly(amount_minor: int, interval: str) -> Fraction:
    """What a price comes to each month."""
    return Fraction(amount_minor) / {"month": 1, "year": 12}[interval]


def compared(actual: Json, operator: str, wanted: Json, value_type: str | None) -> bool:
    """A stored value against a wanted one; values of different kinds never match."""
    values = wanted if operator in {"in", "not_in"} else [wanted]
    if not isinstance(values, list | tuple):
        return False
    mine = seen(actual, value_type)
    if mine is None:
        return False
    others = [one for one in (seen(value, value_type) for value in values) if one is not None and one[0] == mine[0]]
    if operator == "in":
        return mine in others
    if operator == "not_in":
        return mine not in others
    if not others:
        return False
    left, right = mine[1], others[0][1]
    if operator in {"eq", "ne"}:
        return bool(left == right) is (operator == "eq")
    if operator == "contains":
        return mine[0] == "string" and bool(right in left)
    if mine[0] == "boolean":
        return False
    return bool({"lt": left < right, "lte": left <= right, "gt": left > right, "gte": left >= right}[operator])


def seen(value: Json, value_type: str | None) -> tuple[str, Json] | None:
    """The kind of a value and how it compares; None when it is missing or of another kind than asked for."""
    if value_type == "date":
        try:
            instant = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return None
        return "date", (instant if instant.tzinfo else instant.replace(tzinfo=UTC))
    kinds = {bool: "boolean", int: "number", float: "number", str: "string"}
    kind = kinds.get(type(value))
    return None if kind is None or value_type not in {None, kind} else (kind, value)
