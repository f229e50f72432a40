/** A first subscription: in which currency, with which trial, or at a price agreed on. The answers are a real server's. */
import { describe, expect, it } from "vitest";

import type { CustomerPage } from "../../src/types";
import { json } from "../dashboard";
import recorded from "../recorded/agreed.json";
import { changing, lastSent } from "./changing";

/** The drawer of a company on the free plan, which an admin opened. */
function unsubscribed(answer: unknown = recorded.deal, changes: Partial<CustomerPage> = { role: "admin" }) {
  return changing(
    {
      "plan.offers": () => json(200, recorded.offers),
      "plan.preview": () => json(answer === recorded.past ? 422 : 200, answer),
    },
    changes,
  );
}

type Panel = Awaited<ReturnType<typeof unsubscribed>>;

const labels = (panel: Panel) =>
  panel
    .all()
    .filter(({ type }) => /^(Select|TextField|DateField)$/.test(type))
    .map(({ props }) => props["label"]);

describe("a first subscription", () => {
  it("is in a currency that is chosen where the plan is sold in several, and says its trial", async () => {
    const panel = await unsubscribed(recorded.euro, { role: "agent" });
    await panel.choose("Plan", "starter");
    expect(labels(panel)).not.toContain("Currency");
    await panel.choose("Plan", "pro");
    expect(panel.text()).toContain("A first subscription to Pro begins with 14 days of trial.");
    expect(labels(panel)).toEqual([
      "Plan",
      "Currency",
      "Billed",
      "How many of Pro",
      "Add-on Extra exports",
      "Promotion code",
    ]);
    await panel.choose("Billed", "year");
    await panel.choose("Currency", "eur");
    expect(panel.ofType("option").map(({ text }) => text)).toContain("Yearly, €450.00");

    await panel.press("Preview");
    expect(lastSent("plan.preview")).toMatchObject({ plan: "pro", interval: "year", currency: "eur" });
    expect(panel.text()).toContain("Trial period for Pro€0.00");
    expect(panel.text()).toContain("Starts when the customer has confirmed it on Stripe’s payment page.");
  });

  it("stays in the currency paid in, which is not asked for", async () => {
    const panel = await changing();
    await panel.choose("Plan", "pro");
    await panel.press("Preview");
    expect(lastSent("plan.preview")).not.toHaveProperty("currency");
  });
});

