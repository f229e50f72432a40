/** One customer's panel: loads the page, shows its parts, and opens one drawer at a time. */
import { Box, Button, ContextView, Inline } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import { announce } from "../announce";
import type { Api } from "../api";
import { useCustomerPage, type PageState } from "../exchange";
import { formatsFor, nameOf } from "../format";
import type { Company, CustomerPage } from "../types";
import { Entitlements } from "./Entitlements";
import { Notices } from "./Notices";
import { namesOf, OpenDrawer, type Drawer } from "./OpenDrawer";
import { Overrides } from "./Overrides";
import { PendingChangeBanner } from "./PaymentLink";
import { PlanActions } from "./PlanActions";
import { PlanSummary } from "./PlanSummary";
import { changeWords, ScheduledChangeBanner } from "./ScheduledChange";
import { Loading, Trouble } from "./Trouble";

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
              setDrawer({ kind: change.id === null ? "resume" : "keep_plan" });
            }}
          />
        </Box>
      ) : null}
      {page.pending_change ? (
        <Box css={{ marginBottom: "medium" }}>
          <PendingChangeBanner change={page.pending_change} companyName={companyName} />
        </Box>
      ) : null}
      <PlanSummary company={company} subscription={subscription} formats={formats}>
        {canWrite ? (
          <PlanActions
            page={page}
            onAction={(kind) => {
              setDrawer({ kind });
            }}
          />
        ) : null}
      </PlanSummary>
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

function companyKeys(company: Company): string {
  return Object.entries(company.keys)
    .map(([name, value]) => `${name}: ${value}`)
    .join(", ");
}
