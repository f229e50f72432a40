"""The process dies at every call to Stripe and at every commit; afterwards each intent made exactly one change."""

from collections.abc import AsyncIterator, Callable

import pytest

from plangate.environment import Environment
from plangate.shapes import ChangeState
from tests.plan_changes.scenarios import (
    PATHS,
    SOLD,
    STEPS,
    Checkout,
    Downgrade,
    Scenario,
    Upgrade,
    every_death,
    on_plan,
    restart,
)
from tests.sandbox_server import SandboxServer
from tests.shop import Shop

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox, SOLD)
    yield opened
    await opened.close()


@pytest.mark.parametrize("scenario", PATHS)
async def test_d23_one_intent_one_change(
    shop: Shop, scenario: Callable[[], Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await every_death(shop, scenario(), monkeypatch, step=STEPS.get(scenario, 1)) > 6


@pytest.mark.parametrize("scenario", [Downgrade, Upgrade, Checkout])
async def test_d23_one_intent_one_change_whatever_goes_on_beside(
    shop: Shop, scenario: Callable[[], Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Webhooks, hours that pass, a second death, and a person who clicks again."""
    assert await every_death(shop, scenario(), monkeypatch, step=4, number=2) > 6


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("path", ["/v1/subscription_schedules", "/v1/subscription_schedules/*", "/v1/subscriptions/*"])
@pytest.mark.parametrize("status", [500, 503])
async def test_d23_stripe_fails_before_or_after_it_applied(shop: Shop, when: str, path: str, status: int) -> None:
    """A lost or stored server error leaves a change that can be resumed, and ends in exactly one."""
    is_downgrade = "schedules" in path
    customer = await on_plan(shop, "acme-fails", "pro" if is_downgrade else "starter")
    quote = await shop.preview(plan="starter" if is_downgrade else "pro")
    fault = {"fault": "fail_call", "method": "POST", "path": path, "when": when, "status": status}
    shop.sandbox.control("POST", "faults", fault)
    change = await shop.confirm(quote)
    assert change.state in {ChangeState.APPLYING, ChangeState.SCHEDULED, ChangeState.APPLIED}
    for _ in range(3):
        await restart(shop)
    assert [row.state for row in await shop.rows()] == ["scheduled" if is_downgrade else "applied"]
    found = [one for one in shop.objects("subscription_schedule") if one["customer"] == customer]
    invoices = [one for one in shop.objects("invoice") if one["customer"] == customer]
    assert [len(one["phases"]) for one in found] == ([2] if is_downgrade else [])
    assert len(invoices) == (1 if is_downgrade else 2)
