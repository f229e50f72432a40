"""What must hold in a real browser, on a foreign origin, under the strictest policy a host can have."""

import pytest
from playwright.async_api import FloatRect, Locator, Page, expect

from plangate.shapes import ChangeState
from plangate.web.component_edge import RETURN_MARK
from tests.components import canned
from tests.components.conftest import Stage

TABLE = "<plangate-pricing-table></plangate-pricing-table>"
MANAGER = "<plangate-plan-manager></plangate-plan-manager>"
USAGE = "<plangate-usage></plangate-usage>"
INVOICES = "<plangate-invoices></plangate-invoices>"


async def _scroll_overhang(page: Page) -> int:
    overhang: int = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return overhang


async def _box(found: Locator) -> FloatRect:
    """Where something stands on the page."""
    box = await found.bounding_box()
    assert box is not None
    return box


async def _focused(page: Page) -> str:
    focused: str = await page.evaluate(
        "(() => { const root = document.activeElement.shadowRoot; const at = root?.activeElement;"
        " return at ? at.id || at.className || at.tagName : document.activeElement.tagName })()"
    )
    return focused


async def test_nothing_leaks_into_the_hosts_page(stage: Stage) -> None:
    page = await stage.open(TABLE + MANAGER + USAGE, query="&twice=1")
    await page.get_by_role("button", name="Upgrade to Pro").first.click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    seen = await stage.seen(page)
    added = await page.evaluate("Object.keys(window).filter((name) => !window.__before.includes(name))")
    assert seen["violations"] == []
    assert seen["htmx"] == []
    assert set(added) - {"__before"} == {"Plangate"}
    assert await page.evaluate("window.htmx.mine")
    assert await page.title() == "Host"
    assert await page.evaluate("document.adoptedStyleSheets.length") == 0
    assert await page.evaluate("history.state") is None
    assert await page.evaluate("document.documentElement.outerHTML.includes('eyJ')") is False
    assert stage.toy.tokens == 1


async def test_a_page_without_components_asks_for_no_token(stage: Stage) -> None:
    context = await stage.browser.new_context()
    page = await context.new_page()
    await page.goto(f"{stage.host}/?body=<my-own></my-own>", wait_until="load")
    assert await page.evaluate("typeof Plangate.refresh") == "function"
    assert stage.toy.tokens == 0


async def test_a_visitor_sees_the_public_table_without_a_preflight(stage: Stage) -> None:
    stage.toy.signed_in = False
    page = await stage.open(TABLE)
    await expect(page.get_by_role("button", name="Choose Pro").first).to_be_visible()
    assert [(method, name) for method, name, _ in stage.toy.seen] == [("GET", "pricing-table")]
    headers = stage.toy.seen[0][2]
    assert headers["accept"] == "text/html"
    assert not [name for name in headers if name.startswith("hx-") or name in {"authorization", "referer", "cookie"}]


async def test_choosing_as_a_visitor_tells_the_host_and_leads_to_its_sign_up(stage: Stage) -> None:
    stage.toy.signed_in = False
    page = await stage.open('<plangate-pricing-table sign-up-url="/?signup=1"></plangate-pricing-table>')
    await page.get_by_label("Yearly").check()
    await page.get_by_role("button", name="Choose Pro").last.click()
    await page.wait_for_url("**/?signup=1&plan=pro&interval=year&currency=usd")
    assert page.url.endswith("/?signup=1&plan=pro&interval=year&currency=usd")


async def test_the_host_can_take_a_choice_over(stage: Stage) -> None:
    page = await stage.open(TABLE)
    await page.evaluate("document.addEventListener('plangate-plan-selected', (event) => event.preventDefault())")
    await page.get_by_role("button", name="Upgrade to Pro").first.click()
    await page.wait_for_timeout(200)
    events = (await stage.seen(page))["events"]
    assert ["plan-selected", {"plan": "pro", "interval": "month", "currency": "usd"}] in events
    assert not [name for _, name, _ in stage.toy.seen if name == "preview"]


