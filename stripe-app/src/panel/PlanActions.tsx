/** What an agent can do about the plan itself, as far as the subscription allows it. */
import { Box, Button } from "@stripe/ui-extension-sdk/ui";

import type { CustomerPage } from "../types";

export type PlanAction = "change_plan" | "extend_trial" | "end_trial" | "cancel" | "resume";

/** Which actions make sense now; the server decides by itself all the same. */
export function planActions(page: CustomerPage): { action: PlanAction; label: string }[] {
  const subscription = page.subscription ?? page.company?.subscription ?? null;
  const actions: { action: PlanAction; label: string }[] = [{ action: "change_plan", label: "Change plan" }];
  if (!subscription || OVER.has(subscription.status)) return actions;
  if (subscription.status === "trialing" && subscription.trial_end) {
    actions.push({ action: "extend_trial", label: "Extend trial" });
    actions.push({ action: "end_trial", label: "End trial now" });
  }
  const scheduled = page.scheduled_change;
  const isEnding = subscription.cancel_at !== null || scheduled?.kind === "cancel";
  if (!isEnding) actions.push({ action: "cancel", label: "Cancel subscription" });
  // A scheduled end has its banner with a way back; one without a banner finds it here.
  else if (!scheduled) actions.push({ action: "resume", label: "Keep subscription" });
  return actions;
}

const OVER = new Set(["canceled", "incomplete_expired"]);

export const PlanActions = ({
  page,
  onAction,
}: {
  page: CustomerPage;
  onAction: (action: PlanAction) => void;
}) => (
  <Box css={{ stack: "x", columnGap: "small", rowGap: "small", wrap: "wrap" }}>
    {planActions(page).map(({ action, label }) => (
      <Button
        key={action}
        size="small"
        onPress={() => {
          onAction(action);
        }}
      >
        {label}
      </Button>
    ))}
  </Box>
);
