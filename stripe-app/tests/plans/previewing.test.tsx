/** What is asked for, and what the quote of it says. */
import { describe, expect, it } from "vitest";

import { planChange, quote } from "../acme";
import { dashboard, isSignatureValid, json, problem } from "../dashboard";
import { sentTo } from "../panel";
import { changing, over, toPro } from "./changing";

describe("a preview", () => {
  it("asks for what differs and nothing else, signed", async () => {
    const panel = await changing();
    await panel.choose("Plan", "pro");
    await panel.choose("Billed", "year");
    await panel.write("How many of Pro", "4");
    await panel.write("Seats, paid in advance", "5");
    await panel.choose("When", "now");
    await panel.write("Promotion code", " SPRING ");
    await panel.press("Preview");

    const [request] = sentTo("plan.preview");
    expect(request?.payload).toEqual({
      customer: "cus_acme",
      plan: "pro",
      interval: "year",
      interval_count: 1,
      quantities: "plan=4,seats=5",
      when: "now",
      promotion_code: "SPRING",
      mode: "test",
      user_id: "usr_1234",
      account_id: "acct_1234",
    });
    expect(request && isSignatureValid(request)).toBe(true);
    expect(sentTo("plan.change")).toEqual([]);
  });

  it("sends nothing for a draft that changes nothing or has a number that is none", async () => {
    const panel = await changing();
    await panel.press("Preview");
    expect(panel.text()).toContain("Choose what should change");

    await panel.write("How many of Starter", "0");
    await panel.press("Preview");
    expect(panel.named("TextField", "How many of Starter").props["error"]).toBe(
      "Write a whole number of at least 1.",
    );
    await panel.write("How many of Starter", "1");
    await panel.write("Add-on Extra exports", "1.5");
    await panel.press("Preview");
    expect(panel.named("TextField", "Add-on Extra exports").props["error"]).toContain(
      "Write a whole number.",
    );
    expect(sentTo("plan.preview")).toEqual([]);
  });

  it("shows what is due and why, what follows, and what is gained", async () => {
    const panel = await changing();
    await panel.choose("Plan", "pro");
    await panel.press("Preview");

    const shown = panel.ofType("FocusView")[0]?.text ?? "";
    for (const words of [
      "Takes effect now.",
      "Unused time on Starter-US$11.00",
      "Remaining time on ProUS$28.00",
      "TaxUS$3.00",
      "Due todayUS$20.00",
      "Next payment: US$49.00 on 3 December, plus usage:",
      "API calls: US$0.002 for each",
      "Exports: 1,000 instead of 100",
      "Single sign-on: included instead of not included",
    ]) {
      expect(shown).toContain(words);
    }
    expect(panel.named("Button", "Bill US$20.00 now").props["type"]).toBe("primary");
  });

  it("comes to what is due also when more is given back than billed", async () => {
    const down = quote({
      kind: "downgrade",
      lines: [
        { description: "Unused time on Pro", amount_minor: -4900, proration: true },
        { description: "1 × Starter", amount_minor: 1900, proration: false },
      ],
      credit: { amount_minor: 3000, currency: "usd" },
    });
    const panel = await changing({ "plan.preview": () => json(200, down) });
    await panel.choose("Plan", "free");
    await panel.press("Preview");

    const shown = panel.ofType("FocusView")[0]?.text ?? "";
    expect(shown).toContain(
      "Unused time on Pro-US$49.001 × StarterUS$19.00Kept as credit on the balanceUS$30.00Due todayUS$0.00",
    );
  });

  it("comes to what is due where prices include the tax, and says how much", async () => {
    const included = quote({
      due_today: { amount_minor: 5500, currency: "usd" },
      lines: [
        { description: "1 × Pro", amount_minor: 4900, proration: false },
        { description: "1 × Support", amount_minor: 500, proration: false },
      ],
      tax: { amount_minor: 882, currency: "usd" },
    });
    const panel = await changing({ "plan.preview": () => json(200, included) });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");

    const shown = panel.ofType("FocusView")[0]?.text ?? "";
    expect(shown).toContain(
      "1 × SupportUS$5.00TaxUS$1.00Due todayUS$55.00The prices above include US$7.82 tax.",
    );
  });

  it("names the invoice that ends a trial by amount and day, under nothing due", async () => {
    const later = quote({
      next_invoice: { amount_minor: 4900, currency: "usd", at: "2026-12-04T00:00:00Z" },
    });
    const panel = await changing({ "plan.preview": () => json(200, later) });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");

    const shown = panel.ofType("FocusView")[0]?.text ?? "";
    expect(shown).toContain("Due todayUS$0.00Next payment: US$49.00 on 4 December.");
  });

  it("says the day of a downgrade, what is lost with it and what usage it will meet", async () => {
    const downgrade = quote({
      kind: "downgrade",
      when: "2026-12-03T00:00:00Z",
      is_scheduled: true,
      lost: [{ feature: "exports", name: "Exports", before: "unlimited", after: 10 }],
      violations: [over],
      ends: ["extra-exports"],
    });
    const panel = await changing({
      "plan.preview": () => json(200, downgrade),
      "plan.change": () =>
        json(200, planChange({ state: "scheduled", to: { plan: "free" }, effective_at: downgrade.when })),
    });
    await panel.choose("Plan", "free");
    await panel.press("Preview");

    const shown = panel.ofType("FocusView")[0]?.text ?? "";
    for (const words of [
      "Starts on 3 December. Until then nothing changes",
      "Exports: 40 used, 10 allowed. Nothing is deleted",
      "Due todayUS$0.00",
      "No further payments.",
      "Exports: 10 instead of unlimited",
      "Ends with it: Extra exports",
    ]) {
      expect(shown).toContain(words);
    }
    await panel.press("Switch on 3 December");
    expect(dashboard.toasts).toEqual(["Acme switches to Free on 3 December"]);
  });

  it("puts what the server says of a field under that field", async () => {
    const panel = await changing({
      "plan.preview": () =>
        problem(422, "invalid", "Two fields are not valid.", [
          { pointer: "/promotion_code", code: "invalid", detail: "This promotion code is over." },
          { pointer: "/quantities/seats", code: "invalid", detail: "At most 50 seats." },
        ]),
    });
    await panel.choose("Plan", "pro");
    await panel.write("Seats, paid in advance", "51");
    await panel.press("Preview");

    expect(panel.named("TextField", "Promotion code").props["error"]).toBe("This promotion code is over.");
    expect(panel.named("TextField", "Seats, paid in advance").props["error"]).toBe("At most 50 seats.");
  });

  it("is dropped when something else is wanted, even one that is still on its way", async () => {
    let answerLate: (response: Response) => void = () => undefined;
    const panel = await changing({
      "plan.preview": () =>
        new Promise((resolve) => {
          answerLate = resolve;
        }),
    });
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    await panel.choose("Plan", "free");
    answerLate(json(200, toPro));
    await panel.settle();

    expect(panel.named("Button", "Preview")).toBeDefined();
    expect(panel.text()).not.toContain("Due today");
  });
});
