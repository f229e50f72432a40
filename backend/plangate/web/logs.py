"""Structured logs on stderr: one JSON object a line, secrets removed wherever they stand.

The access log of the hot routes is written in small batches, because one write for each of ten thousand requests a
second would cost more than answering them.
"""

import asyncio
import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from datetime import datetime
from typing import Any, Final, TextIO

import msgspec
import structlog

_BATCH_SECONDS: Final = 0.2
_BATCH_LINES: Final = 2_000
_SECRET_NAMES: Final = re.compile(
    r"authorization|cookie|secret|token|password|api_?key|stripe-signature|raw_?key|quote", re.IGNORECASE
)
_SECRETS: Final = re.compile(
    r"pgt_[sp]k_[\w-]+"  # our own keys
    r"|(?:sk|rk|pk)_(?:live|test)_\w+|(?:whsec|absec)_[\w+/=-]+"  # Stripe's
    r"|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"  # signed tokens and quotes
    r"|(?<=\bv1=)[0-9a-f]{16,}"  # the signature of a webhook
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"  # user and password of a database address
    r"|(?<=Bearer )[^\s\"']+"
)
REDACTED: Final = "[redacted]"


def configure_logging(level: str = "info", *, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's records to `stream` (stderr) as redacted JSON lines."""
    threshold = logging.getLevelName(level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_json)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    target = logging.StreamHandler(stream or sys.stderr)
    target.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [target]
    root.setLevel(max(threshold, logging.WARNING))


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: values under telling names, and anything shaped like a secret, become `[redacted]`."""
    for name, value in event.items():
        event[name] = REDACTED if _SECRET_NAMES.search(name) and value else _redacted(value)
    return event


def redacted_text(text: str) -> str:
    """The text with everything in it that is shaped like a secret replaced."""
    return _SECRETS.sub(REDACTED, text)


class AccessLine(msgspec.Struct, gc=False):
    """One answered request. `path` carries no query, which may hold names or publishable keys."""

    method: str
    path: str
    status: int
    ms: float
    request_id: str
    address: str
    key: str | None
    environment: str | None
    timestamp: datetime
    event: str = "request"
    level: str = "info"


class AccessLog:
    """One line for each request at level info, collected and written together at most `_BATCH_SECONDS` later."""

    def __init__(self, level: str = "info", *, write: Callable[[str], object] | None = None) -> None:
        self._is_on = level in {"debug", "info"}
        self._write = write or sys.stderr.write
        self._lines: list[AccessLine] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(self, line: AccessLine) -> None:
        """Keep one line until the next batch is written."""
        if not self._is_on:
            return
        self._lines.append(line)
        if len(self._lines) >= _BATCH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_BATCH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            self._write(_encoder.encode_lines(lines).decode())


_encoder: Final = msgspec.json.Encoder()


def _redacted(value: Any) -> Any:  # noqa: ANN401 - any logged value
    if isinstance(value, str):
        return _SECRETS.sub(REDACTED, value)
    if isinstance(value, bytes):
        return _SECRETS.sub(REDACTED, value.decode("utf-8", "replace"))
    if isinstance(value, dict):
        return {
            key: REDACTED if isinstance(key, str) and _SECRET_NAMES.search(key) and item else _redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(item) for item in value]
    return value


def _json(value: object, **_options: object) -> str:
    return msgspec.json.encode(value, enc_hook=lambda other: redacted_text(repr(other))).decode()
