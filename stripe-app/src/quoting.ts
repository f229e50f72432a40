/** A plan change in its two steps: a quote is asked for, and exactly what it showed is confirmed. */
import { useCallback, useRef, useState } from "react";

import { ApiProblem, type Api } from "./api";
import { asProblem, useChange } from "./exchange";
import type { NextAction, Payload, PlanChange, Quote } from "./types";

export type QuoteRequest = Omit<Payload<"plan.preview">, "customer">;

export interface QuotedChange {
  quote: Quote | null;
  problem: ApiProblem | null;
  isAsking: boolean;
  isConfirming: boolean;
  /** Where the customer goes on, once a confirmed change waits for them. */
  waitsFor: { change: PlanChange | null; action: NextAction } | null;
  ask: (request: QuoteRequest) => Promise<void>;
  /** Drops the quote, also one that is still on its way: what it was asked for is no longer what is wanted. */
  forget: () => void;
  /** Confirms the quote shown. Answers what was made, or null when nothing was, or when it waits for the customer. */
  confirm: () => Promise<{ change: PlanChange | null } | null>;
}

export function useQuotedChange(api: Api, customer: string): QuotedChange {
  const [quote, setQuote] = useState<Quote | null>(null);
  const [asked, setAsked] = useState<ApiProblem | null>(null);
  const [isAsking, setIsAsking] = useState(false);
  const [waitsFor, setWaitsFor] = useState<QuotedChange["waitsFor"]>(null);
  const round = useRef(0);
  const { isSending, problem: unconfirmed, send, forget: forgetUnconfirmed } = useChange(api, "plan.change");

  const forget = useCallback(() => {
    round.current += 1;
    setIsAsking(false);
    setQuote(null);
    setAsked(null);
    forgetUnconfirmed();
  }, [forgetUnconfirmed]);

  const ask = useCallback(
    async (request: QuoteRequest) => {
      forget();
      const own = round.current;
      setIsAsking(true);
      try {
        const found = await api.call("plan.preview", { ...request, customer });
        if (own === round.current) setQuote(found);
      } catch (reason) {
        if (own === round.current) setAsked(asProblem(reason));
      }
      if (own === round.current) setIsAsking(false);
    },
    [api, customer, forget],
  );

  const confirm = useCallback(async () => {
    if (!quote) return null;
    const { isMade, answer, problem } = await send({ customer, quote: quote.quote });
    const next = webAction(answer?.next_action ?? problem?.problem?.next_action);
    const isWaiting = answer?.state === "awaiting_payment" || problem?.problem?.code === "action_required";
    if (next && isWaiting) {
      setWaitsFor({ change: answer, action: next });
      return null;
    }
    if (!isMade) {
      // The one that holds now takes its place, to be looked at before it is confirmed.
      if (problem?.problem?.quote) setQuote(problem.problem.quote);
      return null;
    }
    if (answer && (answer.state === "refused" || answer.state === "failed")) {
      const sentence = answer.refusal?.detail ?? "The change could not be made. Look at the customer again.";
      setAsked(new ApiProblem("refused", sentence));
      return null;
    }
    return { change: answer };
  }, [customer, quote, send]);

  return {
    quote,
    problem: unconfirmed ?? asked,
    isAsking,
    isConfirming: isSending,
    waitsFor,
    ask,
    forget,
    confirm,
  };
}

/** An address that a browser may be sent to, and no other. */
export function webAction(action: NextAction | null | undefined): NextAction | null {
  return action && /^https?:\/\//.test(action.url) ? action : null;
}
