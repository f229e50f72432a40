"""How allowances combine: the most permissive wins, marked ones add up, and overrides come on top.

Sources with the same period make one allowance; different periods each keep their own (product.md, The nouns).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import msgspec

from plangate.engine.catalog import Entitlement
from plangate.engine.decision import Source, SourceKind
from plangate.engine.facts import Override
from plangate.engine.values import (
    INT64_MAX,
    UNLIMITED,
    FeatureType,
    Json,
    OverrideMode,
    PeriodKind,
    PriceBehaviour,
    Stacking,
    TraitValue,
)

PERIOD_ORDER = tuple(PeriodKind)


class Amount(msgspec.Struct, frozen=True):
    """How much is allowed: `hard` is never exceeded (None: nothing is refused), past `soft` it is overage."""

    hard: int | None
    soft: int | None = None

    @property
    def rank(self) -> tuple[bool, int, bool, int]:
        """Sorts amounts by generosity."""
        return self.hard is None, self.hard or 0, self.soft is None, self.soft or 0

    @property
    def included(self) -> int | None:
        """How much is used before overage begins, or all there is; None when it never ends."""
        return self.hard if self.soft is None else self.soft

    def most(self, other: "Amount") -> "Amount":
        """The more generous of both, in what is refused and, apart from it, in where overage begins."""
        hard = None if self.hard is None or other.hard is None else max(self.hard, other.hard)
        mine, theirs = self.included, other.included
        soft = None if mine is None or theirs is None else max(mine, theirs)
        return Amount(hard, None if soft == hard else soft)

    def plus(self, other: "Amount") -> "Amount":
        """Both together. Overage begins where all that is included is used; int64 is the ceiling."""
        hard = None if self.hard is None or other.hard is None else min(self.hard + other.hard, INT64_MAX)
        mine, theirs = self.included, other.included
        soft = None if mine is None or theirs is None else min(mine + theirs, INT64_MAX)
        return Amount(hard, None if soft == hard else soft)


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one source grants for one feature. `amount` is None when the trait that holds the limit is missing.

    `is_per_user` says that each user has that much of their own.
    """

    source: Source
    entitlement: Entitlement
    amount: Amount | None
    kind: PeriodKind | None = None
    is_summed: bool = False
    is_per_user: bool = False


class Combined(msgspec.Struct, frozen=True, kw_only=True):
    """One effective allowance: of one period kind, or on a trait's value (kind None)."""

    kind: PeriodKind | None
    amount: Amount
    source: Source


def contribution(
    entitlement: Entitlement,
    source: Source,
    quantity: int | None,
    traits: Mapping[str, TraitValue],
    feature_type: FeatureType,
) -> Contribution | None:
    """What a numeric entitlement grants, times the quantity held; None when it grants nothing at all.

    The quantity multiplies allowances that add up; without one (metered, or not sold by quantity) the entitlement
    stands as written, and so does what was paid in advance, which has a quantity of its own. Usage without a period
    never resets.
    """
    base: int | None
    is_counted = feature_type is FeatureType.EVENT
    is_per_user = is_counted and entitlement.scope == "user"
    match entitlement:
        case Entitlement(limit=limit) if limit is not None:
            base = None if limit is UNLIMITED else max(0, limit)
        case Entitlement(limit_trait=str(name)):
            number = whole(traits.get(name), is_limit=True)
            if number is None:
                return Contribution(source=source, entitlement=entitlement, amount=None, is_per_user=is_per_user)
            base = max(0, number)
        case Entitlement(enabled=True):
            base = None
        case _:
            return None
    soft = entitlement.soft_limit
    if soft is not None and base is not None and base <= soft:
        # A limit that ends where overage begins would leave no overage: the soft limit says yes.
        base = None
    is_in_advance = entitlement.price_behaviour is PriceBehaviour.PAY_IN_ADVANCE
    is_multiplied = entitlement.stacking is Stacking.SUM and not is_in_advance
    factor = quantity if quantity is not None and is_multiplied else 1
    amount = Amount(
        None if base is None else min(base * factor, INT64_MAX), None if soft is None else min(soft * factor, INT64_MAX)
    )
    return Contribution(
        source=source,
        entitlement=entitlement,
        amount=amount,
        kind=(entitlement.period or PeriodKind.ALL_TIME) if is_counted else None,
        is_summed=entitlement.stacking is Stacking.SUM,
        is_per_user=is_per_user,
    )


