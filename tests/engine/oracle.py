"""A second engine that shares nothing with the first: product.md read rule by rule, slowly, infinity as a number.

Only the nouns of the model are taken from the engine. Nothing is compiled, cached or ordered cleverly here: every
question begins at the facts.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import ceil, floor, inf

from plangate.engine.catalog import Catalog, Entitlement, Feature
from plangate.engine.decision import Reason
from plangate.engine.facts import CompanyFacts, Counters, Override, UserFacts
from plangate.engine.values import (
    INT64_MAX,
    UNLIMITED,
    FeatureType,
    Json,
    OverrideMode,
    PeriodKind,
    PriceBehaviour,
    Stacking,
)
from tests.engine.calendar_oracle import window
from tests.engine.standing_oracle import Source, Standing, every_version

KINDS = list(PeriodKind)
LIMITED = {FeatureType.EVENT, FeatureType.SEAT, FeatureType.TRAIT}

# What is never exceeded and where overage begins: equal when there is no overage, infinite when there is no end.
Bounds = tuple[float, float]
Granted = dict[PeriodKind | None, tuple[Bounds, Source]]


class Oracle:
    """Answers one question after the other about one company at one instant."""

    def __init__(self, catalog: Catalog, company: CompanyFacts, counters: Counters, at: datetime) -> None:
        self.standing = Standing(catalog, company, at)
        self.catalog, self.company, self.counters, self.at = catalog, company, counters, at

    def answer(self, key: str, quantity: int, user: UserFacts | None) -> dict[str, object]:
        """The Decision as a plain mapping; what it does not name is left at nothing."""
        feature = self.catalog.features.get(key)
        if feature is None:
            return says(False, Reason.UNKNOWN_FEATURE)
        if feature.is_archived:
            return self._plain(feature, False, Reason.ARCHIVED_FEATURE, None)
        shared = [one for one in self._running(feature) if one.user is None]
        own = [] if user is None else [one for one in self._running(feature) if one.user == user.user_id]
        if feature.flag.forced is not None:
            reason = Reason.FLAG_ON if feature.flag.forced else Reason.FLAG_OFF
            value = self._config(feature, shared)[0] if feature.type is FeatureType.CONFIG else None
            return self._switched(feature, feature.flag.forced, reason, ("flag", key, None), quantity, value)
        for one in (*shared, *own):
            if denies(feature, one):
                return self._plain(feature, False, Reason.OVERRIDE_DENIED, ("override", one.id, None))
        found = self._granted(feature, shared, own, quantity, user)
        return found if found is not None else self._ruled(feature, quantity, user)

    def _running(self, feature: Feature) -> list[Override]:
        return [
            one
            for one in self.company.overrides
            if one.feature == feature.key
            and one.starts_at <= self.at
            and (one.expires_at is None or self.at < one.expires_at)
        ]

    def _granted(
        self,
        feature: Feature,
        shared: Sequence[Override],
        own: Sequence[Override],
        quantity: int,
        user: UserFacts | None,
    ) -> dict[str, object] | None:
        if feature.type is FeatureType.BOOLEAN:
            for source, _, entitlement in self.standing.granting(feature):
                if entitlement.enabled:
                    return self._plain(feature, True, Reason.GRANTED, source)
            for one in (*shared, *own):
                if one.mode is OverrideMode.SET and one.value is True:
                    return self._plain(feature, True, Reason.OVERRIDE, ("override", one.id, None))
            return None
        if feature.type is FeatureType.CONFIG:
            value, found = self._config(feature, [*shared, *own])
            if found is None:
                return None
            reason = Reason.OVERRIDE if found[0] == "override" else Reason.GRANTED
            return self._plain(feature, True, reason, found, value)
        for_all, for_each, missing = self._allowed(feature, shared, own)
        if not for_all and not for_each:
            return None if missing is None else self._plain(feature, False, Reason.TRAIT_MISSING, missing)
        if feature.type is not FeatureType.EVENT:
            (hard, soft), source = max((*for_all.values(), *for_each.values()), key=lambda one: one[0])
            taken = self._in_use(feature)
            if taken is not None:
                return limited(hard, soft, source, taken, 0, quantity, None)
            if hard == inf:
                return says(True, Reason.UNLIMITED, source, unlimited=True, soft_limit=None if soft == inf else soft)
            return says(False, Reason.TRAIT_MISSING, source, limit=hard)
        rooms = [(bounds, source, kind, "") for kind, (bounds, source) in sorted_kinds(for_all)]
        if user is not None:
            rooms += [(bounds, source, kind, user.user_id) for kind, (bounds, source) in sorted_kinds(for_each)]
        if not rooms:
            (hard, _), source = max((one for _, one in sorted_kinds(for_each)), key=lambda one: one[0])
            return says(False, Reason.UNKNOWN_USER, source, limit=None if hard == inf else hard)
        answers = []
        for (hard, soft), source, kind, who in rooms:
            used, reserved, period = self._counted(feature, kind or PeriodKind.ALL_TIME, who)
            answers.append(limited(hard, soft, source, used, reserved, quantity, period))
        return max(zip(answers, (one[0] for one in rooms), strict=True), key=lambda one: room(*one))[0]

    def _allowed(
        self, feature: Feature, shared: Sequence[Override], own: Sequence[Override]
    ) -> tuple[Granted, Granted, Source | None]:
        """What all share, what each user has of their own, and a source whose limit is missing."""
        all_parts: list[tuple[PeriodKind | None, bool, Bounds, Source]] = []
        each_parts: list[tuple[PeriodKind | None, bool, Bounds, Source]] = []
        missing: Source | None = None
        is_counted = feature.type is FeatureType.EVENT
        for source, held, entitlement in self.standing.granting(feature):
            amount = self._amount(source, entitlement, held)
            if amount is None:
                if entitlement.limit is None and entitlement.limit_trait is not None:
                    missing = missing or source
                continue
            kind = (entitlement.period or PeriodKind.ALL_TIME) if is_counted else None
            part = (kind, entitlement.stacking is Stacking.SUM, amount, source)
            (each_parts if is_counted and entitlement.scope == "user" else all_parts).append(part)
        own_sets = [one for one in own if one.mode is OverrideMode.SET]
        own_adds = [one for one in own if one.mode is OverrideMode.ADD]
        everywhere = self._usual_kind(feature) if is_counted else None
        for_all = stacked(all_parts)
        if not all_parts and each_parts:
            for_each = overridden(stacked(each_parts), [*shared, *own_sets, *own_adds], everywhere)
            return for_all, for_each, missing
        for_all = overridden(for_all, [*shared, *([] if each_parts else own_adds)], everywhere)
        fallback = longest(for_all, everywhere)
        mine = [*own_sets, *(own_adds if each_parts else [])]
        return for_all, overridden(stacked(each_parts), mine, fallback), missing

    def _amount(self, source: Source, entitlement: Entitlement, held: int | None) -> Bounds | None:
        in_advance = entitlement.price_behaviour is PriceBehaviour.PAY_IN_ADVANCE
        bought = self.standing.paid_ahead(source, entitlement.feature) if in_advance else 0
        if bought:
            hard = float(bought)
        elif entitlement.limit is not None:
            hard = float(max(0, entitlement.limit)) if isinstance(entitlement.limit, int) else inf
        elif entitlement.limit_trait is not None:
            stored = self.company.traits.get(entitlement.limit_trait)
            if isinstance(stored, bool) or not isinstance(stored, int | float):
                return None
            hard = max(0, floor(stored))
        elif entitlement.enabled:
            hard = inf
        else:
            return None
        times = 1
        if held is not None and entitlement.stacking is Stacking.SUM and not in_advance:
            times = held
        soft = entitlement.soft_limit
        if soft is not None and hard <= soft:
            hard = inf
        hard = inf if hard == inf else hard * times
        return hard, hard if soft is None else soft * times

    def _usual_kind(self, feature: Feature) -> PeriodKind:
        """The longest period in which anything on offer, now or ever, grants the feature."""
        offered = [*every_version(self.catalog, "plan"), *every_version(self.catalog, "add_on")]
        kinds = [
            entitlement.period or PeriodKind.ALL_TIME
            for version in offered
            for entitlement in version.entitlements
            if entitlement.feature == feature.key
        ]
        return max(kinds or [PeriodKind.ALL_TIME], key=KINDS.index)

    def _counted(
        self, feature: Feature, kind: PeriodKind, who: str
    ) -> tuple[int, int, tuple[str, datetime | None, datetime | None]]:
        stored = self.counters.get((feature.key, kind, who))
        if stored is not None and stored.start_at <= self.at and (stored.end_at is None or self.at < stored.end_at):
            start = None if stored.end_at is None else stored.start_at
            return max(0, stored.used), stored.reserved, (kind.value, start, stored.end_at)
        settings = self.catalog.settings
        start, end = window(kind.value, self.at, self.standing.billing(), settings.time_zone, settings.week_start)
        if stored is not None and stored.end_at is not None and start is not None and start < stored.end_at <= self.at:
            start = stored.end_at
        return 0, 0, (kind.value, start, end)

    def _in_use(self, feature: Feature) -> int | None:
        stored = self.company.traits.get(feature.trait or feature.key)
        if isinstance(stored, bool) or not isinstance(stored, int | float):
            return None
        return max(0, ceil(stored))

    def _config(self, feature: Feature, overrides: Iterable[Override]) -> tuple[Json, Source | None]:
        setting = [one for one in overrides if one.mode is OverrideMode.SET]
        if setting:
            one = max(setting, key=lambda one: (one.user is not None, one.starts_at, one.id))
            return one.value, ("override", one.id, None)
        given = [(one.config, source) for source, _, one in self.standing.granting(feature) if one.config is not None]
        if not given:
            return None, None
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in given):
            return max(given, key=lambda one: float(one[0]))
        return given[-1]

    def _ruled(self, feature: Feature, quantity: int, user: UserFacts | None) -> dict[str, object]:
        used = {key: self._used(one) for key, one in self.catalog.features.items()}
        for rule in sorted(feature.flag.rules, key=lambda one: (one.priority, one.key)):
            if any(all(self.standing.meets(condition, user, used) for condition in group) for group in rule.groups):
                source = ("rule", rule.key, None)
                return self._switched(feature, rule.allowed, Reason.RULE_MATCHED, source, quantity)
        default = ("default", None, None)
        if feature.flag.default:
            return self._switched(feature, True, Reason.DEFAULT, default, quantity)
        would_grant = any(
            entitlement.feature == feature.key and entitlement.enabled is not False
            for version in self.standing.suspended()
            for entitlement in version.entitlements
        )
        reason = Reason.DEFAULT if feature.flag.rules else Reason.NO_ENTITLEMENT
        return self._plain(feature, False, Reason.SUBSCRIPTION_INACTIVE if would_grant else reason, default)

    def _used(self, feature: Feature) -> int | None:
        """What rules about usage see: the company's usage in the longest window that answers its questions."""
        if feature.type is not FeatureType.EVENT:
            return self._in_use(feature) if feature.type in LIMITED else None
        kind = self._usual_kind(feature)
        shared = [one for one in self._running(feature) if one.user is None]
        is_settled = feature.is_archived or feature.flag.forced is not None
        if not is_settled and not any(denies(feature, one) for one in shared):
            for_all, for_each, _ = self._allowed(feature, shared, [])
            kind = max([one for one in (*for_all, *for_each) if one is not None] or [kind], key=KINDS.index)
        stored = self.counters.get((feature.key, kind, ""))
        if stored is None or stored.start_at > self.at or (stored.end_at is not None and stored.end_at <= self.at):
            return 0
        return max(0, stored.used)

    def _switched(
        self, feature: Feature, is_on: bool, reason: Reason, source: Source, quantity: int, value: Json = None
    ) -> dict[str, object]:
        if not is_on or feature.type not in LIMITED:
            return self._plain(feature, is_on, reason, source, value)
        if feature.type is FeatureType.EVENT:
            used, reserved, period = self._counted(feature, self._usual_kind(feature), "")
            return {**limited(inf, inf, source, used, reserved, quantity, period), "reason": reason}
        taken = self._in_use(feature)
        if taken is None:
            return says(True, reason, source, unlimited=True)
        return {**limited(inf, inf, source, taken, 0, quantity, None), "reason": reason}

    def _plain(
        self, feature: Feature, is_on: bool, reason: Reason, source: Source | None, value: Json = None
    ) -> dict[str, object]:
        used = self._in_use(feature) if feature.type in {FeatureType.SEAT, FeatureType.TRAIT} else None
        if reason is Reason.TRAIT_MISSING:
            used = None
        return says(is_on, reason, source, value=is_on if feature.type is FeatureType.BOOLEAN else value, used=used)


