/** How an agent ends, keeps and prolongs what runs: cancelling, resuming, extending a trial and ending it now. */
import { describe, expect, it } from "vitest";

import type { CustomerPage } from "../src/types";
import { page, planChange, quote } from "./acme";
import { dashboard, json, problem, type SentRequest } from "./dashboard";
import { openPanel, sentTo } from "./panel";

const TRIAL_END = "2026-12-01T00:00:00Z";

function subscribed(changes: Partial<NonNullable<CustomerPage["subscription"]>>): Partial<CustomerPage> {
  const { subscription } = page();
  return { subscription: subscription && { ...subscription, ...changes } };
}

const onTrial = subscribed({ status: "trialing", trial_end: TRIAL_END });

function answering(answers: Record<string, (request: SentRequest) => Response>) {
  return (request: SentRequest) => (answers[request.action] ?? (() => json(500, {})))(request);
}

const buttons = (panel: { ofType: (type: string) => { text: string }[] }) =>
  panel.ofType("Button").map(({ text }) => text);

describe("cancelling", () => {
  it("shows what is lost and when, before it is done at the end of the period", async () => {
    const cancel = quote({
      kind: "cancel",
      when: "2026-12-03T00:00:00Z",
      is_scheduled: true,
      lost: [{ feature: "sso", name: "Single sign-on", before: true, after: false }],
    });
    const done = planChange({
      state: "scheduled",
      kind: "cancel",
      to: { plan: null },
      effective_at: cancel.when,
    });
    const panel = await openPanel({
      others: answering({ "plan.preview": () => json(200, cancel), "plan.change": () => json(200, done) }),
    });
    await panel.press("Cancel subscription");
    expect(panel.text()).toContain("Usage so far, overrides and the history are kept.");
    expect(panel.text()).toContain("At the end of the paid period, 3 December");
    await panel.press("Preview");

    expect(sentTo("plan.preview")[0]?.payload).toMatchObject({ customer: "cus_acme", cancel: "period_end" });
    expect(panel.text()).toContain("Ends on 3 December. Until then nothing changes");
    expect(panel.text()).toContain("Single sign-on: not included instead of included");
    expect(panel.named("Button", "Cancel on 3 December").props["type"]).toBe("destructive");
    await panel.press("Cancel on 3 December");
    expect(sentTo("plan.change")[0]?.payload["quote"]).toBe("signed-quote");
    expect(dashboard.toasts).toEqual(["Acme’s subscription ends on 3 December"]);
  });

  it("at once says so, and a quote for the other day is dropped", async () => {
    const panel = await openPanel({
      others: answering({
        "plan.preview": () => json(200, quote({ kind: "cancel" })),
        "plan.change": () => json(200, planChange({ kind: "cancel", to: { plan: "free" } })),
      }),
    });
    await panel.press("Cancel subscription");
    await panel.choose("When", "now");
    await panel.press("Preview");
    expect(sentTo("plan.preview")[0]?.payload).toMatchObject({ cancel: "now" });
    expect(panel.text()).toContain("Ends now. Usage so far is kept.");
    await panel.press("Cancel now");
    expect(dashboard.toasts).toEqual(["Acme’s subscription has ended"]);
  });

  it("is left without a trace", async () => {
    const panel = await openPanel();
    await panel.press("Cancel subscription");
    await panel.press("Keep Starter");
    expect(panel.ofType("FocusView")).toEqual([]);
    expect(dashboard.sent.map(({ action }) => action)).toEqual(["customer.get"]);
  });

  it("is offered where something runs and does not end by itself already", async () => {
    expect(buttons(await openPanel())).toContain("Cancel subscription");
    const { company } = page();
    for (const changes of [
      { company: company && { ...company, subscription: null }, subscription: null },
      subscribed({ status: "canceled" }),
      subscribed({ cancel_at: "2026-12-03T00:00:00Z" }),
    ]) {
      const shown = buttons(await openPanel({ page: changes }));
      expect(shown).toContain("Change plan");
      expect(shown).not.toContain("Cancel subscription");
    }
  });
});