def combine(
    contributions: Sequence[Contribution],
    overrides: Sequence[Override],
    *,
    default_kind: PeriodKind | None,
) -> tuple[Combined, ...]:
    """The effective allowances, shortest period first: the largest of the others plus every summed one, then overrides.

    An override without a period of its own belongs to the longest period granted, or to `default_kind` when nothing
    is granted. A `set` counts when it is more generous; an `add` comes on top of whatever is granted.
    """
    by_kind: dict[PeriodKind | None, Combined] = {}
    for kind in dict.fromkeys(one.kind for one in contributions if one.amount is not None):
        by_kind[kind] = _stacked(kind, [one for one in contributions if one.kind == kind])
    longest = longest_kind(by_kind, default=default_kind)
    for mode in (OverrideMode.SET, OverrideMode.ADD):
        for override in overrides:
            amount = override_amount(override)
            if override.mode is not mode or amount is None:
                continue
            kind = longest if override.period is None or default_kind is None else override.period
            before = by_kind.get(kind)
            source = Source(kind=SourceKind.OVERRIDE, key=override.id)
            if before is None:
                by_kind[kind] = Combined(kind=kind, amount=amount, source=source)
                continue
            after = before.amount.most(amount) if mode is OverrideMode.SET else before.amount.plus(amount)
            if after.rank > before.amount.rank:
                by_kind[kind] = Combined(kind=kind, amount=after, source=source)
    return tuple(sorted(by_kind.values(), key=lambda one: _position(one.kind)))


def longest_kind(kinds: Iterable[PeriodKind | None], *, default: PeriodKind | None) -> PeriodKind | None:
    """The kind that resets least often; `default` when there is none."""
    return max(kinds, key=_position, default=default)


def override_amount(override: Override) -> Amount | None:
    """The number an override carries; None when it carries none (a `deny`, or a value of another type)."""
    if override.mode is OverrideMode.DENY:
        return None
    if override.value is UNLIMITED or override.value == UNLIMITED.value:
        return Amount(None)
    number = whole(override.value, is_limit=True)
    return None if number is None else Amount(max(0, number))


def whole(value: Json, *, is_limit: bool) -> int | None:
    """A stored value as a count; None when it is not a number (text and booleans are not).

    Fractions round against the company: limits down, amounts in use up. int64 is the ceiling.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return None
    number = math.floor(value) if is_limit else math.ceil(value)
    return max(-INT64_MAX, min(number, INT64_MAX))


def _stacked(kind: PeriodKind | None, contributions: Sequence[Contribution]) -> Combined:
    singles: list[tuple[Amount, Source]] = []
    parts: list[tuple[Amount, Source]] = []
    for one in contributions:
        if one.amount is not None:
            (parts if one.is_summed else singles).append((one.amount, one.source))
    if singles:
        most = max(singles, key=lambda single: single[0].rank)
        parts.insert(0, (reduce(Amount.most, (amount for amount, _ in singles)), most[1]))
    total, source = parts[0]
    for amount, _ in parts[1:]:
        total = total.plus(amount)
    largest = max(parts, key=lambda part: part[0].rank)
    return Combined(kind=kind, amount=total, source=largest[1] if largest[0].rank > parts[0][0].rank else source)


def _position(kind: PeriodKind | None) -> int:
    return -1 if kind is None else PERIOD_ORDER.index(kind)
