"""What assistive technology and unusual settings need of every component: names, order, room to press, colours."""

from playwright.async_api import Page, expect

from tests.components.conftest import Stage

ALL = "<main><h1>Host</h1>{}</main>".format(
    "".join(f"<plangate-{name}></plangate-{name}>" for name in ("pricing-table", "plan-manager", "usage", "invoices"))
)


async def _troubles(page: Page) -> list[str]:
    found: list[str] = await page.evaluate(_TROUBLES)
    return found


async def test_everything_has_a_name_a_place_and_room_to_press(stage: Stage) -> None:
    stage.toy.plan, stage.toy.used, stage.toy.scheduled = "pro", 1000, "starter"
    for width in (1100, 320):
        page = await stage.open(ALL, width=width)
        await expect(page.locator("[part~=plan], [part=panel], [part=meter], [part=invoice]").last).to_be_visible()
        assert await _troubles(page) == []
        await page.get_by_role("button", name="Move to Free").first.click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        assert await _troubles(page) == []


async def test_trouble_is_named_too(stage: Stage) -> None:
    stage.toy.broken = True
    page = await stage.open(ALL)
    await expect(page.get_by_role("alert").last).to_be_visible()
    assert await _troubles(page) == []


async def test_a_page_from_right_to_left_is_mirrored_and_does_not_overflow(stage: Stage) -> None:
    page = await stage.open(ALL, width=800)
    await page.evaluate(_MIRROR)
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    edges = await page.locator("[part~=plan]").evaluate_all(
        "(all) => all.slice(0, 2).map((it) => it.getBoundingClientRect().left)"
    )
    assert edges[0] > edges[1]
    icon = await page.locator("[part=features] svg").first.bounding_box()
    text = await page.locator("[part=features] li > span").first.bounding_box()
    assert icon is not None
    assert text is not None
    assert icon["x"] > text["x"]


async def test_forced_colours_keep_borders_meters_and_the_main_button_apart(stage: Stage) -> None:
    stage.toy.plan = "pro"
    page = await stage.open(ALL)
    await expect(page.locator("progress").first).to_be_visible()
    await page.emulate_media(forced_colors="active")
    shown = await page.evaluate(
        """(() => {
          const style = (tag, path) =>
            getComputedStyle(document.querySelector("plangate-" + tag).shadowRoot.querySelector(path));
          const main = style("plan-manager", "#change-plan"), other = style("plan-manager", "[id^=add-]");
          return {
            card: style("pricing-table", ".card").borderTopStyle,
            word: style("pricing-table", ".quiet").borderTopWidth,
            apart: main.backgroundColor !== other.backgroundColor,
            meter: style("usage", "progress").borderTopStyle,
          };
        })()"""
    )
    assert shown == {"card": "solid", "word": "0px", "apart": True, "meter": "solid"}


async def test_reduced_motion_moves_nothing(stage: Stage) -> None:
    page = await stage.open(ALL)
    await page.emulate_media(reduced_motion="reduce")
    moving = await page.evaluate(
        "[...document.querySelectorAll('main > *')].flatMap((it) => [...it.shadowRoot?.querySelectorAll('*') ?? []])"
        ".filter((it) => [getComputedStyle(it)].some((style) =>"
        " style.transitionProperty !== 'none' || style.animationName !== 'none'))"
        ".map((it) => it.outerHTML.slice(0, 80))"
    )
    assert moving == []


_MIRROR = """document.documentElement.dir = "rtl";
for (const { shadowRoot } of document.querySelectorAll("main > *"))
  for (const it of shadowRoot?.querySelectorAll(".root, [dir]") ?? []) it.dir = "rtl";"""

# What is shown without a name, under a name that is not there, twice under one id, out of order, or too small to press.
_TROUBLES = """(() => {
  const troubles = [];
  const text = (node) => (node?.textContent ?? "").trim();
  for (const { shadowRoot: root, localName } of document.querySelectorAll("main > *")) {
    if (!root) continue;
    const say = (what, node) => troubles.push(localName + ": " + what + " " + node.outerHTML.slice(0, 120));
    const seen = new Set();
    for (const node of root.querySelectorAll("[id]")) {
      if (seen.has(node.id)) say("id twice", node);
      seen.add(node.id);
    }
    const named = (node) => node.getAttribute("aria-label") || text(node)
      || [...node.labels ?? []].map(text).join("")
      || text(root.getElementById(node.getAttribute("aria-labelledby") ?? ""));
    for (const node of root.querySelectorAll("[aria-labelledby]"))
      if (!root.getElementById(node.getAttribute("aria-labelledby"))) say("names nothing", node);
    const pressed = "a, button, summary, select, input:not([type=hidden])";
    for (const node of root.querySelectorAll(pressed + ", progress, dialog, section")) {
      if (!named(node)) say("no name", node);
      if (!node.matches(pressed) || !node.checkVisibility()) continue;
      const box = (node.matches("[type=radio]") ? node.closest("label") : node).getBoundingClientRect();
      if (box.width < 24 || box.height < 24) say("too small", node);
    }
    for (const list of root.querySelectorAll("ul"))
      for (const child of list.children) if (child.localName !== "li") say("not in a list", child);
    let level = 1;
    for (const heading of root.querySelector(".content").querySelectorAll("h2, h3, h4, h5, h6")) {
      const next = Number(heading.localName[1]);
      if (next > level + 1) say("skips a level", heading);
      level = next;
    }
    for (const part of root.querySelectorAll("section, dialog")) if (!part.lang || !part.dir) say("no language", part);
  }
  return troubles;
})()"""
