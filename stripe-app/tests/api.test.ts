/** What leaves the dashboard is exactly what Stripe signed, and whatever comes back is told apart. */
import { describe, expect, it, vi } from "vitest";

import {
  ApiProblem,
  connectionFrom,
  createApi,
  newOperationId,
  TIMEOUT_SECONDS,
  type Connection,
} from "../src/api";
import { BASE, context, page } from "./acme";
import { ACCOUNT, dashboard, isSignatureValid, json, problem, USER } from "./dashboard";

const connection: Connection = { base: BASE, mode: "test", userId: USER, accountId: ACCOUNT };
const api = createApi(connection);

const grant = {
  customer: "cus_acme",
  operation_id: "op_1",
  feature: "exports",
  override_mode: "add" as const,
  value: 500,
  note: "One week",
};

async function refusal(promise: Promise<unknown>): Promise<ApiProblem> {
  const outcome = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(outcome).toBeInstanceOf(ApiProblem);
  return outcome as ApiProblem;
}

describe("the signed request", () => {
  it("carries the bytes that were signed, and says who asks after them", async () => {
    dashboard.respond = () => json(200, page());
    await api.call("customer.get", { customer: "cus_acme" });

    const [request] = dashboard.sent;
    expect(request?.url).toBe(`${BASE}customer.get`);
    expect(request?.body).toBe(
      `{"customer":"cus_acme","mode":"test","user_id":"${USER}","account_id":"${ACCOUNT}"}`,
    );
    expect(request && isSignatureValid(request)).toBe(true);
  });

  it.each([
    ["accents and scripts", "Für Zoë — ждём договор, 契約待ち"],
    ["emoji of several code units", "thanks 🙏🏽 👩‍👩‍👧"],
    ["quotes, backslashes and line ends", 'she said "yes"\\\n\tok\r\n'],
    ["line separators and controls", "a\u2028b\u2029c\u0000d\u001f"],
    ["markup", "<script>alert(1)</script>&amp;"],
    ["composed and decomposed letters", "é e\u0301"],
  ])("signs and sends the same bytes for %s", async (_, note) => {
    dashboard.respond = () => json(200, {});
    await api.call("override.grant", { ...grant, note });

    const [request] = dashboard.sent;
    expect(request && isSignatureValid(request)).toBe(true);
    expect(request?.payload["note"]).toBe(note);
  });

  it("mends half a surrogate pair, which has no bytes that everybody agrees on", async () => {
    dashboard.respond = () => json(200, {});
    await api.call("override.grant", { ...grant, note: "cut \ud83d short" });

    const [request] = dashboard.sent;
    expect(request?.payload["note"]).toBe("cut \ufffd short");
    expect(request && isSignatureValid(request)).toBe(true);
  });

  it("leaves absent arguments out of both the signature and the body", async () => {
    dashboard.respond = () => json(200, {});
    await api.call("override.grant", { ...grant, expires_at: undefined });

    expect(dashboard.signedPayloads).toEqual([{ ...grant, mode: "test" }]);
    expect(dashboard.sent[0]?.body).not.toContain("expires_at");
  });

  it("refuses numbers that do not survive JSON before anything is signed", async () => {
    for (const value of [0.1, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY]) {
      await expect(api.call("override.grant", { ...grant, value })).rejects.toThrow(RangeError);
    }
    expect(dashboard.signedPayloads).toEqual([]);
    expect(dashboard.sent).toEqual([]);
  });

  it("puts the signature in Stripe's header and sends no cookies", async () => {
    const fetched = vi.fn<(url: string, init: RequestInit) => Promise<Response>>(() =>
      Promise.resolve(json(200, {})),
    );
    vi.stubGlobal("fetch", fetched);
    await api.call("override.grant", grant);

    const init = fetched.mock.calls[0]?.[1];
    expect(init).toMatchObject({ method: "POST", credentials: "omit", redirect: "error" });
    expect(new Headers(init?.headers).get("Stripe-Signature")).toMatch(/^t=\d+,v1=/);
  });
});

describe("what comes back", () => {
  it("turns a problem document into its parts", async () => {
    dashboard.respond = () =>
      problem(422, "invalid_value", "The amount is negative.", [
        { pointer: "/value", code: "minimum", detail: "At least 1." },
      ]);
    const refused = await refusal(api.call("override.grant", grant));

    expect(refused.kind).toBe("refused");
    expect(refused.message).toBe("The amount is negative.");
    expect(refused.problem).toMatchObject({ status: 422, code: "invalid_value", request_id: "req_test" });
    expect(refused.problem?.errors).toEqual([{ pointer: "/value", code: "minimum", detail: "At least 1." }]);
  });

  it("makes do with a problem that is not one of ours", async () => {
    dashboard.respond = () => json(403, { errors: "no", detail: 7 });
    const refused = await refusal(api.call("override.grant", grant));

    expect(refused.problem).toMatchObject({ status: 403, code: "", errors: [] });
    expect(refused.message).toBe("Plangate refused this.");
  });

  it.each([
    ["a page instead of JSON", 502, "<h1>Bad gateway</h1>"],
    ["nothing at all", 500, ""],
    ["an answer that is no object", 200, "[1]"],
    ["a success without JSON", 200, "ok"],
  ])("says that %s is not Plangate's answer", async (_, status, text) => {
    dashboard.respond = () => new Response(text, { status });
    const refused = await refusal(api.call("customer.get", { customer: "cus_acme" }));

    expect(refused.kind).toBe("unreadable");
    expect(refused.message).toContain("http://127.0.0.1:8787");
  });

  it("tells a missing connection from a missing signature", async () => {
    dashboard.respond = () => Promise.reject(new TypeError("Failed to fetch"));
    expect((await refusal(api.call("customer.get", { customer: "cus_acme" }))).kind).toBe("offline");

    dashboard.sign = () => Promise.reject(new Error("no"));
    expect((await refusal(api.call("customer.get", { customer: "cus_acme" }))).kind).toBe("signature");
    expect(dashboard.sent).toHaveLength(1);
  });

  it.each(["the server", "the signature"])("gives up when %s never answers", async (silent) => {
    vi.useFakeTimers();
    const never = () => new Promise<never>(() => undefined);
    if (silent === "the server") dashboard.respond = never;
    else dashboard.sign = never;

    const waiting = refusal(api.call("customer.get", { customer: "cus_acme" }));
    await vi.advanceTimersByTimeAsync(TIMEOUT_SECONDS * 1000);

    expect((await waiting).kind).toBe("timeout");
  });
});

describe("the connection", () => {
  it("takes the address, the mode and the person from the dashboard's context", () => {
    expect(connectionFrom(context())).toEqual(connection);
  });

  it.each([{}, { API_BASE: "" }, { API_BASE: "127.0.0.1:8787/" }, { API_BASE: "http://127.0.0.1:8787" }])(
    "refuses a manifest whose constants are %j",
    async (constants) => {
      const unset = connectionFrom(context({ constants: constants as Record<string, string> }));
      expect(unset).toBeInstanceOf(ApiProblem);
      const refused = await refusal(createApi(unset).call("customer.get", { customer: "cus_acme" }));
      expect(refused.kind).toBe("setup");
      expect(dashboard.sent).toEqual([]);
    },
  );

  it("makes operation ids that do not repeat", () => {
    const ids = new Set(Array.from({ length: 1000 }, newOperationId));
    expect(ids.size).toBe(1000);
    for (const id of ids) expect(id).toMatch(/^op_[0-9a-f]{32}$/);
  });
});
