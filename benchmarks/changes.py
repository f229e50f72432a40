"""How soon a published catalogue decides: until the next decision about any subscriber shows it."""

import copy
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from benchmarks.servers import ACTOR, CATALOGUE, COMPANIES, plangate
from benchmarks.table import Line
from plangate import access, catalog

_TARGET_MS: Final = 5.0
_FEATURE: Final = "feature-1"


async def publishing(folder: Path, *, times: int) -> Line:
    """From a published catalogue to the first decision by it, for any subscriber."""
    _, deployment, _ = await plangate(folder, url=f"sqlite:///{folder / 'publishing.sqlite3'}")
    env = deployment.named(None)
    found = []
    try:
        for number in range(times):
            document: dict[str, Any] = copy.deepcopy(CATALOGUE)
            limit = 10**9 + number
            document["plans"]["pro"]["entitlements"][_FEATURE]["limit"] = limit
            await catalog.apply(env, document, actor=ACTOR)
            for company in (number, number + COMPANIES // 3, number + COMPANIES // 2):
                asked = {"id": f"company-{company % COMPANIES}"}
                began = perf_counter()
                decision = await access.check(env, company=asked, feature=_FEATURE)
                found.append((perf_counter() - began) * 1000)
                if decision.limit != limit:
                    raise RuntimeError("the decision does not show the published catalogue")
    finally:
        await deployment.close()
    return _line("catalogue published → decision, p99", found)


def _line(work: str, found: Sequence[float]) -> Line:
    slowest = sorted(found)[len(found) * 99 // 100]
    return Line(
        work,
        f"median {median(found):.2f} ms",
        f"{slowest:.2f} ms",
        None,
        f"≤ {_TARGET_MS:.0f} ms",
        slowest <= _TARGET_MS,
    )
