/** The drawers in which a subscription is cancelled, and in which an end or a change that was set is taken back. */
import { Box, Select } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import { useQuotedChange } from "../quoting";
import { QuoteDrawer, type QuotedFormProps } from "./QuoteDrawer";

export const CancelForm = ({
  planName,
  periodEndsAt,
  ...props
}: QuotedFormProps & { planName: string; periodEndsAt: string | null }) => {
  const { api, customer, companyName, formats } = props;
  const [when, setWhen] = useState<"period_end" | "now">("period_end");
  const quoted = useQuotedChange(api, customer);
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
      <Select
        label="When"
        value={when}
        onChange={(event) => {
          setWhen(event.target.value === "now" ? "now" : "period_end");
          quoted.forget();
        }}
      >
        <option value="period_end">
          {periodEndsAt
            ? `At the end of the paid period, ${formats.day(periodEndsAt)}`
            : "At the end of the paid period"}
        </option>
        <option value="now">Now</option>
      </Select>
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
