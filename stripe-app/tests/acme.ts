/** Acme's page as Plangate would answer it, to be bent by each test. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";
import { getMockContextProps } from "@stripe/ui-extension-sdk/testing";

import type {
  CustomerPage,
  Decision,
  Offer,
  Override,
  PlanChange,
  PlanOffers,
  Quote,
  ScheduledChange,
} from "../src/types";
import { ACCOUNT, USER } from "./dashboard";

export const NOW = "2026-11-20T09:00:00Z";
export const BASE = "http://127.0.0.1:8787/stripe-app/v1/";

export function context(changes: { customer?: string; constants?: Record<string, string> } = {}) {
  const props: ExtensionContextValue = getMockContextProps({
    userContext: {
      id: USER,
      locale: "en-GB",
      account: { id: ACCOUNT, country: "US", name: "Northwind", isSandbox: false },
    },
    environment: {
      mode: "test",
      constants: changes.constants ?? { API_BASE: BASE },
      objectContext: { id: changes.customer ?? "cus_acme", object: "customer" },
    },
  });
  return props;
}

export function decision(changes: Partial<Decision> = {}): Decision {
  return {
    feature: "exports",
    name: "Exports",
    allowed: true,
    reason: "within_limit",
    type: "event",
    value: null,
    limit: 100,
    unlimited: false,
    used: 40,
    reserved: 0,
    remaining: 60,
    soft_limit: null,
    over_soft_limit: false,
    period: { kind: "billing_month", start: "2026-11-03T00:00:00Z", resets_at: "2026-12-03T00:00:00Z" },
    source: { kind: "plan", key: "starter", version: 1 },
    company: "comp_acme",
    user: null,
    at: NOW,
    stale: false,
    ...changes,
  };
}

export const sso: Partial<Decision> = {
  feature: "sso",
  name: "Single sign-on",
  allowed: false,
  reason: "no_entitlement",
  type: "boolean",
  limit: null,
  used: null,
  reserved: null,
  remaining: null,
  period: null,
  source: null,
};

export function override(changes: Partial<Override> = {}): Override {
  return {
    id: "ovr_1",
    company: "comp_acme",
    user: null,
    feature: "exports",
    mode: "add",
    value: 500,
    starts_at: "2026-11-20T08:00:00Z",
    expires_at: "2026-11-27T08:00:00Z",
    note: "Bridging until the contract is signed",
    author: { kind: "stripe_user", id: "usr_1234" },
    state: "active",
    revoked_at: null,
    etag: "etag-1",
    ...changes,
  };
}

export const toStarter: ScheduledChange = {
  id: "chg_1",
  kind: "downgrade",
  from: { plan: "pro", interval: "month" },
  to: { plan: "starter", interval: "month" },
  effective_at: "2026-12-03T00:00:00Z",
};

export function page(changes: Partial<CustomerPage> = {}): CustomerPage {
  const subscription = {
    status: "active",
    interval: "month",
    currency: "usd",
    period: { kind: "billing_month", start: "2026-11-03T00:00:00Z", resets_at: "2026-12-03T00:00:00Z" },
    cancel_at: null,
  };
  return {
    company: {
      id: "comp_acme",
      keys: { id: "acme" },
      stripe_customer_ids: ["cus_acme"],
      name: "Acme",
      plan: { key: "starter", version: 1, source: "subscription" },
      add_ons: [{ key: "extra-exports", version: 1, quantity: 2 }],
      subscription,
    },
    subscription,
    entitlements: [decision(), decision(sso)],
    overrides: [],
    scheduled_change: null,
    notices: [],
    role: "agent",
    ...changes,
  };
}

/** A quote that takes effect now and costs nothing. */
export function quote(changes: Partial<Quote> = {}): Quote {
  return {
    quote: "signed-quote",
    kind: "upgrade",
    when: NOW,
    due_today: { amount_minor: 0, currency: "usd" },
    lines: [],
    credit: null,
    tax: null,
    next_invoice: null,
    plus_usage: [],
    gained: [],
    lost: [],
    violations: [],
    ends: [],
    expires_at: "2026-11-20T09:15:00Z",
    is_scheduled: false,
    needs_checkout: false,
    ...changes,
  };
}

export function planChange(changes: Partial<PlanChange> = {}): PlanChange {
  return {
    id: "chg_2",
    state: "applied",
    kind: "upgrade",
    from: { plan: "starter", interval: "month" },
    to: { plan: "pro", interval: "month" },
    effective_at: NOW,
    next_action: null,
    refusal: null,
    ...changes,
  };
}

function offer(changes: Partial<Offer> & Pick<Offer, "key" | "name">): Offer {
  return {
    kind: "plan",
    is_free: false,
    contact_us: false,
    trial_days: 0,
    prices: [],
    entitlements: [],
    fits: [],
    ...changes,
  };
}

function monthlyAndYearly(month: number, year: number): Offer["prices"] {
  return [
    { currency: "usd", interval: "month", amount_minor: month },
    { currency: "usd", interval: "year", amount_minor: year },
    { currency: "eur", interval: "week", amount_minor: month },
  ];
}

/** What Acme can be moved to from Starter: Free, Pro with seats paid in advance, and an add-on that fits both. */
export function offers(changes: Partial<PlanOffers["held"]> = {}): PlanOffers {
  return {
    offers: [
      offer({ key: "free", name: "Free", is_free: true }),
      offer({ key: "starter", name: "Starter", prices: monthlyAndYearly(1900, 18200) }),
      offer({
        key: "pro",
        name: "Pro",
        prices: monthlyAndYearly(4900, 47000),
        entitlements: [
          {
            feature: "seats",
            name: "Seats",
            price_behaviour: "pay_in_advance",
            units: "seats",
            prices: [{ currency: "usd", interval: "month", amount_minor: 800 }],
          },
        ],
      }),
      offer({ key: "enterprise", name: "Enterprise", contact_us: true }),
      offer({
        kind: "add_on",
        key: "extra-exports",
        name: "Extra exports",
        prices: monthlyAndYearly(500, 4800),
        fits: ["starter", "pro"],
      }),
    ],
    held: {
      plan: "starter",
      interval: "month",
      interval_count: 1,
      currency: "usd",
      quantity: 1,
      add_ons: { "extra-exports": 2 },
      units: {},
      is_custom: false,
      ...changes,
    },
  };
}
