/** A plan change while it is put together: what can be chosen, what is still wrong, and the request it amounts to. */
import { wholeNumber } from "./typed";
import { intervalName, nameOf, type Formats } from "./format";
import type { Held, Offer, Payload, PlanOffers, Rate } from "./types";

export type Timing = "auto" | "now" | "period_end";
export type PlanRequest = Omit<Payload<"plan.preview">, "customer" | "force_reason">;

export interface PlanDraft {
  plan: string;
  interval: string;
  /** What is typed for each number, by the key it is sent under; what is not in here is as held. */
  numbers: Record<string, string>;
  when: Timing;
  promotionCode: string;
}

/** What is wrong, by the field that shows it; `form` is about all of them. */
export type PlanErrors = Partial<Record<string, string>>;

/** One number that can be asked for: the plan itself, an add-on, or something paid in advance. */
export interface NumberField {
  key: string;
  label: string;
  held: number;
  least: number;
}

const PLAN = "plan";
const NUMBER_MAX = 1_000_000;

/** The draft that changes nothing. */
export function draftOfHeld({ offers, held }: PlanOffers): PlanDraft {
  const plan = held.plan ?? planChoices({ offers, held })[0]?.key ?? "";
  const interval = held.interval ?? intervalChoices({ offers, held }, plan)[0] ?? "";
  return { plan, interval, numbers: {}, when: "auto", promotionCode: "" };
}

/** The plans to choose from: those on sale at a price or for nothing, and the present one whatever became of it. */
export function planChoices({ offers, held }: PlanOffers): { key: string; name: string }[] {
  const onSale = offers
    .filter(({ kind }) => kind === "plan")
    .filter((plan) => plan.key === held.plan || plan.is_free || ratesOf(plan).length > 0)
    .map(({ key, name }) => ({ key, name }));
  const isListed = held.plan === null || onSale.some(({ key }) => key === held.plan);
  return isListed ? onSale : [{ key: held.plan ?? "", name: nameOf({ key: held.plan }) }, ...onSale];
}

/** The intervals a plan is sold at, in the currency the company pays in; of the present plan also the one held. */
export function intervalChoices({ offers, held }: PlanOffers, plan: string): string[] {
  const rates = ratesOf(offerOf(offers, "plan", plan)).filter((rate) => isPayable(rate, held));
  const sold = rates.filter((rate) => (rate.interval_count ?? 1) === 1).map(({ interval }) => interval);
  const kept = plan === held.plan && held.interval !== null ? [held.interval] : [];
  return [...new Set([...kept, ...sold])];
}

/** “Yearly, US$290.00”; the interval alone where no single price says it. */
export function intervalLabel(
  { offers, held }: PlanOffers,
  plan: string,
  interval: string,
  formats: Formats,
): string {
  if (plan === held.plan && interval === held.interval && (held.is_custom || held.interval_count > 1)) {
    return held.is_custom ? `${intervalName(interval)}, as agreed on` : "As it is now";
  }
  const rates = offerOf(offers, "plan", plan)?.prices ?? [];
  const price = rates.find(
    (rate) => isPayable(rate, held) && rate.interval === interval && (rate.interval_count ?? 1) === 1,
  );
  const hasOneAmount = price && !price.amount_decimal && (price.tiers ?? []).length === 0;
  return hasOneAmount
    ? `${intervalName(interval)}, ${formats.money(price.amount_minor ?? 0, price.currency)}`
    : intervalName(interval);
}

/** The numbers that can be asked for beside a draft's plan. */
export function numberFields({ offers, held }: PlanOffers, draft: PlanDraft): NumberField[] {
  const plan = offerOf(offers, "plan", draft.plan);
  const isSamePlan = draft.plan === held.plan;
  const fields: NumberField[] = [];
  if (plan?.prices.length || (isSamePlan && held.quantity > 1)) {
    const name = plan?.name ?? nameOf({ key: draft.plan });
    fields.push({ key: PLAN, label: `How many of ${name}`, held: held.quantity, least: 1 });
  }
  fields.push(...unitFields(plan, "", held));
  if (plan?.is_free) return fields;
  const addOns = offers.filter(
    ({ kind, key, fits }) =>
      kind === "add_on" && (key in held.add_ons || fits.length === 0 || fits.includes(draft.plan)),
  );
  for (const addOn of addOns) {
    const count = held.add_ons[addOn.key] ?? 0;
    fields.push({ key: addOn.key, label: `Add-on ${addOn.name}`, held: count, least: 0 });
    if (numberOf(draft, addOn.key, count) !== 0) fields.push(...unitFields(addOn, `${addOn.key}/`, held));
  }
  for (const [key, count] of Object.entries(held.add_ons)) {
    if (addOns.some((addOn) => addOn.key === key)) continue;
    fields.push({ key, label: `Add-on ${nameOf({ key })} (no longer sold)`, held: count, least: 0 });
  }
  return fields;
}

