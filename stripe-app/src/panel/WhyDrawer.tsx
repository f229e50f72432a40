/** The whole story of one decision: every source that was considered, in order, and the cheapest way to a “yes”. */
import { Badge, Banner, Box, Button, Divider, FocusView, Inline } from "@stripe/ui-extension-sdk/ui";
import { Fragment } from "react";

import type { Api } from "../api";
import { useTrace } from "../exchange";
import { featureName, nameOf, type Formats } from "../format";
import { everyWords } from "../rhythm";
import type { Decision, TraceStep, Unlock } from "../types";
import { Loading, Trouble } from "./Trouble";

export const WhyDrawer = ({
  api,
  customer,
  decision,
  formats,
  onClose,
}: {
  api: Api;
  customer: string;
  decision: Decision;
  formats: Formats;
  onClose: (done: string | null) => void;
}) => {
  const { answer, problem, isLoading, reload } = useTrace(api, customer, decision.feature);
  const trace = answer?.trace;
  return (
    <FocusView
      shown
      title={`Why: ${featureName(decision)}`}
      setShown={(shown) => {
        if (!shown) onClose(null);
      }}
      primaryAction={
        <Button
          onPress={() => {
            onClose(null);
          }}
        >
          Close
        </Button>
      }
    >
      <Box css={{ stack: "y", rowGap: "medium" }}>
        {isLoading ? <Loading /> : null}
        {problem ? <Trouble problem={problem} onRetry={reload} /> : null}
        {trace?.unlock ? (
          <Banner title="What would allow it" description={unlockSentence(trace.unlock, formats)} />
        ) : null}
        {trace?.steps.map((step, index) => (
          <Fragment key={`${step.source.kind}:${step.source.key ?? ""}:${index}`}>
            {index > 0 ? <Divider /> : null}
            <Step step={step} />
          </Fragment>
        ))}
        {answer && !trace ? <Box>Plangate sent no further detail for this feature.</Box> : null}
      </Box>
    </FocusView>
  );
};

const Step = ({ step }: { step: TraceStep }) => {
  const outcome = OUTCOMES[step.outcome];
  return (
    <Box css={{ stack: "y", rowGap: "xsmall" }}>
      <Box css={{ stack: "x", distribute: "space-between", alignY: "center", columnGap: "small" }}>
        <Inline css={{ font: "bodyEmphasized" }}>{stepName(step)}</Inline>
        <Badge type={outcome.tone}>{outcome.text}</Badge>
      </Box>
      <Box css={{ color: "secondary", overflowWrap: "break-word" }}>{step.detail}</Box>
    </Box>
  );
};

const OUTCOMES = {
  won: { text: "Decided", tone: "positive" },
  combined: { text: "Counted in", tone: "info" },
  exhausted: { text: "Used up", tone: "negative" },
  lost: { text: "Outweighed", tone: "neutral" },
  not_matched: { text: "Did not apply", tone: "neutral" },
} as const;

function stepName({ source }: TraceStep): string {
  switch (source.kind) {
    case "plan":
      return `Plan ${nameOf(source)}`;
    case "add_on":
      return `Add-on ${nameOf(source)}`;
    case "rule":
      return `Rule ${nameOf(source)}`;
    case "override":
      return "Override";
    case "flag":
      return "Switch for everyone";
    case "default":
      return "The feature’s default";
    default:
      return nameOf({ key: source.kind });
  }
}

/** “ a month”, “ every 3 months”. */
function oftenWords({ interval, interval_count = 1 }: Unlock): string {
  if (!interval) return "";
  return interval_count === 1 ? ` a ${interval}` : ` ${everyWords({ interval, interval_count })}`;
}

/** “Pro, for US$20.00 a month: 1,000”, “Waiting until 3 December”. */
function unlockSentence(unlock: Unlock, formats: Formats): string {
  if (unlock.kind === "wait") {
    return unlock.at ? `Waiting: it resets on ${formats.day(unlock.at)}.` : "Waiting for the next period.";
  }
  const name = nameOf(unlock);
  if (unlock.kind === "contact_us")
    return name ? `${name}, which is sold by your team.` : "A plan sold by your team.";
  const price =
    typeof unlock.amount_minor === "number" && unlock.currency
      ? `, for ${formats.money(unlock.amount_minor, unlock.currency)}${oftenWords(unlock)}`
      : "";
  if (unlock.kind === "units" && typeof unlock.quantity === "number")
    return `${name}: ${formats.number(unlock.quantity)} paid in advance${price} more.`;
  const limit =
    unlock.limit === "unlimited"
      ? ", without a limit"
      : typeof unlock.limit === "number"
        ? `, with ${formats.number(unlock.limit)}`
        : "";
  const number = typeof unlock.quantity === "number" ? ` (${formats.number(unlock.quantity)} in all)` : "";
  return `${unlock.kind === "add_on" ? "The add-on " : "The plan "}${name}${number}${price}${limit}.`;
}
