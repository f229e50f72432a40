"""Carries one call to Stripe: within its budget of time, with the caller's idempotency key, retried only when safe.

The official client may hang for four minutes with its defaults (80 s and two retries); a person waits for ours.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import anyio
import httpx
import stripe
from stripe import HTTPXClient, StripeClient, StripeObject

from plangate.billing.failures import FailureKind, StripeFailure, failure, understood
from plangate.billing.pacing import current_pace

# A Stripe object as plain JSON-like values: dicts, lists, texts, integers; decimals are texts.
StripeJson: TypeAlias = dict[str, Any]
Options: TypeAlias = Any

_ATTEMPTS_MAX: Final = 3
_PAUSE_SECONDS: Final = 0.15
_PAGE_SIZE: Final = 100
_PAGES_MAX: Final = 100_000  # ten million objects; a list without an end would be Stripe's fault
_RETRIED: Final = frozenset({FailureKind.LOCKED, FailureKind.UNCERTAIN})

# The instant (monotonic seconds) by which everything asked of Stripe in this task must be answered.
_deadline: ContextVar[float | None] = ContextVar("stripe_deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """All calls inside the block share this many seconds; a later one gets what earlier ones left over."""
    ends = time.monotonic() + seconds
    outer = _deadline.get()
    token = _deadline.set(ends if outer is None else min(ends, outer))
    try:
        yield
    finally:
        _deadline.reset(token)


class Transport:
    """One account's connection. `api_base` points it at a stand-in; `account` acts for a connected account."""

    def __init__(
        self,
        secret_key: str,
        *,
        api_base: str | None = None,
        account: str | None = None,
        timeout_seconds: float = 8,
    ) -> None:
        stripe.enable_telemetry = False
        self._timeout_seconds = timeout_seconds
        self._http = _Http(timeout=timeout_seconds)
        bases: Any = {"api": api_base, "meter_events": api_base, "files": api_base} if api_base else {}
        self.client = StripeClient(
            secret_key,
            stripe_account=account,
            base_addresses=bases,
            max_network_retries=0,
            http_client=self._http,
        )

    async def aclose(self) -> None:
        """Close the connections. The transport is of no use afterwards."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the package leaves it untyped

    async def read(self, request: Callable[[Options], Awaitable[StripeObject]]) -> StripeJson:
        """The object a GET answers with. Raises `StripeFailure`."""
        return await self._carry(request, {})

    async def find(self, request: Callable[[Options], Awaitable[StripeObject]]) -> StripeJson | None:
        """As `read`, and None when the object does not exist."""
        try:
            return await self._carry(request, {})
        except StripeFailure as refused:
            if refused.kind is FailureKind.ABSENT:
                return None
            raise

    async def write(self, request: Callable[[Options], Awaitable[StripeObject]], *, idempotency_key: str) -> StripeJson:
        """The object a POST or DELETE answers with; a retry inside uses the same key. Raises `StripeFailure`."""
        return await self._carry(request, {"idempotency_key": idempotency_key})

    async def pages(
        self,
        request: Callable[[StripeJson, Options], Awaitable[StripeObject]],
        params: StripeJson,
        *,
        is_oldest_first: bool = False,
    ) -> AsyncIterator[Sequence[StripeJson]]:
        """Each page of a list, following `has_more`. Oldest first walks backwards from `params["ending_before"]`."""
        asked = {"limit": _PAGE_SIZE, **params}
        for _ in range(_PAGES_MAX):
            page = await self.read(_bound(request, asked))
            entries: list[StripeJson] = page["data"]
            if is_oldest_first:
                entries.reverse()
            if entries:
                yield entries
            if not page.get("has_more") or not entries:
                return
            asked = {**asked, ("ending_before" if is_oldest_first else "starting_after"): entries[-1]["id"]}

    async def all(
        self, request: Callable[[StripeJson, Options], Awaitable[StripeObject]], params: StripeJson
    ) -> list[StripeJson]:
        """Every entry of a list."""
        return [entry async for page in self.pages(request, params) for entry in page]

    async def _carry(self, request: Callable[[Options], Awaitable[StripeObject]], options: Options) -> StripeJson:
        pace = current_pace()
        if pace is None:
            return await self._tried(request, options)
        while True:
            await pace.turn()
            try:
                answer = await self._tried(request, options)
            except StripeFailure as refused:
                if refused.kind is FailureKind.BUSY and pace.refused():
                    continue
                raise
            pace.answered()
            return answer

    async def _tried(self, request: Callable[[Options], Awaitable[StripeObject]], options: Options) -> StripeJson:
        ends = time.monotonic() + self._timeout_seconds
        outer = _deadline.get()
        if outer is not None:
            ends = min(ends, outer)
        last = failure(FailureKind.UNCERTAIN)
        for attempt in range(_ATTEMPTS_MAX):
            remaining = ends - time.monotonic()
            if remaining <= 0:
                break
            try:
                with anyio.fail_after(remaining):
                    answer = await request(options)
                return _plain(answer)
            except TimeoutError as error:
                raise failure(FailureKind.UNCERTAIN) from error
            except stripe.StripeError as error:
                last = understood(error)
                # A stored 5xx comes back for every retry with its key, so asking again would only cost time.
                if last.kind not in _RETRIED or last.was_replayed or error.http_status in _NOT_RETRIED:
                    raise last from error
            pause = _PAUSE_SECONDS * 2**attempt
            if attempt + 1 < _ATTEMPTS_MAX and time.monotonic() + pause < ends:
                await anyio.sleep(pause)
        raise last


class _Http(HTTPXClient):
    """The package's client, except that bodies are sent as `content`, and accepted answers stay as they came.

    As `data` httpx would warn at every call. And the package would make an object of each part of an answer, of which
    we would make plain values again: most of what a call costs this process.
    """

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any = None,  # noqa: ANN401 - as inherited
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """The package reads errors; of an accepted answer it sees an empty object, whose headers carry the whole."""
        content, status, answered = await self.carry(method, url, headers, post_data)
        if not _is_accepted(status):
            return content, status, answered
        try:
            whole = json.loads(content)
        except (ValueError, RecursionError):
            whole = None
        if isinstance(whole, dict) and "object" in whole:
            return b"{}", status, _Answered(answered, whole)
        # Not from Stripe, although it says that all is well: the package refuses what is no JSON.
        return b"", status, answered

    async def carry(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any = None,  # noqa: ANN401 - as inherited
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One request over the wire: what came back, its status, its headers."""
        return await super().request_async(method, url, headers, post_data)

    def _get_request_args_kwargs(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: Any,  # noqa: ANN401 - as inherited
    ) -> Any:  # noqa: ANN401 - as inherited
        arguments, options = super()._get_request_args_kwargs(method, url, headers, post_data)
        options["content"] = options.pop("data") or None
        return arguments, options


class _Answered(httpx.Headers):
    """The headers of an accepted answer, and its whole object."""

    def __init__(self, headers: Mapping[str, str], whole: StripeJson) -> None:
        super().__init__(headers)
        self.whole = whole


def _plain(answer: StripeObject) -> StripeJson:
    """The object that came with the headers of an accepted answer."""
    response: Any = answer.last_response
    whole: StripeJson = response.headers.whole
    return whole


def _is_accepted(status: int) -> bool:
    return 200 <= status < 300


# Stripe stores a 500 under the key: the same request would be answered with it again for a day.
_NOT_RETRIED: Final = frozenset({500})


def _bound(
    request: Callable[[StripeJson, Options], Awaitable[StripeObject]], params: StripeJson
) -> Callable[[Options], Awaitable[StripeObject]]:
    return lambda options: request(params, options)
