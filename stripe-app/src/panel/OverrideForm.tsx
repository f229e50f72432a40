/** The drawer in which an override is granted or edited, with what it will change said before it is done. */
import { Banner, Box, DateField, Select, TextArea, TextField } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import type { Api } from "../api";
import {
  checkDraft,
  draftFor,
  draftOf,
  effectsFor,
  expiryChoices,
  isWritableHere,
  NOTE_LENGTH,
  previewSentence,
  type Draft,
  type DraftErrors,
  type DraftTimes,
  type Effect,
  type Expiry,
  type Grant,
} from "../draft";
import { useChange } from "../exchange";
import { featureName, type Formats } from "../format";
import type { Decision, Override, Payload } from "../types";
import { ChangeDrawer } from "./ChangeDrawer";

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
      onLeave={() => {
        onClose(null);
      }}
    >
      {editing ? (
        <Box css={{ font: "subheading" }}>{decision ? featureName(decision) : editing.feature}</Box>
      ) : (
        <Select
          label="Feature"
          value={draft.feature}
          error={said.feature}
          invalid={Boolean(said.feature)}
          onChange={(event) => {
            const chosen = writable.find(({ feature }) => feature === event.target.value);
            const { effect } = draftFor(chosen);
            write({ feature: event.target.value, effect, amount: "" });
          }}
        >
          {writable.map((option) => (
            <option key={option.feature} value={option.feature}>
              {featureName(option)}
            </option>
          ))}
        </Select>
      )}
      {decision && !editing ? (
        <Select
          label="What to do"
          value={draft.effect}
          error={said.effect}
          invalid={Boolean(said.effect)}
          onChange={(event) => {
            write({ effect: event.target.value as Effect });
          }}
        >
          {effectsFor(decision).map(({ effect, label }) => (
            <option key={effect} value={effect}>
              {label}
            </option>
          ))}
        </Select>
      ) : null}
      {draft.effect === "add" || draft.effect === "set" ? (
        <TextField
          label={amountLabel(draft.effect, decision)}
          type={decision && takesNumber(decision) ? "number" : "text"}
          value={draft.amount}
          error={said.amount}
          invalid={Boolean(said.amount)}
          onChange={(event) => {
            write({ amount: event.target.value });
          }}
        />
      ) : null}
      <Select
        label="How long"
        value={draft.expiry}
        error={said.expiry}
        invalid={Boolean(said.expiry)}
        onChange={(event) => {
          write({ expiry: event.target.value as Expiry });
        }}
      >
        {expiryChoices(times, formats).map(({ expiry, label }) => (
          <option key={expiry} value={expiry}>
            {label}
          </option>
        ))}
      </Select>
      {draft.expiry === "date" ? (
        <DateField
          label="Last day"
          description="Counts until the end of this day, UTC."
          value={draft.date}
          error={said.date}
          invalid={Boolean(said.date)}
          onChange={(date) => {
            write({ date });
          }}
        />
      ) : null}
      <TextArea
        label="Why"
        description="Kept in the history for ever."
        placeholder="Bridging until their contract is signed"
        value={draft.note}
        rows={3}
        maxLength={NOTE_LENGTH}
        required
        error={said.note}
        invalid={Boolean(said.note)}
        onChange={(event) => {
          write({ note: event.target.value });
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