async def test_the_interval_toggle_keeps_focus_and_states_the_saving(stage: Stage) -> None:
    page = await stage.open(TABLE)
    await page.get_by_label("Monthly").focus()
    await page.keyboard.press("ArrowRight")
    assert await _focused(page) == "interval-year"
    await expect(page.get_by_text("Save $98 a year")).to_be_visible()
    await expect(page.locator("[part~=price]:visible", has_text="490")).to_be_visible()
    assert len(stage.toy.seen) == 1


async def test_four_rhythms_are_switched_without_a_request_and_fit_a_phone(stage: Stage) -> None:
    stage.toy.is_rhythmic = True
    page = await stage.open(TABLE.replace(">", ' interval="3-month">', 1), width=320)
    price = page.locator("[part~=price]:visible")
    await expect(page.get_by_label("Every 3 months")).to_be_checked()
    await expect(price.filter(has_text="/ 3 months")).to_have_text(["$129.50 / 3 months", "$135 / 3 months"])
    assert await _scroll_overhang(page) == 0
    words = page.locator(".toggle label > span:first-of-type")
    assert await words.evaluate_all("(all) => all.map((it) => it.offsetHeight < 30)") == [True] * 4
    for label, shown in (("Weekly", "$5/week"), ("Monthly", "$19/month"), ("Yearly", "$190/year")):
        await page.get_by_label(label).check()
        await expect(price.filter(has_text="$")).to_have_text([shown])
    assert len(stage.toy.seen) == 1


async def test_another_currency_is_asked_for_and_keeps_focus(stage: Stage) -> None:
    page = await stage.open(TABLE)
    await page.locator("#currency").focus()
    await page.locator("#currency").select_option("eur")
    await expect(page.get_by_text("€").first).to_be_visible()
    assert await _focused(page) == "currency"


async def test_a_whole_upgrade_by_keyboard(stage: Stage) -> None:
    page = await stage.open(MANAGER + USAGE)
    await page.locator("#change-plan").focus()
    await page.keyboard.press("Enter")
    await page.locator("#choose-pro-month").focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Move up to Pro")
    await expect(dialog.get_by_text("$49.00").last).to_be_visible()
    assert await _focused(page) == "confirm"
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    assert await _focused(page) == "choose-pro-month"
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Pay $49.00 now")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("You're on Pro now.").first).to_be_visible()
    assert "note" in await _focused(page)
    await expect(page.get_by_role("status")).to_contain_text(["You're on Pro now.", ""])
    events = (await stage.seen(page))["events"]
    assert ["plan-changed", {"state": "applied", "plan": "pro"}] in events
    # The other component on the page heard of it too.
    await expect(page.get_by_text("10 of 1,000 exports")).to_be_visible()
    assert (await stage.seen(page))["violations"] == []


async def test_a_double_click_confirms_once_with_one_key(stage: Stage) -> None:
    page = await stage.open(TABLE)
    await page.get_by_role("button", name="Upgrade to Pro").first.click()
    stage.toy.delay_seconds = 0.3
    await page.get_by_role("button", name="Pay $49.00 now").dblclick()
    await expect(page.get_by_text("You're on Pro now.").first).to_be_visible()
    assert len(stage.toy.confirmed) == 1
    assert stage.toy.confirmed[0].startswith("key-")


async def test_a_stale_quote_shows_the_new_price_and_charges_nothing(stage: Stage) -> None:
    stage.toy.stale_quotes = 1
    page = await stage.open(TABLE)
    await page.get_by_role("button", name="Upgrade to Pro").first.click()
    await page.get_by_role("button", name="Pay $49.00 now").click()
    await expect(page.get_by_role("dialog").get_by_text("Nothing has been charged")).to_be_visible()
    assert stage.toy.confirmed == []


