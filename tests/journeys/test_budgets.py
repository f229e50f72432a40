"""What the demo's pages may cost in a browser: nothing jumps, and the first plan is there soon on a slow connection.

Times are bounded far above what a quiet machine shows, so that a busy one does not fail them; what decides the time
(how many requests wait for each other, how many bytes they bring) is bounded tightly.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser import launch_browser
from tests.journeys.demo_process import Demo, running_demo

_SLOW_4G = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 93_750}
_SHIFTS = """window.__shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.__shifted += entry.value;
}).observe({type: "layout-shift", buffered: true});"""
_FIRST_CARD = """(function look() {
  const root = document.querySelector("plangate-pricing-table")?.shadowRoot;
  const card = root?.querySelector("[part~=plan]");
  requestAnimationFrame(card ? () => setTimeout(() => window.__card = performance.now()) : look);
})();"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for all budgets."""
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser of its own."""
    async with launch_browser() as launched:
        yield launched


async def _open(browser: Browser, demo: Demo, path: str, company: str, *, width: int, height: int) -> Page:
    context = await browser.new_context(locale="en-US", timezone_id="UTC", viewport={"width": width, "height": height})
    await context.add_cookies([{"name": "northwind_company", "value": company, "url": demo.site}])
    page = await context.new_page()
    page.set_default_timeout(20_000)
    await page.add_init_script(_SHIFTS)
    await page.goto(demo.site + path)
    await expect(page.locator(".content[aria-busy=true]")).to_have_count(0, timeout=20_000)
    await page.wait_for_timeout(150)
    return page


async def test_nothing_jumps_while_a_page_fills(demo: Demo, browser: Browser) -> None:
    desktop, phone = (1280, 900), (390, 844)
    seen = [("/billing", company, desktop) for company in ("acme", "globex", "initech", "umbrella")]
    seen += [("/pricing", "acme", desktop), ("/billing", "globex", phone)]
    shifted = {}
    for path, company, (width, height) in seen:
        page = await _open(browser, demo, path, company, width=width, height=height)
        shifted[f"{path} of {company} at {width}"] = float(await page.evaluate("window.__shifted"))
        await page.context.close()
    assert {name: value for name, value in shifted.items() if value > 0.01} == {}


async def test_the_first_plan_is_there_soon_on_a_slow_phone(demo: Demo, browser: Browser) -> None:
    context = await browser.new_context(locale="en-US", timezone_id="UTC")
    page = await context.new_page()
    slow = await context.new_cdp_session(page)
    await slow.send("Network.enable")
    await slow.send("Network.emulateNetworkConditions", _SLOW_4G)
    await slow.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    await page.add_init_script(_FIRST_CARD)
    waited: list[str] = []
    page.on("requestfinished", lambda request: waited.append(request.url.split("?")[0].rpartition("/")[2]))
    await page.goto(f"{demo.site}/pricing")
    await page.locator("plangate-pricing-table [part~=plan]").first.wait_for(timeout=20_000)
    await page.wait_for_timeout(500)
    # The page, then the script, then token and table: the token is not waited for by htmx, nor anything else by both.
    ours = [name for name in waited if name in {"embed.js", "plangate-token", "pricing-table"}]
    assert ours == ["embed.js", "plangate-token", "pricing-table"]
    assert float(await page.evaluate("window.__card")) < 4000
