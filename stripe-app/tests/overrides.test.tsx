/** Granting, editing and revoking exceptions, and cancelling a scheduled change: what is sent, once, and what is said. */
import { describe, expect, it } from "vitest";

import { decision, override, page, planChange, quote, sso, toStarter } from "./acme";
import { dashboard, isSignatureValid, json, problem } from "./dashboard";
import { openPanel, sentTo } from "./panel";

describe("granting", () => {
  it("gives 500 exports for a week, with a note, and shows the new page", async () => {
    const panel = await openPanel();
    await panel.press("Grant override");
    await panel.write("How many more", "500");
    expect(panel.text()).toContain("Exports: 100 + 500 = 600.");
    await panel.write("Why", "  Zoë asked: “brücke” bis zum Vertrag 🙏 ");

    panel.served.page = page({ entitlements: [decision({ limit: 600, remaining: 560 })] });
    await panel.press("Grant override", 1);

    const [request] = sentTo("override.grant");
    expect(request && isSignatureValid(request)).toBe(true);
    const { operation_id: operationId, expires_at: expiresAt, ...rest } = request?.payload ?? {};
    expect(rest).toEqual({
      customer: "cus_acme",
      feature: "exports",
      override_mode: "add",
      value: 500,
      note: "Zoë asked: “brücke” bis zum Vertrag 🙏",
      mode: "test",
      user_id: "usr_1234",
      account_id: "acct_1234",
    });
    expect(operationId).toMatch(/^op_[0-9a-f]{32}$/);
    // A week counts from the environment's own time, which is the fixture's and not the machine's.
    expect(expiresAt).toMatch(/^2026-11-27T09:0\d:\d\dZ$/);

    expect(panel.ofType("FocusView")).toEqual([]);
    expect(dashboard.toasts).toEqual(["Exports: override granted to Acme"]);
    expect(panel.wrapper).toContainText("40 of 600 used");
  });

  it("asks for what is missing before anything is sent", async () => {
    const panel = await openPanel();
    await panel.press("Grant override");
    await panel.press("Grant override", 1);

    expect(panel.named("TextField", "How many more").props["error"]).toBe(
      "Write a whole number, such as 500.",
    );
    expect(panel.named("TextArea", "Why").props["error"]).toBe("Write why, for whoever reads this later.");
    expect(sentTo("override.grant")).toEqual([]);
  });

  it.each(["-5", "0", "1.5", "1e3", "abc", "9007199254740993"])(
    "refuses “%s” as an amount to add",
    async (amount) => {
      const panel = await openPanel();
      await panel.press("Grant override");
      await panel.write("How many more", amount);
      await panel.write("Why", "Because");
      await panel.press("Grant override", 1);

      expect(panel.named("TextField", "How many more").props["invalid"]).toBe(true);
      expect(sentTo("override.grant")).toEqual([]);
    },
  );

  it.each([
    ["unlimited", "set", "unlimited"],
    ["deny", "deny", false],
  ])("sends the choice “%s” as mode %s", async (effect, mode, value) => {
    const panel = await openPanel();
    await panel.press("Grant override");
    await panel.choose("What to do", effect);
    await panel.choose("How long", "none");
    await panel.write("Why", "Agreed with sales");
    await panel.press("Grant override", 1);

    const payload = sentTo("override.grant")[0]?.payload;
    expect(payload).toMatchObject({ override_mode: mode, value });
    expect(payload).not.toHaveProperty("expires_at");
  });

  it("offers a switch for a switch, and counts an own day to its end", async () => {
    const panel = await openPanel();
    await panel.press("Grant override");
    await panel.choose("Feature", "sso");
    expect(panel.named("Select", "What to do").text).not.toContain("unlimited");
    await panel.choose("How long", "date");
    await panel.fire(panel.named("DateField", "Last day"), "onChange", "2026-12-24");
    await panel.write("Why", "Pilot");
    await panel.press("Grant override", 1);

    expect(sentTo("override.grant")[0]?.payload).toMatchObject({
      feature: "sso",
      override_mode: "set",
      value: true,
      expires_at: "2026-12-24T23:59:59Z",
    });
  });

  it("refuses a day that has passed", async () => {
    const panel = await openPanel();
    await panel.press("Grant override");
    await panel.write("How many more", "5");
    await panel.choose("How long", "date");
    await panel.fire(panel.named("DateField", "Last day"), "onChange", "2026-11-19");
    await panel.write("Why", "Pilot");
    await panel.press("Grant override", 1);

    expect(panel.named("DateField", "Last day").props["error"]).toBe("Choose a day that is still to come.");
    expect(sentTo("override.grant")).toEqual([]);
  });

  it("warns that a limit below the plan's changes nothing", async () => {
    const panel = await openPanel();
    await panel.press("Grant override");
    await panel.choose("What to do", "set");
    await panel.write("New limit", "50");

    expect(panel.text()).toContain("Exports is 100 already, and the more generous of the two applies");
  });

  it("puts the server's complaint under the field it is about and keeps what was written", async () => {
    const panel = await openPanel({
      others: () =>
        problem(422, "invalid", "A field is not valid.", [
          { pointer: "/value", code: "invalid", detail: "At most 100,000." },
        ]),
    });
    await panel.press("Grant override");
    await panel.write("How many more", "900000");
    await panel.write("Why", "A lot");
    await panel.press("Grant override", 1);

    expect(panel.named("TextField", "How many more").props).toMatchObject({
      error: "At most 100,000.",
      value: "900000",
    });
    expect(panel.named("TextArea", "Why").props["value"]).toBe("A lot");
  });
});