async def test_a_downgrade_is_scheduled_shown_and_taken_back(stage: Stage) -> None:
    stage.toy.plan = "pro"
    page = await stage.open(MANAGER)
    await page.get_by_role("button", name="Change plan").click()
    await page.get_by_role("button", name="Move to Starter").first.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_text("Single sign-on")).to_be_visible()
    await expect(dialog.get_by_text("$0.00")).to_be_visible()
    await dialog.get_by_role("button", name="Switch on December 3").click()
    await expect(page.get_by_text("You move to Starter on December 3.", exact=True)).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("You move to Starter on December 3.", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Add: Extra exports").click()
    await expect(page.get_by_role("dialog").get_by_text("nothing can be added now")).to_be_visible()
    await page.get_by_role("dialog").get_by_role("button", name="Keep Pro").click()
    await expect(page.get_by_text("Nothing changes: you keep Pro.").first).to_be_visible()
    await expect(page.get_by_text("You move to Starter")).to_have_count(0)


async def test_enter_does_not_cancel_a_subscription(stage: Stage) -> None:
    stage.toy.plan = "pro"
    page = await stage.open(MANAGER)
    await page.locator("#cancel-plan").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Keep Pro")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert await _focused(page) == "cancel-plan"
    assert stage.toy.confirmed == []


async def test_checkout_leaves_through_the_top_window_and_the_mark_is_cleaned_up(stage: Stage) -> None:
    stage.toy.is_checkout = True
    page = await stage.open(TABLE)
    await page.get_by_role("button", name="Upgrade to Pro").first.click()
    await page.get_by_role("button", name="Continue to payment").click()
    await page.wait_for_timeout(300)
    await expect(page.get_by_role("button", name="Upgrade to Pro").first).to_be_visible()
    assert RETURN_MARK not in page.url
    assert (await stage.seen(page))["violations"] == []


async def test_an_expired_token_is_renewed_once_and_the_request_repeated(stage: Stage) -> None:
    stage.toy.ttl_seconds = -5
    page = await stage.open(TABLE + USAGE, query="")
    await expect(page.get_by_text("Your session has ended.").first).to_be_visible()
    assert stage.toy.tokens == 2
    stage.toy.ttl_seconds = 900
    await page.get_by_role("button", name="Try again").first.click()
    await expect(page.get_by_role("button", name="Upgrade to Pro").first).to_be_visible()


async def test_trouble_is_drawn_with_a_retry(stage: Stage) -> None:
    stage.toy.broken = True
    page = await stage.open(TABLE)
    await expect(page.get_by_text("We can't show this right now.")).to_be_visible()
    stage.toy.broken = False
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("button", name="Upgrade to Pro").first).to_be_visible()
    await page.context.set_offline(True)
    await page.evaluate("Plangate.refresh()")
    await expect(page.get_by_text("You're offline.")).to_be_visible()
    await page.context.set_offline(False)
    await expect(page.get_by_role("button", name="Upgrade to Pro").first).to_be_visible()
    codes = [detail for name, detail in _pairs(await stage.seen(page)) if name == "error"]
    assert codes == [{"status": 503, "code": "unavailable"}, {"status": 0, "code": "offline"}]


async def test_a_lost_step_keeps_its_form_and_its_key(stage: Stage) -> None:
    page = await stage.open(TABLE)
    await page.get_by_role("button", name="Upgrade to Pro").first.click()
    button = page.get_by_role("button", name="Pay $49.00 now")
    await expect(button).to_be_visible()
    await page.context.set_offline(True)
    await button.click()
    await expect(page.get_by_text("You're offline. Nothing has been lost")).to_be_visible()
    await page.context.set_offline(False)
    await button.click()
    await expect(page.get_by_text("You're on Pro now.").first).to_be_visible()
    assert len(stage.toy.confirmed) == 1


async def test_two_components_with_equal_ids_do_not_cross_and_moving_does_not_reload(stage: Stage) -> None:
    page = await stage.open(f'<div id="a">{TABLE}</div><div id="b">{TABLE}</div>')
    await expect(page.get_by_role("button", name="Upgrade to Pro")).to_have_count(2)
    await page.locator("#b").get_by_label("Yearly").check()
    await expect(page.locator("#a").get_by_text("Save $98 a year")).to_be_hidden()
    await expect(page.locator("#b").get_by_text("Save $98 a year")).to_be_visible()
    before = len(stage.toy.seen)
    await page.evaluate("document.querySelector('#a').append(document.querySelector('#b > *'))")
    await page.wait_for_timeout(100)
    assert len(stage.toy.seen) == before
    await page.evaluate("document.querySelectorAll('plangate-pricing-table').forEach((one) => one.remove())")
    await page.evaluate("Plangate.refresh()")
    await page.wait_for_timeout(100)
    assert len(stage.toy.seen) == before


