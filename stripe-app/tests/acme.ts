/** Acme's page as Plangate would answer it, to be bent by each test. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";
import { getMockContextProps } from "@stripe/ui-extension-sdk/testing";

import type { CustomerPage, Decision, Override, ScheduledChange } from "../src/types";
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
