"""Column types that mean the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Dialect, Integer, Text, cast
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# A 64-bit key that counts up by itself: SQLite only does so for INTEGER.
CountingKey = BigInteger().with_variant(Integer, "sqlite")


def to_microseconds(instant: datetime) -> int:
    """An aware instant as whole microseconds since 1970, the stored form."""
    return (instant - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The aware UTC instant of a stored number."""
    return _EPOCH + timedelta(microseconds=microseconds)


def json_text(value: object) -> str | None:
    """A JSON value as it is stored; None stays NULL."""
    return None if value is None else msgspec.json.encode(value).decode()


def json_value(text: str | None) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value of a stored text."""
    return None if text is None else msgspec.json.decode(text)


def mentions(document: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Whether the stored JSON holds this text as a value of its own. No index helps: for questions asked seldom."""
    quoted = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return cast(document, Text).like(f'%"{quoted}"%', escape="\\")


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant, stored as integer microseconds so that both databases compare it alike."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Refuse naive datetimes: an instant without a zone is a bug."""
        if value is None:
            return None
        return to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Back to an aware datetime."""
        return None if value is None else from_microseconds(value)


class JsonText(TypeDecorator[Any]):
    """A JSON value stored as text, encoded by msgspec: exact 64-bit integers on both databases."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ANN401 - any JSON value
        """None stays NULL; everything else is encoded."""
        return json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ANN401 - any JSON value
        """The decoded value."""
        return json_value(value)
