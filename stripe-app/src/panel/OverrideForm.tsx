/** The drawer in which an override is granted or edited, with what it will change said before it is done. */
import { Banner, Box } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import type { Api } from "../api";
import { useChange } from "../exchange";
import { featureName, type Formats } from "../format";
import {
  checkDraft,
  draftFor,
  draftOf,
  effectsFor,
  expiryChoices,
  isWritableHere,
  previewSentence,
  type Draft,
  type DraftErrors,
  type DraftTimes,
  type Grant,
} from "../overrideDraft";
import type { Decision, Override, Payload } from "../types";
import { ChangeDrawer } from "./ChangeDrawer";
import { Choice, Day, Entry, Note } from "./fields";

export interface OverrideFormProps {
  api: Api;
  customer: string;
  companyName: string;
  entitlements: Decision[];
  /** The override to edit; without one, a new one is granted. */
  editing?: Override;
  /** When the form was opened, in the environment's time: choices like “one week” count from here. */
  openedAt: Date;
  periodEndsAt: string | null;
  formats: Formats;
  /** Called when the drawer closes, with a sentence about what was done if anything was. */
  onClose: (done: string | null) => void;
}

export const OverrideForm = (props: OverrideFormProps) => {
  const { api, customer, editing, formats, onClose } = props;
  const writable = props.entitlements.filter(isWritableHere);
  const [draft, setDraft] = useState<Draft>(() => (editing ? draftOf(editing) : draftFor(writable[0])));
  const [errors, setErrors] = useState<DraftErrors>({});
  const [isTouched, setIsTouched] = useState(false);
  const granting = useChange(api, "override.grant");
  const changing = useChange(api, "override.edit");
  const { isSending, problem } = editing ? changing : granting;

  const decision = props.entitlements.find(({ feature }) => feature === draft.feature);
  const times: DraftTimes = {
    now: props.openedAt,
    periodEndsAt: props.periodEndsAt,
    keptExpiresAt: editing?.expires_at ?? null,
  };
  const preview = decision && !editing ? previewSentence(draft, decision, formats) : null;

  const write = (part: Partial<Draft>) => {
    setDraft({ ...draft, ...part });
    setErrors({});
    setIsTouched(true);
  };

  const submit = async () => {
    const checked = checkDraft(draft, decision, times);
    setErrors(checked.errors ?? {});
    if (!checked.grant || !decision) return;
    const edit = editing ? editOf(editing, checked.grant) : null;
    if (edit && edit.value === undefined && edit.expires_at === undefined && edit.note === undefined) {
      onClose(null);
      return;
    }
    const { isMade } = edit
      ? await changing.send({ customer, ...edit })
      : await granting.send({ customer, ...checked.grant });
    if (isMade) {
      const name = featureName(decision);
      onClose(editing ? `${name}: override changed` : `${name}: override granted to ${props.companyName}`);
    }
  };

  const said: DraftErrors = { ...fieldErrors(problem?.problem?.errors ?? []), ...errors };
  return (
    <ChangeDrawer
      title={editing ? "Edit override" : `Grant an override to ${props.companyName}`}
      action={editing ? "Save changes" : "Grant override"}
      leave="Cancel"
      isSending={isSending}
      problem={problem}
      confirmCloseMessages={
        isTouched
          ? {
              title: "Leave without saving?",
              description: "What you wrote here is not saved.",
              cancelAction: "Keep writing",
              exitAction: "Leave",
            }
          : undefined
      }
      onSubmit={submit}
      onClose={onClose}
    >
      {editing ? (
        <Box css={{ font: "subheading" }}>{decision ? featureName(decision) : editing.feature}</Box>
      ) : (
        <Choice
          label="Feature"
          value={draft.feature}
          options={writable.map((one) => ({ value: one.feature, label: featureName(one) }))}
          error={said.feature}
          onChange={(feature) => {
            const { effect } = draftFor(writable.find((one) => one.feature === feature));
            write({ feature, effect, amount: "" });
          }}
        />
      )}
      {decision && !editing ? (
        <Choice
          label="What to do"
          value={draft.effect}
          options={effectsFor(decision)}
          error={said.effect}
          onChange={(effect) => {
            write({ effect });
          }}
        />
      ) : null}
      {draft.effect === "add" || draft.effect === "set" ? (
        <Entry
          label={amountLabel(draft.effect, decision)}
          type={decision && takesNumber(decision) ? "number" : "text"}
          value={draft.amount}
          error={said.amount}
          onChange={(amount) => {
            write({ amount });
          }}
        />
      ) : null}
      <Choice
        label="How long"
        value={draft.expiry}
        options={expiryChoices(times, formats)}
        error={said.expiry}
        onChange={(expiry) => {
          write({ expiry });
        }}
      />
      {draft.expiry === "date" ? (
        <Day
          label="Last day"
          description="Counts until the end of this day, UTC."
          value={draft.date}
          error={said.date}
          onChange={(date) => {
            write({ date });
          }}
        />
      ) : null}
      <Note
        description="Kept in the history for ever."
        placeholder="Bridging until their contract is signed"
        value={draft.note}
        error={said.note}
        onChange={(note) => {
          write({ note });
        }}
      />
      {preview ? <Banner title="What changes" description={preview} /> : null}
    </ChangeDrawer>
  );
};

/** Only what differs travels, so that an edit never writes back something that somebody else changed meanwhile. */
function editOf(
  editing: Override,
  grant: Grant,
): Pick<Payload<"override.edit">, "override" | "etag" | "value" | "expires_at" | "note"> {
  return {
    override: editing.id,
    etag: editing.etag,
    value: grant.value === editing.value || grant.override_mode === "deny" ? undefined : grant.value,
    expires_at: grant.expires_at === (editing.expires_at ?? undefined) ? undefined : grant.expires_at,
    note: grant.note === editing.note ? undefined : grant.note,
  };
}

/** The server names fields by JSON pointer; here each belongs under the field that shows it. */
function fieldErrors(errors: { pointer: string; detail: string }[]): DraftErrors {
  const fields: Record<string, keyof DraftErrors> = {
    "/feature": "feature",
    "/override_mode": "effect",
    "/value": "amount",
    "/expires_at": "expiry",
    "/note": "note",
  };
  const found: DraftErrors = {};
  for (const { pointer, detail } of errors) {
    const field = fields[pointer];
    if (field) found[field] = detail;
  }
  return found;
}

function takesNumber(decision: Decision): boolean {
  return decision.type !== "config" || typeof decision.value === "number";
}

function amountLabel(effect: "add" | "set", decision: Decision | undefined): string {
  if (effect === "add") return "How many more";
  return decision?.type === "config" ? "New value" : "New limit";
}
