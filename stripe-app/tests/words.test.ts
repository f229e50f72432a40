/** The sentences people read: numbers, dates, reasons and previews, in the words of the product. */
import { describe, expect, it } from "vitest";

import {
  checkDraft,
  draftFor,
  draftOf,
  expiryChoices,
  previewSentence,
  type DraftTimes,
} from "../src/overrideDraft";
import {
  billingWords,
  featureName,
  formatsFor,
  nameOf,
  percentUsed,
  rateWords,
  statusWords,
  usageSentence,
} from "../src/format";
import { outcomeSentence } from "../src/quoteWords";
import { everyWords, rhythmKey, rhythmName, rhythmOf } from "../src/rhythm";
import { minorUnits } from "../src/typed";
import type { Reason } from "../src/types";
import { overrideEffect, whySentence } from "../src/why";
import { decision, NOW, override, planChange, sso } from "./acme";

const now = new Date(NOW);
const british = formatsFor("en-GB", now);

describe("numbers and days", () => {
  it("follow the language settings of whoever looks", () => {
    expect(british.day("2026-12-03T00:00:00Z")).toBe("3 December");
    expect(formatsFor("en-US", now).day("2026-12-03T00:00:00Z")).toBe("December 3");
    expect(formatsFor("de-DE", now).number(1234567)).toBe("1.234.567");
    expect(british.money(2900, "usd")).toBe("US$29.00");
    expect(british.money(500, "jpy")).toBe("JP¥500");
    // Stripe counts hundredths of the first ones and none of the last, whatever is usual where people pay in them.
    expect(british.money(190000, "rsd")).toBe("RSD\u00a01,900.00");
    expect(british.money(190050, "rsd")).toBe("RSD\u00a01,900.50");
    expect(british.money(500, "isk")).toBe("ISK\u00a05");
    expect(british.money(5120, "kwd")).toBe("KWD\u00a05.120");
    expect(british.money(1905, "mga")).toBe("MGA\u00a01,905");
  });

  it("name the year when it is another one, and count days in UTC", () => {
    expect(british.day("2027-01-31T23:59:59Z")).toBe("31 January 2027");
  });

  it("do without a locale that nobody knows, and leave a text that is no date", () => {
    expect(formatsFor("not a locale", now).number(1000)).toBe("1,000");
    expect(british.day("soon")).toBe("soon");
  });

  it("turn keys into names only where there is no name", () => {
    expect(nameOf({ key: "extra-exports" })).toBe("Extra exports");
    expect(nameOf({ key: "pro", name: "Professional" })).toBe("Professional");
    expect(featureName({ feature: "api_calls", name: null })).toBe("Api calls");
  });
});

describe("what usage costs", () => {
  const rate = { currency: "usd", interval: "month" };

  it.each([
    [{ ...rate, amount_decimal: "0.2" }, "US$0.002 for each"],
    [{ ...rate, amount_minor: 500, package_size: 1000 }, "US$5.00 for every 1,000"],
    [{ ...rate, tiers: [{ up_to: null, amount: "5" }] }, "by tiers, in USD"],
    [{ ...rate, currency: "jpy", amount_minor: 3, tiers: [] }, "JP¥3 for each"],
  ])("is said for one or a package, to the last digit", (given, words) => {
    expect(rateWords(given, british)).toBe(words);
  });
});

describe("how often it is paid", () => {
  it.each([
    ["month", "Monthly", "every month"],
    ["year", "Yearly", "every year"],
    ["week", "Every week", "every week"],
    ["3-month", "Every 3 months", "every 3 months"],
    ["2-year", "Every 2 years", "every 2 years"],
  ])("has a key and words: %s", (key, name, words) => {
    const rhythm = rhythmOf(key);
    expect(rhythmKey(rhythm)).toBe(key);
    expect(rhythmName(rhythm)).toBe(name);
    expect(everyWords(rhythm)).toBe(words);
  });

  it("is said of a subscription", () => {
    const paid = { status: "active", interval: "month", currency: "usd", period: null, cancel_at: null };
    expect(billingWords(paid)).toBe("Monthly, in USD");
    expect(billingWords({ ...paid, interval_count: 3 })).toBe("Every 3 months, in USD");
    expect(billingWords({ ...paid, interval: null })).toBe("in USD");
  });
});

describe("what became of a change", () => {
  it.each([
    ["applied", "Done"],
    ["applying", "The change is being made; look again in a moment"],
    ["requires_action", "Waiting until Acme’s bank agrees"],
    ["awaiting_payment", "Waiting until Acme has paid"],
    ["scheduled", "Acme switches to Pro on 20 November"],
  ])("is a sentence when it is %s", (state, words) => {
    expect(outcomeSentence(planChange({ state }), "Acme", "Done", british)).toBe(words);
  });

  it("is what was wanted when an earlier try arrived and only its answer was lost", () => {
    expect(outcomeSentence(null, "Acme", "Done", british)).toBe("Done");
  });
});

