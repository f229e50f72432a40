/** The shapes that Plangate and this app exchange, as docs/reference states them, so that a drift is a type error. */
import type { Rhythm } from "./rhythm";

export type Mode = "live" | "test";
export type Role = "viewer" | "agent" | "admin";

/** Instants are RFC 3339 in UTC; quantities are whole numbers in the feature's base unit. */
export interface Period {
  kind?: string;
  start: string;
  resets_at?: string | null;
  end?: string | null;
}

export type Reason =
  | "granted"
  | "within_limit"
  | "unlimited"
  | "limit_reached"
  | "override"
  | "override_denied"
  | "flag_on"
  | "flag_off"
  | "rule_matched"
  | "no_entitlement"
  | "default"
  | "unknown_feature"
  | "archived_feature"
  | "unknown_company"
  | "unknown_user"
  | "trait_missing"
  | "credits_exhausted"
  | "subscription_inactive";

export interface Source {
  kind: string;
  key?: string | null;
  id?: string | null;
  name?: string | null;
  version?: number | null;
}

export interface Decision {
  feature: string;
  name?: string | null;
  allowed: boolean;
  reason: Reason;
  /** Null for a feature that is not in the catalogue. */
  type: string | null;
  value: unknown;
  limit: number | null;
  unlimited: boolean;
  used: number | null;
  reserved: number | null;
  remaining: number | null;
  soft_limit: number | null;
  over_soft_limit: boolean;
  period: Period | null;
  source: Source | null;
  company: string | null;
  user: string | null;
  at: string | null;
  stale: boolean;
  /** What usage costs, and what it has cost so far, in a sentence. */
  paid?: string | null;
}

/** One source that was considered, in order of precedence, and what came of it. */
export interface TraceStep {
  source: Source;
  outcome: "won" | "lost" | "not_matched" | "exhausted" | "combined";
  detail: string;
}

/** One thing that would turn a “no” into a “yes”. Amounts are integer minor units. */
export interface Unlock {
  kind: "plan" | "add_on" | "units" | "wait" | "contact_us";
  key?: string | null;
  name?: string | null;
  amount_minor?: number | null;
  currency?: string | null;
  interval?: string | null;
  interval_count?: number;
  at?: string | null;
  limit?: number | string | null;
  /** Of units paid in advance: how many are then held. */
  quantity?: number | null;
}

export interface Trace {
  steps: TraceStep[];
  /** The cheapest way to a “yes”. */
  unlock: Unlock | null;
}

export type OverrideMode = "add" | "set" | "deny";

export interface Override {
  id: string;
  company: string;
  user: string | null;
  feature: string;
  mode: OverrideMode;
  value: unknown;
  starts_at: string | null;
  expires_at: string | null;
  note: string;
  author: { kind: string; id: string; name?: string | null };
  state: string;
  revoked_at: string | null;
  etag: string;
}

export interface Subscription {
  status: string;
  interval: string | null;
  interval_count?: number;
  currency: string | null;
  period: Period | null;
  cancel_at: string | null;
  trial_end?: string | null;
}

export interface Company {
  id: string;
  keys: Record<string, string>;
  stripe_customer_ids: string[];
  name: string | null;
  plan: { key: string; name?: string | null; version: number | null; source: string } | null;
  add_ons: { key: string; name?: string | null; version: number; quantity: number }[];
  subscription: Subscription | null;
}

/** One end of a plan change; without a plan, the end of the subscription. */
export interface ChangeTarget {
  plan: string | null;
  interval?: string | null;
  interval_count?: number;
}

/** A change that waits for its day: a PlanChange, or, without an id, what somebody scheduled in Stripe itself. */
export interface ScheduledChange {
  id: string | null;
  kind: string;
  from?: ChangeTarget | null;
  to?: ChangeTarget | null;
  plan?: string | null;
  effective_at: string;
}

/** What a person must still do, and where. */
export interface NextAction {
  kind: string;
  url: string;
}

/** A change as it stands after it was confirmed; one that waits for the customer says in `next_action` where. */
export interface PlanChange {
  id: string;
  state: string;
  kind: string;
  from: ChangeTarget;
  to: ChangeTarget;
  effective_at: string;
  next_action: NextAction | null;
  refusal: { code: string; detail: string } | null;
}

export interface Notice {
  kind: string;
  text: string;
}

export interface CustomerPage {
  company: Company | null;
  subscription: Subscription | null;
  entitlements: Decision[];
  overrides: Override[];
  scheduled_change: ScheduledChange | null;
  /** A change that waits for the customer's payment or bank, or that is being made. */
  pending_change?: PlanChange | null;
  notices: Notice[];
  role: Role;
}

/** What something costs each interval. The amount is for each unit or package, where no decimal text or tiers say it. */
export interface Rate extends Rhythm {
  currency: string;
  amount_minor?: number;
  amount_decimal?: string | null;
  tiers?: unknown[];
  package_size?: number;
}

/** A plan or add-on on sale. An add-on fits the plans named, or any where none is. */
export interface Offer {
  kind: "plan" | "add_on";
  key: string;
  name: string;
  is_free: boolean;
  contact_us: boolean;
  trial_days: number;
  prices: Rate[];
  entitlements: {
    feature: string;
    name: string;
    price_behaviour: string;
    prices: Rate[];
    units: string;
  }[];
  fits: string[];
}

/** What the company holds; `units` are paid in advance, by feature, of an add-on as `extra/seats`. */
export interface Held {
  plan: string | null;
  interval: string | null;
  interval_count: number;
  currency: string | null;
  quantity: number;
  add_ons: Record<string, number>;
  units: Record<string, number>;
  is_custom: boolean;
}

export interface PlanOffers {
  offers: Offer[];
  held: Held;
}

