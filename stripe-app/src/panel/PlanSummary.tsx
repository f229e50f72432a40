/** What the company is on and when it pays next, in one line of sight. */
import { Badge, Box, PropertyList, PropertyListItem } from "@stripe/ui-extension-sdk/ui";

import type { ReactNode } from "react";

import { billingWords, nameOf, statusWords, type Formats } from "../format";
import type { Company, Subscription } from "../types";
import { Section } from "./Section";

export const PlanSummary = ({
  company,
  subscription,
  formats,
  children,
}: {
  company: Company;
  subscription: Subscription | null;
  formats: Formats;
  /** What can be done about it. */
  children?: ReactNode;
}) => {
  const status = subscription ? statusWords(subscription.status) : null;
  const billing = subscription ? billingWords(subscription) : null;
  const next = subscription ? nextStep(subscription, formats) : null;
  return (
    <Section title="Plan">
      <Box css={{ stack: "x", columnGap: "small", alignY: "center" }}>
        <Box css={{ font: "title" }}>{company.plan ? nameOf(company.plan) : "No plan"}</Box>
        {status ? <Badge type={status.tone}>{status.text}</Badge> : null}
      </Box>
      <PropertyList orientation="horizontal">
        {company.plan ? (
          <PropertyListItem label="Comes from" value={originWords(company.plan, formats)} />
        ) : null}
        {billing ? <PropertyListItem label="Billed" value={billing} /> : null}
        {next ? <PropertyListItem label={next.label} value={next.value} /> : null}
        {company.add_ons.length > 0 ? (
          <PropertyListItem
            label="Add-ons"
            value={company.add_ons
              .map(
                (addOn) => nameOf(addOn) + (addOn.quantity > 1 ? ` × ${formats.number(addOn.quantity)}` : ""),
              )
              .join(", ")}
          />
        ) : null}
      </PropertyList>
      {children}
    </Section>
  );
};

/** The next thing that happens by itself: the end where one is set, otherwise the renewal. */
function nextStep(subscription: Subscription, formats: Formats): { label: string; value: string } | null {
  if (subscription.cancel_at) return { label: "Ends", value: formats.day(subscription.cancel_at) };
  if (subscription.status === "trialing" && subscription.trial_end) {
    return { label: "Trial ends", value: formats.day(subscription.trial_end) };
  }
  const end = subscription.period?.end ?? subscription.period?.resets_at;
  if (!end) return null;
  switch (subscription.status) {
    case "active":
    case "past_due":
      return { label: "Renews", value: formats.day(end) };
    case "trialing":
      return { label: "Trial ends", value: formats.day(end) };
    default:
      return null;
  }
}

function originWords(plan: NonNullable<Company["plan"]>, formats: Formats): string {
  const version = plan.version === null ? "" : `, version ${formats.number(plan.version)}`;
  switch (plan.source) {
    case "subscription":
      return `Its Stripe subscription${version}`;
    case "assignment":
      return `Assigned by hand${version}`;
    case "audience":
      return `An audience rule${version}`;
    case "initial":
      return `The plan a new company starts on${version}`;
    case "trial_expiry":
      return `The plan after a trial without a card${version}`;
    case "fallback":
      return `The plan without a subscription${version}`;
    default:
      return `${nameOf({ key: plan.source })}${version}`;
  }
}
