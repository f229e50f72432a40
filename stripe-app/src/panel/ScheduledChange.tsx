/** A plan change that is still to come: a calm banner, and the drawer in which it is cancelled. */
import { Banner, Box, Button } from "@stripe/ui-extension-sdk/ui";

import type { Api } from "../api";
import { useChange } from "../exchange";
import { nameOf, type Formats } from "../format";
import { everyWords, rhythmKey } from "../rhythm";
import type { ScheduledChange } from "../types";
import { ChangeDrawer } from "./ChangeDrawer";

/** The names of both ends, and the day, as the banner and the drawer say them. */
export interface ChangeWords {
  from: string;
  /** Null when the subscription ends and no plan is named. */
  to: string | null;
  /** The plan stays and something else of it changes, such as how often it is billed. */
  isSamePlan: boolean;
  /** “monthly billing”, “billing every 3 months”; null where that stays as it is. */
  billing: string | null;
  day: string;
}

export function changeWords(change: ScheduledChange, currentPlan: string, formats: Formats): ChangeWords {
  const from = nameOf({ key: change.from?.plan }) || currentPlan;
  const to = nameOf({ key: change.to ? change.to.plan : change.plan }) || null;
  return {
    from,
    to,
    isSamePlan: to === from,
    billing: billingAfter(change),
    day: formats.day(change.effective_at),
  };
}

function billingAfter({ from, to }: ScheduledChange): string | null {
  if (!to?.interval) return null;
  const { interval, interval_count } = to;
  const key = rhythmKey({ interval, interval_count });
  if (from?.interval && key === rhythmKey({ interval: from.interval, interval_count: from.interval_count }))
    return null;
  if (key === "month") return "monthly billing";
  return key === "year" ? "yearly billing" : `billing ${everyWords({ interval, interval_count })}`;
}

function bannerTitle(words: ChangeWords): string {
  if (words.to === null) return `The subscription ends on ${words.day}`;
  if (words.isSamePlan && words.billing) return `Switches to ${words.billing} on ${words.day}`;
  return words.isSamePlan ? `${words.from} changes on ${words.day}` : `Moves to ${words.to} on ${words.day}`;
}

export const ScheduledChangeBanner = ({
  words,
  companyName,
  isOurs,
  canWrite,
  onCancel,
}: {
  words: ChangeWords;
  companyName: string;
  /** Made through Plangate; what was scheduled in Stripe itself has no id here. */
  isOurs: boolean;
  canWrite: boolean;
  onCancel: () => void;
}) => (
  <Banner
    type="default"
    title={bannerTitle(words)}
    description={
      isOurs
        ? `Until then ${companyName} keeps ${words.from} as it is.`
        : `Until then ${companyName} keeps ${words.from} as it is. It was scheduled in Stripe.`
    }
    actions={
      canWrite ? (
        <Button size="small" onPress={onCancel}>
          Keep {words.from}
        </Button>
      ) : undefined
    }
  />
);

export const CancelScheduledForm = ({
  api,
  customer,
  companyName,
  changeId,
  words,
  onClose,
}: {
  api: Api;
  customer: string;
  companyName: string;
  changeId: string;
  words: ChangeWords;
  onClose: (done: string | null) => void;
}) => {
  const { isSending, problem, send } = useChange(api, "plan.cancel_scheduled");

  const submit = async () => {
    const { isMade } = await send({ customer, change: changeId });
    if (isMade) onClose(`${companyName} keeps ${words.from}`);
  };

  return (
    <ChangeDrawer
      title={`Keep ${words.from}?`}
      action={`Keep ${words.from}`}
      leave="Leave it scheduled"
      isSending={isSending}
      problem={problem}
      onSubmit={submit}
      onClose={onClose}
    >
      <Box>
        {companyName} stays on {words.from}
        {words.day ? ` after ${words.day}` : ""} and goes on paying for it. Nothing is charged now. The change{" "}
        {words.to ? `to ${words.to} ` : ""}can be scheduled again at any time.
      </Box>
    </ChangeDrawer>
  );
};
