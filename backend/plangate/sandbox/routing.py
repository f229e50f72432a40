"""What a route of the stand-in is: method, path, Stripe's own parameter type, and the function that answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .errors import invalid
from .render import view
from .world import World

Obj = dict[str, Any]


class Params(dict[str, Any]):
    """Parameters of one call that remember which of them anybody looked at.

    Stripe acts on all of its parameters and the stand-in on some: those nobody read are named in the request log.
    """

    def __init__(self, values: Obj) -> None:
        super().__init__(values)
        self.read: set[str] = {"expand", "limit", "starting_after", "ending_before"}

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - as varied as Stripe's API.
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - see above.
        self.read.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def ignored(self) -> list[str]:
        """Names that were given and never looked at."""
        return sorted(set(self.keys()) - self.read)


@dataclass
class Call:
    """One request after its parameters were checked."""

    path: str
    ids: tuple[str, ...]
    params: Params


Answer = Callable[[World, Call], Obj]


@dataclass(frozen=True)
class Route:
    """``pattern`` holds `{}` where an id stands; ``params`` and ``returns`` are names in the official package."""

    method: str
    pattern: str
    params: str
    answer: Answer = field(repr=False)
    returns: str

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern as an expression over a whole path."""
        return re.compile(re.escape(self.pattern).replace(r"\{\}", r"([^/]{1,200})") + r"\Z")


def page(world: World, call: Call, rows: list[Obj], *, shown: Callable[[World, Obj], Obj] = view) -> Obj:
    """One page of a list, newest first, with Stripe's cursors.

    ``rows`` come newest first. Raises ApiError 400 for a limit outside 1 to 100 or an unknown cursor.
    """
    limit = call.params.get("limit", 10)
    if not 1 <= limit <= 100:
        raise invalid("Invalid integer: must be between 1 and 100", param="limit")
    after, before = call.params.get("starting_after"), call.params.get("ending_before")
    if after and before:
        raise invalid("You may only specify one of these parameters: starting_after, ending_before.")
    if before:
        end = _position(rows, before, "ending_before")
        chosen = rows[max(0, end - limit) : end]
        has_more = end - limit > 0
    else:
        start = _position(rows, after, "starting_after") + 1 if after else 0
        chosen = rows[start : start + limit]
        has_more = len(rows) > start + limit
    return {
        "object": "list",
        "data": [shown(world, row) for row in chosen],
        "has_more": has_more,
        "url": call.path,
    }


def newest_first(world: World, kind: str) -> Iterator[Obj]:
    """Objects of a kind, the newest first."""
    return reversed(list(world.store.all(kind)))


def in_range(value: int | None, wanted: int | Obj | None) -> bool:
    """Whether an instant fits a `created`-like filter: a number, or gt, gte, lt, lte. None fits no filter."""
    if wanted is None:
        return True
    if value is None:
        return False
    if isinstance(wanted, int):
        return value == wanted
    return bool(
        value > wanted.get("gt", value - 1)
        and value >= wanted.get("gte", value)
        and value < wanted.get("lt", value + 1)
        and value <= wanted.get("lte", value)
    )


def merged_metadata(old: dict[str, str], given: dict[str, str] | str | None) -> dict[str, str]:
    """Metadata after an update: an empty value unsets a key, an empty text all. Raises 400 over Stripe's limits."""
    if given is None:
        return dict(old)
    if isinstance(given, str):
        return {}
    merged = {**old, **given}
    for key, value in merged.items():
        if len(key) > 40:
            raise invalid(
                f"Metadata keys can be at most 40 characters. You tried to use '{key[:40]}…'", param="metadata"
            )
        if len(value) > 500:
            raise invalid(
                f"Metadata values can have up to 500 characters. The value of '{key}' is {len(value)} long.",
                param="metadata",
            )
    if len(merged) > 50:
        raise invalid("You can only have up to 50 keys in metadata.", param="metadata")
    return {key: value for key, value in merged.items() if value != ""}


def _position(rows: list[Obj], cursor: str, param: str) -> int:
    for number, row in enumerate(rows):
        if row["id"] == cursor:
            return number
    raise invalid(f"No such object: '{cursor}'", param=param, code="resource_missing")
