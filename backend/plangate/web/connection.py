"""How uvicorn serves us: its settings, and a connection that can send a whole answer in one piece.

ASGI tells the head of an answer and its body apart, and uvicorn writes each by itself: two system calls and two packets
for an answer that fits into one. The hot routes know the whole answer at once.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Where the scope of a request holds how to send its whole answer; on any other server it holds nothing.
WHOLE_ANSWER: Final = "plangate.whole_answer"

# Sends head and body as they stand. False, and then nothing was sent, when only ASGI's messages will do.
SendWhole: TypeAlias = Callable[[bytes], bool]


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
    "date_header": False,
    "proxy_headers": False,
}


def _send_whole(cycle: RequestResponseCycle, answer: bytes) -> bool:
    """Write it and end the cycle, as uvicorn's `send` does with the last message of an answer.

    Only uvicorn's own access log is left out: the edge writes one.
    """
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or not cycle.keep_alive  # then the head must say so
        or cycle.default_headers
    ):
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(answer)
    cycle.message_event.set()
    cycle.on_response()
    return True
