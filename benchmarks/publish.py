"""How soon a published catalogue reaches subscribers in the same process, and how fast its blast radius is told.

Run as `python -m benchmarks.publish`. Companies with usage are warm in memory; then a version is published for
everybody, and each is asked about once. Exits 1 when the 99th percentile of those first decisions is over 5 ms, or a
single one is still the old one.
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

from benchmarks.servers import plangate
from plangate import access, catalog, companies, metering
from plangate.engine.facts import PlanSource
from plangate.environment import Environment
from plangate.shapes import Actor
from plangate.store.companies import assign

MOST_P99_MS = 5.0
_ACTOR = Actor(kind="cli", id="benchmark")


def _at(measured: Sequence[float], share: float) -> float:
    return sorted(measured)[min(len(measured) - 1, int(len(measured) * share))]


async def _population(env: Environment, known: int, wanted: int) -> list[str]:
    keys = [f"company-{number}" for number in range(wanted)]
    for start in range(known, wanted, 500):
        for key in keys[start : start + 500]:
            company, _ = await companies.upsert(env, keys={"id": key}, actor=_ACTOR)
            async with env.writing() as session:
                await assign(session, company.id, key="pro", source=PlanSource.ASSIGNMENT)
        events = [metering.TrackEvent(event="feature-1", company={"id": key}) for key in keys[start : start + 500]]
        await metering.record(env, events)
    for key in keys:
        await access.check(env, company={"id": key}, feature="feature-1")
    return keys


async def _measured(wanted: int, rounds: int, folder: Path) -> tuple[str, bool]:
    _, deployment, _ = await plangate(folder)
    env = deployment.named(None)
    document: dict[str, Any] = (await catalog.current_revision(env))[1]
    keys = await _population(env, 200, wanted)
    firsts: list[float] = []
    applies: list[float] = []
    scans: list[float] = []
    stale = 0
    for number in range(rounds):
        document = copy.deepcopy(document)
        limit = 10**6 + number
        document["plans"]["pro"]["entitlements"]["feature-1"] = {"limit": limit, "period": "billing_month"}
        began = perf_counter()
        planned = await catalog.plan(env, document, impact_limit=None)
        scans.append((planned.impact.examined if planned.impact else 0) / (perf_counter() - began))
        began = perf_counter()
        await catalog.apply(env, document, actor=_ACTOR)
        applies.append((perf_counter() - began) * 1_000)
        for key in keys:
            began = perf_counter()
            decision = await access.check(env, company={"id": key}, feature="feature-1")
            firsts.append((perf_counter() - began) * 1_000)
            stale += decision.limit != limit
    await deployment.close()
    p99 = _at(firsts, 0.99)
    lines = [
        f"{'publish for everybody':<40}{_at(applies, 0.5):>12.1f} ms",
        f"{'first decision afterwards, median':<40}{_at(firsts, 0.5):>12.2f} ms",
        f"{'first decision afterwards, p99':<40}{p99:>12.2f} ms   (at most {MOST_P99_MS:g})",
        f"{'first decision afterwards, slowest':<40}{max(firsts):>12.2f} ms",
        f"{'still the old answer':<40}{stale:>12,} of {len(firsts):,}",
        f"{'blast radius':<40}{_at(scans, 0.5):>12,.0f} companies a second",
    ]
    return "\n".join(lines) + f"\n\n{wanted:,} companies, {rounds} publications, SQLite on disk.\n", (
        p99 <= MOST_P99_MS and not stale
    )


def main() -> int:
    """Measure, print the table, and say whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--companies", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plangate-bench-") as folder:
        table, is_kept = uvloop.run(_measured(options.companies, options.rounds, Path(folder)))
    sys.stdout.write(table)
    return 0 if is_kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
