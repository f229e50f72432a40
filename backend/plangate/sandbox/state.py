"""Everything the sandbox knows: tables of objects with undo for a refused request and a file between runs."""

from __future__ import annotations

import os
import secrets
import string
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Obj = dict[str, Any]

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str, length: int = 24) -> str:
    """An identifier as Stripe shapes them: a prefix and random letters and digits."""
    return f"{prefix}_{''.join(secrets.choice(_ALPHABET) for _ in range(length))}"


def copied(value: Any) -> Any:  # noqa: ANN401 - any JSON value.
    """A copy of a JSON value. It holds no loops and nothing twice, so this takes a fifth of `copy.deepcopy`'s time."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [copied(inner) for inner in value]
    return value


class Store:
    """Objects by kind and id, oldest first. Keys that start with `_` are ours and are never shown."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Obj]] = {}
        self.notes: Obj = {}
        self.touched: dict[tuple[str, str], None] = {}
        self._undo: list[tuple[str, str, Obj | None]] | None = None

    def add(self, obj: Obj) -> Obj:
        """Keep a new object."""
        kind, key = obj["object"], obj["id"]
        self.tables.setdefault(kind, {})[key] = obj
        self.touched[kind, key] = None
        if self._undo is not None:
            self._undo.append((kind, key, None))
        return obj

    def touch(self, obj: Obj) -> None:
        """Say that an object is about to change, so that a refusal can put it back."""
        kind, key = obj["object"], obj["id"]
        self.touched[kind, key] = None
        if self._undo is not None and obj is self.tables.get(kind, {}).get(key):
            self._undo.append((kind, key, copied(obj)))

    def remove(self, obj: Obj) -> None:
        """Forget an object."""
        self.touch(obj)
        self.tables.get(obj["object"], {}).pop(obj["id"], None)

    def get(self, kind: str, key: str | None) -> Obj | None:
        """An object by id, or nothing."""
        return self.tables.get(kind, {}).get(key or "")

    def all(self, kind: str) -> Iterator[Obj]:
        """Objects of one kind, oldest first; safe to change while walking."""
        return iter(list(self.tables.get(kind, {}).values()))

    def begin(self) -> None:
        """Start remembering what changes."""
        self._undo = []

    def commit(self) -> None:
        """Keep what changed."""
        self._undo = None

    def rollback(self) -> None:
        """Put everything back to where `begin` was called."""
        for kind, key, before in reversed(self._undo or []):
            if before is None:
                self.tables[kind].pop(key, None)
            elif key in self.tables[kind]:
                self.tables[kind][key].clear()
                self.tables[kind][key].update(before)
            else:
                self.tables[kind][key] = before
            self.touched[kind, key] = None
        self._undo = None

    def save(self, path: Path) -> None:
        """Write everything to a file, whole or not at all."""
        scratch = path.with_suffix(path.suffix + ".new")
        scratch.write_bytes(msgspec.json.encode({"tables": self.tables, "notes": self.notes}))
        os.replace(scratch, path)  # noqa: PTH105 - pathlib's replace is the same call; this reads as the atomic one.

    def load(self, path: Path) -> None:
        """Read what an earlier run saved."""
        saved = msgspec.json.decode(path.read_bytes())
        self.tables, self.notes = saved["tables"], saved["notes"]
        self.touched = {(kind, key): None for kind, table in self.tables.items() for key in table}
