/** A quote in words: when it takes effect, what each feature becomes, and what the button that confirms it says. */
import { nameOf, type Formats } from "./format";
import type { Effect, PlanChange, Quote, Violation } from "./types";

/** The first line of the receipt: when, and what holds until then. */
export function timingSentence(quote: Quote, formats: Formats): string {
  const day = formats.day(quote.when);
  if (quote.needs_checkout) {
    const step = quote.due_today.amount_minor > 0 ? "paid" : "confirmed it";
    return `Starts when the customer has ${step} on Stripe’s payment page.`;
  }
  if (quote.is_scheduled) {
    const verb = quote.kind === "cancel" ? "Ends" : "Starts";
    return `${verb} on ${day}. Until then nothing changes, and it can be taken back at any time.`;
  }
  return quote.kind === "cancel" ? "Ends now. Usage so far is kept." : "Takes effect now.";
}

/** What the button says; it repeats the amount or the day. */
export function confirmWords(quote: Quote, formats: Formats): string {
  const { amount_minor: amount, currency } = quote.due_today;
  if (quote.needs_checkout) return "Make the payment link";
  if (quote.is_scheduled) {
    return `${quote.kind === "cancel" ? "Cancel" : "Switch"} on ${formats.day(quote.when)}`;
  }
  if (amount > 0) return `Bill ${formats.money(amount, currency)} now`;
  return quote.kind === "cancel" ? "Cancel now" : "Confirm, nothing to pay";
}

/** “Exports: 100 instead of 1,000”. */
export function effectSentence(effect: Effect, formats: Formats): string {
  const name = effect.name || nameOf({ key: effect.feature });
  const [before, after] = [sideWords(effect.before, formats), sideWords(effect.after, formats)];
  return `${name}: ${after} instead of ${before}`;
}

/** “Exports: 40 used, 10 allowed”. */
export function violationSentence(violation: Violation, formats: Formats): string {
  const name = violation.name || nameOf({ key: violation.feature });
  return `${name}: ${formats.number(violation.used)} used, ${formats.number(violation.limit)} allowed`;
}

/** What a confirmed change has come to. `made` says it for one that took effect. */
export function outcomeSentence(
  change: PlanChange | null,
  companyName: string,
  made: string,
  formats: Formats,
): string {
  switch (change?.state) {
    case "scheduled": {
      const day = formats.day(change.effective_at);
      const to = nameOf({ key: change.to.plan });
      return change.kind === "cancel" || to === ""
        ? `${companyName}’s subscription ends on ${day}`
        : `${companyName} switches to ${to} on ${day}`;
    }
    case "awaiting_payment":
      return `Waiting until ${companyName} has paid`;
    case "requires_action":
      return `Waiting until ${companyName}’s bank agrees`;
    case "requested":
    case "applying":
    case "cancelling":
      return "The change is being made; look again in a moment";
    default:
      return made;
  }
}

function sideWords(value: unknown, formats: Formats): string {
  if (value === null || value === undefined || value === false) return "not included";
  if (value === true) return "included";
  if (typeof value === "number") return formats.number(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}
