"""One toy Plangate, one host site and one Chromium for all browser tests of the components."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Page

from tests.browser import launch_browser
from tests.components.harness import Toy, host_site, serving, toy_plangate


@dataclass
class Stage:
    """The two servers and the browser; `open` shows a host page with some elements in it."""

    toy: Toy
    plangate: str
    host: str
    browser: Browser

    async def open(
        self,
        body: str = "<plangate-pricing-table></plangate-pricing-table>",
        *,
        query: str = "",
        width: int = 1200,
        height: int = 900,
        scheme: str = "light",
    ) -> Page:
        """A fresh page in a context of its own, waited for until every element shows something."""
        context = await self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
        )
        context.set_default_timeout(5000)
        page = await context.new_page()
        await page.goto(f"{self.host}/?body={quote(body)}{query}")
        await page.locator(".content[aria-busy=false] > section").first.wait_for(timeout=5000)
        return page

    async def seen(self, page: Page) -> dict[str, list[object]]:
        """What the host's page noticed: our events, htmx events, policy violations."""
        found: dict[str, list[object]] = await page.evaluate("window.__seen")
        return found


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[Toy, str, str]]:
    """The toy's state and both origins."""
    toy = Toy()
    with serving(toy_plangate(toy)) as plangate, serving(host_site(toy, plangate)) as host:
        toy.origin = host
        yield toy, plangate, host


@pytest.fixture(scope="session")
async def chromium(anyio_backend: str) -> AsyncIterator[Browser]:
    """One browser for the whole session."""
    async with launch_browser() as browser:
        yield browser


@pytest.fixture
async def stage(servers: tuple[Toy, str, str], chromium: Browser) -> AsyncIterator[Stage]:
    """Everything reset: a company on Free that used its ten exports. Contexts are closed afterwards."""
    toy, plangate, host = servers
    fresh = Toy(origin=host)
    vars(toy).update(vars(fresh))
    yield Stage(toy, plangate, host, chromium)
    for context in chromium.contexts:
        await context.close()
