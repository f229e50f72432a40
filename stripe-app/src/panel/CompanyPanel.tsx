/** One customer's panel: loads the page, shows its parts, and opens one drawer at a time. */
import { Box, Button, ContextView, Inline } from "@stripe/ui-extension-sdk/ui";
import { showToast } from "@stripe/ui-extension-sdk/utils";
import { useState } from "react";

import type { Api } from "../api";
import { useCustomerPage, type PageState } from "../exchange";
import { featureName, formatsFor, nameOf, type Formats } from "../format";
import type { Company, CustomerPage, Decision, Override } from "../types";
import { Entitlements } from "./Entitlements";
import { Notices } from "./Notices";
import { OverrideForm } from "./OverrideForm";
import { Overrides } from "./Overrides";
import { PlanSummary } from "./PlanSummary";
import { RevokeForm } from "./RevokeForm";
import { CancelScheduledForm, changeWords, ScheduledChangeBanner } from "./ScheduledChange";
import { Loading, Trouble } from "./Trouble";
import { WhyDrawer } from "./WhyDrawer";

type Drawer =
  | { kind: "grant"; openedAt: Date }
  | { kind: "edit"; override: Override; openedAt: Date }
  | { kind: "revoke"; override: Override }
  | { kind: "keep_plan" }
  | { kind: "why"; decision: Decision };

export const CompanyPanel = ({ api, customer, locale }: { api: Api; customer: string; locale: string }) => {
  const state = useCustomerPage(api, customer);
  const { answer, problem, isLoading, reload } = state;
  const page = answer?.page;

  if (page?.company)
    return <LoadedPanel {...{ api, customer, locale, state, page, company: page.company }} />;
  if (isLoading) {
    return (
      <ContextView title="Plangate">
        <Loading />
      </ContextView>
    );
  }
  if (problem && problem.problem?.status !== 404) {
    return (
      <ContextView title="Plangate">
        <Trouble problem={problem} onRetry={reload} />
      </ContextView>
    );
  }
  return <UnknownCustomer customer={customer} onRetry={reload} />;
};

/** Plangate answers with “not found” for a customer that no company claims, which is a state and not a failure. */
const UnknownCustomer = ({ customer, onRetry }: { customer: string; onRetry: () => void }) => (
  <ContextView title="Plangate" description="Not linked yet">
    <Box css={{ stack: "y", rowGap: "medium" }}>
      <Box css={{ font: "heading" }}>No company uses this Stripe customer yet</Box>
      <Box>
        It appears here as soon as your product sends its company with the Stripe customer id{" "}
        <Inline css={{ fontFamily: "monospace", overflowWrap: "break-word" }}>{customer}</Inline> or the next
        import from Stripe finds it.
      </Box>
      <Box>
        <Button onPress={onRetry}>Look again</Button>
      </Box>
    </Box>
  </ContextView>
);

const LoadedPanel = ({
  api,
  customer,
  locale,
  state,
  page,
  company,
}: {
  api: Api;
  customer: string;
  locale: string;
  state: PageState;
  page: CustomerPage;
  company: Company;
}) => {
  const [drawer, setDrawer] = useState<Drawer | null>(null);
  const now = new Date(Date.now() + (state.answer?.clockOffsetMs ?? 0));
  const formats = formatsFor(locale, now);
  const companyName = company.name ?? Object.values(company.keys)[0] ?? company.id;
  // The server decides what somebody may do; hiding what it would refuse is a courtesy.
  const canWrite = page.role === "agent" || page.role === "admin";
  const subscription = page.subscription ?? company.subscription;
  const change = page.scheduled_change;
  const words = change
    ? changeWords(change, company.plan ? nameOf(company.plan) : "the current plan", formats)
    : null;

  const close = (done: string | null) => {
    setDrawer(null);
    if (done === null) return;
    announce(done);
    state.reload();
  };

  return (
    <ContextView
      title={companyName}
      description={companyKeys(company)}
      actions={
        <Button size="small" pending={state.isLoading} onPress={state.reload}>
          Refresh
        </Button>
      }
      footerContent={
        <Box css={{ font: "caption", color: "secondary" }}>
          {canWrite
            ? "Days are in UTC."
            : "You can look, not change. An operator of Plangate gives out the agent role. Days are in UTC."}
        </Box>
      }
    >
      {state.problem ? <Trouble problem={state.problem} onRetry={state.reload} /> : null}
      <Notices notices={page.notices} />
      {change && words ? (
        <Box css={{ marginBottom: "medium" }}>
          <ScheduledChangeBanner
            words={words}
            companyName={companyName}
            isOurs={change.id !== null}
            canWrite={canWrite}
            onCancel={() => {
              setDrawer({ kind: "keep_plan" });
            }}
          />
        </Box>
      ) : null}
      <PlanSummary company={company} subscription={subscription} formats={formats} />
      <Entitlements
        entitlements={page.entitlements}
        overrides={page.overrides}
        formats={formats}
        onWhy={(decision) => {
          setDrawer({ kind: "why", decision });
        }}
      />
      <Overrides
        overrides={page.overrides}
        featureNames={namesOf(page)}
        formats={formats}
        canWrite={canWrite}
        onGrant={() => {
          setDrawer({ kind: "grant", openedAt: now });
        }}
        onEdit={(override) => {
          setDrawer({ kind: "edit", override, openedAt: now });
        }}
        onRevoke={(override) => {
          setDrawer({ kind: "revoke", override });
        }}
      />
      {drawer ? (
        <OpenDrawer {...{ api, customer, companyName, page, drawer, formats, onClose: close }} />
      ) : null}
    </ContextView>
  );
};

const OpenDrawer = ({
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
  switch (drawer.kind) {
    case "grant":
    case "edit": {
      const period = (page.subscription ?? page.company?.subscription)?.period;
      return (
        <OverrideForm
          {...shared}
          entitlements={page.entitlements}
          editing={drawer.kind === "edit" ? drawer.override : undefined}
          openedAt={drawer.openedAt}
          periodEndsAt={period?.end ?? period?.resets_at ?? null}
        />
      );
    }
    case "revoke": {
      const { override } = drawer;
      const name = namesOf(page).get(override.feature) ?? nameOf({ key: override.feature });
      return <RevokeForm {...shared} override={override} featureName={name} />;
    }
    case "why":
      return <WhyDrawer {...shared} decision={drawer.decision} />;
    case "keep_plan": {
      const change = page.scheduled_change;
      if (!change?.id) return null;
      const current = page.company?.plan ? nameOf(page.company.plan) : "the current plan";
      return (
        <CancelScheduledForm {...shared} changeId={change.id} words={changeWords(change, current, formats)} />
      );
    }
  }
};

function namesOf(page: CustomerPage): ReadonlyMap<string, string> {
  return new Map(page.entitlements.map((decision) => [decision.feature, featureName(decision)]));
}

function companyKeys(company: Company): string {
  return Object.entries(company.keys)
    .map(([name, value]) => `${name}: ${value}`)
    .join(", ");
}

/** A toast that cannot be shown must not make a change that was made look like one that failed. */
function announce(sentence: string): void {
  showToast(sentence, { type: "success" }).catch(() => undefined);
}
