/**
 * Plangate's custom elements for a host page: one closed script, one shadow root per element, one private htmx.
 *
 * The server wraps this file, the vendored htmx (where a line below says so) and the stylesheet in one function (see
 * web/embed.py), which gives these four names: `htmx`, `STYLES` (the stylesheet's text), `WORDS` (texts the script
 * itself must say, by language) and `SCRIPT` (the element that loaded us). Nothing but `Plangate` reaches the window.
 *
 * @typedef {{token: string, expires_at: string}} TokenAnswer
 * @typedef {{reason: "initial" | "expired" | "rejected"}} TokenWish
 */

// === Where we come from =============================================================================

const SERVER = new URL(SCRIPT?.src || location.href);
const FRAGMENTS = new URL("components/v1/", SERVER);
const KEY = SCRIPT?.dataset.publishableKey || "";
const TOKEN_URL = SCRIPT?.dataset.tokenUrl;

/** The one name we add to the window. A host may set `getToken` instead of naming a `data-token-url`. */
const Plangate = (window.Plangate = Object.assign(window.Plangate || {}, { refresh: () => reloadAll() }));

/** Every connected element of ours on this page. @type {Set<PlangateElement>} */
const living = new Set();

// Coming back from Checkout, the address carries our mark: note it, then take it out of the address bar.
const here = new URL(location.href);
let returned = here.searchParams.get("plangate_return");
if (returned) {
  here.searchParams.delete("plangate_return");
  history.replaceState(history.state, "", here);
}

// === Tokens: in memory only =========================================================================

/** @type {{text: string | null, until: number}} */
let held = { text: null, until: 0 };
/** @type {Promise<string | null> | null} */
let asking = null;

/**
 * The component token, or null for a visitor who is not signed in. One question at a time, whoever asks.
 * @param {TokenWish["reason"]} reason @param {string | null} [used] the token that was just rejected
 */
function token(reason, used) {
  if (!TOKEN_URL && !Plangate.getToken) return Promise.resolve(null);
  if (held.until > Date.now() && held.text !== used) return Promise.resolve(held.text);
  asking ||= ask(reason).finally(() => (asking = null));
  return asking;
}

/** @param {TokenWish["reason"]} reason */
async function ask(reason) {
  /** @type {TokenAnswer | null} */
  let answer;
  if (Plangate.getToken) {
    answer = await Plangate.getToken({ reason });
  } else {
    const url = new URL(/** @type {string} */ (TOKEN_URL), location.href);
    if (url.origin !== location.origin) throw new TypeError("data-token-url must be on the host's own origin");
    const response = await fetch(url, { method: "POST", credentials: "same-origin", headers: { Accept: "application/json" } });
    if (!response.ok && ![401, 403, 404].includes(response.status)) throw new TypeError("No token: " + response.status);
    answer = response.ok && response.status !== 204 ? await response.json() : null;
  }
  // Half a minute early, so that no request starts with a token about to end; a visitor is asked about again.
  held = answer?.token
    ? { text: answer.token, until: Date.parse(answer.expires_at) - 30000 }
    : { text: null, until: Date.now() + 5000 };
  return held.text;
}

// The token is asked for before htmx is there, so that the first fragment does not wait for both in turn.
if ([...document.querySelectorAll(":not(:defined)")].some((element) => element.localName.startsWith("plangate-"))) {
  token("initial").catch(() => {});
}

// === htmx stands here ===============================================================================

// === Trusted Types and the private htmx =============================================================

const refuse = () => {
  throw new TypeError("Plangate never evaluates text");
};
const rules = { createHTML: (/** @type {string} */ text) => text, createScript: refuse };
const policy = window.trustedTypes?.createPolicy("plangate", rules) || rules;

// The host's own htmx settings were read from its meta element: forget them, and never touch the host's document.
const approved = htmx.config.extensions.split(/,\s*/)[0];
htmx.registerExtension(approved || "plangate", { init: (/** @type {any} */ api) => api.initSecurity(policy, refuse, refuse) });
htmx.initialize = () => {};
htmx.config = {
  history: false,
  mode: "cors",
  defaultSwap: "innerHTML",
  defaultTimeout: 20000,
  indicatorClass: "busy",
  requestClass: "busy",
  noSwap: [204, 304],
  morphScanLimit: 10,
  defaultSettleDelay: 0,
};
document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== htmx.indicatorStyleSheet);

