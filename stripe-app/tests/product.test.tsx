/** What an admin and a viewer see beside a product: what its prices stand for, and how they are mapped. */
import { describe, expect, it } from "vitest";

import type { MappingPreview, ProductPage, ProductPrice } from "../src/types";
import ProductView from "../src/views/ProductView";
import { context } from "./acme";
import { dashboard, isSignatureValid, json, problem, type SentRequest } from "./dashboard";
import { sentTo, show } from "./panel";

function price(changes: Partial<ProductPrice> = {}): ProductPrice {
  return {
    id: "price_1",
    currency: "usd",
    amount_minor: 1234,
    interval: "month",
    interval_count: 1,
    is_active: true,
    is_metered: false,
    stands_for: null,
    is_sold_here: false,
    companies: 3,
    fault: null,
    ...changes,
  };
}

const pro = { kind: "plan" as const, key: "pro", name: "Pro", version: 2, feature: null };

function product(changes: Partial<ProductPage> = {}): ProductPage {
  return {
    product: "prod_1",
    name: "Handmade",
    is_active: true,
    stands_for: null,
    prices: [price()],
    unmapped: ["price_1"],
    companies: 3,
    choices: [
      { kind: "plan", key: "pro", name: "Pro" },
      { kind: "add_on", key: "extra", name: "Extra" },
    ],
    mapping: "as-shown",
    preview: null,
    role: "admin",
    ...changes,
  };
}

function preview(changes: Partial<MappingPreview> = {}): MappingPreview {
  return {
    kind: "plan",
    key: "pro",
    prices: ["price_1"],
    companies: 3,
    examined: 3,
    moving: 2,
    moves: [{ company: "comp_1", name: "Acme", before: "Free", after: "Pro" }],
    ...changes,
  };
}

async function open(page: ProductPage, others?: (request: SentRequest) => Response) {
  dashboard.respond = (request) => {
    if (request.action !== "product.get") return (others ?? (() => json(200, page)))(request);
    const { kind, key } = request.payload as { kind?: "plan" | "add_on"; key?: string };
    return json(200, kind && key ? { ...page, preview: preview({ kind, key }) } : page);
  };
  return show(<ProductView {...context({ customer: "prod_1" })} />);
}

describe("a product", () => {
  it("says what each price costs, stands for, and who holds it", async () => {
    const panel = await open(
      product({
        stands_for: pro,
        unmapped: [],
        prices: [
          price({ stands_for: pro, is_sold_here: true }),
          price({
            id: "price_2",
            amount_minor: null,
            is_metered: true,
            stands_for: { ...pro, feature: "api-calls" },
          }),
          price({ id: "price_3", interval: null, fault: "is charged once", companies: 0, is_active: false }),
        ],
      }),
    );

    const text = panel.text();
    for (const words of [
      "Stands for the plan Pro",
      "US$12.34, every month",
      "3 companies hold it, sold by the catalogue",
      "An amount in USD by tiers, packages or fractions per unit used, every month",
      "Pro: Api calls",
      "3 companies hold it, mapped by hand",
      "No company holds it, it is charged once, archived in Stripe",
    ]) {
      expect(text).toContain(words);
    }
    expect(panel.ofType("Badge").map((badge) => badge.text)).toEqual([
      "Pro",
      "Pro: Api calls",
      "Not for a plan",
    ]);
  });

  it("asks about the product on screen, signed", async () => {
    await open(product());

    const [request] = sentTo("product.get");
    expect(request?.payload).toMatchObject({ product: "prod_1", mode: "test" });
    expect(request && isSignatureValid(request)).toBe(true);
  });

  it("shows a viewer the state and who can change it", async () => {
    const panel = await open(product({ role: "viewer" }));

    expect(panel.text()).toContain("1 price stands for nothing");
    expect(panel.text()).toContain("An admin of Plangate can map prices");
    expect(panel.ofType("Button")).toEqual([]);
  });

  it("says that Plangate cannot be asked, with a way to try again", async () => {
    dashboard.respond = () => problem(404, "not_found", "This Stripe account has no such product.");
    const panel = await show(<ProductView {...context({ customer: "prod_1" })} />);

    expect(panel.text()).toContain("This Stripe account has no such product.");
    dashboard.respond = () => json(200, product());
    await panel.press("Try again");
    expect(panel.text()).toContain("Not mapped");
  });
});

describe("mapping", () => {
  it("shows what it would do before it can be done, and sends what was shown", async () => {
    const panel = await open(product());
    await panel.press("Map to a plan or add-on");
    expect(panel.named("Button", "Map").props["disabled"]).toBe(true);

    await panel.choose("Plan or add-on", "plan:pro");

    expect(panel.text()).toContain("3 companies hold it; 2 plans change.");
    expect(panel.text()).toContain("Acme: Free → Pro");
    expect(panel.text()).toContain("and 1 more of the 3 looked at");
    expect(sentTo("product.map")).toEqual([]);
    await panel.press("Map to Pro");
    const [request] = sentTo("product.map");
    expect(request?.payload).toMatchObject({
      product: "prod_1",
      kind: "plan",
      key: "pro",
      mapping: "as-shown",
    });
    expect(request?.payload["price"]).toBeUndefined();
    expect(request?.payload["operation_id"]).toMatch(/^op_[0-9a-f]{32}$/);
    expect(dashboard.toasts).toEqual(["Handmade stands for Pro"]);
    // What is shown afterwards was asked for again.
    expect(sentTo("product.get").length).toBeGreaterThan(2);
  });

  it("changes one price that was mapped by hand, and none that the catalogue sells", async () => {
    const panel = await open(
      product({
        unmapped: [],
        prices: [price({ stands_for: pro, is_sold_here: true }), price({ id: "price_2", stands_for: pro })],
      }),
    );
    expect(panel.ofType("Link").map((link) => link.text)).toEqual(["Change"]);

    await panel.follow("Change");
    await panel.choose("Plan or add-on", "add_on:extra");
    await panel.press("Map to Extra");

    expect(sentTo("product.map")[0]?.payload).toMatchObject({
      kind: "add_on",
      key: "extra",
      price: "price_2",
    });
  });

  it("keeps the drawer open with the reason when it was refused", async () => {
    const panel = await open(product(), () =>
      problem(409, "catalog_stale", "The product was mapped otherwise meanwhile. Look at it again."),
    );
    await panel.press("Map to a plan or add-on");
    await panel.choose("Plan or add-on", "plan:pro");
    await panel.press("Map to Pro");

    expect(panel.text()).toContain("The product was mapped otherwise meanwhile.");
    expect(dashboard.toasts).toEqual([]);
    await panel.press("Leave it");
    expect(panel.ofType("FocusView")).toEqual([]);
  });
});
