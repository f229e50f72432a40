/** Says in passing what came of something. */
import { showToast } from "@stripe/ui-extension-sdk/utils";

/** A toast that cannot be shown must not make a change that was made look like one that failed. */
export function announce(sentence: string, type: "success" | "caution" = "success"): void {
  showToast(sentence, { type }).catch(() => undefined);
}
