"""Idempotency keys on SQLite: appended in the order of time, and merged into their large tree a part at a time.

Keys are random and kept for ever. Put into one tree as they come, each would change a page of its own: read, logged and
written again for a single key. So new keys are appended to a log, which every process that writes usage also holds in
memory; once there are many, the part of the tree that was merged longest ago gets its share of them in one go.

Most keys were never used before, and a filter for each part says so without a look at the tree.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from struct import Struct
from typing import Any, Final

from plangate.store.columns import json_text, json_value
from plangate.store.direct import SqliteConnection
from plangate.store.used_keys import UsedKey

LEAST_KEPT: Final = 32_000  # keys in memory (32 bytes each) before any are merged; as many more may lie in the log
MOST_KEPT: Final = 1_000_000
_SHARE_KEPT: Final = 8  # between the two: one in so many of the merged keys, so that each page gets several at once
_AT_ONCE: Final = 4_000  # keys merged in one transaction, besides twice as many as it adds, so that none takes long
_PARTS: Final = 256  # by the first byte of the key's hash
_LEAST_FILTER: Final = 2**12  # bytes
_MOST_FILTER: Final = 2**16  # of the first ten million keys it lets one in fifty through, of fifty million one in four
_BITS_PER_KEY: Final = 10

_APPENDED: Final = Struct(">16s8s")  # key hash, body hash: what the log holds
_RECORD: Final = Struct(">16s8sQ")  # and the number of its row in the log, doubled; odd when there are answers
_PLACES: Final = Struct(">BQ7x")  # of a key hash: its part, and what its places in the filter come from
_PLACES_APPENDED: Final = Struct(">BQ15x")
_FURTHER: Final = 40  # bits to the right, for the second place

_LOGGED: Final = "SELECT seq, merges, is_answered, records FROM usage_key_log WHERE seq > ? ORDER BY seq"
_APPEND: Final = "INSERT INTO usage_key_log (seq, merges, is_answered, records) VALUES (?, ?, ?, ?)"
_FORGET: Final = "DELETE FROM usage_key_log WHERE seq <= ?"
_PART: Final = "SELECT merged_to, merged_keys, filter FROM usage_key_parts WHERE part = ?"
_SET_PART: Final = """
    INSERT INTO usage_key_parts (part, merged_to, merged_keys, filter) VALUES (?, ?, ?, ?)
    ON CONFLICT (part) DO UPDATE
    SET merged_to = excluded.merged_to, merged_keys = excluded.merged_keys, filter = excluded.filter
"""
_OF_PART: Final = "SELECT key_hash FROM usage_keys WHERE key_hash >= ? AND key_hash < ?"
# A key counts once however often it is merged: refusing here would refuse all usage from then on.
_MERGE: Final = "INSERT INTO usage_keys (key_hash, body_hash, answered_in) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_MERGED: Final = """
    WITH RECURSIVE places (at) AS (SELECT 1 UNION ALL SELECT at + 16 FROM places WHERE at + 16 < length(?1))
    SELECT key_hash, body_hash, answered_in FROM usage_keys WHERE key_hash IN (SELECT substr(?1, at, 16) FROM places)