describe("one intent, one operation", () => {
  async function filledIn(others: Parameters<typeof openPanel>[0] extends infer O ? O : never) {
    const panel = await openPanel(others);
    await panel.press("Grant override");
    await panel.write("How many more", "500");
    await panel.write("Why", "Once");
    return panel;
  }
  const operations = () => sentTo("override.grant").map(({ payload }) => payload["operation_id"]);

  it("sends a double press once", async () => {
    let answer: (response: Response) => void = () => undefined;
    const panel = await filledIn({
      others: () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    });
    await panel.press("Grant override", 1);
    expect(panel.named("Button", "Grant override", 1).props["pending"]).toBe(true);
    await panel.press("Grant override", 1);
    answer(json(200, {}));
    await panel.settle();

    expect(operations()).toHaveLength(1);
  });

  it("keeps the operation when a lost answer is retried, byte for byte", async () => {
    let tries = 0;
    const panel = await filledIn({
      others: () => {
        tries += 1;
        return tries < 3 ? Promise.reject(new TypeError("Failed to fetch")) : json(200, {});
      },
    });
    await panel.press("Grant override", 1);
    await panel.press("Grant override", 1);
    await panel.press("Grant override", 1);

    expect(new Set(sentTo("override.grant").map(({ body }) => body)).size).toBe(1);
    expect(operations()).toHaveLength(3);
    expect(dashboard.toasts).toHaveLength(1);
  });

  it("takes “already carried out” for the success it is", async () => {
    let tries = 0;
    const panel = await filledIn({
      others: () => {
        tries += 1;
        return tries === 1
          ? Promise.reject(new TypeError("Failed to fetch"))
          : problem(409, "operation_repeated", "The operation was already carried out.");
      },
    });
    await panel.press("Grant override", 1);
    await panel.press("Grant override", 1);

    expect(panel.ofType("FocusView")).toEqual([]);
    expect(dashboard.toasts).toEqual(["Exports: override granted to Acme"]);
  });

  it("is another operation when the contents change or Plangate refused the first", async () => {
    const panel = await filledIn({ others: () => Promise.reject(new TypeError("Failed to fetch")) });
    await panel.press("Grant override", 1);
    await panel.write("How many more", "600");
    await panel.press("Grant override", 1);
    expect(new Set(operations()).size).toBe(2);

    dashboard.respond = () => problem(422, "invalid", "Not like that.");
    await panel.press("Grant override", 1);
    await panel.press("Grant override", 1);
    expect(new Set(operations()).size).toBe(3);
  });
});

