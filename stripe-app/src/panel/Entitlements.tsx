/** Every feature with what is granted, what is used, and why. */
import { Badge, Box, Divider, Inline, Link } from "@stripe/ui-extension-sdk/ui";
import { MeterChart } from "@stripe/ui-extension-sdk/ui/next";
import { Fragment } from "react";

import { featureName, isMetered, percentUsed, usageSentence, valueSentence, type Formats } from "../format";
import type { Decision, Override } from "../types";
import { whySentence } from "../why";
import { Section } from "./Section";

/** From this share on, a limit is worth a warning. */
const WARN_PERCENT = 80;

export const Entitlements = ({
  entitlements,
  overrides,
  formats,
  onWhy,
}: {
  entitlements: Decision[];
  overrides: Override[];
  formats: Formats;
  onWhy: (decision: Decision) => void;
}) => (
  <Section title="Entitlements">
    {entitlements.length === 0 ? (
      <Box css={{ color: "secondary" }}>
        The catalogue has no features yet. Add them to your catalogue file and apply it.
      </Box>
    ) : (
      inOrder(entitlements).map((decision, index) => (
        <Fragment key={decision.feature}>
          {index > 0 ? <Divider /> : null}
          <Entitlement decision={decision} overrides={overrides} formats={formats} onWhy={onWhy} />
        </Fragment>
      ))
    )}
  </Section>
);

const Entitlement = ({
  decision,
  overrides,
  formats,
  onWhy,
}: {
  decision: Decision;
  overrides: Override[];
  formats: Formats;
  onWhy: (decision: Decision) => void;
}) => {
  const state = stateOf(decision);
  const usage = usageSentence(decision, formats);
  const value = valueSentence(decision, formats);
  return (
    <Box css={{ stack: "y", rowGap: "xsmall" }}>
      <Box css={{ stack: "x", distribute: "space-between", alignY: "center", columnGap: "small" }}>
        <Inline css={{ font: "bodyEmphasized", overflowWrap: "break-word" }}>{featureName(decision)}</Inline>
        <Badge type={state.tone}>{state.text}</Badge>
      </Box>
      {value !== null ? <Box css={{ overflowWrap: "break-word" }}>{value}</Box> : null}
      {usage !== null ? <Box>{usage}</Box> : null}
      {decision.paid ? <Box>{decision.paid}</Box> : null}
      <UsageBar decision={decision} />
      <Box css={{ stack: "x", distribute: "space-between", alignY: "baseline", columnGap: "small" }}>
        <Inline css={{ font: "caption", color: "secondary", overflowWrap: "break-word" }}>
          {whySentence(decision, overrides, formats)}
        </Inline>
        <Link
          onPress={() => {
            onWhy(decision);
          }}
        >
          Why?
        </Link>
      </Box>
      {decision.stale ? (
        <Box css={{ font: "caption", color: "attention" }}>Last known answer: it may be out of date.</Box>
      ) : null}
    </Box>
  );
};

/** The bar of a limited feature: used, reserved, left. Nothing to draw without a limit. */
const UsageBar = ({ decision }: { decision: Decision }) => {
  if (percentUsed(decision) === null || !decision.limit) return null;
  const used = Math.max(0, decision.used ?? 0);
  const reserved = Math.max(0, decision.reserved ?? 0);
  const segments = [
    { label: "Used", value: used },
    ...(reserved > 0 ? [{ label: "Reserved", value: reserved }] : []),
    { label: "Left", value: Math.max(0, decision.limit - used - reserved) },
  ];
  return <MeterChart data={segments} legendEnabled={false} unitFormat={{ unit: "number", options: {} }} />;
};

type Tone = "neutral" | "warning" | "negative" | "positive" | "info";

/** One word for the state, because a colour alone says nothing to some. */
function stateOf(decision: Decision): { text: string; tone: Tone } {
  if (decision.reason === "override_denied") return { text: "Denied", tone: "negative" };
  if (decision.reason === "limit_reached" || decision.reason === "credits_exhausted") {
    return decision.limit === 0
      ? { text: "Not included", tone: "neutral" }
      : { text: "Used up", tone: "negative" };
  }
  if (!decision.allowed) return { text: isMetered(decision) ? "Not included" : "Off", tone: "neutral" };
  if (!isMetered(decision)) return { text: "On", tone: "positive" };
  if (decision.over_soft_limit)
    return { text: decision.paid ? "Overage" : "Over soft limit", tone: "warning" };
  if (decision.unlimited) return { text: "Unlimited", tone: "info" };
  const percent = percentUsed(decision);
  if (percent === null) return { text: "On", tone: "positive" };
  const text = `${percent}% used`;
  return percent >= WARN_PERCENT ? { text, tone: "warning" } : { text, tone: "positive" };
}

/** What needs attention first: used up, then nearly, then the other meters, then the rest in catalogue order. */
function inOrder(entitlements: Decision[]): Decision[] {
  return entitlements
    .map((decision, index) => ({ decision, index, rank: rankOf(decision) }))
    .sort((left, right) => left.rank - right.rank || left.index - right.index)
    .map(({ decision }) => decision);
}

function rankOf(decision: Decision): number {
  const { tone } = stateOf(decision);
  if (tone === "negative") return 0;
  if (tone === "warning") return 1;
  return isMetered(decision) && decision.allowed ? 2 : 3;
}
