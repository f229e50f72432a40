/** An override while it is being written: which choices a feature offers, what is still missing, and what it will do. */
import { featureName, isMetered, type Formats } from "./format";
import { endOfDay, instant, NOTE_LENGTH, NOTE_MISSING, wholeNumber } from "./typed";
import type { Decision, Override, OverrideMode, PlainValue } from "./types";

/** What the override does, in the words of the form. Each maps to a mode and, where it needs one, a value. */
export type Effect = "on" | "add" | "set" | "unlimited" | "deny";
export type Expiry = "day" | "week" | "month" | "period" | "date" | "kept" | "none";

export interface Draft {
  feature: string;
  effect: Effect;
  amount: string;
  expiry: Expiry;
  /** The day picked when `expiry` is `date`, as YYYY-MM-DD. */
  date: string;
  note: string;
}

export type DraftErrors = Partial<
  Record<"feature" | "effect" | "amount" | "expiry" | "date" | "note", string>
>;

export interface Grant {
  feature: string;
  override_mode: OverrideMode;
  value: PlainValue;
  expires_at?: string;
  note: string;
}

/** The instants that expiry choices are counted from. */
export interface DraftTimes {
  now: Date;
  /** When the running billing period ends, where there is one. */
  periodEndsAt: string | null;
  /** The expiry of the override that is being edited. */
  keptExpiresAt: string | null;
}

const DAY_MS = 86_400_000;
const EXPIRY_DAYS = { day: 1, week: 7, month: 30 } as const;

/** The effects that make sense for a feature, the usual one first. */
export function effectsFor(decision: Decision): { value: Effect; label: string }[] {
  if (decision.type === "boolean") {
    return [
      { value: "on", label: "Switch it on" },
      { value: "deny", label: "Deny it" },
    ];
  }
  if (decision.type === "config") {
    return [
      { value: "set", label: "Set a value" },
      { value: "deny", label: "Deny it" },
    ];
  }
  return [
    { value: "add", label: "Add to what is granted" },
    { value: "set", label: "Set the limit" },
    { value: "unlimited", label: "Make it unlimited" },
    { value: "deny", label: "Deny it" },
  ];
}

/** Structured values do not fit a text field, and a request may only carry plain ones. */
export function isWritableHere(decision: Decision): boolean {
  return decision.type !== "config" || decision.value === null || typeof decision.value !== "object";
}

/** A new draft for a feature: its usual effect, for a week. */
export function draftFor(decision: Decision | undefined): Draft {
  const effect = decision ? (effectsFor(decision)[0]?.value ?? "set") : "set";
  return { feature: decision?.feature ?? "", effect, amount: "", expiry: "week", date: "", note: "" };
}

/** The draft that says what an override says now. */
export function draftOf(override: Override): Draft {
  const { value } = override;
  const effect = effectOf(override);
  const amount =
    typeof value === "number" || (typeof value === "string" && effect === "set") ? `${value}` : "";
  return {
    feature: override.feature,
    effect,
    amount,
    expiry: override.expires_at ? "kept" : "none",
    date: "",
    note: override.note,
  };
}

/** The request a draft amounts to, or what is wrong with each field, in words for the person who fills it in. */
export function checkDraft(
  draft: Draft,
  decision: Decision | undefined,
  times: DraftTimes,
): { grant: Grant; errors: null } | { grant: null; errors: DraftErrors } {
  const errors: DraftErrors = {};
  if (!decision) errors.feature = "Choose a feature.";
  const value = decision ? valueOf(draft, decision) : null;
  if (value && "error" in value) errors.amount = value.error;

  const expiresAt = expiryOf(draft, times);
  if (draft.expiry === "date" && expiresAt === undefined) errors.date = "Choose a day.";
  else if (expiresAt !== undefined && new Date(expiresAt).getTime() <= times.now.getTime()) {
    errors[draft.expiry === "date" ? "date" : "expiry"] = "Choose a day that is still to come.";
  }

  const note = draft.note.trim();
  if (note === "") errors.note = NOTE_MISSING;
  else if (note.length > NOTE_LENGTH) errors.note = `Keep the note under ${NOTE_LENGTH} characters.`;

  if (Object.keys(errors).length > 0 || !decision || !value || "error" in value)
    return { grant: null, errors };
  const grant: Grant = {
    feature: draft.feature,
    override_mode: modeOf(draft.effect),
    value: value.value,
    note,
  };
  if (expiresAt !== undefined) grant.expires_at = expiresAt;
  return { grant, errors: null };
}

