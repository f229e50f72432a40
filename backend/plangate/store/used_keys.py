"""Idempotency keys of usage: each counts once for ever.

PostgreSQL keeps them in one table. SQLite would change a page of it for each key, so there a key waits in a log first
(`plangate.store.recent_keys`).
"""

from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Integer, LargeBinary
from sqlmodel import Field, SQLModel

from plangate.store.columns import JsonText, json_text, json_value
from plangate.store.direct import Direct, Filled, Packed, Rows

KEY_HASH_BYTES: Final = 16
BODY_HASH_BYTES: Final = 8  # tells another body from the same by accident; nobody gains by making two that collide


class UsageKeyRow(SQLModel, table=True):
    """A used idempotency key. `answer` is what `consume` said, for its retries.

    Keys are random and never go, so their rows are as short as can be: `key_hash` holds the environment as well
    (`used_key_hash`), and there is no tree beside the table. On SQLite the answer lies in the row `answered_in` of
    `usage_key_answers`.
    """

    __tablename__ = "usage_keys"
    __table_args__ = ({"sqlite_with_rowid": False},)

    key_hash: bytes = Field(primary_key=True, sa_type=LargeBinary)
    body_hash: bytes = Field(sa_type=LargeBinary)
    answer: Any = Field(default=None, sa_type=JsonText, nullable=True)
    answered_in: int | None = Field(default=None, sa_type=BigInteger)


class UsageKeyLogRow(SQLModel, table=True):
    """Only on SQLite: keys that were used together, until each is in `usage_keys`.

    `records` are a key hash and a body hash for each, and `merges` how many parts had been merged by then; whether
    `usage_key_answers` has a row with the same number is `is_answered`.
    """

    __tablename__ = "usage_key_log"

    seq: int = Field(primary_key=True, sa_type=Integer)
    merges: int = Field(sa_type=BigInteger)
    is_answered: bool
    records: bytes = Field(sa_type=LargeBinary)


class UsageKeyPartRow(SQLModel, table=True):
    """Only on SQLite: keys whose hash begins with the byte `part` are in `usage_keys` up to the log's `merged_to`.

    They are `merged_keys`; `filter` has two bits for each of those keys, so that most others are known not to be there.
    """

    __tablename__ = "usage_key_parts"

    part: int = Field(primary_key=True, sa_type=Integer)
    merged_to: int = Field(sa_type=BigInteger)
    merged_keys: int = Field(sa_type=BigInteger)
    filter: bytes = Field(sa_type=LargeBinary)


class UsageKeyAnswersRow(SQLModel, table=True):
    """Only on SQLite: what was answered to keys used together, in the order of time, kept as long as they are."""

    __tablename__ = "usage_key_answers"

    seq: int = Field(primary_key=True, sa_type=Integer)
    key_hashes: bytes = Field(sa_type=LargeBinary)
    answers: Any = Field(sa_type=JsonText)


class UsedKey(NamedTuple):
    """An idempotency key that counts from now on, and what its repeats are answered (None: that they are repeats)."""

    key_hash: bytes
    body_hash: bytes
    answer: object


_NOT_ON_SQLITE: Final = ""
_USED_KEYS: Final = Direct(
    sqlite=_NOT_ON_SQLITE,
    postgresql="SELECT key_hash, body_hash, answer FROM usage_keys WHERE key_hash = ANY($1::bytea[])",
)
_ADD_KEYS: Final = Direct(
    sqlite=_NOT_ON_SQLITE,
    postgresql="""
        INSERT INTO usage_keys (key_hash, body_hash, answer)
        SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::text[])
    """,
)


def used_key_hash(environment_id: str, key: str) -> bytes:
    """What an idempotency key is remembered by. The same key in two environments is two keys."""
    # No key holds a line break, so no two pairs are one text.
    return sha256(f"{environment_id}\n{key}".encode()).digest()[:KEY_HASH_BYTES]


def asking_used_keys(key_hashes: Collection[bytes]) -> Filled:
    """Which of these idempotency keys were used, on PostgreSQL? `used_keys_of` reads the rows."""
    return _USED_KEYS.of(Packed(sorted(key_hashes)))


def used_keys_of(rows: Rows) -> dict[bytes, tuple[bytes, Any]]:
    """Used keys in the rows of `asking_used_keys`: hash → (hash of the body, stored answer)."""
    return {key_hash: (body_hash, json_value(answer)) for key_hash, body_hash, answer in rows}


def adding_keys(keys: Sequence[UsedKey]) -> Filled:
    """The statement that marks keys as used on PostgreSQL; one that is used already is its integrity error."""
    # Keys are sorted, so that two batches with the same keys wait for each other in one order.
    used = sorted(keys, key=lambda one: one.key_hash)
    return _ADD_KEYS.of(
        Packed([one.key_hash for one in used]),
        Packed([one.body_hash for one in used]),
        [json_text(one.answer) for one in used],
    )
