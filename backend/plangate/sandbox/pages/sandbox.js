// The control page: shows what happens in the sandbox and moves its clock. Text only, never markup, comes from data.
"use strict";

const byId = (id) => document.getElementById(id);
const looks = { "no endpoint": "none", delivered: "ok", lost: "bad", failed: "bad" };
let nextDue = null;

async function call(method, path, body) {
  const answer = await fetch(`/_sandbox/${path}`, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error.message);
  return found;
}

function say(text, failed = false) {
  byId("said").textContent = text;
  byId("said").classList.toggle("failed", failed);
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function day(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" }) : "";
}

function showClock(clock) {
  nextDue = clock.next_due;
  byId("now").textContent = new Date(clock.now).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" }) + " UTC";
  const days = Math.round(clock.offset_seconds / 86400);
  byId("ahead").textContent = clock.offset_seconds > 60 ? `${days} ${days === 1 ? "day" : "days"} ahead` : "";
}

function showSubscriptions(objects) {
  const customers = new Map((objects.customer || []).map((c) => [c.id, c]));
  const products = new Map((objects.product || []).map((p) => [p.id, p.name]));
  const rows = (objects.subscription || []).slice().reverse().map((subscription) => {
    const row = element("tr");
    const customer = customers.get(subscription.customer) || {};
    row.append(element("td", customer.name || customer.email || subscription.customer));
    row.append(element("td", subscription.items.data.map((i) => `${i.quantity > 1 ? `${i.quantity} × ` : ""}${products.get(i.price.product) || i.price.id}`).join(", ")));
    const status = element("td");
    status.append(element("span", subscription.status.replaceAll("_", " "), `badge ${subscription.status}`));
    row.append(status);
    const end = subscription.items.data.length ? day(subscription.items.data[0].current_period_end) : "";
    row.append(element("td", subscription.cancel_at ? `${end} (cancels ${day(subscription.cancel_at)})` : end));
    const schedule = (objects.subscription_schedule || []).find((s) => s.id === subscription.schedule);
    const later = schedule ? schedule.phases.filter((p) => p.start_date > (schedule.current_phase || { start_date: 0 }).start_date) : [];
    row.append(element("td", later.length ? `Changes ${day(later[0].start_date)}` : schedule ? `Until ${day(schedule.phases.at(-1).end_date)}` : "—"));
    return row;
  });
  for (const customer of customers.values()) {
    if (customer.deleted || (objects.subscription || []).some((s) => s.customer === customer.id)) continue;
    const row = element("tr");
    row.append(element("td", customer.name || customer.email || customer.id), element("td", "—"), element("td", "no subscription", "muted"), element("td"), element("td"));
    rows.push(row);
  }
  if (!rows.length) {
    const row = element("tr");
    const cell = element("td", "No customers yet. They appear as soon as the API makes them.", "muted");
    cell.colSpan = 5;
    row.append(cell);
    rows.push(row);
  }
  byId("subscriptions").replaceChildren(...rows);
}

function showLog(id, rows, empty) {
  byId(id).replaceChildren(...(rows.length ? rows : [element("li", empty, "muted")]));
}

function requestRow(request) {
  const row = element("li");
  row.append(element("span", String(request.status), `status ${request.status < 400 ? "ok" : "bad"}`));
  row.append(element("code", `${request.method} ${request.path}`));
  const extra = [request.is_replay && "replayed", request.fault && `fault: ${request.fault}`, request.ignored.length && `no effect here: ${request.ignored.join(", ")}`].filter(Boolean);
  if (extra.length) row.append(element("span", ` ${extra.join(" · ")}`, "muted"));
  return row;
}

function eventRow(event) {
  const row = element("li");
  const states = Object.values(event.deliveries);
  const state = states.length ? (states.every((s) => s === "delivered") ? "delivered" : states.find((s) => s !== "delivered")) : "no endpoint";
  row.append(element("span", state, `status ${looks[state] || "wait"}`), element("code", event.type), element("span", ` ${event.object || ""}`, "muted"));
  return row;
}

async function refresh() {
  const [state, requests, events, faults] = await Promise.all([call("GET", "state"), call("GET", "requests"), call("GET", "events"), call("GET", "faults")]);
  showClock(state.clock);
  showSubscriptions(state.objects);
  showLog("requests", requests.data.slice(-60).reverse().map(requestRow), "No requests yet.");
  showLog("events", events.data.slice(-60).reverse().map(eventRow), "No events yet.");
  showLog("faults", faults.data.map((f) => element("li", `${f.fault.replaceAll("_", " ")}${f.fault === "fail_call" ? ` ${f.when} it applied` : ""} · ${f.count === null ? "until cleared" : `${f.count} left`}`)), "None in force.");
}

async function act(button, work, done) {
  button.disabled = true;
  try {
    const found = await work();
    say(done(found));
  } catch (error) {
    say(error.message, true);
  } finally {
    button.disabled = false;
    await refresh().catch(() => {});
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const moved = (found) => `The clock says ${found.now}.`;
  if (button.dataset.advance) act(button, () => call("POST", "clock", { advance: button.dataset.advance }), moved);
  if (button.dataset.next) act(button, async () => {
    const state = await call("GET", "state");
    const now = Date.parse(state.clock.now) / 1000;
    const ends = (state.objects.subscription || []).filter((s) => !s.ended_at).flatMap((s) => s.items.data.map((i) => i.current_period_end)).filter((e) => e > now);
    if (!ends.length) throw new Error("No subscription has a period to end.");
    return call("POST", "clock", { to: new Date((Math.min(...ends) + 3660) * 1000).toISOString() });
  }, moved);
  if (button.id === "reset") act(button, () => call("POST", "reset", {}), () => "The sandbox is empty.");
  if (button.id === "clear-faults") act(button, () => call("DELETE", "faults"), () => "No faults any more.");
});

byId("fault-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [fault, when] = byId("fault").value.split(":");
  const body = { fault, count: Number(byId("count").value) || 1 };
  if (when) body.when = when;
  if (fault === "delay_webhooks") body.seconds = 10;
  if (fault === "timeout") body.seconds = 30;
  act(event.submitter, () => call("POST", "faults", body), () => "The fault waits for its moment.");
});

refresh().catch((error) => say(error.message, true));
setInterval(() => { if (!document.hidden) refresh().catch(() => {}); }, 2000);
