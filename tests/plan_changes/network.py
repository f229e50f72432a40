"""A network that fails at one chosen call to Stripe, before or after Stripe acted, once or from then on."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import anyio
import pytest
from stripe import APIConnectionError

from plangate.billing import transport
from plangate.errors import Refusal
from tests.plan_changes.scenarios import Scenario, restart
from tests.shop import Shop


class Fault(StrEnum):
    """What happens to the call."""

    RESET_BEFORE = "reset before it was sent"
    RESET_AFTER = "reset before the answer"
    TIMEOUT_BEFORE = "never sent, no answer"
    TIMEOUT_AFTER = "applied, no answer"
    ERROR = "500"
    UNAVAILABLE = "503"
    BUSY = "429"
    TRUNCATED = "half an answer"
    GARBAGE = "applied, and a proxy's page instead of the answer"
    EMPTY = "applied, and an answer of nothing"
    POLITE = "applied, and a proxy's JSON instead of the answer"
    GATEWAY = "502 of a proxy"
    SLOW = "an answer that takes its time"


_REACHES_STRIPE = frozenset(
    {
        Fault.RESET_AFTER,
        Fault.TIMEOUT_AFTER,
        Fault.TRUNCATED,
        Fault.GARBAGE,
        Fault.EMPTY,
        Fault.POLITE,
        Fault.SLOW,
    }
)
_STATUS = {Fault.ERROR: 500, Fault.UNAVAILABLE: 503, Fault.BUSY: 429}
_PAGE = b"<html><body>The proxy is sorry.</body></html>"
_INSTEAD = {Fault.GARBAGE: _PAGE, Fault.EMPTY: b"", Fault.POLITE: b'{"status": "accepted"}'}
_SLOW_SECONDS = 0.3
_BUSY = b'{"error": {"type": "api_error", "message": "The network is in the way."}}'


class Network:
    """Counts calls, and spoils number `strikes_at` (and with `stays`, all after it)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.strikes_at: int | None = None
        self.fault = Fault.ERROR
        self.stays = False
        self.hangs = False
        network, carry = self, transport._Http.carry  # noqa: SLF001 - the one place all calls pass

        async def spoiled(self: Any, method: str, url: str, headers: Any, post_data: Any = None) -> Any:  # noqa: ANN401 - as in the package
            network.calls += 1
            if network.strikes_at is None or network.calls < network.strikes_at:
                return await carry(self, method, url, headers, post_data)
            if network.calls > network.strikes_at and not network.stays:
                return await carry(self, method, url, headers, post_data)
            fault = network.fault
            if fault in _STATUS:
                return _BUSY, _STATUS[fault], {"content-type": "application/json"}
            if fault is Fault.GATEWAY:
                return _PAGE, 502, {"content-type": "text/html"}
            answer = await carry(self, method, url, headers, post_data) if fault in _REACHES_STRIPE else None
            if fault is Fault.SLOW and answer is not None:
                await anyio.sleep(_SLOW_SECONDS)
                return answer
            if fault in _INSTEAD:
                return _INSTEAD[fault], 200, {"content-type": "text/html"}
            if network.hangs:
                await anyio.sleep(60)
            if fault is Fault.TRUNCATED and answer is not None:
                content, status, answered = answer
                return content[: len(content) // 2], status, answered
            raise APIConnectionError(fault.value)  # type: ignore[no-untyped-call]  # the package leaves it untyped

        monkeypatch.setattr(transport._Http, "carry", spoiled)  # noqa: SLF001 - same

    def start(self, *, strikes_at: int | None, fault: Fault = Fault.ERROR, stays: bool = False) -> None:
        """Count from one again; no fault when `strikes_at` is None."""
        self.calls, self.strikes_at, self.fault, self.stays = 0, strikes_at, fault, stays


async def _status(scenario: Scenario, shop: Shop) -> int:
    """What a caller would have been answered."""
    try:
        await scenario.act(shop)
    except Refusal as refusal:
        return refusal.status
    return 200


async def every_call(
    shop: Shop,
    make: Callable[[], Scenario],
    network: Network,
    chosen: Callable[[int, Fault, bool], bool],
) -> int:
    """Spoil each call of a path in every chosen way, resume, and check; answers how many faults there were."""
    scenario = make()
    name = type(scenario).__name__
    await scenario.prepare(shop, f"{name}-whole")
    network.start(strikes_at=None)
    await scenario.act(shop)
    total, tried = network.calls, 0
    for number in range(1, total + 1):
        for fault in Fault:
            for stays in (False, True):
                if not chosen(number, fault, stays):
                    continue
                tried += 1
                network.start(strikes_at=None)
                scenario = make()
                await scenario.prepare(shop, f"{name}-{tried}")
                before = {row.id: row.state for row in await shop.rows()}
                network.start(strikes_at=number, fault=fault, stays=stays)
                with anyio.fail_after(10):
                    answered = await _status(scenario, shop)
                assert answered in {200, 402, 409, 503}
                network.start(strikes_at=None)
                is_saved = {row.id: row.state for row in await shop.rows()} != before
                for _ in range(3):
                    await restart(shop)
                try:
                    await scenario.check(shop, is_saved=is_saved)
                except AssertionError as difference:
                    raise AssertionError(f"call {number} of {total}, {fault.value}, stays: {stays}") from difference
    return tried
