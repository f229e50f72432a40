/** What somebody who opens this customer should know first. */
import { Banner, Box } from "@stripe/ui-extension-sdk/ui";

import type { Notice } from "../types";

const CRITICAL = new Set(["critical", "payment_failed", "past_due", "unpaid", "drift"]);
const CALM = new Set(["info", "scheduled", "trial"]);

export const Notices = ({ notices }: { notices: Notice[] }) =>
  notices.length === 0 ? null : (
    <Box css={{ stack: "y", rowGap: "small", marginBottom: "medium" }}>
      {notices.map((notice) => (
        <Banner key={`${notice.kind}:${notice.text}`} type={toneOf(notice.kind)} title={notice.text} />
      ))}
    </Box>
  );

/** A kind this version has not met is shown as a caution: better once too often than overlooked. */
function toneOf(kind: string): "default" | "caution" | "critical" {
  if (CRITICAL.has(kind)) return "critical";
  return CALM.has(kind) ? "default" : "caution";
}
