"""The compiled nouns: what one company may do, resolved from catalogue and facts so that a decision is a lookup.

A snapshot holds for `[valid_from, valid_until)`: inside it no override, assignment or grace period starts or ends,
so a decision needs no such comparison. It is immutable and is replaced as a whole.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

import msgspec

from plangate.engine.catalog import Catalog, Condition, Feature
from plangate.engine.decision import Decision, Period, Reason
from plangate.engine.facts import CompanyFacts, PlanSource, SubscriptionFact
from plangate.engine.periods import Cycle
from plangate.engine.values import PeriodKind

SINCE_EVER: Final = datetime.min.replace(tzinfo=UTC)
CounterKey: TypeAlias = tuple[str, PeriodKind, str]
NoticeCode: TypeAlias = Literal[
    "several_subscriptions",
    "unmapped_price",
    "unknown_status",
    "past_due",
    "grace_ended",
    "collection_paused",
    "part_without_plan",
    "access_withheld",
]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a company that a person should look at; it never changes a decision by itself."""

    code: NoticeCode
    detail: str


class HeldPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The base plan in force, and where it comes from. `quantity` is None when it is not sold by quantity.

    `audience` is the key of the audience that put the company on it, when one did.
    """

    key: str
    version: int
    source: PlanSource
    quantity: int | None = None
    audience: str | None = None


class HeldAddOn(msgspec.Struct, frozen=True, kw_only=True):
    """An add-on in force beside the base plan."""

    key: str
    version: int
    quantity: int = 1


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """One effective limit with its own window, or a limit on a trait's value (`counter_key` is None, `used` is fixed).

    `limit` is None when nothing is ever refused; `soft_limit` is where overage begins. `template` is the Decision
    of a "no", lacking only what the question and the counters bring; `granted` is the reason of a "yes".
    """

    limit: int | None
    soft_limit: int | None
    template: Decision
    granted: Reason
    kind: PeriodKind | None = None
    counter_key: CounterKey | None = None
    used: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled answer: the finished Decision, or the allowances it depends on when there are any.

    `personal` are allowances that every user has of their own; their counter keys lack the user. A question without a
    user has none of them.
    """

    template: Decision
    allowances: tuple[Allowance, ...] = ()
    personal: tuple[Allowance, ...] = ()


class CompiledRule(msgspec.Struct, frozen=True, kw_only=True):
    """A targeting rule of which only the conditions about the user and about usage are still open."""

    key: str
    groups: tuple[tuple[Condition, ...], ...]
    answer: Answer


class CompiledFeature(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides about one feature for one company.

    `by_user` holds the users with overrides of their own. `usage_key` is the counter (None: a trait's value in
    `trait_used`) that conditions on usage and meters read.
    """

    feature: Feature
    answer: Answer
    rules: tuple[CompiledRule, ...] = ()
    by_user: Mapping[str, "CompiledFeature"] = {}
    usage_key: CounterKey | None = None
    trait_used: int | None = None


class CompanySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One company as the engine sees it in `[valid_from, valid_until)`; `valid_until` None means without end.

    `periods` are the windows that contained the instant it was built for, by kind. `catalog` and `facts` are what it
    was compiled from, kept for the trace.
    """

    company_id: str
    version: int
    catalog_revision: int
    plan: HeldPlan | None
    add_ons: tuple[HeldAddOn, ...]
    subscription: SubscriptionFact | None
    notices: tuple[Notice, ...]
    features: Mapping[str, CompiledFeature]
    cycle: Cycle
    periods: Mapping[PeriodKind, Period]
    catalog: Catalog
    facts: CompanyFacts
    valid_from: datetime = SINCE_EVER
    valid_until: datetime | None = None

    @property
    def anchor_at(self) -> datetime:
        """The instant billing windows are counted from."""
        return self.cycle.anchor_at

    def holds_at(self, at: datetime) -> bool:
        """Whether this snapshot answers for `at`; otherwise it must be built again."""
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)
