/** The one heading style of the panel, so that its parts line up. */
import { Box } from "@stripe/ui-extension-sdk/ui";
import type { ReactNode } from "react";

export const Section = ({
  title,
  action,
  children,
}: {
  title: string;
  action?: ReactNode;
  children: ReactNode;
}) => (
  <Box css={{ stack: "y", rowGap: "small", marginBottom: "large" }}>
    <Box css={{ stack: "x", distribute: "space-between", alignY: "center" }}>
      <Box css={{ font: "heading" }}>{title}</Box>
      {action}
    </Box>
    {children}
  </Box>
);
