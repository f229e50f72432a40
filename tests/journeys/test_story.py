"""The story a new user plays through by hand, in a real browser: Free, Pro, a downgrade to Starter, an override."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta

import pytest
from playwright.async_api import Page, expect

from tests.browser import launch_browser
from tests.journeys.demo_process import Demo, running_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for the story."""
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture
async def page(demo: Demo) -> AsyncIterator[Page]:
    """A browser page that remembers what the browser complained about."""
    async with launch_browser() as browser:
        context = await browser.new_context(locale="en-US", timezone_id="UTC")
        opened = await context.new_page()
        complaints: list[str] = []
        opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.set_default_timeout(15_000)
        yield opened
        assert [text for text in complaints if "402" not in text and "409" not in text] == []


async def test_from_free_to_pro_to_a_downgrade_that_arrives(demo: Demo, page: Page) -> None:
    await _use_up_the_free_exports(demo, page)
    await _subscribe_to_pro_before_the_webhook(demo, page)
    await _schedule_starter(demo, page)
    await _try_to_buy_meanwhile(demo, page)
    await _keep_pro_and_schedule_again(demo, page)
    await _arrive_on_starter(demo, page)
    await _support_grants_more_for_a_week(demo, page)


async def _use_up_the_free_exports(demo: Demo, page: Page) -> None:
    await page.goto(f"{demo.site}/app")
    export = page.get_by_role("button", name="Export as PDF")
    meter = page.locator("plangate-usage").get_by_role("listitem").filter(has_text="Exports")
    for number in range(1, 11):
        await export.click()
        await expect(meter).to_contain_text(f"{number} of 10 exports")
    await export.click()
    result = page.locator("#result")
    await expect(result).to_contain_text("10")
    await expect(result.get_by_role("link")).to_have_attribute("href", "/pricing")
    await expect(meter).to_contain_text("10 of 10 exports")
    await result.get_by_role("link").click()
    await page.wait_for_url(f"{demo.site}/pricing")


async def _subscribe_to_pro_before_the_webhook(demo: Demo, page: Page) -> None:
    demo.control("POST", "/_sandbox/faults", {"fault": "drop_webhooks", "count": None})
    table = page.locator("plangate-pricing-table")
    await expect(table.get_by_text("Your plan").first).to_be_visible()
    await table.get_by_role("button", name="Upgrade to Pro").click()
    receipt = table.get_by_role("dialog")
    await expect(receipt).to_contain_text("Due today")
    await expect(receipt).to_contain_text("$49.00")
    await receipt.get_by_role("button", name="Continue to payment").click()
    await page.wait_for_url(f"{demo.sandbox}/c/pay/**")
    await expect(page.get_by_text("no real money moves")).to_be_visible()
    await page.get_by_role("button", name="Pay $49.00").click()
    await page.wait_for_url(f"{demo.site}/**")
    # No webhook has come, and none will until faults are cleared: the return itself fetched the truth.
    await page.goto(f"{demo.site}/billing")
    manager = page.locator("plangate-plan-manager")
    await expect(manager.get_by_role("heading", name="Pro", exact=True)).to_be_visible()
    await expect(manager).to_contain_text("$49.00")
    await page.goto(f"{demo.site}/app")
    await page.get_by_role("button", name="Export as PDF").click()
    meter = page.locator("plangate-usage").get_by_role("listitem").filter(has_text="Exports")
    await expect(meter).to_contain_text("11 of 1,000 exports")
    demo.control("DELETE", "/_sandbox/faults")


