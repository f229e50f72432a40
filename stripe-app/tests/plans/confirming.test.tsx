/** What a confirmation makes, once, and what can come between. */
import { describe, expect, it } from "vitest";

import { planChange, quote } from "../acme";
import { dashboard, json, problem } from "../dashboard";
import { sentTo } from "../panel";
import { changing, lastSent, over, overLimit } from "./changing";

describe("a confirmation", () => {
  it("sends the quote that was seen, once however often it is pressed, and shows the company anew", async () => {
    let answer: (response: Response) => void = () => undefined;
    const panel = await changing({
      "plan.change": () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    await panel.press("Bill US$20.00 now");
    await panel.press("Bill US$20.00 now");
    expect(panel.named("Button", "Bill US$20.00 now").props["pending"]).toBe(true);
    answer(json(200, planChange()));
    await panel.settle();

    expect(sentTo("plan.change")).toHaveLength(1);
    expect(lastSent("plan.change")).toMatchObject({ customer: "cus_acme", quote: "signed-quote" });
    expect(lastSent("plan.change")["operation_id"]).toMatch(/^op_/);
    expect(dashboard.toasts).toEqual(["Acme is on Pro as previewed"]);
    expect(panel.ofType("FocusView")).toEqual([]);
    expect(sentTo("customer.get")).toHaveLength(2);
  });

  it("leads back to the form with everything still chosen", async () => {
    const panel = await changing();
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    await panel.press("Change something");

    expect(panel.named("Select", "Plan").props["value"]).toBe("pro");
    expect(sentTo("plan.change")).toEqual([]);
  });

  it.each(["quote_stale", "quote_expired"])("shows the new quote in place after %s", async (code) => {
    const newer = quote({ quote: "newer-quote", due_today: { amount_minor: 2100, currency: "usd" } });
    const panel = await changing({
      "plan.change": ({ payload }) =>
        payload["quote"] === "newer-quote"
          ? json(200, planChange())
          : problem(409, code, "Something has changed; nothing was charged. Look at the new quote.", [], {
              quote: newer,
            }),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    await panel.press("Bill US$20.00 now");

    expect(panel.text()).toContain("Something has changed; nothing was charged.");
    expect(dashboard.toasts).toEqual([]);
    await panel.press("Bill US$21.00 now");
    const [first, second] = sentTo("plan.change").map(({ payload }) => payload);
    expect(second?.["quote"]).toBe("newer-quote");
    expect(second?.["operation_id"]).not.toBe(first?.["operation_id"]);
    expect(dashboard.toasts).toEqual(["Acme is on Pro as previewed"]);
  });

  it("is the same operation when the answer to it was lost", async () => {
    let isLost = true;
    const panel = await changing({
      "plan.change": () =>
        isLost ? Promise.reject(new TypeError("Failed to fetch")) : json(200, planChange()),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    await panel.press("Bill US$20.00 now");
    expect(panel.text()).toContain("No connection to Plangate");
    isLost = false;
    await panel.press("Bill US$20.00 now");

    expect(new Set(sentTo("plan.change").map(({ payload }) => payload["operation_id"])).size).toBe(1);
    expect(dashboard.toasts).toEqual(["Acme is on Pro as previewed"]);
  });

  it("stays open with the reason when the payment was declined, with the page where the customer goes on", async () => {
    const invoice = { kind: "pay_invoice", url: "https://pay.example/in_1" };
    const panel = await changing({
      "plan.change": () =>
        problem(402, "payment_failed", "The card was declined; nothing was changed.", [], {
          next_action: invoice,
        }),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    await panel.press("Bill US$20.00 now");

    expect(panel.text()).toContain("The card was declined; nothing was changed.");
    expect(panel.named("Link", "Open it").props["href"]).toBe("https://pay.example/in_1");
    expect(dashboard.toasts).toEqual([]);
  });

  it("says what a change that was refused on the way met", async () => {
    const refusal = { code: "stripe_refused", detail: "Stripe refused it: the price is archived." };
    const panel = await changing({
      "plan.change": () => json(200, planChange({ state: "refused", refusal })),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    await panel.press("Bill US$20.00 now");
    expect(panel.text()).toContain("Stripe refused it: the price is archived.");
    expect(dashboard.toasts).toEqual([]);
  });
});

describe("usage above the new limits", () => {
  it("is listed, and an agent is told who may go on", async () => {
    const panel = await changing({ "plan.preview": overLimit });
    await panel.choose("Plan", "free");
    await panel.press("Preview");

    expect(panel.text()).toContain("Usage is above what Free allows.");
    expect(panel.text()).toContain("Exports: 40 used, 10 allowed");
    expect(panel.text()).toContain("An admin of Plangate may go on in spite of this, with a reason.");
    expect(panel.ofType("TextArea")).toEqual([]);

    await panel.choose("Plan", "pro");
    expect(panel.text()).not.toContain("40 used, 10 allowed");
  });

  it("is gone on with by an admin, who says why, and who sees it listed again before confirming", async () => {
    const panel = await changing(
      {
        "plan.preview": ({ payload }) =>
          payload["force_reason"] === undefined
            ? overLimit()
            : json(200, quote({ kind: "downgrade", violations: [over] })),
      },
      { role: "admin" },
    );
    await panel.choose("Plan", "free");
    await panel.press("Preview");
    await panel.press("Preview all the same");
    expect(sentTo("plan.preview")).toHaveLength(1);
    expect(panel.named("TextArea", "Why go on all the same").props["error"]).toContain("Write why");

    await panel.write("Why go on all the same", " They asked for it ");
    await panel.press("Preview all the same");
    expect(lastSent("plan.preview")).toMatchObject({ plan: "free", force_reason: "They asked for it" });
    expect(panel.text()).toContain("Exports: 40 used, 10 allowed. Nothing is deleted");
    await panel.press("Confirm, nothing to pay");
    expect(sentTo("plan.change")).toHaveLength(1);
  });
});
