/** The sentence under each entitlement that says where it comes from. */
import { nameOf, type Formats } from "./format";
import type { Decision, Override } from "./types";

/** Why a decision is what it is: its source, any override that adds to it, and what stands in the way. */
export function whySentence(decision: Decision, overrides: Override[], formats: Formats): string {
  const active = overrides.filter(
    (override) =>
      override.state === "active" && override.user === null && override.feature === decision.feature,
  );
  const from = sourceWords(decision, active, formats);
  const obstacle = obstacleWords(decision);
  if (obstacle && from) return `${obstacle} (${lowerFirst(from)})`;
  return obstacle ?? from ?? "The feature’s default";
}

/** “+500”, “Set to 2,000”, “Unlimited”, “Switched on” or “Denied”. */
export function overrideEffect(override: Pick<Override, "mode" | "value">, formats: Formats): string {
  const { mode, value } = override;
  if (mode === "deny" || value === false) return "Denied";
  if (mode === "add") return `${Number(value) < 0 ? "−" : "+"}${formats.number(Math.abs(Number(value)))}`;
  if (value === "unlimited") return "Unlimited";
  if (value === true) return "Switched on";
  if (typeof value === "number") return `Set to ${formats.number(value)}`;
  return `Set to ${typeof value === "string" ? value : JSON.stringify(value)}`;
}

/** “until 27 November”, “from 1 December until 8 December”, “no expiry”. */
export function overrideSpan(
  override: Pick<Override, "state" | "starts_at" | "expires_at">,
  formats: Formats,
): string {
  // A start is worth a word only while it is still to come.
  const isToCome = override.starts_at !== null && override.state !== "active";
  const from = isToCome && override.starts_at ? `from ${formats.day(override.starts_at)}` : null;
  const until = override.expires_at ? `until ${formats.day(override.expires_at)}` : "no expiry";
  return from ? `${from} ${until === "no expiry" ? "on" : until}` : until;
}

function sourceWords(decision: Decision, active: Override[], formats: Formats): string | null {
  const { source } = decision;
  const denial = active.find((override) => override.mode === "deny" || override.value === false);
  if (decision.reason === "override_denied") {
    return denial ? overrideWords(denial, formats) : "Override: denied";
  }
  if (!source) return null;
  const additions = active.filter((override) => override.mode === "add" && override.id !== idOf(source));
  const extra = additions
    .map((override) => `, plus ${lowerFirst(overrideWords(override, formats))}`)
    .join("");
  const version = typeof source.version === "number" ? `, version ${formats.number(source.version)}` : "";
  switch (source.kind) {
    case "plan":
      return `Plan ${nameOf(source)}${version}${extra}`;
    case "add_on":
      return `Add-on ${nameOf(source)}${version}${extra}`;
    case "override": {
      const override = active.find((candidate) => candidate.id === idOf(source));
      return override ? overrideWords(override, formats) : "Override";
    }
    case "rule":
      return `Targeting rule${source.key ? ` “${source.name ?? source.key}”` : ""}`;
    case "flag":
      return decision.reason === "flag_off" ? "Switched off for everyone" : "Switched on for everyone";
    case "default":
      return "The feature’s default";
    default:
      return `${nameOf({ key: source.kind })} ${nameOf(source)}`.trim();
  }
}

/** What keeps a “no” from being a “yes”, where the source alone does not say it. */
function obstacleWords(decision: Decision): string | null {
  switch (decision.reason) {
    case "limit_reached":
      return "Limit reached";
    case "credits_exhausted":
      return "Credits used up";
    case "no_entitlement":
      return "Not part of the plan";
    case "subscription_inactive":
      return "The subscription gives no access right now";
    case "trait_missing":
      return "The value this limit is read from is not set";
    case "archived_feature":
      return "The feature is archived";
    case "unknown_feature":
      return "The feature is not in the catalogue";
    case "unknown_company":
      return "The company is not known";
    case "unknown_user":
      return "The user is not known";
    case "flag_on":
      return decision.source ? null : "Switched on for everyone";
    case "flag_off":
      return decision.source ? null : "Switched off for everyone";
    case "granted":
    case "within_limit":
    case "unlimited":
    case "override":
    case "override_denied":
    case "rule_matched":
    case "default":
      return null;
  }
}

function overrideWords(override: Override, formats: Formats): string {
  const effect = overrideEffect(override, formats);
  return `Override: ${lowerFirst(effect)}${override.expires_at ? ` ${overrideSpan(override, formats)}` : ", no expiry"}`;
}

function idOf(source: { key?: string | null; id?: string | null }): string | null {
  return source.id ?? source.key ?? null;
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