// htmx announces each step here instead of dispatching composed events that the host's page would hear.
htmx.trigger = (/** @type {Element} */ source, /** @type {string} */ name, /** @type {any} */ detail) => {
  if (name.startsWith("plangate-")) ownerOf(source)?.announce(name, detail);
  return !detail?.cancelled && steps[name]?.(detail, source) !== false;
};

/** @type {Record<string, (detail: any, source: Element) => boolean | void>} */
const steps = {
  "htmx:config:request": ({ ctx }) => {
    const owner = ownerOf(ctx.sourceElement);
    const address = new URL(ctx.request.action, FRAGMENTS);
    if (!owner || address.origin !== FRAGMENTS.origin) return false;
    const { request } = ctx;
    request.action = address.href;
    request.headers = { Accept: "text/html" };
    request.credentials = "omit";
    request.referrerPolicy = "no-referrer";
    if (request.form?.dataset.key) request.headers["Idempotency-Key"] = request.form.dataset.key;
    if (/\/(confirm|portal)$/.test(address.pathname)) request.body.set("return_url", location.href);
    for (const [name, value] of owner.wishes()) if (!request.body.has(name)) request.body.set(name, value);
    ctx.fetch = (/** @type {string} */ url) => send(owner, url, ctx);
    const active = owner.shadowRoot?.activeElement;
    if (active?.id && owner.content.contains(active)) owner.opener = active.id;
    if (request.method === "GET") owner.request = request;
  },
  "htmx:before:request": ({ ctx }) => ownerOf(ctx.sourceElement)?.busy(true),
  "htmx:after:request": ({ ctx }) => {
    const owner = ownerOf(ctx.sourceElement);
    const url = ctx.hx.redirect;
    delete ctx.hx.redirect;
    // Only a web address may be opened: a `javascript:` one must not run on the host's page.
    if (!/^https?:\/\//.test(url)) return;
    if (ctx.request.action.endsWith("/portal") || owner?.emit("plangate-checkout-started", { url })) location.assign(url);
  },
  "htmx:before:swap": ({ ctx, tasks }) => {
    const owner = ownerOf(ctx.sourceElement);
    ctx.title = "";
    if (!owner || !tasks[0]) return false;
    // A lost POST keeps its form, and so its idempotency key: only the sentence appears in it.
    const alert = ctx.lost && ctx.request.method !== "GET" && ctx.request.form?.querySelector(".alert");
    const isDialog = tasks[0].fragment.firstElementChild?.matches("dialog");
    tasks[0].target = alert || (isDialog ? owner.overlay : owner.content);
    owner.focusId = owner.focused();
    // A refresh in the background leaves an open dialog alone; only the answer to a step closes it.
    if (!alert && !isDialog && ctx.request.method !== "GET") owner.overlay.replaceChildren();
  },
  "htmx:after:swap": ({ ctx }) => ownerOf(ctx.sourceElement)?.shown(ctx),
  "htmx:finally:request": ({ ctx }) => ownerOf(ctx.sourceElement)?.busy(false),
};

/** @param {Node | undefined} node @returns {PlangateElement | undefined} */
const ownerOf = (node) => /** @type {any} */ (node?.getRootNode())?.host;

// === Fetching ======================================================================================

/**
 * Fetches one fragment with the token, or with the publishable key alone. Never rejects for a lost network: the
 * answer is then a problem of our own drawing, marked by `ctx.lost`.
 * @param {PlangateElement} owner @param {string} url @param {any} ctx
 */
async function send(owner, url, ctx) {
  const { request } = ctx;
  try {
    // The last header htmx adds; a visitor sends Accept alone, which needs no preflight.
    delete request.headers["HX-Request-Type"];
    let current = await token(held.text ? "expired" : "initial");
    const go = () => {
      const address = new URL(url);
      if (current) request.headers.Authorization = "Bearer " + current;
      else address.searchParams.set("key", KEY);
      return fetch(address, request);
    };
    let response = await go();
    if (response.status === 401 && current) {
      current = await token("rejected", current);
      if (current) response = await go();
    }
    if (response.headers.get("Content-Type")?.startsWith("text/html")) {
      owner.failed = !response.ok && request.method === "GET";
      if (!response.ok) owner.emit("plangate-error", { status: response.status, code: response.headers.get("Plangate-Code") });
      return response;
    }
    return lost(owner, ctx, response.status === 429 ? "busy" : "server", response.status);
  } catch (error) {
    if (request.signal.aborted && request.signal.reason !== "timeout") throw error;
    return lost(owner, ctx, navigator.onLine ? "network" : "offline", 0);
  }
}

/** @param {PlangateElement} owner @param {any} ctx @param {string} why @param {number} status */
function lost(owner, ctx, why, status) {
  ctx.lost = true;
  owner.failed = ctx.request.method === "GET";
  owner.emit("plangate-error", { status, code: why });
  const words = owner.words();
  const text =
    owner.failed
      ? `<section class="problem" part="problem" role="alert"><p class="strong">${words[why]}</p><p class="muted">${words.keep}</p>` +
        `<button type="button" class="button" part="button" data-retry>${words.retry}</button></section>`
      : `<p>${words[why]} ${words.again}</p>`;
  return new Response(text, { status: 503 });
}

// === The elements ===================================================================================

const sheet = new CSSStyleSheet();
sheet.replaceSync(STYLES);

/** Draws a block of the final size while the fragment is on its way. @param {string} kind @param {number} count */
const skeleton = (kind, count) => `<div class="skeleton ${kind}" part="skeleton" aria-hidden="true">${"<i></i>".repeat(count)}</div>`;

class PlangateElement extends HTMLElement {
  static observedAttributes = ["locale", "currency", "interval", "heading-level", "plans", "features", "lang"];
  /** The fragment's name under /components/v1/. */
  path = "";
  blocks = 1;
  failed = false;
  /** The id of what had the focus before the swap, and of what opened the dialog. */
  focusId = "";
  opener = "";
  /** What the reader chose in the fragment itself, such as the interval: it outlives a refresh. */
  chosen = /** @type {Record<string, string>} */ ({});
  fetchedAt = 0;

  connectedCallback() {
    living.add(this);
    // Moving the element keeps what it shows: only the first connection builds and loads.
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    root.innerHTML = /** @type {any} */ (
      policy.createHTML(
        `<div class="root" part="root"><div class="content" hx-sync="replace" aria-busy="true">${skeleton(this.path, this.getAttribute("features")?.split(",").length || this.blocks)}</div>` +
          `<div class="overlay"></div><p class="unseen" role="status"></p></div>`,
      )
    );
    const [content, overlay, status] = /** @type {any} */ (root.firstElementChild).children;
    Object.assign(this, { content, overlay, status });
    root.addEventListener("click", (event) => {
      const target = /** @type {Element} */ (event.target);
      if (target.closest("[data-retry]")) this.refresh();
      // The dialog itself is only hit beside its content: on the backdrop.
      if (target.closest("[data-close]") || target.matches("dialog")) target.closest("dialog")?.close();
    });
    root.addEventListener("change", (event) => {
      const { name, value, dataset, tagName } = /** @type {any} */ (event.target);
      if (dataset.keep === undefined) return;
      this.chosen[name] = value;
      const offers = /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-interval]"));
      if (name === "interval") for (const offer of offers) offer.hidden = offer.dataset.interval !== value;
      if (tagName === "SELECT") this.refresh();
    });
    const closed = () => {
      overlay.replaceChildren();
      if (!this.focused()) this.refocus();
    };
    root.addEventListener("close", closed, true);
    // Choosing a plan can be taken over by the host: the event comes first, and a cancelled one stops the form.
    root.addEventListener("submit", (event) => this.choose(/** @type {SubmitEvent} */ (event)), true);
    this.refresh();
  }

  disconnectedCallback() {
    // A move disconnects and connects again in one go; only an element that stays away is forgotten.
    queueMicrotask(() => {
      if (!this.isConnected) {
        living.delete(this);
        this.request?.abort();
      }
    });
  }

  /** @param {string} name @param {string | null} before @param {string | null} after */
  attributeChangedCallback(name, before, after) {
    if (this.shadowRoot && before !== after) this.refresh();
  }

  /** Loads the fragment again. What is shown stays until the new one is there. */
  refresh() {
    if (!this.isConnected) return;
    this.fetchedAt = Date.now();
    return htmx.ajax("GET", this.path, { source: this.content, target: this.content });
  }

  /** What the page asks of the fragment: the element's attributes, the reader's language and time zone. */
  *wishes() {
    yield ["component", this.path];
    yield ["locale", this.language()];
    yield ["tz", Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC"];
    for (const name of ["currency", "interval", "heading-level", "plans", "features", "sign-up-url"]) {
      const value = this.chosen[name] || this.getAttribute(name);
      if (value) yield [name.replaceAll("-", "_"), value];
    }
    if (returned) yield ["returned", "1"];
  }

  language() {
    return this.getAttribute("locale") || this.closest("[lang]")?.getAttribute("lang") || navigator.language || "en";
  }

  words() {
    return WORDS[this.language().split("-")[0]] || WORDS.en;
  }

  focused() {
    return this.shadowRoot?.activeElement?.id || "";
  }

  /** @param {boolean} on */
  busy(on) {
    this.content.setAttribute("aria-busy", String(on));
  }

  /** @param {any} ctx */
  shown(ctx) {
    const root = /** @type {any} */ (this.shadowRoot).firstElementChild;
    const head = this.content.firstElementChild;
    for (const name of ["lang", "dir"]) if (head?.hasAttribute(name)) root.setAttribute(name, head.getAttribute(name));
    const dialog = this.overlay.querySelector("dialog");
    if (dialog && !dialog.open) dialog.showModal();
    if (!dialog && !this.focused() && (this.focusId || ctx.sourceEvent.isTrusted)) this.refocus();
    const notice = (dialog || this.content).querySelector("[data-announce]");
    if (notice) this.status.textContent = notice.textContent.trim();
    if (!this.failed && !this.isReady) {
      this.isReady = true;
      this.emit("plangate-ready");
    }
  }

  /** A swap took away what had the focus: give it to its successor, to the notice, or to the whole. */
  refocus() {
    const find = (/** @type {string} */ id) => id && this.shadowRoot?.getElementById(id);
    /** @type {any} */
    const next = this.content.querySelector("[data-focus]") || find(this.focusId) || find(this.opener) || this.content;
    if (next === this.content) next.tabIndex = -1;
    next.focus({ preventScroll: next === this.content });
  }

  /** @param {string} name @param {object} [detail] @returns {boolean} false when the host cancelled it */
  emit(name, detail = {}) {
    return this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true, cancelable: true }));
  }

  /** An event the server named in its answer. @param {string} name @param {object} detail */
  announce(name, detail) {
    this.emit(name, detail);
    if (name === "plangate-plan-changed") reloadAll(this);
  }

  /** @param {SubmitEvent} event */
  choose(event) {
    const button = /** @type {HTMLButtonElement | null} */ (event.submitter);
    if (button?.name !== "plan") return;
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const wish = { plan: button.value, interval: form.get("interval"), currency: form.get("currency") };
    const stop = !this.emit("plangate-plan-selected", wish);
    const signUp = button.dataset.signUp;
    if (!stop && signUp === undefined) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!stop && signUp) {
      const url = new URL(signUp, location.href);
      for (const [name, value] of Object.entries(wish)) if (value) url.searchParams.set(name, String(value));
      if (/^https?:$/.test(url.protocol)) location.assign(url);
    }
  }
}

/** @param {PlangateElement} [except] */
function reloadAll(except) {
  for (const element of living) if (element !== except) element.refresh();
}

/** @param {string} path @param {number} blocks */
const define = (path, blocks) =>
  customElements.define(
    "plangate-" + path,
    class extends PlangateElement {
      path = path;
      blocks = blocks;
    },
  );

define("pricing-table", 4);
define("plan-manager", 1);
define("usage", 4);
define("invoices", 1);
define("portal", 1);

// === The page around us =============================================================================

addEventListener("online", () => living.forEach((element) => element.failed && element.refresh()));
addEventListener("pageshow", (event) => event.persisted && reloadAll());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  // A tab that comes back shows today's numbers, unless somebody is in the middle of a decision.
  for (const element of living) {
    if (Date.now() - element.fetchedAt > 30000 && !element.overlay.firstChild) element.refresh();
  }
});
setTimeout(() => (returned = null), 10000);