"""
_KEEP_ANSWERS: Final = "INSERT INTO usage_key_answers (seq, key_hashes, answers) VALUES (?, ?, ?)"
_ANSWERS: Final = "SELECT key_hashes, answers FROM usage_key_answers WHERE seq = ?"


class RecentKeys:
    """The log of one database as one process knows it. It is only looked at while a transaction that writes is open.

    What it holds was committed: it reads the log from where it last did when a transaction first asks, and what that
    transaction adds stays apart, because it may be rolled back.
    """

    def __init__(self) -> None:
        self._seq = 0
        self._merges = 0
        self._count = 0
        self._merged_to = [0] * _PARTS
        self._merged_keys = [0] * _PARTS
        self._records = [bytearray() for _ in range(_PARTS)]
        self._filters = [bytearray(_LEAST_FILTER) for _ in range(_PARTS)]
        self._transaction: object = None
        self._added: dict[bytes, tuple[bytes, int | None]] = {}
        self._added_seq = 0
        self._added_merges = 0

    def find(self, driver: SqliteConnection, key_hashes: Collection[bytes]) -> dict[bytes, tuple[bytes, Any]]:
        """Which of these keys were used: hash → (hash of the body, stored answer). In the connection's thread."""
        connection = self._caught_up(driver)
        found = self._found(connection, key_hashes)
        answers: dict[bytes, Any] = {}
        for seq in {answered_in for _, answered_in in found.values() if answered_in is not None}:
            hashes, texts = connection.execute(_ANSWERS, (seq,)).fetchone()
            answers |= zip(_pieces(hashes), json_value(texts), strict=True)
        return {key: (body, answers.get(key)) for key, (body, _) in found.items()}

    def add(self, driver: SqliteConnection, keys: Sequence[UsedKey]) -> None:
        """Mark keys as used, in the connection's thread. Raises sqlite3.IntegrityError when one is, or comes twice."""
        connection = self._caught_up(driver)
        hashes = {one.key_hash for one in keys}
        if len(hashes) < len(keys) or self._found(connection, hashes):
            raise sqlite3.IntegrityError("an idempotency key was used before")
        if self._added_merges == self._merges:
            self._merge(connection, most=_AT_ONCE + 2 * len(keys))
        seq = self._added_seq + 1
        is_answered = any(one.answer is not None for one in keys)
        records = b"".join([one.key_hash + one.body_hash for one in keys])
        connection.execute(_APPEND, (seq, self._added_merges, is_answered, records))
        if is_answered:
            texts = json_text([one.answer for one in keys])
            connection.execute(_KEEP_ANSWERS, (seq, b"".join([one.key_hash for one in keys]), texts))
        self._added_seq = seq
        answered_in = seq if is_answered else None
        self._added |= {one.key_hash: (one.body_hash, answered_in) for one in keys}

    def _caught_up(self, driver: SqliteConnection) -> sqlite3.Connection:
        connection = driver.raw
        if driver.transaction is None:
            raise RuntimeError("keys are only looked at in a transaction that writes")
        if driver.transaction is self._transaction:
            return connection
        rows = connection.execute(_LOGGED, (self._seq,)).fetchall()
        if rows:
            # Whoever merges appends as well, and the newest row stays: it says how far merging has come.
            self._read_parts(connection, merges=rows[-1][1])
        for seq, _, is_answered, records in rows:
            self._take(seq, records, is_answered=bool(is_answered))
        self._added, self._added_seq, self._added_merges = {}, self._seq, self._merges
        self._transaction = driver.transaction
        return connection

    def _read_parts(self, connection: sqlite3.Connection, *, merges: int) -> None:
        for number in range(max(self._merges, merges - _PARTS), merges):
            part = number % _PARTS
            merged_to, merged_keys, bits = connection.execute(_PART, (part,)).fetchone()
            records = self._records[part]
            in_tree = bisect_right(range(len(records) // _RECORD.size), merged_to, key=lambda at: _seq_of(records, at))
            del records[: in_tree * _RECORD.size]
            self._count -= in_tree
            self._merged_to[part], self._merged_keys[part] = merged_to, merged_keys
            self._filters[part] = bytearray(bits)
            _note(self._filters[part], (key for key, _, _ in _RECORD.iter_unpack(records)))
        self._merges = merges

    def _take(self, seq: int, appended: bytes, *, is_answered: bool) -> None:
        tag = (seq * 2 + is_answered).to_bytes(8, "big")
        merged_to, records, filters, size = self._merged_to, self._records, self._filters, _APPENDED.size
        start = 0
        for part, places in _PLACES_APPENDED.iter_unpack(appended):
            end = start + size
            if seq > merged_to[part]:
                records[part] += appended[start:end] + tag
                bits = filters[part]
                most = len(bits) * 8 - 1
                place, another = places & most, (places >> _FURTHER) & most
                bits[place >> 3] |= 1 << (place & 7)
                bits[another >> 3] |= 1 << (another & 7)
                self._count += 1
            start = end
        self._seq = seq

    def _found(
        self, connection: sqlite3.Connection, key_hashes: Collection[bytes]
    ) -> dict[bytes, tuple[bytes, int | None]]:
        found = {}
        if self._added:
            found = {key: self._added[key] for key in key_hashes if key in self._added}
        merged = []
        for key in self._perhaps(b"".join(key_hashes)):
            recent = self._recent(key)
            if recent is None:
                merged.append(key)
            else:
                found[key] = recent
        if merged:
            rows = connection.execute(_MERGED, (b"".join(sorted(merged)),))
            found |= {key: (body, answered_in) for key, body, answered_in in rows}
        return found

    def _perhaps(self, packed: bytes) -> list[bytes]:
        filters = self._filters
        found = []
        at = 0
        for part, places in _PLACES.iter_unpack(packed):
            bits = filters[part]
            most = len(bits) * 8 - 1
            place = places & most
            if bits[place >> 3] >> (place & 7) & 1:
                place = (places >> _FURTHER) & most
                if bits[place >> 3] >> (place & 7) & 1:
                    found.append(packed[at : at + 16])
            at += 16
        return found

    def _recent(self, key: bytes) -> tuple[bytes, int | None] | None:
        records = self._records[key[0]]
        at = records.find(key)
        while at > 0 and at % _RECORD.size:
            at = records.find(key, at + 1)
        if at < 0:
            return None
        _, body, tag = _RECORD.unpack_from(records, at)
        return body, tag // 2 if tag % 2 else None

    def _merge(self, connection: sqlite3.Connection, *, most: int) -> None:
        left = min(most, self._count - min(MOST_KEPT, max(LEAST_KEPT, sum(self._merged_keys) // _SHARE_KEPT)))
        if left <= 0:
            return
        merged_to = list(self._merged_to)
        for _ in range(_PARTS):
            part = self._added_merges % _PARTS
            rows = sorted(_RECORD.iter_unpack(self._records[part]))
            connection.executemany(_MERGE, [(key, body, tag // 2 if tag % 2 else None) for key, body, tag in rows])
            merged_keys = self._merged_keys[part] + len(rows)
            bits = self._filter(connection, part, merged_keys)
            connection.execute(_SET_PART, (part, self._seq, merged_keys, bits))
            merged_to[part] = self._seq
            self._added_merges += 1
            left -= len(rows)
            if left <= 0:
                break
        connection.execute(_FORGET, (min(merged_to),))

    def _filter(self, connection: sqlite3.Connection, part: int, keys: int) -> bytearray:
        bits = self._filters[part]
        size = len(bits)
        while size < _MOST_FILTER and keys * _BITS_PER_KEY > size * 8:
            size *= 4
        if size > len(bits):
            after = bytes([part + 1]) if part < _PARTS - 1 else b"\xff" * 17
            bits = bytearray(size)
            _note(bits, (key for (key,) in connection.execute(_OF_PART, (bytes([part]), after))))
        return bits


def recent_keys(driver: SqliteConnection) -> RecentKeys:
    """What this process knows of the database's log of keys."""
    return driver.kept(RecentKeys)


def _note(bits: bytearray, keys: Iterable[bytes]) -> None:
    most = len(bits) * 8 - 1
    for _, places in _PLACES.iter_unpack(b"".join(keys)):
        for place in (places & most, (places >> _FURTHER) & most):
            bits[place >> 3] |= 1 << (place & 7)


def _pieces(packed: bytes) -> list[bytes]:
    return [packed[at : at + 16] for at in range(0, len(packed), 16)]


def _seq_of(records: bytearray, number: int) -> int:
    return int.from_bytes(records[number * _RECORD.size + 24 : (number + 1) * _RECORD.size], "big") // 2
