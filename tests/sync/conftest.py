"""A shop for each test of synchronisation."""

from collections.abc import AsyncIterator

import pytest

from plangate.environment import Environment
from tests.sandbox_server import SandboxServer
from tests.shop import Shop


@pytest.fixture
async def shop(connected_environment: Environment, sandbox: SandboxServer) -> AsyncIterator[Shop]:
    opened = await Shop.open(connected_environment, sandbox)
    yield opened
    await opened.close()
