/** What a company can be moved to, and who may do it. */
import { describe, expect, it } from "vitest";

import { offers } from "../acme";
import { json, problem } from "../dashboard";
import { openPanel } from "../panel";
import { changing, lastSent } from "./changing";

const choices = (select: { props: Record<string, unknown> }, all: { type: string; text: string }[]) => ({
  value: select.props["value"],
  options: all.filter(({ type }) => type === "option").map(({ text }) => text),
});

describe("what can be chosen", () => {
  it("is what is on sale at a price, in the company's currency, with what it holds filled in", async () => {
    const panel = await changing();
    const { value, options } = choices(panel.named("Select", "Plan"), panel.all());

    expect(value).toBe("starter");
    expect(options).toEqual([
      "Free",
      "Starter (now)",
      "Pro",
      "Monthly, US$19.00",
      "Yearly, US$182.00",
      "As usual: more at once, less at the end of the period",
      "Now",
      "At the end of the paid period",
    ]);
    expect(panel.named("TextField", "Add-on Extra exports").props["value"]).toBe("2");
    expect(panel.named("TextField", "How many of Starter").props["value"]).toBe("1");
  });

  it("grows with the plan: seats are asked for where they are sold, nothing beside a free plan", async () => {
    const panel = await changing();
    await panel.choose("Plan", "pro");
    expect(panel.named("TextField", "Seats, paid in advance").props["value"]).toBe("0");

    await panel.choose("Plan", "free");
    expect(panel.ofType("TextField").map(({ props }) => props["label"])).toEqual(["Promotion code"]);
    expect(panel.ofType("Select").map(({ props }) => props["label"])).toEqual(["Plan", "When"]);
  });

  it("keeps the present plan, its price and its add-ons although they are no longer sold", async () => {
    const held = { plan: "legacy", add_ons: { "old-pack": 1 }, is_custom: true, quantity: 3 };
    const panel = await changing({ "plan.offers": () => json(200, offers(held)) });

    expect(panel.ofType("option").map(({ text }) => text)).toEqual(
      expect.arrayContaining(["Legacy (now)", "Monthly, as agreed on"]),
    );
    await panel.write("Add-on Old pack (no longer sold)", "0");
    await panel.press("Preview");
    expect(lastSent("plan.preview")["quantities"]).toBe("old-pack=0");
  });

  it("is every rhythm a plan is sold in, the one that is held first and filled in", async () => {
    const quarter = { currency: "usd", interval: "month", interval_count: 3 };
    const sold = offers({ interval_count: 3 });
    const amounts: Record<string, number> = { starter: 5200, pro: 13500 };
    const all = sold.offers.map((one) => {
      const amount_minor = amounts[one.key];
      return amount_minor === undefined
        ? one
        : { ...one, prices: [...one.prices, { ...quarter, amount_minor }] };
    });
    const panel = await changing({ "plan.offers": () => json(200, { ...sold, offers: all }) });
    const billed = () => panel.named("Select", "Billed").props["value"];
    const labels = () => panel.ofType("option").map(({ text }) => text);

    expect(billed()).toBe("3-month");
    expect(labels().slice(3, 6)).toEqual([
      "Every 3 months, US$52.00",
      "Monthly, US$19.00",
      "Yearly, US$182.00",
    ]);

    await panel.choose("Plan", "pro");
    expect(billed()).toBe("3-month");
    expect(labels()).toContain("Every 3 months, US$135.00");
    await panel.press("Preview");
    expect(lastSent("plan.preview")).toMatchObject({ plan: "pro", interval: "month", interval_count: 3 });

    await panel.press("Change something");
    await panel.choose("Plan", "starter");
    await panel.choose("Billed", "month");
    await panel.press("Preview");
    expect(lastSent("plan.preview")).toMatchObject({ interval: "month", interval_count: 1 });
    expect(lastSent("plan.preview")).not.toHaveProperty("plan");
  });

  it("offers no day to a company that pays nothing yet", async () => {
    const nothing = { plan: "free", interval: null, currency: null, add_ons: {} };
    const panel = await changing({ "plan.offers": () => json(200, offers(nothing)) });
    await panel.choose("Plan", "pro");

    expect(panel.ofType("Select").map(({ props }) => props["label"])).toEqual(["Plan", "Currency", "Billed"]);
    await panel.press("Preview");
    expect(lastSent("plan.preview")).toMatchObject({ plan: "pro", interval: "month", currency: "usd" });
  });

  it("says when it cannot be had, and asks again on request", async () => {
    let isDown = true;
    const panel = await changing({
      "plan.offers": () => (isDown ? problem(503, "unavailable", "Try again shortly.") : json(200, offers())),
    });
    expect(panel.text()).toContain("Try again shortly.");

    isDown = false;
    await panel.press("Try again");
    expect(panel.named("Select", "Plan").props["value"]).toBe("starter");
  });
});

describe("who may", () => {
  it("is not a viewer, whose panel has none of it", async () => {
    const panel = await openPanel({ page: { role: "viewer" } });
    expect(panel.ofType("Button").map(({ text }) => text)).toEqual(["Refresh"]);
  });

  it("is decided by the server, whose refusal is shown", async () => {
    const panel = await changing({
      "plan.preview": () => problem(403, "role_too_low", "Your role is viewer; this needs agent."),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    expect(panel.text()).toContain("Your role is viewer; this needs agent.");
  });
});