async def test_hostile_styles_have_no_effect_inside(stage: Stage) -> None:
    page = await stage.open(TABLE, query="&hostile=1")
    measured = await page.get_by_role("button", name="Upgrade to Pro").first.evaluate(
        "(it) => { const style = getComputedStyle(it);"
        " return [style.letterSpacing, style.textTransform, style.fontSize, style.display, it.offsetHeight] }"
    )
    assert measured == ["normal", "none", "15px", "flex", 44]


async def test_what_the_host_hides_is_hidden(stage: Stage) -> None:
    page = await stage.open(TABLE)
    button = page.get_by_role("button", name="Upgrade to Pro").first
    await page.evaluate("document.adoptedStyleSheets = [new CSSStyleSheet()]")
    await page.evaluate(
        "document.adoptedStyleSheets[0].insertRule('plangate-pricing-table { visibility: hidden }')",
    )
    await expect(button).to_be_hidden()
    await page.evaluate("document.adoptedStyleSheets = []")
    await expect(button).to_be_visible()


async def test_narrow_pages_do_not_scroll_sideways_and_show_the_recommended_plan_first(stage: Stage) -> None:
    stage.toy.plan = "pro"
    for body in (TABLE, MANAGER + USAGE):
        page = await stage.open(body, width=320)
        assert await _scroll_overhang(page) == 0
    page = await stage.open(TABLE, width=320)
    tops = await page.locator("[part~=plan]").evaluate_all("(all) => all.map((it) => it.getBoundingClientRect().top)")
    recommended = await page.locator("[part~=plan-recommended]").evaluate("(it) => it.getBoundingClientRect().top")
    assert recommended == min(tops)
    # The words of the toggle stay whole, where less room is left too.
    page = await stage.open(TABLE, width=280)
    split = await page.locator(".toggle label > span:first-of-type").evaluate_all(
        "(all) => all.filter((word) => word.getClientRects().length > 1 || word.offsetHeight > 30).length"
    )
    assert split == 0


async def test_in_a_narrow_dialog_the_buttons_take_the_whole_line(stage: Stage) -> None:
    page = await stage.open(TABLE, width=320)
    await page.get_by_role("button", name="Upgrade to Pro").first.click()
    dialog = page.get_by_role("dialog")
    form = await _box(dialog.locator("form"))
    for name in ("Pay $49.00 now", "Not now"):
        button = await _box(dialog.get_by_role("button", name=name))
        assert button["width"] == pytest.approx(form["width"], abs=1)


async def test_in_a_narrow_column_icons_and_invoices_keep_their_lines(stage: Stage) -> None:
    stage.toy.plan, stage.toy.scheduled = "pro", "starter"
    page = await stage.open(MANAGER + INVOICES, width=320)
    banner = page.locator("[part=banner]")
    icon, text = await _box(banner.locator("svg")), await _box(banner.locator("div").first)
    assert text["x"] > icon["x"] + icon["width"]
    row = page.locator("[part=invoice]").first
    date, amount = await _box(row.locator("span").first), await _box(row.locator("bdi"))
    state, link = await _box(row.locator(".badge")), await _box(row.get_by_role("link"))
    assert date["y"] == amount["y"] < state["y"] == pytest.approx(link["y"], abs=8)
    assert amount["x"] + amount["width"] == pytest.approx(link["x"] + link["width"], abs=1)
    wide = await stage.open(INVOICES, width=800)
    edges = await wide.locator("[part=invoice] .badge").evaluate_all(
        "(all) => all.map((it) => Math.round(it.parentElement.children[2].getBoundingClientRect().right))"
    )
    assert len(set(edges)) == 1


