/** What a support agent sees when a customer opens: plan, entitlements with their reasons, notices, and every other state. */
import { render } from "@stripe/ui-extension-sdk/testing";
import { Box, ContextView } from "@stripe/ui-extension-sdk/ui";
import { MeterChart } from "@stripe/ui-extension-sdk/ui/next";
import { useState } from "react";
import { describe, expect, it } from "vitest";

import CustomerView from "../src/views/CustomerView";
import OverviewView from "../src/views/OverviewView";
import { context, decision, override, page, sso, toStarter } from "./acme";
import { dashboard, isSignatureValid, json, problem } from "./dashboard";
import { openPanel, sentTo, show } from "./panel";

describe("a customer that Plangate knows", () => {
  it("asks for the page of the customer on screen, signed", async () => {
    await openPanel({ context: context({ customer: "cus_globex" }) });

    const [request] = sentTo("customer.get");
    expect(request?.payload).toMatchObject({ customer: "cus_globex", mode: "test" });
    expect(request && isSignatureValid(request)).toBe(true);
  });

  it("says what the company is on, what it costs in time, and what stacks on it", async () => {
    const panel = await openPanel();

    expect(panel.wrapper.find(ContextView)?.props).toMatchObject({ title: "Acme", description: "id: acme" });
    expect(panel.wrapper).toContainComponent(Box, { css: { font: "title" } as never });
    for (const words of ["Starter", "Active", "Monthly, in USD", "3 December", "Extra exports × 2"]) {
      expect(panel.text()).toContain(words);
    }
  });

  it("shows each entitlement with its usage, its bar and its reason", async () => {
    const panel = await openPanel();

    expect(panel.wrapper).toContainText("40 of 100 used, resets on 3 December");
    expect(panel.wrapper).toContainText("Plan Starter, version 1");
    expect(panel.wrapper).toContainText("Not part of the plan");
    expect(panel.wrapper.find(MeterChart)?.prop("data")).toEqual([
      { label: "Used", value: 40 },
      { label: "Left", value: 60 },
    ]);
    // A switch has nothing to draw.
    expect(panel.wrapper.findAll(MeterChart)).toHaveLength(1);
  });

  it("draws no bar for what has no limit, and shows what is reserved where there is one", async () => {
    const panel = await openPanel({
      page: {
        entitlements: [
          decision({ unlimited: true, limit: null, remaining: null, used: 7202, reason: "unlimited" }),
          decision({ feature: "tokens", name: "AI tokens", limit: 1000, used: 700, reserved: 100 }),
        ],
      },
    });

    expect(panel.wrapper).toContainText("7,202 used, no limit");
    expect(panel.wrapper.findAll(MeterChart).map((chart) => chart.prop("data"))).toEqual([
      [
        { label: "Used", value: 700 },
        { label: "Reserved", value: 100 },
        { label: "Left", value: 200 },
      ],
    ]);
    expect(panel.text()).toContain("80% used");
  });

  it("says what overage costs and has cost", async () => {
    const panel = await openPanel({
      page: {
        entitlements: [
          decision({
            unlimited: true,
            limit: null,
            remaining: null,
            used: 12_500,
            soft_limit: 10_000,
            over_soft_limit: true,
            reason: "unlimited",
            paid: "2,500 over the 10,000 calls included: $5.00 so far, $0.002 per call.",
          }),
        ],
      },
    });

    expect(panel.wrapper).toContainText("12,500 used, no limit, 10,000 included, resets on 3 December");
    expect(panel.wrapper).toContainText("$5.00 so far, $0.002 per call.");
    expect(panel.ofType("Badge").map((badge) => badge.text)).toContain("Overage");
  });

  it("puts what is used up first, in words and not in colour alone", async () => {
    const panel = await openPanel({
      page: {
        entitlements: [
          decision(sso),
          decision({ feature: "seats", name: "Seats", type: "seat", used: 3, limit: 10, period: null }),
          decision({ allowed: false, reason: "limit_reached", used: 100, remaining: 0 }),
        ],
      },
    });

    expect(panel.ofType("Badge").map((badge) => badge.text)).toEqual([
      "Active",
      "Used up",
      "30% used",
      "Off",
    ]);
    expect(panel.text()).toContain("Limit reached (plan Starter, version 1)");
  });

  it("shows notices and payment trouble at the top", async () => {
    const panel = await openPanel({
      page: {
        notices: [
          { kind: "past_due", text: "The last payment failed. Access ends on 27 November." },
          { kind: "info", text: "On trial." },
          { kind: "something_new", text: "Two subscriptions are live." },
        ],
      },
    });

    expect(panel.ofType("Banner").map(({ props }) => [props["type"], props["title"]])).toEqual([
      ["critical", "The last payment failed. Access ends on 27 November."],
      ["default", "On trial."],
      ["caution", "Two subscriptions are live."],
    ]);
  });

  it("survives a company with nothing: no plan, no subscription, no features", async () => {
    const nothing = page();
    const panel = await openPanel({
      page: {
        company: nothing.company && {
          ...nothing.company,
          name: null,
          plan: null,
          add_ons: [],
          subscription: null,
        },
        subscription: null,
        entitlements: [],
      },
    });

    expect(panel.wrapper.find(ContextView)?.prop("title")).toBe("acme");
    expect(panel.wrapper).toContainText("No plan");
    expect(panel.wrapper).toContainText("The catalogue has no features yet.");
    expect(panel.wrapper).toContainText("No exceptions");
  });

  it("keeps names and notes as text, whatever they contain", async () => {
    const hostile = "<img src=x onerror=alert(1)>";
    const panel = await openPanel({
      page: {
        entitlements: [decision({ name: hostile })],
        overrides: [override({ note: hostile })],
      },
    });

    expect(panel.ofType("Inline").filter((node) => node.text === hostile)).not.toHaveLength(0);
    expect(panel.ofType("img")).toEqual([]);
  });

  it("uses components of the SDK only", async () => {
    const panel = await openPanel({
      page: {
        overrides: [override(), override({ id: "ovr_2", state: "expired" })],
        scheduled_change: toStarter,
      },
    });
    await panel.press("Grant override");

    const raw = panel.all().filter(({ type }) => /^[a-z]/.test(type) && type !== "option");
    expect(raw).toEqual([]);
  });
});