describe("usage", () => {
  it.each([
    [decision({ used: 7202, limit: 10000 }), "7,202 of 10,000 used, resets on 3 December"],
    [decision({ used: 0, period: null }), "0 of 100 used"],
    [decision({ used: 12, limit: null, unlimited: true, period: null }), "12 used, no limit"],
    [decision({ reserved: 5 }), "40 of 100 used, 5 reserved, resets on 3 December"],
    [
      decision({ used: 120, soft_limit: 100, limit: null, over_soft_limit: true, period: null }),
      "120 used, over the soft limit of 100",
    ],
    [decision(sso), null],
    [decision({ type: "config", value: 512, limit: null }), null],
  ])("is one sentence", (given, sentence) => {
    expect(usageSentence(given, british)).toBe(sentence);
  });

  it("counts per cent downwards, so that full means full", () => {
    expect(percentUsed(decision({ used: 999, limit: 1000 }))).toBe(99);
    expect(percentUsed(decision({ used: 150, limit: 100 }))).toBe(150);
    expect(percentUsed(decision({ used: 0, limit: 0 }))).toBe(0);
    expect(percentUsed(decision({ used: -3, limit: 10 }))).toBe(0);
    expect(percentUsed(decision({ unlimited: true }))).toBeNull();
  });
});

describe("why", () => {
  const add = override();
  it.each([
    ["the plan", decision(), [], "Plan Starter, version 1"],
    [
      "the plan and an addition",
      decision(),
      [add],
      "Plan Starter, version 1, plus override: +500 until 27 November",
    ],
    [
      "an add-on",
      decision({ source: { kind: "add_on", key: "extra-exports", version: 2 } }),
      [],
      "Add-on Extra exports, version 2",
    ],
    [
      "an override",
      decision({ source: { kind: "override", key: "ovr_1" } }),
      [add],
      "Override: +500 until 27 November",
    ],
    [
      "an unlimited override",
      decision({ source: { kind: "override", key: "ovr_1" } }),
      [override({ mode: "set", value: "unlimited", expires_at: null })],
      "Override: unlimited, no expiry",
    ],
    [
      "a denial",
      decision({ allowed: false, reason: "override_denied", source: { kind: "override", key: "ovr_1" } }),
      [override({ mode: "deny", value: false })],
      "Override: denied until 27 November",
    ],
    [
      "a used up plan",
      decision({ allowed: false, reason: "limit_reached" }),
      [],
      "Limit reached (plan Starter, version 1)",
    ],
    [
      "a rule",
      decision({ reason: "rule_matched", source: { kind: "rule", key: "beta" } }),
      [],
      "Targeting rule “beta”",
    ],
    [
      "a forced switch",
      decision({ allowed: false, reason: "flag_off", source: { kind: "flag" } }),
      [],
      "Switched off for everyone",
    ],
    ["the default", decision({ reason: "default", source: null }), [], "The feature’s default"],
  ] as const)("names %s", (_, given, overrides, sentence) => {
    expect(whySentence(given, [...overrides], british)).toBe(sentence);
  });

  it("leaves out overrides of other features, of single users, and those not in force", () => {
    const others = [
      override({ feature: "sso" }),
      override({ user: "user_1" }),
      override({ state: "expired" }),
      override({ state: "scheduled" }),
    ];
    expect(whySentence(decision(), others, british)).toBe("Plan Starter, version 1");
  });

  it("has words for every reason there is", () => {
    const reasons: Reason[] = [
      "granted",
      "within_limit",
      "unlimited",
      "limit_reached",
      "override",
      "override_denied",
      "flag_on",
      "flag_off",
      "rule_matched",
      "no_entitlement",
      "default",
      "unknown_feature",
      "archived_feature",
      "unknown_company",
      "unknown_user",
      "trait_missing",
      "credits_exhausted",
      "subscription_inactive",
    ];
    for (const reason of reasons) {
      expect(whySentence(decision({ reason, source: null }), [], british)).toMatch(/^[A-Z].{5,}/);
    }
  });

  it("names what an override does", () => {
    expect(overrideEffect({ mode: "add", value: 500 }, british)).toBe("+500");
    expect(overrideEffect({ mode: "set", value: 2000 }, british)).toBe("Set to 2,000");
    expect(overrideEffect({ mode: "set", value: true }, british)).toBe("Switched on");
    expect(overrideEffect({ mode: "set", value: false }, british)).toBe("Denied");
    expect(overrideEffect({ mode: "set", value: "eu-west" }, british)).toBe("Set to eu-west");
  });

  it("has words for every subscription status, and for those still to come", () => {
    expect(statusWords("past_due")).toEqual({ text: "Payment overdue", tone: "warning" });
    expect(statusWords("some_future_status")).toEqual({ text: "Some future status", tone: "neutral" });
  });
});