def says(is_allowed: bool, reason: Reason, source: Source | None = None, **rest: object) -> dict[str, object]:
    """A Decision as a plain mapping."""
    empty = {
        "value": None,
        "limit": None,
        "unlimited": False,
        "used": None,
        "reserved": None,
        "remaining": None,
        "soft_limit": None,
        "over_soft_limit": False,
        "period": None,
    }
    return {**empty, "allowed": is_allowed, "reason": reason, "source": source, **rest}


def limited(
    hard: float,
    soft: float,
    source: Source,
    used: int,
    reserved: int,
    quantity: int,
    period: tuple[str, datetime | None, datetime | None] | None,
) -> dict[str, object]:
    """A Decision about an amount."""
    taken = used + reserved
    is_allowed = taken + quantity <= hard
    reason = Reason.UNLIMITED if hard == inf else Reason.WITHIN_LIMIT if is_allowed else Reason.LIMIT_REACHED
    return says(
        is_allowed,
        reason,
        source,
        limit=None if hard == inf else hard,
        unlimited=hard == inf,
        used=used,
        reserved=reserved,
        remaining=None if hard == inf else max(0, hard - taken),
        soft_limit=None if soft == hard else soft,
        over_soft_limit=soft != hard and taken + quantity > soft,
        period=period,
    )