describe("who may change things", () => {
  it("hides every write from a viewer and says how to get one", async () => {
    const panel = await openPanel({
      page: { role: "viewer", overrides: [override()], scheduled_change: toStarter },
    });

    expect(panel.ofType("Button").map((button) => button.text)).toEqual(["Refresh"]);
    expect(panel.text()).toContain("You can look, not change.");
  });

  it.each(["agent", "admin"] as const)("offers them to an %s", async (role) => {
    const panel = await openPanel({ page: { role, overrides: [override()], scheduled_change: toStarter } });

    expect(panel.ofType("Button").map((button) => button.text)).toEqual(
      expect.arrayContaining(["Grant override", "Edit", "Revoke", "Keep Pro"]),
    );
  });

  it("shows the server's refusal when its list says no after all", async () => {
    const panel = await openPanel({
      page: { overrides: [override()] },
      others: () => problem(403, "role_too_low", "Your role is viewer: ask an operator for the agent role."),
    });
    await panel.press("Revoke");
    await panel.write("Why", "No longer needed");
    await panel.press("Revoke", 1);

    expect(panel.text()).toContain(
      "Your role is viewer: ask an operator for the agent role. (Request req_test)",
    );
    expect(dashboard.toasts).toEqual([]);
  });
});

describe("the states around it", () => {
  it("shows that it is loading", () => {
    dashboard.respond = () => new Promise<never>(() => undefined);
    const { wrapper } = render(<CustomerView {...context()} />);

    expect(wrapper.findWhere((node) => node.type === "Spinner")).not.toBeNull();
  });

  it("says when Plangate cannot be reached, and recovers on retry", async () => {
    dashboard.respond = () => Promise.reject(new TypeError("Failed to fetch"));
    const panel = await show(<CustomerView {...context()} />);
    expect(panel.text()).toContain("No connection to Plangate");
    expect(panel.text()).toContain("http://127.0.0.1:8787");

    dashboard.respond = () => json(200, page());
    await panel.press("Try again");
    expect(panel.wrapper.find(ContextView)?.prop("title")).toBe("Acme");
  });

  it("explains a customer that no company claims, and looks again on request", async () => {
    dashboard.respond = () => problem(404, "not_found", "There is no such customer.");
    const panel = await show(<CustomerView {...context()} />);
    expect(panel.wrapper).toContainText("No company uses this Stripe customer yet");
    expect(panel.wrapper).toContainText("cus_acme");

    dashboard.respond = () => json(200, page());
    await panel.press("Look again");
    expect(panel.wrapper.find(ContextView)?.prop("title")).toBe("Acme");
  });

  it("treats a page without a company the same way", async () => {
    const panel = await openPanel({ page: { company: null } });
    expect(panel.wrapper).toContainText("No company uses this Stripe customer yet");
  });

  it("keeps what it shows when a refresh fails", async () => {
    const panel = await openPanel();
    dashboard.respond = () => problem(503, "unavailable", "Try again shortly.");
    await panel.press("Refresh");

    expect(panel.text()).toContain("Try again shortly.");
    expect(panel.wrapper).toContainText("40 of 100 used");
  });

  it("starts again for another customer, and ignores the first one's late answer", async () => {
    let answerAcme: (response: Response) => void = () => undefined;
    const globex = page();
    if (globex.company) globex.company.name = "Globex";
    dashboard.respond = (request) =>
      request.payload["customer"] === "cus_globex"
        ? json(200, globex)
        : new Promise((resolve) => {
            answerAcme = resolve;
          });

    // The dashboard hands the same view another customer.
    let goTo: (customer: string) => void = () => undefined;
    const Dashboard = () => {
      const [customer, setCustomer] = useState("cus_acme");
      goTo = setCustomer;
      return <CustomerView {...context({ customer })} />;
    };
    const panel = await show(<Dashboard />);
    goTo("cus_globex");
    await panel.settle();
    answerAcme(json(200, page()));
    await panel.settle();

    expect(panel.wrapper.find(ContextView)?.prop("title")).toBe("Globex");
  });

  it("never shows one customer's page under another", async () => {
    dashboard.respond = (request) =>
      request.payload["customer"] === "cus_acme" ? json(200, page()) : new Promise<never>(() => undefined);
    let goTo: (customer: string) => void = () => undefined;
    const Dashboard = () => {
      const [customer, setCustomer] = useState("cus_acme");
      goTo = setCustomer;
      return <CustomerView {...context({ customer })} />;
    };
    const panel = await show(<Dashboard />);
    expect(panel.text()).toContain("Acme");
    goTo("cus_globex");
    await panel.settle();

    expect(panel.text()).not.toContain("Acme");
    expect(panel.ofType("Spinner")).toHaveLength(1);
  });

  it("does not let a slow refresh overwrite a newer page", async () => {
    const panel = await openPanel({ page: { overrides: [override()] } });
    let answerSlow: (response: Response) => void = () => undefined;
    const fresh = page({ overrides: [] });
    let refreshes = 0;
    dashboard.respond = (request) => {
      if (request.action !== "customer.get") return json(200, {});
      refreshes += 1;
      return refreshes === 1
        ? new Promise((resolve) => {
            answerSlow = resolve;
          })
        : json(200, fresh);
    };
    await panel.press("Refresh");
    await panel.press("Revoke");
    await panel.write("Why", "Done");
    await panel.press("Revoke", 1);
    answerSlow(json(200, page({ overrides: [override()] })));
    await panel.settle();

    expect(panel.wrapper).toContainText("No exceptions");
  });

  it("does not ask again when the dashboard renders the same customer anew", async () => {
    dashboard.respond = () => json(200, page());
    let renderAnew: () => void = () => undefined;
    const Dashboard = () => {
      const [, setRound] = useState(0);
      renderAnew = () => {
        setRound((round) => round + 1);
      };
      return <CustomerView {...context()} />;
    };
    const panel = await show(<Dashboard />);
    renderAnew();
    await panel.settle();

    expect(sentTo("customer.get")).toHaveLength(1);
  });

  it("asks Plangate nothing when the manifest names no server", async () => {
    const panel = await show(<CustomerView {...context({ constants: {} })} />);

    expect(panel.text()).toContain("Plangate is not set up here");
    expect(panel.ofType("Button")).toEqual([]);
    expect(dashboard.sent).toEqual([]);
  });

  it("leads to the customers where none is open", async () => {
    const panel = await show(<OverviewView {...context()} />);

    expect(panel.named("Button", "Go to customers").props["href"]).toEqual({ name: "customers" });
    expect(panel.text()).toContain("Connected to http://127.0.0.1:8787, test mode.");
  });
});

