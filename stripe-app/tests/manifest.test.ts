/** The manifest is what Stripe reads: its views must exist, and the one address it names must be one address. */
import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";

import manifest from "../stripe-app.json";

const { ui_extension: extension, constants } = manifest;
const policy = extension.content_security_policy;

describe("stripe-app.json", () => {
  it("names views that exist, each viewport once", () => {
    const viewports = extension.views.map(({ viewport }) => viewport);
    expect(viewports).toContain("stripe.dashboard.customer.detail");
    expect(new Set(viewports).size).toBe(viewports.length);
    for (const { component } of extension.views) {
      expect(existsSync(new URL(`../src/views/${component}.tsx`, import.meta.url))).toBe(true);
    }
  });

  it("allows one address, which is the one the app calls", () => {
    expect(policy["connect-src"]).toEqual([constants.API_BASE]);
    expect(constants.API_BASE).toMatch(/^https?:\/\/.*\/.+/);
    // With a slash at the end Stripe allows every action below it.
    expect(constants.API_BASE).toMatch(/\/stripe-app\/v1\/$/);
    expect(policy.purpose.length).toBeGreaterThan(20);
  });

  it("asks for no permission, works in sandboxes and has its icon", () => {
    expect(manifest.permissions).toEqual([]);
    expect(manifest.sandbox_install_compatible).toBe(true);
    expect(existsSync(new URL(`../${manifest.icon}`, import.meta.url))).toBe(true);
  });
});
