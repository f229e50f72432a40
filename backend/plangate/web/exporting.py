"""Rows for other programs: CSV and NDJSON, sent as they are read, in the form the caller asked for."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from plangate.web.exchange import Exchange, encode_json

Form: TypeAlias = Literal["json", "csv", "ndjson"]

CONTENT_TYPES: Final = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
}
_BY_TYPE: Final[dict[str, Form]] = {
    "application/json": "json",
    "text/csv": "csv",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
}
_ACCEPT_BYTES_MAX: Final = 1_000
# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def wanted_form(exchange: Exchange, named: Form | None, usual: Form) -> Form:
    """The form named in the query, else the first of `Accept` that we know, else the usual one."""
    if named is not None:
        return named
    for name, value in exchange.scope["headers"]:
        if name == b"accept" and len(value) <= _ACCEPT_BYTES_MAX:
            for part in value.decode("latin-1").split(","):
                form = _BY_TYPE.get(part.partition(";")[0].strip().lower())
                if form is not None:
                    return form
    return usual


async def written(
    rows: AsyncIterator[Sequence[msgspec.Struct]], form: Literal["csv", "ndjson"], columns: Sequence[str]
) -> AsyncIterator[bytes]:
    """Pages of rows as chunks of text, one for each page; CSV has a line of column names first.

    The first page is read before anything is written, so that what it refuses can still be answered as a problem.
    """
    head = csv_lines([columns]) if form == "csv" else b""
    async for page in rows:
        if form == "csv":
            lines = csv_lines(msgspec.to_builtins([getattr(row, name) for name in columns]) for row in page)
        else:
            lines = b"".join(encode_json(row) + b"\n" for row in page)
        if head or lines:
            yield head + lines
        head = b""


def csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Lines of RFC 4180 CSV. Numbers stand as they are; a text that a spreadsheet would compute gets a quote before."""
    return "".join(",".join(_cell(value) for value in row) + "\r\n" for row in rows).encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, str) and text.startswith(_FORMULA_STARTS):
        text = "'" + text
    if any(mark in text for mark in ',"\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text
