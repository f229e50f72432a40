"""Lives random lives through the engine and the oracle at once, and says where they differ."""

from collections.abc import Mapping
from typing import NamedTuple

from plangate.engine.catalog import Catalog
from plangate.engine.decide import decide
from plangate.engine.decision import Decision
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts
from plangate.engine.snapshot import CompanySnapshot
from tests.engine.lives import Life
from tests.engine.oracle import Oracle

STEPS_OF_A_LIFE = 100


class Outcome(NamedTuple):
    """What came of living: how many steps, which reasons were seen how often, and every mismatch in a sentence."""

    steps: int
    reasons: Mapping[str, int]
    mismatches: list[str]


def live(steps: int, *, first_seed: int = 0) -> Outcome:
    """So many steps, a hundred in each life. The snapshot is kept as long as it says it holds."""
    reasons: dict[str, int] = {}
    mismatches: list[str] = []
    done = 0
    while done < steps:
        seed = first_seed + done // STEPS_OF_A_LIFE
        life = Life(seed)
        kept: tuple[Catalog, CompanyFacts, CompanySnapshot] | None = None
        for number in range(min(STEPS_OF_A_LIFE, steps - done)):
            asked = life.step()
            is_current = kept is not None and kept[0] is life.catalog and kept[1] is life.company
            if kept is None or not is_current or not kept[2].holds_at(life.at):
                kept = life.catalog, life.company, build_snapshot(life.catalog, life.company, life.at)
            decision = decide(
                kept[2], asked.feature, life.counters, at=life.at, quantity=asked.quantity, user=asked.user
            )
            oracle = Oracle(life.catalog, life.company, life.counters, life.at)
            expected = {**oracle.answer(asked.feature, asked.quantity, asked.user), **plan_of(oracle)}
            actual = {**as_mapping(decision), **held_by(kept[2])}
            different = [
                f"{name}: {value!r}, not {expected[name]!r}"
                for name, value in actual.items()
                if value != expected[name] or isinstance(value, bool) is not isinstance(expected[name], bool)
            ]
            if different:
                mismatches.append(f"life {seed}, step {number}, {asked}: {'; '.join(different)}")
            reasons[decision.reason] = reasons.get(decision.reason, 0) + 1
            done += 1
    return Outcome(done, reasons, mismatches)


def as_mapping(decision: Decision) -> dict[str, object]:
    """The Decision in the oracle's words."""
    period, source = decision.period, decision.source
    return {
        "allowed": decision.allowed,
        "reason": decision.reason,
        "value": decision.value,
        "limit": decision.limit,
        "unlimited": decision.unlimited,
        "used": decision.used,
        "reserved": decision.reserved,
        "remaining": decision.remaining,
        "soft_limit": decision.soft_limit,
        "over_soft_limit": decision.over_soft_limit,
        "period": None if period is None else (period.kind.value, period.start, period.resets_at),
        "source": None if source is None else (source.kind.value, source.key, source.version),
    }


def held_by(snapshot: CompanySnapshot) -> dict[str, object]:
    """What the snapshot says the company is on."""
    plan = snapshot.plan
    return {
        "plan": None if plan is None else (plan.key, plan.version, plan.source, plan.audience, plan.quantity),
        "add_ons": sorted((one.key, one.version, one.quantity) for one in snapshot.add_ons),
        "anchor": snapshot.anchor_at,
    }


def plan_of(oracle: Oracle) -> dict[str, object]:
    """What the oracle says the company is on."""
    standing = oracle.standing
    base = standing.plans[0] if standing.plans else None
    return {
        "plan": None if base is None else (base[0].key, base[0].version, standing.source, standing.audience, base[1]),
        "add_ons": sorted(
            (version.key, version.version, 1 if quantity is None else quantity)
            for version, quantity in standing.add_ons
        ),
        "anchor": standing.billing().anchor_at,
    }
