/** The SDK ships ES modules that Node cannot resolve by itself, so vitest inlines it and compiles JSX the modern way. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  esbuild: { jsx: "automatic" },
  test: {
    globals: true,
    environment: "node",
    include: ["tests/**/*.test.{ts,tsx}"],
    setupFiles: ["tests/dashboard.ts"],
    server: { deps: { inline: [/@stripe\/ui-extension-sdk/, /@remote-ui/] } },
  },
});
