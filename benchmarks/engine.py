"""`make bench-engine`: decisions in one process, beside a plain dict of snapshots and, where installed, other engines.

Everybody is asked the same questions about the same companies, round by round. The floor is a dict lookup and plain
comparisons, without windows that end, sources or a Decision. Exits 1 when Plangate falls below 0.45 of it. The other
engines are an extra of this benchmark alone: `pip install growthbook 'schematichq[datastream]'`.
"""

import argparse
import gc
import sys
import time
from collections.abc import Mapping
from statistics import median, quantiles

import msgspec

from benchmarks.peers import Contender, installed_peers
from benchmarks.population import NOW, USERS, Asked, Population, populate
from plangate.engine.decide import decide
from plangate.engine.facts import UserFacts
from plangate.engine.snapshot import Answer, CompanySnapshot

LEAST_RATIO = 0.45
_TIMED = 50_000


class Measured(msgspec.Struct, kw_only=True):
    """What was measured of one engine. `agreement` is the share of questions it answers as Plangate does."""

    contender: Contender
    agreement: float
    per_second: list[float] = []
    micros: list[float] = []


def main() -> int:
    """Measure, print the table, and say whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--companies", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=100_000, help="in a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    population = populate(options.companies)
    questions = population.questions(options.questions, seed=11)
    ours = plangate(population)
    found = [
        Measured(contender=one, agreement=agreement(one, ours, questions))
        for one in (floor(population), ours, *installed_peers(population))
    ]
    # What was built is here to stay: no round should pay for the collector looking through it.
    gc.collect()
    gc.freeze()
    for _ in range(options.rounds):
        for one in found:
            mine = _share(one.contender, questions)
            started = time.perf_counter()
            one.contender.run(mine)
            one.per_second.append(len(mine) / (time.perf_counter() - started))
    for one in found:
        one.micros = _latencies(one.contender, questions)
    ratio = _ratio(found[1], found[0])
    sys.stdout.write(
        f"{_table(found)}\n\nMedians of {options.rounds} interleaved rounds; {options.companies:,} companies at random,"
        f" {len(population.catalog.features)} features of every kind. `agrees` is how often an engine says what"
        " Plangate says.\n"
    )
    if found[0].agreement < 1:
        sys.stdout.write("The dict of snapshots gives other answers, so it is no floor.\n")
        return 1
    if ratio < LEAST_RATIO:
        sys.stdout.write(f"Plangate is below {LEAST_RATIO} of the dict of snapshots.\n")
        return 1
    return 0


def plangate(population: Population) -> Contender:
    """The engine as it is used: a snapshot, counters, one call."""
    snapshots, counters, at = population.snapshots, population.counters, NOW

    def run(questions: list[Asked]) -> None:
        for company, feature, user in questions:
            decide(snapshots[company], feature, counters[company], at=at, user=user)

    def ask(company: str, feature: str, user: UserFacts | None) -> bool:
        return decide(snapshots[company], feature, counters[company], at=at, user=user).allowed

    return Contender(name="Plangate, a full Decision", run=run, ask=ask)


class _Entry(tuple[bool, tuple[tuple[int | None, object], ...], Mapping[str, "_Entry"]]):
    """A finished answer, or limits each with the key of its usage, and what differs for single users."""

    __slots__ = ()


def floor(population: Population) -> Contender:
    """What anybody would write: a dict of dicts with limits worked out beforehand, and usage in another one."""
    compiled: dict[str, dict[str, _Entry]] = {}
    usage: dict[str, dict[object, int]] = {}
    for company, snapshot in population.snapshots.items():
        used: dict[object, int] = {key: one.used for key, one in population.counters[company].items()}
        compiled[company] = {key: _compiled(snapshot, key, used) for key in snapshot.features}
        usage[company] = used

    def check(company: str, feature: str, user: UserFacts | None, quantity: int = 1) -> bool:
        entry = compiled[company].get(feature)
        if entry is None:
            return False
        is_allowed, limits, by_user = entry
        if user is not None and by_user:
            is_allowed, limits, _ = by_user[user.user_id]
        if not limits:
            return is_allowed
        used = usage[company]
        for limit, key in limits:  # noqa: SIM110 - a loop is faster than any() of a generator
            if limit is None or used.get(key, 0) + quantity <= limit:
                return True
        return False

    def run(questions: list[Asked]) -> None:
        for company, feature, user in questions:
            check(company, feature, user)

    return Contender(name="dict of snapshots, yes or no", run=run, ask=check)


def _compiled(snapshot: CompanySnapshot, key: str, used: dict[object, int]) -> _Entry:
    compiled = snapshot.features[key]
    by_user: dict[str, _Entry] = {}
    if compiled.by_user or compiled.answer.personal or compiled.rules:
        for user in USERS:
            own = compiled.by_user.get(user.user_id, compiled)
            if own.rules:
                is_allowed = decide(snapshot, key, {}, at=NOW, user=user).allowed
                by_user[user.user_id] = _Entry((is_allowed, (), {}))
            else:
                by_user[user.user_id] = _entry(own.answer, used, user=user.user_id)
    return _Entry((*_entry(compiled.answer, used)[:2], by_user))


def _entry(answer: Answer, used: dict[object, int], *, user: str | None = None) -> _Entry:
    limits: list[tuple[int | None, object]] = []
    for one in answer.allowances:
        key: object = one.counter_key
        if key is None:
            key = one.template.feature
            used[key] = one.used
        limits.append((one.limit, key))
    if user is not None:
        limits += [(one.limit, (*one.counter_key[:2], user)) for one in answer.personal if one.counter_key is not None]
    return _Entry((answer.template.allowed, tuple(limits), {}))


def _share(contender: Contender, questions: list[Asked]) -> list[Asked]:
    return questions[: max(1, int(len(questions) * contender.share))]


def agreement(contender: Contender, other: Contender, questions: list[Asked]) -> float:
    """The share of questions that both answer alike."""
    mine = _share(contender, questions)
    return sum(contender.ask(*asked) is other.ask(*asked) for asked in mine) / len(mine)


def _latencies(contender: Contender, questions: list[Asked]) -> list[float]:
    """Microseconds of single questions, the clock's own time taken off."""
    clock = time.perf_counter_ns
    idle = min(-clock() + clock() for _ in range(1000))
    found = []
    for company, feature, user in _share(contender, questions)[:_TIMED]:
        started = clock()
        contender.ask(company, feature, user)
        found.append((clock() - started - idle) / 1000)
    return found


def _ratio(one: Measured, floor: Measured) -> float:
    return median(mine / base for mine, base in zip(one.per_second, floor.per_second, strict=True))


def _table(found: list[Measured]) -> str:
    lines = [f"{'':<34}{'per second':>12}{'of the floor':>14}{'median µs':>12}{'p99 µs':>10}{'agrees':>9}"]
    for one in found:
        cuts = quantiles(one.micros, n=100)
        lines.append(
            f"{one.contender.name:<34}{median(one.per_second):>12,.0f}{_ratio(one, found[0]):>14.4f}"
            f"{cuts[49]:>12.2f}{cuts[98]:>10.2f}{one.agreement:>9.1%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
