/** Opens the customer view as the dashboard would, and finds things in it the way a person does: by their words. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";
import { render } from "@stripe/ui-extension-sdk/testing";
import type { ReactElement } from "react";

import type { CustomerPage } from "../src/types";
import CustomerView from "../src/views/CustomerView";
import { context, page } from "./acme";
import { dashboard, json, type SentRequest } from "./dashboard";

type Answerer = (request: SentRequest) => Response | Promise<Response>;

/** A component as the dashboard receives it: a name, its props and its children. */
export interface Shown {
  type: string;
  props: Record<string, unknown>;
  text: string;
}

interface RemoteNode {
  kind: number;
  type?: string;
  text?: string;
  props?: Record<string, unknown>;
  children?: RemoteNode[];
}

const REMOTE_TEXT = 2;
const REMOTE_FRAGMENT = 3;

/**
 * Renders a view and waits for what it loads. The SDK's `find` stops at props that hold components (a footer, a banner's
 * actions), so everything shown is listed here from the tree that the dashboard itself would draw.
 */
export async function show(view: ReactElement) {
  const { wrapper, update } = render(view);

  /** Lets effects, signatures and answers come through. */
  const settle = async () => {
    for (let turn = 0; turn < 6; turn += 1) await update();
  };
  await settle();

  const all = (): Shown[] => shownIn(wrapper.instance as RemoteNode);
  const named = (type: string, words: string, index = 0): Shown => {
    const matches = all().filter(
      (node) => node.type === type && (node.text === words || node.props["label"] === words),
    );
    const found = matches[index];
    if (!found) throw new Error(`There is no ${type} “${words}” in:\n${all()[0]?.text ?? "nothing"}`);
    return found;
  };
  const fire = async (node: Shown, prop: string, ...args: unknown[]) => {
    const listener = node.props[prop];
    if (typeof listener !== "function") throw new Error(`${node.type} “${node.text}” has no ${prop}`);
    (listener as (...args: unknown[]) => void)(...args);
    await settle();
  };

  return {
    wrapper,
    settle,
    all,
    named,
    fire,
    ofType: (type: string) => all().filter((node) => node.type === type),
    /** All words on the panel, props included. */
    text: () =>
      all()
        .map((node) => node.text)
        .join("\n"),
    press: (words: string, index = 0) => fire(named("Button", words, index), "onPress"),
    follow: (words: string, index = 0) => fire(named("Link", words, index), "onPress"),
    choose: (label: string, value: string) => fire(named("Select", label), "onChange", { target: { value } }),
    write: (label: string, value: string) =>
      fire(
        all().find((node) => /^Text(Field|Area)$/.test(node.type) && node.props["label"] === label) ??
          named("TextField", label),
        "onChange",
        { target: { value } },
      ),
  };
}

/** The customer view over a server that knows Acme. `others` answers everything but the page itself. */
export async function openPanel(
  options: { page?: Partial<CustomerPage>; others?: Answerer; context?: ExtensionContextValue } = {},
) {
  const served = { page: page(options.page) };
  dashboard.respond = (request) =>
    request.action === "customer.get"
      ? json(200, served.page)
      : (options.others ?? (() => json(200, {})))(request);
  const panel = await show(<CustomerView {...(options.context ?? context())} />);
  return { ...panel, served };
}

/** The requests of one action, in the order they were sent. */
export function sentTo(action: string): SentRequest[] {
  return dashboard.sent.filter((request) => request.action === action);
}

function shownIn(node: RemoteNode): Shown[] {
  const inside = [...fragments(node), ...(node.children ?? [])].flatMap(shownIn);
  if (!node.type) return inside;
  return [{ type: node.type, props: node.props ?? {}, text: wordsOf(node) }, ...inside];
}

function wordsOf(node: RemoteNode): string {
  if (node.kind === REMOTE_TEXT) return node.text ?? "";
  const props = node.props ?? {};
  const said = ["label", "title", "description", "value", "error"]
    .map((prop) => props[prop])
    .filter((value): value is string => typeof value === "string" && node.type !== "option");
  const inner = [...fragments(node), ...(node.children ?? [])].map(wordsOf).join("");
  return [...said, inner].filter((words) => words !== "").join(" ");
}

function fragments(node: RemoteNode): RemoteNode[] {
  return Object.values(node.props ?? {}).filter(
    (value): value is RemoteNode =>
      typeof value === "object" && value !== null && (value as RemoteNode).kind === REMOTE_FRAGMENT,
  );
}
