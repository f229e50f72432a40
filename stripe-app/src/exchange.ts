/** How a view waits for Plangate: some hooks ask and ask again, and one makes a change exactly once. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";

import { ApiProblem, connectionFrom, createApi, newOperationId, type Api } from "./api";
import type { Answer, CustomerPage, Mutation, Payload, PlanOffers, ProductPage } from "./types";

/** The API of the view's connection. `identity` is the key of what is shown: when it differs, all starts again. */
export function useApi(context: ExtensionContextValue): { api: Api; identity: string } {
  const connection = connectionFrom(context);
  // The dashboard hands over new objects with every render; only what they say counts.
  const identity = connection instanceof ApiProblem ? connection.message : JSON.stringify(connection);
  // eslint-disable-next-line react-hooks/exhaustive-deps -- `identity` stands for the contents of `connection`.
  const api = useMemo(() => createApi(connection), [identity]);
  return { api, identity };
}

export interface AnswerState<T> {
  answer: T | null;
  problem: ApiProblem | null;
  isLoading: boolean;
  reload: () => void;
}

/** Asks for something when the view opens and on `reload`. The last answer stays meanwhile; only the newest counts. */
function useAnswer<T>(ask: () => Promise<T>): AnswerState<T> {
  const [answer, setAnswer] = useState<T | null>(null);
  const [problem, setProblem] = useState<ApiProblem | null>(null);
  const [isLoading, setIsLoading] = useState(true);
  const [round, setRound] = useState(0);

  useEffect(() => {
    let isCurrent = true;
    setIsLoading(true);
    ask().then(
      (found) => {
        if (!isCurrent) return;
        setAnswer(found);
        setProblem(null);
        setIsLoading(false);
      },
      (reason: unknown) => {
        if (!isCurrent) return;
        setProblem(asProblem(reason));
        setIsLoading(false);
      },
    );
    return () => {
      isCurrent = false;
    };
  }, [ask, round]);

  const reload = useCallback(() => {
    setRound((previous) => previous + 1);
  }, []);
  return { answer, problem, isLoading, reload };
}

/** A customer's page, and how far the environment's clock ran ahead of this one when it was answered. */
export interface DatedPage {
  page: CustomerPage;
  clockOffsetMs: number;
}

export type PageState = AnswerState<DatedPage>;

export function useCustomerPage(api: Api, customer: string): PageState {
  const ask = useCallback(async () => {
    const page = await api.call("customer.get", { customer });
    // A test environment may live in another month; every decision says which instant it was made for.
    const at = page.entitlements[0]?.at;
    return { page, clockOffsetMs: at ? new Date(at).getTime() - Date.now() : 0 };
  }, [api, customer]);
  return useAnswer(ask);
}

/** One decision with every source that was considered for it. */
export function useTrace(api: Api, customer: string, feature: string): AnswerState<Answer<"decision.trace">> {
  const ask = useCallback(() => api.call("decision.trace", { customer, feature }), [api, customer, feature]);
  return useAnswer(ask);
}

/** What a product's prices stand for. */
export function useProductPage(api: Api, product: string): AnswerState<ProductPage> {
  const ask = useCallback(() => api.call("product.get", { product }), [api, product]);
  return useAnswer(ask);
}

/** The same page with what a mapping would do; nothing is asked before a target is chosen. */
export function useMappingPreview(
  api: Api,
  product: string,
  target: { kind: string; key: string; price?: string } | null,
): AnswerState<ProductPage | null> {
  const kind = target?.kind;
  const key = target?.key;
  const price = target?.price;
  const ask = useCallback(
    (): Promise<ProductPage | null> =>
      kind === undefined || key === undefined
        ? Promise.resolve(null)
        : api.call("product.get", { product, kind, key, ...(price === undefined ? {} : { price }) }),
    [api, product, kind, key, price],
  );
  return useAnswer(ask);
}

/** What the plans on sale are, and what the company holds of them. */
export function usePlanOffers(api: Api, customer: string): AnswerState<PlanOffers> {
  const ask = useCallback(() => api.call("plan.offers", { customer }), [api, customer]);
  return useAnswer(ask);
}

/** What came of sending a change. One that arrived in an earlier try whose answer was lost is made, without an answer. */
export type Sent<A extends Mutation> =
  | { isMade: true; answer: Answer<A> | null; problem: null }
  | { isMade: false; answer: null; problem: ApiProblem | null };

export interface ChangeState<A extends Mutation> {
  isSending: boolean;
  problem: ApiProblem | null;
  /** Sends the change. The same contents sent again are the same operation; while one is under way nothing is sent. */
  send: (payload: Omit<Payload<A>, "operation_id">) => Promise<Sent<A>>;
  /** Forgets what went wrong, once something else is being asked for. */
  forget: () => void;
}

/**
 * Makes one kind of change. An attempt that failed may have reached Plangate all the same, so trying again with the
 * same contents carries the same operation id and is applied once. Other contents are another operation, and so is
 * another try after Plangate refused: then nothing was made, and the reason may be gone.
 */
export function useChange<A extends Mutation>(api: Api, action: A): ChangeState<A> {
  const [isSending, setIsSending] = useState(false);
  const [problem, setProblem] = useState<ApiProblem | null>(null);
  const attempt = useRef<{ contents: string; operationId: string } | null>(null);
  const inFlight = useRef(false);

  const send = useCallback(
    async (payload: Omit<Payload<A>, "operation_id">): Promise<Sent<A>> => {
      if (inFlight.current) return { isMade: false, answer: null, problem: null };
      inFlight.current = true;
      const contents = JSON.stringify(payload);
      if (attempt.current?.contents !== contents) {
        attempt.current = { contents, operationId: newOperationId() };
      }
      setIsSending(true);
      setProblem(null);
      try {
        const contentsSent = { ...payload, operation_id: attempt.current.operationId } as Payload<A>;
        const answer = await api.call(action, contentsSent);
        attempt.current = null;
        return { isMade: true, answer, problem: null };
      } catch (reason) {
        const found = asProblem(reason);
        const wasMade = found.problem?.code === "operation_repeated";
        if (wasMade || isFinal(found)) attempt.current = null;
        // The answer to an earlier try was lost, but the try itself arrived.
        if (wasMade) return { isMade: true, answer: null, problem: null };
        setProblem(found);
        return { isMade: false, answer: null, problem: found };
      } finally {
        inFlight.current = false;
        setIsSending(false);
      }
    },
    [api, action],
  );
  const forget = useCallback(() => {
    setProblem(null);
  }, []);
  return { isSending, problem, send, forget };
}

/** A refusal that is certain to have changed nothing. A conflict may be this very operation, still under way. */
function isFinal(problem: ApiProblem): boolean {
  const status = problem.problem?.status;
  return status !== undefined && status >= 400 && status < 500 && status !== 409 && status !== 429;
}

/** Whatever was thrown, as something that can be shown. */
export function asProblem(reason: unknown): ApiProblem {
  if (reason instanceof ApiProblem) return reason;
  return new ApiProblem(
    "unreadable",
    "Something in this app went wrong. Reload the dashboard and try again.",
  );
}
