"""The pages in a real browser: paying, being declined, authenticating, and moving the clock by hand."""

from collections.abc import AsyncIterator

import pytest
import stripe
from playwright.async_api import Browser, Page, expect

from tests.browser import launch_browser
from tests.sandbox.shop import Shop, first_item, open_shop, subscribe
from tests.sandbox_server import SandboxServer


@pytest.fixture(scope="module")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    """One Chromium for all pages: starting it takes longer than any of them."""
    assert anyio_backend == "asyncio"
    async with launch_browser() as launched:
        yield launched


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page of its own, on which no script may fail and no policy may be broken."""
    context = await browser.new_context()
    opened = await context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda m: problems.append(m.text) if "Content Security Policy" in m.text else None)
    yield opened
    await context.close()
    assert problems == []


async def _session(sandbox: SandboxServer, shop: Shop, **options: object) -> stripe.checkout.Session:
    params: dict[str, object] = {
        "mode": "subscription",
        "customer": shop.customer,
        "line_items": [{"price": shop.pro, "quantity": 1}],
        "success_url": f"{sandbox.url}/_assets/sandbox.css?session={{CHECKOUT_SESSION_ID}}",
        "cancel_url": f"{sandbox.url}/",
        "subscription_data": {"metadata": {"company": "comp_1"}},
        **options,
    }
    return await shop.client.v1.checkout.sessions.create_async(params)  # type: ignore[arg-type]  # Built in parts.


async def test_paying_with_a_card_that_works(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    session = await _session(sandbox, shop)
    await page.goto(session.url or "")
    await expect(page.get_by_role("banner")).to_contain_text("no real money moves")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("$49.00")
    await page.get_by_role("radio", name="Works").check()
    await page.get_by_role("button", name="Pay $49.00").click()
    await page.wait_for_url(f"**/sandbox.css?session={session.id}")
    done = await shop.client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["subscription", "line_items"]})
    assert (done.status, done.payment_status) == ("complete", "paid")
    assert isinstance(done.subscription, stripe.Subscription)
    assert done.subscription.status == "active"
    assert done.subscription.metadata["company"] == "comp_1"
    assert done.subscription.default_payment_method is not None
    assert done.line_items is not None
    assert done.line_items.data[0].amount_total == 4900
    events = await shop.client.v1.events.list_async({"type": "checkout.session.completed"})
    assert len(events.data) == 1


async def test_a_declined_card_can_be_replaced(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    session = await _session(sandbox, shop)
    await page.goto(session.url or "")
    await page.get_by_role("radio", name="Declined").check()
    await page.get_by_role("button", name="Pay $49.00").click()
    await expect(page.get_by_role("alert")).to_have_text("Your card was declined.")
    assert (await shop.client.v1.subscriptions.list_async({"customer": shop.customer})).data == []
    assert (await shop.client.v1.checkout.sessions.retrieve_async(session.id)).status == "open"
    await expect(page.get_by_role("link", name="Back")).to_have_attribute("href", f"{sandbox.url}/")
    await page.get_by_role("radio", name="Works").check()
    await page.get_by_role("button", name="Pay $49.00").click()
    await page.wait_for_url("**/sandbox.css?session=*")


async def test_a_card_that_needs_authentication(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    session = await _session(sandbox, shop)
    await page.goto(session.url or "")
    await page.get_by_role("radio", name="Needs authentication •••• 3155").check()
    await page.get_by_role("button", name="Pay $49.00").click()
    await page.get_by_role("button", name="Fail authentication").click()
    await expect(page.get_by_role("alert")).to_contain_text("unable to authenticate")
    await page.get_by_role("radio", name="Needs authentication •••• 3155").check()
    await page.get_by_role("button", name="Pay $49.00").click()
    await page.get_by_role("button", name="Complete authentication").click()
    await page.wait_for_url("**/sandbox.css?session=*")
    sandbox.advance("P32D")
    listed = await shop.client.v1.subscriptions.list_async({"customer": shop.customer})
    assert listed.data[0].status == "active"


async def test_a_trial_and_a_saved_card(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    trial = await _session(sandbox, shop, subscription_data={"trial_period_days": 14})
    assert trial.amount_total == 0
    await page.goto(trial.url or "")
    await page.get_by_role("button", name="Start trial").click()
    await page.wait_for_url("**/sandbox.css?session=*")
    setup = await shop.client.v1.checkout.sessions.create_async(
        {
            "mode": "setup",
            "currency": "usd",
            "customer": shop.customer,
            "success_url": f"{sandbox.url}/_assets/sandbox.css?setup=1",
        }
    )
    await page.goto(setup.url or "")
    await page.get_by_role("button", name="Save card").click()
    await page.wait_for_url("**/sandbox.css?setup=1")
    done = await shop.client.v1.checkout.sessions.retrieve_async(setup.id, {"expand": ["setup_intent"]})
    assert isinstance(done.setup_intent, stripe.SetupIntent)
    assert done.setup_intent.status == "succeeded"


async def test_an_expired_link_says_so(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    session = await _session(sandbox, shop)
    sandbox.advance("P2D")
    assert (await shop.client.v1.checkout.sessions.retrieve_async(session.id)).status == "expired"
    await page.goto(session.url or "")
    await expect(page.get_by_role("heading", name="This link has expired")).to_be_visible()


async def test_a_payment_that_needs_authentication_is_finished_on_the_invoice_page(
    sandbox: SandboxServer, page: Page
) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.starter)
    card = await shop.client.v1.payment_methods.attach_async(
        "pm_card_authenticationRequired", {"customer": shop.customer}
    )
    await shop.client.v1.subscriptions.update_async(subscription.id, {"default_payment_method": card.id})
    pending = await shop.client.v1.subscriptions.update_async(
        subscription.id,
        {
            "items": [{"id": first_item(subscription).id, "price": shop.pro}],
            "proration_behavior": "always_invoice",
            "payment_behavior": "pending_if_incomplete",
            "expand": ["latest_invoice"],
        },
    )
    assert isinstance(pending.latest_invoice, stripe.Invoice)
    await page.goto(pending.latest_invoice.hosted_invoice_url or "")
    await page.get_by_role("button", name="Pay $30.00").click()
    await page.get_by_role("button", name="Complete authentication").click()
    await expect(page.get_by_text("Paid", exact=True)).to_be_visible()
    after = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert after.pending_update is None
    assert first_item(after).price.id == shop.pro


async def test_the_portal_cancels_and_takes_it_back(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    portal = await shop.client.v1.billing_portal.sessions.create_async(
        {"customer": shop.customer, "return_url": f"{sandbox.url}/"}
    )
    await page.goto(portal.url)
    await page.get_by_role("button", name="Cancel plan", exact=True).click()
    await expect(page.get_by_text("Ends on")).to_be_visible()
    ending = await shop.client.v1.subscriptions.retrieve_async(subscription.id)
    assert (ending.cancel_at, ending.cancel_at_period_end) == (first_item(ending).current_period_end, False)
    await page.get_by_role("button", name="Don't cancel plan").click()
    await expect(page.get_by_text("Renews on")).to_be_visible()
    await page.get_by_text("Update card").click()
    await page.get_by_role("radio", name="Works (Mastercard)").check()
    await page.get_by_role("button", name="Save card").click()
    await expect(page.get_by_text("Card ending in 4444")).to_be_visible()


async def test_what_is_paid_every_three_months_says_so_at_the_checkout_and_in_the_portal(
    sandbox: SandboxServer, page: Page
) -> None:
    shop = await open_shop(sandbox)
    pro = await shop.client.v1.prices.retrieve_async(shop.pro)
    quarter = await shop.client.v1.prices.create_async(
        {
            "product": str(pro.product),
            "currency": "usd",
            "unit_amount": 12_000,
            "recurring": {"interval": "month", "interval_count": 3},
        }
    )
    session = await _session(sandbox, shop, line_items=[{"price": quarter.id, "quantity": 1}])
    await page.goto(session.url or "")
    await expect(page.get_by_role("heading", level=1)).to_have_text("$120.00 every 3 months")
    await expect(page.get_by_text("Billed every 3 months")).to_be_visible()
    await expect(page.get_by_text("You pay this amount every 3 months")).to_be_visible()
    await subscribe(shop, quarter.id)
    portal = await shop.client.v1.billing_portal.sessions.create_async(
        {"customer": shop.customer, "return_url": f"{sandbox.url}/"}
    )
    await page.goto(portal.url)
    await expect(page.get_by_text("$120.00 every 3 months")).to_be_visible()


async def test_the_control_page_moves_the_clock_and_injects_faults(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    subscription = await subscribe(shop, shop.pro)
    await page.goto(sandbox.url)
    await expect(page.get_by_role("cell", name="Acme")).to_be_visible()
    await page.get_by_role("button", name="To next period end").click()
    await expect(page.get_by_role("status").filter(has_text="The clock says")).to_be_visible()
    invoices = await shop.client.v1.invoices.list_async({"subscription": subscription.id})
    assert [i.status for i in invoices.data] == ["paid", "paid"]
    await page.get_by_label("What goes wrong").select_option("rate_limit")
    await page.get_by_role("button", name="Inject").click()
    await expect(page.get_by_text("rate limit · 1 left")).to_be_visible()
    await page.get_by_role("button", name="Clear all").click()
    await expect(page.get_by_text("None in force.")).to_be_visible()
    await page.set_viewport_size({"width": 320, "height": 700})
    wide = await page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 320


async def test_the_control_page_fits_a_telephone(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    await subscribe(shop, shop.pro)
    await page.set_viewport_size({"width": 320, "height": 800})
    await page.goto(f"{sandbox.url}/")
    row = page.locator("#subscriptions tr").first
    await expect(row).to_be_visible()
    shown = await row.evaluate(_SHOWN)
    assert all(words in shown for words in ("active", "Period ends", "Schedule")), shown
    assert await row.locator(".badge").evaluate("(badge) => badge.getBoundingClientRect().right <= innerWidth")
    await page.locator("#requests").focus()
    await expect(page.get_by_role("list", name="Requests")).to_be_focused()


_SHOWN = """(row) => [...row.cells].map((cell) =>
  getComputedStyle(cell, "::before").content.replaceAll('"', "") + cell.textContent).join(" ")"""


async def test_a_promotion_code_is_typed_in_and_counts(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    coupon = await shop.client.v1.coupons.create_async({"amount_off": 900, "currency": "usd", "duration": "once"})
    await shop.client.v1.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "WELCOME"}
    )
    session = await _session(sandbox, shop, allow_promotion_codes=True)
    await page.goto(session.url or "")
    await page.get_by_label("Promotion code").fill("nothing")
    await page.get_by_role("button", name="Apply").click()
    await expect(page.get_by_role("alert")).to_have_text("This code is invalid.")
    await page.get_by_label("Promotion code").fill("welcome")
    await page.get_by_role("button", name="Apply").click()
    await page.get_by_role("button", name="Pay $40.00").click()
    await page.wait_for_url("**/sandbox.css?session=*")
    done = await shop.client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["invoice"]})
    assert isinstance(done.invoice, stripe.Invoice)
    assert (done.amount_total, done.invoice.amount_paid) == (4000, 4000)


async def test_a_new_person_and_a_double_click_make_one_subscription(sandbox: SandboxServer, page: Page) -> None:
    shop = await open_shop(sandbox)
    session = await shop.client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": shop.pro, "quantity": 1}, {"price": shop.metered}],
            "success_url": f"{sandbox.url}/_assets/sandbox.css?new=1",
        }
    )
    await page.goto(session.url or "")
    await page.get_by_label("Email").fill("new@person.test")
    await page.get_by_role("button", name="Pay $49.00").dblclick()
    await page.wait_for_url("**/sandbox.css?new=1")
    done = await shop.client.v1.checkout.sessions.retrieve_async(session.id)
    listed = await shop.client.v1.subscriptions.list_async({"status": "all"})
    assert [s.customer for s in listed.data] == [done.customer]
    customer = await shop.client.v1.customers.retrieve_async(str(done.customer))
    assert customer.email == "new@person.test"
    await page.goto(session.url or "")
    await expect(page.get_by_role("heading", name="You're all done here")).to_be_visible()
