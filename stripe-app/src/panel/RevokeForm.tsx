/** The drawer in which an override is revoked: a reason, and what is kept. */
import { Box } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import type { Api } from "../api";
import { useChange } from "../exchange";
import type { Formats } from "../format";
import { NOTE_MISSING } from "../typed";
import type { Override } from "../types";
import { overrideEffect, overrideSpan } from "../why";
import { ChangeDrawer } from "./ChangeDrawer";
import { Note } from "./fields";

export interface RevokeFormProps {
  api: Api;
  customer: string;
  companyName: string;
  override: Override;
  featureName: string;
  formats: Formats;
  onClose: (done: string | null) => void;
}

export const RevokeForm = ({
  api,
  customer,
  companyName,
  override,
  featureName,
  formats,
  onClose,
}: RevokeFormProps) => {
  const [note, setNote] = useState("");
  const [error, setError] = useState<string | undefined>();
  const { isSending, problem, send } = useChange(api, "override.revoke");

  const submit = async () => {
    const reason = note.trim();
    if (reason === "") {
      setError(NOTE_MISSING);
      return;
    }
    if ((await send({ customer, override: override.id, note: reason })).isMade) {
      onClose(`${featureName}: override revoked`);
    }
  };

  return (
    <ChangeDrawer
      title="Revoke override"
      action="Revoke"
      leave="Keep it"
      isDestructive
      isSending={isSending}
      problem={problem}
      onSubmit={submit}
      onClose={onClose}
    >
      <Box css={{ font: "subheading" }}>
        {featureName}: {overrideEffect(override, formats)}, {overrideSpan(override, formats)}
      </Box>
      <Box>
        From the next check on, {companyName} has what its plan and add-ons grant. Usage so far and this
        override’s history are kept. To undo this, grant the override again.
      </Box>
      <Note
        value={note}
        error={error}
        onChange={(written) => {
          setNote(written);
          setError(undefined);
        }}
      />
    </ChangeDrawer>
  );
};