async def test_ten_plans_of_sixty_features_do_not_overflow(stage: Stage) -> None:
    stage.toy.crowd = True
    for width in (320, 1000):
        page = await stage.open(TABLE, width=width)
        await page.locator("summary").last.click()
        assert await _scroll_overhang(page) == 0
        wide = await page.locator("[part~=plan]").evaluate_all(
            "(all) => all.filter((card) => card.scrollWidth > card.clientWidth).length"
        )
        assert wide == 0


async def test_a_change_under_way_refreshes_by_itself_without_taking_the_focus(stage: Stage) -> None:
    stage.toy.changes = [canned.change(ChangeState.APPLYING)]
    page = await stage.open(f'<input id="mine">{MANAGER}')
    await expect(page.get_by_text("Your payment is being confirmed.")).to_be_visible()
    await page.locator("#mine").focus()
    stage.toy.changes, stage.toy.plan = [], "pro"
    await expect(page.get_by_role("heading", name="Pro")).to_be_visible()
    await expect(page.locator("#mine")).to_be_focused()
    seen = len(stage.toy.seen)
    await page.wait_for_timeout(300)
    assert len(stage.toy.seen) == seen


async def test_cards_line_up(stage: Stage) -> None:
    page = await stage.open(TABLE)
    boxes = await page.locator("[part~=plan]").evaluate_all(
        "(all) => all.map((card) => [card.getBoundingClientRect().height,"
        " card.querySelector('[part~=price]').getBoundingClientRect().top,"
        " card.querySelector('.button').getBoundingClientRect().top,"
        " card.querySelector('[part~=features]').getBoundingClientRect().top].map(Math.round).join())"
    )
    assert len(set(boxes)) == 1


async def test_words_and_background_stay_readable_in_light_and_dark(stage: Stage) -> None:
    stage.toy.plan = "pro"
    for scheme in ("light", "dark"):
        page = await stage.open(TABLE + MANAGER + USAGE, scheme=scheme)
        await expect(page.locator("progress").first).to_be_visible()
        poor = await page.evaluate(_CONTRAST)
        assert poor == []


async def test_the_theme_attribute_paints_its_own_surface(stage: Stage) -> None:
    page = await stage.open('<plangate-usage theme="dark"></plangate-usage>')
    await expect(page.get_by_text("10 of 10 exports")).to_be_visible()
    root = page.locator("plangate-usage [part=root]")
    assert await root.evaluate("(it) => getComputedStyle(it).backgroundColor") == "rgb(22, 24, 29)"
    assert await page.evaluate(_CONTRAST) == []


async def test_script_in_names_stays_text(stage: Stage) -> None:
    stage.toy.suffix = "<img src=x onerror=__seen.violations.push(1)><script>__seen.violations.push(2)</script>"
    page = await stage.open(TABLE + MANAGER)
    await page.locator("#choose-pro-month").click()
    await expect(page.get_by_role("dialog")).to_contain_text("<img src=x")
    assert await page.locator("img").count() == 0
    assert (await stage.seen(page))["violations"] == []


def _pairs(seen: dict[str, list[object]]) -> list[tuple[object, object]]:
    return [(one[0], one[1]) for one in seen["events"] if isinstance(one, list)]


# Every piece of text in every component against the nearest painted background: the pairs under 4.5 to 1.
_CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const poor = [];
  for (const host of document.querySelectorAll("plangate-pricing-table, plangate-plan-manager, plangate-usage"))
    for (const node of host.shadowRoot.querySelectorAll("*")) {
      const text = [...node.childNodes].filter((one) => one.nodeType === 3).map((one) => one.data.trim()).join("");
      if (!text || !node.checkVisibility()) continue;
      let behind = node;
      while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
      const ground = getComputedStyle(behind || document.body).backgroundColor;
      const [a, b] = [light(rgba(getComputedStyle(node).color)), light(rgba(ground))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < 4.5) poor.push(text + " " + ratio.toFixed(2));
    }
  return poor;
})()"""
