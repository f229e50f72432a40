"""Builds a company's snapshot: everything that does not depend on the question is worked out here, once.

The order of precedence (product.md, How a decision is made) is applied as far as the company alone decides it;
what is left for `decide` are counters, the quantity asked for, and rules about the user or about usage.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

import msgspec

from plangate.engine.catalog import Catalog, Entitlement, Feature, PlanVersion
from plangate.engine.decision import Decision, Period, Reason, Source, SourceKind
from plangate.engine.facts import CompanyFacts, Override
from plangate.engine.grants import (
    Amount,
    Combined,
    Contribution,
    combine,
    contribution,
    longest_kind,
    whole,
)
from plangate.engine.holdings import Held, Holdings, boundaries, resolve_holdings
from plangate.engine.sharing import compiled_features
from plangate.engine.snapshot import (
    SINCE_EVER,
    Allowance,
    Answer,
    CompanySnapshot,
    CompiledFeature,
    CompiledRule,
    HeldAddOn,
    HeldPlan,
)
from plangate.engine.targeting import open_rules
from plangate.engine.values import FeatureType, Json, OverrideMode, PeriodKind, PriceBehaviour

__all__ = ["CompanySnapshot", "build_snapshot", "gather", "is_counted_per_user", "is_in_force", "window_kinds"]

_ON_OFF = (Reason.FLAG_OFF, Reason.FLAG_ON)


def build_snapshot(catalog: Catalog, facts: CompanyFacts, at: datetime) -> CompanySnapshot:
    """Compile what one company may do at `at`, valid until the next instant at which time alone changes it."""
    holdings = resolve_holdings(catalog, facts, at)
    active = [one for one in facts.overrides if is_in_force(one, at)]
    common = compiled_features(catalog)
    features = {}
    for key, feature in catalog.features.items():
        compiler = partial(_compile, catalog, feature, facts, holdings)
        exceptions = [one for one in active if one.feature == key]
        features[key] = compiler(exceptions) if exceptions else common.get(feature, holdings, partial(compiler, ()))
    instants = boundaries(catalog, facts)
    kinds = {
        allowance.kind
        for compiled in features.values()
        for allowance in _allowances(compiled)
        if allowance.kind is not None
    }
    base = holdings.plans[0] if holdings.plans else None
    return CompanySnapshot(
        company_id=facts.company_id,
        version=facts.version,
        catalog_revision=catalog.revision,
        plan=None
        if base is None or holdings.source is None
        else HeldPlan(
            key=base[0].key,
            version=base[0].version,
            source=holdings.source,
            quantity=base[1],
            audience=holdings.audience,
        ),
        add_ons=tuple(
            HeldAddOn(key=version.key, version=version.version, quantity=1 if quantity is None else quantity)
            for version, quantity in holdings.add_ons
        ),
        subscription=holdings.subscription,
        notices=holdings.notices,
        features=features,
        cycle=holdings.cycle,
        periods={kind: _period(kind, holdings, at) for kind in kinds},
        catalog=catalog,
        facts=facts,
        valid_from=max((instant for instant in instants if instant <= at), default=SINCE_EVER),
        valid_until=min((instant for instant in instants if instant > at), default=None),
    )


def is_in_force(override: Override, at: datetime) -> bool:
    """Whether an override counts at `at`: from its start up to, not including, its expiry."""
    return override.starts_at <= at and (override.expires_at is None or at < override.expires_at)


def window_kinds(catalog: Catalog, feature_key: str, overrides: Iterable[Override] = ()) -> set[PeriodKind]:
    """Every period kind whose usage must be counted for an event feature.

    That is every kind a published plan or add-on, old or new, grants, and every kind an override names; all time
    when there is none. Empty for features whose usage is not counted (boolean, config, trait, seat, unknown).
    """
    feature = catalog.features.get(feature_key)
    if feature is None or feature.type is not FeatureType.EVENT:
        return set()
    kinds = {
        entitlement.period or PeriodKind.ALL_TIME
        for version in (*catalog.plans.values(), *catalog.add_ons.values(), *catalog.older_versions.values())
        for entitlement in version.entitlements
        if entitlement.feature == feature_key
    }
    kinds |= {one.period for one in overrides if one.feature == feature_key and one.period is not None}
    return kinds or {PeriodKind.ALL_TIME}


def is_counted_per_user(catalog: Catalog, feature_key: str) -> bool:
    """Whether a version, old or new, gives each user an allowance of this event feature.

    Then the windows of `window_kinds` are needed for every user who uses it, besides those of the company.
    """
    feature = catalog.features.get(feature_key)
    return (
        feature is not None
        and feature.type is FeatureType.EVENT
        and any(
            one.feature == feature_key and one.scope == "user"
            for version in (*catalog.plans.values(), *catalog.add_ons.values(), *catalog.older_versions.values())
            for one in version.entitlements
        )
    )


def gather(
    feature: Feature, facts: CompanyFacts, holdings: Holdings
) -> list[tuple[PlanVersion, Source, int | None, Entitlement]]:
    """Every entitlement held for a feature, base plan first, then other plans, then add-ons.

    Where units of it were paid in advance, they are the limit; nothing paid (no quantity, or none) leaves the limit as
    the version says it.
    """
    bought = holdings.bought.get(feature.key, {})

    def of(held: Sequence[Held], kind: SourceKind) -> Iterable[tuple[PlanVersion, Source, int | None, Entitlement]]:
        for version, quantity in held:
            source = Source(kind=kind, key=version.key, version=version.version)
            for entitlement in version.entitlements:
                if entitlement.feature != feature.key:
                    continue
                units = bought.get((version.kind, version.key))
                if units is not None and entitlement.price_behaviour is PriceBehaviour.PAY_IN_ADVANCE:
                    yield version, source, quantity, msgspec.structs.replace(entitlement, limit=units, limit_trait=None)
                else:
                    yield version, source, quantity, entitlement

    return [*of(holdings.plans, SourceKind.PLAN), *of(holdings.add_ons, SourceKind.ADD_ON)]


def _compile(
    catalog: Catalog, feature: Feature, facts: CompanyFacts, holdings: Holdings, active: Sequence[Override]
) -> CompiledFeature:
    shared = [one for one in active if one.user is None]
    compiler = _Compiler(catalog, feature, facts, holdings)
    compiled = compiler.compile(shared)
    if feature.is_archived or feature.flag.forced is not None or len(shared) == len(active):
        return compiled
    users = {one.user for one in active if one.user is not None}
    by_user = {user: compiler.compile(shared, [one for one in active if one.user == user]) for user in sorted(users)}
    return msgspec.structs.replace(compiled, by_user=by_user)


class _Compiler:
    """One feature of one company; compiled once for everybody and once for each user with overrides of their own."""

    def __init__(self, catalog: Catalog, feature: Feature, facts: CompanyFacts, holdings: Holdings) -> None:
        self.feature = feature
        self.facts = facts
        self.holdings = holdings
        self.is_counted = feature.type is FeatureType.EVENT
        self.is_numeric = feature.type in {FeatureType.EVENT, FeatureType.TRAIT, FeatureType.SEAT}
        self.trait_used = (
            whole(facts.traits.get(feature.trait or feature.key), is_limit=False)
            if self.is_numeric and not self.is_counted
            else None
        )
        self.default_kind = (
            longest_kind(window_kinds(catalog, feature.key), default=PeriodKind.ALL_TIME) if self.is_counted else None
        )
        self.entitlements = gather(feature, facts, holdings)

    def compile(self, shared: Sequence[Override], own: Sequence[Override] = ()) -> CompiledFeature:
        """The precedence, first match wins: forced flag, deny, grants with or without room, rules, default."""
        feature = self.feature
        usage_key = None
        rules: tuple[CompiledRule, ...] = ()
        if feature.is_archived:
            answer = self._fixed(allowed=False, reason=Reason.ARCHIVED_FEATURE)
        elif feature.flag.forced is not None:
            granted = self._granted(shared, own)
            answer = self._switched(
                feature.flag.forced,
                _ON_OFF[feature.flag.forced],
                Source(kind=SourceKind.FLAG, key=feature.key),
                value=granted.template.value if granted is not None else None,
            )
        else:
            denial = next((one for one in (*shared, *own) if self._denies(one)), None)
            granted = self._granted(shared, own)
            if denial is not None:
                source = Source(kind=SourceKind.OVERRIDE, key=denial.id)
                answer = self._fixed(allowed=False, reason=Reason.OVERRIDE_DENIED, source=source)
            elif granted is not None:
                answer = granted
            else:
                answer, rules = self._ruled()
        if self.is_counted:
            kinds = [one.kind for one in (*answer.allowances, *answer.personal) if one.counter_key is not None]
            usage_kind = longest_kind(kinds, default=self.default_kind) or PeriodKind.ALL_TIME
            usage_key = (feature.key, usage_kind, "")
        return CompiledFeature(
            feature=feature, answer=answer, rules=rules, usage_key=usage_key, trait_used=self.trait_used
        )

    def _denies(self, override: Override) -> bool:
        is_off = self.feature.type is FeatureType.BOOLEAN and override.mode is OverrideMode.SET and not override.value
        return override.mode is OverrideMode.DENY or is_off

    def _granted(self, shared: Sequence[Override], own: Sequence[Override]) -> Answer | None:
        match self.feature.type:
            case FeatureType.BOOLEAN:
                return self._boolean((*shared, *own))
            case FeatureType.CONFIG:
                return self._config((*shared, *own))
            case FeatureType.EVENT | FeatureType.TRAIT | FeatureType.SEAT:
                return self._numeric(shared, own)

    def _boolean(self, overrides: Sequence[Override]) -> Answer | None:
        for _, source, _, entitlement in self.entitlements:
            if entitlement.enabled:
                return self._fixed(allowed=True, reason=Reason.GRANTED, source=source, value=True)
        for override in overrides:
            if override.mode is OverrideMode.SET and override.value is True:
                source = Source(kind=SourceKind.OVERRIDE, key=override.id)
                return self._fixed(allowed=True, reason=Reason.OVERRIDE, source=source, value=True)
        return None

    def _config(self, overrides: Sequence[Override]) -> Answer | None:
        # A user's own value replaces the company's, and any override replaces what is granted.
        replacing = [one for one in overrides if one.mode is OverrideMode.SET]
        if replacing:
            override = max(replacing, key=lambda one: (one.user is not None, one.starts_at, one.id))
            source = Source(kind=SourceKind.OVERRIDE, key=override.id)
            return self._fixed(allowed=True, reason=Reason.OVERRIDE, source=source, value=override.value)
        granted = [(source, one.config) for _, source, _, one in self.entitlements if one.config is not None]
        if not granted:
            return None
        # The larger number is the more permissive; of texts and documents, what was bought on top replaces the rest.
        numbers = [(source, value) for source, value in granted if _is_number(value)]
        source, value = max(numbers, key=lambda one: one[1]) if len(numbers) == len(granted) else granted[-1]
        return self._fixed(allowed=True, reason=Reason.GRANTED, source=source, value=value)

    def _numeric(self, shared: Sequence[Override], own: Sequence[Override]) -> Answer | None:
        contributions = self.contributions()
        together = [one for one in contributions if not one.is_per_user]
        each = [one for one in contributions if one.is_per_user]
        is_each = any(one.amount is not None for one in each)
        # What is granted to each user alone is what an override for the company changes: for each user.
        is_only_each = is_each and all(one.amount is None for one in together)
        # A user's `add` lifts their own allowance, or for them the limit that all share; a `set` is of their own.
        own_adds = [one for one in own if one.mode is OverrideMode.ADD]
        own_sets = [one for one in own if one.mode is OverrideMode.SET]
        lifted = [*([] if is_only_each else shared), *([] if is_each else own_adds)]
        allowed = list(combine(together, lifted, default_kind=self.default_kind))
        kind = longest_kind((one.kind for one in allowed), default=self.default_kind)
        added = [*(shared if is_only_each else ()), *own_sets, *(own_adds if is_each else ())]
        personal = combine(each, added, default_kind=kind)
        if not allowed and not personal:
            missing = next((one for one in contributions if one.amount is None), None)
            return self._missing(missing.source) if missing is not None else None
        if self.is_counted:
            return self._counted(allowed, personal, user=own[0].user if own else None)
        # A trait's value is one number whoever asks, so only the most generous allowance matters.
        best = max((*allowed, *personal), key=lambda one: one.amount.rank)
        if self.trait_used is not None:
            allowance = self._allowance(best, "")
            return Answer(template=allowance.template, allowances=(allowance,))
        if best.amount.hard is None:
            return Answer(
                template=self._template(
                    allowed=True,
                    reason=Reason.UNLIMITED,
                    source=best.source,
                    unlimited=True,
                    soft_limit=best.amount.soft,
                )
            )
        return self._missing(best.source, limit=best.amount.hard)

    def _counted(self, allowed: Sequence[Combined], personal: Sequence[Combined], *, user: str | None) -> Answer:
        """Allowances on counted usage: those all share, and those of one user or, without one, of whoever asks."""
        shared = tuple(self._allowance(one, "") for one in allowed)
        own = tuple(self._allowance(one, user or "") for one in personal)
        if user is not None:
            return Answer(template=(*shared, *own)[0].template, allowances=(*shared, *own))
        if shared:
            return Answer(template=shared[0].template, allowances=shared, personal=own)
        # Nobody is named, so there is no counter to look at: it never grants by accident.
        best = max(personal, key=lambda one: one.amount.rank)
        unasked = self._template(allowed=False, reason=Reason.UNKNOWN_USER, source=best.source, limit=best.amount.hard)
        return Answer(template=unasked, personal=own)

    def contributions(self) -> list[Contribution]:
        """What each source grants for this numeric feature."""
        found = (
            contribution(entitlement, source, quantity, self.facts.traits, self.feature.type)
            for _, source, quantity, entitlement in self.entitlements
        )
        return [one for one in found if one is not None]

    def _ruled(self) -> tuple[Answer, tuple[CompiledRule, ...]]:
        """Nothing is granted: the rules by priority, then the flag's default."""
        feature = self.feature
        compiled: list[CompiledRule] = []
        plans = frozenset(version.key for version, _ in self.holdings.plans)
        add_ons = frozenset(version.key for version, _ in self.holdings.add_ons)
        for rule, groups in open_rules(
            feature.flag.rules, self.facts, plans=plans, add_ons=add_ons, products=self.holdings.products
        ):
            source = Source(kind=SourceKind.RULE, key=rule.key)
            answer = self._switched(rule.allowed, Reason.RULE_MATCHED, source)
            if groups == ((),):
                return answer, tuple(compiled)
            compiled.append(CompiledRule(key=rule.key, groups=groups, answer=answer))
        default = Source(kind=SourceKind.DEFAULT)
        if feature.flag.default:
            return self._switched(True, Reason.DEFAULT, default), tuple(compiled)
        is_suspended = any(
            entitlement.feature == feature.key and entitlement.enabled is not False
            for version in self.holdings.suspended
            for entitlement in version.entitlements
        )
        if is_suspended:
            reason = Reason.SUBSCRIPTION_INACTIVE
        else:
            reason = Reason.DEFAULT if feature.flag.rules else Reason.NO_ENTITLEMENT
        return self._fixed(allowed=False, reason=reason, source=default), tuple(compiled)

    def _switched(self, is_on: bool, reason: Reason, source: Source, *, value: Json = None) -> Answer:
        """A plain yes or no from a flag, a rule or the default; a yes to a numeric feature has no limit."""
        if not is_on or not self.is_numeric:
            return self._fixed(allowed=is_on, reason=reason, source=source, value=value)
        unlimited = Combined(kind=self.default_kind, amount=Amount(None), source=source)
        if self.is_counted or self.trait_used is not None:
            allowance = msgspec.structs.replace(self._allowance(unlimited, ""), granted=reason)
            return Answer(template=allowance.template, allowances=(allowance,))
        return Answer(template=self._template(allowed=True, reason=reason, source=source, unlimited=True))

    def _missing(self, source: Source, *, limit: int | None = None) -> Answer:
        """A trait that holds the limit, or the amount in use, is missing or not a number: it never grants."""
        return Answer(template=self._template(allowed=False, reason=Reason.TRAIT_MISSING, source=source, limit=limit))

    def _fixed(self, *, allowed: bool, reason: Reason, source: Source | None = None, value: Json = None) -> Answer:
        if self.feature.type is FeatureType.BOOLEAN:
            value = allowed
        used = self.trait_used
        return Answer(
            template=self._template(
                allowed=allowed, reason=reason, source=source, value=value, used=None if used is None else max(0, used)
            )
        )

    def _allowance(self, combined: Combined, user: str) -> Allowance:
        hard, soft = combined.amount.hard, combined.amount.soft
        template = self._template(
            allowed=False,
            reason=Reason.LIMIT_REACHED,
            source=combined.source,
            limit=hard,
            unlimited=hard is None,
            soft_limit=soft,
            used=0,
            reserved=0,
        )
        counter_key = None if combined.kind is None else (self.feature.key, combined.kind, user)
        return Allowance(
            limit=hard,
            soft_limit=soft,
            template=template,
            granted=Reason.UNLIMITED if hard is None else Reason.WITHIN_LIMIT,
            kind=combined.kind,
            counter_key=counter_key,
            used=0 if self.trait_used is None else max(0, self.trait_used),
        )

    def _template(
        self,
        *,
        allowed: bool,
        reason: Reason,
        source: Source | None,
        value: Json = None,
        limit: int | None = None,
        unlimited: bool = False,
        soft_limit: int | None = None,
        used: int | None = None,
        reserved: int | None = None,
    ) -> Decision:
        return Decision(
            feature=self.feature.key,
            allowed=allowed,
            reason=reason,
            type=self.feature.type,
            value=value,
            limit=limit,
            unlimited=unlimited,
            used=used,
            reserved=reserved,
            soft_limit=soft_limit,
            source=source,
            # What a Stripe meter counted is known some minutes later.
            stale=self.is_counted and used is not None and self.feature.usage_source == "stripe_meter",
        )


def _allowances(compiled: CompiledFeature) -> Iterable[Allowance]:
    yield from compiled.answer.allowances
    yield from compiled.answer.personal
    for rule in compiled.rules:
        yield from rule.answer.allowances
    for own in compiled.by_user.values():
        yield from _allowances(own)


def _period(kind: PeriodKind, holdings: Holdings, at: datetime) -> Period:
    start, end = holdings.cycle.window(kind, at)
    return Period(kind=kind, start=start, resets_at=end)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
