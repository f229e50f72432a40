"""A small HTTP load generator: fixed keep-alive connections, one request at a time on each, over raw sockets.

A client library would spend more time than the servers it measures.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import cast

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length: "
_GRACE_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured: answers a second, and the median and 99th percentile of their times in milliseconds."""

    per_second: float
    median_ms: float
    p99_ms: float


def post(path: str, body: bytes, *, key: str, port: int) -> bytes:
    """One POST request as bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def measure(port: int, request: Callable[[], bytes], *, connections: int, seconds: float, warm: float) -> Round:
    """Keep `connections` busy for `seconds` after a warm-up. Raises RuntimeError for any answer but a 200."""
    loop = asyncio.get_running_loop()
    start = perf_counter() + warm
    clients = [_Client(request, start, start + seconds) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), warm + seconds + _GRACE_SECONDS)
    times = sorted(time for client in clients for time in client.times)
    return Round(len(times) / seconds, times[len(times) // 2] * 1000, times[len(times) * 99 // 100] * 1000)


class _Client(asyncio.Protocol):
    """One connection: sends a request, waits for its whole answer, sends the next."""

    def __init__(self, request: Callable[[], bytes], start: float, end: float) -> None:
        self._request = request
        self._start = start
        self._end = end
        self._sent = 0.0
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass
        self._send(self._transport)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head_end = received.find(_END_OF_HEAD)
        if head_end < 0:
            self._received = received
            return
        at = received.find(_LENGTH, 0, head_end) + len(_LENGTH)
        length = int(received[at : received.find(b"\r", at)])
        if len(received) < head_end + 4 + length:
            self._received = received
            return
        self._received = b""
        now = perf_counter()
        if not received.startswith(b"HTTP/1.1 200"):
            self._fail(RuntimeError(f"unexpected answer: {received[:600]!r}"))
            return
        if self._sent >= self._start:
            self.times.append(now - self._sent)
        if self._transport is None:
            return
        if now < self._end:
            self._send(self._transport)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self, transport: asyncio.Transport) -> None:
        self._sent = perf_counter()
        transport.write(self._request())

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
        if self._transport is not None:
            self._transport.close()
