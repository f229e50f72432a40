/** What the customer has to finish, and where. */
import { describe, expect, it } from "vitest";

import { page, planChange } from "../acme";
import { dashboard, json, problem } from "../dashboard";
import { openPanel, sentTo } from "../panel";
import { changing, toPro } from "./changing";

describe("a change that waits for the customer", () => {
  const checkout = { kind: "checkout", url: "https://checkout.example/cs_1" };

  it("hands over the payment page's address, to copy and to open", async () => {
    const waiting = planChange({ state: "awaiting_payment", next_action: checkout });
    const panel = await changing({
      "plan.preview": () => json(200, { ...toPro, needs_checkout: true }),
      "plan.change": () => json(200, waiting),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    expect(panel.text()).toContain("Starts when the customer has paid");
    await panel.press("Make the payment link");

    expect(panel.text()).toContain("Acme pays on Stripe’s payment page, and the change is made then.");
    expect(panel.named("Link", "Open it").props).toMatchObject({ href: checkout.url, target: "_blank" });
    await panel.press("Copy the link");
    expect(dashboard.copied).toEqual([checkout.url]);
    expect(dashboard.toasts).toEqual(["Link copied"]);

    panel.served.page = page({ pending_change: waiting });
    await panel.press("Done");
    const [banner] = panel.ofType("Banner");
    expect(banner?.props["title"]).toBe("The change to Pro waits for Acme");
    expect(panel.named("Link", "Open it").props["href"]).toBe(checkout.url);
  });

  it("hands over the page where the bank is answered", async () => {
    const bank = { kind: "authenticate", url: "https://hooks.example/3ds" };
    const panel = await changing({
      "plan.change": () =>
        problem(402, "action_required", "The bank wants the customer to confirm this payment.", [], {
          next_action: bank,
          change: planChange({ state: "requires_action", next_action: bank }),
        }),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    await panel.press("Bill US$20.00 now");

    expect(panel.text()).toContain("Acme’s bank wants the payment confirmed");
    expect(panel.named("Link", "Open it").props["href"]).toBe(bank.url);
    await panel.press("Done");
    expect(sentTo("customer.get")).toHaveLength(2);
  });

  it("never leads anywhere but to a web page", async () => {
    const odd = planChange({
      state: "awaiting_payment",
      next_action: { kind: "checkout", url: "javascript:1" },
    });
    const panel = await openPanel({ page: { pending_change: odd } });

    expect(panel.ofType("Banner")[0]?.props["title"]).toBe("The change to Pro waits for Acme");
    expect(panel.ofType("Link").filter(({ props }) => props["href"])).toEqual([]);
  });
});
