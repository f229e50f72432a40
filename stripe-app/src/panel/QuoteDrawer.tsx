/** The drawer of every change that is quoted first: what is wanted, the receipt, the confirmation, and what follows. */
import { Banner, Box, Spinner } from "@stripe/ui-extension-sdk/ui";
import { useEffect, useState, type ReactNode } from "react";

import type { Api } from "../api";
import type { Formats } from "../format";
import { confirmWords, outcomeSentence, violationSentence } from "../quoteWords";
import type { QuotedChange, QuoteRequest } from "../quoting";
import { NOTE_MISSING } from "../typed";
import type { Problem } from "../types";
import { ChangeDrawer } from "./ChangeDrawer";
import { Note } from "./fields";
import { PaymentLink, PaymentLinkDrawer } from "./PaymentLink";
import { QuoteReceipt } from "./QuoteReceipt";

/** What all forms of quoted changes are given. */
export interface QuotedFormProps {
  api: Api;
  customer: string;
  companyName: string;
  /** Admins alone may go on in spite of the limits. */
  isAdmin: boolean;
  formats: Formats;
  onClose: (done: string | null) => void;
}

export const QuoteDrawer = ({
  quoted,
  companyName,
  isAdmin,
  formats,
  onClose,
  title,
  leave,
  request,
  made,
  isForm = true,
  children,
}: Omit<QuotedFormProps, "api" | "customer"> & {
  quoted: QuotedChange;
  title: string;
  leave: string;
  /** What is wanted, or null when the form has to be mended first and says so itself. */
  request: () => QuoteRequest | null;
  /** What is announced when the change took effect. */
  made: string;
  /** Whether there is anything to choose; otherwise the quote is asked for at once. */
  isForm?: boolean;
  children?: ReactNode;
}) => {
  const [reason, setReason] = useState("");
  const [reasonError, setReasonError] = useState<string | undefined>();
  const { quote, problem, isAsking, isConfirming, waitsFor } = quoted;
  const refusal = problem?.problem ?? null;
  const mayForce = isAdmin && refusal?.may_force === true;

  const preview = async () => {
    if (isAsking) return;
    const wanted = request();
    if (!wanted) return;
    const force = reason.trim();
    if (mayForce && force === "") {
      setReasonError(NOTE_MISSING);
      return;
    }
    await quoted.ask({ ...wanted, ...(mayForce ? { force_reason: force } : {}) });
  };

  useEffect(() => {
    if (!isForm) void preview();
    // eslint-disable-next-line react-hooks/exhaustive-deps -- asked once, when the drawer opens.
  }, []);

  const confirm = async () => {
    const done = await quoted.confirm();
    if (done) onClose(outcomeSentence(done.change, companyName, made, formats));
  };

  if (waitsFor) {
    return (
      <PaymentLinkDrawer
        action={waitsFor.action}
        companyName={companyName}
        onClose={() => {
          onClose(outcomeSentence(waitsFor.change, companyName, `Waiting for ${companyName}`, formats));
        }}
      />
    );
  }
  const action = quote ? confirmWords(quote, formats) : mayForce ? "Preview all the same" : "Preview";
  return (
    <ChangeDrawer
      title={title}
      action={action}
      leave={quote && isForm ? "Change something" : leave}
      isDestructive={quote?.kind === "cancel"}
      isSending={isAsking || isConfirming}
      problem={problem}
      onSubmit={quote ? confirm : preview}
      onClose={onClose}
      onBack={quote && isForm ? quoted.forget : undefined}
    >
      {refusal ? <Obstacle refusal={refusal} isAdmin={isAdmin} formats={formats} /> : null}
      {quote ? <QuoteReceipt quote={quote} formats={formats} /> : children}
      {isAsking && !isForm ? <Spinner size="small" /> : null}
      {mayForce && !quote ? (
        <Note
          label="Why go on all the same"
          description={`Kept in the history. ${companyName} keeps what it has used and is refused more until usage is below the limits above.`}
          value={reason}
          error={reasonError}
          onChange={(written) => {
            setReason(written);
            setReasonError(undefined);
          }}
        />
      ) : null}
    </ChangeDrawer>
  );
};

/** What a refusal says beyond its sentence: the usage in the way, and the page that leads on. */
const Obstacle = ({
  refusal,
  isAdmin,
  formats,
}: {
  refusal: Problem;
  isAdmin: boolean;
  formats: Formats;
}) => {
  const violations = refusal.violations ?? [];
  return (
    <>
      {violations.length > 0 ? (
        <Box css={{ stack: "y", rowGap: "xsmall" }}>
          {violations.map((one) => (
            <Box key={one.feature}>{violationSentence(one, formats)}</Box>
          ))}
          {refusal.may_force && !isAdmin ? (
            <Box css={{ color: "secondary" }}>
              An admin of Plangate may go on in spite of this, with a reason.
            </Box>
          ) : null}
        </Box>
      ) : null}
      {refusal.next_action && /^https?:\/\//.test(refusal.next_action.url) ? (
        <Banner title="The customer can go on here" actions={<PaymentLink action={refusal.next_action} />} />
      ) : null}
    </>
  );
};
