/** A price agreed on with one company, while it is written: what can be said of it, and the request it amounts to. */
import { rhythmKey, rhythmName } from "./rhythm";
import { minorUnits, startOfDay, wholeNumber } from "./typed";
import type { Payload } from "./types";

export type Collection = "charge" | "send_invoice";

export interface OwnPrice {
  /** As typed, in major units: “1200.00”. */
  amount: string;
  currency: string;
  /** One of the choices by its key, such as `3-month`. */
  rhythm: string;
  collection: Collection;
  daysUntilDue: string;
  /** The first day, as YYYY-MM-DD; empty for the moment of the confirmation. */
  firstDay: string;
  /** What finance sees beside the price in Stripe. */
  name: string;
}

type Preview = Payload<"plan.preview">;
export type OwnPriceRequest = Pick<Preview, Extract<keyof Preview, `custom_${string}`>>;
/** What is wrong, by the member of the request at fault. */
export type OwnPriceErrors = Partial<Record<keyof OwnPriceRequest, string>>;

const AMOUNT_MAX = 99_999_999;
const DAYS_MAX = 365;

/** How often it can be billed. */
const RHYTHMS = [
  { interval: "week", interval_count: 1 },
  { interval: "month", interval_count: 1 },
  { interval: "month", interval_count: 3 },
  { interval: "month", interval_count: 6 },
  { interval: "year", interval_count: 1 },
  { interval: "year", interval_count: 2 },
  { interval: "year", interval_count: 3 },
] as const;

export const rhythmChoices = RHYTHMS.map((one) => ({ value: rhythmKey(one), label: rhythmName(one) }));

export const collectionChoices: { value: Collection; label: string }[] = [
  { value: "charge", label: "Charge the card on file" },
  { value: "send_invoice", label: "Send an invoice" },
];

/** A price to be filled in, for a company billed in this currency and this often. */
export function blankOwnPrice(currency: string, rhythm: string): OwnPrice {
  return {
    amount: "",
    currency,
    rhythm: rhythmChoices.some(({ value }) => value === rhythm) ? rhythm : "month",
    collection: "charge",
    daysUntilDue: "30",
    firstDay: "",
    name: "",
  };
}

/** The request it amounts to, or what is wrong with it. */
export function checkOwnPrice(
  price: OwnPrice,
): { request: OwnPriceRequest; errors: null } | { request: null; errors: OwnPriceErrors } {
  const errors: OwnPriceErrors = {};
  const currency = price.currency.trim().toLowerCase();
  const amount = minorUnits(price.amount, currency);
  if (!/^[a-z]{3}$/.test(currency)) errors.custom_currency = "Write three letters, such as USD.";
  else if (amount === null) errors.custom_amount_minor = "Write an amount, such as 1200.00.";
  else if (amount > AMOUNT_MAX) errors.custom_amount_minor = "Stripe takes no price that high.";
  const isInvoiced = price.collection === "send_invoice";
  const days = isInvoiced ? wholeNumber(price.daysUntilDue) : 0;
  if (days === null || days < 0 || days > DAYS_MAX) {
    errors.custom_days_until_due = `Write a whole number of days, at most ${DAYS_MAX}.`;
  }
  const startsAt = startOfDay(price.firstDay);
  if (price.firstDay !== "" && startsAt === undefined) errors.custom_starts_at = "Choose a day.";
  const rhythm = RHYTHMS.find((one) => rhythmKey(one) === price.rhythm);
  if (!rhythm) errors.custom_interval = "Choose how often it is billed.";
  if (amount === null || days === null || !rhythm || Object.keys(errors).length > 0) {
    return { request: null, errors };
  }
  const { interval, interval_count: count } = rhythm;
  const name = price.name.trim();
  return {
    request: {
      custom_amount_minor: amount,
      custom_currency: currency,
      custom_interval: interval,
      ...(count === 1 ? {} : { custom_interval_count: count }),
      ...(isInvoiced ? { custom_collection_method: "send_invoice", custom_days_until_due: days } : {}),
      ...(startsAt === undefined ? {} : { custom_starts_at: startsAt }),
      ...(name === "" ? {} : { custom_name: name }),
    },
    errors: null,
  };
}
