/** The drawer in which a company is moved: plan, interval, numbers, an agreed price, when, a promotion code, and the quote of it all. */
import { Box } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import { usePlanOffers } from "../exchange";
import {
  canBeAgreedOn,
  checkPlanDraft,
  currencyChoices,
  draftOfHeld,
  mustBeAgreedOn,
  numberFields,
  ownPriceOf,
  planChoices,
  planFieldErrors,
  rhythmLabel,
  rhythmsSold,
  trialSentence,
  withCurrency,
  withPlan,
  type PlanDraft,
  type PlanErrors,
} from "../planDraft";
import { useQuotedChange } from "../quoting";
import type { PlanOffers } from "../types";
import { ChangeDrawer } from "./ChangeDrawer";
import { Choice, Entry } from "./fields";
import { OwnPriceFields } from "./OwnPriceFields";
import { QuoteDrawer, type QuotedFormProps } from "./QuoteDrawer";
import { Loading, Trouble } from "./Trouble";

export const ChangePlanForm = (props: QuotedFormProps) => {
  const { answer, problem, reload } = usePlanOffers(props.api, props.customer);
  if (answer) return <LoadedForm {...props} offers={answer} />;
  return (
    <ChangeDrawer
      title="Change plan"
      action="Preview"
      leave="Cancel"
      isReady={false}
      isSending={false}
      problem={null}
      onSubmit={() => Promise.resolve()}
      onClose={props.onClose}
    >
      {problem ? <Trouble problem={problem} onRetry={reload} /> : <Loading />}
    </ChangeDrawer>
  );
};

const LoadedForm = ({ offers, ...props }: QuotedFormProps & { offers: PlanOffers }) => {
  const { api, customer, companyName, isAdmin, formats } = props;
  const [draft, setDraft] = useState<PlanDraft>(() => draftOfHeld(offers));
  const [errors, setErrors] = useState<PlanErrors>({});
  const quoted = useQuotedChange(api, customer);
  const plans = planChoices(offers, { mayAgree: isAdmin });
  const currencies = currencyChoices(offers, draft.plan);
  const rhythms = rhythmsSold(offers, draft);
  const said: PlanErrors = { ...planFieldErrors(quoted.problem?.problem?.errors ?? []), ...errors };
  const planName = plans.find(({ key }) => key === draft.plan)?.name ?? draft.plan;
  const isPaidFor = offers.held.currency !== null;
  const trial = trialSentence(offers, draft);

  const write = (part: Partial<PlanDraft>) => {
    setDraft({ ...draft, ...part });
    setErrors({});
    quoted.forget();
  };
  const request = () => {
    const checked = checkPlanDraft(offers, draft);
    setErrors(checked.errors ?? {});
    return checked.request;
  };

  return (
    <QuoteDrawer
      {...props}
      quoted={quoted}
      title={`Change the plan of ${companyName}`}
      leave="Cancel"
      request={request}
      made={`${companyName} is on ${planName} as previewed`}
    >
      {said["form"] ? <Box css={{ color: "critical" }}>{said["form"]}</Box> : null}
      <Choice
        label="Plan"
        value={draft.plan}
        options={plans.map(({ key, name }) => ({
          value: key,
          label: key === offers.held.plan ? `${name} (now)` : name,
        }))}
        error={said["plan"]}
        onChange={(plan) => {
          write(withPlan(offers, draft, plan));
        }}
      />
      {trial ? <Box css={{ color: "secondary" }}>{trial}</Box> : null}
      {isAdmin && canBeAgreedOn(offers, draft.plan) && !mustBeAgreedOn(offers, draft.plan) ? (
        <Choice
          label="Price"
          value={draft.own ? "own" : "offered"}
          options={[
            { value: "offered", label: "One of those on offer" },
            { value: "own", label: `One agreed on with ${companyName}` },
          ]}
          onChange={(chosen) => {
            write({ own: chosen === "own" ? ownPriceOf(offers, draft) : null });
          }}
        />
      ) : null}
      {!draft.own && currencies.length > 1 ? (
        <Choice
          label="Currency"
          value={draft.currency}
          options={currencies.map((currency) => ({ value: currency, label: currency.toUpperCase() }))}
          error={said["currency"]}
          onChange={(currency) => {
            write(withCurrency(offers, draft, currency));
          }}
        />
      ) : null}
      {!draft.own && rhythms.length > 0 ? (
        <Choice
          label="Billed"
          value={draft.rhythm}
          options={rhythms.map((rhythm) => ({
            value: rhythm,
            label: rhythmLabel(offers, draft, rhythm, formats),
          }))}
          error={said["interval"]}
          onChange={(rhythm) => {
            write({ rhythm });
          }}
        />
      ) : null}
      {draft.own ? (
        <OwnPriceFields
          price={draft.own}
          errors={said}
          isCurrencyOpen={!isPaidFor}
          onChange={(own) => {
            write({ own });
          }}
        />
      ) : null}
      {numberFields(offers, draft).map(({ key, label, held }) => (
        <Entry
          key={key}
          label={label}
          type="number"
          value={draft.numbers[key] ?? String(held)}
          error={said[key]}
          onChange={(typed) => {
            write({ numbers: { ...draft.numbers, [key]: typed } });
          }}
        />
      ))}
      {isPaidFor ? (
        <Choice
          label="When"
          value={draft.when}
          options={[
            { value: "auto", label: "As usual: more at once, less at the end of the period" },
            { value: "now", label: "Now" },
            { value: "period_end", label: "At the end of the paid period" },
          ]}
          error={said["when"]}
          onChange={(when) => {
            write({ when });
          }}
        />
      ) : null}
      <Entry
        label="Promotion code"
        description="Leave it empty for none."
        value={draft.promotionCode}
        maxLength={255}
        error={said["promotion_code"]}
        onChange={(promotionCode) => {
          write({ promotionCode });
        }}
      />
    </QuoteDrawer>
  );
};
