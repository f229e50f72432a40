/** The drawers about a running trial: letting it end later, and ending it now. */
import { Box } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import { useChange } from "../exchange";
import { useQuotedChange } from "../quoting";
import { endOfDay, instant } from "../typed";
import { ChangeDrawer } from "./ChangeDrawer";
import { Choice, Day } from "./fields";
import { QuoteDrawer, type QuotedFormProps } from "./QuoteDrawer";

const DAY_MS = 86_400_000;
const DAYS = [7, 14, 30] as const;
const LONGEST_DAYS = 730;

export const ExtendTrialForm = ({
  api,
  customer,
  companyName,
  formats,
  onClose,
  trialEnd,
}: QuotedFormProps & { trialEnd: string }) => {
  const [choice, setChoice] = useState("7");
  const [date, setDate] = useState("");
  const [error, setError] = useState<string | undefined>();
  const { isSending, problem, send, forget } = useChange(api, "trial.extend");

  const later = (days: number) => instant(new Date(new Date(trialEnd).getTime() + days * DAY_MS));
  const endsAt = choice === "date" ? endOfDay(date) : later(Number(choice));

  const startOver = () => {
    setError(undefined);
    forget();
  };
  const submit = async () => {
    if (endsAt === undefined) {
      setError("Choose a day.");
      return;
    }
    if (endsAt <= instant(new Date(trialEnd))) {
      setError(`Choose a day after ${formats.day(trialEnd)}, when the trial ends now.`);
      return;
    }
    if (endsAt > later(LONGEST_DAYS)) {
      setError(`Choose a day before ${formats.day(later(LONGEST_DAYS))}.`);
      return;
    }
    // The day that was shown, not a number of days: two agents who both extend do not add up.
    const { isMade } = await send({ customer, trial_end: endsAt });
    if (isMade) onClose(`${companyName}’s trial ends on ${formats.day(endsAt)}`);
  };

  const dayError = problem?.problem?.errors.find(({ pointer }) => pointer === "/trial_end")?.detail;
  return (
    <ChangeDrawer
      title={`Extend the trial of ${companyName}`}
      action={endsAt ? `Extend until ${formats.day(endsAt)}` : "Extend"}
      leave="Leave it"
      isSending={isSending}
      problem={problem}
      onSubmit={submit}
      onClose={onClose}
    >
      <Choice
        label="How much longer"
        value={choice}
        options={[
          ...DAYS.map((days) => ({
            value: String(days),
            label: `${days} days, until ${formats.day(later(days))}`,
          })),
          { value: "date", label: "Until a day I choose" },
        ]}
        onChange={(chosen) => {
          setChoice(chosen);
          startOver();
        }}
      />
      {choice === "date" ? (
        <Day
          label="Last day"
          description="The trial goes on until the end of this day, UTC."
          value={date}
          error={error ?? dayError}
          onChange={(chosen) => {
            setDate(chosen);
            startOver();
          }}
        />
      ) : null}
      {endsAt ? (
        <Box>
          The trial ends on {formats.day(endsAt)} instead of {formats.day(trialEnd)}. Nothing is charged until
          then, and it can be ended sooner at any time.
        </Box>
      ) : null}
    </ChangeDrawer>
  );
};

export const EndTrialForm = ({ planName, ...props }: QuotedFormProps & { planName: string }) => {
  const quoted = useQuotedChange(props.api, props.customer);
  return (
    <QuoteDrawer
      {...props}
      quoted={quoted}
      title={`End the trial of ${props.companyName} now?`}
      leave="Let it run"
      request={() => ({ trial_end: "now" })}
      made={`${props.companyName}’s trial has ended; it pays for ${planName} now`}
      isForm={false}
    />
  );
};