/** When a draft's override ends: RFC 3339 in UTC; undefined when it does not end, or no day is chosen yet. */
export function expiryOf(draft: Pick<Draft, "expiry" | "date">, times: DraftTimes): string | undefined {
  switch (draft.expiry) {
    case "none":
      return undefined;
    case "kept":
      return times.keptExpiresAt ?? undefined;
    case "period":
      return times.periodEndsAt ?? undefined;
    case "date":
      return endOfDay(draft.date);
    case "day":
    case "week":
    case "month":
      return instant(new Date(times.now.getTime() + EXPIRY_DAYS[draft.expiry] * DAY_MS));
  }
}

/** The expiry choices with the day each one means. */
export function expiryChoices(times: DraftTimes, formats: Formats): { value: Expiry; label: string }[] {
  const until = (expiry: Expiry) => formats.day(expiryOf({ expiry, date: "" }, times) ?? "");
  const choices: { value: Expiry; label: string }[] = [];
  if (times.keptExpiresAt) {
    choices.push({ value: "kept", label: `As it is, until ${formats.day(times.keptExpiresAt)}` });
  }
  choices.push(
    { value: "day", label: `One day, until ${until("day")}` },
    { value: "week", label: `One week, until ${until("week")}` },
    { value: "month", label: `30 days, until ${until("month")}` },
  );
  if (times.periodEndsAt && new Date(times.periodEndsAt) > times.now) {
    choices.push({
      value: "period",
      label: `The billing period, until ${formats.day(times.periodEndsAt)}`,
    });
  }
  choices.push({ value: "date", label: "Until a day I choose" });
  // An expiry cannot be taken off again by editing: the request has no way to say “never”.
  if (!times.keptExpiresAt) choices.push({ value: "none", label: "No expiry" });
  return choices;
}

/** What granting this draft will change, before it is granted; null while that cannot be said yet. */
export function previewSentence(draft: Draft, decision: Decision, formats: Formats): string | null {
  const name = featureName(decision);
  switch (draft.effect) {
    case "deny":
      return `${name} will be refused whatever the plan grants. Usage so far is kept.`;
    case "unlimited":
      return decision.unlimited ? `${name} is unlimited already.` : `${name} will have no limit.`;
    case "on":
      return decision.allowed ? `${name} is on already.` : `${name} will be on.`;
    case "add": {
      const amount = wholeNumber(draft.amount);
      if (amount === null || amount < 1) return null;
      if (decision.unlimited) return `${name} is unlimited already, so this changes nothing.`;
      const granted = decision.limit ?? 0;
      return `${name}: ${formats.number(granted)} + ${formats.number(amount)} = ${formats.number(granted + amount)}.`;
    }
    case "set": {
      if (!isMetered(decision))
        return draft.amount.trim() === "" ? null : `${name} will be ${draft.amount.trim()}.`;
      const amount = wholeNumber(draft.amount);
      if (amount === null || amount < 0) return null;
      if (decision.unlimited || (decision.limit !== null && decision.limit >= amount)) {
        const granted =
          decision.unlimited || decision.limit === null ? "unlimited" : formats.number(decision.limit);
        return `${name} is ${granted} already, and the more generous of the two applies, so this changes nothing.`;
      }
      return `${name}: ${formats.number(amount)} instead of ${formats.number(decision.limit ?? 0)}.`;
    }
  }
}

function effectOf(override: Pick<Override, "mode" | "value">): Effect {
  if (override.mode === "deny" || override.value === false) return "deny";
  if (override.mode === "add") return "add";
  if (override.value === "unlimited") return "unlimited";
  return override.value === true ? "on" : "set";
}

function modeOf(effect: Effect): OverrideMode {
  return effect === "add" || effect === "deny" ? effect : "set";
}

function valueOf(draft: Draft, decision: Decision): { value: PlainValue } | { error: string } {
  switch (draft.effect) {
    case "on":
      return { value: true };
    case "deny":
      return { value: false };
    case "unlimited":
      return { value: "unlimited" };
    case "add": {
      const amount = wholeNumber(draft.amount);
      return amount !== null && amount > 0
        ? { value: amount }
        : { error: "Write a whole number, such as 500." };
    }
    case "set": {
      if (isMetered(decision)) {
        const amount = wholeNumber(draft.amount);
        return amount !== null && amount >= 0
          ? { value: amount }
          : { error: "Write a whole number, such as 500. 0 means none." };
      }
      const text = draft.amount.trim();
      if (text === "") return { error: "Write a value." };
      if (typeof decision.value === "number") {
        const amount = wholeNumber(text);
        return amount !== null ? { value: amount } : { error: "Write a whole number, such as 500." };
      }
      return { value: text };
    }
  }
}
