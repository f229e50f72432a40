"""One request and its answer, as the edge sees them: head read once, body bounded, exactly one answer."""

import re
from collections.abc import Iterable, Mapping
from itertools import count
from secrets import token_hex
from time import perf_counter
from typing import Any, Final

import msgspec
from starlette.types import Message, Receive, Scope, Send

from plangate.deployment import ApiKey
from plangate.errors import Code, Refusal
from plangate.web.connection import WHOLE_ANSWER, SendWhole
from plangate.web.problems import CONTENT_TYPE as PROBLEM_TYPE
from plangate.web.problems import problem_of

BODY_BYTES_MAX: Final = 1024 * 1024
DEPTH_MAX: Final = 32
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PREFIX: Final = token_hex(5)
_NUMBERS: Final = count(1)
# Possessive, and ending at the end of an unterminated text, so that no input makes it look twice at a character.
_TEXTS: Final = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_PAIRS: Final = re.compile(rb"\[\]|\{\}")
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

# Headers of a request that are kept as they came, and the attribute each becomes.
_READ_AS: Final = {
    b"authorization": "authorization",
    b"content-type": "content_type",
    b"content-length": "content_length",
    b"content-encoding": "content_encoding",
    b"plangate-version": "version",
    b"idempotency-key": "idempotency_key",
    b"if-match": "if_match",
    b"origin": "origin",
    b"stripe-signature": "signature",
}
_JSON: Final = (b"content-type", b"application/json")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_STORE: Final = (b"cache-control", b"no-store")
# The head of a hot route's 200, up to further headers.
_HOT: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-content-type-options: nosniff\r\n"
    b"content-length: %d\r\nx-request-id: %b\r\n%b"
)
encode_json: Final = msgspec.json.Encoder().encode


class ClientGone(Exception):
    """The client closed the connection before it sent the whole request; nobody waits for an answer."""


