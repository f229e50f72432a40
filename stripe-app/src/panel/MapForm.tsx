/** The drawer in which prices are mapped: the target, what that would do, and the confirmation. */
import { Box, Spinner } from "@stripe/ui-extension-sdk/ui";
import { useState } from "react";

import type { Api } from "../api";
import { useChange, useMappingPreview } from "../exchange";
import { holdersWords, type Formats } from "../format";
import type { MappingPreview, ProductPage } from "../types";
import { ChangeDrawer } from "./ChangeDrawer";
import { Choice } from "./fields";
import { Trouble } from "./Trouble";

export const MapForm = ({
  api,
  page,
  price,
  formats,
  onClose,
}: {
  api: Api;
  page: ProductPage;
  /** One price, or null for every one that stands for nothing yet. */
  price: string | null;
  formats: Formats;
  onClose: (done: string | null) => void;
}) => {
  const [chosen, setChosen] = useState("");
  const choice = page.choices.find((one) => idOf(one) === chosen) ?? null;
  const target = choice && { kind: choice.kind, key: choice.key, ...(price === null ? {} : { price }) };
  const preview = useMappingPreview(api, page.product, target);
  const { isSending, problem, send } = useChange(api, "product.map");
  const answered = preview.isLoading ? null : preview.answer;
  const found = answered?.preview ?? null;
  // What was asked before another target was chosen says nothing of this one.
  const shown = found && found.kind === choice?.kind && found.key === choice.key ? found : null;

  const submit = async () => {
    if (!target || !shown || !answered) return;
    if ((await send({ product: page.product, ...target, mapping: answered.mapping })).isMade) {
      onClose(`${page.name} stands for ${choice.name}`);
    }
  };

  return (
    <ChangeDrawer
      title={price === null ? "Map prices" : "Change what this price stands for"}
      action={choice ? `Map to ${choice.name}` : "Map"}
      leave="Leave it"
      isReady={Boolean(shown)}
      isSending={isSending}
      problem={problem}
      onSubmit={submit}
      onClose={onClose}
    >
      <Choice
        label="Plan or add-on"
        value={chosen}
        options={[
          { value: "", label: "Choose…" },
          ...page.choices.map((one) => ({
            value: idOf(one),
            label: one.kind === "plan" ? one.name : `${one.name} (add-on)`,
          })),
        ]}
        onChange={setChosen}
      />
      {choice && preview.isLoading ? <Spinner size="small" /> : null}
      {choice && preview.problem ? <Trouble problem={preview.problem} onRetry={preview.reload} /> : null}
      {shown && choice ? <Consequences preview={shown} name={choice.name} formats={formats} /> : null}
    </ChangeDrawer>
  );
};

const Consequences = ({
  preview,
  name,
  formats,
}: {
  preview: MappingPreview;
  name: string;
  formats: Formats;
}) => (
  <Box css={{ stack: "y", rowGap: "small" }}>
    <Box css={{ font: "subheading" }}>{effectWords(preview, formats)}</Box>
    {preview.moves.map((move) => (
      <Box key={move.company}>
        {move.name ?? move.company}: {move.before ?? "no plan"} → {move.after ?? "no plan"}
      </Box>
    ))}
    {preview.moving > preview.moves.length ? (
      <Box css={{ color: "secondary" }}>
        and {formats.number(preview.moving - preview.moves.length)} more of the{" "}
        {formats.number(preview.examined)} looked at
      </Box>
    ) : null}
    <Box>
      From the next check on, whoever holds {preview.prices.length === 1 ? "this price" : "these prices"} has
      what {name} grants. Nothing changes in Stripe, nobody is charged, and the same can be mapped again
      otherwise.
    </Box>
  </Box>
);

function effectWords(preview: MappingPreview, formats: Formats): string {
  const holders = holdersWords(preview.companies, formats);
  if (preview.companies === 0 || preview.moving === 0) return `${holders}; no plan changes.`;
  const moving = preview.moving === 1 ? "1 plan changes" : `${formats.number(preview.moving)} plans change`;
  return `${holders}; ${moving}.`;
}

function idOf(choice: { kind: string; key: string }): string {
  return `${choice.kind}:${choice.key}`;
}
