/** The panel with the drawer open in which a company is moved, over a server that answers as it would. */
import type { CustomerPage, Violation } from "../../src/types";
import { offers, planChange, quote } from "../acme";
import { json, problem, type SentRequest } from "../dashboard";
import { openPanel, sentTo } from "../panel";

type Answerer = (request: SentRequest) => Response | Promise<Response>;

/** From Starter to Pro, for US$20.00 today. */
export const toPro = quote({
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

/** Usage that Free does not allow. */
export const over: Violation = { feature: "exports", name: "Exports", used: 40, limit: 10 };

/** The refusal that says so. */
export function overLimit(): Response {
  const more = { violations: [over], may_force: true };
  return problem(409, "over_limit", "Usage is above what Free allows.", [], more);
}

/** The panel with the drawer open; `answers` play the server by action. */
export async function changing(answers: Record<string, Answerer> = {}, changes: Partial<CustomerPage> = {}) {
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

/** What the last request of an action said. */
export function lastSent(action: string): Record<string, unknown> {
  return sentTo(action).at(-1)?.payload ?? {};
}
