/** What the type checker cannot see: the dashboard renders Stripe's components only, and nothing of the browser's page. */
import js from "@eslint/js";
import hooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

// An HTML element type-checks and then breaks in the dashboard. Stripe's Select takes its choices as <option>, and
// only there is one allowed.
const onlySdkComponents = [
  {
    selector: "JSXOpeningElement[name.type='JSXIdentifier'][name.name=/^[a-z]/]:not([name.name='option'])",
    message: "The Stripe dashboard renders SDK components only: use one instead of an HTML element.",
  },
  {
    selector:
      "JSXElement[openingElement.name.name='option']:not(JSXElement[openingElement.name.name='Select'] JSXElement)",
    message: "<option> is understood inside Select only.",
  },
  {
    selector: "JSXAttribute[name.name=/^(style|className|dangerouslySetInnerHTML)$/]",
    message: "The Stripe dashboard takes design tokens through `css`, no style sheets and no markup.",
  },
];

const pageGlobals = ["window", "document", "localStorage", "sessionStorage", "indexedDB", "alert", "confirm"];

export default tseslint.config(
  { ignores: ["node_modules/", ".build/"] },
  js.configs.recommended,
  {
    files: ["**/*.{ts,tsx}"],
    extends: [...tseslint.configs.strictTypeChecked, ...tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    plugins: { "react-hooks": hooks },
    rules: {
      ...hooks.configs.recommended.rules,
      "react-hooks/exhaustive-deps": "error",
      "no-restricted-syntax": ["error", ...onlySdkComponents],
      "no-restricted-globals": [
        "error",
        ...pageGlobals.map((name) => ({ name, message: "The extension has no page of its own." })),
      ],
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    },
  },
  {
    files: ["src/**/*.{ts,tsx}"],
    ignores: ["src/api.ts"],
    rules: {
      // Whatever leaves the panel must be signed, and api.ts is where that happens.
      "no-restricted-globals": [
        "error",
        { name: "fetch", message: "Call Plangate through src/api.ts, which signs what it sends." },
        ...pageGlobals.map((name) => ({ name, message: "The extension has no page of its own." })),
      ],
    },
  },
);