export interface Money {
  amount_minor: number;
  currency: string;
}

export interface Violation {
  feature: string;
  name: string;
  used: number;
  limit: number;
}

/** One feature that a change gains or loses: true, a number, "unlimited", a config value or null on either side. */
export interface Effect {
  feature: string;
  name: string;
  before: unknown;
  after: unknown;
}

/** A signed preview; `quote` is the text that confirms it. */
export interface Quote {
  quote: string;
  kind: string;
  when: string;
  due_today: Money;
  lines: { description: string; amount_minor: number; proration: boolean }[];
  credit: Money | null;
  tax: Money | null;
  next_invoice: (Money & { at: string }) | null;
  plus_usage: { feature: string; name: string; price: Rate }[];
  gained: Effect[];
  lost: Effect[];
  violations: Violation[];
  /** The keys of add-ons that end with it. */
  ends: string[];
  expires_at: string;
  is_scheduled: boolean;
  needs_checkout: boolean;
}

/** What a price stands for; with a feature, only what it pays for within the plan or add-on. */
export interface StandsFor {
  kind: "plan" | "add_on";
  key: string;
  name: string;
  version: number;
  feature: string | null;
}

export interface ProductPrice {
  id: string;
  currency: string;
  /** Null where tiers, packages or fractions of a minor unit say what it costs. */
  amount_minor: number | null;
  interval: string | null;
  interval_count: number;
  is_active: boolean;
  is_metered: boolean;
  stands_for: StandsFor | null;
  /** The catalogue file sells at this price, and says what it stands for. */
  is_sold_here: boolean;
  companies: number;
  /** Why it cannot stand for anything, as the end of a sentence about it. */
  fault: string | null;
}

export interface MappingPreview {
  kind: "plan" | "add_on";
  key: string;
  prices: string[];
  companies: number;
  examined: number;
  moving: number;
  moves: { company: string; name: string | null; before: string | null; after: string | null }[];
}

export interface ProductPage {
  product: string;
  name: string;
  is_active: boolean;
  stands_for: StandsFor | null;
  prices: ProductPrice[];
  unmapped: string[];
  companies: number;
  choices: { kind: "plan" | "add_on"; key: string; name: string }[];
  /** Names what is shown, so that nothing else is changed than what was seen. */
  mapping: string;
  preview: MappingPreview | null;
  role: Role;
}

/** RFC 9457, as every refusal of Plangate is shaped. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  code: string;
  detail: string;
  errors: { pointer: string; code: string; detail: string }[];
  request_id: string;
  /** With `over_limit`: what stands in the way, and whether staff may go on with a reason. */
  violations?: Violation[];
  may_force?: boolean;
  /** With `quote_stale` and `quote_expired`: the quote that holds now. */
  quote?: Quote;
  /** With `action_required` and `payment_failed`: where the customer goes on. */
  next_action?: NextAction;
}

/** What may stand in a signed payload: values that JSON writes the same way in every language. */
export type PlainValue = string | number | boolean;

interface Change {
  customer: string;
  /** Made here once per intent, so that a repeated request is recognised and applied once. */
  operation_id: string;
}

/** Every action this app asks for: what it sends (the Stripe mode is added when sending) and what comes back. */
export interface ActionTable {
  "customer.get": { payload: { customer: string }; answer: CustomerPage };
  "decision.trace": {
    payload: { customer: string; feature: string };
    answer: Decision & { trace: Trace | null };
  };
  "override.grant": {
    payload: Change & {
      feature: string;
      override_mode: OverrideMode;
      value: PlainValue;
      expires_at?: string;
      note: string;
    };
    answer: Record<string, unknown>;
  };
  "override.edit": {
    payload: Change & {
      override: string;
      etag: string;
      value?: PlainValue;
      expires_at?: string;
      note?: string;
    };
    answer: Record<string, unknown>;
  };
  "override.revoke": {
    payload: Change & { override: string; note: string };
    answer: Record<string, unknown>;
  };
  "product.get": {
    payload: { product: string; kind?: string; key?: string; price?: string };
    answer: ProductPage;
  };
  "product.map": {
    payload: {
      operation_id: string;
      product: string;
      kind: string;
      key: string;
      price?: string;
      mapping: string;
    };
    answer: ProductPage;
  };
  "plan.offers": { payload: { customer: string }; answer: PlanOffers };
  "plan.preview": {
    payload: {
      customer: string;
      plan?: string;
      interval?: string;
      interval_count?: number;
      currency?: string;
      /** Absolute numbers as `seats=5,extra=2`; `plan` is the plan itself. */
      quantities?: string;
      cancel?: "now" | "period_end";
      resume?: boolean;
      trial_end?: string;
      when?: "now" | "period_end";
      promotion_code?: string;
      force_reason?: string;
      /** What was agreed on with the company, flat; an admin alone may send it. */
      custom_amount_minor?: number;
      custom_currency?: string;
      custom_interval?: "day" | "week" | "month" | "year";
      custom_interval_count?: number;
      custom_collection_method?: "charge" | "send_invoice";
      custom_days_until_due?: number;
      custom_starts_at?: string;
      custom_name?: string;
    };
    answer: Quote;
  };
  "plan.change": { payload: Change & { quote: string }; answer: PlanChange };
  "trial.extend": { payload: Change & { trial_end: string }; answer: PlanChange };
  "plan.cancel_scheduled": { payload: Change & { change: string }; answer: Record<string, unknown> };
}

export type Action = keyof ActionTable;
export type Payload<A extends Action> = ActionTable[A]["payload"];
export type Answer<A extends Action> = ActionTable[A]["answer"];
/** The actions that change something; each carries an operation id. */
export type Mutation = { [A in Action]: Payload<A> extends { operation_id: string } ? A : never }[Action];
