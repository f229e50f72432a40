/** The drawer in which somebody makes one change: a button that makes it, one that leaves all as it is. */
import { Box, Button, FocusView } from "@stripe/ui-extension-sdk/ui";
import type { ComponentProps, ReactNode } from "react";

import { Trouble } from "./Trouble";

export const ChangeDrawer = ({
  title,
  action,
  leave,
  isDestructive = false,
  isReady = true,
  isSending,
  problem,
  confirmCloseMessages,
  onSubmit,
  onClose,
  onBack,
  children,
}: {
  title: string;
  /** What the two buttons say. */
  action: string;
  leave: string;
  isDestructive?: boolean;
  isReady?: boolean;
  isSending: boolean;
  problem: ComponentProps<typeof Trouble>["problem"] | null;
  confirmCloseMessages?: ComponentProps<typeof FocusView>["confirmCloseMessages"];
  onSubmit: () => Promise<void>;
  /** Closes the drawer, with nothing made. */
  onClose: (done: null) => void;
  /** What the second button does where it leads one step back instead. */
  onBack?: () => void;
  children: ReactNode;
}) => {
  const close = () => {
    onClose(null);
  };
  return (
    <FocusView
      shown
      title={title}
      setShown={(shown) => {
        if (!shown) close();
      }}
      confirmCloseMessages={confirmCloseMessages}
      primaryAction={
        <Button
          type={isDestructive ? "destructive" : "primary"}
          pending={isSending}
          disabled={!isReady}
          onPress={() => void onSubmit()}
        >
          {action}
        </Button>
      }
      secondaryAction={
        <Button disabled={isSending} onPress={onBack ?? close}>
          {leave}
        </Button>
      }
    >
      <Box css={{ stack: "y", rowGap: "medium" }}>
        {problem ? <Trouble problem={problem} /> : null}
        {children}
      </Box>
    </FocusView>
  );
};
