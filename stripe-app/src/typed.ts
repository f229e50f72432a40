/** What people type and pick, as the values that travel: numbers, days, and how long a note may be. */
import { decimalsOf } from "./format";

/** Characters of a note; the server allows no more. */
export const NOTE_LENGTH = 500;

/** What a form says of a note that is empty. */
export const NOTE_MISSING = "Write why, for whoever reads this later.";

/** A whole number as typed, or null. Anything larger than JSON carries exactly is not one. */
export function wholeNumber(text: string): number | null {
  const trimmed = text.trim();
  if (!/^-?\d{1,16}$/.test(trimmed)) return null;
  const value = Number(trimmed);
  return Number.isSafeInteger(value) ? value : null;
}

/** The last second of a UTC day, so that “until 27 November” includes that day. */
export function endOfDay(date: string): string | undefined {
  return onDay(date, "23:59:59");
}

/** The first second of a UTC day. */
export function startOfDay(date: string): string | undefined {
  return onDay(date, "00:00:00");
}

/** RFC 3339 in UTC, in whole seconds. */
export function instant(date: Date): string {
  return date.toISOString().replace(/\.\d{3}Z$/, "Z");
}

/** An amount as typed, such as “1200.50”, in minor units of its currency; null where it is none. Never a float. */
export function minorUnits(text: string, currency: string): number | null {
  const match = /^(\d{1,12})(?:[.,](\d{1,3}))?$/.exec(text.trim());
  if (!match) return null;
  const digits = decimalsOf(currency);
  const fraction = match[2] ?? "";
  return fraction.length > digits ? null : Number(`${match[1] ?? ""}${fraction.padEnd(digits, "0")}`);
}

function onDay(date: string, time: string): string | undefined {
  const day = /^(\d{4})[-/](\d{2})[-/](\d{2})/.exec(date);
  if (!day) return undefined;
  const found = new Date(`${day[1]}-${day[2]}-${day[3]}T${time}Z`);
  return Number.isNaN(found.getTime()) ? undefined : instant(found);
}
