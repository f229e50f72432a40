/** What the drawer shows where no customer is open: what Plangate is for, and the way to it. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";
import { Box, Button, ContextView } from "@stripe/ui-extension-sdk/ui";

import { ApiProblem, connectionFrom } from "../api";
import { Trouble } from "../panel/Trouble";

const OverviewView = (context: ExtensionContextValue) => {
  const connection = connectionFrom(context);
  return (
    <ContextView title="Plangate" description="Who may do what, and why">
      {connection instanceof ApiProblem ? (
        <Trouble problem={connection} />
      ) : (
        <Box css={{ stack: "y", rowGap: "medium" }}>
          <Box>
            Open a customer to see the plan, every entitlement with its usage and its reason, and the
            exceptions people granted.
          </Box>
          <Box>
            <Button type="primary" href={{ name: "customers" }}>
              Go to customers
            </Button>
          </Box>
          <Box css={{ font: "caption", color: "secondary" }}>
            Connected to {new URL(connection.base).origin}, {connection.mode === "live" ? "live" : "test"}{" "}
            mode.
          </Box>
        </Box>
      )}
    </ContextView>
  );
};

export default OverviewView;
