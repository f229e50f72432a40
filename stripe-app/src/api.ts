/** The one way from the dashboard to Plangate: Stripe signs each request, and exactly the signed bytes are sent. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";
import { fetchStripeSignature } from "@stripe/ui-extension-sdk/utils";

import type {
  Action,
  Answer,
  Mode,
  NextAction,
  Payload,
  PlainValue,
  Problem,
  Quote,
  Violation,
} from "./types";

/** Plangate answers within 10 seconds, and the signature is a call to Stripe before that. */
export const TIMEOUT_SECONDS = 20;

/** Whom a request speaks for, and where it goes. `base` ends in a slash. */
export interface Connection {
  base: string;
  mode: Mode;
  userId: string;
  accountId: string;
}

export interface Api {
  /** Sends one action and returns its answer; throws `ApiProblem`, whatever went wrong. */
  call<A extends Action>(action: A, payload: Payload<A>): Promise<Answer<A>>;
}

export type TroubleKind = "setup" | "signature" | "offline" | "timeout" | "unreadable" | "refused";

/** Why a call did not succeed. `problem` is what Plangate said; it is absent when Plangate was not reached. */
export class ApiProblem extends Error {
  override readonly name = "ApiProblem";

  constructor(
    readonly kind: TroubleKind,
    message: string,
    readonly problem: Problem | null = null,
  ) {
    super(message);
  }
}

/** The API over one connection. Without a usable connection every call is refused with the sentence that says why. */
export function createApi(connection: Connection | ApiProblem): Api {
  return {
    call(action, payload) {
      if (connection instanceof ApiProblem) return Promise.reject(connection);
      return send(connection, action, payload);
    },
  };
}

/** Reads the connection from what the dashboard hands to a view. The address comes from the manifest and nowhere else. */
export function connectionFrom(context: ExtensionContextValue): Connection | ApiProblem {
  const base = context.environment.constants?.["API_BASE"];
  if (typeof base !== "string" || !/^https?:\/\/.+\/$/.test(base)) {
    return new ApiProblem(
      "setup",
      "This app does not know where your Plangate server is. Upload it again with the manifest that " +
        "“plangate stripe-app manifest --url” prints.",
    );
  }
  const userId = context.userContext.id;
  if (!userId) {
    return new ApiProblem("setup", "Stripe did not say who you are. Sign in to the dashboard again.");
  }
  return { base, mode: context.environment.mode, userId, accountId: context.userContext.account.id };
}

/** A fresh id for one intent. Random enough never to meet another, and made without anything a frame may lack. */
export function newOperationId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `op_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

async function send<A extends Action>(
  connection: Connection,
  action: A,
  payload: Payload<A>,
): Promise<Answer<A>> {
  const signed = signable({ ...payload, mode: connection.mode });
  // Stripe signs the payload followed by these two, in this order, as compact JSON. The server checks these very bytes.
  const body = JSON.stringify({
    ...signed,
    user_id: connection.userId,
    account_id: connection.accountId,
  });

  const abort = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      abort.abort();
      reject(
        new ApiProblem(
          "timeout",
          `Plangate did not answer within ${TIMEOUT_SECONDS} seconds. Trying again is safe: a change is never made twice.`,
        ),
      );
    }, TIMEOUT_SECONDS * 1000);
  });
  try {
    const answer = await Promise.race([exchange(connection, action, signed, body, abort.signal), deadline]);
    return answer as Answer<A>;
  } finally {
    clearTimeout(timer);
  }
}

async function exchange(
  connection: Connection,
  action: Action,
  signed: Record<string, PlainValue>,
  body: string,
  signal: AbortSignal,
): Promise<unknown> {
  let signature: string;
  try {
    signature = await fetchStripeSignature(signed);
  } catch {
    throw new ApiProblem(
      "signature",
      "Stripe could not sign this request. Reload the dashboard and try again.",
    );
  }

  let response: Response;
  let text: string;
  try {
    response = await fetch(`${connection.base}${action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Stripe-Signature": signature },
      body,
      signal,
      // The frame's origin is opaque: no cookie could be meant, and a redirect would carry the signature elsewhere.
      credentials: "omit",
      redirect: "error",
    });
    text = await response.text();
  } catch {
    throw new ApiProblem(
      "offline",
      `Plangate could not be reached at ${new URL(connection.base).origin}. Check that it runs, then try again.`,
    );
  }

  const answer = parsed(text);
  if (response.ok && isRecord(answer)) return answer;
  if (!response.ok && isRecord(answer)) {
    const problem = problemFrom(answer, response.status);
    throw new ApiProblem("refused", problem.detail, problem);
  }
  throw new ApiProblem(
    "unreadable",
    `The answer from ${new URL(connection.base).origin} was not from Plangate (status ${response.status}). ` +
      "Check the address and anything that stands in front of it, then try again.",
  );
}

/** The payload with only what signs alike everywhere: nothing undefined, whole numbers, and text that is valid Unicode. */
function signable(payload: Record<string, PlainValue | undefined>): Record<string, PlainValue> {
  const signed: Record<string, PlainValue> = {};
  for (const [key, value] of Object.entries(payload)) {
    if (value === undefined) continue;
    if (typeof value === "number" && !Number.isSafeInteger(value)) {
      throw new RangeError(`${key} must be a whole number that survives JSON, not ${value}`);
    }
    signed[key] = typeof value === "string" ? wellFormed(value) : value;
  }
  return signed;
}

/** Half of a surrogate pair has no UTF-8 form: JSON would escape it here and the signer might not. */
function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\uFFFD");
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function problemFrom(answer: Record<string, unknown>, status: number): Problem {
  const title = textOf(answer["title"], "Plangate refused this");
  const { quote, violations, next_action: nextAction } = answer;
  return {
    ...(isRecord(quote) ? { quote: quote as unknown as Quote } : {}),
    ...(Array.isArray(violations) ? { violations: violations as Violation[] } : {}),
    ...(isRecord(nextAction) ? { next_action: nextAction as unknown as NextAction } : {}),
    ...(answer["may_force"] === true ? { may_force: true } : {}),
    type: textOf(answer["type"], "about:blank"),
    title,
    status,
    code: textOf(answer["code"], ""),
    detail: textOf(answer["detail"], `${title}.`),
    errors: Array.isArray(answer["errors"])
      ? answer["errors"].filter(isRecord).map((error) => ({
          pointer: textOf(error["pointer"], ""),
          code: textOf(error["code"], ""),
          detail: textOf(error["detail"], ""),
        }))
      : [],
    request_id: textOf(answer["request_id"], ""),
  };
}

function textOf(value: unknown, otherwise: string): string {
  return typeof value === "string" && value !== "" ? value : otherwise;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
