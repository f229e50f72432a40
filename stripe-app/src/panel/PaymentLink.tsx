/** What a change waits for when the customer has a step to take, and the link that leads there. */
import { Banner, Box, Button, FocusView, Link } from "@stripe/ui-extension-sdk/ui";
import { clipboardWriteText } from "@stripe/ui-extension-sdk/utils";

import { announce } from "../announce";
import { nameOf } from "../format";
import { webAction } from "../quoting";
import type { NextAction, PlanChange } from "../types";

/** The page to send the customer to: to open, and to copy. */
export const PaymentLink = ({ action }: { action: NextAction }) => (
  <Box css={{ stack: "x", columnGap: "medium", alignY: "center" }}>
    <Button
      size="small"
      onPress={() => {
        clipboardWriteText(action.url).then(
          () => {
            announce("Link copied");
          },
          () => {
            announce("The link could not be copied. Open it and copy its address.", "caution");
          },
        );
      }}
    >
      Copy the link
    </Button>
    <Link href={action.url} target="_blank" external>
      Open it
    </Link>
  </Box>
);

/** The last step of a change that the customer has to finish. */
export const PaymentLinkDrawer = ({
  action,
  companyName,
  onClose,
}: {
  action: NextAction;
  companyName: string;
  onClose: () => void;
}) => (
  <FocusView
    shown
    title={`Send this to ${companyName}`}
    setShown={(shown) => {
      if (!shown) onClose();
    }}
    primaryAction={
      <Button type="primary" onPress={onClose}>
        Done
      </Button>
    }
  >
    <Box css={{ stack: "y", rowGap: "medium" }}>
      <Box>{waitWords(action.kind, companyName)} Until then nothing changes.</Box>
      <PaymentLink action={action} />
      <Box css={{ font: "caption", color: "secondary" }}>
        The link stays on this customer’s panel until the change is made.
      </Box>
    </Box>
  </FocusView>
);

/** A change that is under way, on the panel. */
export const PendingChangeBanner = ({ change, companyName }: { change: PlanChange; companyName: string }) => {
  const action = webAction(change.next_action);
  const to = nameOf({ key: change.to.plan }) || "another plan";
  const isWaiting = change.state === "awaiting_payment" || change.state === "requires_action";
  return (
    <Banner
      title={isWaiting ? `The change to ${to} waits for ${companyName}` : `The change to ${to} is being made`}
      description={isWaiting ? waitWords(action?.kind ?? "", companyName) : "Refresh in a moment to see it."}
      actions={action ? <PaymentLink action={action} /> : undefined}
    />
  );
};

function waitWords(kind: string, companyName: string): string {
  switch (kind) {
    case "checkout":
      return `${companyName} pays on Stripe’s payment page, and the change is made then.`;
    case "pay_invoice":
      return `${companyName} pays the invoice on its page, and the change is made then.`;
    default:
      return `${companyName}’s bank wants the payment confirmed, and the change is made then.`;
  }
}
