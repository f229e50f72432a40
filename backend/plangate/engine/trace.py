"""Explains a Decision: every source in order of precedence, what came of it, and the ways to a "yes"."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from plangate.engine.catalog import Catalog, Entitlement, Feature, PlanVersion, Rule
from plangate.engine.decision import Decision, Reason, Source, SourceKind, Trace, TraceStep
from plangate.engine.entitlements import gather, is_in_force
from plangate.engine.facts import CompanyFacts, Counters, Override, UserFacts
from plangate.engine.grants import Contribution, contribution, override_amount
from plangate.engine.holdings import Holdings, resolve_holdings
from plangate.engine.pricing import price_among
from plangate.engine.snapshot import CompanySnapshot, CompiledFeature
from plangate.engine.targeting import first_unmet
from plangate.engine.unlock import unlocks
from plangate.engine.usage import used_at
from plangate.engine.values import FeatureType, OverrideMode, PeriodKind, PriceBehaviour
from plangate.engine.wording import amount_text, condition_text, rate_text

Outcome: TypeAlias = Literal["won", "lost", "not_matched", "exhausted", "combined"]

# A version held, the source it is, how many of it, and one of its entitlements.
Granted: TypeAlias = tuple[PlanVersion, Source, int | None, Entitlement]

_NUMERIC = frozenset({FeatureType.EVENT, FeatureType.TRAIT, FeatureType.SEAT})


def explain(
    snapshot: CompanySnapshot,
    decision: Decision,
    counters: Counters,
    *,
    at: datetime,
    quantity: int,
    user: UserFacts | None,
    catalog: Catalog | None,
    ask: Callable[..., Decision],
) -> Trace:
    """Why `decision` is what it is, and the ways to a "yes" among what `catalog` sells, cheapest first.

    `ask` is `decide` itself, so that an unlock is only ever offered when the same question would be answered yes.
    """
    compiled = snapshot.features[decision.feature]
    if compiled.feature.is_archived:
        detail = "The feature is archived: the answer is no, whatever is granted."
        return Trace(steps=(_step(Source(kind=SourceKind.FLAG, key=compiled.feature.key), "won", detail),))
    options = unlocks(
        snapshot,
        decision,
        catalog=catalog or snapshot.catalog,
        quantity=quantity,
        at=at,
        ask=lambda other, then: ask(other, decision.feature, counters, at=then, quantity=quantity, user=user),
    )
    explainer = _Explainer(snapshot, compiled, decision, counters, at, user)
    return Trace(steps=tuple(explainer.steps()), unlock=options[0] if options else None, options=options)


def explain_unknown() -> Trace:
    """Why a feature the catalogue does not have is a no."""
    return Trace(steps=(_step(Source(kind=SourceKind.DEFAULT), "won", "The catalogue has no such feature."),))


class _Explainer:
    """Walks the order of precedence once, for one Decision."""

    def __init__(
        self,
        snapshot: CompanySnapshot,
        compiled: CompiledFeature,
        decision: Decision,
        counters: Counters,
        at: datetime,
        user: UserFacts | None,
    ) -> None:
        self.snapshot = snapshot
        self.counters = counters
        self.user = user
        self.feature: Feature = compiled.feature
        self.decision = decision
        self.at = at
        self.facts: CompanyFacts = snapshot.facts
        self.holdings: Holdings = resolve_holdings(snapshot.catalog, snapshot.facts, at)
        user_id = None if user is None else user.user_id
        self.overrides = [
            one for one in self.facts.overrides if one.feature == self.feature.key and one.user in {None, user_id}
        ]
        if user_id is not None:
            compiled = compiled.by_user.get(user_id, compiled)
        # Whether each user's own allowance answered, not one that all share.
        self.is_personal = not any(
            (one.template.source, one.limit, one.kind) == (decision.source, decision.limit, self._kind())
            and (one.counter_key is None or not one.counter_key[2])
            for one in compiled.answer.allowances
        )

    def steps(self) -> Iterator[TraceStep]:
        """The sources in order of precedence: flag, denials, grants and other overrides, rules, default."""
        yield self._flag()
        denials = [one for one in self.overrides if self._denies(one)]
        for override in denials:
            yield self._denial(override)
        yield from self._grants()
        for override in self.overrides:
            if override not in denials:
                yield self._override(override)
        for version in self.holdings.suspended:
            if any(one.feature == self.feature.key for one in version.entitlements):
                kind = SourceKind.PLAN if version.kind == "plan" else SourceKind.ADD_ON
                source = Source(kind=kind, key=version.key, version=version.version)
                yield _step(source, "not_matched", f"{version.name} includes it, but its subscription is not active.")
        yield from self._rules()
        default = Source(kind=SourceKind.DEFAULT)
        answer = "yes" if self.feature.flag.default else "no"
        if self._won(default):
            yield _step(default, "won", f"Nothing else applied: the default is {answer}.")
        else:
            yield _step(default, "lost", f"The default is {answer}; an earlier source decided.")

    def _won(self, source: Source) -> bool:
        return self.decision.source == source

    def _flag(self) -> TraceStep:
        source = Source(kind=SourceKind.FLAG, key=self.feature.key)
        forced = self.feature.flag.forced
        if forced is None:
            return _step(source, "not_matched", "The flag is not switched on or off for everyone.")
        return _step(source, "won", f"The flag is switched {'on' if forced else 'off'} for everyone.")

    def _denies(self, override: Override) -> bool:
        is_off = self.feature.type is FeatureType.BOOLEAN and override.mode is OverrideMode.SET and not override.value
        return override.mode is OverrideMode.DENY or is_off

    def _denial(self, override: Override) -> TraceStep:
        source = Source(kind=SourceKind.OVERRIDE, key=override.id)
        timing = self._out_of_force(override)
        if timing is not None:
            return _step(source, "not_matched", timing)
        if self._won(source):
            return _step(source, "won", "An override says no, which wins over everything granted.")
        return _step(source, "lost", "An override says no, but an earlier source decided.")

    def _grants(self) -> Iterator[TraceStep]:
        entitlements = gather(self.feature, self.facts, self.holdings)
        combined = self._combined(entitlements)
        granting = {source for _, source, _, _ in entitlements}
        for version, _ in self.holdings.plans:
            source = Source(kind=SourceKind.PLAN, key=version.key, version=version.version)
            if source not in granting:
                yield _step(source, "not_matched", f"{version.name} does not include it.")
        winner = self._winner(entitlements)
        for version, source, quantity, entitlement in entitlements:
            text, _ = self._text(entitlement, source, quantity)
            if text is None:
                yield _step(source, "not_matched", f"{version.name} does not include it.")
            elif entitlement is winner:
                outcome: Outcome = "exhausted" if self.decision.reason is Reason.LIMIT_REACHED else "won"
                ending = ", all of it used or too little left." if outcome == "exhausted" else "."
                if self.decision.reason is Reason.UNKNOWN_USER:
                    ending = ", but no user was named."
                yield _step(source, outcome, f"{version.name} grants {text}{ending}")
            elif self._is_overruled():
                yield _step(source, "lost", f"{version.name} grants {text}, but an earlier source decided.")
            elif any(part.entitlement is entitlement and part.source == source for part in combined):
                yield _step(source, "combined", f"{version.name} adds {text}.")
            else:
                yield _step(source, "lost", f"{version.name} grants {text}; another source is more generous.")

    def _winner(self, entitlements: Sequence[Granted]) -> Entitlement | None:
        """The entitlement the Decision names: of several from that source, the most generous in the period shown."""
        best: tuple[tuple[bool, int, bool, int], Entitlement] | None = None
        for _, source, quantity, entitlement in entitlements:
            text, kind = self._text(entitlement, source, quantity)
            one = self._contribution(entitlement, source, quantity)
            if text is None or not self._won(source) or not self._is_shown(one, kind):
                continue
            rank = (False, 0, False, 0) if one is None or one.amount is None else one.amount.rank
            if best is None or rank > best[0]:
                best = rank, entitlement
        return best[1] if best is not None else None

    def _contribution(self, entitlement: Entitlement, source: Source, quantity: int | None) -> Contribution | None:
        if self.feature.type not in _NUMERIC:
            return None
        return contribution(entitlement, source, quantity, self.facts.traits, self.feature.type)

    def _kind(self) -> PeriodKind | None:
        return None if self.decision.period is None else self.decision.period.kind

    def _is_shown(self, one: Contribution | None, kind: PeriodKind | None) -> bool:
        """Whether a contribution belongs to the allowance that answered: its period, of all or of each user."""
        if self.decision.reason is Reason.UNKNOWN_USER:
            return one is not None and one.is_per_user
        return kind == self._kind() and (one is None or one.kind is None or one.is_per_user is self.is_personal)

    def _is_overruled(self) -> bool:
        source = self.decision.source
        return self.decision.reason is Reason.OVERRIDE_DENIED or (source is not None and source.kind is SourceKind.FLAG)

    def _text(
        self, entitlement: Entitlement, source: Source, quantity: int | None
    ) -> tuple[str | None, PeriodKind | None]:
        """What an entitlement grants in words, and its period; no words when it grants nothing."""
        if self.feature.type is FeatureType.BOOLEAN:
            return ("it" if entitlement.enabled else None), None
        if self.feature.type is FeatureType.CONFIG:
            return (None if entitlement.config is None else f"the value {entitlement.config}"), None
        one = self._contribution(entitlement, source, quantity)
        if one is None:
            return None, None
        if one.amount is None:
            return f"as many {self.feature.units} as the trait {entitlement.limit_trait} says, which is missing", None
        text = amount_text(self.feature, one.amount, one.kind) + self._paid(entitlement, one)
        return (f"{text} for each user" if one.is_per_user else text), one.kind

    def _paid(self, entitlement: Entitlement, one: Contribution) -> str:
        """What more of it costs, or all of it, in words that follow the amount; nothing where it is included."""
        subscription = self.snapshot.subscription
        currency = None if subscription is None else subscription.currency
        cycle = self.snapshot.cycle
        price = price_among(
            entitlement.prices, currency=currency, interval=cycle.interval, interval_count=cycle.interval_count
        )
        if price is None or one.amount is None:
            return ""
        rate = rate_text(self.feature, price)
        if entitlement.price_behaviour is PriceBehaviour.PAY_IN_ADVANCE:
            return f", paid in advance at {rate}"
        return f" at {rate}"

    def _combined(self, entitlements: Sequence[Granted]) -> list[Contribution]:
        """The contributions that are parts of the winning allowance; a `set` that won has none."""
        source = self.decision.source
        winner = next((one for one in self.overrides if source is not None and one.id == source.key), None)
        if winner is not None and winner.mode is OverrideMode.SET:
            return []
        largest: Contribution | None = None
        parts: list[Contribution] = []
        for _, origin, quantity, entitlement in entitlements:
            one = self._contribution(entitlement, origin, quantity)
            if one is None or one.amount is None or not self._is_shown(one, one.kind):
                continue
            if one.is_summed:
                parts.append(one)
            elif largest is None or largest.amount is None or one.amount.rank > largest.amount.rank:
                largest = one
        return parts if largest is None else [largest, *parts]

    def _override(self, override: Override) -> TraceStep:
        source = Source(kind=SourceKind.OVERRIDE, key=override.id)
        timing = self._out_of_force(override)
        if timing is not None:
            return _step(source, "not_matched", timing)
        amount = override_amount(override)
        if self.feature.type in _NUMERIC and amount is not None:
            text = amount_text(self.feature, amount, override.period)
        else:
            text = f"the value {override.value}"
        verb = "adds" if override.mode is OverrideMode.ADD else "sets"
        if self._won(source):
            outcome: Outcome = "exhausted" if self.decision.reason is Reason.LIMIT_REACHED else "won"
            return _step(source, outcome, f"An override {verb} {text}.")
        if self._is_overruled():
            return _step(source, "lost", f"An override {verb} {text}, but an earlier source decided.")
        if override.mode is OverrideMode.ADD and not self.decision.unlimited:
            return _step(source, "combined", f"An override {verb} {text}.")
        return _step(source, "lost", f"An override {verb} {text}; what is granted is as generous.")

    def _out_of_force(self, override: Override) -> str | None:
        if is_in_force(override, self.at):
            return None
        if override.starts_at > self.at:
            return f"An override starts at {override.starts_at.isoformat()}."
        return f"An override ended at {override.expires_at.isoformat() if override.expires_at else 'its end'}."

    def _rules(self) -> Iterator[TraceStep]:
        source = self.decision.source
        is_default = source is not None and source.kind is SourceKind.DEFAULT
        is_open = is_default or (source is not None and source.kind is SourceKind.RULE)
        for rule in sorted(self.feature.flag.rules, key=lambda rule: (rule.priority, rule.key)):
            named = Source(kind=SourceKind.RULE, key=rule.key)
            if self._won(named):
                is_open = False
                yield _step(named, "won", f"The rule matches: {'yes' if rule.allowed else 'no'}.")
            elif is_open:
                yield _step(named, "not_matched", self._unmet(rule))
            else:
                yield _step(named, "lost", "Not reached: an earlier source decided.")

    def _unmet(self, rule: Rule) -> str:
        unmet = first_unmet(
            rule,
            self.facts,
            plans=frozenset(version.key for version, _ in self.holdings.plans),
            add_ons=frozenset(version.key for version, _ in self.holdings.add_ons),
            products=self.holdings.products,
            user=self.user,
            used=lambda key: used_at(self.snapshot, key, self.counters, self.at),
        )
        return "The rule does not match" + ("." if unmet is None else f": it asks for {condition_text(unmet)}.")


def _step(source: Source, outcome: Outcome, detail: str) -> TraceStep:
    return TraceStep(source=source, outcome=outcome, detail=detail)