def room(answer: Mapping[str, object], bounds: Bounds) -> tuple[float, float]:
    """How much is left before a no, and before overage."""
    taken = int(str(answer["used"])) + int(str(answer["reserved"]))
    return (bounds[0] - taken, bounds[1] - taken) if bounds[0] == inf else (bounds[0] - taken, 0)


def stacked(parts: Sequence[tuple[PeriodKind | None, bool, Bounds, Source]]) -> Granted:
    """One allowance for each period: the most of those that do not add up, and all that do."""
    found: Granted = {}
    for kind in {part[0] for part in parts}:
        singles = [(bounds, source) for of, is_sum, bounds, source in parts if of == kind and not is_sum]
        counting: list[tuple[Bounds, Source]] = []
        if singles:
            bounds = (max(one[0][0] for one in singles), max(one[0][1] for one in singles))
            counting = [(bounds, max(singles, key=lambda one: one[0])[1])]
        counting += [(bounds, source) for of, is_sum, bounds, source in parts if of == kind and is_sum]
        total = (capped(sum(one[0][0] for one in counting)), capped(sum(one[0][1] for one in counting)))
        found[kind] = total, max(counting, key=lambda one: one[0])[1]
    return found


def overridden(granted: Granted, overrides: Sequence[Override], usual: PeriodKind | None) -> Granted:
    """With the overrides: first those that set a value, then those that add."""
    found = dict(granted)
    target = longest(granted, usual)
    for mode in (OverrideMode.SET, OverrideMode.ADD):
        for one in overrides:
            if one.mode is not mode:
                continue
            if one.value == "unlimited" or one.value is UNLIMITED:
                value = inf
            elif isinstance(one.value, bool) or not isinstance(one.value, int | float):
                continue
            else:
                value = max(0, floor(one.value))
            kind = target if one.period is None or usual is None else one.period
            before = found.get(kind)
            after = (value, value)
            if before is not None and mode is OverrideMode.ADD:
                after = (capped(before[0][0] + value), capped(before[0][1] + value))
            elif before is not None:
                after = (max(before[0][0], value), max(before[0][1], value))
            if before is None or after > before[0]:
                found[kind] = after, ("override", one.id, None)
    return found


def longest(granted: Granted, otherwise: PeriodKind | None) -> PeriodKind | None:
    """The period that resets least often."""
    kinds = [kind for kind in granted if kind is not None]
    return max(kinds, key=KINDS.index) if kinds else otherwise


def sorted_kinds(granted: Granted) -> list[tuple[PeriodKind | None, tuple[Bounds, Source]]]:
    """The allowances, the shortest period first."""
    return sorted(granted.items(), key=lambda one: -1 if one[0] is None else KINDS.index(one[0]))


def capped(amount: float) -> float:
    return amount if amount == inf else min(amount, INT64_MAX)


def denies(feature: Feature, override: Override) -> bool:
    """Whether an override is an explicit no."""
    if override.mode is OverrideMode.DENY:
        return True
    return feature.type is FeatureType.BOOLEAN and override.mode is OverrideMode.SET and override.value is False