describe("a price agreed on", () => {
  it("is an admin’s to give, and the only way to a plan that has none on offer", async () => {
    const agents = await unsubscribed(recorded.deal, { role: "agent" });
    expect(agents.ofType("option").map(({ text }) => text)).not.toContain("Enterprise");
    await agents.choose("Plan", "pro");
    expect(labels(agents)).not.toContain("Price");

    const panel = await unsubscribed();
    expect(labels(panel)).not.toContain("Price");
    await panel.choose("Plan", "enterprise");
    expect(labels(panel)).toEqual([
      "Plan",
      "Amount",
      "Currency",
      "Billed",
      "How it is paid",
      "First day",
      "Name for finance",
      "How many of Enterprise",
      "Promotion code",
    ]);
    await panel.choose("Plan", "starter");
    expect(panel.named("Select", "Price").props["value"]).toBe("offered");
    expect(labels(panel)).not.toContain("Amount");
  });

  it("is paid as often as the company pays now, until something else is chosen", async () => {
    const held = {
      ...recorded.offers.held,
      plan: "pro",
      interval: "month",
      interval_count: 3,
      currency: "usd",
    };
    const panel = await changing(
      { "plan.offers": () => json(200, { ...recorded.offers, held }) },
      { role: "admin" },
    );
    await panel.choose("Price", "own");
    expect(panel.named("Select", "Billed").props["value"]).toBe("3-month");
    await panel.write("Amount in USD", "300.00");
    await panel.press("Preview");
    expect(lastSent("plan.preview")).toMatchObject({ custom_interval: "month", custom_interval_count: 3 });
  });

  it("is sent with all its terms, in minor units", async () => {
    const panel = await unsubscribed();
    await panel.choose("Plan", "enterprise");
    await panel.write("Amount", "12000.00");
    await panel.write("Currency", "EUR");
    await panel.choose("Billed", "year");
    await panel.choose("How it is paid", "send_invoice");
    await panel.write("Days until an invoice is due", "14");
    await panel.write("Name for finance", " Acme 2027 ");
    await panel.write("How many of Enterprise", "2");
    await panel.press("Preview");

    expect(lastSent("plan.preview")).toEqual({
      customer: "cus_acme",
      plan: "enterprise",
      custom_amount_minor: 1_200_000,
      custom_currency: "eur",
      custom_interval: "year",
      custom_collection_method: "send_invoice",
      custom_days_until_due: 14,
      custom_name: "Acme 2027",
      quantities: "plan=2",
      mode: "test",
      user_id: "usr_1234",
      account_id: "acct_1234",
    });
    expect(panel.text()).toContain("2 × Enterprise (at €12,000.00 / year)€24,000.00");
    await panel.press("Bill €24,000.00 now");
    expect(lastSent("plan.change")["quote"]).toBe("signed-deal");
  });

  it("may begin on a day ahead", async () => {
    const panel = await unsubscribed(recorded.later);
    await panel.choose("Plan", "enterprise");
    await panel.write("Amount", "12000");
    await panel.fire(panel.named("DateField", "First day"), "onChange", "2027-01-15");
    await panel.press("Preview");

    expect(lastSent("plan.preview")["custom_starts_at"]).toBe("2027-01-15T00:00:00Z");
    expect(panel.text()).toContain("Starts on 15 January 2027. Until then nothing changes");
    expect(panel.text()).toContain("Next payment: €24,000.00 on 15 January 2027.");
    expect(panel.named("Button", "Switch on 15 January 2027")).toBeDefined();
  });

  it("shows what the server says of a member under its field", async () => {
    const panel = await unsubscribed(recorded.past);
    await panel.choose("Plan", "enterprise");
    await panel.write("Amount", "12000");
    await panel.fire(panel.named("DateField", "First day"), "onChange", "2020-01-01");
    await panel.press("Preview");
    expect(panel.named("DateField", "First day").props["error"]).toContain("The start lies ahead");
  });

  it("is kept in the currency of a subscription, and takes effect when that says", async () => {
    const panel = await changing({}, { role: "admin" });
    await panel.choose("Price", "own");
    expect(labels(panel)).not.toContain("Currency");
    expect(labels(panel)).not.toContain("First day");
    await panel.write("Amount in USD", "15,50");
    await panel.choose("When", "period_end");
    await panel.press("Preview");

    const { custom_amount_minor, custom_currency, custom_interval, when, plan } = lastSent("plan.preview");
    expect({ custom_amount_minor, custom_currency, custom_interval, when, plan }).toEqual({
      custom_amount_minor: 1550,
      custom_currency: "usd",
      custom_interval: "month",
      when: "period_end",
      plan: undefined,
    });
  });

  it.each([
    ["Amount", "", "Write an amount, such as 1200.00."],
    ["Amount", "12.345", "Write an amount, such as 1200.00."],
    ["Amount", "1,200.00", "Write an amount, such as 1200.00."],
    ["Amount", "9999999", "Stripe takes no price that high."],
    ["Currency", "€", "Write three letters, such as USD."],
    ["Days until an invoice is due", "soon", "Write a whole number of days, at most 365."],
  ])("is not asked for with %s “%s”", async (label, typed, sentence) => {
    const panel = await unsubscribed();
    await panel.choose("Plan", "enterprise");
    await panel.write("Amount", "1");
    await panel.choose("How it is paid", "send_invoice");
    await panel.write(label, typed);
    await panel.press("Preview");
    expect(panel.named("TextField", label).props["error"]).toBe(sentence);
    expect(panel.named("Button", "Preview")).toBeDefined();
  });
});
