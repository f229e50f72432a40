/** How an agent moves a company: what can be chosen, the quote before it, the confirmation, and what can come between. */
import { describe, expect, it } from "vitest";

import type { CustomerPage, Violation } from "../src/types";
import { offers, page, planChange, quote } from "./acme";
import { dashboard, isSignatureValid, json, problem, type SentRequest } from "./dashboard";
import { openPanel, sentTo } from "./panel";

type Answerer = (request: SentRequest) => Response | Promise<Response>;

const toPro = quote({
  due_today: { amount_minor: 2000, currency: "usd" },
  lines: [
    { description: "Unused time on Starter", amount_minor: -1100, proration: true },
    { description: "Remaining time on Pro", amount_minor: 2800, proration: true },
  ],
  tax: { amount_minor: 300, currency: "usd" },
  next_invoice: { amount_minor: 4900, currency: "usd", at: "2026-12-03T00:00:00Z" },
  plus_usage: [
    {
      feature: "calls",
      name: "API calls",
      price: { currency: "usd", interval: "month", amount_decimal: "0.2" },
    },
  ],
  gained: [
    { feature: "exports", name: "Exports", before: 100, after: 1000 },
    { feature: "sso", name: "Single sign-on", before: null, after: true },
  ],
});

const over: Violation = { feature: "exports", name: "Exports", used: 40, limit: 10 };

function overLimit(): Response {
  const more = { violations: [over], may_force: true };
  return problem(409, "over_limit", "Usage is above what Free allows.", [], more);
}

/** The panel with the drawer open; `answers` play the server by action. */
async function changing(answers: Record<string, Answerer> = {}, changes: Partial<CustomerPage> = {}) {
  const all: Record<string, Answerer> = {
    "plan.offers": () => json(200, offers()),
    "plan.preview": () => json(200, toPro),
    "plan.change": () => json(200, planChange()),
    ...answers,
  };
  const panel = await openPanel({
    page: changes,
    others: (request) => (all[request.action] ?? (() => json(500, {})))(request),
  });
  await panel.press("Change plan");
  return panel;
}

function lastSent(action: string): Record<string, unknown> {
  return sentTo(action).at(-1)?.payload ?? {};
}

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

  it("offers no day to a company that pays nothing yet", async () => {
    const nothing = { plan: "free", interval: null, currency: null, add_ons: {} };
    const panel = await changing({ "plan.offers": () => json(200, offers(nothing)) });
    await panel.choose("Plan", "pro");

    expect(panel.ofType("Select").map(({ props }) => props["label"])).toEqual(["Plan", "Billed"]);
    await panel.press("Preview");
    expect(lastSent("plan.preview")).toMatchObject({ plan: "pro", interval: "month" });
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