describe("resuming", () => {
  it("asks what keeping costs, then keeps", async () => {
    const ending = subscribed({ cancel_at: "2026-12-03T00:00:00Z" });
    const next = { amount_minor: 1900, currency: "usd", at: "2026-12-03T00:00:00Z" };
    const panel = await openPanel({
      page: ending,
      others: answering({
        "plan.preview": () => json(200, quote({ kind: "resume", next_invoice: next })),
        "plan.change": () => json(200, planChange({ kind: "resume" })),
      }),
    });
    await panel.press("Keep subscription");
    expect(sentTo("plan.preview")).toHaveLength(1);
    expect(sentTo("plan.preview")[0]?.payload).toMatchObject({ resume: true });
    expect(panel.text()).toContain("Next payment: US$19.00 on 3 December.");
    await panel.press("Confirm, nothing to pay");
    expect(dashboard.toasts).toEqual(["Acme keeps Starter"]);
  });

  it("says when another system's schedule stands in the way, and tries again on request", async () => {
    let isForeign = true;
    const panel = await openPanel({
      page: subscribed({ cancel_at: "2026-12-03T00:00:00Z" }),
      others: answering({
        "plan.preview": () =>
          isForeign
            ? problem(409, "foreign_schedule", "Another system schedules it: release it there first.")
            : json(200, quote({ kind: "resume" })),
      }),
    });
    await panel.press("Keep subscription");
    expect(panel.text()).toContain("Another system schedules it: release it there first.");
    isForeign = false;
    await panel.press("Preview");
    expect(panel.named("Button", "Confirm, nothing to pay")).toBeDefined();
  });
});

describe("a trial", () => {
  it("is extended until the day that was shown", async () => {
    const panel = await openPanel({
      page: onTrial,
      others: answering({ "trial.extend": () => json(200, planChange({ kind: "resume" })) }),
    });
    await panel.press("Extend trial");
    expect(panel.text()).toContain("The trial ends on 8 December instead of 1 December.");
    await panel.choose("How much longer", "14");
    await panel.press("Extend until 15 December");

    expect(sentTo("trial.extend")[0]?.payload).toMatchObject({
      customer: "cus_acme",
      trial_end: "2026-12-15T00:00:00Z",
    });
    expect(sentTo("trial.extend")[0]?.payload["operation_id"]).toMatch(/^op_/);
    expect(dashboard.toasts).toEqual(["Acme’s trial ends on 15 December"]);
    expect(sentTo("customer.get")).toHaveLength(2);
  });

  it("is extended to the end of a day that is picked, which lies after the present end", async () => {
    const panel = await openPanel({
      page: onTrial,
      others: answering({ "trial.extend": () => json(200, planChange({ kind: "resume" })) }),
    });
    await panel.press("Extend trial");
    await panel.choose("How much longer", "date");
    await panel.press("Extend");
    expect(panel.named("DateField", "Last day").props["error"]).toBe("Choose a day.");
    for (const [day, error] of [
      ["2026-11-25", "Choose a day after 1 December, when the trial ends now."],
      ["2031-01-01", "Choose a day before 30 November 2028."],
    ] as const) {
      await panel.fire(panel.named("DateField", "Last day"), "onChange", day);
      const primary = panel.ofType("Button").find(({ text }) => text.startsWith("Extend until"));
      await panel.press(primary?.text ?? "");
      expect(panel.named("DateField", "Last day").props["error"]).toBe(error);
    }
    expect(sentTo("trial.extend")).toEqual([]);
    await panel.fire(panel.named("DateField", "Last day"), "onChange", "2026-12-24");
    await panel.press("Extend until 24 December");
    expect(sentTo("trial.extend")[0]?.payload["trial_end"]).toBe("2026-12-24T23:59:59Z");
  });

  it("stays as it is when the server refuses, with the reason", async () => {
    const panel = await openPanel({
      page: onTrial,
      others: answering({
        "trial.extend": () =>
          problem(
            409,
            "downgrade_scheduled",
            "A change waits for the end of this trial: take it back first.",
          ),
      }),
    });
    await panel.press("Extend trial");
    await panel.press("Extend until 8 December");
    expect(panel.text()).toContain("A change waits for the end of this trial: take it back first.");
    expect(dashboard.toasts).toEqual([]);
  });

  it("is ended now after a look at what is billed", async () => {
    const due = { amount_minor: 1900, currency: "usd" };
    const panel = await openPanel({
      page: onTrial,
      others: answering({
        "plan.preview": () => json(200, quote({ kind: "resume", due_today: due })),
        "plan.change": () => json(200, planChange({ kind: "resume" })),
      }),
    });
    await panel.press("End trial now");
    expect(sentTo("plan.preview")[0]?.payload).toMatchObject({ trial_end: "now" });
    await panel.press("Bill US$19.00 now");
    expect(sentTo("plan.change")).toHaveLength(1);
    expect(dashboard.toasts).toEqual(["Acme’s trial has ended; it pays for Starter now"]);
  });

  it("is offered to be moved while one runs, and to nobody who only looks", async () => {
    expect(buttons(await openPanel())).not.toContain("Extend trial");
    expect(buttons(await openPanel({ page: { ...onTrial, role: "viewer" } }))).toEqual(["Refresh"]);
  });
});