class Exchange:
    """A request's head, its bounded body, and the one answer it gets.

    `key` is set by the edge once the request has shown a live key; `route` names the route for logs and metrics;
    `more_headers` go out with every whole answer, refusals included.
    """

    # What few requests say stands here once instead of being set for each of them.
    status = 0
    route = "unmatched"
    address = ""
    body_bytes_max = BODY_BYTES_MAX
    key: ApiKey | None = None
    more_headers: tuple[tuple[bytes, bytes], ...] = ()
    authorization: bytes | None = None
    content_length: bytes | None = None
    content_type = b""
    content_encoding: bytes | None = None
    forwarded: tuple[str, ...] = ()
    idempotency_key: bytes | None = None
    if_match: bytes | None = None
    origin: bytes | None = None
    signature: bytes | None = None
    version: bytes | None = None
    request_id = ""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = perf_counter()
        self.scope = scope
        self._receive = receive
        self._send = send
        # Taken out, so that the scope does not lead to itself: such rings are work for the garbage collector.
        self._send_whole: SendWhole | None = scope.pop(WHOLE_ANSWER, None)
        for name, value in scope["headers"]:
            read_as = _READ_AS.get(name)
            if read_as is not None:
                setattr(self, read_as, value)
            elif name == b"x-forwarded-for":
                self.forwarded += (value.decode("latin-1"),)
            elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                self.request_id = value.decode("ascii")
        if not self.request_id:
            self.request_id = f"req_{_PREFIX}{next(_NUMBERS):08x}"

    # --- reading -----------------------------------------------------------------------------------

    async def body(self) -> bytes:
        """The whole body. Raises Refusal (413) beyond `body_bytes_max`, announced or streamed; ClientGone."""
        self.refuse_announced_size()
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGone
        first: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(first) > self.body_bytes_max:
                raise self._too_large()
            return first
        chunks = [first]
        size = len(first)
        while message.get("more_body", False):
            if size > self.body_bytes_max:
                raise self._too_large()
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            chunks.append(chunk)
        if size > self.body_bytes_max:
            raise self._too_large()
        return b"".join(chunks)

    async def json_body(self) -> bytes:
        """The body's bytes after every check that does not need a schema: type, size, depth, NUL characters.

        Raises Refusal: 415 unless it says it is plain JSON, 413 when too large, 400 when empty or too deep.
        """
        kind = self.content_type
        if kind != b"application/json" and kind.partition(b";")[0].strip().lower() != b"application/json":
            raise Refusal(
                Code.UNSUPPORTED_MEDIA_TYPE, "Send the body as JSON, with the header Content-Type: application/json."
            )
        if self.content_encoding is not None and self.content_encoding.lower() != b"identity":
            raise Refusal(Code.UNSUPPORTED_MEDIA_TYPE, "Compressed bodies are not read: send the body as it is.")
        body = await self.body()
        refuse_odd_json(body)
        return body

    def refuse_announced_size(self) -> None:
        """Raises Refusal (413) when Content-Length already says that the body is too large."""
        length = self.content_length
        if length is not None and (not length.isdigit() or len(length) > 12 or int(length) > self.body_bytes_max):
            raise self._too_large()

    async def receive(self) -> Message:
        """The request's messages for routes that read them themselves, bounded like `body`."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.body_bytes_max -= len(message.get("body", b""))
            if self.body_bytes_max < 0:
                raise self._too_large()
        return message

    # --- answering ---------------------------------------------------------------------------------

    async def answer(
        self, status: int, payload: bytes, headers: Iterable[tuple[bytes, bytes]] = (), *, kind: bytes | None = None
    ) -> None:
        """Send a whole answer; `payload` is JSON unless `kind` names another content type."""
        self.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    _JSON if kind is None else (b"content-type", kind),
                    (b"content-length", b"%d" % len(payload)),
                    (b"x-request-id", self.request_id.encode("ascii")),
                    _NOSNIFF,
                    _NO_STORE,
                    *self.more_headers,
                    *headers,
                ],
            }
        )
        await self._send({"type": "http.response.body", "body": payload})

    async def answer_hot(self, payload: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """A 200 of a hot route: JSON, and no header that a POST's answer can do without.

        `headers` are ours alone: nothing a client sent stands in them.
        """
        self.status = 200
        request_id = self.request_id.encode("ascii")
        if self._send_whole is not None:
            more = b"".join([b"%b: %b\r\n" % pair for pair in headers]) if headers else b""
            if self._send_whole(_HOT % (len(payload), request_id, more), payload):
                return
        fixed = (_JSON, (b"content-length", b"%d" % len(payload)), (b"x-request-id", request_id), _NOSNIFF)
        await self._send({"type": "http.response.start", "status": 200, "headers": fixed + headers})
        await self._send({"type": "http.response.body", "body": payload})

    async def refuse(self, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        """Send a problem, unless an answer has begun already."""
        if self.status:
            return
        sent = {**refusal.headers, **(headers or {})}
        if refusal.status == 401:
            sent.setdefault("WWW-Authenticate", "Bearer")
        elif refusal.status in {429, 503}:
            sent.setdefault("Retry-After", "2")
        await self.answer(
            refusal.status,
            encode_json(problem_of(refusal, self.request_id)),
            [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in sent.items()],
            kind=PROBLEM_TYPE,
        )

    async def send(self, message: Message) -> None:
        """The way out for routes that answer themselves: adds the headers every answer carries."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: list[Any] = list(message.get("headers", ()))
            headers.append((b"x-request-id", self.request_id.encode("ascii")))
            names = {name for name, _ in headers}
            if _NOSNIFF[0] not in names:
                headers.append(_NOSNIFF)
            message = {**message, "headers": headers}
        await self._send(message)

    def _too_large(self) -> Refusal:
        return Refusal(Code.TOO_LARGE, "The body is too large: 1 MiB at most, 256 KiB for messages from Stripe.")


def refuse_odd_json(body: bytes) -> None:
    """Raises Refusal (400) for an empty body, brackets nested deeper than 32, or a text with a NUL character.

    Neither database stores NUL alike, so no text may hold one.
    """
    if not body:
        raise Refusal(Code.MALFORMED, "The body is empty: JSON is expected.")
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX:
        brackets = _TEXTS.sub(b"", body).translate(None, _NO_BRACKETS)
        for _ in range(DEPTH_MAX):
            if not brackets:
                break
            brackets = _PAIRS.sub(b"", brackets)
        if brackets:
            raise Refusal(Code.MALFORMED, f"The body is not valid JSON, or nested deeper than {DEPTH_MAX} levels.")
    if b"\\u0000" in body and _NUL.search(body):
        raise Refusal(Code.MALFORMED, "A text in the body holds the character U+0000, which cannot be stored.")
