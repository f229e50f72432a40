"""How uvicorn serves us: its settings, and a connection that can send a whole answer in one piece.

ASGI tells the head of an answer and its body apart, and uvicorn writes each by itself: two system calls and two packets
for an answer that fits into one. The hot routes know the whole answer at once.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Where the scope of a request holds how to send its whole answer; on any other server it holds nothing.
WHOLE_ANSWER: Final = "plangate.whole_answer"

# Sends a head, each line of it ended, and a body. False, and then nothing was sent, when only ASGI's messages will do.
SendWhole: TypeAlias = Callable[[bytes, bytes], bool]


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which also puts `WHOLE_ANSWER` into the scope of each request."""

    def on_headers_complete(self) -> None:
        """Make the request's cycle as uvicorn does; its task has not run yet."""
        super().on_headers_complete()
        # Not so for an upgrade, which makes no cycle: what is there then is none, or that of the request before.
        if getattr(self.cycle, "scope", None) is self.scope:
            self.scope[WHOLE_ANSWER] = partial(_send_whole, self.cycle)


# What `plangate serve` is served with; everything that serves this application uses the same.
SERVED_WITH: Final[Mapping[str, Any]] = {
    "http": Connection,
    "interface": "asgi3",
    "access_log": False,
    "log_config": None,
    "server_header": False,
    "proxy_headers": False,
}


class _OnEveryAnswer:
    """The lines that uvicorn adds to each head, the date among them; it makes their list anew once a second."""

    __slots__ = ("_headers", "_lines")

    def __init__(self) -> None:
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._lines = b""

    def lines(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        if headers is not self._headers:
            self._lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
            self._headers = headers
        return self._lines


_on_every_answer: Final = _OnEveryAnswer()


def _send_whole(cycle: RequestResponseCycle, head: bytes, body: bytes) -> bool:
    """Write it and end the cycle, as uvicorn's `send` does with the last message of an answer.

    Only uvicorn's own access log is left out: the edge writes one.
    """
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or not cycle.keep_alive  # then the head must say so
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%b%b\r\n%b" % (head, _on_every_answer.lines(cycle.default_headers), body))
    cycle.message_event.set()
    cycle.on_response()
    return True
