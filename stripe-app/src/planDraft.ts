/** A plan change while it is put together: what can be chosen, what is still wrong, and the request it amounts to. */
import { wholeNumber } from "./typed";
import { nameOf, type Formats } from "./format";
import { blankOwnPrice, checkOwnPrice, type OwnPrice } from "./ownPrice";
import { rhythmKey, rhythmName, rhythmOf } from "./rhythm";
import type { Held, Offer, Payload, PlanOffers, Rate } from "./types";

export type Timing = "auto" | "now" | "period_end";
export type PlanRequest = Omit<Payload<"plan.preview">, "customer" | "force_reason">;

export interface PlanDraft {
  plan: string;
  /** How often it would be paid, by its key; empty where nothing is. */
  rhythm: string;
  /** What the company would pay in; it can be chosen until it pays in one. */
  currency: string;
  /** A price agreed on with the company; null for one of those on offer. */
  own: OwnPrice | null;
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
export function draftOfHeld(offers: PlanOffers): PlanDraft {
  const { held } = offers;
  const plan = held.plan ?? planChoices(offers, { mayAgree: false })[0]?.key ?? "";
  const nothing: PlanDraft = {
    plan,
    rhythm: heldRhythm(held),
    currency: "",
    own: null,
    numbers: {},
    when: "auto",
    promotionCode: "",
  };
  return withPlan(offers, nothing, plan);
}

/** The draft with another plan: rhythm and currency stay as far as that plan is sold so. */
export function withPlan(offers: PlanOffers, draft: PlanDraft, plan: string): PlanDraft {
  const moved = withCurrency(offers, { ...draft, plan, own: null }, draft.currency);
  return mustBeAgreedOn(offers, plan) ? { ...moved, own: ownPriceOf(offers, moved) } : moved;
}

/** A price to be agreed on, in the currency that is paid in or that the catalogue names first. */
export function ownPriceOf({ offers, held }: PlanOffers, draft: PlanDraft): OwnPrice {
  const named = [draft.currency, ...offers.flatMap(ratesOf).map(({ currency }) => currency)];
  const currency = held.currency ?? named.find((one) => one !== "") ?? "";
  return blankOwnPrice(currency, draft.rhythm || heldRhythm(held));
}

/** The draft in another currency, if its plan is sold in that; paid as often, if it is sold so. */
export function withCurrency(offers: PlanOffers, draft: PlanDraft, wanted: string): PlanDraft {
  const choices = currencyChoices(offers, draft.plan);
  const currency = choices.includes(wanted) ? wanted : (choices[0] ?? "");
  const moved = { ...draft, currency };
  const sold = rhythmsSold(offers, moved);
  const kept = [draft.rhythm, heldRhythm(offers.held)].find((rhythm) => sold.includes(rhythm));
  return { ...moved, rhythm: kept ?? sold[0] ?? "" };
}

/**
 * The plans to choose from: those on sale at a price or for nothing, and the present one whatever became of it. Who may
 * agree on a price with a company chooses also from those that have none.
 */
export function planChoices(
  { offers, held }: PlanOffers,
  { mayAgree }: { mayAgree: boolean },
): { key: string; name: string }[] {
  const onSale = offers
    .filter(({ kind }) => kind === "plan")
    .filter((plan) => plan.key === held.plan || plan.is_free || mayAgree || ratesOf(plan).length > 0)
    .map(({ key, name }) => ({ key, name }));
  const isListed = held.plan === null || onSale.some(({ key }) => key === held.plan);
  return isListed ? onSale : [{ key: held.plan ?? "", name: nameOf({ key: held.plan }) }, ...onSale];
}

/** Whether a price can be agreed on for a plan: not for one that costs nothing. */
export function canBeAgreedOn({ offers }: PlanOffers, plan: string): boolean {
  return offerOf(offers, "plan", plan)?.is_free !== true;
}

/** Whether there is no other way to a plan: it is not the present one, and it is on offer without a price. */
export function mustBeAgreedOn(offers: PlanOffers, plan: string): boolean {
  const offer = offerOf(offers.offers, "plan", plan);
  return offer !== undefined && plan !== offers.held.plan && !offer.is_free && ratesOf(offer).length === 0;
}

/** How a first subscription to the draft's plan begins, where it begins with a trial. */
export function trialSentence({ offers, held }: PlanOffers, draft: PlanDraft): string | null {
  const offer = offerOf(offers, "plan", draft.plan);
  if (!offer?.trial_days || held.currency !== null || draft.own) return null;
  return `A first subscription to ${offer.name} begins with ${offer.trial_days} days of trial.`;
}

/** The currencies to choose from: the one the company pays in, or before that those the plan is sold in. */
export function currencyChoices({ offers, held }: PlanOffers, plan: string): string[] {
  if (held.currency !== null) return [held.currency];
  return [...new Set(ratesOf(offerOf(offers, "plan", plan)).map(({ currency }) => currency))];
}

/** The rhythms the draft's plan is sold in for its currency, by key; of the present plan also the one held. */
export function rhythmsSold({ offers, held }: PlanOffers, { plan, currency }: PlanDraft): string[] {
  const rates = ratesOf(offerOf(offers, "plan", plan)).filter((rate) => rate.currency === currency);
  const kept = plan === held.plan && held.interval !== null ? [heldRhythm(held)] : [];
  return [...new Set([...kept, ...rates.map(rhythmKey)])];
}

/** “Yearly, US$290.00”, “Every 3 months, as agreed on”; the rhythm alone where no single price says it. */
export function rhythmLabel(
  { offers, held }: PlanOffers,
  { plan, currency }: PlanDraft,
  rhythm: string,
  formats: Formats,
): string {
  const name = rhythmName(rhythmOf(rhythm));
  if (plan === held.plan && rhythm === heldRhythm(held) && held.is_custom) return `${name}, as agreed on`;
  const rates = offerOf(offers, "plan", plan)?.prices ?? [];
  const price = rates.find((rate) => rate.currency === currency && rhythmKey(rate) === rhythm);
  const hasOneAmount = price && !price.amount_decimal && (price.tiers ?? []).length === 0;
  return hasOneAmount ? `${name}, ${formats.money(price.amount_minor ?? 0, price.currency)}` : name;
}

/** The numbers that can be asked for beside a draft's plan. */
export function numberFields({ offers, held }: PlanOffers, draft: PlanDraft): NumberField[] {
  const plan = offerOf(offers, "plan", draft.plan);
  const isSamePlan = draft.plan === held.plan;
  const fields: NumberField[] = [];
  if (plan?.prices.length || draft.own || (isSamePlan && held.quantity > 1)) {
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
  const own = draft.own && checkOwnPrice(draft.own);
  Object.assign(errors, own?.errors);
  const isSamePrice = isSamePlan && draft.rhythm === heldRhythm(held) && !draft.own;
  if (isSamePrice && quantities.length === 0 && Object.keys(errors).length === 0) {
    errors["form"] = "Choose what should change: the plan, how often it is billed or a number.";
  }
  if (Object.keys(errors).length > 0) return { request: null, errors };
  const code = draft.promotionCode.trim();
  const isCurrencyOpen = currencyChoices(offers, draft.plan).length > 1;
  return {
    request: {
      ...(isSamePlan ? {} : { plan: draft.plan }),
      ...(own?.request ?? {
        ...(draft.rhythm === "" || isSamePrice ? {} : rhythmOf(draft.rhythm)),
        ...(isCurrencyOpen ? { currency: draft.currency } : {}),
      }),
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
    if (key !== "" && (field === "quantities" || field === "add_ons")) found[key] = detail;
    else if (key !== "" && field === "custom_price") found[`custom_${key}`] = detail;
    else found[field] = detail;
  }
  return found;
}

function heldRhythm({ interval, interval_count }: Held): string {
  return interval === null ? "" : rhythmKey({ interval, interval_count });
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