describe("the whole story of a decision", () => {
  const trace = {
    ...decision({ allowed: false, reason: "limit_reached", used: 100, remaining: 0 }),
    trace: {
      steps: [
        {
          source: { kind: "flag", key: null, version: null },
          outcome: "not_matched",
          detail: "The flag is not forced.",
        },
        {
          source: { kind: "plan", key: "starter", version: 1 },
          outcome: "exhausted",
          detail: "100 of 100 used.",
        },
      ],
      unlock: {
        kind: "plan",
        key: "pro",
        name: "Pro",
        amount_minor: 2900,
        currency: "usd",
        interval: "month",
        limit: 1000,
      },
    },
  };

  it("lists every source in order and the cheapest way to a yes", async () => {
    const panel = await openPanel({ others: () => json(200, trace) });
    await panel.follow("Why?");

    expect(sentTo("decision.trace")[0]?.payload).toMatchObject({ customer: "cus_acme", feature: "exports" });
    const drawer = panel.ofType("FocusView")[0];
    expect(drawer?.props["title"]).toBe("Why: Exports");
    expect(drawer?.text).toContain("The plan Pro, for US$29.00 a month, with 1,000.");
    expect(drawer?.text.indexOf("Switch for everyone")).toBeLessThan(
      drawer?.text.indexOf("Plan Starter") ?? 0,
    );
    expect(drawer?.text).toContain("Used up");

    await panel.press("Close");
    expect(panel.ofType("FocusView")).toEqual([]);
  });

  it("says a way that is paid every few months as that", async () => {
    const unlock = { ...trace.trace.unlock, interval_count: 3 };
    const panel = await openPanel({
      others: () => json(200, { ...trace, trace: { ...trace.trace, unlock } }),
    });
    await panel.follow("Why?");
    expect(panel.ofType("FocusView")[0]?.text).toContain(
      "The plan Pro, for US$29.00 every 3 months, with 1,000.",
    );
  });

  it("says how many of an add-on it takes", async () => {
    const unlock = { ...trace.trace.unlock, kind: "add_on", key: "extra", name: "Extra", quantity: 4 };
    const panel = await openPanel({
      others: () => json(200, { ...trace, trace: { ...trace.trace, unlock } }),
    });
    await panel.follow("Why?");
    expect(panel.ofType("FocusView")[0]?.text).toContain(
      "The add-on Extra (4 in all), for US$29.00 a month, with 1,000.",
    );
  });

  it("says when the story cannot be had", async () => {
    const panel = await openPanel({ others: () => problem(503, "unavailable", "Try again shortly.") });
    await panel.follow("Why?");
    expect(panel.ofType("FocusView")[0]?.text).toContain("Try again shortly.");
  });
});
