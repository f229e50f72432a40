"""Answers as they go over the wire: in one piece where that can be, and right in every way HTTP can ask for them."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from plangate.settings import Settings
from tests.conftest import SECRET_KEY, environment_settings
from tests.plangate_server import PlangateServer

_BODY = b'{"company": {"id": "nobody"}, "feature": "exports"}'


@pytest.fixture
def server(sqlite_template: Path, tmp_path: Path) -> Iterator[PlangateServer]:
    """A server without companies: that nobody is known is an answer like any other."""
    file = tmp_path / "plangate.sqlite3"
    file.write_bytes(sqlite_template.read_bytes())
    settings = Settings(
        database_url=f"sqlite:///{file}",
        secret_keys=(SECRET_KEY,),
        rate_limit_per_second=100_000,
        environments=(environment_settings(),),
    )
    with PlangateServer(settings) as running:
        yield running


@contextmanager
def _connected(server: PlangateServer, *, buffer_bytes: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        if buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        yield connection


def _request(key: str, number: int = 1, *, more: bytes = b"", version: bytes = b"1.1") -> bytes:
    return (
        b"POST /v1/check HTTP/%b\r\nHost: plangate\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
        b"X-Request-Id: request-%d\r\nContent-Length: %d\r\n%b\r\n" % (version, key.encode(), number, len(_BODY), more)
    )


def _told(answer: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Status line, headers and body of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, dict(line.decode("ascii").split(": ", 1) for line in lines), body


def _received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    pieces = []
    while piece := connection.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_check_is_answered_in_one_piece(server: PlangateServer) -> None:
    key = server.key()
    with _connected(server) as connection:
        for number in (1, 2):
            connection.sendall(_request(key, number) + _BODY)
            status, headers, body = _told(connection.recv(65_536))
            assert status == b"HTTP/1.1 200 OK"
            at = parsedate_to_datetime(headers.pop("date"))
            assert abs(at - datetime.now(UTC)) < timedelta(seconds=5)
            assert headers == {
                "content-type": "application/json",
                "content-length": str(len(body)),
                "x-request-id": f"request-{number}",
                "x-content-type-options": "nosniff",
            }
            assert json.loads(body)["reason"] == "unknown_company"


@pytest.mark.parametrize(("more", "version"), [(b"Connection: close\r\n", b"1.1"), (b"", b"1.0")])
def test_a_connection_that_ends_says_so(server: PlangateServer, more: bytes, version: bytes) -> None:
    key = server.key()
    with _connected(server) as connection:
        connection.sendall(_request(key, more=more, version=version) + _BODY)
        status, headers, body = _told(_received(connection))
    assert status == b"HTTP/1.1 200 OK"
    assert headers["connection"] == "close"
    assert "date" in headers
    assert (headers["x-request-id"], headers["content-length"]) == ("request-1", str(len(body)))


def test_a_body_is_asked_for_before_it_is_answered(server: PlangateServer) -> None:
    key = server.key()
    with _connected(server) as connection:
        connection.sendall(_request(key, more=b"Expect: 100-continue\r\n"))
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(_BODY)
        assert _told(connection.recv(65_536))[0] == b"HTTP/1.1 200 OK"


def test_requests_sent_ahead_are_answered_in_order_however_slowly_they_are_read(server: PlangateServer) -> None:
    """More than the kernel and the transport hold, so that writing has to wait for the reader."""
    key, count = server.key(), 3_000
    with _connected(server, buffer_bytes=4_096) as connection:
        sent = b"".join(_request(key, number) + _BODY for number in range(count))
        sent += _request(key, count, more=b"Connection: close\r\n") + _BODY
        connection.setblocking(True)
        received: list[bytes] = []
        at = 0
        while at < len(sent):
            at += connection.send(sent[at : at + 200_000])
        received.append(_received(connection))
    ids = [_told(answer)[1]["x-request-id"] for answer in b"".join(received).split(b"HTTP/1.1 200 OK")[1:] if answer]
    assert ids == [f"request-{number}" for number in range(count + 1)]


def test_a_client_that_leaves_early_harms_nobody(server: PlangateServer) -> None:
    key = server.key()
    for _ in range(20):
        with _connected(server) as connection:
            connection.sendall(_request(key) + _BODY)
        with _connected(server) as connection:
            connection.sendall(_request(key) + _BODY[:-1])
    with server.client(key) as http:
        assert http.post("/v1/check", content=_BODY, headers={"content-type": "application/json"}).status_code == 200