describe("overrides that exist", () => {
  it("tells what each does, for how long, why and by whom; past ones are folded away", async () => {
    const panel = await openPanel({
      page: {
        overrides: [
          override(),
          override({
            id: "ovr_2",
            mode: "deny",
            value: false,
            feature: "sso",
            expires_at: null,
            note: "Fraud",
          }),
          override({ id: "ovr_3", state: "expired", value: 50, expires_at: "2026-11-10T00:00:00Z" }),
          override({ id: "ovr_4", state: "revoked", value: 70, revoked_at: "2026-11-12T00:00:00Z" }),
        ],
      },
    });

    for (const words of [
      "Until 27 November",
      "“Bridging until the contract is signed”",
      "Granted by Stripe user usr_1234",
      "Denied",
      "No expiry",
      "No longer in force (2)",
      "Expired on 10 November",
      "Revoked on 12 November",
    ]) {
      expect(panel.text()).toContain(words);
    }
    // Only the two in force can be touched.
    expect(panel.ofType("Button").filter(({ text }) => text === "Revoke")).toHaveLength(2);
  });

  it("revokes with a reason, and says what is kept", async () => {
    const panel = await openPanel({ page: { overrides: [override()] } });
    await panel.press("Revoke");
    expect(panel.text()).toContain("Usage so far and this override’s history are kept.");
    await panel.press("Revoke", 1);
    expect(sentTo("override.revoke")).toEqual([]);

    await panel.write("Why", "Contract signed");
    panel.served.page = page();
    await panel.press("Revoke", 1);

    expect(sentTo("override.revoke")[0]?.payload).toMatchObject({
      customer: "cus_acme",
      override: "ovr_1",
      note: "Contract signed",
    });
    expect(dashboard.toasts).toEqual(["Exports: override revoked"]);
    expect(panel.wrapper).toContainText("No exceptions");
  });

  it("edits only what was changed, against the version that was seen", async () => {
    const panel = await openPanel({ page: { overrides: [override()] } });
    await panel.press("Edit");
    await panel.write("How many more", "800");
    await panel.press("Save changes");

    const payload = sentTo("override.edit")[0]?.payload ?? {};
    expect(payload).toMatchObject({ override: "ovr_1", etag: "etag-1", value: 800 });
    expect(payload).not.toHaveProperty("note");
    expect(payload).not.toHaveProperty("expires_at");
  });

  it("sends nothing when an edit changes nothing", async () => {
    const panel = await openPanel({ page: { overrides: [override()] } });
    await panel.press("Edit");
    await panel.press("Save changes");

    expect(sentTo("override.edit")).toEqual([]);
    expect(panel.ofType("FocusView")).toEqual([]);
  });

  it("closes without a trace on cancel", async () => {
    const panel = await openPanel({
      page: { overrides: [override()], entitlements: [decision(), decision(sso)] },
    });
    for (const [open, close] of [
      ["Grant override", "Cancel"],
      ["Edit", "Cancel"],
      ["Revoke", "Keep it"],
    ] as const) {
      await panel.press(open);
      expect(panel.ofType("FocusView")).toHaveLength(1);
      await panel.press(close);
      expect(panel.ofType("FocusView")).toEqual([]);
    }
    expect(dashboard.sent.map(({ action }) => action)).toEqual(["customer.get"]);
  });
});

describe("a scheduled change", () => {
  it("is announced with its day and cancelled after a second look", async () => {
    const panel = await openPanel({ page: { scheduled_change: toStarter } });
    const [banner] = panel.ofType("Banner");
    expect(banner?.props["title"]).toBe("Moves to Starter on 3 December");
    expect(banner?.props["description"]).toBe("Until then Acme keeps Pro as it is.");

    await panel.press("Keep Pro");
    expect(sentTo("plan.cancel_scheduled")).toEqual([]);
    expect(panel.text()).toContain("Acme stays on Pro after 3 December");

    panel.served.page = page();
    await panel.press("Keep Pro", 1);
    expect(sentTo("plan.cancel_scheduled")[0]?.payload).toMatchObject({
      customer: "cus_acme",
      change: "chg_1",
    });
    expect(sentTo("plan.cancel_scheduled")[0]?.payload["operation_id"]).toMatch(/^op_/);
    expect(panel.ofType("Banner")).toEqual([]);
    expect(dashboard.toasts).toEqual(["Acme keeps Pro"]);
  });

  it("that somebody made in Stripe is taken back like any other, after a look at what that means", async () => {
    const panel = await openPanel({
      page: {
        scheduled_change: { id: null, kind: "cancel", plan: null, effective_at: "2026-12-03T00:00:00Z" },
      },
    });

    const [banner] = panel.ofType("Banner");
    expect(banner?.props["title"]).toBe("The subscription ends on 3 December");
    expect(banner?.props["description"]).toContain("It was scheduled in Stripe.");

    dashboard.respond = (request) => {
      if (request.action === "plan.preview") return json(200, quote({ kind: "resume" }));
      return request.action === "customer.get" ? json(200, page()) : json(200, planChange());
    };
    await panel.press("Keep Starter");
    expect(sentTo("plan.preview")[0]?.payload).toMatchObject({ customer: "cus_acme", resume: true });
    await panel.press("Confirm, nothing to pay");
    expect(sentTo("plan.change")).toHaveLength(1);
    expect(dashboard.toasts).toEqual(["Acme keeps Starter"]);
  });

  it("names a change of billing interval for what it is", async () => {
    const panel = await openPanel({
      page: {
        scheduled_change: {
          ...toStarter,
          from: { plan: "pro", interval: "year" },
          to: { plan: "pro", interval: "month" },
          effective_at: "2027-02-01T00:00:00Z",
        },
      },
    });
    expect(panel.ofType("Banner")[0]?.props["title"]).toBe("Switches to monthly billing on 1 February 2027");
  });

  it.each([
    ["billing every 3 months is named", 3, "Switches to billing every 3 months on 1 February 2027"],
    ["billing that stays is not", 1, "Pro changes on 1 February 2027"],
  ])("%s", async (_, interval_count, title) => {
    const from = { plan: "pro", interval: "month", interval_count: 1 };
    const to = { plan: "pro", interval: "month", interval_count };
    const waiting = { ...toStarter, from, to, effective_at: "2027-02-01T00:00:00Z" };
    const panel = await openPanel({ page: { scheduled_change: waiting } });
    expect(panel.ofType("Banner")[0]?.props["title"]).toBe(title);
  });
});