async def _schedule_starter(demo: Demo, page: Page) -> None:
    await page.goto(f"{demo.site}/billing")
    manager = page.locator("plangate-plan-manager")
    await manager.get_by_role("button", name="Change plan").click()
    await manager.get_by_role("button", name="Move to Starter").click()
    receipt = manager.get_by_role("dialog")
    await expect(receipt).to_contain_text("Due today")
    await expect(receipt).to_contain_text("$0.00")
    await expect(receipt).to_contain_text("You lose")
    await expect(receipt).to_contain_text("Single sign-on")
    await receipt.get_by_role("button", name="Switch on").click()
    await expect(manager).to_contain_text("You move to Starter on")
    await page.reload()
    await expect(manager).to_contain_text("You move to Starter on")
    await expect(manager.get_by_role("heading", name="Pro", exact=True)).to_be_visible()


async def _try_to_buy_meanwhile(demo: Demo, page: Page) -> None:
    manager = page.locator("plangate-plan-manager")
    await manager.get_by_role("listitem").filter(has_text="Extra exports").get_by_role("button", name="Add").click()
    refusal = manager.get_by_role("dialog")
    await expect(refusal).to_contain_text("A downgrade is scheduled")
    await refusal.get_by_role("button", name="Understood").click()
    await expect(refusal).to_have_count(0)
    answer = demo.api("POST", f"/v1/companies/{demo.company()}/plan-changes/preview", {"add_ons": {"extra-exports": 1}})
    assert (answer.status_code, answer.json()["code"]) == (409, "downgrade_scheduled")


async def _keep_pro_and_schedule_again(demo: Demo, page: Page) -> None:
    manager = page.locator("plangate-plan-manager")
    await manager.get_by_role("button", name="Keep my plan").click()
    await expect(manager).to_contain_text("you keep Pro")
    await expect(manager).not_to_contain_text("You move to Starter on")
    await _schedule_starter(demo, page)


async def _arrive_on_starter(demo: Demo, page: Page) -> None:
    demo.advance("P1M1D")
    await page.goto(f"{demo.site}/billing")
    manager = page.locator("plangate-plan-manager")
    await expect(manager.get_by_role("heading", name="Starter", exact=True)).to_be_visible()
    await expect(manager).not_to_contain_text("You move to Starter on")
    meter = page.locator("plangate-usage").get_by_role("listitem").filter(has_text="Exports")
    await expect(meter).to_contain_text("0 of 100 exports")


async def _support_grants_more_for_a_week(demo: Demo, page: Page) -> None:
    (customer,) = demo.api("GET", f"/v1/companies/{demo.company()}").json()["stripe_customer_ids"]
    subject = {"customer": customer, "mode": "test"}
    seen = demo.stripe_app("customer.get", subject)
    assert seen.status_code == 200, seen.text
    exports = {one["feature"]: one for one in seen.json()["entitlements"]}["exports"]
    assert (exports["limit"], exports["used"], exports["name"]) == (100, 0, "Exports")
    assert exports["source"]["kind"] == "plan"
    assert exports["source"]["key"] == "starter"
    expires_at = datetime.fromisoformat(exports["at"]) + timedelta(days=7)
    grant = {
        **subject,
        "operation_id": "op_" + "0" * 32,
        "feature": "exports",
        "override_mode": "add",
        "value": 500,
        "expires_at": expires_at.isoformat(),
        "note": "Launch week, promised on the phone",
    }
    granted = demo.stripe_app("override.grant", grant)
    assert granted.status_code == 200, granted.text
    repeated = demo.stripe_app("override.grant", grant)
    assert repeated.status_code in {200, 409}, repeated.text

    decision = demo.check("exports")
    assert (decision["allowed"], decision["limit"]) == (True, 600)
    assert decision["source"]["kind"] == "override"
    await page.goto(f"{demo.site}/app")
    meter = page.locator("plangate-usage").get_by_role("listitem").filter(has_text="Exports")
    await expect(meter).to_contain_text("0 of 600 exports")

    demo.advance("P7D")
    assert demo.check("exports")["limit"] == 100
    await page.reload()
    await expect(meter).to_contain_text("0 of 100 exports")
    assert len(demo.api("GET", f"/v1/companies/{demo.company()}/overrides").json()["data"]) == 1
