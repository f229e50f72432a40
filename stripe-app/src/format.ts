/** Numbers, dates and usage as people say them, in the language settings of whoever looks. */
import { everyWords, rhythmName } from "./rhythm";
import type { Decision, ProductPrice, Rate, Subscription } from "./types";

export interface Formats {
  number(value: number): string;
  /** An instant as a day in words; the year is named when it is not this one. */
  day(instant: string): string;
  /** An amount in minor units of an ISO currency: whole ones, but for rates. */
  money(amountMinor: number, currency: string): string;
}

/** Stripe's currencies whose minor unit is not a hundredth; not what browsers know of all of them. */
const DECIMALS: Readonly<Record<string, number>> = Object.fromEntries<number>([
  ..."bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf"
    .split(" ")
    .map((code) => [code, 0] as const),
  ..."bhd jod kwd omr tnd".split(" ").map((code) => [code, 3] as const),
]);

/** Days are UTC days: everybody who looks at a customer must read the same date. */
export function formatsFor(locale: string, now: Date): Formats {
  const known = knownLocale(locale);
  const numbers = new Intl.NumberFormat(known);
  const day = { day: "numeric", month: "long", timeZone: "UTC" } as const;
  const thisYear = new Intl.DateTimeFormat(known, day);
  const otherYear = new Intl.DateTimeFormat(known, { ...day, year: "numeric" });
  return {
    number: (value) => numbers.format(value),
    day: (instant) => {
      const date = new Date(instant);
      if (Number.isNaN(date.getTime())) return instant;
      return (date.getUTCFullYear() === now.getUTCFullYear() ? thisYear : otherYear).format(date);
    },
    money: (amountMinor, currency) => {
      const usual = new Intl.NumberFormat(known, { style: "currency", currency });
      const decimals = decimalsOf(currency);
      const shown = usual.resolvedOptions().maximumFractionDigits ?? 2;
      if (Number.isInteger(amountMinor / 10 ** Math.max(0, decimals - shown)))
        return usual.format(amountMinor / 10 ** decimals);
      // A rate may be a fraction of a cent; Stripe keeps 12 places of it.
      const exact = {
        style: "currency",
        currency,
        minimumFractionDigits: decimals,
        maximumFractionDigits: 12,
      } as const;
      return new Intl.NumberFormat(known, exact).format(amountMinor / 10 ** decimals);
    },
  };
}

/** “7,202 of 10,000 used, resets on 3 December”; the count alone when there is no limit; null for what is not counted. */
export function usageSentence(decision: Decision, formats: Formats): string | null {
  if (!isMetered(decision)) return null;
  const used = formats.number(decision.used ?? 0);
  const parts: string[] = [];
  if (decision.unlimited) parts.push(`${used} used, no limit`);
  else if (decision.limit !== null) parts.push(`${used} of ${formats.number(decision.limit)} used`);
  else parts.push(`${used} used`);
  if (decision.reserved) parts.push(`${formats.number(decision.reserved)} reserved`);
  if (decision.over_soft_limit && decision.soft_limit !== null) {
    const included = formats.number(decision.soft_limit);
    parts.push(decision.paid ? `${included} included` : `over the soft limit of ${included}`);
  }
  const resetsAt = decision.period?.resets_at;
  if (resetsAt) parts.push(`resets on ${formats.day(resetsAt)}`);
  return parts.join(", ");
}

/** What a config feature holds, or null when it holds nothing to show. */
export function valueSentence(decision: Decision, formats: Formats): string | null {
  const { value } = decision;
  if (decision.type !== "config" || value === null || value === undefined) return null;
  if (typeof value === "number") return formats.number(value);
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}

/** Whole per cent of the limit in use, counting what is reserved; null when there is no bar to draw. */
export function percentUsed(decision: Decision): number | null {
  if (!isMetered(decision) || decision.unlimited || decision.limit === null) return null;
  const taken = (decision.used ?? 0) + (decision.reserved ?? 0);
  if (decision.limit <= 0) return taken > 0 ? 100 : 0;
  return Math.max(0, Math.floor((taken * 100) / decision.limit));
}

