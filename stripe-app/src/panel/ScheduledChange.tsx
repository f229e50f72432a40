/** A plan change that is still to come: a calm banner, and the drawer in which it is cancelled. */
import { Banner, Box, Button } from "@stripe/ui-extension-sdk/ui";

import type { Api } from "../api";
import { useChange } from "../exchange";
import { nameOf, type Formats } from "../format";
import type { ScheduledChange } from "../types";
import { ChangeDrawer } from "./ChangeDrawer";

/** The names of both ends, and the day, as the banner and the drawer say them. */
export interface ChangeWords {
  from: string;
  /** Null when the subscription ends and no plan is named. */
  to: string | null;
  /** The plan stays and something else of it changes, such as the interval. */
  isSamePlan: boolean;
  interval: string | null;
  day: string;
}

export function changeWords(change: ScheduledChange, currentPlan: string, formats: Formats): ChangeWords {
  const from = nameOf({ key: change.from?.plan }) || currentPlan;
  const to = nameOf({ key: change.to ? change.to.plan : change.plan }) || null;
  return {
    from,
    to,
    isSamePlan: to === from,
    interval: intervalWords(change.to?.interval),
    day: formats.day(change.effective_at),
  };
}

function intervalWords(interval: string | null | undefined): string | null {
  if (interval === "month") return "monthly";
  if (interval === "year") return "yearly";
  return interval ? `every ${interval}` : null;
}

function bannerTitle(words: ChangeWords): string {
  if (words.to === null) return `The subscription ends on ${words.day}`;
  if (words.isSamePlan && words.interval) return `Switches to ${words.interval} billing on ${words.day}`;
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
