/** The exceptions people granted: those that count now or soon, and, folded away, those that no longer do. */
import { Accordion, AccordionItem, Badge, Box, Button, Divider, Inline } from "@stripe/ui-extension-sdk/ui";
import { Fragment } from "react";

import { nameOf, type Formats } from "../format";
import type { Override } from "../types";
import { overrideEffect, overrideSpan } from "../why";
import { Section } from "./Section";

export interface OverridesProps {
  overrides: Override[];
  /** Feature keys to the names people know. */
  featureNames: ReadonlyMap<string, string>;
  formats: Formats;
  canWrite: boolean;
  onGrant: () => void;
  onEdit: (override: Override) => void;
  onRevoke: (override: Override) => void;
}

export const Overrides = (props: OverridesProps) => {
  const open = props.overrides.filter((override) => !isOver(override));
  const past = props.overrides.filter(isOver);
  return (
    <Section
      title="Overrides"
      action={
        props.canWrite ? (
          <Button size="small" type="primary" onPress={props.onGrant}>
            Grant override
          </Button>
        ) : null
      }
    >
      {open.length === 0 ? (
        <Box css={{ color: "secondary" }}>No exceptions: what the plan and its add-ons grant applies.</Box>
      ) : (
        open.map((override, index) => (
          <Fragment key={override.id}>
            {index > 0 ? <Divider /> : null}
            <OverrideRow {...props} override={override} />
          </Fragment>
        ))
      )}
      {past.length > 0 ? (
        <Accordion>
          <AccordionItem title={`No longer in force (${props.formats.number(past.length)})`}>
            <Box css={{ stack: "y", rowGap: "small" }}>
              {past.map((override) => (
                <OverrideRow key={override.id} {...props} override={override} canWrite={false} />
              ))}
            </Box>
          </AccordionItem>
        </Accordion>
      ) : null}
    </Section>
  );
};

const OverrideRow = ({
  override,
  featureNames,
  formats,
  canWrite,
  onEdit,
  onRevoke,
}: OverridesProps & { override: Override }) => (
  <Box css={{ stack: "y", rowGap: "xsmall" }}>
    <Box css={{ stack: "x", distribute: "space-between", alignY: "center", columnGap: "small" }}>
      <Inline css={{ font: "bodyEmphasized", overflowWrap: "break-word" }}>
        {featureNames.get(override.feature) ?? nameOf({ key: override.feature })}
      </Inline>
      <Badge type={badgeTone(override)}>{overrideEffect(override, formats)}</Badge>
    </Box>
    <Box>{whenAndWhom(override, formats)}</Box>
    <Box css={{ color: "secondary", overflowWrap: "break-word" }}>“{override.note}”</Box>
    <Box css={{ font: "caption", color: "secondary" }}>Granted by {authorWords(override)}</Box>
    {canWrite ? (
      <Box css={{ stack: "x", columnGap: "small" }}>
        <Button
          size="small"
          onPress={() => {
            onEdit(override);
          }}
        >
          Edit
        </Button>
        <Button
          size="small"
          type="destructive"
          onPress={() => {
            onRevoke(override);
          }}
        >
          Revoke
        </Button>
      </Box>
    ) : null}
  </Box>
);

/** Whether an override has stopped counting for good. */
export function isOver(override: Override): boolean {
  return override.revoked_at !== null || override.state === "revoked" || override.state === "expired";
}

function whenAndWhom(override: Override, formats: Formats): string {
  const whom = override.user ? ` for user ${override.user} only` : "";
  if (override.revoked_at) return `Revoked on ${formats.day(override.revoked_at)}${whom}`;
  if (override.state === "expired" && override.expires_at) {
    return `Expired on ${formats.day(override.expires_at)}${whom}`;
  }
  const span = overrideSpan(override, formats);
  return `${span.charAt(0).toUpperCase()}${span.slice(1)}${whom}`;
}

function authorWords({ author }: Override): string {
  if (author.name) return author.name;
  switch (author.kind) {
    case "stripe_user":
      return `Stripe user ${author.id}`;
    case "api_key":
      return `API key ${author.id}`;
    default:
      return `${author.kind.replace(/_/g, " ")} ${author.id}`.trim();
  }
}

function badgeTone(override: Override): "neutral" | "negative" | "info" {
  if (isOver(override)) return "neutral";
  return override.mode === "deny" || override.value === false ? "negative" : "info";
}
