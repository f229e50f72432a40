/** How the panel says that something did not work: what happened, and what to do now. */
import { Banner, Box, Button, Spinner } from "@stripe/ui-extension-sdk/ui";

import type { ApiProblem } from "../api";

/** A call that failed, with a way to try again where trying again can help. */
export const Trouble = ({ problem, onRetry }: { problem: ApiProblem; onRetry?: () => void }) => {
  const reference = problem.problem?.request_id;
  return (
    <Banner
      type={problem.kind === "refused" ? "caution" : "critical"}
      title={titleOf(problem)}
      description={`${problem.message}${reference ? ` (Request ${reference})` : ""}`}
      actions={
        onRetry && problem.kind !== "setup" ? (
          <Button size="small" onPress={onRetry}>
            Try again
          </Button>
        ) : undefined
      }
    />
  );
};

export const Loading = () => (
  <Box css={{ stack: "x", alignX: "center", paddingY: "xxlarge" }}>
    <Spinner size="large" />
  </Box>
);

function titleOf(problem: ApiProblem): string {
  switch (problem.kind) {
    case "setup":
      return "Plangate is not set up here";
    case "signature":
      return "Stripe did not sign the request";
    case "offline":
      return "No connection to Plangate";
    case "timeout":
      return "Plangate is taking too long";
    case "unreadable":
      return "That was not Plangate’s answer";
    case "refused":
      return problem.problem?.title ?? "Plangate refused this";
  }
}
