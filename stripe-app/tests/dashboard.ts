/** Plays the Stripe dashboard and a Plangate server around the app: real signatures, a network that records bytes. */
import { createHmac } from "node:crypto";
import { afterEach, beforeEach, vi } from "vitest";

import "@stripe/ui-extension-sdk/testing";

export const APP_SECRET = "absec_for_tests_only";
export const USER = "usr_1234";
export const ACCOUNT = "acct_1234";

export interface SentRequest {
  url: string;
  action: string;
  headers: Headers;
  body: string;
  payload: Record<string, unknown>;
}

type Reply = Response | Promise<Response>;
type Responder = (request: SentRequest) => Reply;

/** What the app did to the outside world since the test began. */
export const dashboard = {
  sent: [] as SentRequest[],
  toasts: [] as string[],
  copied: [] as string[],
  /** Payloads that Stripe was asked to sign. */
  signedPayloads: [] as unknown[],
  respond: (() => json(500, {})) as Responder,
  sign: signAsStripe,
};

beforeEach(() => {
  dashboard.sent = [];
  dashboard.toasts = [];
  dashboard.copied = [];
  dashboard.signedPayloads = [];
  dashboard.respond = () => json(500, {});
  dashboard.sign = signAsStripe;
  vi.stubGlobal("__StripeExtExports", {
    endpoint: {
      call: {
        supportsFetchAppEmbeddedKey: () => Promise.resolve(false),
        fetchStripeSignature: (payload: unknown) => {
          dashboard.signedPayloads.push(payload);
          return dashboard.sign(payload);
        },
        clipboardWriteText: (text: string) => {
          dashboard.copied.push(text);
          return Promise.resolve();
        },
        showToast: (message: string) => {
          dashboard.toasts.push(message);
          return Promise.resolve({ update: () => undefined, dismiss: () => undefined });
        },
      },
    },
  });
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    const body = init.body as string;
    const request: SentRequest = {
      url,
      action: url.slice(url.lastIndexOf("/") + 1),
      headers: new Headers(init.headers),
      body,
      payload: JSON.parse(body) as Record<string, unknown>,
    };
    dashboard.sent.push(request);
    return dashboard.respond(request);
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Stripe's side: it adds whom it vouches for to the payload and signs the compact JSON. */
function signAsStripe(payload: unknown): Promise<string> {
  const message = JSON.stringify({ ...(payload as object), user_id: USER, account_id: ACCOUNT });
  const timestamp = 1_795_132_800;
  return Promise.resolve(`t=${timestamp},v1=${hmac(timestamp, Buffer.from(message, "utf8"))}`);
}

/** Plangate's side: the signature is checked over the bytes that arrived, not over what they mean. */
export function isSignatureValid(request: SentRequest): boolean {
  const match = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(request.headers.get("Stripe-Signature") ?? "");
  return match !== null && hmac(Number(match[1]), new TextEncoder().encode(request.body)) === match[2];
}

export function json(status: number, body: unknown): Response {
  return new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json" } });
}

export function problem(
  status: number,
  code: string,
  detail: string,
  errors: { pointer: string; code: string; detail: string }[] = [],
  further: Record<string, unknown> = {},
): Response {
  const title = "Plangate refused this";
  const type = `https://plangate.example/problems/${code}`;
  return json(status, { type, title, status, code, detail, errors, request_id: "req_test", ...further });
}

function hmac(timestamp: number, message: Uint8Array): string {
  return createHmac("sha256", APP_SECRET).update(`${timestamp}.`).update(message).digest("hex");
}