/** The request a draft amounts to, with only what differs from what is held, or what is wrong with it. */
export function checkPlanDraft(
  offers: PlanOffers,
  draft: PlanDraft,
): { request: PlanRequest; errors: null } | { request: null; errors: PlanErrors } {
  const { held } = offers;
  const errors: PlanErrors = {};
  const isSamePlan = draft.plan === held.plan;
  const quantities: string[] = [];
  for (const { key, held: count, least } of numberFields(offers, draft)) {
    const number = numberOf(draft, key, count);
    if (number === null || number < least || number > NUMBER_MAX) {
      errors[key] =
        least === 1 ? "Write a whole number of at least 1." : "Write a whole number. 0 means none.";
    } else if (number !== (key === PLAN && !isSamePlan ? 1 : count)) {
      // Another plan starts with one of it, unless more are asked for.
      quantities.push(`${key}=${number}`);
    }
  }
  const isSameInterval = draft.interval === (held.interval ?? "");
  if (isSamePlan && isSameInterval && quantities.length === 0 && Object.keys(errors).length === 0) {
    errors["form"] = "Choose what should change: the plan, the interval or a number.";
  }
  if (Object.keys(errors).length > 0) return { request: null, errors };
  const code = draft.promotionCode.trim();
  return {
    request: {
      ...(isSamePlan ? {} : { plan: draft.plan }),
      ...(draft.interval === "" || (isSamePlan && isSameInterval) ? {} : { interval: draft.interval }),
      ...(quantities.length > 0 ? { quantities: quantities.join(",") } : {}),
      ...(draft.when === "auto" ? {} : { when: draft.when }),
      ...(code === "" ? {} : { promotion_code: code }),
    },
    errors: null,
  };
}

/** The server names fields by JSON pointer; each error belongs under the field that shows it. */
export function planFieldErrors(errors: { pointer: string; detail: string }[]): PlanErrors {
  const found: PlanErrors = {};
  for (const { pointer, detail } of errors) {
    const [, field = "", ...rest] = pointer.split("/").map((part) => part.replace(/~1/g, "/"));
    const key = rest.join("/").replace(/~0/g, "~");
    found[(field === "quantities" || field === "add_ons") && key !== "" ? key : field] = detail;
  }
  return found;
}

function unitFields(offer: Offer | undefined, prefix: string, held: Held): NumberField[] {
  return (offer?.entitlements ?? [])
    .filter(({ price_behaviour, prices }) => price_behaviour === "pay_in_advance" && prices.length > 0)
    .map(({ feature, name }) => {
      const key = `${prefix}${feature}`;
      const label = prefix === "" ? name : `${name} with ${offer?.name ?? ""}`;
      return { key, label: `${label}, paid in advance`, held: held.units[key] ?? 0, least: 0 };
    });
}

function numberOf(draft: PlanDraft, key: string, held: number): number | null {
  const typed = draft.numbers[key];
  return typed === undefined ? held : wholeNumber(typed);
}

function offerOf(offers: Offer[], kind: Offer["kind"], key: string): Offer | undefined {
  return offers.find((offer) => offer.kind === kind && offer.key === key);
}

/** What a plan is sold for; where it has no price of its own, what is paid for what it grants. */
function ratesOf(offer: Offer | undefined): Rate[] {
  if (!offer) return [];
  return offer.prices.length > 0 ? offer.prices : offer.entitlements.flatMap(({ prices }) => prices);
}

function isPayable(rate: Rate, held: Held): boolean {
  return held.currency === null || rate.currency === held.currency;
}
