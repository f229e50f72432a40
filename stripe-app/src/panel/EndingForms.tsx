/** The drawers in which a subscription is cancelled, and in which an end or a change that was set is taken back. */
import { Box } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import { useQuotedChange } from "../quoting";
import { Choice } from "./fields";
import { QuoteDrawer, type QuotedFormProps } from "./QuoteDrawer";

export const CancelForm = ({
  planName,
  periodEndsAt,
  ...props
}: QuotedFormProps & { planName: string; periodEndsAt: string | null }) => {
  const { api, customer, companyName, formats } = props;
  const [when, setWhen] = useState<"period_end" | "now">("period_end");
  const quoted = useQuotedChange(api, customer);
  const day = periodEndsAt ? `, ${formats.day(periodEndsAt)}` : "";
  return (
    <QuoteDrawer
      {...props}
      quoted={quoted}
      title={`Cancel the subscription of ${companyName}`}
      leave={`Keep ${planName}`}
      request={() => ({ cancel: when })}
      made={`${companyName}’s subscription has ended`}
    >
      <Box>
        Afterwards {companyName} is on the plan without a subscription. Usage so far, overrides and the
        history are kept. An end that is still to come can be taken back until then.
      </Box>
      <Choice
        label="When"
        value={when}
        options={[
          { value: "period_end", label: `At the end of the paid period${day}` },
          { value: "now", label: "Now" },
        ]}
        onChange={(chosen) => {
          setWhen(chosen);
          quoted.forget();
        }}
      />
    </QuoteDrawer>
  );
};

/** Takes back what is set to happen, also what somebody scheduled in Stripe. */
export const ResumeForm = ({ planName, ...props }: QuotedFormProps & { planName: string }) => {
  const quoted = useQuotedChange(props.api, props.customer);
  return (
    <QuoteDrawer
      {...props}
      quoted={quoted}
      title={`Keep ${planName}?`}
      leave="Leave it as it is"
      request={() => ({ resume: true })}
      made={`${props.companyName} keeps ${planName}`}
      isForm={false}
    />
  );
};
