/** Which drawer is open beside the panel, and the form behind each. */
import type { Api } from "../api";
import { featureName, nameOf, type Formats } from "../format";
import type { CustomerPage, Decision, Override } from "../types";
import { ChangePlanForm } from "./ChangePlanForm";
import { CancelForm, ResumeForm } from "./EndingForms";
import { OverrideForm } from "./OverrideForm";
import type { PlanAction } from "./PlanActions";
import { RevokeForm } from "./RevokeForm";
import { CancelScheduledForm, changeWords } from "./ScheduledChange";
import { EndTrialForm, ExtendTrialForm } from "./TrialForms";
import { WhyDrawer } from "./WhyDrawer";

export type Drawer =
  | { kind: "grant"; openedAt: Date }
  | { kind: "edit"; override: Override; openedAt: Date }
  | { kind: "revoke"; override: Override }
  | { kind: PlanAction }
  | { kind: "keep_plan" }
  | { kind: "why"; decision: Decision };

export const OpenDrawer = ({
  api,
  customer,
  companyName,
  page,
  drawer,
  formats,
  onClose,
}: {
  api: Api;
  customer: string;
  companyName: string;
  page: CustomerPage;
  drawer: Drawer;
  formats: Formats;
  onClose: (done: string | null) => void;
}) => {
  const shared = { api, customer, companyName, formats, onClose };
  const quoted = { ...shared, isAdmin: page.role === "admin" };
  const subscription = page.subscription ?? page.company?.subscription ?? null;
  const period = subscription?.period;
  const periodEndsAt = period?.end ?? period?.resets_at ?? null;
  const planName = page.company?.plan ? nameOf(page.company.plan) : "the current plan";
  switch (drawer.kind) {
    case "grant":
    case "edit":
      return (
        <OverrideForm
          {...shared}
          entitlements={page.entitlements}
          editing={drawer.kind === "edit" ? drawer.override : undefined}
          openedAt={drawer.openedAt}
          periodEndsAt={periodEndsAt}
        />
      );
    case "revoke": {
      const { override } = drawer;
      const name = namesOf(page).get(override.feature) ?? nameOf({ key: override.feature });
      return <RevokeForm {...shared} override={override} featureName={name} />;
    }
    case "why":
      return <WhyDrawer {...shared} decision={drawer.decision} />;
    case "change_plan":
      return <ChangePlanForm {...quoted} />;
    case "cancel": {
      const isTrial = subscription?.status === "trialing" && subscription.trial_end;
      const endsAt = isTrial ? (subscription.trial_end ?? null) : periodEndsAt;
      return <CancelForm {...quoted} planName={planName} periodEndsAt={endsAt} />;
    }
    case "resume":
      return <ResumeForm {...quoted} planName={planName} />;
    case "extend_trial":
      return subscription?.trial_end ? (
        <ExtendTrialForm {...quoted} trialEnd={subscription.trial_end} />
      ) : null;
    case "end_trial":
      return <EndTrialForm {...quoted} planName={planName} />;
    case "keep_plan": {
      const change = page.scheduled_change;
      if (!change?.id) return null;
      return (
        <CancelScheduledForm
          {...shared}
          changeId={change.id}
          words={changeWords(change, planName, formats)}
        />
      );
    }
  }
};

/** The names of all features that the page knows, by key. */
export function namesOf(page: CustomerPage): ReadonlyMap<string, string> {
  return new Map(page.entitlements.map((decision) => [decision.feature, featureName(decision)]));
}