/** Whether the feature counts something: events, seats, a stored value. */
export function isMetered(decision: Decision): boolean {
  return decision.type !== null && decision.type !== "boolean" && decision.type !== "config";
}

/** The name people know, from a name where there is one and from the key otherwise: “extra-exports” is “Extra exports”. */
export function nameOf(named: { key?: string | null; name?: string | null }): string {
  if (named.name) return named.name;
  const words = (named.key ?? "").replace(/[-_.]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export function featureName(decision: Pick<Decision, "feature" | "name">): string {
  return nameOf({ key: decision.feature, name: decision.name });
}

/** The status of a subscription in words, and how urgent it is. */
export function statusWords(status: string): {
  text: string;
  tone: "positive" | "warning" | "negative" | "neutral" | "info";
} {
  switch (status) {
    case "active":
      return { text: "Active", tone: "positive" };
    case "trialing":
      return { text: "On trial", tone: "info" };
    case "past_due":
      return { text: "Payment overdue", tone: "warning" };
    case "unpaid":
      return { text: "Unpaid, no access", tone: "negative" };
    case "incomplete":
      return { text: "First payment open", tone: "warning" };
    case "incomplete_expired":
      return { text: "Never paid", tone: "neutral" };
    case "paused":
      return { text: "Paused, no access", tone: "warning" };
    case "canceled":
      return { text: "Ended", tone: "neutral" };
    default:
      return { text: nameOf({ key: status }), tone: "neutral" };
  }
}

/** “Monthly, in USD”, as far as it is known. */
export function billingWords(subscription: Subscription): string | null {
  const { interval, interval_count } = subscription;
  const rhythm = interval && rhythmName({ interval, interval_count });
  const currency = subscription.currency && `in ${subscription.currency.toUpperCase()}`;
  return [rhythm, currency].filter(Boolean).join(", ") || null;
}

/** “$12.34 every month”; what has no single amount says which kind it is. */
export function priceWords(
  price: Pick<ProductPrice, "amount_minor" | "currency" | "interval" | "interval_count" | "is_metered">,
  formats: Formats,
): string {
  const { interval, interval_count } = price;
  const often = interval === null ? "once" : everyWords({ interval, interval_count });
  const amount =
    price.amount_minor === null
      ? `An amount in ${price.currency.toUpperCase()} by tiers, packages or fractions`
      : formats.money(price.amount_minor, price.currency);
  return `${amount}${price.is_metered ? " per unit used" : ""}, ${often}`;
}

/** “US$0.002 for each”, “US$5.00 for every 1,000”; tiers are named, not listed. */
export function rateWords(rate: Rate, formats: Formats): string {
  if (rate.tiers && rate.tiers.length > 0) return `by tiers, in ${rate.currency.toUpperCase()}`;
  const amount = rate.amount_decimal ? Number(rate.amount_decimal) : (rate.amount_minor ?? 0);
  const size = rate.package_size ?? 1;
  return `${formats.money(amount, rate.currency)} for ${size > 1 ? `every ${formats.number(size)}` : "each"}`;
}

/** “1 company holds it”, “12 companies hold it”. */
export function holdersWords(companies: number, formats: Formats): string {
  if (companies === 0) return "No company holds it";
  return companies === 1 ? "1 company holds it" : `${formats.number(companies)} companies hold it`;
}

/** How many decimals Stripe counts an amount in; the case of the three letters does not matter. */
export function decimalsOf(currency: string): number {
  return DECIMALS[currency.toLowerCase()] ?? 2;
}

function knownLocale(locale: string): string {
  try {
    return Intl.getCanonicalLocales(locale)[0] ?? "en";
  } catch {
    return "en";
  }
}
