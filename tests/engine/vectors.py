"""Reads the language-neutral decision vectors into the engine's own types."""

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from plangate.engine.catalog import Catalog
from plangate.engine.facts import CompanyFacts, Counters, UserFacts, WindowCounter
from plangate.engine.values import PeriodKind

FOLDER = Path(__file__).parents[2] / "fixtures" / "decisions"


class StoredCounter(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Usage of one feature in one stored window; `user` is empty for the company as a whole."""

    feature: str
    period: PeriodKind
    start_at: datetime
    end_at: datetime | None
    used: int
    reserved: int = 0
    user: str = ""


class Question(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is asked, at which instant, and for whom."""

    feature: str
    at: datetime
    quantity: int = 1
    user: UserFacts | None = None
    with_trace: bool = False


class Case(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One vector: `catalog` names one of the file's catalogues, `expect` is a subset of the Decision as JSON."""

    name: str
    rule: str
    catalog: str
    facts: CompanyFacts
    question: Question
    expect: dict[str, Any]
    counters: list[StoredCounter] = []

    def counted(self) -> Counters:
        """The counters as the engine takes them."""
        return {
            (one.feature, one.period, one.user): WindowCounter(
                window_id=f"{one.feature}/{one.period}",
                start_at=one.start_at,
                end_at=one.end_at,
                used=one.used,
                reserved=one.reserved,
            )
            for one in self.counters
        }


class VectorFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One theme of vectors with the catalogues they share."""

    theme: str
    about: str
    catalogs: dict[str, Catalog]
    cases: list[Case]


def paths() -> list[Path]:
    """The vector files, in the order of their names."""
    return sorted(path for path in FOLDER.glob("*.json") if path.name != "schema.json")


def load(path: Path) -> VectorFile:
    """One file, decoded strictly."""
    return msgspec.json.decode(path.read_bytes(), type=VectorFile)


def differences(expected: object, actual: object, where: str = "") -> list[str]:
    """Where `actual` does not hold what `expected` asks for; objects are compared by the expected members alone."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            line
            for key, value in expected.items()
            for line in (
                differences(value, actual[key], f"{where}/{key}") if key in actual else [f"{where}/{key} is absent"]
            )
        ]
    if expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
        return [f"{where}: expected {expected!r}, got {actual!r}"]
    return []
