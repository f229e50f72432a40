/** The drawer in which a company is moved: plan, interval, numbers, when, a promotion code, and the quote of it all. */
import { Box, Select, TextField } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import { usePlanOffers } from "../exchange";
import {
  checkPlanDraft,
  draftOfHeld,
  intervalChoices,
  intervalLabel,
  numberFields,
  planChoices,
  planFieldErrors,
  type PlanDraft,
  type PlanErrors,
  type Timing,
} from "../planDraft";
import { useQuotedChange } from "../quoting";
import type { PlanOffers } from "../types";
import { ChangeDrawer } from "./ChangeDrawer";
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
      onLeave={() => {
        props.onClose(null);
      }}
    >
      {problem ? <Trouble problem={problem} onRetry={reload} /> : <Loading />}
    </ChangeDrawer>
  );
};

const LoadedForm = ({ offers, ...props }: QuotedFormProps & { offers: PlanOffers }) => {
  const { api, customer, companyName, formats } = props;
  const [draft, setDraft] = useState<PlanDraft>(() => draftOfHeld(offers));
  const [errors, setErrors] = useState<PlanErrors>({});
  const quoted = useQuotedChange(api, customer);
  const plans = planChoices(offers);
  const intervals = intervalChoices(offers, draft.plan);
  const said: PlanErrors = { ...planFieldErrors(quoted.problem?.problem?.errors ?? []), ...errors };
  const planName = plans.find(({ key }) => key === draft.plan)?.name ?? draft.plan;

  const write = (part: Partial<PlanDraft>) => {
    setDraft({ ...draft, ...part });
    setErrors({});
    quoted.forget();
  };
  const choosePlan = (plan: string) => {
    const sold = intervalChoices(offers, plan);
    const { interval: held } = offers.held;
    const kept = [draft.interval, held ?? ""].find((interval) => sold.includes(interval));
    write({ plan, interval: kept ?? sold[0] ?? "" });
  };
  const request = () => {
    const checked = checkPlanDraft(offers, draft);
    setErrors(checked.errors ?? {});
    return checked.request;
  };
  const isPaidFor = offers.held.currency !== null;

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
      <Select
        label="Plan"
        value={draft.plan}
        error={said["plan"]}
        invalid={Boolean(said["plan"])}
        onChange={(event) => {
          choosePlan(event.target.value);
        }}
      >
        {plans.map(({ key, name }) => (
          <option key={key} value={key}>
            {key === offers.held.plan ? `${name} (now)` : name}
          </option>
        ))}
      </Select>
      {intervals.length > 0 ? (
        <Select
          label="Billed"
          value={draft.interval}
          error={said["interval"]}
          invalid={Boolean(said["interval"])}
          onChange={(event) => {
            write({ interval: event.target.value });
          }}
        >
          {intervals.map((interval) => (
            <option key={interval} value={interval}>
              {intervalLabel(offers, draft.plan, interval, formats)}
            </option>
          ))}
        </Select>
      ) : null}
      {numberFields(offers, draft).map(({ key, label, held }) => (
        <TextField
          key={key}
          label={label}
          type="number"
          value={draft.numbers[key] ?? String(held)}
          error={said[key]}
          invalid={Boolean(said[key])}
          onChange={(event) => {
            write({ numbers: { ...draft.numbers, [key]: event.target.value } });
          }}
        />
      ))}
      {isPaidFor ? (
        <Select
          label="When"
          value={draft.when}
          error={said["when"]}
          invalid={Boolean(said["when"])}
          onChange={(event) => {
            write({ when: event.target.value as Timing });
          }}
        >
          <option value="auto">As usual: more at once, less at the end of the period</option>
          <option value="now">Now</option>
          <option value="period_end">At the end of the paid period</option>
        </Select>
      ) : null}
      <TextField
        label="Promotion code"
        description="Leave it empty for none."
        value={draft.promotionCode}
        maxLength={255}
        error={said["promotion_code"]}
        invalid={Boolean(said["promotion_code"])}
        onChange={(event) => {
          write({ promotionCode: event.target.value });
        }}
      />
    </QuoteDrawer>
  );
};