describe("a draft", () => {
  const times: DraftTimes = { now, periodEndsAt: "2026-12-03T00:00:00Z", keptExpiresAt: null };
  const filled = { ...draftFor(decision()), amount: "500", note: "Because" };

  it("says the day each choice means", () => {
    expect(expiryChoices(times, british).map(({ label }) => label)).toEqual([
      "One day, until 21 November",
      "One week, until 27 November",
      "30 days, until 20 December",
      "The billing period, until 3 December",
      "Until a day I choose",
      "No expiry",
    ]);
  });

  it("does not offer a billing period that has ended", () => {
    const past = { ...times, periodEndsAt: "2026-11-01T00:00:00Z" };
    expect(expiryChoices(past, british).map(({ value }) => value)).not.toContain("period");
  });

  it("ends when its choice says", () => {
    const endOf = (expiry: typeof filled.expiry) =>
      checkDraft({ ...filled, expiry }, decision(), times).grant?.expires_at;
    expect(endOf("day")).toBe("2026-11-21T09:00:00Z");
    expect(endOf("week")).toBe("2026-11-27T09:00:00Z");
    expect(endOf("month")).toBe("2026-12-20T09:00:00Z");
    expect(endOf("period")).toBe("2026-12-03T00:00:00Z");
    expect(endOf("none")).toBeUndefined();
  });

  it("needs a feature, a day where one is to be chosen, and a note of a sensible length", () => {
    expect(checkDraft(filled, undefined, times).errors).toHaveProperty("feature");
    expect(checkDraft({ ...filled, expiry: "date" }, decision(), times).errors).toEqual({
      date: "Choose a day.",
    });
    expect(
      checkDraft({ ...filled, expiry: "date", date: "2026-13-45" }, decision(), times).errors,
    ).toHaveProperty("date");
    expect(checkDraft({ ...filled, note: " \n" }, decision(), times).errors).toHaveProperty("note");
    expect(checkDraft({ ...filled, note: "x".repeat(501) }, decision(), times).errors).toHaveProperty("note");
  });

  it("takes a config value as text, and as a number where it is one", () => {
    const draft = { ...filled, effect: "set" as const, amount: " 1024 " };
    const text = decision({ type: "config", value: "eu-west", limit: null });
    expect(checkDraft(draft, text, times).grant?.value).toBe("1024");
    expect(checkDraft(draft, { ...text, value: 512 }, times).grant?.value).toBe(1024);
    expect(checkDraft({ ...draft, amount: "lots" }, { ...text, value: 512 }, times).errors).toHaveProperty(
      "amount",
    );
  });

  it("reads an existing override back as it was granted", () => {
    const kept = { ...times, keptExpiresAt: "2026-11-27T08:00:00Z" };
    const { grant } = checkDraft(draftOf(override()), decision(), kept);
    expect(grant).toEqual({
      feature: "exports",
      override_mode: "add",
      value: 500,
      note: "Bridging until the contract is signed",
      expires_at: "2026-11-27T08:00:00Z",
    });
  });

  it.each([
    [{ effect: "add" as const, amount: "500" }, decision(), "Exports: 100 + 500 = 600."],
    [
      { effect: "add" as const, amount: "500" },
      decision({ unlimited: true, limit: null }),
      "Exports is unlimited already, so this changes nothing.",
    ],
    [{ effect: "set" as const, amount: "2000" }, decision(), "Exports: 2,000 instead of 100."],
    [{ effect: "unlimited" as const }, decision(), "Exports will have no limit."],
    [
      { effect: "deny" as const },
      decision(),
      "Exports will be refused whatever the plan grants. Usage so far is kept.",
    ],
    [{ effect: "on" as const }, decision(sso), "Single sign-on will be on."],
    [{ effect: "add" as const, amount: "" }, decision(), null],
  ])("previews %j", (changes, given, sentence) => {
    expect(previewSentence({ ...filled, ...changes }, given, british)).toBe(sentence);
  });
});

describe("an amount as typed", () => {
  it.each([
    ["1200", "usd", 120_000],
    [" 0.29 ", "usd", 29],
    ["15,5", "eur", 1550],
    ["1200", "jpy", 1200],
    ["1.5", "kwd", 1500],
    ["99999999999999", "usd", null],
    ["1.5", "jpy", null],
    ["1,200.00", "usd", null],
    ["-1", "usd", null],
    ["", "usd", null],
  ])("%s in %s is %s", (typed, currency, amount) => {
    expect(minorUnits(typed, currency)).toBe(amount);
  });
});
